"""What every transport does: outcomes, TLS, answers that are broken, and what it takes from the environment."""

import asyncio
import gzip
import itertools
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from support import ACCEPTED, accepted, closed_port, http, raw_server, sending

from nxotp_async import NotSentError, OtpMessage, OutcomeUnknownError, RetryPolicy, SendStatus
from nxotp_async.sandbox import Sandbox, sandbox_client
from nxotp_async.testing import NO_PAUSES, FakeClock
from nxotp_async.transports import Transport

pytestmark = pytest.mark.usefixtures("transport_kind")

TO = "+999 555 0100"
ONCE = RetryPolicy(max_attempts=1)


def messages(number: int) -> list[OtpMessage]:
    return [OtpMessage(TO, "482913") for _ in range(number)]


# ---------------------------------------------------------------------------------------------- sent, or not


async def test_a_closed_port_is_retried_and_was_not_sent() -> None:
    async with sandbox_client(f"http://127.0.0.1:{closed_port()}", clock=NO_PAUSES) as client:
        collector = await client.send_batch(messages(20))
    assert len(collector.not_sent) == 20
    assert min(result.attempts for result in collector) > 3
    assert "Connection refused" in str(collector.not_sent[0].error)


async def test_a_name_that_does_not_exist_is_retried_and_was_not_sent(new_transport: Callable[..., Transport]) -> None:
    pool = new_transport()
    try:
        with pytest.raises(NotSentError, match=r"name otp\.invalid was not found") as caught:
            await pool.post("https://otp.invalid/", b"{}", {}, 5.0)
        assert caught.value.temporary
    finally:
        await pool.aclose()


async def test_a_server_that_takes_no_connections_was_not_sent_to() -> None:
    # The backlog is full, and nobody accepts: connecting hangs.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        blockers = [socket.socket() for _ in range(3)]
        for blocker in blockers:
            blocker.setblocking(False)
            blocker.connect_ex(address)
        async with sandbox_client(f"http://127.0.0.1:{address[1]}", timeout=0.2, retry=ONCE) as client:
            with pytest.raises(NotSentError, match=r"no connection to 127\.0\.0\.1:\d+ within 0\.2 s") as caught:
                await client.send_otp(TO, "482913")
        for blocker in blockers:
            blocker.close()
    assert caught.value.temporary


async def test_a_server_that_reads_and_drops_gets_every_message_once() -> None:
    async def drop(writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with raw_server(drop) as server, sandbox_client(server.url) as client:
        collector = await client.send_batch(messages(2_000))
    assert len(server.requests) == 2_000
    assert len(collector.unknown) == 2_000
    assert {result.attempts for result in collector} == {1}


async def test_a_reset_instead_of_an_answer_is_unknown() -> None:
    async def reset(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with raw_server(reset) as server, sandbox_client(server.url) as client:
        with pytest.raises(OutcomeUnknownError, match="after the request was sent"):
            await client.send_otp(TO, "482913")
    assert len(server.requests) == 1


async def test_what_may_have_been_accepted_is_sent_again_only_on_request() -> None:
    async def drop(writer: asyncio.StreamWriter) -> None:
        writer.close()

    policy = RetryPolicy(resend_unknown=True)
    async with raw_server(drop) as server, sandbox_client(server.url, clock=NO_PAUSES, retry=policy) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.send_otp(TO, "482913")
    assert len(server.requests) == 3
    assert len({request.partition(b"\r\n\r\n")[2] for request in server.requests}) == 1


async def test_a_keep_alive_connection_that_died_unnoticed_counts_by_the_same_rule(
    new_transport: Callable[..., Transport],
) -> None:
    """The server answers, and closes the connection the moment the next request has begun to arrive."""
    answers = itertools.chain([True], itertools.repeat(False))

    async def answer_once(writer: asyncio.StreamWriter) -> None:
        if next(answers):
            writer.write(http(accepted()))
        else:
            writer.transport.abort()

    pool = new_transport()
    async with raw_server(answer_once) as server, sandbox_client(server.url, transport=pool) as client:
        await client.send_otp(TO, "482913")
        with pytest.raises(OutcomeUnknownError):
            await client.send_otp(TO, "482913")
    assert server.connections == 1
    assert len(server.requests) == 2


async def test_a_keep_alive_connection_known_to_be_dead_is_not_written_to(
    new_transport: Callable[..., Transport],
) -> None:
    pool = new_transport()

    async def answer_and_close(writer: asyncio.StreamWriter) -> None:
        await sending(http(accepted()))(writer)

    async with raw_server(answer_and_close) as server, sandbox_client(server.url, transport=pool) as client:
        for _ in range(5):
            # Where its end is noticed only after the attempt began, nothing was written: it is safely tried again.
            assert (await client.send_otp(TO, "482913")).status is SendStatus.ACCEPTED
    assert len(server.requests) == server.connections == 5


# ---------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def tls_server(certificate: trustme.LeafCert) -> AsyncIterator[str]:
    """Run a server that accepts every message over TLS."""

    async def accept(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=ACCEPTED, content_type="application/json")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    app = web.Application()
    app.router.add_post("/api/wa/otp", accept)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "localhost", 0, ssl_context=context).start()
    try:
        yield f"https://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def trusting(authority: trustme.CA, new_transport: Callable[..., Transport]) -> Transport:
    """A transport that trusts the authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return new_transport(ssl_context=context)


async def test_a_certificate_of_a_known_authority_is_accepted(authority: trustme.CA, trusting: Transport) -> None:
    async with (
        tls_server(authority.issue_cert("localhost")) as url,
        sandbox_client(url, transport=trusting) as client,
    ):
        assert (await client.send_otp(TO, "482913")).status is SendStatus.ACCEPTED


@pytest.mark.parametrize(
    ("issue", "reason"),
    [
        pytest.param(lambda ca: ca.issue_cert("otp.example"), "Hostname mismatch", id="wrong host"),
        pytest.param(
            lambda ca: ca.issue_cert("localhost", not_after=datetime.now(UTC) - timedelta(days=1)),
            "certificate has expired",
            id="expired",
        ),
        pytest.param(lambda _: trustme.CA().issue_cert("localhost"), "unable to get local issuer", id="unknown"),
    ],
)
async def test_a_bad_certificate_is_refused_and_not_tried_again(
    authority: trustme.CA, trusting: Transport, issue: Callable[[trustme.CA], trustme.LeafCert], reason: str
) -> None:
    async with tls_server(issue(authority)) as url, sandbox_client(url, transport=trusting) as client:
        with pytest.raises(NotSentError, match=reason) as caught:
            await client.send_otp(TO, "482913")
    assert caught.value.attempts == 1


async def test_certificates_are_verified_by_default(authority: trustme.CA) -> None:
    async with tls_server(authority.issue_cert("localhost")) as url, sandbox_client(url) as client:
        with pytest.raises(NotSentError, match=r"certificate of localhost:\d+ was refused"):
            await client.send_otp(TO, "482913")


async def test_a_server_that_does_not_speak_tls_was_not_sent_to(sandbox: Sandbox) -> None:
    async with sandbox_client(sandbox.url.replace("http:", "https:"), clock=NO_PAUSES) as client:
        with pytest.raises(NotSentError, match="no TLS connection") as caught:
            await client.send_otp(TO, "482913")
    assert caught.value.attempts > 3
    assert not sandbox.requests


# ---------------------------------------------------------------------------------------------- broken answers


HOSTILE = {
    "HTML": http(b"<html>busy</html>", status="502 Bad Gateway"),
    "no length, cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + ACCEPTED[:40],
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a gzip bomb": http(gzip.compress(b" " * 50_000_000), headers="Content-Encoding: gzip\r\n"),
    "an answer compressed unasked": http(gzip.compress(ACCEPTED), headers="Content-Encoding: gzip\r\n"),
    "a body past 64 KiB": http(ACCEPTED[:-1] + b" " * 70_000 + b"}"),
    "a header past all bounds": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 100_000,
    "a nesting bomb": http(b"[" * 60_000),
    "an id that is twice there": http(ACCEPTED.replace(b'"id":', b'"id":"other","id":')),
    "chunks without end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + b" " * 1024 + b"\r\n",
    "a success with a failure's status": http(ACCEPTED, status="500 Internal Server Error"),
    "early hints for ever": b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_answer_is_unknown_and_the_next_send_works(payload: bytes) -> None:
    answers = itertools.chain([payload], itertools.repeat(http(ACCEPTED)))

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(next(answers))
        await writer.drain()
        writer.close()

    async with raw_server(answer) as server, sandbox_client(server.url, timeout=5) as client:
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.send_otp(TO, "482913")
        assert caught.value.attempts == 1
        assert (await client.send_otp(TO, "482913")).status is SendStatus.ACCEPTED


async def test_an_endless_answer_is_left_at_64_kib() -> None:
    written = 0
    closed = asyncio.Event()

    async def pour(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        try:
            while True:
                writer.write(b" " * 65_536)
                await writer.drain()
                written += 65_536
        except ConnectionError:
            closed.set()
            raise

    async with raw_server(pour) as server, sandbox_client(server.url) as client:
        with pytest.raises(OutcomeUnknownError, match="longer than 64 KiB"):
            await client.send_otp(TO, "482913")
        await closed.wait()
    assert written < 32 << 20  # what fits into the buffers of two sockets


async def test_a_redirect_is_not_followed() -> None:
    async with raw_server(sending(http(ACCEPTED))) as thief:
        redirect = http(b"", status="307 Temporary Redirect", headers=f"Location: {thief.url}/api/wa/otp\r\n")
        async with raw_server(sending(redirect)) as server, sandbox_client(server.url) as client:
            (result,) = [result async for result in client.send_many(messages(1))]
    assert result.status is SendStatus.REJECTED
    assert "redirects are never followed" in str(result.error)
    assert not thief.requests


# ---------------------------------------------------------------------------------------------- the environment


async def test_proxies_and_netrc_of_the_environment_are_not_used(
    sandbox: Sandbox, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with sandbox.client(clock=clock) as client:
        await client.send_otp(TO, "482913")
    assert "Authorization" not in sandbox.requests[0].headers


async def test_connections_are_kept_alive(sandbox: Sandbox, clock: FakeClock) -> None:
    async with raw_server(_answer_and_stay) as server, sandbox_client(server.url, clock=clock) as client:
        for _ in range(50):
            await client.send_otp(TO, "482913")
    assert server.connections == 1


async def _answer_and_stay(writer: asyncio.StreamWriter) -> None:
    writer.write(http(accepted()))
