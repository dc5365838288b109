"""What a failed send means for its message, and for the run that it is a part of."""

from collections.abc import Collection
from enum import Enum, auto
from typing import Final

from ..codes import MetaCode
from ..errors import (
    AccountError,
    ApiError,
    AuthenticationError,
    MetaError,
    NotSentError,
    NxOtpError,
    OutcomeUnknownError,
    TimestampExpiredError,
)
from ..retry import RetryPolicy

__all__ = ["FailureKind"]

_THROTTLING_META_CODES: Final = frozenset(code for code in MetaCode if code.throttling)


class FailureKind(Enum):
    """What a failed send means."""

    FINAL = auto()
    """It concerns this message only, which is not sent again."""
    RETRYABLE = auto()
    """The message may be sent again, as long as ``max_attempts`` allow it."""
    CLOCK_CORRECTED = auto()
    """This machine's clock was wrong, and is corrected now: the message is sent again."""
    INTERCEPTED = auto()
    """Something else than the vendor's API has answered: the message is sent again, and is rejected only where that
    comes time and again while others pass."""
    THROTTLED = auto()
    """The run is too fast: the message waits, and the rest goes more slowly."""
    UNREACHABLE = auto()
    """The vendor cannot be reached: the message waits, and so does the rest."""
    ACCOUNT_REFUSED = auto()
    """The whole account is refused, as it seems: the message is sent again, and the run ends where nothing else comes.
    A message that is refused so time and again while others pass is rejected: it is its own country's, for example."""

    @classmethod
    def of(  # noqa: C901 - a table of cases
        cls, error: NxOtpError, *, expired: bool, policy: RetryPolicy, reject_on: Collection[int]
    ) -> "FailureKind":
        """Return what the error of an attempt means, given whether the message's code has expired.

        Codes of the vendor's, and HTTP statuses without one, that are in ``reject_on`` refuse their message only.
        """
        match error:
            case OutcomeUnknownError():
                return cls.FINAL
            case NotSentError(attempts=0) if expired:
                return cls.FINAL
            case NotSentError(temporary=False) if error.attempts:
                return cls.ACCOUNT_REFUSED
            case NotSentError():
                return cls.UNREACHABLE
            case ApiError() if error.code in reject_on or (error.code is None and error.http_status in reject_on):
                return cls.FINAL
            case TimestampExpiredError(clock_corrected=True):
                return cls.CLOCK_CORRECTED
            case AccountError() | AuthenticationError():
                return cls.ACCOUNT_REFUSED
            case ApiError(http_status=429):
                return cls.THROTTLED
            case MetaError() if error.meta_code in _THROTTLING_META_CODES:
                return cls.THROTTLED
            case ApiError(code=None):
                return cls.INTERCEPTED
        return cls.RETRYABLE if policy.retries(error) else cls.FINAL
