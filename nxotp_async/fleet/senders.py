"""A sender, as all workers of a fleet see it: how fast it may go, and whether it may go at all."""

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Final

import attrs
import orjson
from cattrs.preconf.orjson import make_converter

from ..clocks import Clock
from ..errors import NxOtpError, StoreError
from ..pacing import SharedRate
from ..stores import Store
from ..throttling import AdaptiveRate
from .queues import Queue

__all__ = ["PROBE_EVERY", "Sender", "SenderState", "change_sender", "read_sender"]

_log = logging.getLogger("nxotp_async")

PROBE_EVERY: Final = 30.0
"""Seconds between two messages that find out whether a paused sender works again."""
_FOREVER: Final = 3650 * 86_400.0  # seconds
_CHUNK: Final = 0.04  # seconds' worth of messages that go at once
_converter = make_converter()


@attrs.frozen
class SenderState:
    """What the workers share of a sender, pure. All times are in seconds since the epoch.

    Attributes:
        pace: The rate, since the vendor throttled for the first time.
        paused: Why nothing goes, or ``None``.
        paused_at: Since when.
        probe_at: When the next message may find out whether it works again.
        version: The version of this form.
    """

    pace: AdaptiveRate | None = None
    paused: str | None = None
    paused_at: float = 0.0
    probe_at: float = 0.0
    version: int = 1

    def rate(self, limit: float, now: float) -> float:
        """Return how many messages may go in a second."""
        return limit if self.pace is None else min(limit, self.pace.present(now))

    def throttled(self, limit: float, sent_at: float, now: float) -> "SenderState":
        """Return the state after the vendor has throttled a message."""
        pace = AdaptiveRate(limit, limit, now) if self.pace is None else attrs.evolve(self.pace, limit=limit)
        lowered = pace.throttled(sent_at, now)
        return self if lowered is pace else attrs.evolve(self, pace=lowered)

    def pause(self, reason: str, now: float) -> "SenderState":
        """Return the state after an answer that no message of this sender can pass."""
        since = now if self.paused is None else self.paused_at
        return attrs.evolve(self, paused=reason, paused_at=since, probe_at=now + PROBE_EVERY)

    def probe(self, now: float) -> "SenderState":
        """Return the state after one message was let through, or the same one where it is too early for that."""
        if self.paused is None or now < self.probe_at:
            return self
        return attrs.evolve(self, probe_at=now + PROBE_EVERY)

    def resume(self) -> "SenderState":
        """Return the state in which messages go again."""
        return attrs.evolve(self, paused=None)

    @classmethod
    def load(cls, stored: bytes | None) -> "SenderState":
        """Return the state that is stored."""
        return cls() if stored is None else _converter.structure(orjson.loads(stored), cls)

    def dump(self) -> bytes:
        """Return what is stored of it."""
        return orjson.dumps(_converter.unstructure(self))


def _key(sender: str) -> str:
    return f"fleet:{sender}"


async def read_sender(store: Store, name: str) -> SenderState:
    """Return the state of a sender.

    Raises:
        StoreError: The store does not answer in time.
    """
    return SenderState.load(await store.get(_key(name)))


class Sender:
    """A sender, as one worker sees it. It is the `Pace` of the worker's `FlowControl`.

    Args:
        store: What the workers share.
        name: The sender's name.
        limit: Messages a second of the whole fleet.
        clock: Sources of time and chance.
    """

    def __init__(self, store: Store, name: str, limit: float, clock: Clock) -> None:
        self.name = name
        self._store = store
        self._limit = limit
        self._clock = clock
        self._state = SenderState()
        self._held_until = -math.inf  # of this worker alone, by the clock that never jumps
        self._is_probing = False
        self._changed = asyncio.Event()
        self._publishing: set[asyncio.Task[None]] = set()

    async def follow(self) -> None:
        """Learn of every change, for as long as the worker runs."""
        seen: bytes | None = b""
        while True:
            try:
                seen = await self._store.wait(_key(self.name), seen, timeout=None)
            except StoreError:
                await self._clock.sleep(1.0)
            else:
                self._take(SenderState.load(seen))

    def _take(self, state: SenderState) -> None:
        if state.paused != self._state.paused:
            _log.warning("sender %s: %s", self.name, f"paused: {state.paused}" if state.paused else "goes on")
        self._state = state
        self._changed.set()

    # ------------------------------------------------------------------------------------------ pace

    @property
    def rate(self) -> float:
        """Messages a second of the whole fleet at present."""
        return self._state.rate(self._limit, self._clock.time())

    @property
    def paused(self) -> str | None:
        """Why nothing goes, or ``None``."""
        return self._state.paused

    def throttled(self, sent_at: float, now: float) -> bool:
        """Lower the fleet's rate, because the vendor throttles; return whether it fell."""
        before, age, present = self._state, now - sent_at, self._clock.time()
        self._state = before.throttled(self._limit, present - age, present)
        if self._state is before:
            return False
        self._publish(lambda state: state.throttled(self._limit, present - age, present))
        return True

    def hold(self, until: float) -> None:
        """Let nothing of this worker go before this time, by the clock that never jumps."""
        self._held_until = max(self._held_until, until)

    def pause(self, error: NxOtpError) -> None:
        """Let nothing of the whole fleet go, except for a message now and then that finds out whether it may."""
        now = self._clock.time()
        self._take(self._state.pause(str(error), now))
        self._publish(lambda state: state.pause(str(error), now))

    def resume(self) -> None:
        """Let the messages of the whole fleet go again."""
        if self._state.paused is not None:
            self._take(self._state.resume())
            self._publish(SenderState.resume)

    def _publish(self, change: Callable[[SenderState], SenderState]) -> None:
        task = asyncio.create_task(self._update(change), name="nxotp_async: sender")
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def _update(self, change: Callable[[SenderState], SenderState]) -> None:
        try:
            await change_sender(self._store, self.name, change)
        except NxOtpError as error:
            _log.error("sender %s: the other workers do not hear of a change: %s", self.name, error)

    # ------------------------------------------------------------------------------------------ permits

    def chunk(self) -> int:
        """Return how many messages may go at once."""
        return max(1, int(self.rate * _CHUNK))

    @property
    def is_shut(self) -> bool:
        """Whether the sender is paused, and none of its messages may find out whether it works again."""
        return self._state.paused is not None and not self._is_probing

    async def may_go(self, wanted: int) -> int:
        """Wait until messages may go, and return how many of those that are wanted."""
        while True:
            self._changed.clear()
            wait = self._held_until - self._clock.monotonic()
            if wait <= 0:
                self._is_probing = self._state.paused is not None and await self._probe()
                if self._state.paused is None:
                    return wanted
                if self._is_probing:
                    return 1
                wait = max(0.1, self._state.probe_at - self._clock.time())
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _probe(self) -> bool:
        """Return whether this worker may send the one message that finds out whether the sender works again."""
        now = self._clock.time()
        if now < self._state.probe_at:
            return False
        was_first = False

        def probe(state: SenderState) -> SenderState:
            nonlocal was_first
            probed = state.probe(now)
            was_first = probed is not state
            return probed

        try:
            self._state = await change_sender(self._store, self.name, probe)
        except StoreError:
            await self._clock.sleep(1.0)
        return was_first

    async def permits(self, count: int, patience: float, queue: Queue) -> bool:
        """Wait for permits of the shared rate, and return whether they came within so many seconds."""
        background = queue is Queue.BULK
        rate = SharedRate(self._store, f"fleet:{self.name}", self.rate, background=background, clock=self._clock)
        try:
            return await rate.acquire(patience, count)
        except NxOtpError as error:
            _log.warning("sender %s: no permit of the rate: %s", self.name, error)
            self.hold(self._clock.monotonic() + 0.5 + self._clock.random())
            await self.may_go(count)
            return await self.permits(count, patience - 1.0, queue)


async def change_sender(store: Store, name: str, change: Callable[[SenderState], SenderState]) -> SenderState:
    """Change the state of a sender for all workers, and return the new one.

    Raises:
        StoreError: The store does not answer in time.
    """
    value = await store.update(_key(name), lambda seen: change(SenderState.load(seen)).dump(), ttl=_FOREVER)
    return SenderState.load(value)
