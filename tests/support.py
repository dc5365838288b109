"""Servers that misbehave in ways the sandbox does not, a transport with given outcomes, and virtual time."""

import asyncio
import itertools
import selectors
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import (
    asynccontextmanager,
    suppress,
)
from typing import TypeVar

from nxotp_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    Clock,
    InvalidSignatureError,
    MetaError,
    OtpClient,
    OtpContentError,
    ParameterError,
    PermissionDeniedError,
    TemplateError,
    TimestampExpiredError,
    TransientApiError,
)
from nxotp_async.sandbox import ReceivedRequest, Sandbox
from nxotp_async.transports import Answer

# The vendor's table of failures, written down once more.
VENDOR_FAILURES: dict[int, type[ApiError]] = {
    -1: TransientApiError,
    1001: AuthenticationError,
    1002: ParameterError,
    1003: InvalidSignatureError,
    1004: TimestampExpiredError,
    1005: PermissionDeniedError,
    9000: ParameterError,
    9001: TransientApiError,
    9002: AccountError,
    9003: AccountError,
    9004: AccountError,
    9005: AccountError,
    9006: AccountError,
    9007: ApiError,
    9013: AccountError,
    9014: TemplateError,
    9015: OtpContentError,
    9099: MetaError,
    10003: AccountError,
    10005: TemplateError,
}

_Server = TypeVar("_Server")

ACCEPTED = (
    b'{"code":0,"data":{"messaging_product":"whatsapp","messages":[{"id":"gBGHhhdgYFCBnwIJ6QRYvhwQk7Nc"}]},'
    b'"message":"Request successful"}'
)


_numbers = itertools.count()


def accepted() -> bytes:
    """Return the answer to an accepted message, with an id that no other one has."""
    return ACCEPTED.replace(b"gBGHhhdg", b"%08d" % next(_numbers))


def http(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    """Return an HTTP response as bytes."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


class RawServer:
    """A server below HTTP: it reads each request whole, hands the connection to `answer`, and counts.

    Attributes:
        requests: The requests read whole: their bytes.
        connections: How many connections were opened.
    """

    def __init__(self, answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""
        self._answer = answer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                self.requests.append(head + await reader.readexactly(length))
                await self._answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def raw_server(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[RawServer]:
    """Run a `RawServer` on a free port of loopback."""
    server = RawServer(answer)
    tasks: set[asyncio.Task[None]] = set()
    transports: list[asyncio.WriteTransport] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transports.append(writer.transport)
        tasks.add(asyncio.create_task(server._serve(reader, writer)))

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{port}"
    try:
        yield server
    finally:
        listener.close()
        for _ in range(5):  # what has just been accepted takes some turns of the loop to become a task
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for transport in transports:  # a task that is cancelled before its first step closes nothing
            transport.abort()
        await asyncio.sleep(0)


def sending(payload: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """Return an `answer` that sends these bytes and closes the connection."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(payload)
        await writer.drain()
        writer.close()

    return answer


def closed_port() -> int:
    """Return a port of loopback on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def see_off(client: OtpClient) -> None:
    """Wait until the server has dealt with the connections this client gave up while they were being made.

    They are accepted in order. CPython 3.11 leaks one that it accepts in the very moment in which its server closes.
    """
    await client.send_otp("+999 555 0100", "482913")
    await client.aclose()


class ScriptedTransport:
    """A transport whose outcomes are given: each POST gets the next one, and all further ones get the last.

    An outcome is an answer, or an exception to raise. Without any, every message is accepted.
    """

    def __init__(self, *outcomes: Answer | tuple[int, Mapping[str, str], bytes] | Exception) -> None:
        self.posts: list[tuple[bytes, Mapping[str, str], float]] = []
        self._outcomes = list(outcomes)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        self.posts.append((body, headers, timeout))
        await asyncio.sleep(0)
        if not self._outcomes:
            return Answer(200, {}, accepted())
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return Answer(*outcome)

    async def aclose(self) -> None:
        pass


class Unbinding:
    """A sandbox that unbinds its first number when so many requests have come.

    Attributes:
        refused: How many requests it has refused for that.
    """

    def __init__(self, numbers: Sequence[str], after: int) -> None:
        self.sandbox = Sandbox(business_phones=numbers, on_request=self._count)
        self.refused = 0
        self._left = after

    def _count(self, request: ReceivedRequest) -> None:
        self._left -= 1
        self.refused += request.code == 10003
        if not self._left:
            del self.sandbox.business_phones[0]


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as there is nothing else to do."""

    def __init__(self) -> None:
        self._now = 0.0
        self.clock_error = 0.0  # seconds by which the machine's clock is ahead
        selector = selectors.DefaultSelector()
        select = selector.select

        def jump(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            self._now += timeout or 1e-6  # an iteration takes a moment, as real ones do
            return select(0)

        selector.select = jump  # type: ignore[method-assign]
        super().__init__(selector)

    def time(self) -> float:
        return self._now

    @property
    def clock(self) -> Clock:
        return Clock(time=lambda: 1_800_000_000 + self._now + self.clock_error, monotonic=self.time, random=lambda: 1.0)
