"""What a failed send means for the run it is a part of."""

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

__all__ = ["Health", "Verdict", "judge"]


class Verdict(Enum):
    """What a failed send means."""

    DONE = auto()
    """It concerns this message only, and is final."""
    AGAIN = auto()
    """The message may be sent again, as long as ``max_attempts`` allow it."""
    CORRECTED = auto()
    """This machine's clock was wrong, and is corrected now: the message is sent again."""
    INTERCEPTED = auto()
    """Something else than the vendor's API has answered: the message is sent again, and is rejected only where that
    comes time and again while others pass."""
    THROTTLED = auto()
    """The run is too fast: the message waits, and the rest goes more slowly."""
    UNREACHABLE = auto()
    """The vendor cannot be reached: the message waits, and so does the rest."""
    PAUSE = auto()
    """No message of this account can pass until somebody mends something."""


_THROTTLING_META_CODES: Final = frozenset(code for code in MetaCode if code.throttling)


def judge(error: NxOtpError, *, expired: bool, policy: RetryPolicy, reject_on: Collection[int]) -> Verdict:
    """Say what a failed send means.

    Args:
        error: What the one attempt ended with.
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
        case TimestampExpiredError(clock_corrected=True):
            return Verdict.CORRECTED
        case AccountError() | AuthenticationError():
            return Verdict.PAUSE
        case ApiError() if _is_throttled(error):
            return Verdict.THROTTLED
        case ApiError(code=None):
            return Verdict.INTERCEPTED
    return Verdict.AGAIN if policy.retries(error) else Verdict.DONE


def _is_throttled(error: ApiError) -> bool:
    return error.http_status == 429 or (isinstance(error, MetaError) and error.meta_code in _THROTTLING_META_CODES)


_MANY_REFUSALS: Final = 100  # in a row, and all the same
_MANY_FLIGHTS: Final = 5  # in a row, of which no message was judged


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
        self._flights = 0  # in a row, of which nothing was judged
        self._of_last_flight = 0  # how many more may belong to the last one of them
        self._failing_since = 0.0
        self._refusals = 0  # in a row, with the same code
        self._code: int | None = None

    def accepted(self) -> None:
        """Note that the vendor accepted a message."""
        self._failures = self._unknowns = self._refusals = self._flights = self._of_last_flight = 0

    def refused(self, code: int | None) -> None:
        """Note that the vendor refused a message for a reason of its own."""
        self._failures = self._unknowns = self._flights = self._of_last_flight = 0
        self._refusals = self._refusals + 1 if code == self._code else 1
        self._code = code

    def unwell(self, now: float) -> None:
        """Note that it did not, at this time in seconds of a clock that never jumps."""
        self._flights = self._of_last_flight = 0
        self._count_failure(now)

    def _count_failure(self, now: float) -> None:
        if not self._failures:
            self._failing_since = now
        self._failures += 1

    def unknown(self, now: float) -> None:
        """Note that a message's outcome is unknown."""
        self.unwell(now)
        self._unknowns += 1

    def unjudged(self, now: float, *, in_flight: int) -> None:
        """Note that the vendor did not come to judge a message: something else answered, or its timestamp was wrong.

        Args:
            now: The time.
            in_flight: How many others are in flight. If they fare no better, that is for the same reason.
        """
        self._count_failure(now)
        if self._of_last_flight:
            self._of_last_flight -= 1
        else:
            self._flights += 1
            self._of_last_flight = in_flight

    @property
    def is_down(self) -> bool:
        """Whether nothing has gone well for so long that the messages cannot be the reason."""
        return self._failures > self._many or self._flights > 1

    def is_hopeless(self, now: float) -> bool:
        """Whether to go on would only do harm.

        That is so after a minute without a good answer, and when unknown outcomes, equal refusals, or answers that are
        not the vendor's, have come too often in a row.
        """
        impatient = self._failures >= 3 and now - self._failing_since >= self.PATIENCE
        too_many = self._unknowns > self._many or self._refusals > max(self._many, _MANY_REFUSALS)
        return impatient or too_many or self._flights >= _MANY_FLIGHTS
