"""The transport that speaks HTTP/1.1 itself: a pool of connections for each event loop, answers parsed by httptools."""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import lru_cache, partial
from typing import Final

from yarl import URL

from ..errors import NotSentError, TransportError
from ..protocol import RequestHeaders
from . import failures
from .base import Answer
from .connecting import Connector
from .http1 import BrokenAnswerError, Connection, Request
from .keep_alive import KeepAlive
from .timeouts import LenientTimeout

__all__ = ["WireTransport"]


class WireTransport:
    """Connections over which this library speaks HTTP/1.1 itself: POST and answer, and nothing else.

    It costs less than half of what aiohttp does, and knows exactly when the first byte of a request leaves. It has no
    proxies. A connection is opened when none is idle, so that the permits of the client limit their number. Connections
    that are never closed are closed at the end of ``asyncio.run``.

    Args:
        ssl_context: Used instead of the default, which verifies certificates with the system's authorities.
        keepalive_timeout: The maximum idle time of a connection that is reused, in seconds. The time becomes shorter if
            the server announces a shorter one, or closes idle connections earlier.
        max_age: Seconds after which a connection is not reused.
        monotonic: A clock that never jumps, in seconds.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        keepalive_timeout: float = 15.0,
        max_age: float = 1800.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ssl_context = ssl_context
        self._keep_alive = KeepAlive(keepalive_timeout, monotonic)
        self._max_age = max_age
        self._head = _PreparedHead("", _NO_HEADERS)
        self._pools: dict[asyncio.AbstractEventLoop, LoopPool] = {}

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        """POST the bytes once; see `Transport.post`."""
        loop = asyncio.get_running_loop()
        due = loop.time() + timeout
        pool = self._pools.get(loop) or await self._open_pool()
        connection: Connection | None = None
        pool.in_flight += 1
        try:
            # Error reporters print local variables: from here on, the body is in an object whose repr does not show it.
            request = self._request(url, headers, body)
            del body
            connection = pool.take() or await pool.open(url, timeout)
            return await connection.send(request, due)  # from here on, bytes may have left
        except Exception as error:
            failure = _classify(error, connection is not None, url, timeout)
        except BaseException:  # a cancellation
            if connection is not None:
                connection.abort()
            raise
        finally:
            pool.end_request()
        raise failure

    async def aclose(self) -> None:
        """Close the running loop's connections when the requests in flight have ended. A later `post` opens others."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.lifetime.aclose()

    async def _open_pool(self) -> "LoopPool":
        """Open the running loop's pool. Does not suspend."""
        for other in [other for other in list(self._pools) if other.is_closed()]:
            self._pools.pop(other, None)
        pool = LoopPool(self._keep_alive, self._max_age, self._ssl_context)
        self._pools[pool.loop] = pool
        await anext(pool.lifetime)  # the loop closes only generators that have been started
        return pool

    def _request(self, url: str, headers: Mapping[str, str], body: bytes) -> Request:
        if isinstance(headers, RequestHeaders):
            fixed, changing = headers.fixed, headers.changing
        else:
            fixed, changing = _NO_HEADERS, headers
        head = self._head
        if head.fixed is not fixed or head.url != url:
            head = self._head = _PreparedHead(url, fixed)
        return head.request(changing, body)


_NO_HEADERS: Final[Mapping[str, str]] = {}


class _PreparedHead:
    """The beginning of the requests to a URL: what is the same in all of them, encoded once."""

    def __init__(self, url: str, fixed: Mapping[str, str]) -> None:
        self.url = url
        self.fixed = fixed
        parsed = _parsed(url)
        first_lines = f"POST {parsed.raw_path_qs} HTTP/1.1\r\nHost: {parsed.host_port_subcomponent}\r\n"
        self._text = first_lines + _lines(fixed)

    def request(self, changing: Mapping[str, str], body: bytes) -> Request:
        """Return a whole request.

        Raises:
            ValueError: A header contains a line break.
        """
        return Request(f"{self._text}{_lines(changing)}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def _lines(headers: Mapping[str, str]) -> str:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise ValueError("a header contains a line break or a null character")
    return lines


class LoopPool:
    """The connections of one event loop.

    Attributes:
        loop: The event loop.
        keep_alive: How long connections may idle.
        in_flight: The number of requests that have no answer yet.
        idle: The connections that wait for a request, the one that has waited longest first.
        lifetime: Closes the connections when it is closed.
    """

    def __init__(self, keep_alive: KeepAlive, max_age: float, ssl_context: ssl.SSLContext | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.keep_alive = keep_alive
        self.in_flight = 0
        self.idle: dict[Connection, None] = {}
        self.lifetime = self._close_at_end()
        self._connections: set[Connection] = set()
        self._max_age = max_age
        self._ssl_context = ssl_context
        self._connectors: dict[str, Connector] = {}
        self._is_closing = False
        self._waiter: asyncio.Future[None] | None = None

    # ------------------------------------------------------------------------------------------ a request's connection

    def take(self) -> Connection | None:
        """Return a connection on which nothing has happened since its last answer, or ``None``. Closes all others."""
        while self.idle:
            connection, _ = self.idle.popitem()
            now = self.keep_alive.monotonic()
            idle = now - connection.idle_since
            is_fresh = idle <= self.keep_alive.limit(now) and now - connection.opened_at <= self._max_age
            if is_fresh and connection.is_open:
                if not connection.is_readable():
                    connection.idle_before = idle
                    return connection
                self.keep_alive.record_close(idle)
            connection.abort()
        return None

    async def open(self, url: str, timeout: float) -> Connection:
        """Open a connection.

        Raises:
            NotSentError: It cannot be opened, or the server has spoken first.
            TimeoutError: That took too long.
        """
        connector = self._connectors.get(url)
        if connector is None:
            connector = self._connectors[url] = _connector(url, self._ssl_context)
        async with LenientTimeout(timeout):
            connection = await connector.connect(partial(Connection, self))
        if connection.spoke_first:
            raise failures.answered_too_early(connector.peer)
        # Over TLS, what the kernel has may be session tickets.
        if not connection.is_open or (not connector.uses_tls and connection.is_readable()):
            connection.abort()
            raise failures.lost_before_sending(connector.peer)
        return connection

    def add_idle(self, connection: Connection) -> None:
        """Let the next request have a connection."""
        if self._is_closing:
            connection.abort()
        else:
            connection.idle_since = self.keep_alive.monotonic()
            self.idle[connection] = None

    def end_request(self) -> None:
        """Count a request out."""
        self.in_flight -= 1
        self._wake()

    # ------------------------------------------------------------------------------------------ all connections

    def add(self, connection: Connection) -> None:
        """Keep a connection, to close it in the end."""
        self._connections.add(connection)

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._connections.discard(connection)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _close_at_end(self) -> AsyncGenerator[None, None]:
        # asyncio closes open asynchronous generators before a loop ends. So this one closes the connections of a loop
        # whose client was never closed, while the loop still runs.
        try:
            yield
        finally:
            self._is_closing = True
            try:
                while self.in_flight:
                    await self._next_event()
            finally:
                self.idle.clear()
                for connection in list(self._connections):
                    connection.abort()
            while self._connections:
                await self._next_event()

    async def _next_event(self) -> None:
        self._waiter = self.loop.create_future()
        await self._waiter


@lru_cache(maxsize=16)
def _parsed(url: str) -> URL:
    return URL(url)


def _connector(url: str, ssl_context: ssl.SSLContext | None) -> Connector:
    parsed = _parsed(url)
    peer = parsed.host_port_subcomponent or ""
    return Connector(parsed.host or "", parsed.port or 443, peer, tls=parsed.scheme == "https", context=ssl_context)


def _classify(error: Exception, may_have_left: bool, url: str, timeout: float) -> TransportError:
    """Return the error of a failed attempt: whether a byte may have left, and if not, whether a retry may help."""
    if may_have_left:
        if isinstance(error, TimeoutError):
            return failures.unknown(f"no answer within {timeout:.3g} s")
        return failures.unknown(str(error) if isinstance(error, BrokenAnswerError) else failures.reason(error))
    if isinstance(error, NotSentError):
        return error
    peer = _parsed(url).host_port_subcomponent or ""
    if isinstance(error, TimeoutError):
        return failures.no_connection_in_time(peer, timeout)
    return failures.not_possible(peer, failures.reason(error))
