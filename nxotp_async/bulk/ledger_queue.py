"""The ledger's queue as the event loop sees it: messages come out, and what became of them goes back."""

import asyncio
import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Final, TypeVar, TypeVarTuple

from ..clocks import Clock
from ..errors import ConfigurationError, StoreError
from ..messages import OtpMessage
from ..pacing import SharedRate
from .exchange import Batch, LedgerExchange
from .flow import FlowControl
from .schema import MessageState, StoredMessage, Transition

__all__ = ["LedgerQueue"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_LINGER: Final = 0.1  # seconds a transition may wait for others, to be written with them
_BATCH_SHARE: Final = 0.64  # of what is in flight: so many transitions are written at once
_PATIENCE: Final = 1.0  # seconds to wait for a permit of a shared rate
_SWEEP_INTERVAL: Final = 60.0  # seconds between two looks for expired codes


class LedgerQueue:
    """Claims messages as there is room for them, and has the transitions of others written, in batches.

    It belongs to the event loop, and calls the ledger in a thread. What is claimed is never more than ``concurrency``.

    Attributes:
        counts: How many messages are in which state. In flight counts as queued.
        in_flight: Messages that are claimed, by their ``cus_message_id``.
        is_stopping: Whether nothing more is claimed.
    """

    def __init__(
        self,
        exchange: LedgerExchange,
        flow: FlowControl,
        shared_rate: SharedRate | None,
        concurrency: int,
        clock: Clock,
    ) -> None:
        self.counts: Counter[MessageState] = Counter()
        self.in_flight: dict[str, StoredMessage] = {}
        self.is_stopping = False
        self._exchange = exchange
        self._flow = flow
        self._rate = flow.rate
        self._shared_rate = shared_rate
        self._waiting: asyncio.Timeout | None = None  # for a permit of it
        self._concurrency = concurrency
        self._clock = clock
        self._ready: deque[StoredMessage] = deque()  # those in flight that are not on their way yet
        self._transitions: list[Transition] = []
        self._waiting_since = math.inf  # the first of them
        self._exchanged_at = self._swept_at = -math.inf
        self._next_due: float | None = None
        self._exhausted = False
        self._wakeup = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nxotp_async: ledger")
        # What an exchange brings comes through a queue: so it is not lost where the task that waits is cancelled.
        self._batches: SimpleQueue[Batch] = SimpleQueue()

    async def begin(self) -> None:
        """Begin the run."""
        self._swept_at = self._clock.monotonic()
        self.counts = await self._in_thread(self._exchange.begin, *self._now())

    def stop(self) -> None:
        """Claim nothing more: `messages` ends when what is in flight has been settled."""
        self.is_stopping = True
        self._wakeup.set()
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    def settle(self, transition: Transition) -> None:
        """Take in where a message has gone that was in flight."""
        if transition.state is not MessageState.QUEUED:
            self.counts[MessageState.QUEUED] -= 1
            self.counts[transition.state] += 1
        self._transitions.append(transition)
        if len(self._transitions) == 1:
            self._waiting_since = self._clock.monotonic()
            self._wakeup.set()
        elif self._is_batch_full():
            self._wakeup.set()

    async def messages(self) -> AsyncIterator[OtpMessage]:
        """Yield messages as they are claimed, and have transitions written, until the run is over."""
        while await self._refill():
            while self._ready and await self._may_send(self._ready[0].message):
                yield self._ready.popleft().message
            self._give_back()

    async def _may_send(self, message: OtpMessage) -> bool:
        """Wait for a permit of the shared rate, if there is one, and return whether the message may be sent now.

        Where others use the rate up, it waits in the ledger's queue again, so that transitions get written meanwhile.
        """
        rate, now = self._shared_rate, self._clock.monotonic()
        if rate is None or self.is_stopping:
            return not self.is_stopping
        patience = max(_PATIENCE, 2 / rate.per_second)
        if message.expires_at is not None:
            patience = min(patience, message.expires_at.timestamp() - self._clock.time())
        if patience <= 0 or (self._transitions and now > self._waiting_since + _PATIENCE):
            return False
        try:
            async with asyncio.timeout(None) as self._waiting:
                return await rate.acquire(patience)
        except TimeoutError:  # it was stopped
            pass
        except (StoreError, ConfigurationError) as error:
            self._flow.store_failed(error)
            self.is_stopping = self._flow.paused is not None
        finally:
            self._waiting = None
        return False

    def finish(self) -> None:
        """Write what is known of the messages that are still in flight. To be called once, in the end.

        It blocks the event loop, so that no cancellation can come in between.
        """
        with self._thread:
            self._thread.submit(lambda: None).result()  # until an exchange that is still under way has ended
            self._take_batches()
            self._give_back()
            reason = "given up while it was in flight, because the run was stopped"
            self._transitions += [
                Transition(claimed.key, MessageState.UNKNOWN, attempts=1, error="Interrupted", reason=reason)
                for claimed in self.in_flight.values()
            ]
            self.in_flight.clear()
            self.counts = self._thread.submit(self._exchange.finish, self._transitions, *self._now()).result()

    def _now(self) -> tuple[float, float]:
        return self._clock.time(), self._clock.monotonic()

    def _in_thread(self, function: Callable[[*_Ts], _T], *args: *_Ts) -> "asyncio.Future[_T]":
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    # ------------------------------------------------------------------------------------------ exchanges

    def _give_back(self) -> None:
        """Give back what was claimed and is not on its way."""
        while self._ready:
            claimed = self._ready.popleft()
            del self.in_flight[str(claimed.message.cus_message_id)]
            now = self._clock.monotonic()
            self._transitions.append(Transition(claimed.key, MessageState.QUEUED, not_before=now))

    async def _refill(self) -> bool:
        """Write transitions and claim messages until some are ready. Return whether some are; else the run is over."""
        while not self._is_over() or await self._has_more():
            await self._until_worthwhile()
            now = self._clock.monotonic()
            if now - self._swept_at >= _SWEEP_INTERVAL:
                await self._sweep()
            wanted = self._rate.take(self._free, now) if self._may_claim() else 0
            if wanted or self._transitions:
                await self._in_thread(self._put_batch, tuple(self._transitions), wanted, *self._now())
                self._take_batches()
            if wanted:
                self._rate.give_back(wanted - len(self._ready))
            if self._ready:
                return True
        return False

    def _put_batch(self, transitions: tuple[Transition, ...], wanted: int, now: float, monotonic: float) -> None:
        """In the ledger's thread: make an exchange."""
        self._batches.put(self._exchange.exchange(transitions, wanted, now, monotonic))

    def _take_batches(self) -> None:
        while not self._batches.empty():
            batch = self._batches.get()
            del self._transitions[: batch.recorded]
            self._waiting_since = self._exchanged_at = self._clock.monotonic()
            self.in_flight.update((str(claimed.message.cus_message_id), claimed) for claimed in batch.messages)
            self._ready.extend(batch.messages)
            self._next_due = batch.next_due
            if batch.exhausted is not None:
                self._exhausted = batch.exhausted

    async def _sweep(self) -> None:
        """Take out of the queue what has expired."""
        now, self._swept_at = self._now()
        expired = await self._in_thread(self._exchange.expire, now)
        self.counts.update(expired)
        self.counts[MessageState.QUEUED] -= expired.total()

    async def _has_more(self) -> bool:
        """Return whether anything can be sent, although nothing seems to be left.

        That is so where codes were passed over as expired, and the clock was set back since.
        """
        if self.is_stopping:
            return False
        self.counts = await self._in_thread(self._exchange.look_again, *self._now())
        self._exhausted = not self.counts[MessageState.QUEUED]
        return not self._exhausted

    # ------------------------------------------------------------------------------------------ when

    @property
    def _free(self) -> int:
        return self._concurrency - len(self.in_flight)

    def _may_claim(self) -> bool:
        has_due = self._next_due is not None and self._next_due <= self._clock.monotonic()
        return not self.is_stopping and self._free > 0 and (has_due or not self._exhausted)

    def _is_over(self) -> bool:
        is_settled = not self.in_flight and not self._transitions
        return is_settled and (self.is_stopping or (self._exhausted and self._next_due is None))

    def _is_batch_full(self) -> bool:
        settled = len(self._transitions)
        return settled > 0 and settled >= _BATCH_SHARE * (settled + len(self.in_flight))

    async def _until_worthwhile(self) -> None:
        """Wait until enough transitions have gathered, or something can be claimed, or time has passed."""
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
        if self._transitions:
            moments.append(self._waiting_since + _LINGER)
        if not self.is_stopping and self._free:
            wait = self._rate.wait(now)
            if self._exhausted:
                wait = max(wait, math.inf if self._next_due is None else self._next_due - now)
            moments.append(max(now + wait, self._exchanged_at + _LINGER if self.in_flight else now))
        return min(moments) - now
