"""One object for each event loop, opened when it is first needed and closed with the loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

__all__ = ["PerLoop"]

_T = TypeVar("_T")


class PerLoop(Generic[_T]):
    """What several event loops need one of each.

    Args:
        open: Opens one for the running loop.
    """

    def __init__(self, open: Callable[[], AbstractAsyncContextManager[_T]]) -> None:  # noqa: A002 - it is not a file
        self._open = open
        self._slots: dict[asyncio.AbstractEventLoop, _Slot[_T]] = {}

    async def get(self) -> _T:
        """Return the running loop's, opened if it has none yet. What opening raises is raised."""
        loop = asyncio.get_running_loop()
        slot = self._slots.get(loop)
        if slot is None:
            for other in [other for other in list(self._slots) if other.is_closed()]:
                self._slots.pop(other, None)
            slot = self._slots[loop] = _Slot()
        if slot.opened is not None:
            return slot.opened[0]
        async with slot.lock:
            if slot.opened is None:
                lifetime = self._live()
                slot.opened = (await anext(lifetime), lifetime)
            return slot.opened[0]

    async def aclose(self) -> None:
        """Close the running loop's. A later `get` opens another."""
        slot = self._slots.pop(asyncio.get_running_loop(), None)
        if slot is not None:
            async with slot.lock:
                if slot.opened is not None:
                    await slot.opened[1].aclose()

    async def _live(self) -> AsyncGenerator[_T]:
        # An asynchronous generator, because asyncio.run closes those that nobody has closed.
        async with self._open() as opened:
            yield opened


class _Slot(Generic[_T]):
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.opened: tuple[_T, AsyncGenerator[_T]] | None = None
