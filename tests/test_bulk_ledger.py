import csv
import errno
import io
import os
import random
import sqlite3
import stat
import string
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

import attrs
import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nxotp_async import ApiType, Category, Language, OtpMessage
from nxotp_async.bulk import FileFormat, Ledger, MessageState, Reason, Settled, export, settle
from nxotp_async.bulk.records import Claim, Entry, Outcome
from nxotp_async.errors import LedgerError
from nxotp_async.phone_numbers import mask_number

TO = "9995550100"
CODE = "482913"
NOW: Final = 1_000_000_000.0  # long ago, so that what has expired then has expired by the machine's clock, too
UPTIME: Final = 5000.0  # the same moment by a clock that never jumps
FAR = datetime(2999, 1, 1, tzinfo=UTC)

QUEUED, SENDING, ACCEPTED = MessageState.QUEUED, MessageState.SENDING, MessageState.ACCEPTED
REJECTED, NOT_SENT, UNKNOWN = MessageState.REJECTED, MessageState.NOT_SENT, MessageState.UNKNOWN


def entry(number: int, content: str = CODE, *, to: str = TO, extra: Any = None, **fields: Any) -> Entry:
    """Return a row whose key in a new ledger is its number, if rows are numbered from 1."""
    identity = f"id-{number}"
    message = OtpMessage(to, content, cus_message_id=identity, **fields)
    return Entry(number + 1, identity, message, extra or {}, "")


def bad_entry(number: int, problem: str = "to is missing", extra: Any = None) -> Entry:
    return Entry(number + 1, f"id-{number}", None, extra or {}, problem)


def entries(count: int) -> list[Entry]:
    """Return rows from 1, each with a recipient of its own."""
    return [entry(number, to=f"999{number:07}") for number in range(1, count + 1)]


def take(ledger: Ledger, *rows: Entry, columns: Sequence[str] = ()) -> dict[str, tuple[int, int]]:
    """Take rows in as a file's, and return what the ledger held before."""
    with ledger.transaction():
        source = ledger.add_source("otps.csv")
        held = ledger.add(source, rows)
        ledger.set_columns(source, columns)
    return held


def at_once(has_waited: bool, recipient: str) -> float:
    return 0.0


def claim(
    ledger: Ledger,
    wanted: int = 100,
    *outcomes: Outcome,
    now: float = NOW,
    admit: Callable[[bool, str], float] = at_once,
) -> Claim:
    return ledger.exchange(outcomes, wanted, now, UPTIME + (now - NOW), admit)


def record(ledger: Ledger, *outcomes: Outcome, now: float = NOW) -> None:
    assert claim(ledger, 0, *outcomes, now=now).messages == []


def keys(claimed: Claim) -> list[int]:
    return [message.key for message in claimed.messages]


def states(ledger: Ledger) -> list[str]:
    return [result["status"] for result in ledger.results()]


def row(ledger: Ledger, number: int = 1) -> dict[str, Any]:
    return list(ledger.results())[number - 1]


def contents(ledger: Ledger) -> list[str | None]:
    """Return what is kept of the messages' contents."""
    return [content for (content,) in ledger._database.execute("SELECT content FROM messages ORDER BY id")]


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(None) as ledger:
        yield ledger


def brought_to(state: MessageState, ledger: Ledger, **outcome: Any) -> None:
    """Take one row in and bring it to a state."""
    take(ledger, entry(1))
    ledger.begin_run(NOW)
    if state is not QUEUED:
        assert keys(claim(ledger)) == [1]
    if state not in (QUEUED, SENDING):
        record(ledger, Outcome(1, state, 1, **outcome))
    assert states(ledger) == [state]


# ---------------------------------------------------------------------------------------------- rows in


def test_rows_are_queued_or_not_sent_where_they_are_no_messages(ledger: Ledger) -> None:
    assert take(ledger, entry(1, extra={"name": "Bo"}), bad_entry(2, "content is missing")) == {}
    good, bad = ledger.results()
    nothing = dict.fromkeys(["message_id", "code", "meta_code", "receipt", "sent_at"])
    assert good == {
        "line": 2, "cus_message_id": "id-1", "to": TO, "status": "queued", "error": None, "reason": None,
        "attempts": 0, "finished_at": None, "extra": {"name": "Bo"}, **nothing,
    }  # fmt: skip
    assert bad.pop("finished_at") > NOW
    assert bad == {
        "line": 3, "cus_message_id": "id-2", "to": None, "status": "not_sent", "error": "InvalidMessageError",
        "reason": "content is missing", "attempts": 0, "extra": {}, **nothing,
    }  # fmt: skip
    assert ledger.counts() == {QUEUED: 1, NOT_SENT: 1}


def test_a_row_that_the_ledger_holds_is_not_taken_in_again(ledger: Ledger) -> None:
    take(ledger, entry(1), bad_entry(2))
    again = take(ledger, entry(1, "739155", to="9995550199"), bad_entry(2), entry(3))
    assert again == {"id-1": (1, 2), "id-2": (1, 3)}
    assert [result["cus_message_id"] for result in ledger.results()] == ["id-1", "id-2", "id-3"]
    assert contents(ledger) == [CODE, None, CODE]
    assert row(ledger)["to"] == TO


def test_of_two_rows_of_one_file_with_one_id_the_first_is_taken_in(ledger: Ledger) -> None:
    twin = attrs.evolve(entry(1, "739155"), line=9)
    assert take(ledger, entry(1), entry(2), twin) == {"id-1": (1, 2)}
    assert contents(ledger) == [CODE, CODE]


def test_a_row_is_known_again_after_it_was_sent(ledger: Ledger) -> None:
    brought_to(ACCEPTED, ledger, message_id="wamid.1")
    assert take(ledger, entry(1)) == {"id-1": (1, 2)}
    ledger.begin_run(NOW)
    assert claim(ledger) == Claim([], None, exhausted=True)


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
def test_the_identities_of_different_rows_differ(ledger: Ledger, one: Any, other: Any) -> None:
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


def test_a_cell_that_is_no_text_has_an_identity_too(ledger: Ledger) -> None:
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
def test_a_claimed_message_is_the_one_that_was_taken_in(ledger: Ledger, fields: dict[str, Any]) -> None:
    taken = entry(1, **fields)
    take(ledger, taken)
    ledger.begin_run(NOW)
    (claimed,) = claim(ledger).messages
    assert claimed.message == taken.message
    assert claimed.refusals == 0


@pytest.mark.parametrize(
    "expires_at",
    [
        pytest.param(datetime(2030, 1, 1, 12, 30, 59, 123_456, UTC), id="microseconds"),
        pytest.param(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), id="the last second"),
        pytest.param(datetime.max.replace(tzinfo=UTC), id="the last microsecond"),
        pytest.param(datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-5))), id="a later zone"),
    ],
)
def test_a_code_that_never_expires_or_at_any_microsecond_is_claimed(ledger: Ledger, expires_at: datetime) -> None:
    take(ledger, entry(1, expires_at=expires_at))
    ledger.begin_run(NOW)
    (claimed,) = claim(ledger).messages
    expected = min(expires_at.timestamp(), datetime.max.replace(microsecond=0, tzinfo=UTC).timestamp())
    assert claimed.message.expires_at is not None
    assert claimed.message.expires_at.timestamp() == pytest.approx(expected, rel=0, abs=0.001)


@pytest.mark.parametrize(
    "content",
    ["004213", 'código "004213" \\ 牛 😀 \u2028\n\t', "004213\0", "x" * 4090 + "004213"],
    ids=["zeros", "any script", "NUL", "the longest"],
)
def test_a_content_comes_out_as_it_went_in(ledger: Ledger, content: str) -> None:
    take(ledger, entry(1, content))
    ledger.begin_run(NOW)
    (claimed,) = claim(ledger).messages
    assert claimed.message.content == content


# ---------------------------------------------------------------------------------------------- claims and outcomes


def test_messages_are_claimed_in_the_order_of_the_input_and_none_twice(ledger: Ledger) -> None:
    take(ledger, *entries(5))
    take(ledger, *[entry(number) for number in (9, 8, 7)])
    ledger.begin_run(NOW)
    claims = [claim(ledger, wanted) for wanted in (3, 2, 0, 1, 100, 100)]
    assert [keys(claimed) for claimed in claims] == [[1, 2, 3], [4, 5], [], [6], [7, 8], []]
    assert [message.message.cus_message_id for message in claims[4].messages] == ["id-8", "id-7"]
    assert [claimed.exhausted for claimed in claims] == [False, False, False, False, True, True]
    assert {claimed.next_due for claimed in claims} == {None}
    assert ledger.counts() == {SENDING: 8}


def test_a_claim_is_marked_with_its_time(ledger: Ledger) -> None:
    take(ledger, *entries(2))
    ledger.begin_run(NOW)
    claim(ledger, 1, now=NOW + 7)
    assert [(result["status"], result["sent_at"]) for result in ledger.results()] == [
        ("sending", NOW + 7),
        ("queued", None),
    ]


@pytest.mark.parametrize(
    ("outcome", "columns"),
    [
        pytest.param(
            Outcome(1, ACCEPTED, 1, message_id="wamid.1"),
            {"status": "accepted", "attempts": 1, "message_id": "wamid.1", "finished_at": NOW + 2},
            id="accepted",
        ),
        pytest.param(
            Outcome(1, REJECTED, 2, 2, code=9099, meta_code=131026, error="MetaError", reason='no "way"\n牛'),
            {
                "status": "rejected", "attempts": 2, "code": 9099, "meta_code": 131026, "error": "MetaError",
                "reason": 'no "way"\n牛', "finished_at": NOW + 2,
            },
            id="rejected",
        ),
        pytest.param(
            Outcome(1, NOT_SENT, 0, error="NotSentError", reason="certificate"),
            {"status": "not_sent", "error": "NotSentError", "reason": "certificate", "finished_at": NOW + 2},
            id="not sent",
        ),
        pytest.param(
            Outcome(1, UNKNOWN, 1, error="OutcomeUnknownError", reason="reset"),
            {
                "status": "unknown", "attempts": 1, "error": "OutcomeUnknownError", "reason": "reset",
                "finished_at": NOW + 2,
            },
            id="unknown",
        ),
        pytest.param(
            Outcome(1, QUEUED, 1, 1, UPTIME + 9.5, code=-1, error="TransientApiError", reason="Request failed"),
            {"status": "queued", "attempts": 1, "code": -1, "error": "TransientApiError", "reason": "Request failed"},
            id="queued again",
        ),
    ],
)  # fmt: skip
def test_an_outcome_lands_in_its_columns(ledger: Ledger, outcome: Outcome, columns: dict[str, Any]) -> None:
    take(ledger, *entries(2))
    ledger.begin_run(NOW)
    claim(ledger, 1, now=NOW + 1)
    record(ledger, outcome, now=NOW + 2)
    first, second = ledger.results()
    assert first == {
        "line": 2, "cus_message_id": "id-1", "to": "9990000001", "message_id": None, "code": None, "meta_code": None,
        "error": None, "reason": None, "attempts": 0, "receipt": None, "sent_at": NOW + 1, "finished_at": None,
        "extra": {}, **columns,
    }  # fmt: skip
    assert second["status"] == "queued"
    assert contents(ledger) == [CODE if outcome.state in (QUEUED, UNKNOWN) else None, CODE]


def test_attempts_and_refusals_add_up(ledger: Ledger) -> None:
    take(ledger, entry(1))
    ledger.begin_run(NOW)
    claim(ledger)
    record(ledger, Outcome(1, QUEUED, 2, 1, UPTIME + 1))
    (second,) = claim(ledger, now=NOW + 1).messages
    record(ledger, Outcome(1, QUEUED, 1, 0, UPTIME + 2))
    (third,) = claim(ledger, now=NOW + 2).messages
    record(ledger, Outcome(1, QUEUED, 1, 3, UPTIME + 3))
    (fourth,) = claim(ledger, now=NOW + 3).messages
    record(ledger, Outcome(1, ACCEPTED, 1))
    assert [message.refusals for message in (second, third, fourth)] == [1, 1, 4]
    assert row(ledger)["attempts"] == 5


def test_what_an_earlier_attempt_met_does_not_outlive_the_next_one(ledger: Ledger) -> None:
    take(ledger, entry(1))
    ledger.begin_run(NOW)
    claim(ledger)
    failure = Outcome(1, QUEUED, 1, 1, UPTIME + 1, code=9099, meta_code=130429, error="MetaError", reason="slower")
    claim(ledger, 1, failure, now=NOW + 1)
    record(ledger, Outcome(1, ACCEPTED, 1, message_id="wamid.1"))
    assert [row(ledger)[name] for name in ("code", "meta_code", "error", "reason")] == [None] * 4


def test_outcomes_are_written_for_their_messages_alone_in_any_order(ledger: Ledger) -> None:
    take(ledger, *entries(4))
    ledger.begin_run(NOW)
    claim(ledger, 3)
    claimed = claim(ledger, 1, Outcome(3, ACCEPTED), Outcome(1, REJECTED), Outcome(2, UNKNOWN))
    assert keys(claimed) == [4]
    assert states(ledger) == ["rejected", "unknown", "accepted", "sending"]


def test_a_message_that_waits_is_not_claimed_before_its_time(ledger: Ledger) -> None:
    take(ledger, entry(1))
    ledger.begin_run(NOW)
    claim(ledger)
    waits = Claim([], UPTIME + 5, exhausted=True)
    assert claim(ledger, 9, Outcome(1, QUEUED, not_before=UPTIME + 5)) == waits
    assert claim(ledger, now=NOW + 4.999) == waits
    due = claim(ledger, now=NOW + 5)
    assert keys(due) == [1]
    assert due.next_due is None
    assert claim(ledger, now=NOW + 99).messages == []


def test_what_is_due_again_comes_before_what_is_fresh_the_earliest_first(ledger: Ledger) -> None:
    take(ledger, *entries(6))
    ledger.begin_run(NOW)
    claim(ledger, 3)
    record(
        ledger,
        Outcome(1, QUEUED, not_before=UPTIME + 7),
        Outcome(2, QUEUED, not_before=UPTIME + 5),
        Outcome(3, QUEUED, not_before=UPTIME + 11),
    )
    first, second = claim(ledger, 1, now=NOW + 10), claim(ledger, 3, now=NOW + 10)
    assert keys(first) == [2]
    assert first.next_due == UPTIME + 7
    assert keys(second) == [1, 4, 5]
    assert second.next_due == UPTIME + 11


def test_a_message_given_back_for_any_time_can_be_claimed_again_in_the_same_run(ledger: Ledger) -> None:
    take(ledger, *entries(3))
    ledger.begin_run(NOW)
    claim(ledger, 2)
    claimed = claim(ledger, 9, Outcome(1, QUEUED, not_before=0.0))
    assert sorted(keys(claimed)) == [1, 3]


def test_a_message_that_is_not_admitted_waits_until_it_may_be_sent(ledger: Ledger) -> None:
    take(ledger, entry(1), entry(2), entry(3, to="9995550101"), entry(4))
    ledger.begin_run(NOW)
    asked: list[tuple[bool, str]] = []
    slots = iter([0.0, UPTIME + 6, 0.0, UPTIME + 12])

    def admit(has_waited: bool, recipient: str) -> float:
        asked.append((has_waited, recipient))
        return next(slots)

    claimed = claim(ledger, 3, admit=admit)
    assert keys(claimed) == [1, 3]
    assert claimed.next_due == UPTIME + 6
    assert asked == [(False, TO), (False, TO), (False, "9995550101"), (False, TO)]
    assert states(ledger) == ["sending", "queued", "sending", "queued"]
    assert [result["sent_at"] for result in ledger.results()] == [NOW, None, NOW, None]

    asked.clear()
    slots = iter([0.0])
    assert keys(claim(ledger, 3, now=NOW + 6, admit=admit)) == [2]
    assert asked == [(True, TO)]


def test_a_message_that_has_waited_may_have_to_wait_again(ledger: Ledger) -> None:
    take(ledger, entry(1))
    ledger.begin_run(NOW)
    for now, until in ((NOW, UPTIME + 6), (NOW + 6, UPTIME + 9)):
        assert claim(ledger, now=now, admit=lambda _, __, until=until: until) == Claim([], until, exhausted=True)  # type: ignore[misc]
    assert keys(claim(ledger, now=NOW + 9)) == [1]


def test_one_exchange_does_not_look_through_the_whole_queue(ledger: Ledger) -> None:
    take(ledger, *[entry(number) for number in range(1, 101)], entry(101, to="9995550101"))
    ledger.begin_run(NOW)
    asked = 0

    def admit(has_waited: bool, recipient: str) -> float:
        nonlocal asked
        asked += 1
        return 0.0 if recipient != TO else UPTIME + 6

    exchanges = 1
    while not (claimed := claim(ledger, 1, admit=admit)).messages:
        assert not claimed.exhausted
        exchanges += 1
        assert asked < 25 * exchanges
    assert keys(claimed) == [101]
    assert asked == 101
    assert exchanges > 1


def test_a_queue_that_holds_only_what_waits_is_exhausted(ledger: Ledger) -> None:
    take(ledger, *entries(3))
    ledger.begin_run(NOW)
    claimed = claim(ledger, admit=lambda _, recipient: UPTIME + float(recipient[-1]))
    assert claimed == Claim([], UPTIME + 1, exhausted=True)


def test_an_exchange_that_fails_has_changed_nothing(ledger: Ledger) -> None:
    take(ledger, *entries(3))
    ledger.begin_run(NOW)
    claim(ledger, 1)

    def admit(has_waited: bool, recipient: str) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        claim(ledger, 9, Outcome(1, ACCEPTED, 1), admit=admit)
    assert states(ledger) == ["sending", "queued", "queued"]
    assert contents(ledger) == [CODE] * 3
    assert row(ledger)["attempts"] == 0
    assert keys(claim(ledger, 9, Outcome(1, ACCEPTED, 1))) == [2, 3]
    assert states(ledger) == ["accepted", "sending", "sending"]


# ---------------------------------------------------------------------------------------------- expiry


def expiring(number: int, seconds: float, **fields: Any) -> Entry:
    return entry(number, expires_at=datetime.fromtimestamp(NOW + seconds, UTC), **fields)


def test_what_has_expired_is_taken_out_of_the_queue(ledger: Ledger) -> None:
    take(ledger, expiring(1, 10), expiring(2, 10.001), entry(3), expiring(4, 9))
    assert ledger.expire(NOW + 10).total() == 2
    assert states(ledger) == ["not_sent", "queued", "queued", "not_sent"]
    assert contents(ledger) == [None, CODE, CODE, None]
    result = row(ledger)
    assert (result["error"], result["finished_at"]) == ("Expired", NOW + 10)
    assert result["reason"] == "expires_at passed before it could be sent"
    assert ledger.expire(NOW + 10).total() == 0


def test_what_the_vendor_has_refused_and_then_expired_is_rejected_with_both_reasons(ledger: Ledger) -> None:
    take(ledger, expiring(1, 10))
    ledger.begin_run(NOW)
    claim(ledger)
    record(ledger, Outcome(1, QUEUED, 1, 1, UPTIME + 1, code=-1, error="TransientApiError", reason="Request failed"))
    assert ledger.expire(NOW + 10).total() == 1
    result = row(ledger)
    assert (result["status"], result["error"], result["code"], result["attempts"]) == ("rejected", "Expired", -1, 1)
    assert result["reason"] == "expires_at passed before it could be sent; the last answer was: Request failed"


@pytest.mark.parametrize("state", [SENDING, ACCEPTED, REJECTED, UNKNOWN])
def test_what_is_not_queued_keeps_its_state_when_it_expires(ledger: Ledger, state: MessageState) -> None:
    take(ledger, expiring(1, 10))
    ledger.begin_run(NOW)
    claim(ledger)
    if state is not SENDING:
        record(ledger, Outcome(1, state, 1, error="Error", reason="because"))
    before = row(ledger)
    assert ledger.expire(NOW + 10).total() == 0
    assert row(ledger) == before
    assert contents(ledger) == [CODE if state is SENDING else None]


def test_an_unknown_message_keeps_its_code_until_it_expires(ledger: Ledger) -> None:
    take(ledger, expiring(1, 10), entry(2))
    ledger.begin_run(NOW)
    claim(ledger)
    record(ledger, Outcome(1, UNKNOWN, 1), Outcome(2, UNKNOWN, 1))
    ledger.expire(NOW + 9.999)
    assert contents(ledger) == [CODE, CODE]
    ledger.expire(NOW + 10)
    assert contents(ledger) == [None, CODE]


def test_what_has_expired_since_the_last_look_is_not_claimed(ledger: Ledger) -> None:
    take(ledger, expiring(1, 10), expiring(2, 20))
    ledger.begin_run(NOW)
    assert keys(claim(ledger, now=NOW + 10)) == [2]
    assert states(ledger) == ["queued", "sending"]


def test_nothing_is_due_that_expires_while_it_waits(ledger: Ledger) -> None:
    # A dispatcher would ask for it again and again.
    take(ledger, expiring(1, 10))
    ledger.begin_run(NOW)
    claim(ledger)
    record(ledger, Outcome(1, QUEUED, 1, 1, UPTIME + 12))
    assert claim(ledger, now=NOW + 12) == Claim([], None, exhausted=True)


def test_what_expires_while_it_waits_is_judged_by_both_clocks(ledger: Ledger) -> None:
    take(ledger, expiring(1, 3612), expiring(2, 3612.5), entry(3))
    ledger.begin_run(NOW)
    claim(ledger)
    record(ledger, *[Outcome(key, QUEUED, 1, 1, UPTIME + 12) for key in (1, 2, 3)])
    now, monotonic = NOW + 3601, UPTIME + 1  # a second later, in which the clock was set
    assert ledger.exchange([], 9, now, monotonic, at_once) == Claim([], UPTIME + 12, exhausted=True)
    assert ledger.expire(now).total() == 0
    assert ledger.expire(now, monotonic=monotonic).total() == 1
    assert states(ledger) == ["not_sent", "queued", "queued"]
    assert keys(ledger.exchange([], 9, now + 10.9, monotonic + 10.9, at_once)) == []
    assert keys(ledger.exchange([], 9, now + 11, monotonic + 11, at_once)) == [2, 3]


def test_what_was_passed_over_as_expired_can_be_looked_for_again(ledger: Ledger) -> None:
    take(ledger, expiring(1, 10), entry(2))
    ledger.begin_run(NOW)
    assert keys(claim(ledger, now=NOW + 10)) == [2]
    assert claim(ledger, now=NOW + 5) == Claim([], None, exhausted=True)
    assert ledger.look_again()
    assert keys(claim(ledger, now=NOW + 5)) == [1]
    assert not ledger.look_again()


def test_a_run_begins_with_what_has_not_expired(ledger: Ledger) -> None:
    take(ledger, expiring(1, 10), entry(2))
    ledger.begin_run(NOW + 10)
    assert states(ledger) == ["not_sent", "queued"]
    assert keys(claim(ledger, now=NOW + 10)) == [2]


# ---------------------------------------------------------------------------------------------- a run begins


def test_in_a_new_run_nothing_waits(ledger: Ledger) -> None:
    take(ledger, *entries(3))
    ledger.begin_run(NOW)
    claim(ledger, 2)
    record(ledger, Outcome(2, QUEUED, 1, 1, UPTIME + 5), Outcome(1, QUEUED, 1, 2, UPTIME + 6))
    ledger.begin_run(NOW + 1)
    claimed = claim(ledger, now=NOW + 1)
    assert keys(claimed) == [1, 2, 3]
    assert [message.refusals for message in claimed.messages] == [2, 1, 0]
    assert claimed.next_due is None


def test_no_recipient_gets_more_than_the_cap(ledger: Ledger) -> None:
    take(ledger, entry(1), entry(2), entry(3, to="9995550101"), bad_entry(4), bad_entry(5), bad_entry(6), entry(7))
    ledger.begin_run(NOW + 1, max_per_recipient=2)
    assert states(ledger) == ["queued", "queued", "queued", "not_sent", "not_sent", "not_sent", "not_sent"]
    capped = row(ledger, 7)
    assert (capped["error"], capped["finished_at"]) == ("Capped", NOW + 1)
    assert capped["reason"] == "the recipient has 2 messages of this ledger already"
    assert row(ledger, 6)["error"] == "InvalidMessageError"
    assert contents(ledger) == [CODE, CODE, CODE, None, None, None, None]


@pytest.mark.parametrize("state", [SENDING, ACCEPTED, UNKNOWN])
def test_what_a_recipient_got_in_earlier_runs_counts_towards_the_cap(ledger: Ledger, state: MessageState) -> None:
    brought_to(state, ledger)
    take(ledger, entry(2), entry(3, to="9995550101"))
    ledger.begin_run(NOW, max_per_recipient=1)
    assert states(ledger) == [state, "not_sent", "queued"]


@pytest.mark.parametrize("state", [NOT_SENT, REJECTED])
def test_what_a_recipient_did_not_get_does_not_count_towards_the_cap(ledger: Ledger, state: MessageState) -> None:
    brought_to(state, ledger)
    take(ledger, entry(2), entry(3))
    ledger.begin_run(NOW, max_per_recipient=1)
    assert states(ledger) == [state, "queued", "not_sent"]


def test_what_has_expired_does_not_count_towards_the_cap(ledger: Ledger) -> None:
    take(ledger, expiring(1, 10), entry(2), entry(3))
    ledger.begin_run(NOW + 10, max_per_recipient=1)
    assert states(ledger) == ["not_sent", "queued", "not_sent"]
    assert [result["error"] for result in ledger.results()] == ["Expired", None, "Capped"]


# ---------------------------------------------------------------------------------------------- looking at it


def test_the_ledger_tells_who_was_sent_to_since(ledger: Ledger) -> None:
    take(ledger, entry(1), entry(2), entry(3, to="9995550101"), entry(4, to="9995550102"), bad_entry(5))
    ledger.begin_run(NOW)
    for second in range(3):
        claim(ledger, 1, now=NOW + second)
    assert ledger.sent_since(0) == {TO: NOW + 1, "9995550101": NOW + 2}
    assert ledger.sent_since(NOW + 1) == {"9995550101": NOW + 2}
    assert ledger.sent_since(NOW + 2) == {}


def test_states_and_reasons_are_counted(ledger: Ledger) -> None:
    assert ledger.counts() == {}
    assert ledger.reasons() == []
    take(ledger, *entries(9), bad_entry(10), bad_entry(11))
    ledger.begin_run(NOW)
    claim(ledger, 8)
    no_template: dict[str, Any] = {"code": 9099, "error": "MetaError"}
    record(
        ledger,
        Outcome(1, ACCEPTED, 1, message_id="wamid.1"),
        Outcome(2, REJECTED, 1, meta_code=132001, reason="no such template", **no_template),
        Outcome(3, REJECTED, 1, meta_code=132001, reason="no such template", **no_template),
        Outcome(4, REJECTED, 1, meta_code=132001, reason="no such template", **no_template),
        Outcome(5, REJECTED, 1, meta_code=131026, reason="undeliverable", **no_template),
        Outcome(6, UNKNOWN, 1, error="OutcomeUnknownError", reason="reset"),
        Outcome(7, QUEUED, 1, 1, UPTIME + 1, code=-1, error="TransientApiError", reason="Request failed"),
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


def test_the_columns_of_several_files_come_in_the_order_of_the_files(ledger: Ledger) -> None:
    assert ledger.extra_columns() == []
    take(ledger, entry(1), columns=["name", "line", "größe"])
    take(ledger, entry(2), columns=[])
    take(ledger, entry(3), columns=["shop", "name"])
    assert ledger.extra_columns() == ["name", "line", "größe", "shop"]


# ---------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("receipt", "state"), [("sent", ACCEPTED), ("read", ACCEPTED), ("deleted", ACCEPTED), ("failed", ACCEPTED)]
)
@pytest.mark.parametrize("how", ["the answer is lost", "the process ends"])
def test_a_callback_that_comes_before_the_answer_counts_where_none_comes(
    tmp_path: Path, receipt: str, state: MessageState, how: str
) -> None:
    with Ledger(tmp_path / "run.db") as ledger:
        take(ledger, entry(1))
        ledger.begin_run(NOW)
        claim(ledger, 1)
        assert ledger.resolve({"id-1": receipt}, by_callback=True) == 1
        assert (states(ledger), contents(ledger)) == ([SENDING], [CODE])
        if how == "the answer is lost":
            record(ledger, Outcome(1, UNKNOWN, 1, error="OutcomeUnknownError"))
    with Ledger(tmp_path / "run.db") as ledger:
        assert (states(ledger), contents(ledger)) == ([state], [None])
        assert row(ledger)["receipt"] == receipt


def test_a_callback_that_comes_before_the_answer_changes_no_answer(ledger: Ledger) -> None:
    take(ledger, *entries(2))
    ledger.begin_run(NOW)
    claim(ledger, 2)
    assert ledger.resolve({"id-1": "sent", "id-2": "sent"}, by_callback=True) == 2
    record(ledger, Outcome(1, ACCEPTED, 1, message_id="id-1"), Outcome(2, REJECTED, 1, code=9015))
    assert states(ledger) == [ACCEPTED, REJECTED]


def test_a_message_queued_again_that_a_callback_speaks_of_is_not_sent(ledger: Ledger) -> None:
    brought_to(UNKNOWN, ledger)
    assert ledger.requeue(["id-1"]) == 1
    assert ledger.resolve({"id-1": "delivered"}, by_callback=True) == 1
    ledger.begin_run(NOW)
    assert (claim(ledger).messages, states(ledger), contents(ledger)) == ([], [ACCEPTED], [None])


@pytest.mark.parametrize("state", [REJECTED, NOT_SENT])
def test_a_message_queued_again_may_have_arrived_whatever_becomes_of_it(ledger: Ledger, state: MessageState) -> None:
    brought_to(UNKNOWN, ledger)
    ledger.requeue(["id-1"])
    ledger.begin_run(NOW)
    claim(ledger, 1)
    record(ledger, Outcome(1, state, 1))
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
    ledger: Ledger, state: MessageState, receipts: list[str], told: Told
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
def test_by_hand_only_what_is_unknown_is_settled(ledger: Ledger, state: MessageState, receipt: str) -> None:
    brought_to(state, ledger)
    before = row(ledger)
    assert ledger.resolve({"id-1": receipt}) == 0
    assert row(ledger) == before


def test_receipts_are_told_for_many_rows_at_once(ledger: Ledger) -> None:
    take(ledger, *entries(4))
    ledger.begin_run(NOW)
    claim(ledger)
    record(ledger, *[Outcome(key, UNKNOWN, 1) for key in range(1, 5)])
    assert ledger.resolve({"id-3": "failed", "id-1": "read", "id-4": "sent"}) == 3
    assert states(ledger) == ["accepted", "unknown", "rejected", "accepted"]
    assert [result["receipt"] for result in ledger.results()] == ["read", None, "failed", "sent"]
    assert ledger.unknown_ids() == ["id-2"]


@pytest.mark.parametrize(
    ("known", "by_callback", "message_id"),
    [
        (None, True, "id-1"),
        (None, False, None),
        ("wamid.1", True, "wamid.1"),
    ],
)
def test_only_the_vendor_tells_a_message_id_that_is_not_known(
    ledger: Ledger, known: str | None, by_callback: bool, message_id: str | None
) -> None:
    brought_to(UNKNOWN if known is None else ACCEPTED, ledger, message_id=known)
    assert ledger.resolve({"id-1": "delivered"}, by_callback=by_callback) == 1
    assert row(ledger)["message_id"] == message_id


def test_a_callback_may_call_a_message_by_the_id_that_came_back(ledger: Ledger) -> None:
    take(ledger, *entries(3))
    ledger.begin_run(NOW)
    claim(ledger, 3)
    record(
        ledger,
        Outcome(1, ACCEPTED, 1, message_id="wamid.1"),
        Outcome(2, ACCEPTED, 1, message_id="id-2"),
        Outcome(3, UNKNOWN, 1),
    )
    told = {"wamid.1": "delivered", "id-2": "read", "wamid.3": "sent"}
    assert ledger.resolve(told, by_callback=True) == 2
    assert [row["receipt"] for row in ledger.results()] == ["delivered", "read", None]
    assert ledger.resolve({"wamid.1": "sent"}, by_callback=True) == 0


def test_no_receipts_say_nothing(ledger: Ledger) -> None:
    brought_to(UNKNOWN, ledger)
    assert ledger.resolve({}) == 0
    assert states(ledger) == ["unknown"]


def test_an_unknown_message_can_be_queued_again(ledger: Ledger) -> None:
    take(ledger, *entries(3))
    ledger.begin_run(NOW)
    claim(ledger)
    record(ledger, *[Outcome(key, UNKNOWN, 2, 2, error="OutcomeUnknownError") for key in (1, 2, 3)])
    assert ledger.requeue(["id-3", "id-77", "id-1"]) == 2
    assert states(ledger) == ["queued", "unknown", "queued"]
    assert [result["finished_at"] for result in ledger.results()] == [None, NOW, None]
    ledger.begin_run(NOW)
    claimed = claim(ledger)
    assert keys(claimed) == [1, 3]
    assert [message.refusals for message in claimed.messages] == [0, 0]
    record(ledger, Outcome(1, ACCEPTED, 1))
    assert row(ledger)["attempts"] == 3
    assert row(ledger)["error"] is None


@pytest.mark.parametrize("state", [QUEUED, SENDING, ACCEPTED, REJECTED, NOT_SENT])
def test_only_an_unknown_message_is_queued_again(ledger: Ledger, state: MessageState) -> None:
    brought_to(state, ledger)
    assert ledger.requeue(["id-1"]) == 0
    assert states(ledger) == [state]


@pytest.mark.parametrize("erase", [False, True])
def test_an_expired_code_is_not_queued_again(ledger: Ledger, erase: bool) -> None:
    take(ledger, expiring(1, 10), entry(2, expires_at=FAR))
    ledger.begin_run(NOW)
    claim(ledger)
    record(ledger, Outcome(1, UNKNOWN, 1), Outcome(2, UNKNOWN, 1))
    if erase:
        ledger.expire(NOW + 10)
    assert ledger.requeue(["id-1", "id-2"]) == 1
    assert states(ledger) == ["unknown", "queued"]


def test_an_erased_code_is_not_queued_again_though_the_clock_went_back(ledger: Ledger) -> None:
    take(ledger, entry(1, expires_at=FAR))
    ledger.begin_run(NOW)
    claim(ledger)
    record(ledger, Outcome(1, UNKNOWN, 1))
    ledger.expire(FAR.timestamp())
    assert contents(ledger) == [None]
    assert ledger.requeue(["id-1"]) == 0
    assert states(ledger) == ["unknown"]


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda ledger: ledger.expire(FAR.timestamp()), id="expired"),
        pytest.param(lambda ledger: ledger.begin_run(NOW, max_per_recipient=1), id="capped"),
    ],
)
def test_a_message_that_may_have_been_accepted_is_never_called_not_sent(
    ledger: Ledger, leave: Callable[[Ledger], object]
) -> None:
    take(ledger, entry(1, expires_at=FAR), entry(2, expires_at=FAR))
    ledger.begin_run(NOW)
    claim(ledger)
    record(ledger, Outcome(1, ACCEPTED, 1), Outcome(2, UNKNOWN, 1, error="OutcomeUnknownError", reason="reset"))
    assert ledger.requeue(["id-2"]) == 1
    leave(ledger)
    assert states(ledger) == ["accepted", "unknown"]


# ---------------------------------------------------------------------------------------------- transactions


def test_a_transaction_that_fails_leaves_nothing_behind(ledger: Ledger) -> None:
    take(ledger, entry(1), columns=["name"])

    def fail() -> None:
        with ledger.transaction():
            source = ledger.add_source("other.csv")
            ledger.set_columns(source, ["shop"])
            ledger.add(source, [entry(2), entry(3)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert ledger.extra_columns() == ["name"]
    assert len(states(ledger)) == 1
    assert take(ledger, entry(2)) == {}
    assert len(states(ledger)) == 2


def test_what_sqlite_says_is_told_as_an_error_of_this_library(ledger: Ledger) -> None:
    def fail() -> None:
        with ledger.transaction():
            ledger.add_source("other.csv")
            ledger._database.execute("SELECT * FROM nowhere")

    with pytest.raises(LedgerError, match="cannot be used: no such table: nowhere"):
        fail()
    assert ledger._one("SELECT count(*) FROM sources") == (0,)


def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.ledger")
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.counts()
    with pytest.raises(LedgerError, match="closed"):
        ledger.begin_run(NOW)


# ---------------------------------------------------------------------------------------------- opening


def fill(path: Path, count: int = 3) -> None:
    """Make a ledger of queued messages."""
    with Ledger(path) as ledger:
        take(ledger, *entries(count))


def test_a_ledger_is_as_it_was_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "run.ledger"
    fill(path)
    with Ledger(path) as ledger:
        ledger.begin_run(NOW)
        claim(ledger)
        record(
            ledger,
            Outcome(1, ACCEPTED, 1, message_id="wamid.1"),
            Outcome(2, REJECTED, 1, code=9015, error="OtpContentError", reason="no code"),
            Outcome(3, QUEUED, 1, 1, UPTIME + 5),
        )
        before = list(ledger.results())
    with Ledger(str(path), create=False) as ledger:
        assert list(ledger.results()) == before
        ledger.begin_run(NOW)
        assert keys(claim(ledger)) == [3]


def test_what_was_in_flight_when_the_ledger_was_closed_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "run.ledger"
    fill(path)
    with Ledger(path) as ledger:
        ledger.begin_run(NOW)
        claim(ledger, 2)
        refused = Outcome(1, QUEUED, 1, 1, UPTIME + 5, code=-1, error="TransientApiError", reason="no")
        claim(ledger, 2, refused, now=NOW + 5)
    with Ledger(path) as ledger:
        results = list(ledger.results())
        assert [result["status"] for result in results] == ["unknown"] * 3
        assert {result["error"] for result in results} == {"Interrupted"}
        assert {result["reason"] for result in results} == {"the process ended while the message was in flight"}
        assert {result["code"] for result in results} == {None}
        assert all(result["finished_at"] > NOW for result in results)
        assert ledger.unknown_ids() == ["id-1", "id-2", "id-3"]
        assert contents(ledger) == [CODE] * 3
        ledger.begin_run(NOW + 9)
        assert claim(ledger, now=NOW + 9) == Claim([], None, exhausted=True)


@pytest.mark.parametrize("name", [":memory:", "file:run?mode=memory", "a b%20c#d?.ledger", "-run"])
def test_a_ledger_of_any_name_is_a_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path(name))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with Ledger(name) as ledger:
        assert len(states(ledger)) == 3


def test_a_temporary_ledger_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Ledger(None) as one, Ledger(None) as other:
        take(one, *entries(3))
        assert one.path is None
        assert states(other) == []
        assert list(tmp_path.iterdir()) == []


# What a child does with the ledger in argv[1] before the parent goes on.
_HOLD = ""
_SEND_HALF = """
ledger.begin_run(1e9)
claimed = ledger.exchange([], 2, 1e9, 0.0, lambda waited, recipient: 0.0)
first = Outcome(claimed.messages[0].key, MessageState.ACCEPTED, 1, message_id="wamid.1")
ledger.exchange([first], 0, 1e9, 0.0, lambda waited, recipient: 0.0)
"""
_STOP_IN_AN_EXCHANGE = """
def admit(waited, recipient):
    print("ready", flush=True)
    sys.stdin.read()
ledger.begin_run(1e9)
ledger.exchange([], 2, 1e9, 0.0, admit)
"""
_CHILD = """
import sys
from nxotp_async.bulk import Ledger, MessageState
from nxotp_async.bulk.records import Outcome
with Ledger(sys.argv[1]) as ledger:
    {}
    print("ready", flush=True)
    sys.stdin.read()
"""


_OPEN = """
import sys
from nxotp_async.bulk import Ledger
Ledger(sys.argv[1])
"""


@contextmanager
def child(path: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that opens the ledger, does something, and then waits until its standard input is closed."""
    script = _CHILD.format(what.strip().replace("\n", "\n    "))
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        except BaseException:
            process.kill()
            raise


def test_a_second_process_is_refused_at_once_and_told_why(tmp_path: Path) -> None:
    path = tmp_path / "run.ledger"
    fill(path)
    with child(path, _HOLD) as process:
        for _ in range(2):
            with pytest.raises(LedgerError, match=r"run\.ledger is in use by another process") as caught:
                Ledger(path)
            assert caught.value.hint == "wait until it has ended, or stop it"
        process.communicate()
    assert process.returncode == 0
    with Ledger(path) as ledger:
        assert states(ledger) == ["queued"] * 3


def test_the_same_process_is_refused_too_and_still_keeps_others_out(tmp_path: Path) -> None:
    path = tmp_path / "run.ledger"
    with Ledger(path) as ledger:
        take(ledger, entry(1))
        ledger.begin_run(NOW)
        claim(ledger)
        for create in (True, False):
            with pytest.raises(LedgerError, match="is in use"):
                Ledger(path, create=create)
        # Closing any handle of the file would give up the locks that this process has on it.
        other = subprocess.run([sys.executable, "-c", _OPEN, str(path)], capture_output=True, text=True, check=False)
        assert "is in use by another process" in other.stderr
        record(ledger, Outcome(1, ACCEPTED, 1))
        assert states(ledger) == ["accepted"]


@pytest.mark.parametrize(
    ("what", "after"),
    [
        pytest.param(_SEND_HALF, ["accepted", "unknown", "queued"], id="between the exchange and the outcome"),
        pytest.param(_STOP_IN_AN_EXCHANGE, ["queued", "queued", "queued"], id="before the exchange is durable"),
    ],
)
def test_what_a_killed_process_leaves(tmp_path: Path, what: str, after: list[str]) -> None:
    path = tmp_path / "run.ledger"
    fill(path)
    with child(path, what) as process:
        process.kill()
        process.communicate()
    assert process.returncode < 0
    with Ledger(path, create=False) as ledger:
        assert states(ledger) == after
        assert [result["error"] == "Interrupted" for result in ledger.results()] == [
            state == "unknown" for state in after
        ]
        ledger.begin_run(NOW)
        assert keys(claim(ledger)) == [key for key, state in enumerate(after, start=1) if state == "queued"]


def foreign_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, state TEXT)")
        database.execute("INSERT INTO messages (state) VALUES ('sending')")
        database.commit()


def other_version(path: Path) -> None:
    fill(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 2")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(
            lambda path: path.write_bytes(b"to,content\n9995550100,482913\n" * 100),
            "{path} is no ledger, or is damaged",
            id="no database",
        ),
        pytest.param(foreign_database, "{path} is another program's database, not a ledger", id="foreign database"),
        pytest.param(
            other_version, "{path} was made by another version of nxotp_async (use that version)", id="other version"
        ),
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_no_ledger_of_this_version_is_refused_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], object], problem: str, create: bool
) -> None:
    path = tmp_path / "run.ledger"
    make(path)
    path.chmod(0o644)
    before = path.read_bytes()
    with pytest.raises(LedgerError) as caught:
        Ledger(path, create=create)
    assert str(caught.value) == problem.format(path=path)
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.ledger"
    fill(path, 200)
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    with pytest.raises(LedgerError, match="is no ledger, or is damaged"):
        Ledger(path)


@pytest.mark.parametrize(
    ("name", "create", "problem"),
    [
        pytest.param("no/run.ledger", True, "the directory {tmp}/no does not exist", id="no directory"),
        pytest.param("no/run.ledger", False, "there is no ledger {path} (nxotp bulk run makes one)", id="nothing"),
        pytest.param("run.ledger", False, "there is no ledger {path} (nxotp bulk run makes one)", id="no file"),
        pytest.param("folder", True, "{path} is not a file", id="a directory"),
        pytest.param("folder", False, "{path} is not a file", id="a directory, not made"),
        pytest.param("pipe", True, "{path} is not a file", id="a pipe"),
        pytest.param("file/run.ledger", True, "{path} cannot be opened: Not a directory", id="below a file"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_and_nothing_is_made(
    tmp_path: Path, name: str, create: bool, problem: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LedgerError) as caught:
        Ledger(tmp_path / name, create=create)
    assert str(caught.value) == problem.format(path=tmp_path / name, tmp=tmp_path)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def generous_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def modes(directory: Path) -> dict[str, str]:
    """Return the permissions of every regular file in it."""
    return {
        path.name: f"{stat.S_IMODE(path.stat().st_mode):o}" for path in directory.iterdir() if not path.is_symlink()
    }


_PRIVATE = {"run.ledger": "600", "run.ledger-wal": "600"}


@pytest.mark.usefixtures("generous_umask")
def test_a_ledger_is_its_owners_alone(tmp_path: Path) -> None:
    with Ledger(tmp_path / "run.ledger") as ledger:
        assert modes(tmp_path) == _PRIVATE
        take(ledger, *entries(3))
        ledger.begin_run(NOW)
        claim(ledger)
        assert modes(tmp_path) == _PRIVATE
        ledger.forget_codes()
        assert modes(tmp_path) == _PRIVATE
    assert modes(tmp_path) == {"run.ledger": "600"}


@pytest.mark.usefixtures("generous_umask")
@pytest.mark.parametrize("mode", [0o644, 0o666, 0o640])
@pytest.mark.parametrize("name", ["run.ledger", "link"])
def test_a_ledger_that_others_could_read_is_its_owners_alone_again(tmp_path: Path, mode: int, name: str) -> None:
    path = tmp_path / "run.ledger"
    (tmp_path / "link").symlink_to(path)
    fill(path)
    path.chmod(mode)
    with Ledger(tmp_path / name) as ledger:
        assert modes(tmp_path) == _PRIVATE
        ledger.begin_run(NOW)
        claim(ledger)
        assert modes(tmp_path) == _PRIVATE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize(
    ("file_mode", "directory_mode", "create", "problem"),
    [
        pytest.param(0o400, 0o700, True, "cannot be written", id="read-only file"),
        pytest.param(0o400, 0o700, False, "cannot be written", id="read-only file, not made"),
        pytest.param(0o600, 0o500, True, "cannot be written", id="read-only directory"),
        pytest.param(0o600, 0o500, False, "cannot be written", id="read-only directory, not made"),
        pytest.param(None, 0o500, True, f"cannot be opened: {os.strerror(errno.EACCES)}", id="no file yet"),
        pytest.param(0o600, 0o000, True, f"cannot be opened: {os.strerror(errno.EACCES)}", id="hidden directory"),
    ],
)
def test_a_ledger_that_cannot_be_written_says_so(
    tmp_path: Path, file_mode: int | None, directory_mode: int, create: bool, problem: str
) -> None:
    directory = tmp_path / "folder"
    directory.mkdir()
    path = directory / "run.ledger"
    if file_mode is not None:
        fill(path)
        path.chmod(file_mode)
    directory.chmod(directory_mode)
    try:
        with pytest.raises(LedgerError, match=f"run.ledger {problem}"):
            Ledger(path, create=create)
    finally:
        directory.chmod(0o700)


def test_a_ledger_that_can_no_longer_be_written_says_so(ledger: Ledger) -> None:
    ledger._database.execute("PRAGMA query_only = ON")
    with pytest.raises(LedgerError) as caught:
        take(ledger, entry(1))
    problem = "the temporary ledger cannot be written (check its permissions and those of its directory)"
    assert str(caught.value) == problem


def test_an_sqlite_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 32, 3))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.32.3")
    with pytest.raises(LedgerError, match=r"SQLite is 3\.32\.3; a ledger needs 3\.33 or newer"):
        Ledger(tmp_path / "run.ledger")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------- the disk is full


@contextmanager
def full_disk(ledger: Ledger) -> Iterator[None]:
    """Let the ledger's file not grow any more."""
    (pages,) = ledger._one("PRAGMA page_count")
    (before,) = ledger._one("PRAGMA max_page_count")
    ledger._one(f"PRAGMA max_page_count = {pages}")
    try:
        yield
    finally:
        ledger._one(f"PRAGMA max_page_count = {before}")


_FULL = r"run\.ledger cannot be written: the disk is full \(make room, then resume\)"


def test_a_full_disk_leaves_outcomes_to_be_written_later(tmp_path: Path) -> None:
    with Ledger(tmp_path / "run.ledger") as ledger:
        take(ledger, *entries(3))
        ledger.begin_run(NOW)
        claim(ledger)
        outcomes = [Outcome(key, REJECTED, 1, error="Error", reason="no " * 3000) for key in (1, 2, 3)]
        with full_disk(ledger):
            with pytest.raises(LedgerError, match=_FULL):
                record(ledger, *outcomes)
            assert ledger.counts() == {SENDING: 3}
        record(ledger, *outcomes)
        assert ledger.counts() == {REJECTED: 3}
        assert row(ledger)["reason"] == "no " * 3000


def test_a_full_disk_leaves_messages_to_be_claimed_later(tmp_path: Path) -> None:
    with Ledger(tmp_path / "run.ledger") as ledger:
        take(ledger, *entries(200))
        ledger.begin_run(NOW)
        with full_disk(ledger):
            with pytest.raises(LedgerError, match=_FULL):
                claim(ledger, 200)
            assert ledger.counts() == {QUEUED: 200}
        assert keys(claim(ledger, 200)) == list(range(1, 201))


def test_a_full_disk_leaves_nothing_of_a_file(tmp_path: Path) -> None:
    with Ledger(tmp_path / "run.ledger") as ledger:
        take(ledger, entry(1))
        more = [entry(number, "x" * 2000 + CODE) for number in range(2, 50)]
        with full_disk(ledger):
            with pytest.raises(LedgerError, match=_FULL):
                take(ledger, *more, columns=["name"])
            assert ledger.counts() == {QUEUED: 1}
        assert ledger.extra_columns() == []
        assert take(ledger, *more, columns=["name"]) == {}
        assert ledger.counts() == {QUEUED: 49}


def test_a_disk_that_was_full_does_no_harm_to_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "run.ledger"
    with Ledger(path) as ledger:
        take(ledger, *entries(3))
        ledger.begin_run(NOW)
        claim(ledger, 2)
        with full_disk(ledger), pytest.raises(LedgerError, match=_FULL):
            record(ledger, Outcome(1, ACCEPTED, 1, message_id="wamid.1" * 5000))
    with Ledger(path) as ledger:
        assert states(ledger) == ["unknown", "unknown", "queued"]
        assert ledger._one("PRAGMA integrity_check") == ("ok",)


class _Canary:
    """Values that are only ever read from here, so that no frame of a test holds them as a local variable."""

    code = "73915508"
    number = "999555017342"


def test_an_error_shows_no_code_to_those_who_print_its_frames(tmp_path: Path) -> None:
    with Ledger(tmp_path / "run.ledger") as ledger:
        take(ledger, *[entry(number, _Canary.code, to=_Canary.number) for number in range(1, 201)])
        ledger.begin_run(NOW)
        with full_disk(ledger), pytest.raises(LedgerError, match=_FULL) as caught:
            claim(ledger, 200)
    chained: BaseException | None = caught.value
    while chained is not None:
        report = traceback.TracebackException.from_exception(chained, capture_locals=True)
        report.stack[:] = [frame for frame in report.stack if frame.filename != __file__]
        printed = "".join(report.format(chain=False))
        assert not any(value in printed for value in (_Canary.code, _Canary.number))
        chained = chained.__cause__ or chained.__context__


# ---------------------------------------------------------------------------------------------- erased codes


def found(directory: Path, needles: Sequence[str]) -> list[tuple[str, str]]:
    """Return which of these texts are in which file."""
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    return [(needle, name) for needle in needles for name, content in files.items() if needle.encode() in content]


def letters(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices(string.ascii_letters, k=length))


_LONG = letters(2000, 1) + f" {CODE} " + letters(1992, 2)
_CANARIES = {
    "the code alone": (CODE, [CODE]),
    "a sentence": (f"Your code is {CODE}, for you", [CODE, "Your code is", "for you"]),
    # So much does not fit into a page of SQLite's, and goes on in others.
    "4000 characters": (_LONG, [CODE, *[_LONG[at : at + 20] for at in range(0, 4000, 400)], _LONG[-20:]]),
}


@pytest.mark.parametrize("state", [ACCEPTED, REJECTED, NOT_SENT])
@pytest.mark.parametrize("canary", _CANARIES)
def test_the_code_of_a_final_message_is_in_no_byte(tmp_path: Path, canary: str, state: MessageState) -> None:
    content, needles = _CANARIES[canary]
    with Ledger(tmp_path / "run.ledger") as ledger:
        take(ledger, entry(1, content, extra={"name": "Bo"}))
        ledger.begin_run(NOW)
        claim(ledger)
        assert {needle for needle, _ in found(tmp_path, needles)} == set(needles)
        record(ledger, Outcome(1, state, 1, error="Error", reason="because"))
        ledger.forget_codes()
        assert found(tmp_path, needles) == []
        assert found(tmp_path, ["because", "id-1"]) == [("because", "run.ledger"), ("id-1", "run.ledger")]
    assert found(tmp_path, needles) == []
    assert [path.name for path in tmp_path.iterdir()] == ["run.ledger"]


def test_no_code_of_many_messages_remains_in_the_gaps_of_the_file(tmp_path: Path) -> None:
    # Rows of many lengths grow while they are sent, and SQLite moves them about.
    chance = random.Random(1)
    needles = [f"<{letters(12, number)}>" for number in range(1500)]
    with Ledger(tmp_path / "run.ledger") as ledger:
        rows = [
            entry(number, f"{CODE} {needle} {'x' * chance.randrange(500)}", to=f"999{number:07}")
            for number, needle in enumerate(needles, start=1)
        ]
        take(ledger, *rows)
        ledger.begin_run(NOW)
        while (claimed := claim(ledger, 64)).messages:
            record(
                ledger,
                *[
                    Outcome(message.key, ACCEPTED, 1, message_id=f"wamid.{'A' * chance.randrange(60)}")
                    for message in claimed.messages
                ],
            )
        assert ledger.counts() == {ACCEPTED: 1500}
        ledger.forget_codes()
        assert found(tmp_path, needles) == []
    assert found(tmp_path, [*needles, CODE]) == []


def test_expired_codes_are_in_no_byte_and_unknown_ones_stay_until_then(tmp_path: Path) -> None:
    contents_ = {
        "queued, expires": "Q482913", "unknown, expires": "U482913", "unknown, settled": "S482913",
        "queued": "q739155", "unknown": "u739155",
    }  # fmt: skip
    queued, unknown, settled, kept_queued, kept_unknown = contents_.values()
    with Ledger(tmp_path / "run.ledger") as ledger:
        take(
            ledger,
            expiring(1, 10, content=unknown),
            entry(2, kept_unknown, expires_at=FAR),
            entry(3, settled),
            expiring(4, 10, content=queued),
            entry(5, kept_queued),
        )
        ledger.begin_run(NOW)
        claim(ledger, 3)
        record(ledger, *[Outcome(key, UNKNOWN, 1) for key in (1, 2, 3)])
        ledger.forget_codes()
        assert {needle for needle, _ in found(tmp_path, list(contents_.values()))} == set(contents_.values())
        ledger.resolve({"id-3": "delivered"})
        assert ledger.expire(NOW + 10).total() == 1
        ledger.forget_codes()
        left = [(kept_queued, "run.ledger"), (kept_unknown, "run.ledger")]
        assert found(tmp_path, list(contents_.values())) == left
    assert found(tmp_path, list(contents_.values())) == left
    with Ledger(tmp_path / "run.ledger") as ledger:
        assert ledger.requeue(["id-1", "id-2", "id-3"]) == 1


def test_a_file_that_was_refused_leaves_no_code(tmp_path: Path) -> None:
    with Ledger(tmp_path / "run.ledger") as ledger:
        with suppress(ZeroDivisionError), ledger.transaction():
            assert ledger.add(ledger.add_source("otps.csv"), [entry(1, "Your code is 739155")]) == {}
            raise ZeroDivisionError
        assert states(ledger) == []
        ledger.forget_codes()
        assert found(tmp_path, ["739155"]) == []
    assert found(tmp_path, ["739155"]) == []


# ---------------------------------------------------------------------------------------------- export


def exported(ledger: Ledger, file_format: FileFormat, **options: Any) -> str:
    output = io.StringIO(newline="")
    count = export(ledger, output, file_format, **options)
    assert count == len(states(ledger))
    return output.getvalue()


def ended(ledger: Ledger) -> None:
    """Bring three rows to their ends, and leave a fourth in the queue."""
    take(
        ledger,
        entry(1, extra={"name": "Bo", "line": "A-7"}),
        entry(2, to="9995550102", extra={"name": "", "line": "A-8"}),
        entry(3, to="9995550103", extra={"name": "Al, the 2nd", "line": "A-9"}),
        columns=["name", "line"],
    )
    take(ledger, entry(4, to="9995550104", extra={"shop": "S"}), columns=["shop"])
    ledger.begin_run(NOW)
    claim(ledger, 3, now=NOW + 0.25)
    record(
        ledger,
        Outcome(3, UNKNOWN, 1, error="OutcomeUnknownError", reason="reset"),
        Outcome(1, ACCEPTED, 1, message_id="wamid.1"),
        Outcome(2, REJECTED, 2, code=9099, meta_code=131026, error="MetaError", reason='"no", it said'),
        now=NOW + 1.0625,
    )


def test_an_export_to_csv_has_one_row_for_each_of_the_input(ledger: Ledger) -> None:
    ended(ledger)
    assert exported(ledger, FileFormat.CSV) == (
        "line,cus_message_id,to,status,message_id,code,meta_code,error,reason,attempts,receipt,sent_at,finished_at,"
        "name,input_line,shop\n"
        "2,id-1,9995550100,accepted,wamid.1,,,,,1,,"
        "2001-09-09T01:46:40.250+00:00,2001-09-09T01:46:41.062+00:00,Bo,A-7,\n"
        '3,id-2,9995550102,rejected,,9099,131026,MetaError,"""no"", it said",2,,'
        "2001-09-09T01:46:40.250+00:00,2001-09-09T01:46:41.062+00:00,,A-8,\n"
        "4,id-3,9995550103,unknown,,,,OutcomeUnknownError,reset,1,,"
        '2001-09-09T01:46:40.250+00:00,2001-09-09T01:46:41.062+00:00,"Al, the 2nd",A-9,\n'
        "5,id-4,9995550104,queued,,,,,,0,,,,,,S\n"
    )


def test_an_export_to_ndjson_has_one_object_for_each_row_of_the_input(ledger: Ledger) -> None:
    ended(ledger)
    ledger.resolve({"id-1": "read"}, by_callback=True)
    lines = exported(ledger, FileFormat.NDJSON).splitlines()
    first, second, _, fourth = [orjson.loads(line) for line in lines]
    assert first.pop("finished_at") > "2001-09-09"
    assert first == {
        "line": 2, "cus_message_id": "id-1", "to": "9995550100", "status": "accepted", "message_id": "wamid.1",
        "code": None, "meta_code": None, "error": None, "reason": None, "attempts": 1, "receipt": "read",
        "sent_at": "2001-09-09T01:46:40.250+00:00", "name": "Bo", "input_line": "A-7",
    }  # fmt: skip
    assert (second["code"], second["meta_code"], second["attempts"]) == (9099, 131026, 2)
    assert fourth == {
        "line": 5, "cus_message_id": "id-4", "to": "9995550104", "status": "queued", "message_id": None, "code": None,
        "meta_code": None, "error": None, "reason": None, "attempts": 0, "receipt": None, "sent_at": None,
        "finished_at": None, "shop": "S",
    }  # fmt: skip


def test_rows_that_are_no_messages_are_exported_in_their_places(ledger: Ledger) -> None:
    take(ledger, bad_entry(1, extra={"name": "Bo"}), entry(2), bad_entry(3, "content is missing"), columns=["name"])
    rows = list(csv.DictReader(io.StringIO(exported(ledger, FileFormat.CSV))))
    assert [(row["line"], row["to"], row["status"], row["reason"], row["name"]) for row in rows] == [
        ("2", "", "not_sent", "to is missing", "Bo"),
        ("3", TO, "queued", "", ""),
        ("4", "", "not_sent", "content is missing", ""),
    ]


@pytest.mark.parametrize("file_format", FileFormat)
def test_numbers_are_shown_as_asked_for(ledger: Ledger, file_format: FileFormat) -> None:
    take(ledger, entry(1), bad_entry(2))
    text = exported(ledger, file_format, show_number=mask_number)
    assert TO not in text
    assert "99******00" in text


@pytest.mark.parametrize("file_format", FileFormat)
def test_no_row_holds_a_code(ledger: Ledger, file_format: FileFormat) -> None:
    ended(ledger)
    assert CODE not in exported(ledger, file_format)


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (["status"], ["input_status"]),
        (["status", "input_status"], ["input_status", "input_input_status"]),
        (["input_status", "status"], ["input_status", "input_input_status"]),
        (["to", "Status", "extra", "content_"], ["input_to", "Status", "extra", "content_"]),
        (["code", "input_code", "input_input_code"], ["input_code", "input_input_code", "input_input_input_code"]),
    ],
)
@pytest.mark.parametrize("file_format", FileFormat)
def test_a_column_that_is_called_like_a_result_gets_another_name(
    ledger: Ledger, file_format: FileFormat, columns: list[str], names: list[str]
) -> None:
    take(ledger, entry(1, extra={name: f"of {name}" for name in columns}), columns=columns)
    text = exported(ledger, file_format)
    if file_format is FileFormat.CSV:
        assert text.splitlines()[0].split(",")[13:] == names
        (exported_row,) = csv.DictReader(io.StringIO(text))
    else:
        exported_row = orjson.loads(text)
        assert list(exported_row)[13:] == names
    assert [exported_row[name] for name in names] == [f"of {name}" for name in columns]
    assert exported_row["status"] == "queued"


_NESTED: dict[str, Any] = {
    "object": {"a": [1, {"b": None}], "ö": "牛"}, "list": [], "integer": 5, "float": 0.25, "true": True, "null": None,
    "text": "true", "zeros": "007",
}  # fmt: skip


def test_extra_values_of_any_kind_survive_an_export_to_ndjson(ledger: Ledger) -> None:
    take(ledger, entry(1, extra=_NESTED), columns=list(_NESTED))
    result = orjson.loads(exported(ledger, FileFormat.NDJSON))
    assert {name: result[name] for name in _NESTED} == _NESTED


def test_extra_values_that_are_no_texts_are_json_in_an_export_to_csv(ledger: Ledger) -> None:
    take(ledger, entry(1, extra=_NESTED), columns=list(_NESTED))
    (result,) = csv.DictReader(io.StringIO(exported(ledger, FileFormat.CSV)))
    assert {name: result[name] for name in _NESTED} == {
        "object": '{"a":[1,{"b":null}],"ö":"牛"}', "list": "[]", "integer": "5", "float": "0.25", "true": "true",
        "null": "", "text": "true", "zeros": "007",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["a,b", 'say "no"', "a\nb", "a\r\nb", "a\rb", " a ", "牛 😀", "", "a;b\tc"], ids=repr)
@pytest.mark.parametrize("file_format", FileFormat)
def test_any_text_of_the_input_can_be_read_back(ledger: Ledger, file_format: FileFormat, text: str) -> None:
    take(ledger, entry(1, extra={"name": text, "last": "z"}), entry(2), columns=["name", "last"])
    output = exported(ledger, file_format)
    if file_format is FileFormat.CSV:
        rows: list[Mapping[str, Any]] = list(csv.DictReader(io.StringIO(output, newline="")))
    else:
        rows = [orjson.loads(line) for line in output.split("\n")[:-1]]
    assert len(rows) == 2
    assert (rows[0]["name"], rows[0]["last"]) == (text, "z")
    assert rows[1]["cus_message_id"] == "id-2"


def test_an_empty_ledger_is_exported_as_its_header(ledger: Ledger) -> None:
    assert exported(ledger, FileFormat.CSV).count("\n") == 1
    assert exported(ledger, FileFormat.NDJSON) == ""


# ---------------------------------------------------------------------------------------------- callbacks


def callback(*statuses: tuple[str, str]) -> bytes:
    """Return the body of a callback, as a line of a file."""
    return orjson.dumps({"statuses": [{"id": key, "status": status} for key, status in statuses]}) + b"\n"


_CLICK = b'{"messages":[{"from":"9995550100","type":"button"}]}\n'
_SETTLED = [
    pytest.param([callback(("id-1", "sent"))], Settled(1, 1, []), "accepted", "sent", id="one"),
    pytest.param([callback(("id-1", "failed"))], Settled(1, 1, []), "accepted", "failed", id="failed"),
    pytest.param([callback(("id-1", "Delivered"))], Settled(1, 1, []), "accepted", "delivered", id="letter case"),
    pytest.param([callback(("id-1", "deleted"))], Settled(1, 1, []), "accepted", "deleted", id="deleted"),
    pytest.param([callback(("id-1", "played"))], Settled(1, 0, []), "unknown", None, id="a new status"),
    pytest.param(
        [callback(("id-1", "read")), callback(("id-1", "sent")), callback(("id-1", "delivered"))],
        Settled(3, 1, []), "accepted", "read", id="out of order",
    ),
    pytest.param(
        [callback(("id-1", "read"), ("id-1", "sent"), ("id-77", "read"))],
        Settled(1, 1, []), "accepted", "read", id="many in one",
    ),
    pytest.param(
        [callback(("id-1", "failed")), callback(("id-1", "sent"))],
        Settled(2, 1, []), "accepted", "failed", id="failed, sent",
    ),
    pytest.param(
        [callback(("id-1", "sent")), callback(("id-1", "failed"))],
        Settled(2, 1, []), "accepted", "failed", id="sent, failed",
    ),
    pytest.param(
        [callback(("id-1", "delivered")), callback(("id-1", "failed"))],
        Settled(2, 1, []), "accepted", "delivered", id="delivered, failed",
    ),
    pytest.param([callback(("id-1", "sent"))] * 5, Settled(5, 1, []), "accepted", "sent", id="repeated"),
    pytest.param([callback(("id-77", "read"))], Settled(1, 0, []), "unknown", None, id="a foreign id"),
    pytest.param([_CLICK], Settled(1, 0, []), "unknown", None, id="a click"),
    pytest.param([b"", b"\n", b" \r\n"], Settled(0, 0, []), "unknown", None, id="blank lines"),
    pytest.param([], Settled(0, 0, []), "unknown", None, id="nothing"),
    pytest.param(
        [b"\n", b"nonsense\n", _CLICK, b"[]\n", callback(("id-1", "read")), b'{"statuses":[\n', b"\xff\n"],
        Settled(2, 1, [2, 4, 6, 7]), "accepted", "read", id="bad lines",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "settled", "state", "receipt"), _SETTLED)
def test_callbacks_settle_what_is_unknown(
    ledger: Ledger, lines: list[bytes], settled: Settled, state: str, receipt: str | None
) -> None:
    brought_to(UNKNOWN, ledger)
    assert settle(ledger, lines) == settled
    result = row(ledger)
    assert (result["status"], result["receipt"]) == (state, receipt)
    assert result["message_id"] == (None if receipt is None else "id-1")
    assert settle(ledger, lines).messages == 0


def test_files_of_callbacks_longer_than_a_batch_are_settled_batch_by_batch(ledger: Ledger) -> None:
    take(ledger, *entries(2500))
    ledger.begin_run(NOW)
    claim(ledger, 2500)
    record(ledger, *[Outcome(key, UNKNOWN, 1) for key in range(1, 2501)])
    lines = [callback((f"id-{number}", "delivered")) for number in range(1, 2401)]
    lines[1999] = b"nonsense\n"
    lines += [callback(("id-1", "sent")), callback(("id-2", "read"))]
    before = ledger.commits
    assert settle(ledger, iter(lines)) == Settled(2401, 2400, [2000])
    assert ledger.commits - before == 3
    assert ledger.counts() == {ACCEPTED: 2399, UNKNOWN: 101}
    assert [row(ledger, number)["receipt"] for number in (1, 2, 3)] == ["delivered", "read", "delivered"]
    assert ledger.unknown_ids()[0] == "id-2000"


# ---------------------------------------------------------------------------------------------- any sequence of events


class _Rows(RuleBasedStateMachine):
    """Whatever happens to a ledger, in whatever order, its rows are in the states that the events lead to."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self.path = Path(self._directory.name, "run.ledger")
        self.ledger = self._opened()
        self.now = NOW
        self.monotonic = UPTIME
        self.expected: list[MessageState] = []  # of the rows in their order; row n has the key n + 1
        self.expires: list[float | None] = []
        self.erased: set[int] = set()
        self.not_before: dict[int, float] = {}
        self.in_flight: list[int] = []
        self.requeued: set[int] = set()
        self.accepted: set[int] = set()

    def _opened(self) -> Ledger:
        ledger = Ledger(self.path)
        ledger._database.execute("PRAGMA synchronous = OFF")  # nobody pulls the plug here
        return ledger

    def teardown(self) -> None:
        self.ledger.close()
        self._directory.cleanup()

    def _enter(self, key: int, state: MessageState) -> None:
        self.expected[key - 1] = state
        if state not in (QUEUED, SENDING, UNKNOWN):
            self.erased.add(key)
        if state is ACCEPTED:
            self.accepted.add(key)

    @initialize(expiries=st.lists(st.none() | st.integers(1, 60), min_size=1, max_size=6))
    def load(self, expiries: list[int | None]) -> None:
        self.take(expiries)
        self.begin()

    @rule(expiries=st.lists(st.none() | st.integers(1, 60), max_size=3), again=st.booleans())
    def take_more(self, expiries: list[int | None], again: bool) -> None:
        if again:
            assert len(take(self.ledger, *entries(len(self.expected)))) == len(self.expected)
        self.take(expiries)

    def take(self, expiries: list[int | None]) -> None:
        rows = []
        for seconds in expiries:
            self.expires.append(None if seconds is None else self.now + seconds)
            self.expected.append(QUEUED)
            number = len(self.expected)
            expires_at = None if seconds is None else datetime.fromtimestamp(self.now + seconds, UTC)
            rows.append(entry(number, to=f"999{number % 2:07}", expires_at=expires_at))
        assert take(self.ledger, *rows) == {}

    @rule(seconds=st.integers(1, 30))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.monotonic += seconds

    @rule(seconds=st.integers(-30, 30))
    def set_clock(self, seconds: int) -> None:
        self.now += seconds

    def _has_expired(self, key: int) -> bool:
        expires = self.expires[key - 1]
        return expires is not None and expires <= self.now

    @rule()
    def expire(self) -> None:
        queued = {key for key, state in enumerate(self.expected, start=1) if state is QUEUED}
        count = self.ledger.expire(self.now).total()
        left = {key for key in queued if states(self.ledger)[key - 1] != QUEUED}
        assert count == len(left)
        assert left >= {key for key in queued if self._has_expired(key)}
        assert all(self.expires[key - 1] is not None for key in left)  # the others would have before they are due
        self._expired(sorted(left))

    def _expired(self, queued: list[int]) -> None:
        actual = states(self.ledger)
        for key in queued:
            assert actual[key - 1] in ((UNKNOWN,) if key in self.requeued else (NOT_SENT, REJECTED))
            self._enter(key, MessageState(actual[key - 1]))
            self.erased.add(key)
        self.erased |= {key for key in range(1, len(self.expected) + 1) if self._has_expired(key)} - set(self.in_flight)

    @rule()
    def begin(self) -> None:
        self.not_before.clear()
        queued = [key for key, state in enumerate(self.expected, start=1) if state is QUEUED and self._has_expired(key)]
        self.ledger.begin_run(self.now)
        self._expired(queued)

    @rule(wanted=st.integers(0, 4), data=st.data())
    def exchange(self, wanted: int, data: st.DataObject) -> None:
        settled = data.draw(st.lists(st.sampled_from(self.in_flight), unique=True)) if self.in_flight else []
        outcomes = []
        for key in settled:
            state = data.draw(st.sampled_from([QUEUED, ACCEPTED, REJECTED, NOT_SENT, UNKNOWN]))
            not_before = self.monotonic + data.draw(st.integers(0, 9)) if state is QUEUED else 0.0
            outcomes.append(Outcome(key, state, 1, not_before=not_before))
            self.in_flight.remove(key)
            may_have_arrived = state in (REJECTED, NOT_SENT) and key in self.requeued
            self._enter(key, UNKNOWN if may_have_arrived else state)
            self.not_before[key] = not_before
        pauses = data.draw(st.lists(st.sampled_from([0, 0, 0, 5]), min_size=2, max_size=2))
        claimed = self.ledger.exchange(
            outcomes,
            wanted,
            self.now,
            self.monotonic,
            lambda _, recipient: pauses[int(recipient[-1])] and self.monotonic + 5,
        )
        assert len(claimed.messages) <= wanted
        assert len(set(keys(claimed))) == len(claimed.messages)
        for message in claimed.messages:
            key = message.key
            assert self.expected[key - 1] is QUEUED
            assert key not in self.accepted
            assert self.not_before.get(key, 0.0) <= self.monotonic
            assert not self._has_expired(key)
            assert pauses[key % 2] == 0
            assert (message.message.cus_message_id, message.message.content) == (f"id-{key}", CODE)
            self._enter(key, SENDING)
            self.in_flight.append(key)
        if claimed.exhausted and wanted:
            fresh = [key for key, state in enumerate(self.expected, start=1) if state is QUEUED]
            assert all(self._has_expired(key) or self.not_before.get(key, self.now + 1) for key in fresh)

    @precondition(lambda self: UNKNOWN in self.expected or ACCEPTED in self.expected)
    @rule(data=st.data(), receipt=st.sampled_from(["sent", "delivered", "read", "failed"]))
    def resolve(self, data: st.DataObject, receipt: str) -> None:
        settled = [key for key, state in enumerate(self.expected, start=1) if state is not SENDING]
        key = data.draw(st.sampled_from(settled))
        self.ledger.resolve({f"id-{key}": receipt}, by_callback=True)
        before, after = self.expected[key - 1], MessageState(states(self.ledger)[key - 1])
        if before is UNKNOWN or (before is QUEUED and key in self.requeued):
            assert after is ACCEPTED
        else:
            assert after is before
        self._enter(key, after)

    @precondition(lambda self: UNKNOWN in self.expected)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        unknown = [key for key, state in enumerate(self.expected, start=1) if state is UNKNOWN]
        key = data.draw(st.sampled_from(unknown))
        # By the machine's clock, everything that ever expires has.
        may_be_sent = key not in self.erased and self.expires[key - 1] is None
        assert self.ledger.requeue([f"id-{key}"]) == may_be_sent
        if may_be_sent:
            self._enter(key, QUEUED)
            self.requeued.add(key)
            self.not_before.pop(key, None)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = self._opened()
        for key in self.in_flight:
            self._enter(key, UNKNOWN)
        self.in_flight.clear()
        self.begin()

    @invariant()
    def every_row_is_where_the_events_have_led(self) -> None:
        assert states(self.ledger) == self.expected
        assert self.ledger.counts().total() == len(self.expected)
        assert all(self.expected[key - 1] is ACCEPTED for key in self.accepted)

    @invariant()
    def a_code_is_kept_as_long_as_it_may_be_needed_and_no_longer(self) -> None:
        kept = {key for key, content in enumerate(contents(self.ledger), start=1) if content is not None}
        assert kept == set(range(1, len(self.expected) + 1)) - self.erased


_Rows.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_any_sequence_of_events = _Rows.TestCase


# ---------------------------------------------------------------------------------------------- parted from its log


def crashed(tmp_path: Path) -> Path:
    """Return a ledger as a killed process leaves it: one message was sent, and only the log knows."""
    path = tmp_path / "run.db"
    ledger = Ledger(path)
    take(ledger, *entries(2))
    ledger.begin_run(NOW)
    claim(ledger, 1)
    record(ledger, Outcome(1, ACCEPTED, 1, message_id="id-1"))
    (tmp_path / "copy").mkdir()
    for file in (path, Path(f"{path}-wal")):
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    ledger.close()
    return tmp_path / "copy" / "run.db"


def test_a_ledger_and_its_log_may_be_moved_together(tmp_path: Path) -> None:
    with Ledger(crashed(tmp_path), create=False) as ledger:
        assert states(ledger) == ["accepted", "queued"]


def test_a_ledger_that_was_parted_from_its_log_is_refused(tmp_path: Path) -> None:
    path = crashed(tmp_path)
    log = Path(f"{path}-wal")
    log.rename(tmp_path / "kept")
    for create in (True, False):
        with pytest.raises(LedgerError, match="its write-ahead log is missing") as caught:
            Ledger(path, create=create)
        assert "-wal" in str(caught.value.hint)
    log.unlink(missing_ok=True)
    (tmp_path / "kept").rename(log)
    with Ledger(path) as ledger:
        assert states(ledger) == ["accepted", "queued"]


def test_a_long_run_is_parted_from_its_log_as_noticeably(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with Ledger(path) as ledger:
        take(ledger, *entries(250))
        ledger.begin_run(NOW)
        for key in range(1, 221):  # the log is put into the file in between
            claim(ledger, 1)
            record(ledger, Outcome(key, ACCEPTED, 1))
        (tmp_path / "copy.db").write_bytes(path.read_bytes())
        assert Path(f"{path}-wal").stat().st_size < 4_000_000
    with pytest.raises(LedgerError, match="its write-ahead log is missing"):
        Ledger(tmp_path / "copy.db")


def test_another_program_may_put_the_log_into_the_file(tmp_path: Path) -> None:
    path = crashed(tmp_path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM messages WHERE state = 'accepted'").fetchone() == (1,)
    assert not Path(f"{path}-wal").exists()
    with Ledger(path) as ledger:
        assert states(ledger) == ["accepted", "queued"]


def test_no_new_ledger_takes_the_place_of_one_that_was_moved_away_from_its_log(tmp_path: Path) -> None:
    path = crashed(tmp_path)
    moved = path.rename(tmp_path / "moved.db")
    with pytest.raises(LedgerError, match="but not its ledger"):
        Ledger(path)
    moved.rename(path)
    with Ledger(path) as ledger:
        assert states(ledger) == ["accepted", "queued"]


def test_a_ledger_that_was_closed_needs_no_log(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with Ledger(path) as ledger:
        take(ledger, entry(1))
    assert [file.name for file in tmp_path.iterdir()] == ["run.db"]
    with Ledger(path.rename(tmp_path / "other.db"), create=False) as ledger:
        assert states(ledger) == ["queued"]


def test_results_that_are_being_read_keep_nothing_locked(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with Ledger(path) as ledger:
        take(ledger, *entries(2500))
        results = ledger.results()
        assert next(results)["cus_message_id"] == "id-1"
        assert sum(1 for _ in results) == 2499
        half_read = ledger.results()
        next(half_read)
    with Ledger(path) as ledger:
        assert len(states(ledger)) == 2500
