"""A store in Redis or Valkey, for any number of processes and machines."""

import math
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ..clocks import Clock
from ..errors import ConfigurationError, StoreError, sensitive_variables
from .base import BaseStore
from .listening import Listener
from .per_loop import PerLoop
from .watching import Watchers

__all__ = ["RedisStore"]

_OLDEST: Final = (6, 2)
_SILENCE: Final = 30.0  # seconds without a message after which the server is asked whether it is there

# KEYS: the value. ARGV: the channel, the key's name, whether a value was seen, that value, whether there is a new one,
# that value, milliseconds.
_REPLACE: Final = """
local value = redis.call('GET', KEYS[1])
if ARGV[3] == '1' then
    if value ~= ARGV[4] then return 0 end
elseif value then
    return 0
end
if ARGV[5] == '1' then
    redis.call('SET', KEYS[1], ARGV[6], 'PX', ARGV[7])
else
    redis.call('DEL', KEYS[1])
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
"""
# KEYS: when the rate is free again. ARGV: what the permits cost, the tolerance, the patience; in seconds.
_RESERVE: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local backlog = math.max(0, tonumber(redis.call('GET', KEYS[1]) or now) - now)
local wait = math.max(0, backlog + (tonumber(ARGV[1]) - tonumber(ARGV[2])))
if wait > tonumber(ARGV[3]) then return false end
backlog = backlog + tonumber(ARGV[1])
redis.call('SET', KEYS[1], string.format('%.6f', now + backlog), 'PX', math.ceil(backlog * 1000) + 1000)
return string.format('%.6f', wait)
"""


class _LoopClient:
    """What one event loop has open."""

    def __init__(self, client: "Redis") -> None:
        self.client = client
        self.replace = client.register_script(_REPLACE)
        self.reserve = client.register_script(_RESERVE)


class RedisStore(BaseStore):
    """Keeps values in Redis 6.2 or newer, or in Valkey, with ``pip install "nxotp_async[redis]"``.

    What survives a crash of the server depends on its ``appendfsync``: with ``always`` all of it, with ``everysec``
    what is older than a second or two, and without ``appendonly yes`` what is older than the last snapshot.

    Args:
        url: ``redis://user:password@host:6379/0``; ``rediss://`` with TLS, ``unix://`` for a socket.
        prefix: What every key begins with, so that applications can share a server.
        max_connections: The maximum number of connections of each event loop; one of them hears of changes.
        timeout: Seconds for one call.
        clock: The source of time, randomness and sleep.

    Raises:
        ConfigurationError: The URL is wrong.
    """

    @sensitive_variables
    def __init__(
        self,
        url: str,
        *,
        prefix: str = "nxotp:",
        max_connections: int = 10,
        timeout: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(timeout, clock)
        self._url = url
        self._prefix = prefix
        self._channel = f"{prefix}changes"
        self._max_connections = max_connections
        _ = self._connect()  # checks the URL
        self._loops = PerLoop(self._open)
        self._listeners = Listener(self._listen, self._clock)

    def __repr__(self) -> str:
        return f"RedisStore(host={urlsplit(self._url).hostname!r}, prefix={self._prefix!r})"

    def _connect(self) -> "Redis":
        try:
            pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=self._max_connections + 1,
                timeout=self._timeout,
                socket_timeout=None,  # it would be asyncio.wait_for, which loses cancellations before Python 3.12
                socket_connect_timeout=self._timeout,
                socket_keepalive=True,
                # A change may have been made although its answer was lost.
                retry=Retry(NoBackoff(), 0),
                decode_responses=False,
            )
            pool.connection_class(
                **pool.connection_kwargs
            )  # raises what is wrong with the options; it does not connect
        except (ValueError, TypeError, AttributeError):
            raise ConfigurationError(
                "the store's URL is not one of Redis", hint="redis://host:6379/0, or rediss:// with TLS"
            ) from None
        return Redis.from_pool(pool)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[_LoopClient]:
        client = self._connect()
        try:
            _check_server(await client.info("server"))
            yield _LoopClient(client)
        finally:
            await client.aclose()

    async def _read(self, key: str) -> bytes | None:
        with _errors():
            loop = await self._loops.get()
            value: Any = await loop.client.get(self._prefix + key)
            return None if value is None else bytes(value)

    async def _replace(self, key: str, seen: bytes | None, value: bytes | None, ttl: float) -> bool:
        with _errors():
            loop = await self._loops.get()
            arguments = (self._channel, key, int(seen is not None), seen or b"", int(value is not None), value or b"")
            return bool(await loop.replace([self._prefix + key], [*arguments, math.ceil(ttl * 1000)]))

    async def _reserve(self, key: str, count: int, rate: float, burst: float, patience: float) -> float | None:
        with _errors():
            loop = await self._loops.get()
            wait = await loop.reserve([self._prefix + key], [count / rate, burst / rate, patience])
            return None if wait is None else float(wait)

    @asynccontextmanager
    async def _listen(self) -> AsyncIterator[AsyncIterator[str]]:
        with _errors():
            async with self._in_time():
                loop = await self._loops.get()
            async with loop.client.pubsub() as listening:
                async with self._in_time():
                    await listening.subscribe(self._channel)
                    await listening.get_message(timeout=self._timeout)  # that it listens
                yield self._published(listening)

    async def _published(self, listening: Any) -> AsyncIterator[str]:  # noqa: ANN401 - redis-py does not export its type
        is_asked = False
        while True:
            message = await listening.get_message(timeout=self._timeout if is_asked else _SILENCE)
            if message is not None and message["type"] == "message":
                yield message["data"].decode()
            elif message is None and is_asked:
                raise StoreError("the store's Redis has not answered a ping")
            is_asked = message is None
            if is_asked:
                async with self._in_time():
                    await listening.ping()

    def _watchers(self) -> Watchers:
        return self._listeners.watchers()

    async def aclose(self) -> None:
        """Close the running loop's connections; see `Store.aclose`."""
        await self._listeners.aclose()
        await self._loops.aclose()


def _check_server(info: dict[str, Any]) -> None:
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < _OLDEST:
        raise ConfigurationError(f"the store's server is Redis {version}", hint="6.2 or newer, or Valkey")
    mode = info.get("redis_mode", "standalone")
    if mode == "cluster":
        raise ConfigurationError("the store's server is a Redis Cluster", hint="use a single server or replicas of one")
    if mode == "sentinel":
        raise ConfigurationError("the store's URL leads to a Sentinel", hint="give the URL of the server itself")


@contextmanager
def _errors() -> Iterator[None]:
    """Turn redis-py's errors into ours. Their texts are left out: some of them quote the URL."""
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise ConfigurationError(
            f"Redis refuses the store ({type(error).__name__}): a wrong user or password, or missing rights",
            hint="it needs GET, SET, DEL, TIME, PUBLISH, SUBSCRIBE, EVALSHA, SCRIPT, INFO and PING",
        ) from None
    except (redis.RedisError, OSError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else type(error).__name__
        raise StoreError(f"the store's Redis failed: {reason}", hint="check NXOTP_STORE, and that it runs") from None
