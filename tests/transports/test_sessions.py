"""The transport with aiohttp's sessions: its errors, proxies, borrowed sessions, and when sessions are replaced."""

import asyncio
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from aioresponses import aioresponses
from support import ACCEPTED, accepted, closed_port, http, raw_server, sending

from nxotp_async import NotSentError, OutcomeUnknownError, SendStatus
from nxotp_async.errors import TransportError
from nxotp_async.sandbox import Sandbox, sandbox_client
from nxotp_async.testing import NO_PAUSES, FakeClock
from nxotp_async.transports import SessionPool
from nxotp_async.transports.sessions import _classify

TO = "+999 555 0100"


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (aiohttp.ServerDisconnectedError(), True),
        (aiohttp.ClientConnectionResetError(), True),
        (aiohttp.ConnectionTimeoutError(), True),
        (TimeoutError(), True),
        (aiohttp.ServerFingerprintMismatch(b"", b"", "h", 1), False),
        (aiohttp.InvalidURL("x"), False),
        (RuntimeError("Session is closed"), False),
        (ValueError(), False),
        (OSError(), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_the_side_of_the_first_byte_decides(error: Exception, temporary: bool) -> None:
    before = _classify(error, may_have_left=False, url="https://otp.example/", timeout=1, proxy=None)
    after = _classify(error, may_have_left=True, url="https://otp.example/", timeout=1, proxy=None)
    assert isinstance(before, NotSentError)
    assert before.temporary is temporary
    assert isinstance(after, OutcomeUnknownError)


KEY = ConnectionKey("otp.example", 443, True, True, None, None, None)


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (aiohttp.ClientConnectorDNSError(KEY, OSError(-2, "Name or service not known")), True),
        (aiohttp.ClientProxyConnectionError(KEY, OSError(111, "Connection refused")), True),
        (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "handshake failure")), True),
        (aiohttp.ClientConnectorCertificateError(KEY, ssl.CertificateError("mismatch")), False),
        (aiohttp.ClientHttpProxyError(None, (), status=407), False),  # type: ignore[arg-type] # as aiohttp may
        (aiohttp.TooManyRedirects(None, ()), False),  # type: ignore[arg-type]
        (aiohttp.ServerTimeoutError(), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_what_no_server_can_be_made_to_do_is_told_apart_too(error: Exception, temporary: bool) -> None:
    pool = SessionPool()
    with aioresponses() as mocked:
        mocked.post("https://otp.example/", exception=error)
        with pytest.raises(NotSentError, match=r"otp\.example") as caught:
            await pool.post("https://otp.example/", b"{}", {}, 5.0)
    assert caught.value.temporary is temporary
    await pool.aclose()


async def test_a_middleware_of_a_borrowed_session_cannot_send_twice() -> None:
    async def twice(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        (await handler(request)).close()
        return await handler(request)

    async with (
        raw_server(sending(http(ACCEPTED))) as server,
        aiohttp.ClientSession(middlewares=(twice,)) as session,
        sandbox_client(server.url, session=session) as client,
    ):
        with pytest.raises(OutcomeUnknownError):
            await client.send_otp(TO, "482913")
    assert len(server.requests) == 1


async def test_a_proxy_that_is_asked_for_is_used() -> None:
    nowhere = f"http://127.0.0.1:{closed_port()}"
    async with raw_server(sending(http(ACCEPTED))) as proxy, sandbox_client(nowhere, proxy=proxy.url) as client:
        await client.send_otp(TO, "482913")
    assert proxy.requests[0].startswith(b"POST http://127.0.0.1:")


async def test_a_proxy_that_refuses_the_connection_is_named() -> None:
    proxy = f"http://127.0.0.1:{closed_port()}"
    async with sandbox_client("https://otp.invalid", proxy=proxy, clock=NO_PAUSES) as client:
        with pytest.raises(
            NotSentError, match=r"no connection to otp\.invalid through the proxy 127\.0\.0\.1: "
        ) as caught:
            await client.send_otp(TO, "482913")
    assert caught.value.temporary


async def test_a_proxy_that_wants_a_password_says_so() -> None:
    answer = sending(http(b"", status="407 Proxy Authentication Required"))
    async with raw_server(answer) as proxy, sandbox_client("https://otp.invalid", proxy=proxy.url) as client:
        with pytest.raises(
            NotSentError, match=r"no connection to otp\.invalid .*: the proxy answered HTTP 407"
        ) as caught:
            await client.send_otp(TO, "482913")
    assert not caught.value.temporary
    assert "password" in (caught.value.hint or "")


# ---------------------------------------------------------------------------------------------- slots


async def failing_post(pool: SessionPool, url: str) -> None:
    with pytest.raises(TransportError):
        await pool.post(url, b"{}", {}, 5.0)


async def test_a_session_that_keeps_failing_is_replaced(sandbox: Sandbox) -> None:
    pool = SessionPool(slots=1, max_failures=3)
    try:
        dead = f"http://127.0.0.1:{closed_port()}/"
        for _ in range(3):
            await failing_post(pool, dead)
        (sessions,) = pool._loops.values()
        old = sessions.slots[0].session
        await pool.post(f"{sandbox.url}/api/wa/otp", b"{}", {}, 5.0)
        assert sessions.slots[0].session is not old
        await asyncio.gather(*sessions._closing)
        assert old.closed
    finally:
        await pool.aclose()


async def test_an_old_session_is_replaced_when_what_is_in_flight_has_finished(clock: FakeClock) -> None:
    release = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 1:
            await release.wait()
        writer.write(http(accepted()))

    pool = SessionPool(slots=1, max_age=60, monotonic=clock.time)
    async with raw_server(answer) as server, sandbox_client(server.url, transport=pool) as client:
        in_flight = asyncio.create_task(client.send_otp(TO, "482913"))
        while not server.requests:  # noqa: ASYNC110 - the socket has no event to wait for
            await asyncio.sleep(0)
        (sessions,) = pool._loops.values()
        old = sessions.slots[0].session
        clock.advance(61)
        await client.send_otp(TO, "482913")
        assert sessions.slots[0].session is not old
        assert not old.closed
        release.set()
        assert (await in_flight).status is SendStatus.ACCEPTED
        await asyncio.gather(*sessions._closing)
        assert old.closed
