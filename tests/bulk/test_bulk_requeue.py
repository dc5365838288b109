"""Rejected messages whose codes are kept, and that are queued again."""

import pytest
from bulk_ledgers import (
    ACCEPTED,
    CODE,
    NOW,
    QUEUED,
    REJECTED,
    ProbedLedger,
    begin,
    claim,
    contents,
    entries,
    expiring,
    keys,
    record,
    states,
    take,
)
from bulk_runs import Vendor, in_state, ledger_of, messages, refusal, run

from nxotp_async.bulk import MessageState
from nxotp_async.bulk.schema import Transition


def rejected_by(code: int, *names: str) -> Vendor:
    return Vendor(lambda post: refusal(code) if post.name in names else None)


def test_what_was_rejected_is_queued_again_and_sent_once() -> None:
    vendor = rejected_by(10005, "m1", "m2")
    with ledger_of(messages(4)) as ledger:
        assert run(ledger, vendor, keep_codes=True).report.counts == {ACCEPTED: 2, REJECTED: 2}
        assert ledger.requeue_rejected() == (2, 2)
        assert in_state(ledger, QUEUED) == {"m1", "m2"}
        vendor.treat = None
        assert run(ledger, vendor).report.counts == {ACCEPTED: 4}
        assert contents(ledger) == [None] * 4
    assert len(vendor.times("m1")) == 2


@pytest.mark.parametrize(
    ("which", "chosen"),
    [(["m1"], {"m1"}), ([10005], {"m1", "m2"}), ([9015, "m1"], {"m1", "m3"}), ([], set()), (["m0", "m9"], set())],
)
def test_only_those_that_are_named_are(which: list[str | int], chosen: set[str]) -> None:
    vendor = Vendor(
        lambda post: refusal({"m1": 10005, "m2": 10005, "m3": 9015}[post.name]) if post.name != "m0" else None
    )
    with ledger_of(messages(4)) as ledger:
        run(ledger, vendor, keep_codes=True)
        assert ledger.requeue_rejected(which) == (len(chosen), len(chosen))
        assert in_state(ledger, QUEUED) == chosen


def test_without_being_kept_no_code_of_a_rejected_message_remains() -> None:
    with ledger_of(messages(4)) as ledger:
        run(ledger, rejected_by(10005, "m1", "m2"))
        assert contents(ledger) == [None] * 4
        assert ledger.requeue_rejected() == (2, 0)
        assert in_state(ledger, REJECTED) == {"m1", "m2"}


def test_the_next_run_that_keeps_none_erases_what_was_kept() -> None:
    with ledger_of(messages(4)) as ledger:
        vendor = rejected_by(10005, "m1", "m2")
        for _ in range(2):
            run(ledger, vendor, keep_codes=True)
            assert contents(ledger) == [None, CODE, CODE, None]
        run(ledger, vendor)
        assert contents(ledger) == [None] * 4


@pytest.fixture
def ledger() -> ProbedLedger:
    return ProbedLedger(None)


def reject(ledger: ProbedLedger, *numbers: int, state: MessageState = REJECTED) -> None:
    begin(ledger, keep_codes=True)
    claim(ledger)
    record(ledger, *[Transition(number, state, 1, code=10005) for number in numbers])


def test_a_code_that_is_kept_is_erased_when_it_expires(ledger: ProbedLedger) -> None:
    take(ledger, expiring(1, 60), expiring(2, 600))
    reject(ledger, 1, 2)
    ledger.expire(NOW + 59)
    assert contents(ledger) == [CODE, CODE]
    ledger.expire(NOW + 61)
    assert contents(ledger) == [None, CODE]
    assert states(ledger) == [REJECTED, REJECTED]


def test_an_expired_code_is_not_queued_again_although_nobody_has_erased_it_yet(ledger: ProbedLedger) -> None:
    """The times of these ledgers are long ago by the machine's clock."""
    take(ledger, expiring(1, 60), *entries(2)[1:])
    reject(ledger, 1, 2)
    assert ledger.requeue_rejected() == (2, 1)
    assert states(ledger) == [REJECTED, QUEUED]


@pytest.mark.parametrize("state", [ACCEPTED, MessageState.UNKNOWN])
def test_what_may_have_arrived_is_never_queued_again_by_this(ledger: ProbedLedger, state: MessageState) -> None:
    take(ledger, *entries(1))
    reject(ledger, 1, state=state)
    assert ledger.requeue_rejected() == (0, 0)
    assert ledger.requeue_rejected(["id-1", 10005]) == (0, 0)
    assert states(ledger) == [state]


def test_nor_is_what_may_have_arrived_before_and_was_rejected_by_hand(ledger: ProbedLedger) -> None:
    take(ledger, *entries(1))
    reject(ledger, 1, state=MessageState.UNKNOWN)
    ledger.resolve({"id-1": "failed"})
    assert states(ledger) == [REJECTED]
    assert ledger.requeue_rejected() == (1, 0)
    assert contents(ledger) == [None]


def test_a_message_that_is_queued_again_has_all_its_attempts(ledger: ProbedLedger) -> None:
    take(ledger, *entries(1))
    begin(ledger, keep_codes=True)
    claim(ledger)
    record(ledger, Transition(1, REJECTED, 5, refusals=5, code=-1))
    assert ledger.requeue_rejected([-1]) == (1, 1)
    begin(ledger)
    claimed = claim(ledger)
    assert keys(claimed) == [1]
    assert claimed.messages[0].refusals == 0
