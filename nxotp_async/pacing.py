"""A rate that several processes share."""

from typing import Final

from .checks import integer, number, validate
from .clocks import Clock
from .errors import ConfigurationError
from .stores import Store, hashed_key

__all__ = ["SharedRate"]

_NAMESPACE: Final = "rate"
_HEADROOM: Final = 0.25  # of a permit's time: how late a permit of the background may be used


class SharedRate:
    """A limit of messages a second for all clients that give the same store and name, in any number of processes.

    Permits are reserved on the store's clock, one after the other: a caller learns in one round trip when its permit is
    due, and sleeps until then. Permits in the background are for bulk loads, and are what the others leave: they queue
    under a name of their own, one round trip more, and take a permit only if it is free at that moment. So nobody else
    waits behind them longer than the time of one permit and a quarter.

    Args:
        store: What the processes share.
        name: What the rate is called. All who use it give the same ``per_second`` and ``burst``.
        per_second: Messages a second.
        burst: How many messages may be sent at once after a time without any. Default: those of a hundredth of a
            second, at least one.
        background: Whether to take only what others leave.
        clock: The source of sleep and time.

    Raises:
        ConfigurationError: ``per_second`` or ``burst`` is wrong.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        per_second: float,
        *,
        burst: int | None = None,
        background: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.per_second = validate("per_second", number(at_least=0.001), per_second, ConfigurationError)
        self._burst = (
            max(1.0, per_second / 100)
            if burst is None
            else validate("burst", integer(at_least=1), burst, ConfigurationError)
        )
        self._store = store
        self._key = hashed_key(_NAMESPACE, name)
        self._background = background
        self._clock = clock or Clock()

    def __repr__(self) -> str:
        return f"SharedRate(per_second={self.per_second:g}, background={self._background})"

    async def acquire(self, patience: float, count: int = 1) -> bool:
        """Wait for permits, and return whether they came within so many seconds; if not, none was taken.

        Args:
            patience: Seconds to wait at most.
            count: How many. They are used at once, when as much time has passed as they take one after the other. In
                the background, others may wait behind them twice as long as that.

        Raises:
            StoreError: The store does not answer in time.
            ConfigurationError: The store cannot be used as it is configured.
        """
        if not self._background:
            return await self._take(self._key, patience, count)
        until = self._clock.monotonic() + patience
        while await self._take(f"{self._key}:background", until - self._clock.monotonic(), count):
            if await self._take(self._key, (count - 1 + _HEADROOM) / self.per_second, count):
                return True
        return False

    async def _take(self, key: str, patience: float, count: int) -> bool:
        burst = max(self._burst, count)
        wait = await self._store.reserve(key, count, rate=self.per_second, burst=burst, patience=patience)
        if wait:
            await self._clock.sleep(wait)
        return wait is not None
