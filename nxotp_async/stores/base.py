"""What every store can do, and what all of them do alike."""

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count as count_from
from typing import Final, Protocol, Self

import attrs

from ..clocks import Clock
from ..errors import StoreError
from .watching import Changes, Watchers, wait_until

__all__ = ["BaseStore", "Migration", "Store", "hashed_key", "time_limit"]


class Store(Protocol):
    """Where processes keep what they have to agree on: small values by key, each for a limited time.

    Keys are short texts; a value is at most some kilobytes. A store may be used in several event loops and threads.
    Every method but `changes` raises `StoreError` if the store does not answer in time, and `ConfigurationError` if it
    cannot be used as it is configured.
    """

    async def get(self, key: str) -> bytes | None:
        """Return the value of a key, or ``None``."""
        ...

    async def update(self, key: str, change: Callable[[bytes | None], bytes | None], *, ttl: float) -> bytes | None:
        """Change a value atomically, and return the new one.

        Args:
            key: The key.
            change: Returns the new value for the current one; ``None`` means that there is none. It may be called
                several times, so it must not do anything else. If it returns the value that it was given, nothing is
                written, and the value expires when it would have.
            ttl: Seconds after which the new value expires.
        """
        ...

    async def wait(self, key: str, seen: bytes | None, *, timeout: float | None) -> bytes | None:
        """Wait until a value differs from the one that was seen, and return it. A value that expires wakes nobody.

        Args:
            key: The key.
            seen: The value that is known already.
            timeout: Seconds to wait; ``None`` means without limit. An outage of the store does not end the wait.

        Raises:
            TimeoutError: It has not changed in time.
        """
        ...

    async def reserve(self, key: str, count: int, *, rate: float, burst: float, patience: float) -> float | None:
        """Reserve permits of a rate that is shared, by the store's clock.

        Args:
            key: The name of the rate. Whoever uses it gives the same ``rate`` and ``burst``.
            count: How many permits.
            rate: Permits a second.
            burst: How many permits may be used at once after a time without any; at least 1.
            patience: How many seconds the caller would wait.

        Returns:
            The seconds until all of the permits may be used; they are the caller's. ``None`` if this is more than
            ``patience``; then nothing is reserved.
        """
        ...

    def changes(self, prefix: str) -> AsyncIterator[str]:
        """Return the keys with this prefix that change from now on, in all processes.

        A key that changes several times before it is read comes once, a reader that is more than 10,000 keys behind
        misses the oldest, and what changes while the store is away may be missed.
        """
        ...

    async def aclose(self) -> None:
        """Close the running loop's connections. A store that is not closed is closed with its event loop."""
        ...


def hashed_key(namespace: str, name: str, *, secret: bytes = b"") -> str:
    """Return a key that does not show the name: a keyed digest of it, after the namespace.

    Args:
        namespace: What the key is about.
        name: For example a message id, or a phone number.
        secret: At most 64 bytes. Needed for a name that could be guessed, as a phone number can.
    """
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=20, key=secret)
    return f"{namespace}:{digest.hexdigest()}"


@attrs.frozen
class Migration:
    """A change of the tables that a store has on its server.

    Attributes:
        before: The tables' version before it; 0 if there were none.
        after: Their version after it.
    """

    before: int
    after: int

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to change."""
        return self.before != self.after


_MAX_PAUSE: Final = 0.05  # seconds between two tries to change a value that others change, too


class BaseStore(ABC):
    """A store whose values are read, and replaced if they have not changed meanwhile.

    Args:
        timeout: Seconds for one call.
        clock: The source of time, randomness and sleep.
    """

    def __init__(self, timeout: float, clock: Clock | None) -> None:
        self._timeout = timeout
        self._clock = clock or Clock()

    @abstractmethod
    async def _read(self, key: str) -> bytes | None:
        """Return the value of a key, or ``None``."""

    @abstractmethod
    async def _replace(self, key: str, seen: bytes | None, value: bytes | None, ttl: float) -> bool:
        """Replace a value if it still is the one that was seen, tell the watchers, and return whether it was."""

    @abstractmethod
    async def _reserve(self, key: str, count: int, rate: float, burst: float, patience: float) -> float | None:
        """Reserve permits; see `Store.reserve`."""

    @abstractmethod
    def _watchers(self) -> Watchers:
        """Return the running loop's watchers. From now on, they hear of changes."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the running loop's connections; see `Store.aclose`."""

    async def __aenter__(self) -> Self:
        await self.get("")  # connects, and raises what is wrong with the configuration
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def migrate(self, *, dry_run: bool = False) -> Migration | None:  # noqa: ARG002 - of a store with tables
        """Make the tables on the server, or bring them to the newest version; ``None``: this store has none."""
        return None

    async def get(self, key: str) -> bytes | None:
        """Return the value of a key, or ``None``; see `Store.get`."""
        async with self._in_time():
            return await self._read(key)

    async def update(self, key: str, change: Callable[[bytes | None], bytes | None], *, ttl: float) -> bytes | None:
        """Change a value atomically, and return the new one; see `Store.update`."""
        async with self._in_time("others change the same value all the time"):
            for tries in count_from():
                seen = await self._read(key)
                value = change(seen)
                if value == seen or await self._replace(key, seen, value, ttl):
                    break
                await self._clock.sleep(self._clock.random() * min(_MAX_PAUSE, 0.001 * 2.0 ** min(tries, 10)))
        return value

    async def wait(self, key: str, seen: bytes | None, *, timeout: float | None) -> bytes | None:
        """Wait until a value differs from the one that was seen, and return it; see `Store.wait`."""
        return await wait_until(
            self._watchers(), key, lambda: self.get(key), lambda value: value != seen, timeout, self._clock
        )

    async def reserve(self, key: str, count: int, *, rate: float, burst: float, patience: float) -> float | None:
        """Reserve permits of a rate that is shared; see `Store.reserve`."""
        async with self._in_time():
            return await self._reserve(key, count, rate, burst, patience)

    def changes(self, prefix: str) -> Changes:
        """Return the keys with this prefix that change from now on; see `Store.changes`."""
        return self._watchers().follow(prefix)

    def _in_time(self, why_not: str = "it does not answer") -> AbstractAsyncContextManager[None]:
        return time_limit(self._timeout, "store", why_not)


@asynccontextmanager
async def time_limit(seconds: float, what: str, why_not: str = "it does not answer") -> AsyncIterator[None]:
    """Raise a `StoreError` where the block takes longer than this.

    Args:
        seconds: The limit.
        what: What is asked, for the text: ``"store"``.
        why_not: What is wrong with it then.
    """
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise StoreError(f"the {what} took more than {seconds:g} s: {why_not}") from None
        raise
