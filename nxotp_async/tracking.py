"""The delivery status of messages: status callbacks matched with the sends that they are about."""

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
    """What is known about one message.

    Attributes:
        ids: Its known ids: the ``cus_message_id`` and the vendor's id.
        status: ``queued``, ``sent``, ``delivered``, ``read``, ``failed`` or ``deleted``.
        send_status: The status of the send, or ``None`` before it is known. Any callback changes it to accepted,
            because it proves that the vendor accepted the message.
        updated_at: When the message got this status, by the vendor's clock, or ``None``.
        errors: The vendor's errors, if it failed.
    """

    ids: frozenset[str]
    status: str = "queued"
    send_status: SendStatus | None = None
    updated_at: datetime | None = None
    errors: tuple[Any, ...] = ()

    def after(self, event: StatusEvent) -> "DeliveryState":
        """Return the state after this event."""
        accepted = attrs.evolve(self, send_status=SendStatus.ACCEPTED)
        if not advances(self.status, event.status):
            return accepted
        return attrs.evolve(accepted, status=event.status, updated_at=event.timestamp, errors=event.errors)

    def has_reached(self, wanted: str) -> bool:
        """Return whether the message has reached the wanted status, or can no longer reach it."""
        was_not_accepted = self.send_status in (SendStatus.REJECTED, SendStatus.NOT_SENT)
        return was_not_accepted or reaches(self.status, wanted)


class StatusStore(Protocol):
    """Where a tracker stores states. If processes share a store, each of them can receive the callbacks."""

    async def get(self, message_id: str) -> DeliveryState | None:
        """Return the state of the message with this id, or ``None``."""
        ...

    async def put(self, message_id: str, state: DeliveryState) -> None:
        """Store the state under this id."""
        ...


class MemoryStatusStore:
    """Stores states in memory. Its size is limited: the oldest states are removed first.

    Args:
        max_entries: The maximum number of ids; a message may have two.
        max_age: Seconds since its last change after which an id is removed.
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
        """Return the state of the message with this id, or ``None``."""
        self._evict()
        entry = self._entries.get(message_id)
        return None if entry is None else entry[1]

    async def put(self, message_id: str, state: DeliveryState) -> None:
        """Store the state under this id."""
        self._entries[message_id] = (self._monotonic(), state)
        self._entries.move_to_end(message_id)
        self._evict()

    def _evict(self) -> None:
        too_old = self._monotonic() - self._max_age
        while self._entries:
            at, _ = next(iter(self._entries.values()))
            if at > too_old and len(self._entries) <= self._max_entries:
                return
            self._entries.popitem(last=False)


class DeliveryTracker:
    """Matches status callbacks with the sends that they are about, whichever comes first.

    Callbacks may come more than once, out of order, and before the answer to the send. A tracker belongs to one event
    loop; it need not be closed.

    Args:
        store: Where the states are stored. Default: in memory, at most 200,000 ids for a day.
    """

    def __init__(self, store: StatusStore | None = None) -> None:
        self._store = MemoryStatusStore() if store is None else store
        self._is_shared = store is not None
        self._lock = asyncio.Lock()
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._subscriptions: WeakSet[_Subscription] = WeakSet()

    async def add(self, result: SendResult) -> DeliveryState:
        """Add the result of a send, and return the message's state, which includes callbacks that came before."""
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
            await self._put(state, *ids)
        return state

    async def record(self, event: StatusEvent) -> bool:
        """Add the event of a callback, and return whether it changed the message's state."""
        async with self._lock:
            before = await self._store.get(event.message_id)
            state = (before or DeliveryState(frozenset({event.message_id}))).after(event)
            is_new = before is None or state != before
            if is_new:
                await self._put(state, event.message_id)
        if is_new:
            for subscription in self._subscriptions:
                subscription.put(event)
        return is_new

    async def _put(self, state: DeliveryState, *looked_up: str) -> None:
        # The ids that were looked up come last. If the store fails before, the event is still new at the next try.
        for message_id in (*state.ids.difference(looked_up), *looked_up):
            await self._store.put(message_id, state)
        for message_id in state.ids:
            for waiter in self._waiters.get(message_id, ()):
                if not waiter.done():
                    waiter.set_result(None)

    async def state(self, message_id: str) -> DeliveryState | None:
        """Return the state of a message, by its ``cus_message_id`` or the vendor's id; ``None`` if it is not known."""
        return await self._store.get(message_id)

    async def wait(self, message_id: str, status: str = "delivered", *, timeout: float | None = None) -> DeliveryState:
        """Wait until a message has reached this status, or can no longer reach it; see ``status`` of the state.

        A store of your own is polled every second, because other processes may write to it.

        Args:
            message_id: The message's ``cus_message_id``, or the vendor's id.
            status: ``sent``, ``delivered`` or ``read``.
            timeout: Seconds to wait; ``None`` means without limit.

        Raises:
            TimeoutError: The message has not reached the status in time.
            ValueError: ``status`` is none of these.
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
                    if state is not None and state.has_reached(status):
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
        """Return the events that change a state, from now on. A reader that is too slow misses the oldest."""
        subscription = _Subscription()
        self._subscriptions.add(subscription)
        return subscription


class _Subscription:
    """The events that one reader has not read yet. It ends when the reader is garbage-collected."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[StatusEvent] = asyncio.Queue(_MAX_UNREAD_EVENTS)

    def put(self, event: StatusEvent) -> None:
        if self._events.full():
            self._events.get_nowait()
            _log.warning("a reader of delivery events is too slow and misses one")
        self._events.put_nowait(event)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StatusEvent:
        return await self._events.get()
