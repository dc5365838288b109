"""The rate limit of one event loop: so many messages in any second, evenly spaced."""

import asyncio
import math
from collections import deque
from typing import Final

from .clocks import Clock

__all__ = ["RateLimiter"]

_SLACK: Final = 1.01  # so much longer is a second here: messages do not all take the same time to the server
_CATCH_UP: Final = 0.1  # seconds of permits that came late, for example because a timer did, and are given afterwards
_LONGEST_LOG: Final = 1000  # permits
_RESOLUTION: Final = 1e-6  # seconds


class RateLimiter:
    """Gives permits, evenly spaced, and never more than ``per_second`` of them in any second, also after a pause.

    Permits are given in the order in which they were asked for. It belongs to one event loop.

    Args:
        per_second: Permits a second; also less than one.
        clock: The source of time and sleep.
    """

    def __init__(self, per_second: float, clock: Clock) -> None:
        count = max(1, min(int(per_second), _LONGEST_LOG))
        self._clock = clock
        self._window = _SLACK * count / per_second  # seconds for the permits of the log
        self._interval = self._window / count
        self._given: deque[float] = deque(maxlen=count)
        self._next = -math.inf
        self._turn = asyncio.Lock()

    async def acquire(self) -> None:
        """Wait for a permit."""
        waited = self._turn.locked()
        async with self._turn:
            while (wait := self._wait(now := self._clock.monotonic())) > _RESOLUTION:
                waited = True
                await self._clock.sleep(wait)
            # Only who has waited may be late. A pause in which nobody wanted a permit saves none up.
            self._next = max(self._next, now - _CATCH_UP if waited else now) + self._interval
            self._given.append(now)

    def _wait(self, now: float) -> float:
        """Return the seconds until a permit may be given."""
        is_full = len(self._given) == self._given.maxlen
        return max(self._next, self._given[0] + self._window if is_full else -math.inf) - now
