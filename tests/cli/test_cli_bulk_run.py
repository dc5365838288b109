"""``nxotp bulk run``: the exit code, the summary, options and settings."""

import json
import re
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bulk_commands import (
    GOOD,
    LOST,
    NO_BALANCE,
    NO_COUNTRY,
    NO_PRICE,
    REJECTED,
    bulk,
    counts_in,
    counts_of,
    ledger_of,
    otps,
    received,
    results_of,
    write,
)
from commands import CONTENT, KEYS, Env

from nxotp_async import OtpClient
from nxotp_async.bulk import Dispatcher, Ledger, MessageState, Report
from nxotp_async.cli.bulk import command as group
from nxotp_async.cli.bulk.summary import exit_code
from nxotp_async.pacing import SharedRate
from nxotp_async.sandbox import Sandbox

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")


# ---------------------------------------------------------------------------------------------- outcomes


OUTCOMES = {
    "all accepted": (GOOD[:3], (), 0, {"accepted": 3}),
    "one rejected": ((GOOD[0], REJECTED), (), 1, {"accepted": 1, "rejected": 1}),
    "one no message": ((GOOD[0], "0555"), (), 1, {"accepted": 1, "not_sent": 1}),
    "one over the cap": ((GOOD[0], GOOD[0]), ("--max-per-recipient", "1"), 1, {"accepted": 1, "not_sent": 1}),
    "one unknown": ((GOOD[0], LOST), (), 6, {"accepted": 1, "unknown": 1}),
    "answers that say nothing": (tuple(f"99930000000{kind}" for kind in (1, 2, 3, 4, 5)), (), 6, {"unknown": 5}),
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
    result = bulk("run", otps(*numbers), *options, env=account)
    assert result.exit_code == exit_code
    shown = counts_in(result.stdout)
    states = {"queued": 0, "accepted": 0, "rejected": 0, "not_sent": 0, "unknown": 0}
    assert {state: shown[state] for state in states} == {**states, **counts}
    assert shown["total"] == len(numbers)
    assert counts_of() == dict(sorted(counts.items()))


@pytest.mark.parametrize("state", [MessageState.QUEUED, MessageState.SENDING])
def test_a_run_that_leaves_messages_is_no_success(state: MessageState) -> None:
    assert exit_code(Report(Counter({MessageState.ACCEPTED: 2, state: 1}), paused=None, stopped=False)) == 1


def test_the_summary_of_a_good_run_is_a_table_on_stdout_and_the_rest_is_on_stderr(account: Env) -> None:
    result = bulk("run", otps(*GOOD[:2]), env=account)
    assert result.stdout == (
        "queued    0\naccepted  2\nrejected  0\nnot sent  0\nunknown   0\ntotal     2\n"  # nothing to explain
    )
    assert result.stderr == (
        "2 rows: 2 queued in otps.csv.ledger\n"
        "write one row of results for each row of the input: nxotp bulk export otps.csv.ledger\n"
    )


def test_the_summary_says_why_how_many_and_what_to_do(account: Env) -> None:
    result = bulk("run", otps(GOOD[0], REJECTED, REJECTED, LOST, "999100131026", "0555"), env=account)
    reasons = result.stdout.partition("total     6\n")[2]
    assert re.match(r"state +error +count +example", reasons)
    assert re.search(r"^rejected +OtpContentError 9015 +2  code 9015, ", reasons, re.MULTILINE)
    assert re.search(r"^rejected +MetaError 9099/131026 +1  ", reasons, re.MULTILINE)
    assert re.search(r"^unknown +OutcomeUnknownError +1  ", reasons, re.MULTILINE)
    assert re.search(r"^not sent +InvalidMessageError +1  to starts with 0", reasons, re.MULTILINE)
    assert "one run of 4 to 8 digits" in " ".join(reasons.split())
    assert result.stderr.endswith(
        "unknown messages may have arrived; resolve them: nxotp bulk resolve otps.csv.ledger --help\n"
        "write one row of results for each row of the input: nxotp bulk export otps.csv.ledger\n"
    )


def test_a_reason_with_brackets_is_printed_as_it_is(account: Env) -> None:
    file = write(f"{GOOD[0]},{CONTENT},[/b]", header="to,content,language_code")
    result = bulk("run", file, env=account)
    assert result.exit_code == 1
    assert "unknown language code '[/b]'" in " ".join(result.stdout.split())
    assert "'[/b]'" in bulk("status", "otps.csv.ledger").stdout


def test_the_summary_as_json_is_valid_complete_and_alone_on_stdout(account: Env) -> None:
    result = bulk("run", otps(GOOD[0], REJECTED, "0555"), "--json", env=account)
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
    shown = json.loads(bulk("run", otps(NO_BALANCE), "--json", env=account).stdout)
    assert shown["paused"] == {
        "type": "AccountError",
        "message": "code 9005, insufficient account balance",
        "hint": "recharge the account",
        "field": None,
        "code": 9005,
        "cus_message_id": shown["paused"]["cus_message_id"],
    }
    assert shown["stopped"] is False


def test_a_message_that_has_expired_is_not_sent(live: Sandbox, account: Env) -> None:
    file = write(
        f"{GOOD[0]},{CONTENT},2020-01-01T00:00:00Z", f"{GOOD[1]},{CONTENT},4102444800", header="to,content,expires_at"
    )
    result = bulk("run", file, env=account)
    assert (result.exit_code, counts_of(), received(live)) == (1, {"accepted": 1, "not_sent": 1}, [GOOD[1]])
    assert "Expired" in result.stdout


@pytest.mark.parametrize("attempts", [1, 4])
def test_a_refusal_that_may_pass_is_tried_so_often(
    live: Sandbox, account: Env, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    monkeypatch.setattr("nxotp_async.retry.RetryPolicy.backoff", lambda *_: 0.0)
    result = bulk("run", otps("999000009001"), "--max-attempts", str(attempts), env=account)
    assert (result.exit_code, len(live.requests), counts_of()) == (1, attempts, {"rejected": 1})
    assert results_of()[0]["attempts"] == attempts


def test_no_more_requests_are_in_flight_than_told(live: Sandbox, account: Env) -> None:
    assert bulk("run", otps(*GOOD[:30]), "--concurrency", "3", env=account).exit_code == 0
    assert 1 <= live.max_in_flight <= 3


def test_uvloop_is_not_needed(live: Sandbox, account: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert bulk("run", otps(*GOOD[:2]), env=account).exit_code == 0
    assert received(live) == list(GOOD[:2])


# ---------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("1/6s", 6.0), ("10/m", 6.0), ("1/h", 3600.0), ("2/1.5s", 0.75), ("1/.5s", 0.5), ("3/2m", 40.0), ("1 / 6 s", 6.0)],
)
@pytest.mark.parametrize("command", ["run", "resume"])
def test_messages_per_time_are_seconds_between_two(command: str, written: str, seconds: float) -> None:
    context = group.commands[command].make_context(command, ["file", "--per-recipient", written])
    assert context.params["per_recipient"] == seconds


WRONG_OPTIONS = [
    *(("--per-recipient", value) for value in ("rubbish", "", "6", "1/6", "0/6s", "-1/6s", "1/6d", "1/.s", "1/0s")),
    ("--rate", "0"),
    ("--rate", "-1"),
    ("--rate", "inf"),
    ("--rate", "nan"),
    ("--rate", "80/s"),
    ("--shared-rate", ""),
    ("--shared-rate", "sender"),  # without a --rate
    ("--concurrency", "0"),
    ("--concurrency", "10001"),
    ("--max-attempts", "0"),
    ("--max-per-recipient", "0"),
    ("--max-per-recipient", "1" * 20),
    ("--reject-on", "balance"),
    ("--listen", "here"),
    ("--listen", "65536"),
    ("--listen-for", "-1"),
    ("--no-such-option",),
]


@pytest.mark.parametrize("options", WRONG_OPTIONS, ids=" ".join)
@pytest.mark.parametrize("command", ["run", "resume"])
def test_an_option_that_is_wrong_is_told_before_anything_is_done(command: str, options: tuple[str, ...]) -> None:
    result = bulk(command, "no-such-file", *options, env=KEYS)
    assert (result.exit_code, result.stdout) == (2, "")
    assert options[0] in result.stderr
    assert "no-such-file" not in result.stderr
    assert not list(Path().iterdir())


@pytest.mark.parametrize("arguments", [(), ("--format", "xml"), ("--format", "xml", "otps.csv"), ("a.csv", "b.csv")])
def test_a_run_refuses_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = bulk("run", *arguments, env=KEYS)
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

    monkeypatch.setattr("nxotp_async.cli.bulk.sending.Dispatcher", Watched)
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
    result = bulk(command, subject, *arguments, env={**account, "NXOTP_BASE_URL": "http://example.com"})
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
    result = bulk("run", otps(GOOD[0], GOOD[0], GOOD[1], GOOD[0]), "--per-recipient", "1/.05s", env=account)
    assert (result.exit_code, counts_of()) == (0, {"accepted": 4})
    first, second, other, third = (row["sent_at"] for row in results_of())
    assert other < second
    assert second - first >= 0.049
    assert third - second >= 0.049


def test_a_recipient_gets_no_more_than_the_cap_over_several_runs(live: Sandbox, account: Env) -> None:
    options = ("--ledger", "run.db", "--max-per-recipient", "2")
    assert bulk("run", otps(GOOD[0], GOOD[1]), *options, env=account).exit_code == 0
    result = bulk("run", otps("0555", "0556", *[GOOD[0]] * 3, name="more.csv"), *options, env=account)
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
    result = bulk(command, subject, env={name: value for name, value in account.items() if name not in missing})
    assert (result.exit_code, result.stdout) == (3, "")
    assert set(re.findall(r"NXOTP_\w+", result.stderr)) == missing
    assert not live.requests
    assert {path.name for path in Path().iterdir()} <= {"otps.csv"}


@pytest.mark.parametrize(
    ("options", "env", "said"),
    [
        (("--base-url", "http://example.com"), {}, "nxotp: --base-url"),
        ((), {"NXOTP_BASE_URL": "http://example.com"}, "nxotp: NXOTP_BASE_URL"),
        (("--dr-webhook", "nowhere"), {}, "nxotp: --dr-webhook"),
        ((), {"NXOTP_TIMEOUT": "soon"}, "nxotp: NXOTP_TIMEOUT"),
        ((), {"NXOTP_MAX_CONCURRENCY": "0"}, "nxotp: NXOTP_MAX_CONCURRENCY"),
    ],
)
def test_a_wrong_setting_is_named(account: Env, options: tuple[str, ...], env: Env, said: str) -> None:
    result = bulk("run", otps(GOOD[0]), *options, env={**account, **env})
    assert (result.exit_code, result.stdout) == (3, "")
    assert said in result.stderr
    assert not Path("otps.csv.ledger").exists()


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("", "--shared-rate needs a store that processes share: set NXOTP_STORE"),
        ("memory://", "--shared-rate needs a store that processes share: set NXOTP_STORE"),
        ("mysql://host/database", "NXOTP_STORE: the store's URL has an unknown scheme"),
        ("redis://host:port", "NXOTP_STORE: the store's URL is not one of Redis"),
    ],
)
@pytest.mark.parametrize("command", ["run", "resume"])
def test_a_shared_rate_without_a_store_is_told_before_anything_is_loaded(
    account: Env, command: str, store: str, said: str
) -> None:
    subject = otps(GOOD[0]) if command == "run" else "no-such.ledger"
    result = bulk(command, subject, "--rate", "80", "--shared-rate", "sender", env={**account, "NXOTP_STORE": store})
    assert (result.exit_code, result.stdout) == (3, "")
    assert said in result.stderr
    assert {path.name for path in Path().iterdir()} <= {"otps.csv"}


@pytest.mark.parametrize("store_kind", ["postgres", "redis"])
def test_a_run_shares_its_rate_with_other_processes_and_takes_what_they_leave(
    live: Sandbox, account: Env, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved: list[str] = []

    class Watched(SharedRate):
        async def acquire(self, patience: float, count: int = 1) -> bool:
            reserved.append(repr(self))
            return await super().acquire(patience, count)

    monkeypatch.setattr("nxotp_async.cli.bulk.sending.SharedRate", Watched)
    options = ("--rate", "500", "--shared-rate", uuid.uuid4().hex)
    result = bulk("run", otps(*GOOD[:20]), *options, env={**account, "NXOTP_STORE": store_url})
    assert (result.exit_code, counts_of()) == (0, {"accepted": 20})
    assert received(live) == [*GOOD[:20]]
    assert {*reserved} == {"SharedRate(per_second=500, background=True)"}
    assert len(reserved) >= 20


@pytest.mark.parametrize("store_kind", ["postgres"])
def test_a_store_that_cannot_be_used_pauses_the_run_before_anything_is_sent(
    live: Sandbox, account: Env, store_url: str
) -> None:
    env = {**account, "NXOTP_STORE": f"{store_url}-missing"}
    result = bulk("run", otps(*GOOD), "--rate", "500", "--shared-rate", "sender", env=env)
    assert (result.exit_code, counts_of()) == (3, {"queued": len(GOOD)})
    assert "paused: PostgreSQL refuses the store" in result.stderr
    assert not live.requests


# ---------------------------------------------------------------------------------------------- status


def test_the_status_is_that_of_the_ledger(account: Env) -> None:
    run = bulk("run", otps(GOOD[0], REJECTED, LOST, "0555"), env=account)
    status = bulk("status", "otps.csv.ledger")
    assert (status.exit_code, status.stdout) == (0, run.stdout)
    assert status.stderr == run.stderr.partition("otps.rejects.csv\n")[2]


def test_the_status_as_json_has_the_keys_of_a_runs_summary(account: Env) -> None:
    run = json.loads(bulk("run", otps(GOOD[0], REJECTED), "--json", env=account).stdout)
    status = bulk("status", "otps.csv.ledger", "--json")
    assert (status.exit_code, status.stderr) == (0, "")
    assert json.loads(status.stdout) == run


def test_the_status_of_a_run_that_has_not_begun_says_how_to_go_on() -> None:
    ledger = ledger_of(*(f"{GOOD[0]},{CONTENT},row-{number}" for number in range(1234)))
    status = bulk("status", ledger)
    assert (counts_in(status.stdout)["queued"], "queued    1,234\n" in status.stdout) == (1234, True)
    assert status.stderr.startswith("continue with: nxotp bulk resume run.db\n")
    assert "unknown" not in status.stderr


def test_an_option_or_a_column_tells_whose_national_numbers_a_file_has(live: Sandbox, account: Env) -> None:
    rows = [f"(415) 555-2671,{CONTENT},", f"07911 123456,{CONTENT},gb", f"+62 812 3456 7890,{CONTENT},"]
    file = write(*rows, header="to,content,Default Region")
    assert bulk("run", file, "--dry-run").exit_code == 1
    assert bulk("run", file, "--default-region", "US", env=account).exit_code == 0
    assert received(live) == ["14155552671", "447911123456", "6281234567890"]
    ndjson = Path("more.ndjson")
    ndjson.write_text(json.dumps({"to": "0812 3456 7890", "content": CONTENT, "default_region": "ID"}))
    assert bulk("run", str(ndjson), env=account).exit_code == 0
    assert received(live).count("6281234567890") == 2
