"""The transport that uses aiohttp: a pool of sessions for each event loop."""

import asyncio
import math
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import lru_cache, partial
from operator import attrgetter
from typing import Final, cast

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import StreamWriter
from yarl import URL

from ..errors import NotSentError, TransportError
from ..protocol import MAX_ANSWER_BYTES
from . import failures
from .base import Answer
from .connections import Connections, UnusableConnectionError
from .keep_alive import KeepAlive
from .resolver import Resolver
from .timeouts import LenientTimeout

__all__ = ["SessionPool"]


class SessionPool:
    """aiohttp sessions, opened when an event loop needs them, and closed together.

    Each running event loop has its own slots, with one session each. A session that fails repeatedly, or is old, is
    replaced; it is closed after the requests in flight on it have ended. Sessions that are never closed are closed at
    the end of ``asyncio.run``, with the other asynchronous generators of its event loop.

    Args:
        max_connections: Connections for each slot. With as many as the client has permits, no request waits for one.
        slots: Slots for each event loop.
        proxy: The URL of an HTTP proxy. Proxies and netrc of the environment are never used.
        ssl_context: Used instead of aiohttp's own, which verifies certificates with the system's authorities.
        session: A session of the application: used as it is, never closed.
        keepalive_timeout: The maximum idle time of a connection that is reused, in seconds. The time becomes shorter if
            the server announces a shorter one, or closes idle connections earlier. Most servers close them after 20 to
            75 seconds.
        max_age: Seconds after which a session is replaced.
        max_failures: Consecutive failures after which a session is replaced.
        monotonic: A clock that never jumps, in seconds.
    """

    def __init__(
        self,
        *,
        max_connections: int = 64,
        slots: int = 2,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        session: aiohttp.ClientSession | None = None,
        keepalive_timeout: float = 15.0,
        max_age: float = 1800.0,
        max_failures: int = 5,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_connections = max_connections
        self._slot_count = slots
        self._proxy = proxy
        self._ssl_context = ssl_context
        self._keepalive_timeout = keepalive_timeout
        self._keep_alive = KeepAlive(keepalive_timeout, monotonic)
        self._borrowed = None if session is None else _Slot(session, math.inf, self._keep_alive)
        self._max_age = max_age
        self._max_failures = max_failures
        self._monotonic = monotonic
        self._loops: dict[asyncio.AbstractEventLoop, _LoopSessions] = {}

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        """POST the bytes once; see `Transport.post`."""
        # Error reporters print the local variables of our frames and aiohttp's. From here on, the body is in an object
        # whose repr does not show it.
        request = _Request(_parsed(url), headers, self._proxy, body)
        del body
        try:
            async with LenientTimeout(timeout):
                slot = self._borrowed or self._pick() or await self._open_slots()
                return await slot.post(request)
        except Exception as error:
            failure = _classify(error, request.may_have_left, url, timeout, self._proxy)
        raise failure

    async def aclose(self) -> None:
        """Close the running loop's sessions after the requests in flight have ended. A later `post` opens new ones."""
        sessions = self._loops.pop(asyncio.get_running_loop(), None)
        if sessions is not None:
            await sessions.lifetime.aclose()

    def _pick(self) -> "_Slot | None":
        """Return the least loaded slot of the running loop, or ``None`` if it has no slots yet."""
        sessions = self._loops.get(asyncio.get_running_loop())
        if sessions is None:
            return None
        slot = min(sessions.slots, key=_LOAD)
        if slot.failures >= self._max_failures or self._monotonic() - slot.opened_at > self._max_age:
            sessions.replace(slot, by := self._open())
            return by
        return slot

    async def _open_slots(self) -> "_Slot":
        """Open the running loop's slots, and return one. Does not suspend."""
        for other in [other for other in list(self._loops) if other.is_closed()]:
            self._loops.pop(other, None)
        sessions = _LoopSessions([self._open() for _ in range(self._slot_count)])
        self._loops[asyncio.get_running_loop()] = sessions
        await anext(sessions.lifetime)  # the loop closes only generators that have been started
        return sessions.slots[0]

    def _open(self) -> "_Slot":
        connector = aiohttp.TCPConnector(
            limit=self._max_connections,
            keepalive_timeout=self._keepalive_timeout,
            resolver=Resolver(),
            ssl=self._ssl_context or True,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        return _Slot(session, self._monotonic(), self._keep_alive)


_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)  # a LenientTimeout limits the whole attempt instead


class _Request:
    """A request, which is written once, although it may be tried on several connections before it is written."""

    __slots__ = ("body", "headers", "may_have_left", "proxy", "url")

    def __init__(self, url: URL, headers: Mapping[str, str], proxy: str | None, body: bytes) -> None:
        self.url = url
        self.headers = headers
        self.proxy = proxy
        self.body = body
        self.may_have_left = False


class _Slot:
    """A session, its connections, and the number of its consecutive failures."""

    __slots__ = ("_connections", "_idle", "_keep_alive", "failures", "in_flight", "opened_at", "session")

    def __init__(self, session: aiohttp.ClientSession, opened_at: float, keep_alive: KeepAlive) -> None:
        self.session = session
        self.opened_at = opened_at
        self.in_flight = 0
        self.failures = 0
        self._keep_alive = keep_alive
        self._connections = Connections(keep_alive)
        self._idle: asyncio.Future[None] | None = None

    async def post(self, request: _Request) -> Answer:
        """Post the request on an open connection."""
        self.in_flight += 1
        try:
            while True:  # each time that a connection could not be reused, it is closed
                body = _Body(request, self._connections)
                try:
                    # Not "async with", which takes 5 % longer.
                    response = await self.session.post(
                        request.url,
                        data=body,
                        headers=request.headers,
                        allow_redirects=False,
                        raise_for_status=False,
                        timeout=_NO_TIMEOUT,
                        proxy=request.proxy,
                    )
                except aiohttp.ClientConnectionError as error:
                    if body.refused_used_connection and not request.may_have_left:
                        continue
                    self._learn_from(error, body)
                    raise
                if body.connection is not None:
                    break
                self._close_unrequested(response, body)
            try:
                content = await _read_bounded(response.content)
            finally:
                response.release()
        except Exception:
            self.failures += 1
            raise
        finally:
            self._end_request()
        self.failures = 0
        if "Keep-Alive" in response.headers:
            self._keep_alive.apply_header(response.headers["Keep-Alive"])
        release = partial(self._connections.release, body.connection)
        return Answer(response.status, response.headers, content, release)

    def _learn_from(self, error: aiohttp.ClientConnectionError, body: "_Body") -> None:
        """Shorten the idle time, if the server has closed a reused connection under the request."""
        if body.idle is not None and isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
            self._keep_alive.record_close(body.idle)

    def _close_unrequested(self, response: aiohttp.ClientResponse, body: "_Body") -> None:
        """Close the connection of an answer that came before the request was written. Raise if it was a new one."""
        connection = response.connection and response.connection.protocol
        was_used = connection is not None and self._connections.is_used(connection)
        response.close()
        if not (was_used or body.refused_used_connection):
            raise _UnrequestedAnswerError

    def _end_request(self) -> None:
        self.in_flight -= 1
        if self._idle is not None and not self.in_flight and not self._idle.done():
            self._idle.set_result(None)

    async def close(self) -> None:
        """Close the session after its requests in flight have ended; at once if this is cancelled."""
        try:
            if self.in_flight:
                self._idle = asyncio.get_running_loop().create_future()
                await self._idle
        finally:
            self._connections.clear()
            await self.session.close()


_LOAD: Final = attrgetter("in_flight")


class _LoopSessions:
    """The slots of one event loop, and the replaced ones that are being closed."""

    def __init__(self, slots: list[_Slot]) -> None:
        self.slots = slots
        self.lifetime = self._close_at_end()
        self._closing: set[asyncio.Task[None]] = set()

    def replace(self, slot: _Slot, by: _Slot) -> None:
        self.slots[self.slots.index(slot)] = by
        task = asyncio.create_task(slot.close(), name="nxotp_async: close a replaced session")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_at_end(self) -> AsyncGenerator[None, None]:
        # asyncio closes open asynchronous generators before a loop ends. So this one closes the sessions of a loop
        # whose client was never closed, while the loop still runs.
        try:
            yield
        finally:
            await asyncio.gather(*self._closing, *(slot.close() for slot in self.slots), return_exceptions=True)


class _Body(aiohttp.BytesPayload):
    """The body of a request, which is written at most once, and only to a connection that may be used.

    aiohttp holds the headers back until the body is written, so no byte of the request leaves before that.

    Attributes:
        connection: The connection to which it was written.
        idle: The seconds for which that connection had been idle, or ``None`` if it was new.
        refused_used_connection: Whether it was not written, because a used connection could not be reused.
    """

    def __init__(self, request: _Request, connections: Connections) -> None:
        super().__init__(request.body, content_type="application/json")
        self.connection: ResponseHandler | None = None
        self.idle: float | None = None
        self.refused_used_connection = False
        self._request = request
        self._connections = connections

    async def write_with_length(
        self,
        writer: AbstractStreamWriter,
        content_length: int | None,  # noqa: ARG002 - the length of this body
    ) -> None:
        if self._request.may_have_left:
            raise RuntimeError("the body was written before")
        # aiohttp's client always uses this writer; the abstract class has no such attribute.
        connection = cast("ResponseHandler", cast("StreamWriter", writer).protocol)
        try:
            self.idle = self._connections.acquire(connection)
        except UnusableConnectionError as error:
            self.refused_used_connection = error.was_used
            raise
        self.connection = connection
        # aiohttp does not write to a connection that has been lost: then nothing leaves.
        self._request.may_have_left = connection.is_connected()
        await writer.write(self._request.body)


class _UnrequestedAnswerError(aiohttp.ClientConnectionError):
    """The server answered before the request was written."""


@lru_cache(maxsize=16)
def _parsed(url: str) -> URL:
    return URL(url)


async def _read_bounded(stream: aiohttp.StreamReader) -> bytes:
    """Return the body, or a part that is longer than `MAX_ANSWER_BYTES`."""
    body = await stream.read(MAX_ANSWER_BYTES + 1)
    if stream.at_eof():
        return body
    parts = bytearray(body)
    while len(parts) <= MAX_ANSWER_BYTES and not stream.at_eof():
        parts += await stream.read(MAX_ANSWER_BYTES + 1 - len(parts))
    return bytes(parts)


def _classify(error: Exception, may_have_left: bool, url: str, timeout: float, proxy: str | None) -> TransportError:
    """Return the error of a failed attempt: whether a byte may have left, and if not, whether a retry may help."""
    if may_have_left:
        timed_out = isinstance(error, TimeoutError)
        return failures.unknown(f"no answer within {timeout:.3g} s" if timed_out else _reason(error))
    peer = _parsed(url).host_port_subcomponent or ""
    if proxy is not None:
        peer += f" through the proxy {_parsed(proxy).host}"
    return _not_sent(error, peer, timeout)


def _not_sent(error: Exception, peer: str, timeout: float) -> NotSentError:
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ServerFingerprintMismatch():
            return failures.certificate_refused(peer, _reason(error))
        case aiohttp.ClientConnectorDNSError():
            return failures.name_not_found(error.host)
        case aiohttp.ClientSSLError():
            return failures.no_tls(peer, _reason(error))
        case aiohttp.ClientHttpProxyError():
            hint = "check the proxy's user and password" if error.status == 407 else "the proxy did not reach base_url"
            return NotSentError(f"no connection to {peer}: the proxy answered HTTP {error.status}", hint=hint)
        case aiohttp.ClientConnectorError():
            return failures.no_connection(peer, _reason(error))
        case TimeoutError():
            return failures.no_connection_in_time(peer, timeout)
        case _UnrequestedAnswerError():
            return failures.answered_too_early(peer)
        case aiohttp.ClientConnectionError():
            return failures.lost_before_sending(peer)
    return failures.not_possible(peer, _reason(error))


def _reason(error: Exception) -> str:
    return failures.reason(error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error)
