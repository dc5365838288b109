"""``nxotp bulk``: requeueing, budgets, money, and callbacks that were collected elsewhere."""

import json
from pathlib import Path

import pytest
from bulk_commands import GOOD, bulk, callback, counts_of, otps, received, results_of
from commands import Env, Start, finish, posix
from listen_commands import line_of, push, url_of

from nxotp_async.bulk import Ledger
from nxotp_async.sandbox import Fault, Sandbox

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory", "short_holds")

LEDGER = "otps.csv.ledger"


# ---------------------------------------------------------------------------------------------- requeue


def test_what_was_rejected_is_queued_again_once_mended(live: Sandbox, account: Env) -> None:
    live.script(Fault(), Fault.answer(10005), Fault.answer(10005), Fault.answer(9015))
    assert bulk("run", otps(*GOOD[:5]), "--concurrency", "1", "--keep-codes", env=account).exit_code == 1
    assert counts_of() == {"accepted": 2, "rejected": 3}
    requeued = bulk("requeue", LEDGER, "--code", "10005")
    assert (requeued.exit_code, requeued.stderr) == (0, "2 of 2 rejected messages queued again\n")
    (rejected,) = [row["cus_message_id"] for row in results_of() if row["status"] == "rejected"]
    assert bulk("requeue", LEDGER, rejected).exit_code == 0
    assert bulk("resume", LEDGER, env=account).exit_code == 0
    assert received(live) == list(GOOD[:5])


def test_without_their_codes_none_is(live: Sandbox, account: Env) -> None:
    live.script(*[Fault.answer(10005)] * 2)
    bulk("run", otps(*GOOD[:2]), env=account)
    requeued = bulk("requeue", LEDGER, "--all")
    assert (requeued.exit_code, counts_of()) == (1, {"rejected": 2})
    assert requeued.stderr == (
        "0 of 2 rejected messages queued again\nnxotp: 2 have no code any more: it has expired, or was not kept\n"
    )
    requeued = bulk("requeue", LEDGER, "no-such-id")
    assert (requeued.exit_code, requeued.stderr.splitlines()[-1]) == (1, "nxotp: no message of these was rejected")


@pytest.mark.parametrize("which", [(), ("--all", "an-id"), ("--all", "--code", "10005")])
def test_which_messages_must_be_said(which: tuple[str, ...]) -> None:
    refused = bulk("requeue", LEDGER, *which)
    assert refused.exit_code == 2
    assert "name the messages: their ids, --code, or --all" in refused.stderr


# ---------------------------------------------------------------------------------------------- budgets


def test_a_run_ends_before_its_budget_is_passed(live: Sandbox, account: Env) -> None:
    result = bulk("run", otps(*GOOD[:10]), "--budget", "0.2USD", "--price", "0.05", env=account)
    assert (result.exit_code, len(live.messages), counts_of()) == (3, 4, {"accepted": 4, "queued": 6})
    assert "paused: another message could cost more than the budget of 0.2 USD allows" in result.stderr
    cost = {"costs": [{"currency": "USD", "foreign_price": "0.01"}]}
    lines = [callback(row["cus_message_id"], "sent", **cost) for row in results_of() if row["status"] == "accepted"]
    Path("callbacks.ndjson").write_bytes(b"".join(lines))
    assert bulk("resolve", LEDGER, "--callbacks", "callbacks.ndjson").exit_code == 0
    assert json.loads(bulk("status", LEDGER, "--json").stdout)["countries"][0]["costs"] == {"USD": "0.04"}
    shown = bulk("status", LEDGER).stdout
    assert "0.04 USD" in shown
    assert bulk("resume", LEDGER, "--budget", "0.2 usd", "--price", "0.05", env=account).exit_code == 3
    assert counts_of() == {"accepted": 7, "queued": 3}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", "5"), "--budget and --price require one another"),
        (("--price", "5"), "--budget and --price require one another"),
        (("--budget", "-5", "--price", "1"), "expected an amount, with its currency unless that is CNY"),
        (("--budget", "5 dollars", "--price", "1"), "expected an amount"),
        (("--budget", "5", "--price", "1USD"), "expected an amount"),
    ],
)
def test_a_budget_that_is_none_is_refused(live: Sandbox, account: Env, options: tuple[str, ...], said: str) -> None:
    refused = bulk("run", otps(GOOD[0]), *options, env=account)
    assert (refused.exit_code, len(live.requests)) == (2, 0)
    assert said in refused.stderr


def test_a_price_of_nothing_is_refused_before_anything_is_made(live: Sandbox, account: Env) -> None:
    refused = bulk("run", otps(GOOD[0]), "--budget", "5", "--price", "0", env=account)
    assert (refused.exit_code, refused.stderr) == (3, "nxotp: price must be more than 0\n")
    assert not Path(LEDGER).exists()


# ---------------------------------------------------------------------------------------------- callbacks, days later


@posix
def test_what_listen_prints_completes_the_funnel_days_later(
    live: Sandbox, account: Env, start: Start, listen: Start
) -> None:
    assert bulk("run", otps(*GOOD[:4]), env=account).exit_code == 0
    ids = [row["cus_message_id"] for row in results_of()]
    listening = listen("--json")
    url = url_of(listening)
    printed = []
    for message_id, status in zip(ids, ("delivered", "read", "failed", "sent"), strict=True):
        cost = {"costs": [{"currency": "USD", "foreign_price": "0.025", "price": "0.18", "cdr_type": 6}]}
        assert push(url, callback(message_id, status, **cost)) == 200
        printed.append(line_of(listening))
    listening.terminate()
    assert finish(listening)[0] == 0
    Path("callbacks.ndjson").write_text("".join(printed))
    resolved = bulk("resolve", LEDGER, "--callbacks", "callbacks.ndjson")
    assert resolved.stderr == "4 callbacks read; they updated messages 4 times; 0 unknown\n"
    fields = json.loads(bulk("status", LEDGER, "--json").stdout)
    assert fields["receipts"] == {"sent": 4, "delivered": 2, "read": 1, "failed": 1}
    assert fields["countries"][0]["costs"] == {"USD": "0.1"}


def test_what_is_resolved_by_hand_is_no_callback(live: Sandbox, account: Env) -> None:
    live.script(Fault.http(500), Fault.http(500))
    bulk("run", otps(*GOOD[:2]), "--concurrency", "1", env=account)
    first, second = (row["cus_message_id"] for row in results_of())
    bulk("resolve", LEDGER, "failed", first)
    bulk("resolve", LEDGER, "delivered", second)
    assert json.loads(bulk("status", LEDGER, "--json").stdout)["receipts"] == dict.fromkeys(
        ("sent", "delivered", "read", "failed"), 0
    )
    with Ledger(LEDGER) as ledger:
        assert ledger.counts() == {"accepted": 1, "rejected": 1}
