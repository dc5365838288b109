"""What became of accepted messages: status callbacks paired with the sends they belong to."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, Protocol, Self
from weakref import WeakSet

import attrs

from .callbacks import StatusEvent, advances, reaches
from .clocks import Clock
from .results import SendResult, SendStatus

__all__ = ["DeliveryState", "DeliveryTracker", "MemoryStatusStore", "StatusStore"]

_log = logging.getLogger("nxotp_async")

_POLL_INTERVAL: Final = 1.0  # seconds
_MAX_UNREAD_EVENTS: Final = 10_000


@attrs.frozen
class DeliveryState:
    """How far one message has come.

    Attributes:
        ids: What it is called by: its ``cus_message_id`` and the vendor's id, as far as they are known.
        status: ``queued``, ``sent``, ``delivered``, ``read``, ``failed`` or ``deleted``.
        send_status: What is known of the send, or ``None`` before its answer came. A callback makes it accepted,
            whatever the answer was: it proves that the message went out.
        updated_at: When the status came to be, by the vendor's clock, or ``None``.
        errors: Why it failed, as the vendor tells it.
    """

    ids: frozenset[str]
    status: str = "queued"
    send_status: SendStatus | None = None
    updated_at: datetime | None = None
    errors: tuple[Any, ...] = ()

    def after(self, event: StatusEvent) -> "DeliveryState":
        """Return the state when this event is taken in."""
        known = attrs.evolve(self, send_status=SendStatus.ACCEPTED)
        if not advances(self.status, event.status):
            return known
        return attrs.evolve(known, status=event.status, updated_at=event.timestamp, errors=event.errors)

    def has_come_to(self, wanted: str) -> bool:
        """Return whether it has come as far as wanted, or will come no further."""
        is_over = self.send_status in (SendStatus.REJECTED, SendStatus.NOT_SENT)
        return is_over or reaches(self.status, wanted)


class StatusStore(Protocol):
    """Where a tracker keeps its states. One that several processes share lets any of them receive the callbacks."""

    async def get(self, message_id: str) -> DeliveryState | None:
        """Return the state of the message that is called by this id, or ``None``."""
        ...

    async def put(self, message_id: str, state: DeliveryState) -> None:
        """Keep the state under this id."""
        ...


class MemoryStatusStore:
    """States in memory, bounded: the oldest are forgotten first.

    Args:
        max_entries: How many ids are kept; a message may have two.
        max_age: Seconds since the last news after which an id is forgotten.
        clock: The source of time.
    """

    def __init__(self, *, max_entries: int = 200_000, max_age: float = 86_400.0, clock: Clock | None = None) -> None:
        self._entries: OrderedDict[str, tuple[float, DeliveryState]] = OrderedDict()
        self._max_entries = max_entries
        self._max_age = max_age
        self._monotonic = (clock or Clock()).monotonic

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, message_id: str) -> DeliveryState | None:
        """Return the state of the message that is called by this id, or ``None``."""
        self._forget()
        entry = self._entries.get(message_id)
        return None if entry is None else entry[1]

    async def put(self, message_id: str, state: DeliveryState) -> None:
        """Keep the state under this id."""
        self._entries[message_id] = (self._monotonic(), state)
        self._entries.move_to_end(message_id)
        self._forget()

    def _forget(self) -> None:
        too_old = self._monotonic() - self._max_age
        while self._entries:
            at, _ = next(iter(self._entries.values()))
            if at > too_old and len(self._entries) <= self._max_entries:
                return
            self._entries.popitem(last=False)


class DeliveryTracker:
    """Pairs status callbacks with the sends they belong to, whichever comes first.

    Callbacks may come repeatedly, out of order, and before the send's own answer. One tracker belongs to one event
    loop; it needs no closing.

    Args:
        store: Where the states are. By default in memory: 200,000 ids for a day at the most.
    """

    def __init__(self, store: StatusStore | None = None) -> None:
        self._store = MemoryStatusStore() if store is None else store
        self._is_shared = store is not None
        self._lock = asyncio.Lock()
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._subscriptions: WeakSet[_Subscription] = WeakSet()

    async def add(self, result: SendResult) -> DeliveryState:
        """Take in the answer to a send, and return how far the message has come: callbacks may have overtaken it."""
        ids = frozenset(filter(None, (result.message.cus_message_id, result.message_id)))
        async with self._lock:
            state = DeliveryState(ids, send_status=result.status)
            for message_id in ids:
                early = await self._store.get(message_id)
                if early is None:
                    continue
                state = attrs.evolve(state, ids=state.ids | early.ids)
                if advances(state.status, early.status):
                    state = attrs.evolve(state, status=early.status, updated_at=early.updated_at, errors=early.errors)
                if early.send_status is SendStatus.ACCEPTED:
                    state = attrs.evolve(state, send_status=SendStatus.ACCEPTED)
            await self._keep(state, *ids)
        return state

    async def record(self, event: StatusEvent) -> bool:
        """Take in a callback's event, and return whether it was news."""
        async with self._lock:
            before = await self._store.get(event.message_id)
            state = (before or DeliveryState(frozenset({event.message_id}))).after(event)
            is_news = before is None or state != before
            if is_news:
                await self._keep(state, event.message_id)
        if is_news:
            for subscription in self._subscriptions:
                subscription.put(event)
        return is_news

    async def _keep(self, state: DeliveryState, *looked_up: str) -> None:
        # Those it was looked up by come last: where the store fails before, the next try finds it old, and is news.
        for message_id in (*state.ids.difference(looked_up), *looked_up):
            await self._store.put(message_id, state)
        for message_id in state.ids:
            for waiter in self._waiters.get(message_id, ()):
                if not waiter.done():
                    waiter.set_result(None)

    async def state(self, message_id: str) -> DeliveryState | None:
        """Return how far a message has come, by its ``cus_message_id`` or the vendor's id; ``None`` if unheard of."""
        return await self._store.get(message_id)

    async def wait(self, message_id: str, status: str = "delivered", *, timeout: float | None = None) -> DeliveryState:
        """Wait until a message has come as far as this status, or will come no further; the state tells which.

        With a store of your own, which other processes may write to, it is looked at every second.

        Args:
            message_id: The message's ``cus_message_id``, or the vendor's id.
            status: ``sent``, ``delivered`` or ``read``.
            timeout: Seconds to wait; ``None`` waits for ever.

        Raises:
            TimeoutError: It has not come so far.
            ValueError: There is no such status to wait for.
        """
        if status not in ("sent", "delivered", "read"):
            raise ValueError("status must be sent, delivered or read")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(message_id, set())
        waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    state = await self._store.get(message_id)
                    if state is not None and state.has_come_to(status):
                        return state
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_POLL_INTERVAL if self._is_shared else None):
                            await asyncio.shield(waiter)
                    if waiter.done():
                        waiters.discard(waiter)
                        waiter = asyncio.get_running_loop().create_future()
                        waiters.add(waiter)
        finally:
            waiters.discard(waiter)
            if not waiters:
                self._waiters.pop(message_id, None)

    def events(self) -> AsyncIterator[StatusEvent]:
        """Return the events that are news, from now on. Who reads too slowly misses the oldest."""
        subscription = _Subscription()
        self._subscriptions.add(subscription)
        return subscription


class _Subscription:
    """Events on their way to one reader. It ends when nobody refers to it any more."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[StatusEvent] = asyncio.Queue(_MAX_UNREAD_EVENTS)

    def put(self, event: StatusEvent) -> None:
        if self._events.full():
            self._events.get_nowait()
            _log.warning("a reader of delivery events is too slow, and misses one")
        self._events.put_nowait(event)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StatusEvent:
        return await self._events.get()
