"""``nxotp bulk run`` and ``resume``: pauses, signals and crashes."""

import asyncio
import json
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from bulk_commands import (
    GOOD,
    NO_PRICE,
    a_run_that_hangs,
    bulk,
    callback,
    counts_in,
    counts_of,
    ledger_of,
    otps,
    piped,
    received,
    results_of,
)
from commands import CONTENT, KEYS, DueClock, Env, Start, account_of, assert_clean, finish, posix, read_until
from support import accepted

from nxotp_async import Clock, NotSentError, OtpClient
from nxotp_async.bulk import Dispatcher, load
from nxotp_async.sandbox import Fault, Sandbox
from nxotp_async.testing import serve_in_thread
from nxotp_async.transports import Answer

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory", "short_holds")


# ---------------------------------------------------------------------------------------------- pauses


@pytest.mark.parametrize("code", [1003, 1005, 9004, 9005, 10003])
def test_an_answer_that_concerns_the_account_pauses_the_run(live: Sandbox, account: Env, code: int) -> None:
    live.script(Fault(), *[Fault.answer(code)] * 5)
    result = bulk("run", otps(*GOOD[:5]), "--concurrency", "1", env=account)
    assert result.exit_code == 3
    assert received(live) == [GOOD[0]]
    assert len(live.requests) == 6
    assert counts_of() == {"accepted": 1, "queued": 4}
    assert re.search(
        rf"^paused: code {code}, .+\nfix it, then continue with: nxotp bulk resume otps.csv.ledger$",
        result.stderr,
        re.MULTILINE,
    )


@pytest.mark.parametrize("again", [("resume", "otps.csv.ledger"), ("run", "otps.csv")], ids=["resume", "run"])
def test_a_paused_run_goes_on_with_all_of_it_once_mended(live: Sandbox, account: Env, again: tuple[str, str]) -> None:
    live.script(Fault(), *[Fault.answer(9005)] * 5)
    paused = bulk("run", otps(*GOOD[:10]), "--concurrency", "1", env=account)
    assert (paused.exit_code, counts_of(), received(live)) == (3, {"accepted": 1, "queued": 9}, [GOOD[0]])
    result = bulk(*again, env=account)
    assert (result.exit_code, counts_of()) == (0, {"accepted": 10})
    assert received(live) == list(GOOD[:10])
    assert "paused" not in result.stderr


def test_a_wrong_secret_pauses_and_is_mended(live: Sandbox, account: Env) -> None:
    paused = bulk("run", otps(*GOOD[:3]), env={**account, "NXOTP_ACCESS_SECRET": "mistyped"})
    assert (paused.exit_code, counts_of(), live.messages) == (3, {"queued": 3}, [])
    assert "check the access secret first" in paused.stderr
    assert "mistyped" not in paused.output
    assert bulk("resume", "otps.csv.ledger", env=account).exit_code == 0
    assert received(live) == list(GOOD[:3])


def test_resume_has_nothing_to_do_where_all_is_done(live: Sandbox, account: Env) -> None:
    done = bulk("run", otps(*GOOD[:2]), env=account)
    again = bulk("resume", "otps.csv.ledger", env=account)
    assert (again.exit_code, again.stdout) == (0, done.stdout)
    assert len(live.requests) == 2


def test_resume_takes_other_options_and_tells_as_json(live: Sandbox, account: Env) -> None:
    ledger = ledger_of(f"{NO_PRICE},{CONTENT},a", f"{GOOD[0]},{CONTENT},b")
    assert bulk("resume", ledger, "--concurrency", "1", env=account).exit_code == 3
    result = bulk("resume", ledger, "--reject-on", "9004", "--json", env=account)
    assert (result.exit_code, result.stderr) == (1, "")
    shown = json.loads(result.stdout)
    assert (shown["ledger"], shown["accepted"], shown["rejected"], shown["queued"]) == ("run.db", 1, 1, 0)
    assert shown["paused"] is None


def test_a_vendor_that_is_away_for_longer_than_the_patience_is_no_fault_of_the_account(
    live: Sandbox, account: Env
) -> None:
    live.script(*[Fault.answer(-1)] * 1000)
    result = bulk("run", otps(*GOOD[:40]), "--concurrency", "1", "--patience", "0", env=account)
    assert result.exit_code == 4
    assert "paused: code -1" in result.stderr
    assert "continue with: nxotp bulk resume otps.csv.ledger" in result.stderr


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
        said.append(read_until(processes[0].stderr, r"stop at once\n"))
        told.set()

    with serve_in_thread(Sandbox(clock=Clock(time=DueClock(25, interrupt)))) as sandbox:
        env = account_of(sandbox)
        processes.append(start("bulk", "run", otps(*GOOD[:100]), "--concurrency", "8", *options, env=env))
        assert told.wait(30)
        code, out, err = finish(processes[0])
        counts = counts_of()
        assert code == 130
        assert re.search(r"stopping: waiting for [1-8] in flight, 30 s at most", said[0])
        assert set(counts) == {"accepted", "queued"}
        assert counts["accepted"] == len(sandbox.messages) < 100
        assert (counts["accepted"] + counts["queued"], len(sandbox.requests)) == (100, counts["accepted"])
        if options:
            shown = json.loads(out)
            assert (shown["stopped"], shown["paused"], shown["accepted"]) == (True, None, counts["accepted"])
        else:
            assert counts_in(out)["queued"] == counts["queued"]
            assert "continue with: nxotp bulk resume otps.csv.ledger\n" in err
        for text in (*said, out, err):
            assert_clean(text)
            assert "Traceback" not in text
        assert bulk("resume", "otps.csv.ledger", env=env).exit_code == 0
        assert received(sandbox) == list(GOOD[:100])


@posix
def test_a_second_signal_leaves_at_once_and_what_was_in_flight_is_unknown(start: Start) -> None:
    arrived = threading.Event()
    with serve_in_thread(Sandbox(clock=Clock(time=DueClock(3, arrived.set)))) as sandbox:
        process = a_run_that_hangs(start, sandbox, arrived)
        process.send_signal(signal.SIGINT)
        said = read_until(process.stderr, r"stop at once\n")
        assert said.splitlines()[1:] == [
            "stopping: waiting for 3 in flight, 30 s at most; press Ctrl-C again to stop at once"
        ]
        process.send_signal(signal.SIGINT)
        code, out, err = finish(process)
        assert (code, out) == (130, "")
        assert err == "nxotp: stopped at once; continue with: nxotp bulk resume otps.csv.ledger\n"
        assert counts_of() == {"queued": 5, "unknown": 3}
        hung = [row for row in results_of() if row["status"] == "unknown"]
        assert {(row["error"], row["attempts"]) for row in hung} == {("Interrupted", 1)}
        assert [row["cus_message_id"] for row in hung] == ["hung-0", "hung-1", "hung-2"]
        assert bulk("resume", "otps.csv.ledger", env=account_of(sandbox)).exit_code == 6
        assert Counter(received(sandbox)) == {"999300000008": 3, **dict.fromkeys(GOOD[:5], 1)}


@posix
def test_a_ledger_in_use_is_left_to_its_process_and_a_killed_one_is_resumed_and_settled(start: Start) -> None:
    arrived = threading.Event()
    with serve_in_thread(Sandbox(clock=Clock(time=DueClock(3, arrived.set)))) as sandbox:
        env = account_of(sandbox)
        process = a_run_that_hangs(start, sandbox, arrived)
        for command in ("run", "resume", "resolve"):
            refused = bulk(command, "otps.csv" if command == "run" else "otps.csv.ledger", env=env)
            assert (command, refused.exit_code, refused.stdout) == (command, 3, "")
            assert refused.stderr == (
                "nxotp: otps.csv.ledger is in use by another process (wait until it has ended, or stop it)\n"
            )
        assert len(sandbox.requests) == 3
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL

        status = bulk("status", "otps.csv.ledger")
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
            "continue with: nxotp bulk resume otps.csv.ledger\n"
            "unknown messages may have arrived; resolve them: nxotp bulk resolve otps.csv.ledger --help\n"
            "write one row of results for each row of the input: nxotp bulk export otps.csv.ledger\n"
        )

        resumed = bulk("resume", "otps.csv.ledger", env=env)
        assert resumed.exit_code == 6
        assert Counter(received(sandbox)) == {"999300000008": 3, **dict.fromkeys(GOOD[:5], 1)}

        assert bulk("resolve", "otps.csv.ledger").stdout == "hung-0\nhung-1\nhung-2\n"
        with piped(b"".join(callback(f"hung-{place}", "sent") for place in range(3))) as stdin:
            settled = bulk("resolve", "otps.csv.ledger", "--callbacks", "-", stdin=stdin)
        assert settled.stderr == "3 callbacks read; they updated messages 3 times; 0 unknown\n"
        assert bulk("resume", "otps.csv.ledger", env=env).exit_code == 0
        assert len(sandbox.messages) == 8


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks for open files in /proc")
def test_the_file_is_closed_before_the_messages_are_sent(start: Start) -> None:
    arrived = threading.Event()
    with serve_in_thread(Sandbox(clock=Clock(time=DueClock(3, arrived.set)))) as sandbox:
        process = a_run_that_hangs(start, sandbox, arrived)
        opened = {link.readlink().name for link in Path(f"/proc/{process.pid}/fd").iterdir()}
        process.kill()
        finish(process)
    assert "otps.csv.ledger" in opened
    assert "otps.csv" not in opened


@posix
def test_a_run_under_nohup_goes_on_when_its_terminal_is_closed(start: Start) -> None:
    hung_up = threading.Event()

    def hang_up() -> None:
        processes[0].send_signal(signal.SIGHUP)
        hung_up.set()

    processes: list[subprocess.Popen[str]] = []
    with serve_in_thread(Sandbox(clock=Clock(time=DueClock(25, hang_up)))) as sandbox:
        arguments = ("bulk", "run", otps(*GOOD[:50]), "--concurrency", "8")
        processes.append(start(*arguments, env=account_of(sandbox), program=("-c", NOHUP)))
        assert hung_up.wait(30)
        code, _, err = finish(processes[0])
    assert (code, counts_of()) == (0, {"accepted": 50})
    assert "stopping" not in err


NOHUP = """
import signal
from nxotp_async.__main__ import main
signal.signal(signal.SIGHUP, signal.SIG_IGN)
main()
"""


class OneRefusedAndOneWaiting:
    """A transport: the first message is refused for the account's sake, the other one is answered after a Ctrl-C."""

    def __init__(self, dispatchers: list[Dispatcher]) -> None:
        self._dispatchers = dispatchers
        self._refused = b""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        if not url.endswith("/otp"):
            raise NotSentError("nobody answers questions about the account")
        self._refused = self._refused or body
        if body == self._refused:
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

    monkeypatch.setattr("nxotp_async.cli.bulk.sending.Dispatcher", Watched)
    transport = OneRefusedAndOneWaiting(dispatchers)
    monkeypatch.setattr(
        "nxotp_async.cli.account.OtpClient", lambda **options: OtpClient(**{**options, "transport": transport})
    )
    result = bulk("run", otps(*GOOD[:2]), "--concurrency", "2", env=KEYS)
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

    monkeypatch.setattr("nxotp_async.cli.bulk.loading.load", interrupted)
    result = bulk("run", otps(*GOOD[:5], "0555"), env=account)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.endswith("nxotp: interrupted; nothing was sent\n")
    assert (len(live.requests), list(Path().glob("*.ledger*"))) == (0, [])
    assert not list(Path().glob("*rejects*"))


def test_ctrl_c_after_the_last_answer_does_not_say_that_nothing_was_sent(
    live: Sandbox, account: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nxotp_async.cli.bulk.sending.print_summary", interrupted)
    result = bulk("run", otps(GOOD[0]), env=account)
    assert (result.exit_code, len(live.messages)) == (130, 1)
    assert "nothing was sent" not in result.stderr
