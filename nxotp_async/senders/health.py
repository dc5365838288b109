"""The health of a number or an account, as a pure state machine over time, and what an error says of it.

Times are seconds of one clock that never jumps:

    ready           -- failed -->              stepped back, for the pause of the failure
    stepped back    -- its time is over -->    on trial: one message is let through, or all if it was throttled only
    on trial        -- accepted -->            ready
    on trial        -- failed -->              stepped back, for twice as long as before
    on trial        -- no outcome in time -->  on trial: another message is let through

What was sent before a step back and ends after it changes nothing: its outcome tells of what is known already.
"""

import math
from enum import Enum, StrEnum, auto
from typing import Final

import attrs

from ..codes import MetaCode, ResponseCode
from ..errors import ApiError, AuthenticationError, MetaError, NxOtpError, TimestampExpiredError

__all__ = ["Failing", "Failure", "Health", "StepBack"]


class StepBack(StrEnum):
    """Why a number or an account steps back."""

    THROTTLED = "throttled"
    """It sends too fast, or its WhatsApp account is in maintenance."""
    UNBOUND = "unbound"
    """The number is not bound to the application, or is no WhatsApp number."""
    EXHAUSTED = "exhausted"
    """The account has no balance, or has sent as many messages in 24 hours as it may."""
    REFUSED = "refused"
    """The account is refused: its key, its secret, its application."""


_PAUSES: Final = {  # seconds: the first, and the longest
    StepBack.THROTTLED: (0.1, 60.0),
    StepBack.UNBOUND: (60.0, 1800.0),
    StepBack.EXHAUSTED: (60.0, 1800.0),
    StepBack.REFUSED: (60.0, 1800.0),
}
_TRIAL: Final = 1.0  # seconds until another message is let through


@attrs.frozen
class Health:
    """The health of a number or an account.

    Attributes:
        reason: Why it has stepped back, or ``None`` if it is ready.
        until: When the next message is let through.
        pause: For how many seconds it stepped back.
        on_trial: Whether a message was let through since.
    """

    reason: StepBack | None = None
    until: float = -math.inf
    pause: float = 0.0
    on_trial: bool = False

    def lets_through(self, now: float) -> bool:
        """Return whether a message may be sent."""
        return now >= self.until

    def is_closed(self, now: float) -> bool:
        """Return whether no message may be sent, not even one that was let through."""
        return not (self.on_trial or self.lets_through(now))

    def letting_through(self, now: float) -> "Health":
        """Return the health after a message was let through."""
        if self.reason is None:
            return self
        # Who was only too fast lets all messages through, at its rate.
        until = self.until if self.reason is StepBack.THROTTLED else now + _TRIAL
        return attrs.evolve(self, until=until, on_trial=True)

    def accepted(self, now: float) -> "Health":
        """Return the health after a message was accepted."""
        return self if self.is_closed(now) else Health()

    def failed(self, reason: StepBack, now: float, *, retry_after: float | None = None) -> "Health":
        """Return the health after a message failed for a reason that is not its own.

        Args:
            reason: The reason.
            now: The time.
            retry_after: Seconds that the vendor asks to wait.
        """
        if self.is_closed(now):
            return self
        first, longest = _PAUSES[reason]
        pause = min(2 * self.pause, longest) if self.reason is reason else first
        pause = max(pause, retry_after or 0.0)
        return Health(reason, now + pause, pause)


class Failing(Enum):
    """What a message fails for, so that another one would fail, too."""

    NUMBER = auto()
    ACCOUNT = auto()


@attrs.frozen
class Failure:
    """What a failed send says of its sender. There is none where it is the message's own failure, or the vendor's.

    Attributes:
        of: Whether it is the number or the whole account.
        reason: Why that steps back; ``None`` if it fails for messages of this kind only.
    """

    of: Failing
    reason: StepBack | None

    @classmethod
    def found_in(cls, error: NxOtpError | None) -> "Failure | None":
        """Return what an error says of the sender."""
        match error:
            case TimestampExpiredError():
                return None  # this machine's clock
            case AuthenticationError():
                return cls(Failing.ACCOUNT, StepBack.REFUSED)
            case MetaError():
                return _BY_META_CODE.get(error.meta_code)
            case ApiError(http_status=429):
                return cls(Failing.ACCOUNT, StepBack.THROTTLED)
            case ApiError():
                return _BY_CODE.get(error.code)
        return None


_BY_CODE: Final[dict[int | None, Failure]] = {
    ResponseCode.MERCHANT_PHONE_ERROR: Failure(Failing.NUMBER, StepBack.UNBOUND),
    ResponseCode.NUMBER_NOT_BOUND: Failure(Failing.NUMBER, StepBack.UNBOUND),
    ResponseCode.BUSINESS_PHONE_NOT_BOUND: Failure(Failing.NUMBER, StepBack.UNBOUND),
    ResponseCode.APPLICATION_UNAVAILABLE: Failure(Failing.ACCOUNT, StepBack.REFUSED),
    ResponseCode.NO_GROUP: Failure(Failing.ACCOUNT, StepBack.REFUSED),
    ResponseCode.INSUFFICIENT_BALANCE: Failure(Failing.ACCOUNT, StepBack.EXHAUSTED),
    ResponseCode.NO_PRICING: Failure(Failing.ACCOUNT, None),
    ResponseCode.CATEGORY_MISSING: Failure(Failing.ACCOUNT, None),
    ResponseCode.TEMPLATE_MISSING: Failure(Failing.ACCOUNT, None),
}
_BY_META_CODE: Final[dict[int | None, Failure]] = {
    MetaCode.THROUGHPUT_LIMIT: Failure(Failing.NUMBER, StepBack.THROTTLED),
    MetaCode.APPLICATION_RATE_LIMIT: Failure(Failing.ACCOUNT, StepBack.THROTTLED),
    MetaCode.ACCOUNT_RATE_LIMIT: Failure(Failing.ACCOUNT, StepBack.THROTTLED),
    MetaCode.MAINTENANCE: Failure(Failing.ACCOUNT, StepBack.THROTTLED),
}
