"""A timeout that a frozen process does not run into."""

import asyncio
from types import TracebackType
from typing import Final, Self

__all__ = ["LenientTimeout"]

_LATE: Final = 0.02  # seconds: a loop that is merely busy is less late than that, most of the time
_GRACE: Final = 0.1  # seconds


class LenientTimeout:
    """Like `asyncio.timeout`, but where its timer fires late, it first gives what has arrived 0.1 s to be read.

    A process that was stopped, or whose machine was paused, finds all its timers due when it goes on. The answers it
    waited for may lie in the sockets' buffers by then.

    Args:
        seconds: After how many the block is ended with `TimeoutError`.
    """

    __slots__ = ("_due", "_scope", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        await self._scope.__aenter__()
        self._due = loop.time() + self._seconds
        self._timer = loop.call_at(self._due, self._expire, loop, _LATE)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(kind, error, traceback)

    def _expire(self, loop: asyncio.AbstractEventLoop, tolerated: float) -> None:
        if loop.time() - self._due > tolerated:
            self._timer = loop.call_later(_GRACE, self._expire, loop, float("inf"))
        else:
            self._scope.reschedule(loop.time())
