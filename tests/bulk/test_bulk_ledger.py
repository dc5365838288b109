from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

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
    TO,
    UNKNOWN,
    UPTIME,
    ProbedLedger,
    bad_entry,
    begin,
    brought_to,
    claim,
    contents,
    entries,
    entry,
    expiring,
    keys,
    look_again,
    record,
    row,
    states,
    take,
)

from nxotp_async import ApiType, Category, Language, OtpMessage
from nxotp_async.bulk import Ledger, MessageState, Reason
from nxotp_async.bulk.exchange import Batch
from nxotp_async.bulk.schema import Transition
from nxotp_async.errors import LedgerError


@pytest.fixture
def ledger() -> Iterator[ProbedLedger]:
    with ProbedLedger(None) as ledger:
        yield ledger


# ---------------------------------------------------------------------------------------------- rows in


def test_rows_are_queued_or_not_sent_where_they_are_no_messages(ledger: ProbedLedger) -> None:
    assert take(ledger, entry(1, extra={"name": "Bo"}), bad_entry(2, "content is missing")) == {}
    good, bad = ledger.results()
    nothing = dict.fromkeys(
        ["message_id", "code", "meta_code", "receipt", "sent_at", "price", "foreign_price", "currency"]
    )
    assert good == {
        "line": 2, "cus_message_id": "id-1", "to": TO, "status": "queued", "error": None, "reason": None,
        "attempts": 0, "finished_at": None, "extra": {"name": "Bo"}, **nothing,
    }  # fmt: skip
    assert bad.pop("finished_at") == NOW
    assert bad == {
        "line": 3, "cus_message_id": "id-2", "to": None, "status": "not_sent", "error": "InvalidMessageError",
        "reason": "content is missing", "attempts": 0, "extra": {}, **nothing,
    }  # fmt: skip
    assert ledger.counts() == {QUEUED: 1, NOT_SENT: 1}


def test_a_row_that_the_ledger_holds_is_not_taken_in_again(ledger: ProbedLedger) -> None:
    take(ledger, entry(1), bad_entry(2))
    again = take(ledger, entry(1, "739155", to="9995550199"), bad_entry(2), entry(3))
    assert again == {"id-1": (1, 2), "id-2": (1, 3)}
    assert [result["cus_message_id"] for result in ledger.results()] == ["id-1", "id-2", "id-3"]
    assert contents(ledger) == [CODE, None, CODE]
    assert row(ledger)["to"] == TO


def test_of_two_rows_of_one_file_with_one_id_the_first_is_taken_in(ledger: ProbedLedger) -> None:
    identity, duplicate = entry(1, "739155")
    again = (identity, attrs.evolve(duplicate, line=9))
    assert take(ledger, entry(1), entry(2), again) == {"id-1": (1, 2)}
    assert contents(ledger) == [CODE, CODE]


def test_a_row_is_known_again_after_it_was_sent(ledger: ProbedLedger) -> None:
    brought_to(ACCEPTED, ledger, message_id="wamid.1")
    assert take(ledger, entry(1)) == {"id-1": (1, 2)}
    begin(ledger)
    assert claim(ledger) == Batch(0, [], None, exhausted=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param((1, TO, CODE), (2, TO, CODE), id="row number"),
        pytest.param((1, TO, CODE), (1, "9995550101", CODE), id="recipient"),
        pytest.param((1, TO, CODE), (1, TO, "482914"), id="content"),
        pytest.param((1, TO, CODE), (1, TO + CODE), id="where a part ends"),
        pytest.param((1, "2", CODE), (12, CODE), id="where the row number ends"),
        pytest.param((1, TO, CODE), (1, CODE, TO), id="order"),
    ],
)
def test_the_identities_of_different_rows_differ(ledger: ProbedLedger, one: Any, other: Any) -> None:
    assert ledger.identify(*one) != ledger.identify(*other)
    assert ledger.identify(*one) == ledger.identify(*one)


def test_a_rows_identity_is_the_ledgers_own_and_stays(tmp_path: Path) -> None:
    with Ledger(tmp_path / "one") as one, Ledger(tmp_path / "other") as other:
        identity = one.identify(1, TO, CODE)
        assert other.identify(1, TO, CODE) != identity
    with Ledger(tmp_path / "one") as one:
        assert one.identify(1, TO, CODE) == identity
    assert len(identity) == 32
    assert set(identity) <= set("0123456789abcdef")


def test_a_cell_that_is_no_text_has_an_identity_too(ledger: ProbedLedger) -> None:
    assert ledger.identify(1, "\ud800") != ledger.identify(1, "\ud801")


# ---------------------------------------------------------------------------------------------- a message's round trip


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="nothing more"),
        pytest.param({"language_code": Language.PT_BR}, id="language"),
        pytest.param({"category": Category.UTILITY}, id="category"),
        pytest.param({"dr_webhook": 'https://example.com/dr?a=1&b="ö"'}, id="dr_webhook"),
        pytest.param({"api_type": ApiType.CLOUD}, id="api_type 0"),
        pytest.param({"api_type": ApiType.MM_LITE}, id="api_type 1"),
        pytest.param({"business_phone": "9995550199"}, id="business_phone"),
        pytest.param({"expires_at": FAR}, id="expires_at"),
        pytest.param({"expires_at": datetime(2999, 1, 1, 12, 30, 59, 250_000, UTC)}, id="milliseconds"),
        pytest.param({"expires_at": datetime(2999, 1, 1, tzinfo=timezone(timedelta(hours=5)))}, id="another zone"),
        pytest.param(
            {
                "language_code": "en_GB", "category": "AUTHENTICATION", "dr_webhook": "https://example.com/",
                "api_type": 1, "business_phone": "9995550199", "expires_at": FAR,
            },
            id="everything",
        ),
    ],
)  # fmt: skip
def test_a_claimed_message_is_the_one_that_was_taken_in(ledger: ProbedLedger, fields: dict[str, Any]) -> None:
    identity, taken = entry(1, **fields)
    take(ledger, (identity, taken))
    begin(ledger)
    (claimed,) = claim(ledger).messages
    assert claimed.message == taken.message
    assert claimed.refusals == 0


def test_what_the_ledger_holds_is_not_validated_again(ledger: ProbedLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: OtpMessage, *arguments: Any, **fields: Any) -> None:
        raise AssertionError("validated again")

    identity, taken = entry(1, language_code=Language.PT_BR, expires_at=FAR)
    take(ledger, (identity, taken))
    begin(ledger)
    monkeypatch.setattr(OtpMessage, "__init__", refuse)
    (claimed,) = claim(ledger).messages
    assert claimed.message == taken.message


@pytest.mark.parametrize(
    "expires_at",
    [
        pytest.param(datetime(2030, 1, 1, 12, 30, 59, 123_456, UTC), id="microseconds"),
        pytest.param(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), id="the last second"),
        pytest.param(datetime.max.replace(tzinfo=UTC), id="the last microsecond"),
        pytest.param(datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-5))), id="a later zone"),
    ],
)
def test_a_code_that_never_expires_or_at_any_microsecond_is_claimed(ledger: ProbedLedger, expires_at: datetime) -> None:
    take(ledger, entry(1, expires_at=expires_at))
    begin(ledger)
    (claimed,) = claim(ledger).messages
    expected = min(expires_at.timestamp(), datetime.max.replace(microsecond=0, tzinfo=UTC).timestamp())
    assert claimed.message.expires_at is not None
    assert claimed.message.expires_at.timestamp() == pytest.approx(expected, rel=0, abs=0.001)


@pytest.mark.parametrize(
    "content",
    ["004213", 'código "004213" \\ 牛 😀 \u2028\n\t', "004213\0", "x" * 4090 + "004213"],
    ids=["zeros", "any script", "NUL", "the longest"],
)
def test_a_content_comes_out_as_it_went_in(ledger: ProbedLedger, content: str) -> None:
    take(ledger, entry(1, content))
    begin(ledger)
    (claimed,) = claim(ledger).messages
    assert claimed.message.content == content


# ---------------------------------------------------------------------------------------------- claims and outcomes


def test_messages_are_claimed_in_the_order_of_the_input_and_none_twice(ledger: ProbedLedger) -> None:
    take(ledger, *entries(5))
    take(ledger, *[entry(number) for number in (9, 8, 7)])
    begin(ledger)
    claims = [claim(ledger, wanted) for wanted in (3, 2, 0, 1, 100, 100)]
    assert [keys(claimed) for claimed in claims] == [[1, 2, 3], [4, 5], [], [6], [7, 8], []]
    assert [message.message.cus_message_id for message in claims[4].messages] == ["id-8", "id-7"]
    assert [claimed.exhausted for claimed in claims] == [False, False, None, False, True, True]
    assert {claimed.next_due for claimed in claims} == {None}
    assert ledger.counts() == {SENDING: 8}


def test_a_claim_is_marked_with_its_time(ledger: ProbedLedger) -> None:
    take(ledger, *entries(2))
    begin(ledger)
    claim(ledger, 1, now=NOW + 7)
    assert [(result["status"], result["sent_at"]) for result in ledger.results()] == [
        ("sending", NOW + 7),
        ("queued", None),
    ]


@pytest.mark.parametrize(
    ("transition", "columns"),
    [
        pytest.param(
            Transition(1, ACCEPTED, 1, message_id="wamid.1"),
            {"status": "accepted", "attempts": 1, "message_id": "wamid.1", "finished_at": NOW + 2},
            id="accepted",
        ),
        pytest.param(
            Transition(1, REJECTED, 2, 2, code=9099, meta_code=131026, error="MetaError", reason='no "way"\n牛'),
            {
                "status": "rejected", "attempts": 2, "code": 9099, "meta_code": 131026, "error": "MetaError",
                "reason": 'no "way"\n牛', "finished_at": NOW + 2,
            },
            id="rejected",
        ),
        pytest.param(
            Transition(1, NOT_SENT, 0, error="NotSentError", reason="certificate"),
            {"status": "not_sent", "error": "NotSentError", "reason": "certificate", "finished_at": NOW + 2},
            id="not sent",
        ),
        pytest.param(
            Transition(1, UNKNOWN, 1, error="OutcomeUnknownError", reason="reset"),
            {
                "status": "unknown", "attempts": 1, "error": "OutcomeUnknownError", "reason": "reset",
                "finished_at": NOW + 2,
            },
            id="unknown",
        ),
        pytest.param(
            Transition(1, QUEUED, 1, 1, UPTIME + 9.5, code=-1, error="TransientApiError", reason="Request failed"),
            {"status": "queued", "attempts": 1, "code": -1, "error": "TransientApiError", "reason": "Request failed"},
            id="queued again",
        ),
    ],
)  # fmt: skip
def test_an_outcome_lands_in_its_columns(ledger: ProbedLedger, transition: Transition, columns: dict[str, Any]) -> None:
    take(ledger, *entries(2))
    begin(ledger)
    claim(ledger, 1, now=NOW + 1)
    record(ledger, transition, now=NOW + 2)
    first, second = ledger.results()
    assert first == {
        "line": 2, "cus_message_id": "id-1", "to": "9990000001", "message_id": None, "code": None, "meta_code": None,
        "error": None, "reason": None, "attempts": 0, "receipt": None, "sent_at": NOW + 1, "finished_at": None,
        "price": None, "foreign_price": None, "currency": None, "extra": {}, **columns,
    }  # fmt: skip
    assert second["status"] == "queued"
    assert contents(ledger) == [CODE if transition.state in (QUEUED, UNKNOWN) else None, CODE]


def test_attempts_and_refusals_add_up(ledger: ProbedLedger) -> None:
    take(ledger, entry(1))
    begin(ledger)
    claim(ledger)
    record(ledger, Transition(1, QUEUED, 2, 1, UPTIME + 1))
    (second,) = claim(ledger, now=NOW + 1).messages
    record(ledger, Transition(1, QUEUED, 1, 0, UPTIME + 2))
    (third,) = claim(ledger, now=NOW + 2).messages
    record(ledger, Transition(1, QUEUED, 1, 3, UPTIME + 3))
    (fourth,) = claim(ledger, now=NOW + 3).messages
    record(ledger, Transition(1, ACCEPTED, 1))
    assert [message.refusals for message in (second, third, fourth)] == [1, 1, 4]
    assert row(ledger)["attempts"] == 5


def test_what_an_earlier_attempt_met_does_not_outlive_the_next_one(ledger: ProbedLedger) -> None:
    take(ledger, entry(1))
    begin(ledger)
    claim(ledger)
    failure = Transition(1, QUEUED, 1, 1, UPTIME + 1, code=9099, meta_code=130429, error="MetaError", reason="slower")
    claim(ledger, 1, failure, now=NOW + 1)
    record(ledger, Transition(1, ACCEPTED, 1, message_id="wamid.1"))
    assert [row(ledger)[name] for name in ("code", "meta_code", "error", "reason")] == [None] * 4


def test_outcomes_are_written_for_their_messages_alone_in_any_order(ledger: ProbedLedger) -> None:
    take(ledger, *entries(4))
    begin(ledger)
    claim(ledger, 3)
    claimed = claim(ledger, 1, Transition(3, ACCEPTED), Transition(1, REJECTED), Transition(2, UNKNOWN))
    assert keys(claimed) == [4]
    assert states(ledger) == ["rejected", "unknown", "accepted", "sending"]


def test_a_message_that_waits_is_not_claimed_before_its_time(ledger: ProbedLedger) -> None:
    take(ledger, entry(1))
    begin(ledger)
    claim(ledger)
    assert claim(ledger, 9, Transition(1, QUEUED, not_before=UPTIME + 5)) == Batch(1, [], UPTIME + 5, exhausted=True)
    assert claim(ledger, now=NOW + 4.999) == Batch(0, [], UPTIME + 5, exhausted=True)
    due = claim(ledger, now=NOW + 5)
    assert keys(due) == [1]
    assert due.next_due is None
    assert claim(ledger, now=NOW + 99).messages == []


def test_what_is_due_again_comes_before_what_is_fresh_the_earliest_first(ledger: ProbedLedger) -> None:
    take(ledger, *entries(6))
    begin(ledger)
    claim(ledger, 3)
    record(
        ledger,
        Transition(1, QUEUED, not_before=UPTIME + 7),
        Transition(2, QUEUED, not_before=UPTIME + 5),
        Transition(3, QUEUED, not_before=UPTIME + 11),
    )
    first, second = claim(ledger, 1, now=NOW + 10), claim(ledger, 3, now=NOW + 10)
    assert keys(first) == [2]
    assert first.next_due == UPTIME + 7
    assert keys(second) == [1, 4, 5]
    assert second.next_due == UPTIME + 11


def test_a_message_given_back_for_any_time_can_be_claimed_again_in_the_same_run(ledger: ProbedLedger) -> None:
    take(ledger, *entries(3))
    begin(ledger)
    claim(ledger, 2)
    claimed = claim(ledger, 9, Transition(1, QUEUED, not_before=0.0))
    assert sorted(keys(claimed)) == [1, 3]


def test_a_message_whose_recipient_is_not_to_have_it_yet_waits(ledger: ProbedLedger) -> None:
    take(ledger, entry(1), entry(2), entry(3, to="9995550101"), entry(4))
    begin(ledger, per_recipient=6.0)
    claimed = claim(ledger, 3)
    assert keys(claimed) == [1, 3]
    assert claimed.next_due == UPTIME + 6
    assert states(ledger) == ["sending", "queued", "sending", "queued"]
    assert [result["sent_at"] for result in ledger.results()] == [NOW, None, NOW, None]
    assert keys(claim(ledger, 3, now=NOW + 6)) == [2]
    assert keys(claim(ledger, 3, now=NOW + 12)) == [4]


def test_a_message_that_has_waited_may_have_to_wait_again(ledger: ProbedLedger) -> None:
    take(ledger, entry(1), entry(2, to="9995550101"), entry(3))
    begin(ledger, per_recipient=6.0)
    assert keys(claim(ledger)) == [1, 2]
    # What is sent again has no slot of its own, and is due a moment before the one that has waited for its own.
    again = Transition(1, QUEUED, 1, 1, UPTIME + 5.999)
    assert keys(claim(ledger, 9, again, now=NOW + 6)) == [1]
    assert claim(ledger, now=NOW + 11) == Batch(0, [], UPTIME + 12, exhausted=True)
    assert keys(claim(ledger, now=NOW + 12)) == [3]


def test_what_meta_throttles_gets_a_slot_of_its_own_and_what_follows_waits_behind_it(ledger: ProbedLedger) -> None:
    take(ledger, entry(1), entry(2), entry(3), entry(4, to="9995550101"))
    begin(ledger)
    claim(ledger, 2)
    throttled = [Transition(key, QUEUED, 1, 1, UPTIME + 7, meta_code=131056, throttled=TO) for key in (1, 2)]
    claimed = claim(ledger, 9, *throttled, now=NOW + 1)
    assert keys(claimed) == [4]
    assert claimed.next_due == UPTIME + 7
    assert [keys(claim(ledger, now=NOW + later)) for later in (7, 12.9, 13, 18.9, 19)] == [[1], [], [2], [], [3]]


def test_one_exchange_does_not_look_through_the_whole_queue(ledger: ProbedLedger) -> None:
    take(ledger, *[entry(number) for number in range(1, 101)], entry(101, to="9995550101"))
    begin(ledger, per_recipient=6.0)
    assert keys(claim(ledger, 1)) == [1]
    exchanges = 1
    while not (claimed := claim(ledger, 1)).messages:
        assert not claimed.exhausted
        exchanges += 1
    assert keys(claimed) == [101]
    assert 3 < exchanges < 10


def test_a_queue_that_holds_only_what_waits_is_exhausted(ledger: ProbedLedger) -> None:
    take(ledger, *[entry(number) for number in range(1, 4)])
    begin(ledger, per_recipient=6.0)
    assert keys(claim(ledger)) == [1]
    assert claim(ledger) == Batch(0, [], UPTIME + 6, exhausted=True)


def test_an_exchange_that_fails_has_changed_nothing(ledger: ProbedLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(now: float, monotonic: float) -> float:
        raise ZeroDivisionError

    take(ledger, *entries(3))
    begin(ledger)
    claim(ledger, 1)
    with monkeypatch.context() as broken:
        broken.setattr(ledger, "next_due", fail)
        with pytest.raises(ZeroDivisionError):
            claim(ledger, 9, Transition(1, ACCEPTED, 1))
    assert states(ledger) == ["sending", "queued", "queued"]
    assert contents(ledger) == [CODE] * 3
    assert row(ledger)["attempts"] == 0
    assert keys(claim(ledger, 9, Transition(1, ACCEPTED, 1))) == [2, 3]
    assert states(ledger) == ["accepted", "sending", "sending"]


# ---------------------------------------------------------------------------------------------- expiry


def test_what_has_expired_is_taken_out_of_the_queue(ledger: ProbedLedger) -> None:
    take(ledger, expiring(1, 10), expiring(2, 10.001), entry(3), expiring(4, 9))
    assert ledger.expire(NOW + 10).total() == 2
    assert states(ledger) == ["not_sent", "queued", "queued", "not_sent"]
    assert contents(ledger) == [None, CODE, CODE, None]
    result = row(ledger)
    assert (result["error"], result["finished_at"]) == ("Expired", NOW + 10)
    assert result["reason"] == "expires_at passed before it could be sent"
    assert ledger.expire(NOW + 10).total() == 0


def test_what_the_vendor_has_refused_and_then_expired_is_rejected_with_both_reasons(ledger: ProbedLedger) -> None:
    take(ledger, expiring(1, 10))
    begin(ledger)
    claim(ledger)
    record(ledger, Transition(1, QUEUED, 1, 1, UPTIME + 1, code=-1, error="TransientApiError", reason="Request failed"))
    assert ledger.expire(NOW + 10).total() == 1
    result = row(ledger)
    assert (result["status"], result["error"], result["code"], result["attempts"]) == ("rejected", "Expired", -1, 1)
    assert result["reason"] == "expires_at passed before it could be sent; the last answer was: Request failed"


@pytest.mark.parametrize("state", [SENDING, ACCEPTED, REJECTED, UNKNOWN])
def test_what_is_not_queued_keeps_its_state_when_it_expires(ledger: ProbedLedger, state: MessageState) -> None:
    take(ledger, expiring(1, 10))
    begin(ledger)
    claim(ledger)
    if state is not SENDING:
        record(ledger, Transition(1, state, 1, error="Error", reason="because"))
    before = row(ledger)
    assert ledger.expire(NOW + 10).total() == 0
    assert row(ledger) == before
    assert contents(ledger) == [CODE if state is SENDING else None]


def test_an_unknown_message_keeps_its_code_until_it_expires(ledger: ProbedLedger) -> None:
    take(ledger, expiring(1, 10), entry(2))
    begin(ledger)
    claim(ledger)
    record(ledger, Transition(1, UNKNOWN, 1), Transition(2, UNKNOWN, 1))
    ledger.expire(NOW + 9.999)
    assert contents(ledger) == [CODE, CODE]
    ledger.expire(NOW + 10)
    assert contents(ledger) == [None, CODE]


def test_what_has_expired_since_the_last_look_is_not_claimed(ledger: ProbedLedger) -> None:
    take(ledger, expiring(1, 10), expiring(2, 20))
    begin(ledger)
    assert keys(claim(ledger, now=NOW + 10)) == [2]
    assert states(ledger) == ["queued", "sending"]


def test_nothing_is_due_that_expires_while_it_waits(ledger: ProbedLedger) -> None:
    # A dispatcher would ask for it again and again.
    take(ledger, expiring(1, 10))
    begin(ledger)
    claim(ledger)
    record(ledger, Transition(1, QUEUED, 1, 1, UPTIME + 12))
    assert claim(ledger, now=NOW + 12) == Batch(0, [], None, exhausted=True)


def test_what_expires_while_it_waits_is_judged_by_both_clocks(ledger: ProbedLedger) -> None:
    take(ledger, expiring(1, 3612), expiring(2, 3612.5), entry(3))
    begin(ledger)
    claim(ledger)
    record(ledger, *[Transition(key, QUEUED, 1, 1, UPTIME + 12) for key in (1, 2, 3)])
    now, monotonic = NOW + 3601, UPTIME + 1  # a second later, in which the clock was set
    assert claim(ledger, 9, now=now, monotonic=monotonic) == Batch(0, [], UPTIME + 12, exhausted=True)
    assert ledger.expire(now).total() == 0
    assert ledger.expire(now, monotonic=monotonic).total() == 1
    assert states(ledger) == ["not_sent", "queued", "queued"]
    assert keys(claim(ledger, 9, now=now + 10.9, monotonic=monotonic + 10.9)) == []
    assert keys(claim(ledger, 9, now=now + 11, monotonic=monotonic + 11)) == [2, 3]


def test_what_was_passed_over_as_expired_can_be_looked_for_again(ledger: ProbedLedger) -> None:
    take(ledger, expiring(1, 10), entry(2))
    begin(ledger)
    assert keys(claim(ledger, now=NOW + 10)) == [2]
    assert claim(ledger, now=NOW + 5) == Batch(0, [], None, exhausted=True)
    assert look_again(ledger, NOW + 5) == 1
    assert keys(claim(ledger, now=NOW + 5)) == [1]
    assert look_again(ledger, NOW + 5) == 0


def test_a_run_begins_with_what_has_not_expired(ledger: ProbedLedger) -> None:
    take(ledger, expiring(1, 10), entry(2))
    begin(ledger, NOW + 10)
    assert states(ledger) == ["not_sent", "queued"]
    assert keys(claim(ledger, now=NOW + 10)) == [2]


# ---------------------------------------------------------------------------------------------- a run begins


def test_in_a_new_run_nothing_waits(ledger: ProbedLedger) -> None:
    take(ledger, *entries(3))
    begin(ledger)
    claim(ledger, 2)
    record(ledger, Transition(2, QUEUED, 1, 1, UPTIME + 5), Transition(1, QUEUED, 1, 2, UPTIME + 6))
    begin(ledger, NOW + 1)
    claimed = claim(ledger, now=NOW + 1)
    assert keys(claimed) == [1, 2, 3]
    assert [message.refusals for message in claimed.messages] == [2, 1, 0]
    assert claimed.next_due is None


def test_no_recipient_gets_more_than_the_cap(ledger: ProbedLedger) -> None:
    take(ledger, entry(1), entry(2), entry(3, to="9995550101"), bad_entry(4), bad_entry(5), bad_entry(6), entry(7))
    begin(ledger, NOW + 1, max_per_recipient=2)
    assert states(ledger) == ["queued", "queued", "queued", "not_sent", "not_sent", "not_sent", "not_sent"]
    capped = row(ledger, 7)
    assert (capped["error"], capped["finished_at"]) == ("Capped", NOW + 1)
    assert capped["reason"] == "the recipient has 2 messages of this ledger already"
    assert row(ledger, 6)["error"] == "InvalidMessageError"
    assert contents(ledger) == [CODE, CODE, CODE, None, None, None, None]


@pytest.mark.parametrize("state", [SENDING, ACCEPTED, UNKNOWN])
def test_what_a_recipient_got_in_earlier_runs_counts_towards_the_cap(ledger: ProbedLedger, state: MessageState) -> None:
    brought_to(state, ledger)
    take(ledger, entry(2), entry(3, to="9995550101"))
    begin(ledger, NOW, max_per_recipient=1)
    assert states(ledger) == [state, "not_sent", "queued"]


@pytest.mark.parametrize("state", [NOT_SENT, REJECTED])
def test_what_a_recipient_did_not_get_does_not_count_towards_the_cap(ledger: ProbedLedger, state: MessageState) -> None:
    brought_to(state, ledger)
    take(ledger, entry(2), entry(3))
    begin(ledger, NOW, max_per_recipient=1)
    assert states(ledger) == [state, "queued", "not_sent"]


def test_what_has_expired_does_not_count_towards_the_cap(ledger: ProbedLedger) -> None:
    take(ledger, expiring(1, 10), entry(2), entry(3))
    begin(ledger, NOW + 10, max_per_recipient=1)
    assert states(ledger) == ["not_sent", "queued", "not_sent"]
    assert [result["error"] for result in ledger.results()] == ["Expired", None, "Capped"]


# ---------------------------------------------------------------------------------------------- looking at it


def test_the_ledger_tells_who_was_sent_to_since(ledger: ProbedLedger) -> None:
    take(ledger, entry(1), entry(2), entry(3, to="9995550101"), entry(4, to="9995550102"), bad_entry(5))
    begin(ledger)
    for second in range(3):
        claim(ledger, 1, now=NOW + second)
    assert ledger.sent_since(0) == {TO: NOW + 1, "9995550101": NOW + 2}
    assert ledger.sent_since(NOW + 1) == {"9995550101": NOW + 2}
    assert ledger.sent_since(NOW + 2) == {}


def test_states_and_reasons_are_counted(ledger: ProbedLedger) -> None:
    assert ledger.counts() == {}
    assert ledger.reasons() == []
    take(ledger, *entries(9), bad_entry(10), bad_entry(11))
    begin(ledger)
    claim(ledger, 8)
    no_template: dict[str, Any] = {"code": 9099, "error": "MetaError"}
    record(
        ledger,
        Transition(1, ACCEPTED, 1, message_id="wamid.1"),
        Transition(2, REJECTED, 1, meta_code=132001, reason="no such template", **no_template),
        Transition(3, REJECTED, 1, meta_code=132001, reason="no such template", **no_template),
        Transition(4, REJECTED, 1, meta_code=132001, reason="no such template", **no_template),
        Transition(5, REJECTED, 1, meta_code=131026, reason="undeliverable", **no_template),
        Transition(6, UNKNOWN, 1, error="OutcomeUnknownError", reason="reset"),
        Transition(7, QUEUED, 1, 1, UPTIME + 1, code=-1, error="TransientApiError", reason="Request failed"),
    )
    assert ledger.counts() == {QUEUED: 2, SENDING: 1, ACCEPTED: 1, REJECTED: 4, UNKNOWN: 1, NOT_SENT: 2}
    reasons = ledger.reasons()
    assert reasons[:2] == [
        Reason(REJECTED, "MetaError", 9099, 132001, 3, "no such template"),
        Reason(NOT_SENT, "InvalidMessageError", None, None, 2, "to is missing"),
    ]
    assert sorted(reasons[2:], key=lambda reason: reason.state) == [
        Reason(REJECTED, "MetaError", 9099, 131026, 1, "undeliverable"),
        Reason(UNKNOWN, "OutcomeUnknownError", None, None, 1, "reset"),
    ]
    assert all(isinstance(reason.state, MessageState) for reason in reasons)


def test_the_columns_of_several_files_come_in_the_order_of_the_files(ledger: ProbedLedger) -> None:
    assert ledger.extra_columns() == []
    take(ledger, entry(1), columns=["name", "line", "größe"])
    take(ledger, entry(2), columns=[])
    take(ledger, entry(3), columns=["shop", "name"])
    assert ledger.extra_columns() == ["name", "line", "größe", "shop"]


# ---------------------------------------------------------------------------------------------- transactions


def test_a_transaction_that_fails_leaves_nothing_behind(ledger: ProbedLedger) -> None:
    take(ledger, entry(1), columns=["name"])

    def fail() -> None:
        with ledger.transaction():
            source = ledger.add_source("other.csv", NOW)
            ledger.set_columns(source, ["shop"])
            ledger.add(source, [entry(2), entry(3)], NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert ledger.extra_columns() == ["name"]
    assert len(states(ledger)) == 1
    assert take(ledger, entry(2)) == {}
    assert len(states(ledger)) == 2


def test_what_sqlite_says_is_told_as_an_error_of_this_library(ledger: ProbedLedger) -> None:
    def fail() -> None:
        with ledger.transaction():
            ledger.add_source("other.csv", NOW)
            ledger.counts()

    ledger.connection.execute("ALTER TABLE messages RENAME TO others")
    with pytest.raises(LedgerError, match="cannot be used: no such table: messages"):
        fail()
    assert ledger.extra_columns() == []
    assert ledger.connection.execute("SELECT count(*) FROM sources").fetchone() == (0,)


def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.ledger")
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.counts()
    with pytest.raises(LedgerError, match="closed"):
        begin(ledger)
