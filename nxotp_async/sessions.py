"""The transport: aiohttp sessions, one set per event loop, behind a single narrow method."""

import asyncio
import math
import os
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Final, Protocol

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from .errors import NotSentError, OutcomeUnknownError, TransportError
from .protocol import MAX_ANSWER_BYTES

__all__ = ["SessionPool", "Transport"]

Answer = tuple[int, Mapping[str, str], bytes]


class Transport(Protocol):
    """What the client needs of an HTTP library. `SessionPool` is the one for aiohttp."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        """POST exactly these bytes, once, and return status, headers and body.

        Redirects must not be followed, and of the body not much more than 64 KiB may be read. Whatever escapes but
        the two errors below, and cancellation, counts as `OutcomeUnknownError`.

        Args:
            url: Where to.
            body: The bytes to send, unaltered.
            headers: The headers to send.
            timeout: Seconds for all of it, connecting included.

        Raises:
            NotSentError: Provably no byte of the request left.
            OutcomeUnknownError: It may have left.
        """
        ...

    async def aclose(self) -> None:
        """Close what the running event loop has open."""
        ...


class SessionPool:
    """aiohttp sessions, opened lazily in the loop that needs them, and closed together.

    Each running event loop has its own slots. A slot whose session keeps failing, or is old, gets a new session;
    what is in flight on the old one finishes first. Sessions that nobody closed are closed when their loop ends.

    Args:
        max_connections: Connections per slot: as many as the client has permits, so that nothing queues here.
        slots: Sessions per event loop.
        proxy: An HTTP proxy's URL. The environment's proxies and netrc are never looked at.
        ssl_context: In place of aiohttp's own, which verifies certificates against the system's authorities.
        session: A session of the application: used as it is, never closed.
        max_age: Seconds after which a session is replaced.
        max_failures: Failures in a row after which a session is replaced.
        monotonic: The clock for the sessions' age, in seconds.
    """

    def __init__(
        self,
        *,
        max_connections: int = 64,
        slots: int = 2,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        session: aiohttp.ClientSession | None = None,
        max_age: float = 1800.0,
        max_failures: int = 5,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_connections = max_connections
        self._slot_count = slots
        self._proxy = proxy
        self._ssl_context = ssl_context
        self._borrowed = None if session is None else _Slot(session, opened_at=math.inf)
        self._max_age = max_age
        self._max_failures = max_failures
        self._monotonic = monotonic
        self._loops: dict[asyncio.AbstractEventLoop, _LoopSessions] = {}

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        """POST the bytes once; see `Transport.post`."""
        # Error reporters print local variables, and those of aiohttp's frames: from here on the body is an
        # object whose repr does not show it.
        payload = _OneWriteBody(body)
        del body
        slot = self._borrowed or self._pick() or await self._open_slots()
        slot.in_flight += 1
        try:
            async with asyncio.timeout(timeout):
                # Not "async with", which takes a twentieth longer.
                response = await slot.session.post(
                    _parsed(url),
                    data=payload,
                    headers=headers,
                    allow_redirects=False,
                    raise_for_status=False,
                    timeout=_NO_TIMEOUT,
                    proxy=self._proxy,
                )
                try:
                    answer = response.status, response.headers, await _read_bounded(response.content)
                finally:
                    response.release()
        except Exception as error:
            slot.failures += 1
            failure = _classify(error, payload.may_have_left, url, timeout, self._proxy)
        else:
            slot.failures = 0
            return answer
        finally:
            slot.finished_one()
        raise failure

    async def aclose(self) -> None:
        """Close the running loop's sessions, after what is in flight on them. A later `post` opens new ones."""
        sessions = self._loops.pop(asyncio.get_running_loop(), None)
        if sessions is not None:
            await sessions.lifetime.aclose()

    def _pick(self) -> "_Slot | None":
        """Return the least loaded of the running loop's slots, once it has any."""
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
        await anext(sessions.lifetime)  # starting the generator is what lets the loop close it at its end
        return sessions.slots[0]

    def _open(self) -> "_Slot":
        connector = aiohttp.TCPConnector(
            limit=self._max_connections, keepalive_timeout=_KEEPALIVE, ssl=self._ssl_context or True
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        return _Slot(session, self._monotonic())


# Seconds a connection may idle. Usual servers close theirs after 20 to 75; a request written to a connection that
# is just being closed has an unknown outcome.
_KEEPALIVE: Final = 15.0
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)  # one asyncio.timeout bounds the whole attempt instead


class _Slot:
    """A session and how it fares."""

    __slots__ = ("_idle", "failures", "in_flight", "opened_at", "session")

    def __init__(self, session: aiohttp.ClientSession, opened_at: float) -> None:
        self.session = session
        self.opened_at = opened_at
        self.in_flight = 0
        self.failures = 0
        self._idle: asyncio.Future[None] | None = None

    def finished_one(self) -> None:
        self.in_flight -= 1
        if self._idle is not None and not self.in_flight and not self._idle.done():
            self._idle.set_result(None)

    async def close(self) -> None:
        """Close the session when nothing is in flight on it any more; at once where this is cancelled."""
        try:
            if self.in_flight:
                self._idle = asyncio.get_running_loop().create_future()
                await self._idle
        finally:
            await self.session.close()


_LOAD: Final = attrgetter("in_flight")


class _LoopSessions:
    """The slots of one event loop, and the old ones that are still closing."""

    def __init__(self, slots: list[_Slot]) -> None:
        self.slots = slots
        self.lifetime = self._live()
        self._closing: set[asyncio.Task[None]] = set()

    def replace(self, slot: _Slot, by: _Slot) -> None:
        self.slots[self.slots.index(slot)] = by
        task = asyncio.create_task(slot.close(), name="nxotp_async: close a replaced session")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _live(self) -> AsyncGenerator[None, None]:
        # asyncio closes the asynchronous generators that are still open when a loop ends. This one thereby closes
        # the sessions of a loop whose client was never closed, while they still can be.
        try:
            yield
        finally:
            await asyncio.gather(*self._closing, *(slot.close() for slot in self.slots), return_exceptions=True)


class _OneWriteBody(aiohttp.BytesPayload):
    """A body that is written once at the most, and knows whether it may have left.

    aiohttp holds the headers back until the body is written, so no byte of the request leaves before that.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__(body, content_type="application/json")
        self._body = body
        self.may_have_left = False

    async def write_with_length(
        self,
        writer: AbstractStreamWriter,
        content_length: int | None,  # noqa: ARG002 - aiohttp has it from these very bytes
    ) -> None:
        if self.may_have_left:
            raise RuntimeError("the body was written before")
        transport = writer.transport
        # aiohttp refuses to write to a connection that has been lost meanwhile: nothing leaves then.
        self.may_have_left = transport is not None and not transport.is_closing()
        await writer.write(self._body)


@lru_cache(maxsize=16)
def _parsed(url: str) -> URL:
    return URL(url)


async def _read_bounded(stream: aiohttp.StreamReader) -> bytes:
    """Read the body to its end, or just past the longest that is looked into."""
    body = await stream.read(MAX_ANSWER_BYTES + 1)
    if stream.at_eof():
        return body
    parts = bytearray(body)
    while len(parts) <= MAX_ANSWER_BYTES and not stream.at_eof():
        parts += await stream.read(MAX_ANSWER_BYTES + 1 - len(parts))
    return bytes(parts)


def _classify(error: Exception, may_have_left: bool, url: str, timeout: float, proxy: str | None) -> TransportError:
    """Say on which side of the first byte an attempt broke, and, before it, whether another attempt may help."""
    if may_have_left:
        what = f"no answer within {timeout:.3g} s" if isinstance(error, TimeoutError) else _reason(error)
        return OutcomeUnknownError(
            f"{what}, after the request was on its way",
            hint="the message may have been accepted; wait for its status callback before you send another",
        )
    peer = _parsed(url).host_port_subcomponent or ""
    if proxy is not None:
        peer += f" through the proxy {_parsed(proxy).host}"
    return _not_sent(error, peer, timeout)


def _not_sent(error: Exception, peer: str, timeout: float) -> NotSentError:
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ServerFingerprintMismatch():
            return NotSentError(
                f"the certificate of {peer} was refused: {_reason(error)}",
                hint="check base_url, this machine's clock and its certificate authorities",
            )
        case aiohttp.ClientConnectorDNSError():
            return NotSentError(
                f"the name {error.host} was not found", temporary=True, hint="check base_url, any proxy, and the DNS"
            )
        case aiohttp.ClientSSLError():
            return NotSentError(f"no TLS connection to {peer}: {_reason(error)}", temporary=True)
        case aiohttp.ClientHttpProxyError():
            hint = "check the proxy's user and password" if error.status == 407 else "the proxy did not reach base_url"
            return NotSentError(f"no connection to {peer}: the proxy answered HTTP {error.status}", hint=hint)
        case aiohttp.ClientConnectorError():
            return NotSentError(
                f"no connection to {peer}: {_reason(error)}",
                temporary=True,
                hint="check base_url, and what listens there",
            )
        case TimeoutError():
            return NotSentError(f"no connection to {peer} within {timeout:.3g} s", temporary=True)
        case aiohttp.ClientConnectionError():
            return NotSentError(f"the connection to {peer} was lost before the request left", temporary=True)
    return NotSentError(f"the request to {peer} could not be made: {_reason(error)}")


def _reason(error: Exception) -> str:
    """Say what went wrong without the error's text, which could quote the answer or a proxy's password."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ssl.SSLError):
        # OpenSSL's own errors have these attributes, those that Python code raises have not.
        return str(getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or type(cause).__name__)
    return os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else type(error).__name__
