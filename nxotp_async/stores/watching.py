"""The tasks of one event loop that wait for a key to change, and those that follow all changes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, Self, TypeVar
from weakref import WeakSet

from ..clocks import Clock
from ..errors import NxOtpError, StoreError

__all__ = ["Changes", "Watchers", "wait_until"]

_T = TypeVar("_T")

_log = logging.getLogger("nxotp_async")

_MAX_UNREAD: Final = 10_000


class Watchers:
    """Who waits for which key. It belongs to one event loop.

    Attributes:
        failure: Why no change will be heard of any more, or ``None``.
    """

    def __init__(self) -> None:
        self.failure: NxOtpError | None = None
        self._events: dict[str, set[asyncio.Event]] = {}
        self._followers: WeakSet[Changes] = WeakSet()

    def __len__(self) -> int:
        """Return how many keys are waited for."""
        return len(self._events)

    @contextmanager
    def watch(self, key: str) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever the key may have changed."""
        event = asyncio.Event()
        self._events.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            events = self._events[key]
            events.discard(event)
            if not events:
                del self._events[key]

    def follow(self, prefix: str) -> "Changes":
        """Return the keys with this prefix that change from now on."""
        changes = Changes(prefix)
        self._followers.add(changes)
        return changes

    def wake(self, key: str) -> None:
        """Tell everybody that this key has changed."""
        for event in self._events.get(key, ()):
            event.set()
        for changes in self._followers:
            changes.put(key)

    def wake_all(self) -> None:
        """Have everybody who waits look once: a change may have been missed."""
        for events in self._events.values():
            for event in events:
                event.set()

    def fail(self, failure: NxOtpError) -> None:
        """Raise this for everybody who waits, now and from now on."""
        self.failure = failure
        self.wake_all()
        for changes in self._followers:
            changes.fail(failure)


class Changes:
    """The keys that have changed and that its reader has not read yet. A key that changes again meanwhile comes once.

    It ends when its reader is garbage-collected.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._keys: dict[str, None] = {}
        self._has_news = asyncio.Event()
        self._failure: NxOtpError | None = None

    def put(self, key: str) -> None:
        """Add a key, if it has the prefix."""
        if not key.startswith(self._prefix):
            return
        if len(self._keys) >= _MAX_UNREAD and key not in self._keys:
            del self._keys[next(iter(self._keys))]
            _log.warning("a reader of a store's changes is too slow and misses one")
        self._keys[key] = None
        self._has_news.set()

    def fail(self, failure: NxOtpError) -> None:
        """Have the reader raise this."""
        self._failure = failure
        self._has_news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while not self._keys:
            if self._failure is not None:
                raise self._failure
            self._has_news.clear()
            await self._has_news.wait()
        key = next(iter(self._keys))
        del self._keys[key]
        return key


async def wait_until(
    watchers: Watchers,
    key: str,
    read: Callable[[], Awaitable[_T]],
    is_enough: Callable[[_T], bool],
    timeout: float | None,
    clock: Clock,
) -> _T:
    """Wait until what is read is enough, and return it. It is read once, and again whenever it may have changed.

    Args:
        watchers: Who is told of changes.
        key: Of what.
        read: Reads it. Where it raises `StoreError`, it is read again after a pause.
        is_enough: Whether that is what is waited for.
        timeout: Seconds to wait; ``None`` means without limit.
        clock: The source of randomness.

    Raises:
        TimeoutError: It has not come in time.
    """
    async with asyncio.timeout(timeout):
        with watchers.watch(key) as changed:
            while True:
                changed.clear()
                if watchers.failure is not None:
                    raise watchers.failure
                patience = None
                try:
                    value = await read()
                except StoreError:
                    patience = 0.5 + clock.random()
                else:
                    if is_enough(value):
                        return value
                await _set_within(changed, patience)


async def _set_within(event: asyncio.Event, seconds: float | None) -> None:
    """Wait until the event is set, or for so long."""
    try:
        async with asyncio.timeout(seconds) as limit:
            await event.wait()
    except TimeoutError:
        if not limit.expired():
            raise
