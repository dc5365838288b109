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
from ..errors import NxOtpError, StoreError
from ..messages import OtpMessage
from ..pacing import SharedRate
from .exchange import Batch, LedgerExchange
from .flow import FlowControl
from .pacing import SendRate
from .schema import MessageState, StoredMessage, Transition

__all__ = ["LedgerQueue"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_LINGER: Final = 0.1  # seconds a transition may wait for others, to be written with them
_BATCH_SHARE: Final = 0.64  # of what is in flight: so many transitions are written at once
_SWEEP_INTERVAL: Final = 60.0  # seconds between two looks for expired codes


class LedgerQueue:
    """Claims messages as there is room for them, and has the transitions of others written, in batches.

    It belongs to the event loop, and calls the ledger in a thread.

    Attributes:
        counts: How many messages are in which state. In flight counts as queued.
        in_flight: Messages that are claimed, by their ``cus_message_id``.
        is_stopping: Whether nothing more is claimed.
        is_paused: Whether nothing is claimed until `resume`.
        concurrency: How many may be claimed at a time. It may be changed at any time, down to 1.
    """

    def __init__(
        self,
        exchange: LedgerExchange,
        flow: FlowControl,
        pace: SendRate,
        shared_rate: SharedRate | None,
        concurrency: int,
        clock: Clock,
    ) -> None:
        self.counts: Counter[MessageState] = Counter()
        self.in_flight: dict[str, StoredMessage] = {}
        self.is_stopping = self.is_paused = False
        self.concurrency = concurrency
        self._exchange = exchange
        self._flow = flow
        self._rate = pace
        self._shared_rate = shared_rate
        self._permits: asyncio.Queue[bool] = asyncio.Queue()  # of it; False where there is none
        self._asking: set[asyncio.Task[None]] = set()  # for one
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
        self._give_up_permits()

    def pause(self) -> None:
        """Claim nothing more until `resume`. What is in flight is settled meanwhile."""
        self.is_paused = True
        self._give_up_permits()

    def resume(self) -> None:
        """Go on after `pause`."""
        self.is_paused = False
        self._drop_permits()
        self.wake()

    def wake(self) -> None:
        """Look at once whether something can be claimed, because the rate or the concurrency has changed."""
        self._wakeup.set()

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
            while self._ready and not (self.is_stopping or self.is_paused):
                if self._shared_rate is not None:
                    if self._has_expired(self._ready[0].message):
                        self._give_back(1)
                        continue
                    if not await self._has_permit(self._shared_rate):
                        break
                yield self._ready.popleft().message
            if self.is_stopping or self.is_paused:
                self._give_back(len(self._ready))

    async def _has_permit(self, rate: SharedRate) -> bool:
        """Wait for a permit for the next message, but not longer than until an exchange is worthwhile.

        All that are ready ask for theirs at once, so that permits come while an exchange is made.
        """
        for _ in range(len(self._ready) - len(self._asking) - self._permits.qsize()):
            asking = asyncio.create_task(self._ask(rate), name="nxotp_async: permit")
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)
        try:
            async with asyncio.timeout(min(_LINGER, self._delay(self._clock.monotonic()))):
                granted = await self._permits.get()
        except TimeoutError:
            return False
        if not granted:
            self._drop_permits()
            self._give_back(len(self._ready))
        return granted

    async def _ask(self, rate: SharedRate) -> None:
        try:
            self._permits.put_nowait(await rate.acquire(math.inf))
        except Exception as error:
            foreign = StoreError(f"the store raised {type(error).__name__}")
            self._flow.store_failed(error if isinstance(error, NxOtpError) else foreign)
            self.is_stopping = self.is_stopping or self._flow.paused is not None
            self._permits.put_nowait(False)

    def _give_up_permits(self) -> None:
        self._drop_permits()
        self._permits.put_nowait(False)
        self.wake()

    def _drop_permits(self) -> None:
        for asking in self._asking:
            asking.cancel()
        while not self._permits.empty():
            self._permits.get_nowait()

    def finish(self) -> None:
        """Write what is known of the messages that are still in flight. To be called once, in the end.

        It blocks the event loop, so that no cancellation can come in between.
        """
        with self._thread:
            self._thread.submit(lambda: None).result()  # until an exchange that is still under way has ended
            self._take_batches()
            self._drop_permits()
            self._give_back(len(self._ready))
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

    def _has_expired(self, message: OtpMessage) -> bool:
        return message.expires_at is not None and message.expires_at.timestamp() <= self._clock.time()

    def _give_back(self, count: int) -> None:
        """Give back so much of what was claimed and is not on its way."""
        for _ in range(count):
            claimed = self._ready.popleft()
            del self.in_flight[str(claimed.message.cus_message_id)]
            now = self._clock.monotonic()
            self._transitions.append(Transition(claimed.key, MessageState.QUEUED, not_before=now))

    async def _refill(self) -> bool:
        """Write transitions and claim messages until some are ready. Return whether some are; else the run is over."""
        while not self._is_over() or await self._has_more():
            if not self._ready:
                await self._until_worthwhile()
            now = self._clock.monotonic()
            if now - self._swept_at >= _SWEEP_INTERVAL:
                await self._sweep()
            wanted, had = self._rate.take(self._free, now) if self._may_claim() else 0, len(self._ready)
            if wanted or self._transitions:
                await self._in_thread(self._put_batch, tuple(self._transitions), wanted, *self._now())
                self._take_batches()
            if wanted:
                self._rate.give_back(wanted - (len(self._ready) - had))
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
        free = self.concurrency - len(self.in_flight)
        if self._shared_rate is None:
            return free
        return min(free, max(1, int(SendRate.AHEAD * self._shared_rate.per_second)) - len(self._ready))

    def _may_claim(self) -> bool:
        has_due = self._next_due is not None and self._next_due <= self._clock.monotonic()
        return self._has_room() and (has_due or not self._exhausted)

    def _has_room(self) -> bool:
        return not (self.is_stopping or self.is_paused) and self._free > 0

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
        if self._has_room():
            wait = self._rate.wait(now)
            if self._exhausted:
                wait = max(wait, math.inf if self._next_due is None else self._next_due - now)
            moments.append(max(now + wait, self._exchanged_at + _LINGER if self.in_flight else now))
        return min(moments) - now
