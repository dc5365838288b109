"""``nxotp bulk run --listen``."""

import contextlib
import csv
import errno
import io
import json
import re
import signal
import socket
from pathlib import Path

import pytest
from bulk_commands import GOOD, LOST, bulk, counts_of, free_port, results_of, write
from commands import CONTENT, KEYS, Env, Start, account_of, finish, posix, read_until

from nxotp_async.bulk import Dispatcher, Ledger, MessageState, Report, load, open_messages
from nxotp_async.sandbox import CallbackPlan, Fault, Sandbox
from nxotp_async.testing import serve_in_thread

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")


TOKEN = "an-unguessable-path"
DELIVERED = CallbackPlan(statuses=("sent", "delivered"))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nxotp_async.cli.bulk.sending.CALLBACKS_INTERVAL", 0.01)


def listening(*, path: str = "", wait: float = 30) -> tuple[str, ...]:
    port = free_port()
    return "--listen", port, "--dr-webhook", f"http://127.0.0.1:{port}/{path}", "--listen-for", str(wait)


def with_ids(*numbers: str) -> str:
    rows = [f"{number},{CONTENT},id-{place}" for place, number in enumerate(numbers)]
    return write(*rows, header="to,content,cus_message_id")


def exported() -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(bulk("export", "otps.csv.ledger").stdout)))


@pytest.mark.parametrize(
    ("count", "plan", "form"),
    [
        pytest.param(300, DELIVERED, (), id="in order"),
        pytest.param(150, CallbackPlan(statuses=("sent", "delivered"), early=1.0), ("--json",), id="before the answer"),
        pytest.param(
            150,
            CallbackPlan(statuses=("sent", "delivered"), shuffle=True, copies=2, forged=0.2, algorithm="md5"),
            ("--json",),
            id="shuffled, repeated and forged",
        ),
    ],
)
def test_a_run_with_lost_answers_knows_of_every_message_in_the_end(
    count: int, plan: CallbackPlan, form: tuple[str, ...]
) -> None:
    lost = (Fault.disconnect_after_reading(),)
    with serve_in_thread(Sandbox(callbacks=plan, fault_rate=0.2, faults=lost, seed=7)) as sandbox:
        result = bulk("run", with_ids(*GOOD[:count]), *listening(), *form, env=account_of(sandbox))
        assert sandbox.counts["fault disconnect_after_reading"] > count / 10
        assert sorted(message.to for message in sandbox.messages) == list(GOOD[:count])
    assert result.exit_code == 0, result.stderr
    if form:
        shown = json.loads(result.stdout)
        assert (shown["accepted"], shown["unknown"], shown["reasons"]) == (count, 0, [])
        assert shown["receipts"] == {"sent": count, "delivered": count, "read": 0, "failed": 0}
    else:
        assert re.search(rf"^accepted +{count}$.*^unknown +0 *$", result.stdout, re.MULTILINE | re.DOTALL)
        assert result.stdout.endswith(f"\ncallbacks: sent {count}, delivered {count}, read 0, failed 0\n")
    rows = exported()
    assert {(row["status"], row["receipt"], row["attempts"]) for row in rows} == {("accepted", "delivered", "1")}
    assert CONTENT.encode() not in Path("otps.csv.ledger").read_bytes()


def test_no_trace_of_a_code_is_left_when_callbacks_settle_messages_after_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unknown_when_forgetting = []
    forget_codes = Ledger.forget_codes

    def forget(ledger: Ledger) -> None:
        unknown_when_forgetting.append(ledger.counts()[MessageState.UNKNOWN])
        forget_codes(ledger)

    monkeypatch.setattr(Ledger, "forget_codes", forget)
    lost = (Fault.disconnect_after_reading(),)
    with serve_in_thread(Sandbox(callbacks=DELIVERED, fault_rate=1.0, faults=lost)) as sandbox:
        result = bulk("run", with_ids(*GOOD[:5]), *listening(), env=account_of(sandbox))
    assert result.exit_code == 0, result.stderr
    at_the_end_of_the_run, after_the_last_callback = unknown_when_forgetting
    assert at_the_end_of_the_run >= after_the_last_callback == 0


@pytest.mark.parametrize("number", [GOOD[0], LOST], ids=["answered", "lost"])
@pytest.mark.parametrize(
    ("status", "error", "reason"), [("delivered", None, None), ("failed", "DeliveryFailed", "its delivery has failed")]
)
def test_a_row_is_the_same_whether_the_callback_or_the_answer_comes_first(
    number: str, status: str, error: str | None, reason: str | None
) -> None:
    rows = []
    for early in (0.0, 1.0):
        Path("otps.csv.ledger").unlink(missing_ok=True)
        with serve_in_thread(Sandbox(callbacks=CallbackPlan(statuses=(status,), early=early))) as sandbox:
            bulk("run", with_ids(number, GOOD[1]), *listening(), env=account_of(sandbox))
        rows.append(results_of()[0])
    state = "accepted"
    for row in rows:
        assert (row["status"], row["receipt"], row["error"], row["reason"]) == (state, status, error, reason)
        assert row["message_id"] == "id-0"


def test_deliveries_that_fail_are_told() -> None:
    with serve_in_thread(Sandbox(callbacks=CallbackPlan(statuses=("failed",)))) as sandbox:
        result = bulk("run", with_ids(*GOOD[:3], LOST), *listening(), env=account_of(sandbox))
    assert result.exit_code == 0  # the vendor has accepted them
    assert "\ncallbacks: sent 4, delivered 0, read 0, failed 4\n" in result.stdout
    rows = [(row["status"], row["receipt"], row["error"]) for row in results_of()]
    assert rows == [("accepted", "failed", "DeliveryFailed")] * 4


@pytest.mark.parametrize("wait", [0, 0.05])
@pytest.mark.parametrize(("numbers", "code"), [(GOOD[:2], 0), ((GOOD[0], LOST), 6)], ids=["accepted", "unknown"])
def test_callbacks_that_never_come_are_waited_for_no_longer_than_told(
    wait: float, numbers: tuple[str, ...], code: int
) -> None:
    with serve_in_thread(Sandbox(callbacks=CallbackPlan(loss=1.0))) as sandbox:
        result = bulk("run", with_ids(*numbers), *listening(wait=wait), env=account_of(sandbox))
    assert result.exit_code == code
    assert f"waiting for callbacks of 2 messages, {wait:g} s at most; Ctrl-C ends it\n" in result.stderr
    assert "callbacks: " not in result.stdout
    assert counts_of() == ({"accepted": 2} if code == 0 else {"accepted": 1, "unknown": 1})


def test_callbacks_that_tell_only_that_it_was_sent_settle_what_is_unknown_and_are_no_delivery() -> None:
    with serve_in_thread(Sandbox(callbacks=CallbackPlan(statuses=("sent",), early=1.0))) as sandbox:
        result = bulk("run", with_ids(GOOD[0], LOST), *listening(wait=0.05), env=account_of(sandbox))
    assert (result.exit_code, counts_of()) == (0, {"accepted": 2})
    assert "waiting for callbacks of 2 messages" in result.stderr
    assert "\ncallbacks: sent 2, delivered 0, read 0, failed 0\n" in result.stdout


@pytest.mark.parametrize("again", ["queued again", "left unknown"])
def test_resume_listens_too(again: str) -> None:
    silent = CallbackPlan(loss=1.0)
    with serve_in_thread(Sandbox(callbacks=silent)) as sandbox:
        assert bulk("run", with_ids(LOST), env=account_of(sandbox)).exit_code == 6
    plan = CallbackPlan(statuses=("read",)) if again == "queued again" else silent
    with Ledger("otps.csv.ledger") as ledger:
        assert ledger.requeue(["id-0"] if again == "queued again" else []) == (again == "queued again")
    with serve_in_thread(Sandbox(callbacks=plan)) as sandbox:
        options = listening(wait=30 if again == "queued again" else 0)
        result = bulk("resume", "otps.csv.ledger", *options, "--json", env=account_of(sandbox))
    heard = int(again == "queued again")
    assert result.exit_code == (0 if heard else 6)
    assert json.loads(result.stdout)["receipts"] == {"sent": heard, "delivered": heard, "read": heard, "failed": 0}
    assert ("waiting for callbacks of 1 messages, 0 s" in result.stderr) is not bool(heard)
    assert counts_of() == {"accepted" if heard else "unknown": 1}


def test_without_listening_nothing_is_waited_for() -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        result = bulk("run", with_ids(GOOD[0]), env=account_of(sandbox))
    assert (result.exit_code, "callbacks" in result.stderr + result.stdout) == (0, False)


@posix
@pytest.mark.parametrize(("number", "code", "signals"), [(LOST, 6, ["SIGINT", "SIGINT"]), (GOOD[0], 0, ["SIGTERM"])])
def test_ctrl_c_ends_the_wait_with_the_runs_own_exit_code(
    start: Start, number: str, code: int, signals: list[str]
) -> None:
    with serve_in_thread(Sandbox(callbacks=CallbackPlan(loss=1.0))) as sandbox:
        process = start("bulk", "run", with_ids(number), *listening(wait=600), "--json", env=account_of(sandbox))
        read_until(process.stderr, r"waiting for callbacks of 1 messages, 600 s at most; Ctrl-C ends it\n")
        for name in signals:
            process.send_signal(getattr(signal, name))
        exit_code, out, err = finish(process)
    shown = json.loads(out)
    assert (exit_code, shown["total"], shown["stopped"], shown["paused"]) == (code, 1, False, None)
    assert "Traceback" not in err
    assert "stopped at once" not in err


@pytest.mark.parametrize("command", ["run", "resume"])
def test_an_address_that_is_taken_stops_everything(command: str) -> None:
    subject = with_ids(GOOD[0])
    with serve_in_thread(Sandbox()) as sandbox, socket.create_server(("127.0.0.1", 0)) as taken:
        if command == "resume":
            subject = "otps.csv.ledger"
            with Ledger(subject) as ledger, open_messages("otps.csv") as file:
                load(ledger, file)
        port = taken.getsockname()[1]
        result = bulk(command, subject, "--listen", str(port), env=account_of(sandbox))
        assert len(sandbox.requests) == 0
    assert (result.exit_code, result.stdout, counts_of()) == (3, "", {"queued": 1})
    said = rf"^nxotp: cannot listen on 127\.0\.0\.1:{port}: .*in use.*; nothing was sent$"
    assert re.search(said, result.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    "options",
    [
        *[
            ("--listen", address)
            for address in ("", "x", "host:", "host:http", "65536", "-1", "1.5", "\u00b2", "0.0.0.0:99999", "8090:")
        ],
        ("--listen", "9" * 5000),
        *[("--listen-for", seconds) for seconds in ("-1", "nan", "inf", "86401", "soon")],
    ],
    ids=lambda options: f"{options[0]} {options[1][:20]}",
)
@pytest.mark.parametrize("command", ["run", "resume"])
def test_a_wrong_address_or_time_is_told_before_anything_is_done(command: str, options: tuple[str, ...]) -> None:
    result = bulk(command, with_ids(GOOD[0]), *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Invalid value for '{options[0]}'" in result.stderr
    assert not Path("otps.csv.ledger").exists()


@pytest.mark.parametrize(
    ("options", "env"),
    [(("--token", TOKEN), {}), ((), {"NXOTP_CALLBACK_TOKEN": TOKEN}), (("--token", TOKEN, "--unsigned"), {})],
    ids=["option", "variable", "unsigned"],
)
def test_callbacks_come_to_the_path_that_the_token_says(options: tuple[str, ...], env: Env) -> None:
    plan = CallbackPlan(statuses=("delivered",), signed="--unsigned" not in options)
    with serve_in_thread(Sandbox(callbacks=plan)) as sandbox:
        arguments = ("run", with_ids(GOOD[0], LOST), *listening(path=TOKEN), *options)
        result = bulk(*arguments, env={**account_of(sandbox), **env})
    assert (result.exit_code, counts_of()) == (0, {"accepted": 2})
    assert re.search(rf"^receiving callbacks on http://127\.0\.0\.1:\d+/{TOKEN}$", result.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("path", "options", "signed"),
    [
        ("", ("--token", TOKEN), True),
        (TOKEN, ("--token", TOKEN), False),
        ("", (), False),
        ("another-unguessable-path", ("--token", TOKEN, "--unsigned"), False),
    ],
    ids=["no path", "unsigned with a token", "unsigned", "another token"],
)
def test_callbacks_that_cannot_be_believed_settle_nothing(path: str, options: tuple[str, ...], signed: bool) -> None:
    plan = CallbackPlan(statuses=("delivered",), signed=signed, early=1.0)
    with serve_in_thread(Sandbox(callbacks=plan)) as sandbox:
        arguments = ("run", with_ids(GOOD[0], LOST), *listening(path=path, wait=0), *options)
        result = bulk(*arguments, env=account_of(sandbox))
        assert sandbox.counts["callbacks pushed"] >= 2
    assert (result.exit_code, counts_of()) == (6, {"accepted": 1, "unknown": 1})


@pytest.mark.parametrize(("options", "heard"), [((), 0), (("--window", "1000"), 1)], ids=["default", "longer"])
def test_a_run_takes_callbacks_whose_time_is_within_the_window(options: tuple[str, ...], heard: int) -> None:
    plan = CallbackPlan(statuses=("delivered",), early=1.0)
    with serve_in_thread(Sandbox(callbacks=plan, clock_offset=800.0)) as sandbox:
        arguments = ("run", with_ids(GOOD[0]), *listening(wait=0), *options, "--json")
        result = bulk(*arguments, env=account_of(sandbox))
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["receipts"]["delivered"] == heard


@pytest.mark.parametrize("token", ["short", "with/a-slash-in-the-midst"])
def test_a_token_that_is_none_stops_everything(token: str) -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        result = bulk("run", with_ids(GOOD[0]), "--listen", "0", "--token", token, env=account_of(sandbox))
        assert len(sandbox.requests) == 0
    assert (result.exit_code, result.stdout, counts_of()) == (3, "", {"queued": 1})
    problem = "must be 16 or more of the characters A-Z, a-z, 0-9, '-', '_', '.' and '~'"
    assert f"nxotp: --token (or NXOTP_CALLBACK_TOKEN) {problem}; nothing was sent\n" in result.stderr


def test_at_a_terminal_each_key_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(label: str) -> str:
        asked.append(label)
        return KEYS[f"NXOTP_{label.upper().replace(' ', '_')}"]

    monkeypatch.setattr("nxotp_async.cli.account.ask", ask)
    with serve_in_thread(Sandbox(callbacks=DELIVERED)) as sandbox:
        result = bulk("run", with_ids(GOOD[0]), *listening(), "--base-url", sandbox.url)
    assert (result.exit_code, asked) == (0, ["Access key", "Access secret", "Appkey"])


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_callbacks_that_come_while_it_runs_settle_what_is_unknown(
    monkeypatch: pytest.MonkeyPatch, form: tuple[str, ...]
) -> None:
    port = free_port()
    listening = ("--listen", port, "--dr-webhook", f"http://127.0.0.1:{port}/")
    with serve_in_thread(Sandbox(callbacks=CallbackPlan(statuses=("sent", "delivered")))) as sandbox:
        result = bulk("run", with_ids(*GOOD[:3], LOST), *listening, *form, env=account_of(sandbox))
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
    result = bulk("run", with_ids(GOOD[0]), "--listen", "0", "--token", "guess", env=account)
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

    monkeypatch.setattr("nxotp_async.cli.bulk.sending.Dispatcher", Failing)
    with contextlib.suppress(OSError):
        assert "nothing was sent" not in bulk("run", with_ids(GOOD[0]), env=account).stderr
    assert len(live.messages) == 1
