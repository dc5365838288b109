"""What is tried again, when, and how often."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from .checks import flag, integer, integers, number, validate
from .codes import MetaCode, ResponseCode
from .errors import (
    ApiError,
    ConfigurationError,
    MetaError,
    NotSentError,
    NxOtpError,
    OutcomeUnknownError,
    TransientApiError,
)

__all__ = ["PAIR_INTERVAL", "RetryPolicy", "RetryQuota"]

PAIR_INTERVAL: Final = 6.0
"""Seconds between two messages to one recipient that Meta documents."""
_META_SLOWDOWN = 8


def _codes(values: Iterable[int]) -> frozenset[int]:
    try:
        return frozenset(values)
    except TypeError:
        return values  # type: ignore[return-value] # the check that follows refuses it


def _valid(check: Callable[[object], object]) -> Callable[[object, "attrs.Attribute[Any]", object], object]:
    return lambda _, field, value: validate(f"RetryPolicy.{field.name}", check, value, ConfigurationError)


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """What is tried again by itself. Whatever is not listed never is.

    Attributes:
        max_attempts: POSTs for one message at the most, the first included. With 1 nothing is tried again.
        transient_codes: Vendor codes after which the message is sent again. They mean it was not accepted.
        transient_meta_codes: The same for Meta's codes inside 9099; the defaults are those Meta documents as
            temporary.
        reconnect_for: Seconds of pauses, together, after which what provably never left is not tried again: after a
            refused connection for example. Such attempts do not count as POSTs, and cost nothing of the retry quota.
        resend_unknown: Also send again what may have been accepted. The recipient can then get two messages.
        backoff_base: Seconds: the first pause is a random part of this, and every further one of twice as much.
        backoff_cap: Seconds: the longest pause the backoff chooses. A ``Retry-After`` may ask for more.

    Raises:
        ConfigurationError: A value has the wrong type, or is out of its range.
    """

    max_attempts: int = attrs.field(default=3, validator=_valid(integer(at_least=1)))
    transient_codes: frozenset[int] = attrs.field(
        default=[code.value for code in ResponseCode if code.error_class is TransientApiError],
        converter=_codes,
        validator=_valid(integers),
    )
    transient_meta_codes: frozenset[int] = attrs.field(
        default=[code.value for code in MetaCode if code.temporary],
        converter=_codes,
        validator=_valid(integers),
    )
    reconnect_for: float = attrs.field(default=10.0, validator=_valid(number(at_least=0)))
    resend_unknown: bool = attrs.field(default=False, validator=_valid(flag))
    backoff_base: float = attrs.field(default=0.5, validator=_valid(number(at_least=0)))
    backoff_cap: float = attrs.field(default=10.0, validator=_valid(number(at_least=0)))

    def retries(self, error: NxOtpError) -> bool:
        """Return whether the policy sends a message again after this error."""
        match error:
            case NotSentError():
                return error.temporary
            case OutcomeUnknownError():
                return self.resend_unknown
            case MetaError():
                return error.meta_code in self.transient_meta_codes or error.code in self.transient_codes
            case ApiError():
                throttled = isinstance(error, TransientApiError) and error.http_status == 429
                return throttled or error.code in self.transient_codes
        return False

    def pause(self, error: NxOtpError, attempt: int, chance: float) -> float:
        """Return the seconds to wait after the given attempt failed: full jitter under an exponential ceiling.

        Args:
            error: What the attempt ended with.
            attempt: The number of the attempt that failed, from 1.
            chance: A random number from 0.0 up to 1.0.
        """
        slowdown = _META_SLOWDOWN if isinstance(error, MetaError) else 1
        ceiling = min(self.backoff_cap, slowdown * self.backoff_base * 2.0 ** min(attempt - 1, 60))
        floor = PAIR_INTERVAL if isinstance(error, MetaError) and error.meta_code == MetaCode.PAIR_RATE_LIMIT else 0.0
        asked = error.retry_after or 0.0
        return max(floor, asked) + chance * ceiling


class RetryQuota:
    """A bucket of tokens that retries draw on, shared by all sends of a client.

    Every retry costs 5 of its 500 tokens, and a message that is accepted puts back what its last retry cost, or 1
    where it needed none. So an outage costs 100 retries, and not one more POST than messages after that; and where
    up to about a third of the attempts fail, the bucket never runs dry. The figures are botocore's.
    """

    CAPACITY: Final = 500
    COST: Final = 5

    def __init__(self) -> None:
        self._tokens = self.CAPACITY
        self._lock = threading.Lock()

    @property
    def tokens(self) -> int:
        """How many tokens are left."""
        return self._tokens

    def take(self) -> bool:
        """Take the cost of a retry, and return whether there was enough for it."""
        with self._lock:
            if self._tokens < self.COST:
                return False
            self._tokens -= self.COST
            return True

    def give_back(self, tokens: int) -> None:
        """Put tokens back, up to the capacity."""
        if self._tokens < self.CAPACITY:
            with self._lock:
                self._tokens = min(self.CAPACITY, self._tokens + tokens)
