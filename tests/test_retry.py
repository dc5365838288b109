import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nxotp_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    CallbackVerificationError,
    ConfigurationError,
    InvalidMessageError,
    InvalidSignatureError,
    MetaError,
    NotSentError,
    NxOtpError,
    OtpContentError,
    OutcomeUnknownError,
    ParameterError,
    PermissionDeniedError,
    RetryPolicy,
    TemplateError,
    TimestampExpiredError,
    TransientApiError,
    TransportError,
)
from nxotp_async.retry import RetryQuota

TEMPORARY_META_CODES = [4, 80007, 130429, 131016, 131056, 131057, 133004]


def _meta(meta_code: int | None, **context: Any) -> MetaError:
    return MetaError(code=9099, meta_code=meta_code, **context)


# --------------------------------------------------------------------------------------- what is tried again

BY_DEFAULT: list[tuple[NxOtpError, bool]] = [
    (TransientApiError(code=-1), True),
    (TransientApiError(code=9001), True),
    (TransientApiError(http_status=429), True),
    (TransientApiError(code=429, http_status=429), True),
    (NotSentError(temporary=True), True),
    (NotSentError(temporary=False), False),
    (OutcomeUnknownError(), False),
    (TransportError(), False),
    (InvalidSignatureError(code=1003), False),
    (TimestampExpiredError(code=1004), False),
    (PermissionDeniedError(code=1005), False),
    (AuthenticationError(code=1001), False),
    (ParameterError(code=9000), False),
    (AccountError(code=9005), False),
    (TemplateError(code=10005), False),
    (OtpContentError(code=9015), False),
    (ApiError(code=9007), False),
    (ApiError(code=4711), False),
    (ApiError(http_status=404), False),
    (AccountError(code=9005, http_status=429), False),
    (ApiError(http_status=302), False),
    (MetaError(code=9099), False),
    (_meta(100), False),
    (_meta(131026), False),
    *((_meta(code), True) for code in TEMPORARY_META_CODES),
    (ConfigurationError(), False),
    (InvalidMessageError(), False),
    (CallbackVerificationError(), False),
    (NxOtpError(), False),
]


def _name(value: object) -> str:
    if not isinstance(value, NxOtpError):
        return str(value)
    facts = {name: fact for name, fact in vars(value).items() if fact}
    return f"{type(value).__name__}{facts or ''}"


@pytest.mark.parametrize(("error", "again"), BY_DEFAULT, ids=_name)
def test_what_is_tried_again_by_default(error: NxOtpError, again: bool) -> None:
    assert RetryPolicy().retries(error) is again


@pytest.mark.parametrize(("error", "again"), BY_DEFAULT, ids=_name)
def test_resend_unknown_changes_nothing_but_the_unknown(error: NxOtpError, again: bool) -> None:
    expected = again or isinstance(error, OutcomeUnknownError)
    assert RetryPolicy(resend_unknown=True).retries(error) is expected


def test_the_transient_codes_are_the_applications_choice() -> None:
    policy = RetryPolicy(transient_codes={9007, 9005})
    assert policy.retries(ApiError(code=9007))
    assert policy.retries(AccountError(code=9005))
    assert not policy.retries(TransientApiError(code=-1))
    assert not policy.retries(TransientApiError(code=9001))


def test_throttling_is_tried_again_whatever_the_transient_codes() -> None:
    assert RetryPolicy(transient_codes=()).retries(TransientApiError(http_status=429))


def test_an_answer_without_a_code_matches_no_transient_code() -> None:
    assert not RetryPolicy(transient_codes={0, -1}).retries(ApiError(code=None))
    assert not RetryPolicy(transient_meta_codes={0}).retries(_meta(None))


def test_the_transient_meta_codes_are_the_applications_choice() -> None:
    policy = RetryPolicy(transient_meta_codes=[131026])
    assert policy.retries(_meta(131026))
    assert not policy.retries(_meta(131056))


def test_a_code_of_metas_is_not_taken_for_one_of_the_vendors() -> None:
    assert not RetryPolicy().retries(_meta(-1))
    assert not RetryPolicy().retries(_meta(9001))
    assert not RetryPolicy().retries(ApiError(code=131056))


# --------------------------------------------------------------------------------------- how long to wait

# With a chance of 1 the pause is the ceiling itself, which the clock's random numbers never quite reach.
TRANSIENT = TransientApiError(code=-1)


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    policy = RetryPolicy(backoff_base=0.5, backoff_cap=10)
    assert [policy.backoff(TRANSIENT, attempt, 1.0) for attempt in range(1, 8)] == [0.5, 1, 2, 4, 8, 10, 10]


@pytest.mark.parametrize("chance", [0.0, 0.25, 0.5, 0.999])
def test_the_jitter_is_full(chance: float) -> None:
    assert RetryPolicy(backoff_base=2).backoff(TRANSIENT, 2, chance) == pytest.approx(4 * chance)


def test_meta_is_left_alone_for_longer() -> None:
    policy = RetryPolicy(backoff_cap=1000)
    for attempt in range(1, 5):
        assert policy.backoff(_meta(130429), attempt, 1.0) > 4 * policy.backoff(TRANSIENT, attempt, 1.0)


def test_the_cap_holds_for_meta_too() -> None:
    assert RetryPolicy(backoff_cap=3).backoff(_meta(130429), 5, 1.0) == 3


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_a_recipient_gets_no_second_message_within_six_seconds(chance: float) -> None:
    policy = RetryPolicy(backoff_base=0, backoff_cap=0)
    assert policy.backoff(_meta(131056), 1, chance) >= 6
    assert RetryPolicy().backoff(_meta(131056), 1, chance) >= 6
    assert policy.backoff(_meta(130429), 1, chance) == 0


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_retry_after_is_the_least_pause(chance: float) -> None:
    error = TransientApiError(http_status=429, retry_after=30.0)
    policy = RetryPolicy(backoff_base=1, backoff_cap=2)
    assert 30 <= policy.backoff(error, 1, chance) <= 32


def test_a_retry_after_in_the_past_asks_for_nothing() -> None:
    assert RetryPolicy().backoff(TransientApiError(http_status=429, retry_after=0.0), 1, 0.0) == 0


def test_the_longer_of_the_two_least_pauses_counts() -> None:
    policy = RetryPolicy()
    assert policy.backoff(_meta(131056, retry_after=60.0), 1, 0.0) == 60
    assert policy.backoff(_meta(131056, retry_after=1.0), 1, 0.0) == 6


@pytest.mark.parametrize("attempt", [60, 1024, 10**6, 10**400])
@pytest.mark.parametrize("error", [TRANSIENT, _meta(4), NotSentError(temporary=True)], ids=_name)
def test_the_number_of_the_attempt_may_be_huge(attempt: int, error: NxOtpError) -> None:
    assert RetryPolicy(backoff_cap=10).backoff(error, attempt, 1.0) == 10
    assert RetryPolicy(backoff_base=0).backoff(error, attempt, 1.0) == 0


errors = st.one_of(
    st.builds(TransientApiError, code=st.sampled_from([-1, 9001]), retry_after=st.none() | st.floats(0, 86_400)),
    st.builds(_meta, st.sampled_from([4, 131056]), retry_after=st.none() | st.floats(0, 86_400)),
    st.just(NotSentError(temporary=True)),
)


@settings(deadline=None)
@given(
    error=errors,
    attempt=st.integers(1, 10_000),
    chance=st.floats(0, 1, exclude_max=True),
    base=st.floats(0, 1e308),
    cap=st.floats(0, 1e6),
)
def test_a_pause_is_never_negative_nor_endless(
    error: NxOtpError, attempt: int, chance: float, base: float, cap: float
) -> None:
    pause = RetryPolicy(backoff_base=base, backoff_cap=cap).backoff(error, attempt, chance)
    asked = (error.retry_after if isinstance(error, ApiError) else None) or 0.0
    assert asked <= pause <= max(asked, 6.0) + cap


# --------------------------------------------------------------------------------------- a policy's numbers


@pytest.mark.parametrize("value", [0, -1, True, False, 3.0, 2.5, math.nan, math.inf, "3", None])
def test_max_attempts_must_be_an_integer_of_one_at_least(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_attempts"):
        RetryPolicy(max_attempts=value)


@pytest.mark.parametrize("value", [-0.001, -1, True, False, math.nan, math.inf, -math.inf, "1", None])
@pytest.mark.parametrize("name", ["backoff_base", "backoff_cap"])
def test_the_seconds_must_be_finite_and_not_negative(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        RetryPolicy(**{name: value})


@pytest.mark.parametrize("value", ["9001", ["9001"], [True], [-1.0], [[1]], 9001, None])
@pytest.mark.parametrize("name", ["transient_codes", "transient_meta_codes"])
def test_the_codes_must_be_integers(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        RetryPolicy(**{name: value})


@pytest.mark.parametrize("value", ["false", 0, 1, None])
def test_resending_the_unknown_takes_a_clear_yes(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="resend_unknown"):
        RetryPolicy(resend_unknown=value)


def test_seconds_too_large_for_a_float_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        RetryPolicy(backoff_base=10**400)


@pytest.mark.parametrize("value", [0, 0.0, 1, 0.25, 3600])
def test_the_seconds_may_be_whole_or_not(value: float) -> None:
    assert RetryPolicy(backoff_base=value, backoff_cap=value).backoff(TRANSIENT, 1, 1.0) == value


def test_a_policy_cannot_be_changed_and_compares_by_value() -> None:
    policy = RetryPolicy()
    with pytest.raises(AttributeError):
        policy.max_attempts = 9  # type: ignore[misc]
    assert policy == RetryPolicy(max_attempts=3, transient_codes=[9001, -1])
    assert policy != RetryPolicy(resend_unknown=True)
    assert len({policy, RetryPolicy()}) == 1


# --------------------------------------------------------------------------------------- the quota


def test_the_quota_is_empty_after_a_hundred_retries() -> None:
    quota = RetryQuota()
    assert [quota.take() for _ in range(102)] == [True] * 100 + [False] * 2
    assert quota.tokens == 0


def test_an_empty_quota_lets_a_retry_through_once_its_cost_is_given_back() -> None:
    quota = RetryQuota()
    while quota.take():
        pass
    for _ in range(RetryQuota.COST - 1):
        quota.give_back(1)
        assert not quota.take()
    quota.give_back(1)
    assert quota.take()
    assert not quota.take()


def test_the_quota_never_holds_more_than_its_capacity() -> None:
    quota = RetryQuota()
    quota.give_back(RetryQuota.COST)
    assert quota.tokens == RetryQuota.CAPACITY
    quota.take()
    quota.give_back(10 * RetryQuota.CAPACITY)
    assert quota.tokens == RetryQuota.CAPACITY


def test_threads_cannot_take_more_than_there_is() -> None:
    quota = RetryQuota()
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: quota.take(), range(1000)))
    assert sum(taken) == 100
    assert quota.tokens == 0
