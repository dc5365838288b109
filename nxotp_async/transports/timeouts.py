"""A timeout that takes into account that a process can be suspended."""

import asyncio
from types import TracebackType
from typing import Final, Self

__all__ = ["GRACE", "LATE", "LenientTimeout"]

LATE: Final = 0.02  # seconds; a busy event loop is usually less late than this
GRACE: Final = 0.1  # seconds


class LenientTimeout:
    """Like `asyncio.timeout`, but if its timer fires late, it first allows 0.1 s to read what has arrived.

    If a process or its machine was suspended, all its timers are due when it continues. The answers that it waits for
    may already be in the buffers of the sockets.

    Args:
        seconds: The time after which `TimeoutError` is raised, in seconds.
    """

    __slots__ = ("_due", "_scope", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        await self._scope.__aenter__()
        self._due = loop.time() + self._seconds
        self._timer = loop.call_at(self._due, self._expire, loop, LATE)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(kind, error, traceback)

    def _expire(self, loop: asyncio.AbstractEventLoop, tolerated: float) -> None:
        if loop.time() - self._due > tolerated:
            self._timer = loop.call_later(GRACE, self._expire, loop, float("inf"))
        else:
            self._scope.reschedule(loop.time())
