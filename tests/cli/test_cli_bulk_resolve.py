"""``nxotp bulk resolve``."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from bulk_commands import GOOD, bulk, callback, counts_of, ledger_of, received, results_of
from commands import CONTENT, OTP, Env

from nxotp_async.sandbox import Sandbox

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")


@pytest.fixture
def unsettled() -> str:
    """A ledger with three unknown messages and a queued one."""
    rows = [f"{number},{CONTENT},id-{place}" for place, number in enumerate(GOOD[:4])]
    return ledger_of(*rows, unknown=("id-0", "id-1", "id-2"))


def test_resolve_alone_lists_what_is_unknown(unsettled: str) -> None:
    result = bulk("resolve", unsettled)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "id-0\nid-1\nid-2\n", "")


def test_resolve_lists_nothing_where_nothing_is_unknown() -> None:
    result = bulk("resolve", ledger_of(f"{GOOD[0]},{CONTENT},a"))
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.parametrize(
    ("outcome", "told", "state"),
    [("delivered", "delivered", "accepted"), ("failed", "failed", "rejected"), ("resend", "queued again", "queued")],
)
@pytest.mark.parametrize("which", [("id-0", "id-2"), ("--all",)], ids=" ".join)
def test_what_is_unknown_is_settled_by_hand(
    unsettled: str, outcome: str, told: str, state: str, which: tuple[str, ...]
) -> None:
    result = bulk("resolve", unsettled, outcome, *which)
    settled, left = (3, 0) if which == ("--all",) else (2, 1)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"{settled} of {settled} {told}; {left} unknown\n"
    states = [row["status"] for row in results_of(unsettled)]
    assert states == [state, "unknown" if left else state, state, "queued"]


def test_what_is_queued_again_is_sent_by_resume(live: Sandbox, account: Env, unsettled: str) -> None:
    bulk("resolve", unsettled, "resend", "id-1")
    result = bulk("resume", unsettled, env=account)
    assert (result.exit_code, received(live)) == (6, [GOOD[1], GOOD[3]])
    assert {message.cus_message_id for message in live.messages} == {"id-1", "id-3"}


def test_a_settled_message_keeps_no_code(unsettled: str) -> None:
    assert OTP.encode() in Path(unsettled).read_bytes()
    bulk("resolve", unsettled, "delivered", "id-0")
    bulk("resolve", unsettled, "failed", "id-1", "id-2")
    with contextlib.closing(sqlite3.connect(unsettled)) as database:
        kept = database.execute("SELECT cus_message_id FROM messages WHERE content IS NOT NULL").fetchall()
    assert kept == [("id-3",)]


def test_ids_that_are_not_unknown_are_told(unsettled: str) -> None:
    result = bulk("resolve", unsettled, "failed", "id-0", "id-3", "no-such")
    assert (result.exit_code, result.stdout) == (1, "")
    first, second = result.stderr.splitlines()
    assert first == "1 of 3 failed; 2 unknown"
    assert second.startswith("nxotp: 2 are not in the ledger")
    assert second.endswith("or are not unknown")
    assert counts_of(unsettled) == {"queued": 1, "rejected": 1, "unknown": 2}


def test_an_id_given_twice_is_one_message(unsettled: str) -> None:
    result = bulk("resolve", unsettled, "delivered", "id-0", "id-0")
    assert result.exit_code == 0
    assert "are not unknown" not in result.stderr
    assert counts_of(unsettled) == {"accepted": 1, "queued": 1, "unknown": 2}


def test_a_message_whose_code_has_expired_cannot_be_sent_again(account: Env) -> None:
    ledger = ledger_of(
        f"{GOOD[0]},{CONTENT},old,2020-01-01T00:00:00Z", header="to,content,cus_message_id,expires_at", unknown=("old",)
    )
    result = bulk("resolve", ledger, "resend", "old")
    assert (result.exit_code, counts_of(ledger)) == (1, {"unknown": 1})
    assert "their code has expired" in result.stderr


def test_callbacks_settle_what_they_tell_of(unsettled: str) -> None:
    bodies = [
        callback("id-0", "delivered"),
        callback("id-0", "sent"),
        b"\n",
        callback("id-1", "failed"),
        callback("another", "read"),
    ]
    Path("callbacks.ndjson").write_bytes(b"".join(bodies))
    result = bulk("resolve", unsettled, "--callbacks", "callbacks.ndjson")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "4 callbacks read; they updated messages 2 times; 1 unknown\n"
    assert [(row["status"], row["receipt"]) for row in results_of(unsettled)] == [
        ("accepted", "delivered"),
        ("accepted", "failed"),
        ("unknown", None),
        ("queued", None),
    ]
    again = bulk("resolve", unsettled, "--callbacks", "callbacks.ndjson")
    assert again.stderr == "4 callbacks read; they updated messages 0 times; 1 unknown\n"


def test_lines_that_are_no_callback_are_told_and_the_others_count(unsettled: str) -> None:
    Path("callbacks").write_bytes(b"no JSON\n" + callback("id-0", "sent") + b"[]\n" * 12)
    result = bulk("resolve", unsettled, "--callbacks", "callbacks")
    assert result.exit_code == 1
    assert result.stderr == (
        "1 callbacks read; they updated messages 1 times; 2 unknown\n"
        "nxotp: 13 lines are not callbacks: 1, 3, 4, 5, 6, 7, 8, 9, 10, 11\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("delivered",), "name the messages that are delivered: either their ids, or --all"),
        (("resend", "id-0", "--all"), "either their ids, or --all"),
        (("--all",), "--all requires an outcome: delivered, failed or resend"),
        (("perhaps", "id-0"), "'delivered', 'failed', 'resend'"),
        (("--callbacks", "input.csv", "delivered", "id-0"), "--callbacks cannot be used with an outcome, ids or --all"),
        (("--callbacks", "input.csv", "--all"), "--callbacks cannot be used with an outcome, ids or --all"),
        (("--callbacks", "no-such-file"), "no-such-file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_resolve_refuses_wrong_usage_and_settles_nothing(unsettled: str, arguments: tuple[str, ...], said: str) -> None:
    result = bulk("resolve", unsettled, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert counts_of(unsettled) == {"queued": 1, "unknown": 3}
