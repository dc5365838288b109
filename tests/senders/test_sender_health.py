"""The health of a sender, and what errors say of it: pure, over a clock of numbers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxotp_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    InvalidSignatureError,
    MetaError,
    NotSentError,
    NxOtpError,
    OtpContentError,
    OutcomeUnknownError,
    PermissionDeniedError,
    TemplateError,
    TimestampExpiredError,
    TransientApiError,
)
from nxotp_async.senders import StepBack
from nxotp_async.senders.daily import DailyCount
from nxotp_async.senders.health import Failing, Failure, Health

THROTTLED, UNBOUND, EXHAUSTED, REFUSED = StepBack
NUMBER, ACCOUNT = Failing


@pytest.mark.parametrize(
    ("error", "of", "reason"),
    [
        (MetaError(code=9099, meta_code=130429), NUMBER, THROTTLED),
        (MetaError(code=9099, meta_code=4), ACCOUNT, THROTTLED),
        (MetaError(code=9099, meta_code=80007), ACCOUNT, THROTTLED),
        (MetaError(code=9099, meta_code=131057), ACCOUNT, THROTTLED),
        (TransientApiError(http_status=429), ACCOUNT, THROTTLED),
        (AccountError(code=9002), NUMBER, UNBOUND),
        (AccountError(code=9006), NUMBER, UNBOUND),
        (AccountError(code=10003), NUMBER, UNBOUND),
        (AccountError(code=9003), ACCOUNT, REFUSED),
        (AccountError(code=9013), ACCOUNT, REFUSED),
        (AccountError(code=9005), ACCOUNT, EXHAUSTED),
        (AuthenticationError(code=1001), ACCOUNT, REFUSED),
        (InvalidSignatureError(code=1003), ACCOUNT, REFUSED),
        (PermissionDeniedError(code=1005), ACCOUNT, REFUSED),
        (AccountError(code=9004), ACCOUNT, None),
        (TemplateError(code=10005), ACCOUNT, None),
        (TemplateError(code=9014), ACCOUNT, None),
    ],
)
def test_what_is_the_senders_failure(error: NxOtpError, of: Failing, reason: StepBack | None) -> None:
    assert Failure.found_in(error) == Failure(of, reason)


@pytest.mark.parametrize(
    "error",
    [
        None,
        OutcomeUnknownError("no answer"),
        NotSentError("no connection", temporary=True),
        TimestampExpiredError(code=1004),
        TransientApiError(code=-1),
        TransientApiError(code=9001),
        OtpContentError(code=9015),
        ApiError(code=9007),
        ApiError(code=4711),
        ApiError(http_status=404),
        MetaError(code=9099, meta_code=131056),
        MetaError(code=9099, meta_code=131026),
        MetaError(code=9099),
    ],
)
def test_what_is_not(error: NxOtpError | None) -> None:
    assert Failure.found_in(error) is None


def test_it_steps_back_and_is_let_through_on_trial_when_the_time_is_over() -> None:
    health = Health().failed(UNBOUND, 100.0)
    assert not health.lets_through(159.9)
    assert health.lets_through(160.0)
    on_trial = health.letting_through(160.0)
    assert not on_trial.lets_through(160.5)  # one at a time
    assert on_trial.lets_through(161.0)  # where the first has no outcome
    assert on_trial.accepted(160.2) == Health()


def test_one_that_was_throttled_lets_all_through_when_its_time_is_over() -> None:
    on_trial = Health().failed(THROTTLED, 100.0).letting_through(100.1)
    assert on_trial.lets_through(100.1)
    assert on_trial.failed(THROTTLED, 100.2).pause == pytest.approx(0.2)


def test_each_trial_that_fails_doubles_the_pause_up_to_a_limit() -> None:
    health, now, pauses = Health(), 0.0, []
    for _ in range(11):
        health = health.letting_through(now).failed(THROTTLED, now)
        pauses.append(health.until - now)
        now = health.until
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60])


def test_another_reason_begins_with_its_own_pause() -> None:
    health = Health().failed(THROTTLED, 0.0)
    assert health.letting_through(1.0).failed(EXHAUSTED, 1.0).pause == 60


def test_what_was_sent_before_changes_nothing() -> None:
    health = Health().failed(THROTTLED, 0.0)
    assert health.failed(THROTTLED, 0.05) is health
    assert health.accepted(0.05) is health


def test_the_vendors_retry_after_counts_if_it_is_longer() -> None:
    assert Health().failed(THROTTLED, 0.0, retry_after=30).until == 30
    assert Health().failed(UNBOUND, 0.0, retry_after=30).until == 60


EVENTS = st.lists(st.tuples(st.floats(0, 100), st.sampled_from(["let through", "accepted", *StepBack])), max_size=60)


@given(EVENTS)
def test_whatever_happens_it_returns_within_the_longest_pause(events: list[tuple[float, Any]]) -> None:
    health, now = Health(), 0.0
    for passed, event in events:
        now += passed
        if event == "let through":
            if health.lets_through(now):
                health = health.letting_through(now)
        elif event == "accepted":
            health = health.accepted(now)
        else:
            health = health.failed(event, now)
        assert health.until - now <= 1800
        assert (health.reason is None) == (health == Health())


# ---------------------------------------------------------------------------------------------- 24 hours


def test_messages_count_for_24_hours() -> None:
    sent = DailyCount(3)
    for now in (0.0, 10.0, 3600.0):
        assert sent.has_room(now)
        sent.add(now)
    assert not sent.has_room(3600.0)
    returns_at = sent.has_room_at(3600.0)
    assert 86_400 <= returns_at <= 86_460
    assert not sent.has_room(86_399)
    assert sent.has_room(returns_at)
    assert sent.count(returns_at) == 1


def test_what_did_not_go_out_does_not_count() -> None:
    sent = DailyCount(1)
    sent.add(50.0)
    sent.add(70.0, -1)
    assert sent.has_room(70.0)
    assert sent.count(1e6) == 0


@given(st.lists(st.floats(0, 40_000), max_size=60))
def test_each_message_counts_for_24_hours_and_a_minute_longer_at_the_most(pauses: list[float]) -> None:
    sent, now, times = DailyCount(None), 0.0, []
    for passed in pauses:
        now += passed
        sent.add(now)
        times.append(now)
        at_least, at_most = (sum(at > now - seconds for at in times) for seconds in (86_400, 86_460))
        assert at_least <= sent.count(now) <= at_most
