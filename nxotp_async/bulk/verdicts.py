"""What a failed send means for the run it is a part of."""

from collections.abc import Collection
from enum import Enum, auto
from typing import Final

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

__all__ = ["Health", "Verdict", "judge"]


class Verdict(Enum):
    """What a failed send means."""

    DONE = auto()
    """It concerns this message only, and is final."""
    AGAIN = auto()
    """The message may be sent again, as long as ``max_attempts`` allow it."""
    THROTTLED = auto()
    """The run is too fast: the message waits, and the rest goes more slowly."""
    UNREACHABLE = auto()
    """The vendor cannot be reached: the message waits, and so does the rest."""
    PAUSE = auto()
    """No message of this account can pass until somebody mends something."""


_THROTTLING_META_CODES: Final = frozenset({4, 80007, 130429})


def judge(
    error: NxOtpError, *, refusals: int, expired: bool, policy: RetryPolicy, reject_on: Collection[int]
) -> Verdict:
    """Say what a failed send means.

    Args:
        error: What the one attempt ended with.
        refusals: How many attempts before it have counted against the policy's ``max_attempts``.
        expired: Whether the message's code has expired.
        policy: What may be sent again.
        reject_on: Codes of the vendor's, or HTTP statuses without one, that refuse their message only, although they
            look like the whole account's.
    """
    match error:
        case OutcomeUnknownError():
            return Verdict.DONE
        case NotSentError(attempts=0) if expired:
            return Verdict.DONE
        case NotSentError(temporary=False) if error.attempts:
            return Verdict.PAUSE
        case NotSentError():
            return Verdict.UNREACHABLE
        case ApiError() if error.code in reject_on or (error.code is None and error.http_status in reject_on):
            return Verdict.DONE
        case TimestampExpiredError() if not refusals:
            return Verdict.AGAIN  # with the clock that the client has learnt from the refusal
        case AccountError() | AuthenticationError():
            return Verdict.PAUSE
        case ApiError() if _is_throttled(error):
            return Verdict.THROTTLED
        case ApiError(code=None):
            return Verdict.PAUSE  # it was not the vendor's API that answered
    return Verdict.AGAIN if policy.retries(error) else Verdict.DONE


def _is_throttled(error: ApiError) -> bool:
    return error.http_status == 429 or (isinstance(error, MetaError) and error.meta_code in _THROTTLING_META_CODES)


_MANY_REFUSALS: Final = 100  # in a row, and all the same


class Health:
    """Notices when the vendor has no good answer to anything any more.

    Args:
        concurrency: How many messages are in flight at the most: so many may go wrong together for one reason.
    """

    PATIENCE: Final = 60.0  # seconds

    def __init__(self, concurrency: int) -> None:
        self._many = 2 * concurrency
        self._failures = 0  # in a row
        self._unknowns = 0  # in a row
        self._failing_since = 0.0
        self._refusals = 0  # in a row, with the same code
        self._code: int | None = None

    def accepted(self) -> None:
        """Note that the vendor accepted a message."""
        self._failures = self._unknowns = self._refusals = 0

    def refused(self, code: int | None) -> None:
        """Note that the vendor refused a message for a reason of its own."""
        self._failures = self._unknowns = 0
        self._refusals = self._refusals + 1 if code == self._code else 1
        self._code = code

    def unwell(self, now: float) -> None:
        """Note that it did not, at this time in seconds of a clock that never jumps."""
        if not self._failures:
            self._failing_since = now
        self._failures += 1

    def unknown(self, now: float) -> None:
        """Note that a message's outcome is unknown."""
        self.unwell(now)
        self._unknowns += 1

    @property
    def is_down(self) -> bool:
        """Whether nothing has gone well for so long that the messages cannot be the reason."""
        return self._failures > self._many

    def is_hopeless(self, now: float) -> bool:
        """Whether to go on would only do harm: a minute without a good answer, ever more unknowns or equal refusals."""
        impatient = self._failures >= 3 and now - self._failing_since >= self.PATIENCE
        return impatient or self._unknowns > self._many or self._refusals > max(self._many, _MANY_REFUSALS)
