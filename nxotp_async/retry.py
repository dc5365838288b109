"""What is retried, after which backoff, and how often."""

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
    """What is retried automatically, and when. Nothing else is retried.

    Attributes:
        max_attempts: The maximum number of attempts for a message, including the first. With 1, nothing is retried.
        transient_codes: The vendor codes after which a message is retried. They mean that it was not accepted.
        transient_meta_codes: The same for Meta codes inside 9099. Default: those that Meta documents as temporary.
        reconnect_for: A message that was not sent, for example after a refused connection, is retried until its pauses
            add up to this many seconds. Such attempts do not count for ``max_attempts`` or the retry quota. Without
            pauses (``backoff_base=0``), ``max_attempts`` limits them.
        resend_unknown: Whether to retry a message that may have been accepted. The recipient may then get two messages.
        backoff_base: The first pause is random, up to this many seconds; the limit doubles for each further pause.
        backoff_cap: The maximum of that limit, in seconds. A ``Retry-After`` may be longer.

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
        """Return whether the policy retries a message after this error."""
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

    def backoff(self, error: NxOtpError, attempt: int, chance: float) -> float:
        """Return the seconds to wait after an attempt that failed: full jitter with an exponential limit.

        Args:
            error: The error of the attempt.
            attempt: The number of the attempt, from 1.
            chance: A random number from 0.0 up to 1.0.
        """
        slowdown = _META_SLOWDOWN if isinstance(error, MetaError) else 1
        ceiling = min(self.backoff_cap, slowdown * self.backoff_base * 2.0 ** min(attempt - 1, 60))
        floor = PAIR_INTERVAL if isinstance(error, MetaError) and error.meta_code == MetaCode.PAIR_RATE_LIMIT else 0.0
        asked = error.retry_after or 0.0
        return max(floor, asked) + chance * ceiling


class RetryQuota:
    """A token bucket for retries, shared by all sends of a client.

    Each retry takes 5 of its 500 tokens. An accepted message gives back the 5 tokens of its last retry, or 1 token if
    it had no retry. So in an outage there are 100 retries, and then one attempt for each message. If at most about a
    third of the attempts fail, the bucket never becomes empty. The figures are botocore's.
    """

    CAPACITY: Final = 500
    COST: Final = 5

    def __init__(self) -> None:
        self._tokens = self.CAPACITY
        self._lock = threading.Lock()

    @property
    def tokens(self) -> int:
        """The number of tokens left."""
        return self._tokens

    def take(self) -> bool:
        """Take the tokens for a retry, and return whether there were enough."""
        with self._lock:
            if self._tokens < self.COST:
                return False
            self._tokens -= self.COST
            return True

    def give_back(self, tokens: int) -> None:
        """Give tokens back, up to the capacity."""
        if self._tokens < self.CAPACITY:
            with self._lock:
                self._tokens = min(self.CAPACITY, self._tokens + tokens)
