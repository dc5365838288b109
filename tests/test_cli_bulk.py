"""``nxotp bulk``: what docs/bulk.md says of it, against a sandbox over loopback."""

import asyncio
import contextlib
import csv
import errno
import gzip
import importlib
import io
import json
import math
import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, BinaryIO, cast

import click
import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from support import accepted

from nxotp_async import Clock, OtpClient
from nxotp_async.bulk import Dispatcher, Ledger, MessageState, Report, load, open_messages
from nxotp_async.cli import nxotp
from nxotp_async.cli.bulk import bulk, progress, sending, summary
from nxotp_async.sandbox import CallbackPlan, Fault, Sandbox
from nxotp_async.testing import serve_in_thread
from nxotp_async.transports import Answer

run_module = importlib.import_module("nxotp_async.cli.bulk.run")  # the package has a command of the same name

COMMANDS = ("run", "resume", "status", "export", "resolve")
PAGE = Path(__file__).parent.parent / "docs" / "bulk.md"
OTP = "73915508"
CONTENT = f"Your code is {OTP}"
SECRET = "sandbox-access-secret"
KEYS = {
    "NXOTP_ACCESS_KEY": "sandbox-access-key",
    "NXOTP_ACCESS_SECRET": SECRET,
    "NXOTP_APPKEY": "sandbox-appkey",
}
GOOD = tuple(f"9995550{number:03}" for number in range(100, 200))
NO_COUNTRY = (
    "to starts with 0: the country code is missing (write it with its country code, +86 139 1234 5678 for example)"
)
COLUMNS = (
    "line",
    "cus_message_id",
    "to",
    "status",
    "message_id",
    "code",
    "meta_code",
    "error",
    "reason",
    "attempts",
    "receipt",
    "sent_at",
    "finished_at",
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals, modes and terminals as POSIX has them")
Env = Mapping[str, str]


# ---------------------------------------------------------------------------------------------- what the tests share


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def live() -> Iterator[Sandbox]:
    """A sandbox beside the test, for commands that run a loop of their own."""
    with serve_in_thread(Sandbox()) as sandbox:
        yield sandbox


@pytest.fixture
def account(live: Sandbox) -> Env:
    return account_of(live)


def account_of(sandbox: Sandbox) -> Env:
    return {**KEYS, "NXOTP_BASE_URL": sandbox.url}


def invoke(*arguments: str, env: Env | None = None, stdin: bytes | BinaryIO = b"") -> Result:
    """Run the command in this process, and check that nothing it prints holds what must not be seen."""
    result = CliRunner().invoke(nxotp, ["bulk", *arguments], input=stdin, env=env, prog_name="nxotp")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert_clean(result.stdout, numbers_may_show=arguments[0] == "export")
    assert_clean(result.stderr)
    return result


def assert_clean(text: str, *, numbers_may_show: bool = False) -> None:
    assert OTP not in text
    assert SECRET not in text
    assert numbers_may_show or not re.search(r"\b999(?:[ -]?\d){7}", text), text


def lines(*numbers: str) -> list[str]:
    return [f"{number},{CONTENT}" for number in numbers]


def write(*rows: str, header: str = "to,content", name: str = "otps.csv") -> str:
    Path(name).write_text("".join(f"{row}\n" for row in (header, *rows)), encoding="utf-8")
    return name


def otps(*numbers: str, name: str = "otps.csv") -> str:
    return write(*lines(*numbers), name=name)


def ledger_of(*rows: str, header: str = "to,content,cus_message_id", unknown: tuple[str, ...] = ()) -> str:
    """Make run.db of rows that nobody has sent yet, some of them unknown because a run was killed."""
    with Ledger("run.db") as ledger, open_messages(write(*rows, header=header, name="input.csv")) as file:
        load(ledger, file)
    if unknown:
        with Ledger("run.db") as ledger, ledger.transaction():
            waiting = ledger.fresh(1000, 0.0, after=0)
            ledger.claim([stored.key for stored in waiting if stored.message.cus_message_id in unknown], 0.0)
    return "run.db"


def counts_of(ledger: str = "otps.csv.ledger") -> dict[str, int]:
    with Ledger(ledger, create=False) as opened:
        return {str(state): count for state, count in sorted(opened.counts().items())}


def results_of(ledger: str = "otps.csv.ledger") -> list[dict[str, Any]]:
    with Ledger(ledger, create=False) as opened:
        return list(opened.results())


def received(sandbox: Sandbox) -> list[str]:
    """The recipients of what the sandbox has accepted, in order."""
    return sorted(message.to for message in sandbox.messages)


def mode_of(path: str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command as a process of its own, and leave none behind."""
    with contextlib.ExitStack() as stack:
        # A shell has its background jobs ignore Ctrl-C, and what they start would ignore it too.
        stack.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))

        def start(
            *arguments: str,
            env: Env | None = None,
            stdout: int | IO[str] = subprocess.PIPE,
            program: tuple[str, ...] = ("-m", "nxotp_async"),
        ) -> Any:
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *program, "bulk", *arguments],
                    env={**environment, **(env or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=subprocess.PIPE,
                    encoding="utf-8",
                )
            )
            watchdog = threading.Timer(60, process.kill)
            watchdog.start()
            stack.callback(watchdog.cancel)
            stack.callback(process.kill)
            return process

        yield start


def read_until(stream: IO[str] | None, pattern: str) -> str:
    """Read no further than to the first match."""
    assert stream is not None
    text = ""
    while not re.search(pattern, text):
        char = stream.read(1)
        assert char, f"it ended, having said {text!r}"
        text += char
    return text


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


class DueClock:
    """A sandbox's clock, which it reads at every request and answer: it acts when one of them is due."""

    def __init__(self, due: int, act: Callable[[], object]) -> None:
        self._left = due
        self._act = act

    def __call__(self) -> float:
        self._left -= 1
        if self._left == 0:
            self._act()
        return time.time()


# ---------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda command: " ".join(command) or "-")
def test_help_is_to_be_had_everywhere(command: tuple[str, ...]) -> None:
    result = invoke(*command, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: {' '.join(('nxotp', 'bulk', *command))} ")


def test_every_command_and_option_explains_itself() -> None:
    assert sorted(bulk.commands) == sorted(COMMANDS)
    for command in bulk.commands.values():
        assert command.help
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, (command.name, parameter.name)


@pytest.mark.parametrize("example", ["run otps.csv", *(f"{name} otps.csv.ledger" for name in COMMANDS[1:])])
def test_the_first_help_has_an_example_of_each_command(example: str) -> None:
    assert re.search(rf"^ *nxotp bulk {example} ", invoke("--help").stdout, re.MULTILINE)


@pytest.mark.parametrize("form", ["", "delivered ID...", "failed ID...", "resend ID...", "--callbacks FILE"])
def test_the_help_of_resolve_has_each_of_its_forms(form: str) -> None:
    assert re.search(
        rf"^ *nxotp bulk resolve run.db +{re.escape(form)}", invoke("resolve", "--help").stdout, re.MULTILINE
    )


def test_the_help_names_the_exit_codes_of_the_page() -> None:
    table = re.findall(r"^\| (\d+) \| (.+?) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [code for code, _ in table] == ["0", "1", "2", "3", "6", "130"]
    text = " ".join(invoke("--help").stdout.split())
    for code, words in {
        "0": "all accepted",
        "1": "some rejected or not sent",
        "2": "wrong usage or file",
        "3": "configuration",
        "6": "some unknown",
        "130": "interrupted",
    }.items():
        assert f"{code} {words}" in text


def test_the_options_of_the_page_are_taken_as_they_stand_there() -> None:
    written = re.findall(r"^\| `(--[^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(written) == 8
    for command, subject in (("run", "otps.csv"), ("resume", "otps.csv.ledger")):
        arguments = [subject, *(part for option in written for part in option.split())]
        params = bulk.commands[command].make_context(command, arguments).params
        assert params["per_recipient"] == 6.0
        assert params["reject_on"] == (9004,)
        assert (params["rate"], params["concurrency"], params["max_per_recipient"]) == (80.0, 64, 3)
        assert (params["max_attempts"], params["as_json"]) == (5, True)
        assert (params["listen"], params["dr_webhook"]) == (("127.0.0.1", 8090), "URL")


# ---------------------------------------------------------------------------------------------- outcomes


REJECTED, LOST, NO_BALANCE, NO_PRICE = "999000009015", "999300000002", "999000009005", "999000009004"

OUTCOMES = {
    "all accepted": (GOOD[:3], (), 0, {"accepted": 3}),
    "one rejected": ((GOOD[0], REJECTED), (), 1, {"accepted": 1, "rejected": 1}),
    "one no message": ((GOOD[0], "0555"), (), 1, {"accepted": 1, "not_sent": 1}),
    "one over the cap": ((GOOD[0], GOOD[0]), ("--max-per-recipient", "1"), 1, {"accepted": 1, "not_sent": 1}),
    "one unknown": ((GOOD[0], LOST), (), 6, {"accepted": 1, "unknown": 1}),
    "answers that say nothing": (
        tuple(f"99930000000{kind}" for kind in (1, 2, 3, 4, 5)),
        (),
        6,
        {"unknown": 5},
    ),
    "unknown and rejected": ((LOST, REJECTED, GOOD[0]), (), 6, {"accepted": 1, "rejected": 1, "unknown": 1}),
    "paused": ((NO_BALANCE,), (), 3, {"queued": 1}),
    "paused, and one unknown": ((LOST, NO_BALANCE), ("--concurrency", "1"), 3, {"queued": 1, "unknown": 1}),
    "no price, and told to go on": ((NO_PRICE, GOOD[0]), ("--reject-on", "9004"), 1, {"accepted": 1, "rejected": 1}),
    "several codes to go on at": (
        (NO_PRICE, NO_BALANCE, GOOD[0]),
        ("--reject-on", "9004", "--reject-on", "9005"),
        1,
        {"accepted": 1, "rejected": 2},
    ),
    "the last attempt": (("999000009001",), ("--max-attempts", "1"), 1, {"rejected": 1}),
}


@pytest.mark.parametrize(("numbers", "options", "exit_code", "counts"), OUTCOMES.values(), ids=OUTCOMES)
def test_a_run_has_the_exit_code_that_tells_most(
    account: Env, numbers: tuple[str, ...], options: tuple[str, ...], exit_code: int, counts: dict[str, int]
) -> None:
    result = invoke("run", otps(*numbers), *options, env=account)
    assert result.exit_code == exit_code
    shown = counts_in(result.stdout)
    states = {"queued": 0, "accepted": 0, "rejected": 0, "not_sent": 0, "unknown": 0}
    assert {state: shown[state] for state in states} == {**states, **counts}
    assert shown["total"] == len(numbers)
    assert counts_of() == dict(sorted(counts.items()))


def counts_in(table: str) -> dict[str, int]:
    found = re.findall(r"^(queued|accepted|rejected|not sent|unknown|total) +([\d,]+) *$", table, re.MULTILINE)
    return {name.replace(" ", "_"): int(count.replace(",", "")) for name, count in found}


def test_the_summary_of_a_good_run_is_a_table_on_stdout_and_the_rest_is_on_stderr(account: Env) -> None:
    result = invoke("run", otps(*GOOD[:2]), env=account)
    assert result.stdout == (
        "queued    0\naccepted  2\nrejected  0\nnot sent  0\nunknown   0\ntotal     2\n"  # nothing to explain
    )
    assert result.stderr == (
        "2 rows: 2 queued in otps.csv.ledger\n"
        "one row of results for each row of the input: nxotp bulk export otps.csv.ledger\n"
    )


def test_the_summary_says_why_how_many_and_what_to_do(account: Env) -> None:
    result = invoke("run", otps(GOOD[0], REJECTED, REJECTED, LOST, "999100131026", "0555"), env=account)
    reasons = result.stdout.partition("total     6\n")[2]
    assert re.match(r"state +why +number +for example \(and what to do\)", reasons)
    assert re.search(r"^rejected +OtpContentError 9015 +2  code 9015, ", reasons, re.MULTILINE)
    assert re.search(r"^rejected +MetaError 9099/131026 +1  ", reasons, re.MULTILINE)
    assert re.search(r"^unknown +OutcomeUnknownError +1  ", reasons, re.MULTILINE)
    assert re.search(r"^not sent +InvalidMessageError +1  to starts with 0", reasons, re.MULTILINE)
    assert "one run of 4 to 8 digits" in " ".join(reasons.split())
    assert result.stderr.endswith(
        "unknown ones may have arrived; settle them with: nxotp bulk resolve otps.csv.ledger --help\n"
        "one row of results for each row of the input: nxotp bulk export otps.csv.ledger\n"
    )


def test_a_reason_with_brackets_is_printed_as_it_is(account: Env) -> None:
    file = write(f"{GOOD[0]},{CONTENT},[/b]", header="to,content,language_code")
    result = invoke("run", file, env=account)
    assert result.exit_code == 1
    assert "unknown language code '[/b]'" in " ".join(result.stdout.split())
    assert "'[/b]'" in invoke("status", "otps.csv.ledger").stdout


def test_the_summary_as_json_is_valid_complete_and_alone_on_stdout(account: Env) -> None:
    result = invoke("run", otps(GOOD[0], REJECTED, "0555"), "--json", env=account)
    shown = json.loads(result.stdout)
    reasons = sorted(shown.pop("reasons"), key=lambda reason: str(reason["state"]))
    expected: list[dict[str, Any]] = [
        {"state": "not_sent", "error": "InvalidMessageError", "code": None, "reason": NO_COUNTRY},
        {"state": "rejected", "error": "OtpContentError", "code": 9015},
    ]
    assert shown == {
        "ledger": "otps.csv.ledger",
        "total": 3,
        "queued": 0,
        "accepted": 1,
        "rejected": 1,
        "not_sent": 1,
        "unknown": 0,
        "paused": None,
        "stopped": False,
        "receipts": {"sent": 0, "delivered": 0, "read": 0, "failed": 0},
    }
    for reason, some in zip(reasons, expected, strict=True):
        assert reason.keys() == {"state", "error", "code", "meta_code", "count", "reason"}
        assert {name: reason[name] for name in some} == some
        assert (reason["count"], reason["meta_code"]) == (1, None)


def test_a_pause_as_json_has_its_error(account: Env) -> None:
    shown = json.loads(invoke("run", otps(NO_BALANCE), "--json", env=account).stdout)
    assert shown["paused"] == {
        "error": "AccountError",
        "message": "code 9005, insufficient account balance (recharge the account)",
    }
    assert shown["stopped"] is False


def test_a_message_that_has_expired_is_not_sent(live: Sandbox, account: Env) -> None:
    file = write(
        f"{GOOD[0]},{CONTENT},2020-01-01T00:00:00Z",
        f"{GOOD[1]},{CONTENT},4102444800",
        header="to,content,expires_at",
    )
    result = invoke("run", file, env=account)
    assert (result.exit_code, counts_of(), received(live)) == (1, {"accepted": 1, "not_sent": 1}, [GOOD[1]])
    assert "Expired" in result.stdout


@pytest.mark.parametrize("attempts", [1, 4])
def test_a_refusal_that_may_pass_is_tried_so_often(
    live: Sandbox, account: Env, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    monkeypatch.setattr("nxotp_async.retry.RetryPolicy.pause", lambda *_: 0.0)
    result = invoke("run", otps("999000009001"), "--max-attempts", str(attempts), env=account)
    assert (result.exit_code, len(live.requests), counts_of()) == (1, attempts, {"rejected": 1})
    assert results_of()[0]["attempts"] == attempts


def test_no_more_requests_are_in_flight_than_told(live: Sandbox, account: Env) -> None:
    assert invoke("run", otps(*GOOD[:30]), "--concurrency", "3", env=account).exit_code == 0
    assert 1 <= live.max_in_flight <= 3


def test_uvloop_is_not_needed(live: Sandbox, account: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert invoke("run", otps(*GOOD[:2]), env=account).exit_code == 0
    assert received(live) == list(GOOD[:2])


# ---------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("1/6s", 6.0), ("10/m", 6.0), ("1/h", 3600.0), ("2/1.5s", 0.75), ("1/.5s", 0.5), ("3/2m", 40.0), ("1 / 6 s", 6.0)],
)
@pytest.mark.parametrize("command", ["run", "resume"])
def test_messages_per_time_are_seconds_between_two(command: str, written: str, seconds: float) -> None:
    context = bulk.commands[command].make_context(command, ["file", "--per-recipient", written])
    assert context.params["per_recipient"] == seconds


WRONG_OPTIONS = [
    *(("--per-recipient", value) for value in ("rubbish", "", "6", "1/6", "0/6s", "-1/6s", "1/6d", "1/.s", "1/0s")),
    ("--rate", "0"),
    ("--rate", "-1"),
    ("--rate", "inf"),
    ("--rate", "nan"),
    ("--rate", "80/s"),
    ("--concurrency", "0"),
    ("--concurrency", "10001"),
    ("--max-attempts", "0"),
    ("--max-per-recipient", "0"),
    ("--reject-on", "balance"),
    ("--listen", "here"),
    ("--listen", "65536"),
    ("--listen-for", "-1"),
    ("--no-such-option",),
]


@pytest.mark.parametrize("options", WRONG_OPTIONS, ids=" ".join)
@pytest.mark.parametrize("command", ["run", "resume"])
def test_an_option_that_is_wrong_is_told_before_anything_is_done(command: str, options: tuple[str, ...]) -> None:
    result = invoke(command, "no-such-file", *options, env=KEYS)
    assert (result.exit_code, result.stdout) == (2, "")
    assert options[0] in result.stderr
    assert "no-such-file" not in result.stderr
    assert not list(Path().iterdir())


@pytest.mark.parametrize("arguments", [(), ("--format", "xml"), ("--format", "xml", "otps.csv"), ("a.csv", "b.csv")])
def test_a_run_refuses_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = invoke("run", *arguments, env=KEYS)
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize("command", ["run", "resume"])
def test_every_option_reaches_whom_it_is_meant_for(
    live: Sandbox, account: Env, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    given: dict[str, Any] = {}

    class Watched(Dispatcher):
        def __init__(self, ledger: Ledger, client: OtpClient, **options: Any) -> None:
            given.update(options, concurrency=client.max_concurrency)
            super().__init__(ledger, client, **options)

    monkeypatch.setattr(sending, "Dispatcher", Watched)
    subject = otps(GOOD[0]) if command == "run" else ledger_of(f"{GOOD[0]},{CONTENT},a")
    options = {
        "--rate": "500",
        "--concurrency": "3",
        "--per-recipient": "1/6s",
        "--max-per-recipient": "2",
        "--max-attempts": "7",
        "--reject-on": "9004",
        "--base-url": live.url,
    }
    arguments = [part for pair in options.items() for part in pair]
    result = invoke(command, subject, *arguments, env={**account, "NXOTP_BASE_URL": "http://example.com"})
    assert result.exit_code == 0
    assert received(live) == [GOOD[0]]
    assert given.pop("retry").max_attempts == 7
    assert given == {
        "rate": 500.0,
        "concurrency": 3,
        "per_recipient": 6.0,
        "max_per_recipient": 2,
        "reject_on": (9004,),
    }


def test_messages_to_one_recipient_are_kept_apart(live: Sandbox, account: Env) -> None:
    result = invoke("run", otps(GOOD[0], GOOD[0], GOOD[1], GOOD[0]), "--per-recipient", "1/.05s", env=account)
    assert (result.exit_code, counts_of()) == (0, {"accepted": 4})
    first, second, other, third = (row["sent_at"] for row in results_of())
    assert other < second
    assert second - first >= 0.049
    assert third - second >= 0.049


def test_a_recipient_gets_no_more_than_the_cap_over_several_runs(live: Sandbox, account: Env) -> None:
    options = ("--ledger", "run.db", "--max-per-recipient", "2")
    assert invoke("run", otps(GOOD[0], GOOD[1]), *options, env=account).exit_code == 0
    result = invoke("run", otps("0555", "0556", *[GOOD[0]] * 3, name="more.csv"), *options, env=account)
    assert result.exit_code == 1
    assert counts_of("run.db") == {"accepted": 3, "not_sent": 2 + 2}
    assert received(live) == [GOOD[0], GOOD[0], GOOD[1]]


# ---------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize("missing", [{name} for name in KEYS] + [set(KEYS)], ids=lambda names: " ".join(sorted(names)))
@pytest.mark.parametrize("command", ["run", "resume"])
def test_a_missing_key_is_named_by_its_variable_before_anything_is_loaded(
    live: Sandbox, account: Env, command: str, missing: set[str]
) -> None:
    subject = otps(GOOD[0], "0555") if command == "run" else "no-such.ledger"
    result = invoke(command, subject, env={name: value for name, value in account.items() if name not in missing})
    assert (result.exit_code, result.stdout) == (3, "")
    assert set(re.findall(r"NXOTP_\w+", result.stderr)) == missing
    assert not live.requests
    assert {path.name for path in Path().iterdir()} <= {"otps.csv"}


@pytest.mark.parametrize(
    ("options", "env", "said"),
    [
        (("--base-url", "http://example.com"), {}, "base_url"),
        ((), {"NXOTP_TIMEOUT": "soon"}, "NXOTP_TIMEOUT"),
        ((), {"NXOTP_MAX_CONCURRENCY": "0"}, "NXOTP_MAX_CONCURRENCY"),
    ],
)
def test_a_wrong_setting_is_named(account: Env, options: tuple[str, ...], env: Env, said: str) -> None:
    result = invoke("run", otps(GOOD[0]), *options, env={**account, **env})
    assert (result.exit_code, result.stdout) == (3, "")
    assert said in result.stderr
    assert not Path("otps.csv.ledger").exists()


# ---------------------------------------------------------------------------------------------- files in


def packed(text: str) -> bytes:
    return gzip.compress(text.encode())


CSV = f"Phone,Code,order\n+999 555 0100,{OTP},A-1\n+999 555 0101,{OTP},A-2\n"
NDJSON = "".join(f'{{"to": "{number}", "content": "{CONTENT}", "order": 1}}\n' for number in GOOD[:2])
FILES = {
    "otps.csv": CSV.encode(),
    "with-a-mark.csv": b"\xef\xbb\xbf" + CSV.encode(),
    "semicolons.csv": CSV.replace(",", ";").encode(),
    "tabs.tsv": CSV.replace(",", "\t").encode(),
    "bars.txt": CSV.replace(",", "|").encode(),
    "carriage-returns.csv": CSV.replace("\n", "\r\n").encode(),
    "otps.ndjson": NDJSON.encode(),
    "otps.jsonl": NDJSON.encode(),
    "otps.csv.gz": packed(CSV),
    "otps.ndjson.gz": packed(NDJSON),
    "packed-all-the-same.csv": packed(CSV),
}


@pytest.mark.parametrize(("name", "content"), FILES.items(), ids=FILES)
def test_a_file_of_any_kind_is_sent(live: Sandbox, account: Env, name: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    result = invoke("run", name, env=account)
    assert result.exit_code == 0
    assert received(live) == list(GOOD[:2])
    assert {message.otp for message in live.messages} == {OTP}
    assert sorted(path.name for path in Path().iterdir()) == sorted((name, f"{name}.ledger"))


def test_every_field_of_a_message_reaches_the_vendor(live: Sandbox, account: Env) -> None:
    row = {
        "Phone": "+999 555 0100",
        "text": CONTENT,
        "Language Code": "pt-BR",
        "category": "utility",
        "cusMessageId": "order-1",
        "DR webhook": "https://example.com/status",
        "api_type": "0",
        "business-phone": "99955500000",
        "expires_at": "4102444800000",
    }
    result = invoke("run", write(",".join(row.values()), header=",".join(row)), env=account)
    assert result.exit_code == 0
    (message,) = live.messages
    assert (message.to, message.content, message.cus_message_id) == (GOOD[0], CONTENT, "order-1")
    names = ("language_code", "category", "dr_webhook", "business_phone", "api_type")
    assert [message.fields[name] for name in names] == [
        "pt_BR",
        "UTILITY",
        "https://example.com/status",
        "99955500000",
        0,
    ]


@pytest.mark.parametrize(("content", "kind"), [(CSV, "csv"), (NDJSON, "ndjson"), (CSV, "CSV")])
@pytest.mark.parametrize("pack", [str.encode, packed], ids=["plain", "gzip"])
def test_standard_input_is_sent(
    live: Sandbox, account: Env, content: str, kind: str, pack: Callable[[str], bytes]
) -> None:
    with piped(pack(content)) as stdin:
        result = invoke("run", "-", "--format", kind, "--ledger", "run.db", env=account, stdin=stdin)
    assert result.exit_code == 0
    assert result.stderr.startswith("2 rows: 2 queued in run.db\n")
    assert received(live) == list(GOOD[:2])


@contextlib.contextmanager
def piped(content: bytes) -> Iterator[BinaryIO]:
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        yield file


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--ledger run.db"),
        (("--format", "csv"), "--ledger run.db"),
        (("--ledger", "run.db"), "--format csv or ndjson"),
    ],
    ids=" ".join,
)
def test_standard_input_needs_a_ledger_and_a_format(
    live: Sandbox, account: Env, options: tuple[str, ...], said: str
) -> None:
    with piped(CSV.encode()) as stdin:
        result = invoke("run", "-", *options, env=account, stdin=stdin)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert not live.requests
    assert not list(Path().iterdir())


def test_a_format_wins_over_the_name(live: Sandbox, account: Env) -> None:
    Path("otps.csv").write_text(NDJSON)
    assert invoke("run", "otps.csv", "--format", "ndjson", env=account).exit_code == 0
    assert received(live) == list(GOOD[:2])


REFUSED: dict[str, tuple[str, bytes, int | None]] = {
    "a quote that never closes": ("otps.csv", f'{CSV}{GOOD[2]},{OTP},A-3\n{GOOD[3]},{OTP},"A\n{CSV}'.encode(), 5),
    "half a gzip": ("otps.csv.gz", packed(CSV)[:-12], None),
    "another encoding": ("otps.csv", f"{CSV}{GOOD[2]},{OTP},Müller\n".encode("latin-1"), 4),
    "UTF-16": ("otps.csv", CSV.encode("utf-16"), 1),
    "a NUL byte": ("otps.csv", f"{CSV}\0\n".encode(), 4),
    "no column names": ("otps.csv", "".join(f"{line}\n" for line in lines(*GOOD[:2])).encode(), 1),
    "two columns of one field": ("otps.csv", f"to,content,phone\n{GOOD[0]},{OTP},{GOOD[0]}\n".encode(), 1),
    "a list of objects": ("otps.ndjson", f'[{{"to": "{GOOD[0]}", "content": "{OTP}"}}]'.encode(), 1),
    "nothing at all": ("otps.csv", b"", None),
    "no rows": ("otps.csv", b"to,content\n", None),
    "a spreadsheet": ("otps.csv", b"PK\x03\x04rest of it", None),
    "no gzip": ("otps.csv.gz", CSV.encode(), None),
    "a name that tells nothing": ("otps.xlsx", CSV.encode(), None),
}


@pytest.mark.parametrize(("name", "content", "line"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_a_file_that_cannot_be_read_to_its_end_is_refused_as_a_whole(
    live: Sandbox, account: Env, name: str, content: bytes, line: int | None, options: tuple[str, ...]
) -> None:
    Path(name).write_bytes(content)
    result = invoke("run", name, *options, env=account)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("nxotp: ")
    assert result.stderr.count("\n") == 1
    assert name in result.stderr
    if line is not None:
        assert f"{name}, line {line}: " in result.stderr
    assert not live.requests
    assert not Path(f"{name}.ledger").exists() or counts_of(f"{name}.ledger") == {}
    assert not list(Path().glob("*rejects*"))


@pytest.mark.parametrize("name", ["no-such.csv", "folder", "folder/"])
def test_a_file_that_is_none_is_refused_by_its_name(account: Env, name: str) -> None:
    Path("folder").mkdir()
    result = invoke("run", name, "--format", "csv", env=account)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.match(rf"nxotp: {name.removesuffix('/')} cannot be (opened|read): ", result.stderr)


def test_the_same_command_once_more_sends_nothing_twice(live: Sandbox, account: Env) -> None:
    file = otps(*GOOD[:20], "0555")
    first = invoke("run", file, env=account)
    second = invoke("run", file, env=account)
    assert (first.exit_code, second.exit_code) == (1, 1)
    assert first.stderr.splitlines()[1] == "21 rows: 20 queued in otps.csv.ledger, 1 set aside in otps.rejects.csv"
    assert second.stderr.splitlines()[0] == "21 rows: 0 queued in otps.csv.ledger, 21 were there before"
    assert first.stdout == second.stdout
    assert len(live.requests) == 20
    assert received(live) == list(GOOD[:20])
    assert [path.name for path in Path().glob("*rejects*")] == ["otps.rejects.csv"]


def test_rows_that_were_added_meanwhile_are_all_that_is_sent(live: Sandbox, account: Env) -> None:
    invoke("run", otps(*GOOD[:2]), env=account)
    result = invoke("run", otps(*GOOD[:3]), env=account)
    assert result.stderr.startswith("3 rows: 1 queued in otps.csv.ledger, 2 were there before\n")
    assert received(live) == list(GOOD[:3])


def test_rows_with_ids_are_known_by_them_wherever_they_stand(live: Sandbox, account: Env) -> None:
    rows = [f"{number},{CONTENT},id-{number}" for number in GOOD[:3]]
    header = "to,content,cus_message_id"
    invoke("run", write(*rows, header=header), env=account)
    invoke("run", write(*reversed(rows), header=header), env=account)
    assert received(live) == list(GOOD[:3])


# ---------------------------------------------------------------------------------------------- bad rows


def test_a_dry_run_reports_every_bad_row_and_sends_nothing(live: Sandbox, account: Env) -> None:
    rows = [*lines(GOOD[0], "0555 0100"), f"{GOOD[1]},no code", f"{GOOD[2]},{CONTENT},more"]
    result = invoke("run", write(*rows), "--dry-run", env=account)
    assert result.exit_code == 1
    assert result.stdout == (
        f"line 3: {NO_COUNTRY}\n"
        "line 4: content holds no code (it must hold exactly one run of 4 to 8 digits)\n"
        "line 5: has 3 cells, not 2\n"
    )
    assert result.stderr == "4 rows: 1 good, 3 bad; nothing was sent\n"
    assert not live.requests
    assert [path.name for path in Path().iterdir()] == ["otps.csv"]


def test_a_dry_run_as_json_is_alone_on_stdout() -> None:
    result = invoke("run", otps(GOOD[0], "0555"), "--dry-run", "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    assert json.loads(result.stdout) == {
        "rows": 2,
        "good": 1,
        "bad": 1,
        "rejects": [{"line": 3, "problem": NO_COUNTRY}],
    }


def test_a_dry_run_needs_no_account_and_a_good_file_passes_it() -> None:
    result = invoke("run", otps(*GOOD[:2]), "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "2 rows: 2 good, 0 bad; nothing was sent\n"
    as_json = invoke("run", otps(*GOOD[:2]), "--dry-run", "--json")
    assert json.loads(as_json.stdout) == {"rows": 2, "good": 2, "bad": 0, "rejects": []}


def test_a_dry_run_of_standard_input_needs_no_ledger() -> None:
    with piped(CSV.encode()) as stdin:
        result = invoke("run", "-", "--format", "csv", "--dry-run", stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, "2 rows: 2 good, 0 bad; nothing was sent\n")


def test_with_strict_a_bad_row_stops_everything(live: Sandbox, account: Env) -> None:
    result = invoke("run", otps(GOOD[0], "0555"), "--strict", env=account)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"line 3: {NO_COUNTRY}\nnxotp: otps.csv: 1 of 2 rows are invalid (nothing was loaded or sent)\n"
    )
    assert (counts_of(), len(live.requests)) == ({}, 0)
    assert not list(Path().glob("*rejects*"))


def test_a_good_file_passes_strict(live: Sandbox, account: Env) -> None:
    assert invoke("run", otps(GOOD[0]), "--strict", env=account).exit_code == 0
    assert received(live) == [GOOD[0]]


def test_no_more_than_twenty_bad_rows_are_shown(account: Env) -> None:
    result = invoke("run", otps(GOOD[0], *["0555"] * 25), env=account)
    shown = result.stderr.splitlines()
    assert sum(line.startswith("line ") for line in shown) == 20
    assert shown[20] == "... and 5 bad rows more"
    assert len(Path("otps.rejects.csv").read_text().splitlines()) == 26


@posix
def test_bad_rows_are_set_aside_as_they_were_with_what_is_wrong(account: Env) -> None:
    file = write(f"{GOOD[0]},{CONTENT},A", f'0555,{CONTENT},"B, C"', header="to,content,order")
    invoke("run", file, env=account)
    with Path("otps.rejects.csv").open(newline="") as rejects:
        assert list(csv.reader(rejects)) == [
            ["rejected_line", "rejected_reason", "to", "content", "order"],
            ["3", NO_COUNTRY, "0555", CONTENT, "B, C"],
        ]
    assert mode_of("otps.rejects.csv") == 0o600


def test_bad_lines_of_ndjson_are_set_aside_as_ndjson(account: Env) -> None:
    Path("otps.ndjson").write_text(f'{NDJSON}{{"to": "0555", "content": "{CONTENT}"}}\nnot JSON\n')
    result = invoke("run", "otps.ndjson", env=account)
    assert result.exit_code == 1
    rejected = [json.loads(line) for line in Path("otps.rejects.ndjson").read_text().splitlines()]
    assert rejected == [
        {"rejected_line": 3, "rejected_reason": NO_COUNTRY, "to": "0555", "content": CONTENT},
        {"rejected_line": 4, "rejected_reason": "is no JSON object", "rejected_text": "not JSON"},
    ]


@pytest.mark.parametrize(
    ("file", "options", "rejects"),
    [
        ("otps.csv", (), "otps.rejects.csv"),
        ("otps.csv.gz", (), "otps.rejects.csv"),
        ("otps.2026.txt", (), "otps.2026.rejects.csv"),
        ("otps", ("--format", "csv"), "otps.rejects.csv"),
        ("folder/otps.csv", (), "folder/otps.rejects.csv"),
        ("otps.csv", ("--ledger", "folder/run.db"), "otps.rejects.csv"),
        ("otps.csv", ("--rejects", "folder/bad.csv"), "folder/bad.csv"),
        ("-", ("--format", "csv", "--ledger", "run.db"), "run.rejects.csv"),
        ("-", ("--format", "csv", "--ledger", "folder/run.db"), "folder/run.rejects.csv"),
        ("-", ("--format", "csv", "--ledger", "run.db", "--rejects", "bad.csv"), "bad.csv"),
    ],
)
def test_the_rejects_have_a_name_of_their_own(account: Env, file: str, options: tuple[str, ...], rejects: str) -> None:
    Path("folder").mkdir()
    text = "".join(f"{line}\n" for line in ("to,content", *lines(GOOD[0], "0555")))
    content = packed(text) if file.endswith(".gz") else text.encode()
    if file != "-":
        Path(file).write_bytes(content)
    with piped(content) as stdin:
        result = invoke("run", file, *options, env=account, stdin=stdin)
    assert result.exit_code == 1
    assert f", 1 set aside in {rejects}\n" in result.stderr
    assert Path(rejects).read_text().splitlines()[1].startswith("3,")
    assert len(list(Path().glob("**/*rejects*"))) == ("rejects" in rejects)


def test_corrected_rejects_go_into_the_same_ledger(live: Sandbox, account: Env) -> None:
    invoke("run", otps(GOOD[0], "0999 555 0101"), env=account)
    rejects = Path("otps.rejects.csv")
    rejects.write_text(rejects.read_text().replace("0999", "999"))
    result = invoke("run", "otps.rejects.csv", "--ledger", "otps.csv.ledger", env=account)
    assert result.stderr.startswith("1 rows: 1 queued in otps.csv.ledger\n")
    assert received(live) == list(GOOD[:2])
    assert counts_of() == {"accepted": 2, "not_sent": 1}


def test_rejects_that_were_worked_on_are_left_alone(account: Env) -> None:
    invoke("run", otps("0555"), env=account)
    Path("otps.rejects.csv").write_text("worked on\n")
    result = invoke("run", otps("0555", "0556"), env=account)
    assert "1 were there before, 1 set aside in otps.rejects-2.csv" in result.stderr
    assert Path("otps.rejects.csv").read_text() == "worked on\n"
    assert "0556" in Path("otps.rejects-2.csv").read_text()


def test_rejects_that_cannot_be_written_stop_everything(live: Sandbox, account: Env) -> None:
    result = invoke("run", otps(GOOD[0], "0555"), "--rejects", "no-such/bad.csv", env=account)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "nxotp: the rejects file no-such/bad.csv cannot be written: " in result.stderr
    assert "nothing was loaded or sent" in result.stderr
    assert (len(live.requests), counts_of()) == (0, {})


# ---------------------------------------------------------------------------------------------- ledgers


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_a_ledger_there_is_not_is_not_made(account: Env, command: str) -> None:
    result = invoke(command, "no-such.ledger", env=account)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "nxotp: there is no ledger no-such.ledger (nxotp bulk run makes one)\n"
    assert not list(Path().iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_no_ledger_is_left_as_it_is(live: Sandbox, account: Env, command: str) -> None:
    file = otps(GOOD[0])
    before = Path(file).read_bytes()
    result = (
        invoke("run", file, "--ledger", file, env=account) if command == "run" else invoke(command, file, env=account)
    )
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "nxotp: otps.csv is no ledger, or is damaged\n"
    assert Path(file).read_bytes() == before
    assert not live.requests


@pytest.mark.parametrize(
    ("ledger", "said"),
    [("no-such/run.db", "the directory no-such does not exist"), ("folder", "folder")],
)
def test_a_ledger_that_cannot_be_made_stops_everything(live: Sandbox, account: Env, ledger: str, said: str) -> None:
    Path("folder").mkdir()
    result = invoke("run", otps(GOOD[0]), "--ledger", ledger, env=account)
    assert (result.exit_code, result.stdout) == (3, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not live.requests


@posix
def test_a_ledger_is_nobody_elses_to_read(account: Env) -> None:
    before = os.umask(0)
    try:
        invoke("run", otps(GOOD[0]), env=account)
    finally:
        os.umask(before)
    assert {path.name: mode_of(path.name) for path in Path().glob("*.ledger*")} == {"otps.csv.ledger": 0o600}


# ---------------------------------------------------------------------------------------------- pauses


@pytest.mark.parametrize("code", [1003, 1005, 9004, 9005, 10003])
def test_an_answer_that_concerns_the_account_pauses_the_run(live: Sandbox, account: Env, code: int) -> None:
    file = otps(GOOD[0], f"9990{code:08}", *GOOD[1:4])
    result = invoke("run", file, "--concurrency", "1", env=account)
    assert result.exit_code == 3
    assert received(live) == [GOOD[0]]
    assert len(live.requests) == 2
    assert counts_of() == {"accepted": 1, "queued": 4}
    assert re.search(
        rf"^paused: code {code}, .+\nmend it, then go on with: nxotp bulk resume otps.csv.ledger$",
        result.stderr,
        re.MULTILINE,
    )


@pytest.mark.parametrize("again", [("resume", "otps.csv.ledger"), ("run", "otps.csv")], ids=["resume", "run"])
def test_a_paused_run_goes_on_with_all_of_it_once_mended(live: Sandbox, account: Env, again: tuple[str, str]) -> None:
    live.script(Fault(), Fault.answer(9005))
    paused = invoke("run", otps(*GOOD[:10]), "--concurrency", "1", env=account)
    assert (paused.exit_code, counts_of(), received(live)) == (3, {"accepted": 1, "queued": 9}, [GOOD[0]])
    result = invoke(*again, env=account)
    assert (result.exit_code, counts_of()) == (0, {"accepted": 10})
    assert received(live) == list(GOOD[:10])
    assert "paused" not in result.stderr


def test_a_wrong_secret_pauses_and_is_mended(live: Sandbox, account: Env) -> None:
    paused = invoke("run", otps(*GOOD[:3]), env={**account, "NXOTP_ACCESS_SECRET": "mistyped"})
    assert (paused.exit_code, counts_of(), live.messages) == (3, {"queued": 3}, [])
    assert "check the access secret first" in paused.stderr
    assert "mistyped" not in paused.output
    assert invoke("resume", "otps.csv.ledger", env=account).exit_code == 0
    assert received(live) == list(GOOD[:3])


def test_resume_has_nothing_to_do_where_all_is_done(live: Sandbox, account: Env) -> None:
    done = invoke("run", otps(*GOOD[:2]), env=account)
    again = invoke("resume", "otps.csv.ledger", env=account)
    assert (again.exit_code, again.stdout) == (0, done.stdout)
    assert len(live.requests) == 2


def test_resume_takes_other_options_and_tells_as_json(live: Sandbox, account: Env) -> None:
    ledger = ledger_of(f"{NO_PRICE},{CONTENT},a", f"{GOOD[0]},{CONTENT},b")
    assert invoke("resume", ledger, "--concurrency", "1", env=account).exit_code == 3
    result = invoke("resume", ledger, "--reject-on", "9004", "--json", env=account)
    assert (result.exit_code, result.stderr) == (1, "")
    shown = json.loads(result.stdout)
    assert (shown["ledger"], shown["accepted"], shown["rejected"], shown["queued"]) == ("run.db", 1, 1, 0)
    assert shown["paused"] is None


# ---------------------------------------------------------------------------------------------- stopping, crashing


@posix
@pytest.mark.parametrize(("name", "options"), [("SIGINT", ()), ("SIGTERM", ("--json",)), ("SIGHUP", ())], ids=str)
def test_a_signal_lets_what_is_in_flight_finish(start: Start, name: str, options: tuple[str, ...]) -> None:
    processes: list[subprocess.Popen[str]] = []
    said: list[str] = []
    told = threading.Event()

    def interrupt() -> None:
        # No answer leaves the sandbox until the process has said that it stops.
        processes[0].send_signal(signal.Signals[name])
        said.append(read_until(processes[0].stderr, r"leaves\s+at\s+once\n"))
        told.set()

    with serve_in_thread(Sandbox(clock=Clock(time=DueClock(25, interrupt)))) as sandbox:
        env = account_of(sandbox)
        processes.append(start("run", otps(*GOOD), "--concurrency", "8", *options, env=env))
        assert told.wait(30)
        code, out, err = finish(processes[0])
        counts = counts_of()
        assert code == 130
        assert re.search(r"stopping: waiting for [1-8] in flight, 30 s at the most", said[0])
        assert set(counts) == {"accepted", "queued"}
        assert counts["accepted"] == len(sandbox.messages) < 100
        assert (counts["accepted"] + counts["queued"], len(sandbox.requests)) == (100, counts["accepted"])
        if options:
            shown = json.loads(out)
            assert (shown["stopped"], shown["paused"], shown["accepted"]) == (True, None, counts["accepted"])
        else:
            assert counts_in(out)["queued"] == counts["queued"]
            assert "go on with: nxotp bulk resume otps.csv.ledger\n" in err
        for text in (*said, out, err):
            assert_clean(text)
            assert "Traceback" not in text
        assert invoke("resume", "otps.csv.ledger", env=env).exit_code == 0
        assert received(sandbox) == list(GOOD)


def a_run_that_hangs(start: Start, sandbox: Sandbox, arrived: threading.Event) -> "subprocess.Popen[str]":
    """Start a run, and return when its first three messages, which are never answered, are in flight."""
    rows = [f"999300000008,{CONTENT},hung-{place}" for place in range(3)]
    rows += [f"{number},{CONTENT},good-{number}" for number in GOOD[:5]]
    file = write(*rows, header="to,content,cus_message_id")
    process = start("run", file, "--concurrency", "3", env=account_of(sandbox))
    assert arrived.wait(30)
    while len(sandbox.messages) < 3:
        assert process.poll() is None
    return process


@posix
def test_a_second_signal_leaves_at_once_and_what_was_in_flight_is_unknown(start: Start) -> None:
    arrived = threading.Event()
    with serve_in_thread(Sandbox(clock=Clock(time=DueClock(3, arrived.set)))) as sandbox:
        process = a_run_that_hangs(start, sandbox, arrived)
        process.send_signal(signal.SIGINT)
        said = read_until(process.stderr, r"leaves\s+at\s+once\n")
        assert said.splitlines()[1:] == [
            "stopping: waiting for 3 in flight, 30 s at the most; Ctrl-C once more leaves at once"
        ]
        process.send_signal(signal.SIGINT)
        code, out, err = finish(process)
        assert (code, out) == (130, "")
        assert err == "nxotp: left at once; go on with: nxotp bulk resume otps.csv.ledger\n"
        assert counts_of() == {"queued": 5, "unknown": 3}
        hung = [row for row in results_of() if row["status"] == "unknown"]
        assert {(row["error"], row["attempts"]) for row in hung} == {("Interrupted", 1)}
        assert [row["cus_message_id"] for row in hung] == ["hung-0", "hung-1", "hung-2"]
        assert invoke("resume", "otps.csv.ledger", env=account_of(sandbox)).exit_code == 6
        assert Counter(received(sandbox)) == {"999300000008": 3, **dict.fromkeys(GOOD[:5], 1)}


@posix
def test_a_ledger_in_use_is_left_to_its_process_and_a_killed_one_is_resumed_and_settled(start: Start) -> None:
    arrived = threading.Event()
    with serve_in_thread(Sandbox(clock=Clock(time=DueClock(3, arrived.set)))) as sandbox:
        env = account_of(sandbox)
        process = a_run_that_hangs(start, sandbox, arrived)
        for command in COMMANDS:
            refused = invoke(command, "otps.csv" if command == "run" else "otps.csv.ledger", env=env)
            assert (command, refused.exit_code, refused.stdout) == (command, 3, "")
            assert refused.stderr == (
                "nxotp: otps.csv.ledger is in use by another process (wait until it has ended, or stop it)\n"
            )
        assert len(sandbox.requests) == 3
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL

        status = invoke("status", "otps.csv.ledger")
        assert status.exit_code == 0
        assert counts_in(status.stdout) == {
            **dict.fromkeys(("accepted", "rejected", "not_sent"), 0),
            "queued": 5,
            "unknown": 3,
            "total": 8,
        }
        assert re.search(
            r"^unknown +Interrupted +3  the process ended while the message was in flight *$",
            status.stdout,
            re.MULTILINE,
        )
        assert status.stderr == (
            "go on with: nxotp bulk resume otps.csv.ledger\n"
            "unknown ones may have arrived; settle them with: nxotp bulk resolve otps.csv.ledger --help\n"
            "one row of results for each row of the input: nxotp bulk export otps.csv.ledger\n"
        )

        resumed = invoke("resume", "otps.csv.ledger", env=env)
        assert resumed.exit_code == 6
        assert Counter(received(sandbox)) == {"999300000008": 3, **dict.fromkeys(GOOD[:5], 1)}

        assert invoke("resolve", "otps.csv.ledger").stdout == "hung-0\nhung-1\nhung-2\n"
        with piped(b"".join(callback(f"hung-{place}", "sent") for place in range(3))) as stdin:
            settled = invoke("resolve", "otps.csv.ledger", "--callbacks", "-", stdin=stdin)
        assert settled.stderr == "3 callbacks told something new of messages 3 times; 0 are unknown\n"
        assert invoke("resume", "otps.csv.ledger", env=env).exit_code == 0
        assert len(sandbox.messages) == 8


class OneRefusedAndOneWaiting:
    """A transport: the first post is refused for the account's sake, the second is answered after a Ctrl-C."""

    def __init__(self, dispatchers: list[Dispatcher]) -> None:
        self._dispatchers = dispatchers
        self._posts = 0

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        self._posts += 1
        if self._posts == 1:
            return Answer(200, {}, b'{"code":9005,"message":"insufficient balance","data":null}')
        while not self._dispatchers[0].is_stopping:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        signal.raise_signal(signal.SIGINT)
        for _ in range(20):
            await asyncio.sleep(0)
        return Answer(200, {}, accepted())

    async def aclose(self) -> None:
        pass


@posix
def test_the_first_signal_lets_what_is_in_flight_finish_where_the_run_is_pausing_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dispatchers: list[Dispatcher] = []

    class Watched(Dispatcher):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            dispatchers.append(self)

    monkeypatch.setattr(sending, "Dispatcher", Watched)
    transport = OneRefusedAndOneWaiting(dispatchers)
    monkeypatch.setattr(sending, "OtpClient", lambda **options: OtpClient(**options, transport=transport))
    result = invoke("run", otps(*GOOD[:2]), "--concurrency", "2", env=KEYS)
    assert counts_of() == {"accepted": 1, "queued": 1}
    assert result.exit_code in (3, 130)


def test_ctrl_c_while_the_file_is_read_leaves_nothing_of_it(
    live: Sandbox, account: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, on_reject: Callable[..., object], **options: Any) -> None:
        def reject_and_stop(*row: Any) -> None:
            on_reject(*row)
            raise KeyboardInterrupt

        load(*arguments, on_reject=reject_and_stop, **options)

    monkeypatch.setattr(run_module, "load", interrupted)
    result = invoke("run", otps(*GOOD[:5], "0555"), env=account)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.endswith("nxotp: interrupted; nothing was sent\n")
    assert (len(live.requests), counts_of()) == (0, {})
    assert not list(Path().glob("*rejects*"))


def test_ctrl_c_after_the_last_answer_does_not_say_that_nothing_was_sent(
    live: Sandbox, account: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sending, "print_summary", interrupted)
    result = invoke("run", otps(GOOD[0]), env=account)
    assert (result.exit_code, len(live.messages)) == (130, 1)
    assert "nothing was sent" not in result.stderr


# ---------------------------------------------------------------------------------------------- status


def test_the_status_is_that_of_the_ledger(account: Env) -> None:
    run = invoke("run", otps(GOOD[0], REJECTED, LOST, "0555"), env=account)
    status = invoke("status", "otps.csv.ledger")
    assert (status.exit_code, status.stdout) == (0, run.stdout)
    assert status.stderr == run.stderr.partition("otps.rejects.csv\n")[2]


def test_the_status_as_json_has_the_keys_of_a_runs_summary(account: Env) -> None:
    run = json.loads(invoke("run", otps(GOOD[0], REJECTED), "--json", env=account).stdout)
    status = invoke("status", "otps.csv.ledger", "--json")
    assert (status.exit_code, status.stderr) == (0, "")
    assert json.loads(status.stdout) == run


def test_the_status_of_a_run_that_has_not_begun_says_how_to_go_on() -> None:
    ledger = ledger_of(*(f"{GOOD[0]},{CONTENT},row-{number}" for number in range(1234)))
    status = invoke("status", ledger)
    assert (counts_in(status.stdout)["queued"], "queued    1,234\n" in status.stdout) == (1234, True)
    assert status.stderr.startswith("go on with: nxotp bulk resume run.db\n")
    assert "unknown" not in status.stderr


# ---------------------------------------------------------------------------------------------- export


def exported(*arguments: str) -> list[dict[str, str]]:
    result = invoke("export", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return list(csv.DictReader(io.StringIO(result.stdout)))


@pytest.fixture
def sent(account: Env) -> str:
    """The ledger of a run with one outcome of each kind, and columns of its own."""
    rows = [
        f"{GOOD[0]},{CONTENT},id-1,A-1,gold",
        f"{REJECTED},{CONTENT},id-2,A-2,",
        f"0555,{CONTENT},id-3,A-3,tin",
        f"{LOST},{CONTENT},id-4,A-4,",
        f"999100131026,{CONTENT},id-5,A-5,",
    ]
    file = write(*rows, header="to,content,cus_message_id,order,status")
    assert invoke("run", file, env=account).exit_code == 6
    return "otps.csv.ledger"


def test_an_export_has_a_row_for_each_of_the_input_in_its_order(sent: str) -> None:
    before = datetime.now(UTC)
    rows = exported(sent)
    assert tuple(rows[0]) == (*COLUMNS, "order", "input_status")
    assert [row["line"] for row in rows] == ["2", "3", "4", "5", "6"]
    assert [row["order"] for row in rows] == ["A-1", "A-2", "A-3", "A-4", "A-5"]
    assert [row["input_status"] for row in rows] == ["gold", "", "tin", "", ""]
    assert [row["status"] for row in rows] == ["accepted", "rejected", "not_sent", "unknown", "rejected"]
    assert [row["to"] for row in rows] == [GOOD[0], REJECTED, "", LOST, "999100131026"]
    assert [row["message_id"] for row in rows] == ["id-1", "", "", "", ""]
    assert [(row["code"], row["meta_code"]) for row in rows] == [
        ("", ""),
        ("9015", ""),
        ("", ""),
        ("", ""),
        ("9099", "131026"),
    ]
    assert [row["attempts"] for row in rows] == ["1", "1", "0", "1", "1"]
    assert [row["error"] for row in rows] == [
        "",
        "OtpContentError",
        "InvalidMessageError",
        "OutcomeUnknownError",
        "MetaError",
    ]
    assert (rows[0]["reason"], rows[2]["reason"]) == ("", NO_COUNTRY)
    assert [bool(row["sent_at"]) for row in rows] == [True, True, False, True, True]
    for row in rows:
        finished = datetime.fromisoformat(row["finished_at"])
        assert finished.utcoffset() is not None
        assert abs((before - finished).total_seconds()) < 60


def test_an_export_as_ndjson_has_the_same_rows(sent: str) -> None:
    result = invoke("export", sent, "--format", "ndjson")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.exit_code, len(rows)) == (0, 5)
    assert tuple(rows[0]) == (*COLUMNS, "order", "input_status")
    assert {name: rows[4][name] for name in ("line", "code", "meta_code", "attempts", "message_id", "receipt")} == {
        "line": 6,
        "code": 9099,
        "meta_code": 131026,
        "attempts": 1,
        "message_id": None,
        "receipt": None,
    }
    for row, text in zip(rows, exported(sent), strict=True):
        assert {name: "" if value is None else str(value) for name, value in row.items()} == text


@posix
@pytest.mark.parametrize(
    ("name", "options", "is_json"),
    [
        ("results.csv", (), False),
        ("results", (), False),
        ("results.ndjson", (), True),
        ("results.jsonl", (), True),
        ("results.csv", ("--format", "ndjson"), True),
        ("results.ndjson", ("--format", "csv"), False),
    ],
)
def test_an_export_to_a_file_is_in_the_format_of_its_name_and_private(
    sent: str, name: str, options: tuple[str, ...], is_json: bool
) -> None:
    before = os.umask(0)
    try:
        result = invoke("export", sent, "-o", name, *options)
    finally:
        os.umask(before)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"5 rows written to {name}\n")
    assert mode_of(name) == 0o600
    assert Path(name).read_text().startswith('{"line":2,' if is_json else "line,cus_message_id,to,")
    assert OTP not in Path(name).read_text()
    assert len(Path(name).read_text().splitlines()) == 5 + (not is_json)


@pytest.mark.parametrize("name", ["results.csv", "results.ndjson"])
@pytest.mark.parametrize("before", ["longer", "without further columns", "empty"])
def test_an_export_takes_the_place_of_the_one_before(sent: str, name: str, before: str) -> None:
    others = {
        "longer": (*(f"{GOOD[0]},{CONTENT},x-{number},gold,1" for number in range(50)),),
        "without further columns": (f"{GOOD[0]},{CONTENT},x",),
    }
    if before == "empty":
        Path(name).touch()
    else:
        header = "to,content,cus_message_id" + (",order,status" if before == "longer" else "")
        other = ledger_of(*others[before], header=header)
        assert invoke("export", other, "-o", name).exit_code == 0
    assert invoke("export", sent, "--output", name).exit_code == 0
    assert Path(name).read_text() == invoke("export", sent, "--format", Path(name).suffix[1:]).stdout


RESULT_LINE = ",".join(COLUMNS)
RESULT_ROW = json.dumps(dict.fromkeys(COLUMNS))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("otps.csv", None, id="the input"),
        pytest.param("otps.rejects.csv", None, id="its rejects"),
        pytest.param("notes.txt", "something\n", id="a text"),
        pytest.param("notes.csv", "\n", id="an empty line"),
        pytest.param("notes.csv", "line,cus_message_id,to\n", id="a few of the columns"),
        pytest.param("notes.csv", f"{RESULT_LINE}x\n", id="a column whose name is longer"),
        pytest.param("results.csv", RESULT_ROW + "\n", id="NDJSON where CSV is asked for"),
        pytest.param("results.ndjson", f"{RESULT_LINE}\n", id="CSV where NDJSON is asked for"),
        pytest.param("notes.ndjson", '{"line": 1}\n', id="another object"),
        pytest.param("notes.ndjson", "[]\n", id="no object"),
        pytest.param("notes.csv", "\x00\ufffd" * 1000, id="no text"),
        pytest.param("notes.csv", '"' + "x" * 200_000, id="a cell without end"),
    ],
)
def test_an_export_replaces_nothing_that_is_no_export_unless_forced(sent: str, name: str, text: str | None) -> None:
    if text is not None:
        Path(name).write_text(text)
    before = Path(name).read_bytes()
    result = invoke("export", sent, "-o", name)
    assert (result.exit_code, result.stdout) == (2, "")
    file_format = "NDJSON" if name.endswith("ndjson") else "CSV"
    assert result.stderr == (
        f"nxotp: {name} is there, and is not an earlier export in {file_format}: give another name, or --force\n"
    )
    assert Path(name).read_bytes() == before
    assert invoke("export", sent, "-o", name, "--force").exit_code == 0
    assert len(Path(name).read_text().splitlines()) == 5 + (file_format == "CSV")


@posix
@pytest.mark.parametrize("options", [(), ("--force",)])
def test_an_export_replaces_no_device_and_no_pipe(sent: str, options: tuple[str, ...]) -> None:
    os.mkfifo("pipe")
    result = invoke("export", sent, "-o", "pipe", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        result.stderr
        == "nxotp: cannot write pipe: it is no regular file; redirect standard output in place of --output\n"
    )
    assert Path("pipe").is_fifo()


@posix
def test_an_export_leaves_its_neighbours_and_a_link_to_its_output_as_they_are(sent: str) -> None:
    Path("kept").mkdir()
    Path("results.csv").symlink_to("kept/results.csv")
    neighbours = ["results.csv.part", "kept/results.csv.part"]
    for name in neighbours:
        Path(name).write_text("mine")
    for _ in range(2):
        assert invoke("export", sent, "-o", "results.csv").exit_code == 0
    assert [Path(name).read_text() for name in neighbours] == ["mine", "mine"]
    assert Path("results.csv").is_symlink()
    assert sorted(path.name for path in Path("kept").iterdir()) == ["results.csv", "results.csv.part"]


@pytest.mark.parametrize("path", ["no-such/results.csv", "folder", "x" * 300, "loop"])
def test_an_export_that_cannot_be_written_says_so(path: str) -> None:
    Path("folder").mkdir()
    Path("loop").symlink_to("loop/loop")
    result = invoke("export", ledger_of(f"{GOOD[0]},{CONTENT},a"), "-o", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(rf"nxotp: cannot write {path}: .+\n", result.stderr)


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_an_export_does_not_take_the_place_of_its_ledger(options: tuple[str, ...]) -> None:
    ledger = ledger_of(f"{GOOD[0]},{CONTENT},a")
    result = invoke("export", ledger, "-o", f"./{ledger}", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert counts_of(ledger) == {"queued": 1}


def test_an_export_to_an_output_of_few_letters_is_no_crash() -> None:
    ledger = ledger_of(f"{GOOD[0]},{CONTENT},a,Ünal", header="to,content,cus_message_id,name")
    result = CliRunner(charset="ascii").invoke(nxotp, ["bulk", "export", ledger], prog_name="nxotp")
    assert isinstance(result.exception, SystemExit | None)
    assert result.exit_code in (0, 2)


@posix
def test_at_a_terminal_an_export_masks_the_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal, its_side = os.openpty()
    with os.fdopen(its_side, "w") as stdout, os.fdopen(terminal, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stdout", stdout)
        nxotp.main(["bulk", "export", ledger_of(f"{GOOD[0]},{CONTENT},a")], "nxotp", standalone_mode=False)
        shown = screen.read(10_000).decode()
    assert ",a,99******00,queued," in shown
    assert_clean(shown + capsys.readouterr().err)


@posix
def test_an_export_whose_reader_has_had_enough_ends_in_silence(start: Start) -> None:
    process = start("export", ledger_of(*(f"{GOOD[0]},{CONTENT},row-{number}" for number in range(2000))))
    assert process.stdout is not None
    assert process.stdout.readline().startswith("line,")
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


@posix
def test_what_cannot_be_printed_is_told(start: Start) -> None:
    Path(ledger_of(f"{GOOD[0]},{CONTENT},a")).rename("other.db")
    with Path("/dev/full").open("w") as full:
        status = start("status", "other.db", stdout=full, env={"PYTHONUNBUFFERED": "1"})
        export = start("export", ledger_of(f"{GOOD[0]},{CONTENT},a"), stdout=full)
        results = [finish(process) for process in (status, export)]
    said = "nxotp: cannot write to standard output: No space left on device\n"
    assert [(code, err.partition("go on with")[0]) for code, _, err in results] == [(0, said), (2, said)]


# ---------------------------------------------------------------------------------------------- resolve


def callback(message_id: str, status: str) -> bytes:
    fields = {"id": message_id, "status": status, "timestamp": "1800000000", "recipient_id": GOOD[0]}
    return json.dumps({"statuses": [fields]}).encode() + b"\n"


@pytest.fixture
def unsettled() -> str:
    """A ledger with three unknown messages and a queued one."""
    rows = [f"{number},{CONTENT},id-{place}" for place, number in enumerate(GOOD[:4])]
    return ledger_of(*rows, unknown=("id-0", "id-1", "id-2"))


def test_resolve_alone_lists_what_is_unknown(unsettled: str) -> None:
    result = invoke("resolve", unsettled)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "id-0\nid-1\nid-2\n", "")


def test_resolve_lists_nothing_where_nothing_is_unknown() -> None:
    result = invoke("resolve", ledger_of(f"{GOOD[0]},{CONTENT},a"))
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.parametrize(
    ("outcome", "told", "state"),
    [("delivered", "delivered", "accepted"), ("failed", "failed", "rejected"), ("resend", "queued again", "queued")],
)
@pytest.mark.parametrize("which", [("id-0", "id-2"), ("--all",)], ids=" ".join)
def test_what_is_unknown_is_settled_by_hand(
    unsettled: str, outcome: str, told: str, state: str, which: tuple[str, ...]
) -> None:
    result = invoke("resolve", unsettled, outcome, *which)
    settled, left = (3, 0) if which == ("--all",) else (2, 1)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"{settled} of {settled} settled as {told}; {left} are unknown\n"
    states = [row["status"] for row in results_of(unsettled)]
    assert states == [state, "unknown" if left else state, state, "queued"]


def test_what_is_queued_again_is_sent_by_resume(live: Sandbox, account: Env, unsettled: str) -> None:
    invoke("resolve", unsettled, "resend", "id-1")
    result = invoke("resume", unsettled, env=account)
    assert (result.exit_code, received(live)) == (6, [GOOD[1], GOOD[3]])
    assert {message.cus_message_id for message in live.messages} == {"id-1", "id-3"}


def test_a_settled_message_keeps_no_code(unsettled: str) -> None:
    assert OTP.encode() in Path(unsettled).read_bytes()
    invoke("resolve", unsettled, "delivered", "id-0")
    invoke("resolve", unsettled, "failed", "id-1", "id-2")
    with contextlib.closing(sqlite3.connect(unsettled)) as database:
        kept = database.execute("SELECT cus_message_id FROM messages WHERE content IS NOT NULL").fetchall()
    assert kept == [("id-3",)]


def test_ids_that_are_not_unknown_are_told(unsettled: str) -> None:
    result = invoke("resolve", unsettled, "failed", "id-0", "id-3", "no-such")
    assert (result.exit_code, result.stdout) == (1, "")
    first, second = result.stderr.splitlines()
    assert first == "1 of 3 settled as failed; 2 are unknown"
    assert second.startswith("nxotp: 2 are not in the ledger")
    assert second.endswith("or are not unknown")
    assert counts_of(unsettled) == {"queued": 1, "rejected": 1, "unknown": 2}


def test_an_id_given_twice_is_one_message(unsettled: str) -> None:
    result = invoke("resolve", unsettled, "delivered", "id-0", "id-0")
    assert result.exit_code == 0
    assert "are not unknown" not in result.stderr
    assert counts_of(unsettled) == {"accepted": 1, "queued": 1, "unknown": 2}


def test_a_message_whose_code_has_expired_cannot_be_sent_again(account: Env) -> None:
    ledger = ledger_of(
        f"{GOOD[0]},{CONTENT},old,2020-01-01T00:00:00Z", header="to,content,cus_message_id,expires_at", unknown=("old",)
    )
    result = invoke("resolve", ledger, "resend", "old")
    assert (result.exit_code, counts_of(ledger)) == (1, {"unknown": 1})
    assert "their code has expired and is erased" in result.stderr


def test_callbacks_settle_what_they_tell_of(unsettled: str) -> None:
    bodies = [
        callback("id-0", "delivered"),
        callback("id-0", "sent"),
        b"\n",
        callback("id-1", "failed"),
        callback("another", "read"),
    ]
    Path("callbacks.ndjson").write_bytes(b"".join(bodies))
    result = invoke("resolve", unsettled, "--callbacks", "callbacks.ndjson")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "4 callbacks told something new of messages 2 times; 1 are unknown\n"
    assert [(row["status"], row["receipt"]) for row in results_of(unsettled)] == [
        ("accepted", "delivered"),
        ("accepted", "failed"),
        ("unknown", None),
        ("queued", None),
    ]
    again = invoke("resolve", unsettled, "--callbacks", "callbacks.ndjson")
    assert again.stderr == "4 callbacks told something new of messages 0 times; 1 are unknown\n"


def test_lines_that_are_no_callback_are_told_and_the_others_count(unsettled: str) -> None:
    Path("callbacks").write_bytes(b"no JSON\n" + callback("id-0", "sent") + b"[]\n" * 12)
    result = invoke("resolve", unsettled, "--callbacks", "callbacks")
    assert result.exit_code == 1
    assert result.stderr == (
        "1 callbacks told something new of messages 1 times; 2 are unknown\n"
        "nxotp: 13 lines are no callback: 1, 3, 4, 5, 6, 7, 8, 9, 10, 11\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("delivered",), "say which messages are delivered: their ids, or --all"),
        (("resend", "id-0", "--all"), "their ids, or --all"),
        (("--all",), "say what --all of them are: delivered, failed or resend"),
        (("perhaps", "id-0"), "'delivered', 'failed', 'resend'"),
        (("--callbacks", "input.csv", "delivered", "id-0"), "--callbacks goes without an outcome, ids and --all"),
        (("--callbacks", "input.csv", "--all"), "--callbacks goes without an outcome, ids and --all"),
        (("--callbacks", "no-such-file"), "no-such-file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_resolve_refuses_wrong_usage_and_settles_nothing(unsettled: str, arguments: tuple[str, ...], said: str) -> None:
    result = invoke("resolve", unsettled, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert counts_of(unsettled) == {"queued": 1, "unknown": 3}


# ---------------------------------------------------------------------------------------------- listening


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_callbacks_that_come_while_it_runs_settle_what_is_unknown(
    monkeypatch: pytest.MonkeyPatch, form: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sending, "_CALLBACKS_INTERVAL", 0.01)
    port = free_port()
    listening = ("--listen", port, "--dr-webhook", f"http://127.0.0.1:{port}/")
    with serve_in_thread(Sandbox(callbacks=CallbackPlan(statuses=("sent", "delivered")))) as sandbox:
        result = invoke("run", otps(*GOOD[:3], LOST), *listening, *form, env=account_of(sandbox))
    assert result.exit_code == 0
    assert f"receiving callbacks on http://127.0.0.1:{port}/\n" in result.stderr
    assert counts_of() == {"accepted": 4}
    assert {row["receipt"] for row in results_of()} <= {"sent", "delivered"}
    if form:
        shown = json.loads(result.stdout)
        assert (shown["accepted"], shown["unknown"], shown["receipts"]["sent"]) == (4, 0, 4)
    else:
        assert "\ncallbacks: sent 4, delivered " in result.stdout


def test_a_token_that_can_be_guessed_stops_everything(live: Sandbox, account: Env) -> None:
    result = invoke("run", otps(GOOD[0]), "--listen", "0", "--token", "guess", env=account)
    assert (result.exit_code, result.stdout) == (3, "")
    assert re.search("^nxotp: .*token", result.stderr, re.MULTILINE)
    assert (len(live.requests), counts_of()) == (0, {"queued": 1})


def test_a_failure_after_the_messages_does_not_say_that_nothing_was_sent(
    live: Sandbox, account: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Dispatcher):
        async def run(self) -> Report:
            await super().run()
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sending, "Dispatcher", Failing)
    with contextlib.suppress(OSError):
        assert "nothing was sent" not in invoke("run", otps(GOOD[0]), env=account).stderr
    assert len(live.messages) == 1


@pytest.mark.parametrize("command", ["run", "resume"])
def test_an_address_that_is_taken_stops_everything(live: Sandbox, account: Env, command: str) -> None:
    subject = otps(GOOD[0]) if command == "run" else ledger_of(f"{GOOD[0]},{CONTENT},a")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = invoke(command, subject, "--listen", str(taken.getsockname()[1]), env=account)
    assert (result.exit_code, result.stdout) == (3, "")
    assert re.search(r"^nxotp: cannot listen on .*in use.*; nothing was sent$", result.stderr, re.MULTILINE)
    assert (len(live.requests), counts_of("otps.csv.ledger" if command == "run" else "run.db")) == (0, {"queued": 1})


# ---------------------------------------------------------------------------------------------- progress


class FakeRun:
    """A dispatcher, and time that passes in `sleep` only: at each of its steps something has been done."""

    def __init__(self, rate: float, steps: list[tuple[float, dict[str, int]]]) -> None:
        self.counts: Counter[MessageState] = Counter()
        self.rate = rate
        self._now = 1000.0
        self._steps = iter(steps)

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, _: float) -> None:
        step = next(self._steps, None)
        if step is None:
            raise asyncio.CancelledError
        self._now += step[0]
        self.counts = Counter({MessageState(state): count for state, count in step[1].items()})


async def progress_of(
    monkeypatch: pytest.MonkeyPatch,
    steps: list[tuple[float, dict[str, int]]],
    *,
    rate: float = math.inf,
    terminal: bool = False,
) -> list[str]:
    run = FakeRun(rate, steps)
    shown = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "stderr", Console(file=shown, width=150, force_terminal=terminal, highlight=False))
    monkeypatch.setattr(progress, "monotonic", run.monotonic)
    monkeypatch.setattr(progress, "asyncio", SimpleNamespace(sleep=run.sleep))
    with progress.SendingProgress(cast("Dispatcher", run)) as sending, pytest.raises(asyncio.CancelledError):
        await sending.follow()
    return shown.getvalue().splitlines()


def steadily(seconds: float) -> list[tuple[float, dict[str, int]]]:
    """A run of 5,001 messages that has 93 accepted every half second."""
    return [
        (0.5, {"queued": 5000 - 93 * step, "accepted": 93 * step, "not_sent": 1})
        for step in range(1, 1 + int(2 * seconds))
    ]


LINE = "1,861/5,001 (37%)  186/s  ETA 0:17  accepted 1,860  not sent 1  limit 200/s"


async def test_off_a_terminal_progress_is_the_line_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await progress_of(monkeypatch, steadily(10), rate=200.0) == [LINE]
    shape = re.sub(r"\d", "0", LINE)
    assert shape in re.sub(r"\d", "0", PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("seconds", "count"), [(9.5, 0), (10, 1), (19.5, 1), (26, 2)])
async def test_off_a_terminal_progress_is_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, seconds: float, count: int
) -> None:
    shown = await progress_of(monkeypatch, steadily(seconds))
    assert [line.split()[0] for line in shown] == ["1,861/5,001", "3,721/5,001"][:count]
    assert all("limit" not in line for line in shown)


@pytest.mark.parametrize(
    ("steps", "rate", "line"),
    [
        ([(11.0, {})], math.inf, None),
        ([(11.0, {"queued": 3})], math.inf, "0/3 (0%)  0/s  accepted 0"),
        (
            [(5.0, {"queued": 7210}), (5.0, {"queued": 7200, "rejected": 4, "unknown": 6})],
            20.0,
            "10/7,210 (0%)  2/s  ETA 1:00:00  accepted 0  rejected 4  unknown 6  limit 20/s",
        ),
        ([(11.0, {"accepted": 1234})], math.inf, "1,234/1,234 (100%)  0/s  accepted 1,234"),
    ],
    ids=["not begun", "nothing done", "hours to go", "all done"],
)
async def test_progress_says_what_there_is_to_say(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[float, dict[str, int]]], rate: float, line: str | None
) -> None:
    assert await progress_of(monkeypatch, steps, rate=rate) == ([] if line is None else [line])


async def test_a_limit_of_less_than_one_a_second_is_not_called_none(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = await progress_of(monkeypatch, [(11.0, {"queued": 3})], rate=0.5)
    assert "limit" in line
    assert "limit 0/s" not in line


async def test_at_a_terminal_progress_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "".join(await progress_of(monkeypatch, steadily(10), rate=200.0, terminal=True))
    plain = re.sub(r"\x1b\[[\d;?]*\w", "", shown)
    assert "━━" in plain
    assert f"1861/5001 {LINE.partition('  ')[2]}" in plain


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "elsewhere"])
def test_rows_are_counted_at_a_terminal_while_the_file_is_read(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    shown = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "stderr", Console(file=shown, width=80, force_terminal=terminal))
    with progress.LoadingProgress() as loading:
        loading.show(12_000)
    assert ("reading: 12,000 rows" in shown.getvalue()) is terminal


def test_a_run_at_a_terminal_shows_its_bar_and_nothing_of_its_messages(
    live: Sandbox, account: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_BAR_INTERVAL", 0.001)
    for module in (progress, run_module, sending, summary):
        monkeypatch.setattr(module, "stderr", Console(file=shown, width=120, force_terminal=True, highlight=False))
    result = invoke("run", otps(*GOOD[:30], LOST, "0555"), "--rate", "1000", env=account)
    assert (result.exit_code, result.stderr) == (6, "")
    assert counts_in(result.stdout)["accepted"] == len(live.messages) - 1 == 30
    text = re.sub(r"\x1b\[[\d;?]*\w", "", shown.getvalue())
    assert "/32" in text
    assert "━" in text
    assert "32 rows: 31 queued in otps.csv.ledger, 1 set aside in otps.rejects.csv\n" in text
    assert_clean(text)


def test_a_run_elsewhere_tells_its_progress_on_stderr(account: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_BAR_INTERVAL", 0.001)
    monkeypatch.setattr(progress, "_LINE_INTERVAL", 1e-9)
    result = invoke("run", otps(*GOOD[:30]), "--rate", "1000", "--json", env=account)
    assert json.loads(result.stdout)["accepted"] == 30
    assert re.search(r"^\d+/30 \(\d+%\)  [\d,]+/s  .*accepted \d+  limit 1,000/s$", result.stderr, re.MULTILINE)


IMPATIENT = """
from nxotp_async.__main__ import main
from nxotp_async.cli.bulk import progress
progress._BAR_INTERVAL, progress._LINE_INTERVAL = 0.001, 1e-9
main()
"""


@posix
def test_a_reader_of_the_progress_that_has_gone_does_not_stop_the_run(start: Start, live: Sandbox) -> None:
    options = ("--rate", "200", "--json")
    process = start("run", otps(*GOOD[:30]), *options, env=account_of(live), program=("-c", IMPATIENT))
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    assert process.stdout is not None
    shown = process.stdout.read()
    assert (process.wait(30), counts_of()) == (0, {"accepted": 30})
    assert json.loads(shown)["accepted"] == len(live.messages) == 30


# ---------------------------------------------------------------------------------------------- canaries


def test_no_command_shows_a_code_a_secret_or_a_number(account: Env) -> None:
    rows = [
        f"+999 555 0100,{CONTENT}",
        f"{REJECTED},{CONTENT}",
        f"{LOST},{CONTENT}",
        f"0999 555 0101,{CONTENT}",
        f"999 555 0102 0103 0104,{CONTENT}",
        f"{GOOD[0]},{OTP} {OTP}",
        f"{GOOD[0]},{OTP}0000",
        f"{GOOD[0]},{CONTENT},{OTP}",
    ]
    file = write(*rows)
    results = [invoke("run", file, "--dry-run", *form) for form in ((), ("--json",))]
    results.append(invoke("run", file, env=account))
    ledger = "otps.csv.ledger"
    results += [invoke(*command) for command in (("status", ledger), ("status", ledger, "--json"), ("resolve", ledger))]
    results.append(invoke("resume", ledger, "--json", env=account))
    results.append(invoke("resolve", ledger, "delivered", "--all"))
    results.append(invoke("export", ledger, "-o", "results.csv"))
    assert [result.exit_code for result in results] == [1, 1, 6, 0, 0, 0, 6, 0, 0]
    for result in results:  # those of an export, too
        assert_clean(result.output)
    assert_clean(Path("results.csv").read_text(), numbers_may_show=True)


def test_a_finished_ledger_holds_no_code_and_no_secret(account: Env) -> None:
    file = otps(*GOOD[:50], REJECTED, "0999 555 0101", GOOD[0])
    assert invoke("run", file, "--max-per-recipient", "1", env=account).exit_code == 1
    assert sorted(counts_of()) == ["accepted", "not_sent", "rejected"]
    files = list(Path().glob("otps.csv.ledger*"))
    assert [path.name for path in files] == ["otps.csv.ledger"]
    content = files[0].read_bytes()
    assert GOOD[0].encode() in content  # what is looked for could be found
    assert OTP.encode() not in content
    assert SECRET.encode() not in content


def test_a_row_with_a_cell_too_many_leaves_no_code_behind(account: Env) -> None:
    file = write(f"{GOOD[0]},{CONTENT},A-1", f"{GOOD[1]},Mr,{OTP},A-2", header="to,content,order")
    assert invoke("run", file, env=account).exit_code == 1
    assert OTP.encode() not in Path("otps.csv.ledger").read_bytes()
    assert OTP not in invoke("export", "otps.csv.ledger").stdout


def test_a_secret_that_is_refused_is_not_repeated(account: Env) -> None:
    result = invoke("run", otps(GOOD[0]), env={**account, "NXOTP_ACCESS_SECRET": f"{SECRET}\n"})
    assert (result.exit_code, result.stdout) == (3, "")
    assert "NXOTP_ACCESS_SECRET" in result.stderr
