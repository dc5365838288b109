"""Sending what a ledger has queued: at a steady rate, never twice, and so that it can stop at any moment."""

import asyncio
import logging
import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from functools import partial
from typing import Final, TypeVar

import attrs

from ..client import OtpClient
from ..clocks import Clock
from ..codes import MetaCode
from ..errors import ApiError, ConfigurationError, MetaError, NxOtpError, OutcomeUnknownError
from ..messages import OtpMessage
from ..results import SendResult
from ..retry import RetryPolicy
from .ledger import Ledger
from .pacing import RecipientPacing, SendRate
from .records import ClaimedMessage, MessageState, Outcome, Report
from .verdicts import Health, Verdict, judge

__all__ = ["Dispatcher"]

_log = logging.getLogger("nxotp_async")
_T = TypeVar("_T")

_LINGER: Final = 0.1  # seconds an outcome may wait for others, to be written with them
_BATCH_SHARE: Final = 0.64  # of what is in flight: so many outcomes are written at once
_SWEEP_INTERVAL: Final = 60.0  # seconds between two looks for expired codes
_LONGEST_HOLD: Final = 8.0  # seconds between two tries to reach the vendor


class Dispatcher:
    """Sends what a ledger has queued, once.

    The ledger writes the intent to send before the first byte leaves, and the outcome soon after. What a ledger has in
    flight is never more than the client's ``max_concurrency``.

    Args:
        ledger: What to send. Nobody else may use it meanwhile.
        client: Sends it. Its retries are left to the dispatcher.
        rate: Messages a second at the most, retries included; ``None`` for no limit. It halves when the vendor
            throttles, and grows back by 5 % a second.
        per_recipient: Seconds between two messages to one recipient; Meta asks for 6. By default only those that the
            vendor has throttled wait.
        max_per_recipient: How many messages of the ledger one recipient may get; the rest is not sent.
        retry: What is sent again. What is throttled, cannot leave, or is refused for a wrong clock does not count
            against its ``max_attempts``; what may have been accepted is never sent again.
        reject_on: Codes of the vendor's, or HTTP statuses without one, that refuse their message only, although they
            look like the whole account's.
        clock: Sources of time and chance for tests.

    Raises:
        ConfigurationError: An argument is wrong.

    Attributes:
        counts: How many messages are in which state, for showing progress. In flight counts as queued.
    """

    def __init__(
        self,
        ledger: Ledger,
        client: OtpClient,
        *,
        rate: float | None = None,
        per_recipient: float | None = None,
        max_per_recipient: int | None = None,
        retry: RetryPolicy | None = None,
        reject_on: Collection[int] = (),
        clock: Clock | None = None,
    ) -> None:
        _check(rate, per_recipient, max_per_recipient, retry, reject_on)
        self.counts: Counter[MessageState] = Counter()
        self._ledger = ledger
        self._client = client.with_options(retry=RetryPolicy(max_attempts=1))
        self._concurrency = client.max_concurrency
        self._per_recipient = per_recipient or 0.0
        self._max_per_recipient = max_per_recipient
        self._policy = retry or RetryPolicy(max_attempts=5)
        self._reject_on = reject_on
        self._clock = clock or Clock()
        self._rate = SendRate(rate, self._clock.monotonic())
        self._pacing = RecipientPacing()
        self._ready: deque[ClaimedMessage] = deque()  # claimed, but not on its way yet
        self._in_flight: dict[str, ClaimedMessage] = {}  # those that are ready included
        self._outcomes: list[Outcome] = []
        self._first_outcome_at = math.inf
        self._exchanged_at = -math.inf
        self._swept_at = -math.inf
        self._next_due: float | None = None
        self._exhausted = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nxotp_async: ledger")
        self._wakeup = asyncio.Event()
        self._drain: asyncio.Timeout | None = None
        self._held_until = -math.inf
        self._holds = 0  # in a row
        self._paused: NxOtpError | None = None
        self._stopping = False
        self._has_run = False
        self._health = Health(self._concurrency)

    @property
    def in_flight(self) -> int:
        """How many messages the ledger has in flight."""
        return len(self._in_flight)

    @property
    def rate(self) -> float:
        """Messages a second at the most, at present; infinite where nothing limits them."""
        return self._rate.rate

    @property
    def is_stopping(self) -> bool:
        """Whether nothing more is sent."""
        return self._stopping

    def stop(self, *, within: float = 30.0) -> None:
        """Send nothing more; `run` returns when what is in flight has its outcome.

        Args:
            within: Seconds after which what is still in flight is given up, and is unknown.
        """
        self._stopping = True
        if self._drain is not None and self._drain.when() is None:
            self._drain.reschedule(asyncio.get_running_loop().time() + within)
        self._wakeup.set()

    async def run(self) -> Report:
        """Send what is queued, and return when nothing is left that could be sent, or when it was stopped.

        Where this is cancelled, what is in flight is given up: it is unknown then, and the rest stays queued.

        Raises:
            LedgerError: The ledger cannot be written. Nothing was sent that it does not know of.
            RuntimeError: It has run before, or the client was closed meanwhile.
        """
        if self._has_run:
            raise RuntimeError("a Dispatcher runs once; make another for what is queued now")
        self._has_run = True
        drain = asyncio.timeout(None)
        with self._thread:
            try:
                await self._in_thread(self._begin)
                async with drain as self._drain, aclosing(self._client.send_many(self._messages())) as results:
                    async for result in results:
                        self._settle(result)
            except TimeoutError:
                if not drain.expired():
                    raise
            finally:
                self._drain = None
                # In the thread, so that it comes after an exchange that is still under way; without awaiting it, so
                # that no further cancellation can come in between.
                self._thread.submit(self._finish).result()
        return Report(self.counts, self._paused, self._stopping and self._paused is None)

    async def _in_thread(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _begin(self) -> None:
        now, monotonic = self._clock.time(), self._clock.monotonic()
        self._ledger.begin_run(now, max_per_recipient=self._max_per_recipient)
        sent = self._ledger.sent_since(now - self._per_recipient) if self._per_recipient else {}
        # What seems to have been sent in the future was sent before the clock was set back.
        sent = {recipient: monotonic - max(0.0, now - at) for recipient, at in sent.items()}
        self._pacing = RecipientPacing(self._per_recipient, sent)
        self.counts = self._ledger.counts()
        self._swept_at = monotonic

    def _finish(self) -> None:
        """Write what is known of the messages that are still claimed."""
        self._release()
        reason = "given up while it was in flight, because the run was stopped"
        for claimed in self._in_flight.values():
            self._outcomes.append(
                Outcome(claimed.key, MessageState.UNKNOWN, attempts=1, error="Interrupted", reason=reason)
            )
        self._in_flight.clear()
        self._exchange(0)
        self._ledger.expire(self._clock.time())
        self._ledger.forget_codes()
        self.counts = self._ledger.counts()

    # ------------------------------------------------------------------------------------------ messages out

    async def _messages(self) -> AsyncIterator[OtpMessage]:
        """Yield messages as they are claimed, and write the outcomes, until the run is over."""
        while await self._refill():
            while self._ready and not self._stopping:
                yield self._ready.popleft().message
            self._release()

    def _release(self) -> None:
        """Give back what was claimed and is not on its way."""
        for claimed in self._ready:
            del self._in_flight[str(claimed.message.cus_message_id)]
            self._outcomes.append(Outcome(claimed.key, MessageState.QUEUED, not_before=self._clock.monotonic()))
        self._ready.clear()

    async def _refill(self) -> bool:
        """Write outcomes and claim messages until some are ready. Return whether some are; else the run is over."""
        while not self._is_over() or await self._in_thread(self._has_more):
            await self._until_worthwhile()
            now = self._clock.monotonic()
            if now - self._swept_at >= _SWEEP_INTERVAL:
                await self._in_thread(self._sweep)
            wanted = self._rate.take(self._free, now) if self._may_claim() else 0
            await self._in_thread(partial(self._exchange, wanted))
            if wanted:
                self._rate.give_back(wanted - len(self._ready))
            if self._ready:
                return True
        return False

    @property
    def _free(self) -> int:
        return self._concurrency - len(self._in_flight)

    def _may_claim(self) -> bool:
        has_due = self._next_due is not None and self._next_due <= self._clock.monotonic()
        return not self._stopping and self._free > 0 and (has_due or not self._exhausted)

    def _is_over(self) -> bool:
        is_settled = not self._in_flight and not self._outcomes
        return is_settled and (self._stopping or (self._exhausted and self._next_due is None))

    async def _until_worthwhile(self) -> None:
        """Wait until enough outcomes have gathered, or something can be claimed, or time has passed."""
        while (delay := self._delay(self._clock.monotonic())) > 0:
            self._wakeup.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wakeup.wait()

    def _delay(self, now: float) -> float:
        """Return the seconds until the next exchange is worthwhile, if nothing happens before."""
        if self._is_batch_full() or self._is_over():
            return 0.0
        moments = [self._swept_at + _SWEEP_INTERVAL]
        if self._outcomes:
            moments.append(self._first_outcome_at + _LINGER)
        if not self._stopping and self._free:
            pause = self._rate.wait(now)
            if self._exhausted:
                pause = max(pause, math.inf if self._next_due is None else self._next_due - now)
            moments.append(max(now + pause, self._exchanged_at + _LINGER if self._in_flight else now))
        return min(moments) - now

    def _is_batch_full(self) -> bool:
        settled = len(self._outcomes)
        return settled > 0 and settled >= _BATCH_SHARE * (settled + len(self._in_flight))

    def _exchange(self, wanted: int) -> None:
        """In the ledger's thread: write the outcomes, and claim as many messages as wanted."""
        outcomes = self._outcomes.copy()  # others may come meanwhile
        if not outcomes and not wanted:
            return
        now = self._clock.monotonic()
        admit = partial(self._pacing.admit, now=now)
        claim = self._ledger.exchange(outcomes, wanted, self._clock.time(), now, admit)
        del self._outcomes[: len(outcomes)]
        self._first_outcome_at = self._exchanged_at = self._clock.monotonic()
        self._in_flight.update((str(claimed.message.cus_message_id), claimed) for claimed in claim.messages)
        self._ready.extend(claim.messages)
        self._next_due = claim.next_due
        self._exhausted = claim.exhausted or (self._exhausted and not wanted)

    def _sweep(self, *, before_due: bool = False) -> None:
        """In the ledger's thread: take out of the queue what has expired, or will have when it is due."""
        now = self._swept_at = self._clock.monotonic()
        expired = self._ledger.expire(self._clock.time(), monotonic=now if before_due else None)
        self.counts.update(expired)
        self.counts[MessageState.QUEUED] -= expired.total()

    def _has_more(self) -> bool:
        """In the ledger's thread, when nothing seems to be left: return whether anything can be sent nonetheless.

        That is so where codes were passed over as expired, and the clock was set back since.
        """
        if self._stopping:
            return False
        self._sweep(before_due=True)
        self._exhausted = not self._ledger.look_again()
        return not self._exhausted

    # ------------------------------------------------------------------------------------------ results in

    def _settle(self, result: SendResult) -> None:
        """Take in what became of a message."""
        claimed = self._in_flight.pop(str(result.message.cus_message_id))
        if result.error is None:
            self._health.accepted()
            self._holds = 0
            outcome = Outcome(claimed.key, MessageState.ACCEPTED, result.attempts, message_id=result.message_id)
        else:
            outcome = self._failed(claimed, result, result.error)
        if outcome.state is not MessageState.QUEUED:
            self.counts[MessageState.QUEUED] -= 1
            self.counts[outcome.state] += 1
        self._outcomes.append(outcome)
        if len(self._outcomes) == 1:
            self._first_outcome_at = self._clock.monotonic()
            self._wakeup.set()
        elif self._is_batch_full():
            self._wakeup.set()

    def _failed(self, claimed: ClaimedMessage, result: SendResult, error: NxOtpError) -> Outcome:
        expires_at = claimed.message.expires_at
        verdict = judge(
            error,
            expired=expires_at is not None and expires_at.timestamp() <= self._clock.time(),
            policy=self._policy,
            reject_on=self._reject_on,
        )
        verdict = self._slow_down(verdict, result, error)
        outcome = Outcome(
            claimed.key,
            MessageState(result.status),
            attempts=result.attempts,
            code=error.code if isinstance(error, ApiError) else None,
            meta_code=error.meta_code if isinstance(error, MetaError) else None,
            error=type(error).__name__,
            reason=str(error),
        )
        counts = verdict in (Verdict.AGAIN, Verdict.INTERCEPTED)
        # The first answer that is not the vendor's is never a message's last.
        refusals = claimed.refusals + (verdict is Verdict.AGAIN)
        if verdict is Verdict.DONE or (counts and refusals >= self._policy.max_attempts):
            return outcome
        now = self._clock.monotonic()
        pause = self._policy.pause(error, claimed.refusals + 1, self._clock.random())
        not_before = now + min(pause, Health.PATIENCE)
        if isinstance(error, MetaError) and error.meta_code == MetaCode.PAIR_RATE_LIMIT:
            not_before = self._pacing.throttled(claimed.message.to, not_before, now)
        return attrs.evolve(outcome, state=MessageState.QUEUED, refusals=int(counts), not_before=not_before)

    def _slow_down(self, verdict: Verdict, result: SendResult, error: NxOtpError) -> Verdict:
        """Let a failure act on the run as a whole, and return what it means for the message, seen in that light."""
        now = self._clock.monotonic()
        self._note(verdict, error, now)
        if verdict is Verdict.PAUSE or self._health.is_hopeless(now):
            self._pause(error)
        if verdict in (Verdict.AGAIN, Verdict.INTERCEPTED) and self._health.is_down:
            verdict = Verdict.UNREACHABLE
        sent_at = now - result.elapsed
        if verdict is Verdict.THROTTLED:
            if self._rate.throttled(sent_at, now):
                _log.warning("the vendor throttles; going on with %.1f messages a second", self._rate.rate)
            if isinstance(error, ApiError) and error.retry_after:
                self._rate.hold(now + min(error.retry_after, Health.PATIENCE))
        elif verdict is Verdict.UNREACHABLE and sent_at >= self._held_until:
            self._holds += 1
            self._held_until = now + min(_LONGEST_HOLD, 0.25 * 2.0 ** min(self._holds, 10))
            self._rate.hold(self._held_until)
            _log.warning("%s; trying again in %.1f s", error, self._held_until - now)
        return verdict

    def _note(self, verdict: Verdict, error: NxOtpError, now: float) -> None:
        """Note what a failure says of the vendor's health."""
        if isinstance(error, OutcomeUnknownError):
            self._health.unknown(now)
        elif verdict in (Verdict.CORRECTED, Verdict.INTERCEPTED):
            self._health.unjudged(now, in_flight=self.in_flight)
        elif verdict is not Verdict.DONE:
            self._health.unwell(now)
        elif isinstance(error, ApiError) and error.code not in self._reject_on:
            self._health.refused(error.code)

    def _pause(self, error: NxOtpError) -> None:
        self._paused = self._paused or error
        self._stopping = True
        self._wakeup.set()


def _check(
    rate: float | None,
    per_recipient: float | None,
    max_per_recipient: int | None,
    retry: RetryPolicy | None,
    reject_on: Collection[int],
) -> None:
    for name, value in (("rate", rate), ("per_recipient", per_recipient)):
        if value is not None and not (type(value) in (int, float) and 0 < value < math.inf):
            raise ConfigurationError(f"{name} must be a number, more than 0, and finite")
    if max_per_recipient is not None and not (type(max_per_recipient) is int and max_per_recipient >= 1):
        raise ConfigurationError("max_per_recipient must be an integer, 1 at least")
    if not isinstance(retry, RetryPolicy | None):
        raise ConfigurationError(f"retry must be a RetryPolicy, not {type(retry).__name__}")
    if not {type(code) for code in reject_on} <= {int}:
        raise ConfigurationError("reject_on must be a collection of integers")
