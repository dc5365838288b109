"""A store for one process."""

import asyncio
import threading
from collections import OrderedDict

from ..clocks import Clock
from ..errors import StoreError
from .base import BaseStore
from .watching import Watchers

__all__ = ["MemoryStore"]


class MemoryStore(BaseStore):
    """Keeps values in the memory of this process, for tests and for applications of one process.

    Args:
        max_entries: The maximum number of values; the ones that were written first are removed first.
        clock: The source of time.
    """

    def __init__(self, *, max_entries: int = 200_000, clock: Clock | None = None) -> None:
        super().__init__(timeout=5.0, clock=clock)
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()  # when it expires, and the value
        self._rates: dict[str, float] = {}
        self._loops: dict[asyncio.AbstractEventLoop, Watchers] = {}

    def __repr__(self) -> str:
        return f"MemoryStore(max_entries={self._max_entries})"

    def __len__(self) -> int:
        return len(self._entries)

    async def _read(self, key: str) -> bytes | None:
        with self._lock:
            return self._current(key)

    def _current(self, key: str) -> bytes | None:
        expires_at, value = self._entries.get(key, (0.0, None))
        return value if self._clock.monotonic() < expires_at else None

    async def _replace(self, key: str, seen: bytes | None, value: bytes | None, ttl: float) -> bool:
        with self._lock:
            if self._current(key) != seen:
                return False
            self._entries.pop(key, None)
            if value is not None:
                self._entries[key] = (self._clock.monotonic() + ttl, value)
            self._remove_old()
            loops = list(self._loops.items())
        running = asyncio.get_running_loop()
        for loop, watchers in loops:
            if loop is running:
                watchers.wake(key)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(watchers.wake, key)
        return True

    def _remove_old(self) -> None:
        now = self._clock.monotonic()
        while self._entries:
            key, (expires_at, _) = next(iter(self._entries.items()))
            if now < expires_at and len(self._entries) <= self._max_entries:
                return
            del self._entries[key]

    async def _reserve(self, key: str, count: int, rate: float, burst: float, patience: float) -> float | None:
        with self._lock:
            now = self._clock.monotonic()
            backlog = max(0.0, self._rates.get(key, now) - now)
            wait = max(0.0, backlog + (count - burst) / rate)
            if wait > patience:
                return None
            if len(self._rates) > self._max_entries:
                self._rates = {name: at for name, at in self._rates.items() if at > now}
            self._rates[key] = now + backlog + count / rate
            return wait

    def _watchers(self) -> Watchers:
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._loops:
                self._loops = {other: watchers for other, watchers in self._loops.items() if not other.is_closed()}
                self._loops[loop] = Watchers()
            return self._loops[loop]

    async def aclose(self) -> None:
        """End the waits of the running loop. The values stay."""
        with self._lock:
            watchers = self._loops.pop(asyncio.get_running_loop(), None)
        if watchers is not None:
            watchers.fail(StoreError("the store was closed"))
