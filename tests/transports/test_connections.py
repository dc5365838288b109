"""Connections that the server has closed, or on which it said what nobody asked for, carry no further request."""

import asyncio
import itertools
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import Any

import aiohttp
import pytest
from support import accepted, http

from nxotp_async import NotSentError, OtpMessage, SendStatus
from nxotp_async.sandbox import sandbox_client
from nxotp_async.testing import FakeClock
from nxotp_async.transports import SessionPool, Transport
from nxotp_async.transports.keep_alive import KeepAlive

pytestmark = pytest.mark.usefixtures("transport_kind")

TO = "+999 555 0100"
REFUSED = b'{"code":-1,"message":"Request failed","data":null}'


class BlockingServer:
    """A server in threads of its own, so that what it has sent reaches this side's kernel at once.

    Attributes:
        requests: How many were read whole, on each connection.
        idle: Called on a connection after each answer; what it does has happened when the client goes on.
    """

    def __init__(self, idle: Callable[[socket.socket], None], answer: Callable[[], bytes]) -> None:
        self.requests: list[int] = []
        self._idle = idle
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        for place in itertools.count():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.requests.append(0)
            threading.Thread(target=self._answer_requests, args=(connection, place), daemon=True).start()

    def _answer_requests(self, connection: socket.socket, place: int) -> None:
        with connection, connection.makefile("rb") as file, suppress(OSError):
            while head := list(takewhile(lambda line: line not in (b"", b"\r\n"), iter(file.readline, None))):
                length = next(int(line.split(b":")[1]) for line in head if line.lower().startswith(b"content-length"))
                file.read(length)
                self.requests[place] += 1
                connection.sendall(http(self._answer()))
                self._idle(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def serving(idle: Callable[[socket.socket], None], answer: Callable[[], bytes] = accepted) -> Iterator[BlockingServer]:
    server = BlockingServer(idle, answer)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


class Handover:
    """Lets the server act when the client has its answer, and the client go on when the server has acted."""

    def __init__(self, act: Callable[[socket.socket], None]) -> None:
        self._act = act
        self._answered = threading.Semaphore(0)
        self._acted = threading.Semaphore(0)

    def __call__(self, connection: socket.socket) -> None:
        assert self._answered.acquire(timeout=10)
        self._act(connection)
        self._acted.release()

    def pass_on(self) -> None:
        self._answered.release()
        assert self._acted.acquire(timeout=10)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())


def finish(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def saying(data: Callable[[], bytes]) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data())


UNASKED = {
    "closed": finish,
    "reset": reset,
    "junk": saying(lambda: b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a second acceptance": saying(lambda: http(accepted())),
    "a second refusal": saying(lambda: http(REFUSED)),
    "408": saying(lambda: http(b"", status="408 Request Timeout", headers="Connection: close\r\n")),
}


@pytest.mark.parametrize("noticed", [True, False], ids=["the loop knows", "only the kernel knows"])
@pytest.mark.parametrize("act", UNASKED.values(), ids=UNASKED.keys())
async def test_a_connection_with_something_on_it_is_not_written_to(
    act: Callable[[socket.socket], None], noticed: bool
) -> None:
    assert await requests_on_each_connection(act, noticed) == [1] * 5


@pytest.mark.parametrize("transport_kind", ["aiohttp"], indirect=True)
@pytest.mark.parametrize("act", UNASKED.values(), ids=UNASKED.keys())
async def test_nor_is_one_of_a_borrowed_session(act: Callable[[socket.socket], None]) -> None:
    async with aiohttp.ClientSession() as session:
        assert await requests_on_each_connection(act, noticed=False, session=session) == [1] * 5


async def requests_on_each_connection(act: Callable[[socket.socket], None], noticed: bool, **options: Any) -> list[int]:
    """Send five messages, and have the server do something on the connection after each."""
    handover = Handover(act)
    with serving(handover) as server:
        async with sandbox_client(server.url, **options) as client:
            for _ in range(5):
                result = await client.send_otp(TO, "482913")
                assert (result.status, result.attempts) == (SendStatus.ACCEPTED, 1)
                handover.pass_on()
                if noticed:
                    for _ in range(3):  # the loop reads what there is
                        await asyncio.sleep(0)
    return server.requests


@pytest.mark.parametrize("answer", [lambda: REFUSED, lambda: b"{}", lambda: b""], ids=["-1", "no code", "empty"])
async def test_only_an_acceptance_lets_its_connection_carry_another_request(answer: Callable[[], bytes]) -> None:
    """A second copy of any other answer could not be told from the next message's own."""
    with serving(lambda _: None, answer) as server:
        async with sandbox_client(server.url) as client:
            for _ in range(3):
                await client.send_batch([OtpMessage(TO, "482913")])
    assert set(server.requests) == {1}


@pytest.mark.parametrize("transport_kind", ["aiohttp"], indirect=True)
async def test_what_arrives_before_the_request_is_written_is_no_answer_to_it() -> None:
    """A new connection, too, is not written to where the server has already said something."""
    listener = socket.create_server(("127.0.0.1", 0))
    received = []

    def greet() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(http(accepted()))
            finish(connection)
            received.append(connection.recv(1))

    class Slow(aiohttp.TCPConnector):
        async def connect(self, *args: Any, **options: Any) -> Any:
            connection: Any = await super().connect(*args, **options)
            while not connection.protocol.should_close:  # noqa: ASYNC110 - until the loop has read the greeting
                await asyncio.sleep(0)
            return connection

    thread = threading.Thread(target=greet)
    thread.start()
    async with aiohttp.ClientSession(connector=Slow()) as session:
        pool = SessionPool(session=session)
        with pytest.raises(NotSentError) as caught:
            await pool.post(f"http://127.0.0.1:{listener.getsockname()[1]}/", b"{}", {}, 5.0)
        assert caught.value.temporary
    thread.join()
    listener.close()
    assert received == [b""]


# ---------------------------------------------------------------------------------------------- how long they may idle


async def test_a_connection_that_idled_too_long_is_not_used_again(
    clock: FakeClock, new_transport: Callable[..., Transport]
) -> None:
    with serving(lambda _: None) as server:
        pool = new_transport(keepalive_timeout=10, monotonic=clock.monotonic)
        async with sandbox_client(server.url, transport=pool) as client:
            for idle in (9, 9, 11):
                await client.send_otp(TO, "482913")
                clock.advance(idle)
            await client.send_otp(TO, "482913")
    assert server.requests == [3, 1]


@pytest.mark.parametrize("end", [finish, reset], ids=["closed", "reset"])
async def test_a_connection_that_ends_under_a_request_makes_the_others_distrusted(
    end: Callable[[socket.socket], None], clock: FakeClock, new_transport: Callable[..., Transport]
) -> None:
    """The server ends each connection when the second request on it has arrived."""

    def end_before_the_answer(connection: socket.socket) -> None:
        connection.recv(65_536)
        end(connection)

    with serving(end_before_the_answer) as server:
        pool = new_transport(monotonic=clock.monotonic)
        async with sandbox_client(server.url, transport=pool) as client:
            statuses = []
            for _ in range(4):
                statuses += [result.status async for result in client.send_many([OtpMessage(TO, "482913")])]
                clock.advance(2)
    assert statuses == [SendStatus.ACCEPTED, SendStatus.UNKNOWN, SendStatus.ACCEPTED, SendStatus.ACCEPTED]


async def test_connections_closed_from_this_side_teach_nothing(new_transport: Callable[..., Transport]) -> None:
    with serving(lambda _: None) as server:
        pool = new_transport()
        async with sandbox_client(server.url, transport=pool) as client:
            for _ in range(3):
                await client.send_otp(TO, "482913")
                await client.aclose()
            for _ in range(3):
                await client.send_otp(TO, "482913")
    assert server.requests == [1, 1, 1, 3]


async def test_a_connection_that_was_closed_makes_the_others_distrusted(
    new_transport: Callable[..., Transport],
) -> None:
    """Once the server has closed one that idled for a moment, none that idled longer is used in the next minute."""

    def finish_the_first(connection: socket.socket) -> None:
        if len(server.requests) == 1:
            finish(connection)

    handover = Handover(finish_the_first)
    clock = FakeClock()
    with serving(handover) as server:
        pool = new_transport(monotonic=clock.monotonic)
        async with sandbox_client(server.url, transport=pool) as client:
            for _ in range(3):
                await client.send_otp(TO, "482913")
                clock.advance(2)
                handover.pass_on()
            clock.advance(KeepAlive.MEMORY)
            for _ in range(2):
                await client.send_otp(TO, "482913")
                handover.pass_on()
    assert server.requests == [1, 1, 1, 2]
