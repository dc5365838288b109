"""The one connection of each event loop on which a server says which keys have changed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final

from ..clocks import Clock
from ..errors import ConfigurationError, StoreError
from .watching import Watchers

__all__ = ["Listener"]

_log = logging.getLogger("nxotp_async")

_MAX_PAUSE: Final = 2.0  # seconds between two attempts to connect again


class Listener:
    """Listens in each event loop in which somebody waits, and connects again as often as needed.

    Args:
        listen: Connects, and gives the keys that change from then on. Raises `StoreError` if the connection is lost.
        clock: The source of randomness and sleep.
    """

    def __init__(self, listen: Callable[[], AbstractAsyncContextManager[AsyncIterator[str]]], clock: Clock) -> None:
        self._listen = listen
        self._clock = clock
        self._loops: dict[asyncio.AbstractEventLoop, tuple[Watchers, asyncio.Task[None]]] = {}

    def watchers(self) -> Watchers:
        """Return the running loop's watchers, and listen for them."""
        loop = asyncio.get_running_loop()
        listening = self._loops.get(loop)
        if listening is None or listening[1].done():
            for other in [other for other in list(self._loops) if other.is_closed()]:
                self._loops.pop(other, None)
            watchers = Watchers()
            listening = self._loops[loop] = watchers, loop.create_task(self._keep_listening(watchers))
        return listening[0]

    async def _keep_listening(self, watchers: Watchers) -> None:
        failures = 0
        while True:
            try:
                async with self._listen() as keys:
                    failures = 0
                    watchers.wake_all()
                    async for key in keys:
                        watchers.wake(key)
            except ConfigurationError as error:
                watchers.fail(error)
                return
            except Exception as error:
                failures += 1
                if not isinstance(error, StoreError):  # whoever waits would never hear of anything again
                    _log.error("listening to the store failed: %s", type(error).__name__)
            await self._clock.sleep(self._clock.random() * min(_MAX_PAUSE, 0.05 * 2.0 ** min(failures, 10)))

    async def aclose(self) -> None:
        """Stop listening in the running loop, and end its waits."""
        listening = self._loops.pop(asyncio.get_running_loop(), None)
        if listening is None:
            return
        watchers, task = listening
        watchers.fail(StoreError("the store was closed"))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
