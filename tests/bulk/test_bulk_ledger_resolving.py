from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from bulk_ledgers import (
    ACCEPTED,
    CODE,
    FAR,
    NOT_SENT,
    NOW,
    QUEUED,
    REJECTED,
    SENDING,
    UNKNOWN,
    ProbedLedger,
    begin,
    brought_to,
    claim,
    contents,
    entries,
    entry,
    expiring,
    keys,
    record,
    row,
    states,
    take,
)

from nxotp_async.bulk import Ledger, MessageState
from nxotp_async.bulk.schema import Transition


@pytest.fixture
def ledger() -> Iterator[ProbedLedger]:
    with ProbedLedger(None) as ledger:
        yield ledger


# ---------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("receipt", "state"), [("sent", ACCEPTED), ("read", ACCEPTED), ("deleted", ACCEPTED), ("failed", ACCEPTED)]
)
@pytest.mark.parametrize("how", ["the answer is lost", "the process ends"])
def test_a_callback_that_comes_before_the_answer_counts_where_none_comes(
    tmp_path: Path, receipt: str, state: MessageState, how: str
) -> None:
    with ProbedLedger(tmp_path / "run.db") as ledger:
        take(ledger, entry(1))
        begin(ledger)
        claim(ledger, 1)
        assert ledger.resolve({"id-1": receipt}, by_callback=True) == 1
        assert (states(ledger), contents(ledger)) == ([SENDING], [CODE])
        if how == "the answer is lost":
            record(ledger, Transition(1, UNKNOWN, 1, error="OutcomeUnknownError"))
    with ProbedLedger(tmp_path / "run.db") as ledger:
        assert (states(ledger), contents(ledger)) == ([state], [None])
        assert row(ledger)["receipt"] == receipt


def test_a_callback_that_comes_before_the_answer_changes_no_answer(ledger: ProbedLedger) -> None:
    take(ledger, *entries(2))
    begin(ledger)
    claim(ledger, 2)
    assert ledger.resolve({"id-1": "sent", "id-2": "sent"}, by_callback=True) == 2
    record(ledger, Transition(1, ACCEPTED, 1, message_id="id-1"), Transition(2, REJECTED, 1, code=9015))
    assert states(ledger) == [ACCEPTED, REJECTED]


def test_a_message_queued_again_that_a_callback_speaks_of_is_not_sent(ledger: ProbedLedger) -> None:
    brought_to(UNKNOWN, ledger)
    assert ledger.requeue(["id-1"]) == 1
    assert ledger.resolve({"id-1": "delivered"}, by_callback=True) == 1
    begin(ledger)
    assert (claim(ledger).messages, states(ledger), contents(ledger)) == ([], [ACCEPTED], [None])


@pytest.mark.parametrize("state", [REJECTED, NOT_SENT])
def test_a_message_queued_again_may_have_arrived_whatever_becomes_of_it(
    ledger: ProbedLedger, state: MessageState
) -> None:
    brought_to(UNKNOWN, ledger)
    ledger.requeue(["id-1"])
    begin(ledger)
    claim(ledger, 1)
    record(ledger, Transition(1, state, 1))
    assert (states(ledger), contents(ledger)) == ([UNKNOWN], [CODE])


@attrs.frozen
class Told:
    """What a row is after receipts: its state, its receipt, its error, and how often that was news."""

    state: MessageState
    receipt: str | None
    news: int
    error: str | None = None


_FAILED = "DeliveryFailed"
_RECEIPTS = [
    (UNKNOWN, ["sent"], Told(ACCEPTED, "sent", 1)),
    (UNKNOWN, ["delivered"], Told(ACCEPTED, "delivered", 1)),
    (UNKNOWN, ["read"], Told(ACCEPTED, "read", 1)),
    (UNKNOWN, ["failed"], Told(ACCEPTED, "failed", 1, _FAILED)),
    (UNKNOWN, ["deleted"], Told(ACCEPTED, "deleted", 1)),
    (UNKNOWN, ["sent", "delivered", "read"], Told(ACCEPTED, "read", 3)),
    (UNKNOWN, ["read", "delivered", "sent"], Told(ACCEPTED, "read", 1)),
    (UNKNOWN, ["delivered", "sent", "read", "delivered"], Told(ACCEPTED, "read", 2)),
    (UNKNOWN, ["sent", "sent", "sent"], Told(ACCEPTED, "sent", 1)),
    (UNKNOWN, ["sent", "failed"], Told(ACCEPTED, "failed", 2, _FAILED)),
    (UNKNOWN, ["failed", "sent"], Told(ACCEPTED, "failed", 1, _FAILED)),
    (UNKNOWN, ["failed", "failed"], Told(ACCEPTED, "failed", 1, _FAILED)),
    (UNKNOWN, ["failed", "delivered"], Told(ACCEPTED, "failed", 1, _FAILED)),
    (UNKNOWN, ["delivered", "failed"], Told(ACCEPTED, "delivered", 1)),
    (UNKNOWN, ["failed", "read"], Told(ACCEPTED, "failed", 1, _FAILED)),
    (ACCEPTED, ["sent"], Told(ACCEPTED, "sent", 1)),
    (ACCEPTED, ["delivered"], Told(ACCEPTED, "delivered", 1)),
    (ACCEPTED, ["read"], Told(ACCEPTED, "read", 1)),
    (ACCEPTED, ["failed"], Told(ACCEPTED, "failed", 1, _FAILED)),
    (ACCEPTED, ["deleted"], Told(ACCEPTED, "deleted", 1)),
    (ACCEPTED, ["read", "deleted", "sent"], Told(ACCEPTED, "deleted", 2)),
    (ACCEPTED, ["read", "read", "sent"], Told(ACCEPTED, "read", 1)),
    (ACCEPTED, ["failed", "delivered"], Told(ACCEPTED, "failed", 1, _FAILED)),
    (REJECTED, ["sent"], Told(REJECTED, None, 0, "Error")),
    (REJECTED, ["read"], Told(REJECTED, None, 0, "Error")),
    (REJECTED, ["failed"], Told(REJECTED, None, 0, "Error")),
    (NOT_SENT, ["delivered"], Told(NOT_SENT, None, 0, "Error")),
    (NOT_SENT, ["failed"], Told(NOT_SENT, None, 0, "Error")),
    (QUEUED, ["failed"], Told(QUEUED, None, 0)),
]


@pytest.mark.parametrize(
    ("state", "receipts", "told"), _RECEIPTS, ids=[f"{case[0]}: {' '.join(case[1])}" for case in _RECEIPTS]
)
def test_a_row_and_the_receipts_that_come_for_it(
    ledger: ProbedLedger, state: MessageState, receipts: list[str], told: Told
) -> None:
    brought_to(state, ledger, error=None if state is ACCEPTED else "Error")
    take(ledger, entry(2))
    news = sum(ledger.resolve({"id-1": receipt, "id-77": receipt}, by_callback=True) for receipt in receipts)
    result = row(ledger)
    assert Told(MessageState(result["status"]), result["receipt"], news, result["error"]) == told
    assert (result["reason"] == "its delivery has failed") == (told.error == _FAILED)
    assert contents(ledger) == [CODE if told.state in (UNKNOWN, QUEUED) else None, CODE]
    assert row(ledger, 2)["status"] == "queued"


@pytest.mark.parametrize("state", [ACCEPTED, REJECTED, NOT_SENT, QUEUED])
@pytest.mark.parametrize("receipt", ["delivered", "failed"])
def test_by_hand_only_what_is_unknown_is_settled(ledger: ProbedLedger, state: MessageState, receipt: str) -> None:
    brought_to(state, ledger)
    before = row(ledger)
    assert ledger.resolve({"id-1": receipt}) == 0
    assert row(ledger) == before


def test_receipts_are_told_for_many_rows_at_once(ledger: ProbedLedger) -> None:
    take(ledger, *entries(4))
    begin(ledger)
    claim(ledger)
    record(ledger, *[Transition(key, UNKNOWN, 1) for key in range(1, 5)])
    assert ledger.resolve({"id-3": "failed", "id-1": "read", "id-4": "sent"}) == 3
    assert states(ledger) == ["accepted", "unknown", "rejected", "accepted"]
    assert [result["receipt"] for result in ledger.results()] == [None] * 4
    assert ledger.receipts() == {}, "nobody but the vendor says so"
    assert ledger.unknown_ids() == ["id-2"]
    assert ledger.resolve({"id-2": "failed", "id-1": "read", "id-4": "sent"}, by_callback=True) == 3
    assert [result["receipt"] for result in ledger.results()] == ["read", "failed", None, "sent"]


@pytest.mark.parametrize(
    ("known", "by_callback", "message_id"),
    [
        (None, True, "id-1"),
        (None, False, None),
        ("wamid.1", True, "wamid.1"),
    ],
)
def test_only_the_vendor_tells_a_message_id_that_is_not_known(
    ledger: ProbedLedger, known: str | None, by_callback: bool, message_id: str | None
) -> None:
    brought_to(UNKNOWN if known is None else ACCEPTED, ledger, message_id=known)
    assert ledger.resolve({"id-1": "delivered"}, by_callback=by_callback) == 1
    assert row(ledger)["message_id"] == message_id


def test_a_callback_may_call_a_message_by_the_id_that_came_back(ledger: ProbedLedger) -> None:
    take(ledger, *entries(3))
    begin(ledger)
    claim(ledger, 3)
    record(
        ledger,
        Transition(1, ACCEPTED, 1, message_id="wamid.1"),
        Transition(2, ACCEPTED, 1, message_id="id-2"),
        Transition(3, UNKNOWN, 1),
    )
    told = {"wamid.1": "delivered", "id-2": "read", "wamid.3": "sent"}
    assert ledger.resolve(told, by_callback=True) == 2
    assert [row["receipt"] for row in ledger.results()] == ["delivered", "read", None]
    assert ledger.resolve({"wamid.1": "sent"}, by_callback=True) == 0


def test_no_receipts_say_nothing(ledger: ProbedLedger) -> None:
    brought_to(UNKNOWN, ledger)
    assert ledger.resolve({}) == 0
    assert states(ledger) == ["unknown"]


def test_an_unknown_message_can_be_queued_again(ledger: ProbedLedger) -> None:
    take(ledger, *entries(3))
    begin(ledger)
    claim(ledger)
    record(ledger, *[Transition(key, UNKNOWN, 2, 2, error="OutcomeUnknownError") for key in (1, 2, 3)])
    assert ledger.requeue(["id-3", "id-77", "id-1"]) == 2
    assert states(ledger) == ["queued", "unknown", "queued"]
    assert [result["finished_at"] for result in ledger.results()] == [None, NOW, None]
    begin(ledger)
    claimed = claim(ledger)
    assert keys(claimed) == [1, 3]
    assert [message.refusals for message in claimed.messages] == [0, 0]
    record(ledger, Transition(1, ACCEPTED, 1))
    assert row(ledger)["attempts"] == 3
    assert row(ledger)["error"] is None


@pytest.mark.parametrize("state", [QUEUED, SENDING, ACCEPTED, REJECTED, NOT_SENT])
def test_only_an_unknown_message_is_queued_again(ledger: ProbedLedger, state: MessageState) -> None:
    brought_to(state, ledger)
    assert ledger.requeue(["id-1"]) == 0
    assert states(ledger) == [state]


@pytest.mark.parametrize("erase", [False, True])
def test_an_expired_code_is_not_queued_again(ledger: ProbedLedger, erase: bool) -> None:
    take(ledger, expiring(1, 10), entry(2, expires_at=FAR))
    begin(ledger)
    claim(ledger)
    record(ledger, Transition(1, UNKNOWN, 1), Transition(2, UNKNOWN, 1))
    if erase:
        ledger.expire(NOW + 10)
    assert ledger.requeue(["id-1", "id-2"]) == 1
    assert states(ledger) == ["unknown", "queued"]


def test_an_erased_code_is_not_queued_again_though_the_clock_went_back(ledger: ProbedLedger) -> None:
    take(ledger, entry(1, expires_at=FAR))
    begin(ledger)
    claim(ledger)
    record(ledger, Transition(1, UNKNOWN, 1))
    ledger.expire(FAR.timestamp())
    assert contents(ledger) == [None]
    assert ledger.requeue(["id-1"]) == 0
    assert states(ledger) == ["unknown"]


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda ledger: ledger.expire(FAR.timestamp()), id="expired"),
        pytest.param(lambda ledger: begin(ledger, NOW, max_per_recipient=1), id="capped"),
    ],
)
def test_a_message_that_may_have_been_accepted_is_never_called_not_sent(
    ledger: ProbedLedger, leave: Callable[[Ledger], object]
) -> None:
    take(ledger, entry(1, expires_at=FAR), entry(2, expires_at=FAR))
    begin(ledger)
    claim(ledger)
    record(ledger, Transition(1, ACCEPTED, 1), Transition(2, UNKNOWN, 1, error="OutcomeUnknownError", reason="reset"))
    assert ledger.requeue(["id-2"]) == 1
    leave(ledger)
    assert states(ledger) == ["accepted", "unknown"]
