"""How late the event loop gets round to what is due."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from ..clocks import Clock
from .histogram import Histogram

__all__ = ["watching_the_loop"]

_INTERVAL: Final = 0.020  # seconds


@asynccontextmanager
async def watching_the_loop(clock: Clock) -> AsyncIterator[Histogram]:
    """Measure the event loop's lag for as long as the block runs.

    A timer is set fifty times a second; the lag is how much later than asked it fires. One long lag stands for all
    timers it held up, so that it cannot hide as a single sample.
    """
    lag = Histogram()

    async def tick() -> None:
        while True:
            set_at = clock.monotonic()
            await clock.sleep(_INTERVAL)
            lag.record_delay(clock.monotonic() - set_at - _INTERVAL, _INTERVAL)

    ticker = asyncio.create_task(tick())
    try:
        yield lag
    finally:
        ticker.cancel()
        await asyncio.wait([ticker])
