"""How fast a run sends, when it waits, whether it can go on; and what follows for each message."""

import logging
import math
from collections.abc import Collection
from typing import Final, Protocol

import attrs

from ..clocks import Clock
from ..codes import MetaCode
from ..errors import (
    AccountError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    NxOtpError,
    OutcomeUnknownError,
)
from ..results import SendResult
from ..retry import RetryPolicy
from .failures import FailureKind
from .health import Health
from .money import Budget
from .schema import MessageState, StoredMessage, Transition

__all__ = ["FlowControl", "Pace"]

_log = logging.getLogger("nxotp_async")

# Against max_attempts. Where nothing passes any more, none counts, and the run waits, or ends.
_COUNTED: Final = (FailureKind.RETRYABLE, FailureKind.INTERCEPTED, FailureKind.ACCOUNT_REFUSED)
_LONGEST_BACKOFF: Final = 60.0  # seconds
_SHORTEST_HOLD: Final = 0.5  # seconds between two tries to reach the vendor
_LONGEST_HOLD: Final = 8.0


class Pace(Protocol):
    """How fast messages go: a run's `SendRate`, or what the workers of a fleet share."""

    @property
    def rate(self) -> float:
        """Messages a second at present."""
        ...

    def throttled(self, sent_at: float, now: float) -> bool:
        """Lower the rate, because the vendor throttles; return whether it fell much."""
        ...

    def hold(self, until: float) -> None:
        """Let nothing go before this time."""
        ...


class FlowControl:
    """The rate, the waits and the end of a run, as its results ask for. It belongs to the event loop.

    The arguments are those of `Dispatcher`, its rate ready for use.

    Attributes:
        rate: How fast it goes at present.
        paused: Why it cannot go on, or ``None``.
    """

    def __init__(
        self,
        rate: Pace,
        policy: RetryPolicy,
        reject_on: Collection[int],
        concurrency: int,
        patience: float,
        clock: Clock,
        budget: Budget | None = None,
    ) -> None:
        self.rate = rate
        self.paused: NxOtpError | None = None
        self._policy = policy
        self._reject_on = reject_on
        self._health = Health(concurrency, patience)
        self._clock = clock
        self._budget = budget
        self._holds = 0  # in a row
        self._held_until = -math.inf  # what was sent before this fails for the reason that is known already

    def transition(self, claimed: StoredMessage, result: SendResult) -> Transition:
        """Take the result of a claimed message in, and return where it goes."""
        if result.error is None:
            self._health.accepted()
            self._holds = 0
            return Transition(claimed.key, MessageState.ACCEPTED, result.attempts, message_id=result.message_id)
        error, now = result.error, self._clock.monotonic()
        if isinstance(error.__cause__, AccountError | AuthenticationError):
            error = error.__cause__  # all senders of a pool are refused, and so it has sent nothing
        expires_at = claimed.message.expires_at
        expired = expires_at is not None and expires_at.timestamp() <= self._clock.time()
        kind = FailureKind.of(error, expired=expired, policy=self._policy, reject_on=self._reject_on)
        sent_at = now - result.elapsed
        tried_again = sent_at >= self._held_until
        self._note(kind, error, now, tried_again=tried_again)
        if kind in _COUNTED and self._health.is_down:
            kind = FailureKind.UNREACHABLE
        if kind is FailureKind.THROTTLED:
            self._throttle(error, now, sent_at)
        elif kind is FailureKind.UNREACHABLE and tried_again:
            self._hold(error, now)
        transition = Transition(
            claimed.key,
            MessageState(result.status),
            attempts=result.attempts,
            code=error.code,
            meta_code=error.meta_code,
            error=type(error).__name__,
            reason=str(error),
        )
        # The first answer that says nothing of the message itself is never its last.
        refusals = claimed.refusals + (kind is FailureKind.RETRYABLE)
        if kind is FailureKind.FINAL or (kind in _COUNTED and refusals >= self._policy.max_attempts):
            return transition
        backoff = self._policy.backoff(error, claimed.refusals + 1, self._clock.random())
        return attrs.evolve(
            transition,
            state=MessageState.QUEUED,
            refusals=int(kind in _COUNTED),
            not_before=now + min(backoff, _LONGEST_BACKOFF),
            throttled=claimed.message.to if error.meta_code == MetaCode.PAIR_RATE_LIMIT else None,
        )

    def forgive(self) -> None:
        """Forget the failures so far: somebody has paused the run, and says that it can go on."""
        self._health.accepted()
        self._holds = 0

    def budget_spent(self) -> None:
        """Take in that another message could pass the budget."""
        self.paused = self.paused or ConfigurationError(
            f"another message could cost more than the budget of {self._budget} allows",
            hint="raise it; or note the callbacks that say what messages cost, if they cost less than was assumed",
        )

    def store_failed(self, error: NxOtpError) -> None:
        """Take in that the store of a shared rate has no permit to give: nothing goes for a while, or for good."""
        now = self._clock.monotonic()
        if now < self._held_until:
            return
        self._health.failed(now)
        if isinstance(error, ConfigurationError) or self._health.is_hopeless(now):
            self.paused = self.paused or error
        else:
            self._hold(error, now)

    def _note(self, kind: FailureKind, error: NxOtpError, now: float, *, tried_again: bool) -> None:
        """Note what a failure says of the vendor's health, and end the run where that is bad enough."""
        if isinstance(error, OutcomeUnknownError):
            self._health.unknown(now)
        elif kind in (FailureKind.CLOCK_CORRECTED, FailureKind.INTERCEPTED, FailureKind.ACCOUNT_REFUSED):
            self._health.not_processed(now, tried_again=tried_again)
            if tried_again:
                self._held_until = now
        elif kind is not FailureKind.FINAL:
            self._health.failed(now)
        elif isinstance(error, ApiError) and error.code not in self._reject_on:
            self._health.refused(error.code)
        if self._health.is_hopeless(now):
            self.paused = self.paused or error

    def _throttle(self, error: NxOtpError, now: float, sent_at: float) -> None:
        if self.rate.throttled(sent_at, now):
            _log.warning("the vendor throttles; going on with %.1f messages a second", self.rate.rate)
        if error.retry_after:
            self.rate.hold(now + min(error.retry_after, _LONGEST_BACKOFF))

    def _hold(self, error: NxOtpError, now: float) -> None:
        self._holds += 1
        self._held_until = now + min(_LONGEST_HOLD, _SHORTEST_HOLD * 2.0 ** (min(self._holds, 10) - 1))
        self.rate.hold(self._held_until)
        _log.warning("%s; trying again in %.1f s", error, self._held_until - now)
