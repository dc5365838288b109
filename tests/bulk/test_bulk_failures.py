from typing import Any

import pytest
from support import VENDOR_FAILURES

from nxotp_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    InvalidMessageError,
    MetaError,
    NotSentError,
    NxOtpError,
    OutcomeUnknownError,
    RetryPolicy,
    TimestampExpiredError,
    TransientApiError,
)
from nxotp_async.bulk.failures import FailureKind

# ---------------------------------------------------------------------------------------------- kinds of failures


def kind_of(
    error: NxOtpError,
    *,
    expired: bool = False,
    policy: RetryPolicy | None = None,
    reject_on: tuple[int, ...] = (),
) -> FailureKind:
    return FailureKind.of(error, expired=expired, policy=policy or RetryPolicy(max_attempts=5), reject_on=reject_on)


def vendor_error(code: int, **facts: Any) -> ApiError:
    return VENDOR_FAILURES[code]("refused", code=code, http_status=200, attempts=1, **facts)


def meta_error(meta_code: int) -> MetaError:
    return MetaError("refused", code=9099, meta_code=meta_code, http_status=200, attempts=1)


EXPECTED = {
    code: FailureKind.RETRYABLE
    if code in (-1, 9001)
    else FailureKind.ACCOUNT_REFUSED
    if issubclass(error, AccountError | AuthenticationError)
    else FailureKind.FINAL
    for code, error in VENDOR_FAILURES.items()
}


def test_the_codes_that_pause_are_those_that_no_message_can_pass() -> None:
    assert {code for code, kind in EXPECTED.items() if kind is FailureKind.ACCOUNT_REFUSED} == {
        1001, 1003, 1004, 1005, 9002, 9003, 9004, 9005, 9006, 9013, 10003,
    }  # fmt: skip


@pytest.mark.parametrize(("code", "kind"), EXPECTED.items())
def test_what_each_of_the_vendors_codes_means(code: int, kind: FailureKind) -> None:
    assert kind_of(vendor_error(code)) is kind


def test_an_unlisted_code_of_the_authentication_family_pauses() -> None:
    assert (
        kind_of(AuthenticationError("refused", code=1009, http_status=200, attempts=1)) is FailureKind.ACCOUNT_REFUSED
    )


@pytest.mark.parametrize("code", [code for code, kind in EXPECTED.items() if kind is FailureKind.ACCOUNT_REFUSED])
def test_a_code_to_reject_on_refuses_its_message_only(code: int) -> None:
    assert kind_of(vendor_error(code), reject_on=(code,)) is FailureKind.FINAL
    assert kind_of(vendor_error(code), reject_on=(code + 1,)) is FailureKind.ACCOUNT_REFUSED


@pytest.mark.parametrize(
    ("meta_code", "kind"),
    [
        (4, FailureKind.THROTTLED),
        (80007, FailureKind.THROTTLED),
        (130429, FailureKind.THROTTLED),
        (131056, FailureKind.RETRYABLE),
        (131016, FailureKind.RETRYABLE),
        (131057, FailureKind.RETRYABLE),
        (133004, FailureKind.RETRYABLE),
        (100, FailureKind.FINAL),
        (131026, FailureKind.FINAL),
    ],
)
def test_what_each_of_metas_codes_means(meta_code: int, kind: FailureKind) -> None:
    assert kind_of(meta_error(meta_code)) is kind


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(TransientApiError("HTTP 429", http_status=429, attempts=1), id="HTTP 429"),
        pytest.param(TransientApiError("HTTP 429", code=9001, http_status=429, attempts=1), id="HTTP 429 with 9001"),
        pytest.param(meta_error(130429), id="Meta 130429"),
    ],
)
def test_throttling_concerns_the_run_and_not_the_message(error: NxOtpError) -> None:
    assert kind_of(error) is FailureKind.THROTTLED


def test_only_what_the_policy_lists_is_tried_again() -> None:
    policy = RetryPolicy(max_attempts=5, transient_codes={9007}, transient_meta_codes=())
    assert kind_of(vendor_error(9007), policy=policy) is FailureKind.RETRYABLE
    assert kind_of(vendor_error(-1), policy=policy) is FailureKind.FINAL
    assert kind_of(meta_error(131056), policy=policy) is FailureKind.FINAL


@pytest.mark.parametrize(
    ("corrected", "kind"), [(True, FailureKind.CLOCK_CORRECTED), (False, FailureKind.ACCOUNT_REFUSED)]
)
def test_a_refused_timestamp_pauses_unless_the_clock_explains_it(corrected: bool, kind: FailureKind) -> None:
    error = TimestampExpiredError("expired", code=1004, http_status=200, attempts=1, clock_corrected=corrected)
    assert kind_of(error) is kind
    assert kind_of(error, reject_on=(1004,)) is FailureKind.FINAL


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 407, 451])
def test_an_answer_without_a_code_of_the_vendors_is_not_the_vendors(status: int) -> None:
    error = ApiError("refused", http_status=status, attempts=1)
    assert kind_of(error) is FailureKind.INTERCEPTED
    assert kind_of(error, reject_on=(status,)) is FailureKind.FINAL
    assert kind_of(error, reject_on=(status + 1,)) is FailureKind.INTERCEPTED


@pytest.mark.parametrize("resend_unknown", [False, True])
@pytest.mark.parametrize("expired", [False, True])
def test_what_may_have_been_accepted_is_never_tried_again(resend_unknown: bool, expired: bool) -> None:
    policy = RetryPolicy(max_attempts=5, resend_unknown=resend_unknown)
    assert kind_of(OutcomeUnknownError("lost", attempts=1), expired=expired, policy=policy) is FailureKind.FINAL


@pytest.mark.parametrize(
    ("temporary", "attempts", "expired", "kind"),
    [
        pytest.param(True, 1, False, FailureKind.UNREACHABLE, id="refused connection"),
        pytest.param(True, 1, True, FailureKind.UNREACHABLE, id="refused connection, and expired meanwhile"),
        pytest.param(False, 1, False, FailureKind.ACCOUNT_REFUSED, id="certificate"),
        pytest.param(False, 0, True, FailureKind.FINAL, id="expired before it began"),
        pytest.param(False, 0, False, FailureKind.UNREACHABLE, id="out of time in a queue"),
    ],
)
def test_what_it_means_that_a_message_did_not_leave(
    temporary: bool, attempts: int, expired: bool, kind: FailureKind
) -> None:
    assert kind_of(NotSentError("no", temporary=temporary, attempts=attempts), expired=expired) is kind


def test_a_message_that_the_client_refuses_is_done() -> None:
    assert kind_of(InvalidMessageError("in flight already", field="cus_message_id")) is FailureKind.FINAL
