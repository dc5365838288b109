"""A server that misbehaves on its connections. In a process of its own: the event loop of a client that shared it would
learn what otherwise only the kernel knows.

    python tests/faulty_server.py SCENARIO SEED [CERTIFICATE]

It prints its port, and, when its standard input ends, its record as JSON: of every request that it has read whole, in
order, the cus_message_id and the answer.
"""

import asyncio
import ctypes
import json
import random
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import attrs

Range = tuple[float, float]
MAX_SECONDS: Final = 300
"""How long a run may take."""
LIBC_CONNECT: Final = ctypes.CDLL(None).connect
"""Resets a connection, where the address is AF_UNSPEC, all zeros: see connect(2)."""


@attrs.frozen(kw_only=True)
class Scenario:
    """What the server does, and how the client has to send for it to matter. All times are in seconds."""

    refused: float = 0.0  # the share of the messages that are refused
    code: int = 1002  # what they are refused with; -1 is tried again
    dropped: float = (
        0.0  # the share of the messages that are accepted, and whose connection is closed without an answer
    )
    own_ids: bool = False  # whether the message id is the cus_message_id itself, or made from it
    headers: str = ""  # of each answer
    extra: Callable[[bytes, random.Random], bytes] | None = None  # makes of an answer what follows it unasked
    extra_after: tuple[str, ...] = ("accepted", "refused")  # which answers
    delay: Range | None = None  # how much later; without, it is in the same write
    closes_after: int | None = None  # the number of answers after which a connection is closed
    resets: bool = False  # whether it is reset instead
    tls: bool = False
    idle: float | None = None  # the time without a request after which ...
    idle_bytes: bytes = b""  # ... this is sent ...
    idle_closes: bool = False  # ... and whether the connection is closed
    holds: int = 0  # answers this number of requests together, when it is told to

    pause: Range | None = None  # between bursts of one message for each connection; without, there is but one burst
    concurrency: tuple[int, ...] = ()  # the ones this makes sense for, where not all
    bursts: int | None = None  # how many at the most
    timeout: float = 5.0  # for an attempt
    senders: int = 0  # how many the client has to choose from, each with an account of its own
    target: float | None = None  # the share of unknown outcomes that is put up with


def http(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def itself(answer: bytes, _: random.Random) -> bytes:
    return answer


def junk(_: bytes, chance: random.Random) -> bytes:
    return chance.choice((b"\r\n", b"junk\r\n\r\n", b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nX-Junk: "))


def paced(scenario: Scenario) -> Scenario:
    return attrs.evolve(scenario, pause=(0.001, 0.001), concurrency=(1,), target=0.0)


NEXT_WRITE, LATE = (0.0, 0.0), (0.001, 0.005)
TIMED_OUT: Final = "408 Request Timeout"
DUPLICATE = Scenario(extra=itself, refused=0.2)
REFUSAL = Scenario(extra=itself, refused=0.25, code=-1, extra_after=("refused",))
IDLE_408 = Scenario(refused=0.2, idle=0.005, idle_bytes=http(b"", status=TIMED_OUT), pause=(0.004, 0.006))
CLOSING_408 = http(b"", status=TIMED_OUT, headers="Connection: close\r\n")
FIN = Scenario(closes_after=1, target=0.01)
FIN_AFTER_3 = attrs.evolve(FIN, closes_after=3)
RST_TLS = attrs.evolve(FIN, resets=True, tls=True)
KEEP_ALIVE = Scenario(headers="Keep-Alive: timeout=1\r\n", idle=1.0, idle_closes=True, pause=(0.995, 1.005))

SCENARIOS: Final = {
    "duplicate": DUPLICATE,
    "duplicate-next-write": attrs.evolve(DUPLICATE, delay=NEXT_WRITE),
    "duplicate-late": attrs.evolve(DUPLICATE, delay=LATE),
    "duplicate-late-own-ids": attrs.evolve(DUPLICATE, delay=LATE, own_ids=True),
    "refusal": REFUSAL,
    "refusal-next-write": attrs.evolve(REFUSAL, delay=NEXT_WRITE),
    "refusal-late": attrs.evolve(REFUSAL, delay=LATE),
    "junk": Scenario(extra=junk),
    "junk-late": Scenario(extra=junk, delay=LATE),
    "idle-408": IDLE_408,
    "idle-408-closes": attrs.evolve(IDLE_408, idle_bytes=CLOSING_408, idle_closes=True),
    "fin": FIN,
    "fin-1ms": paced(FIN),
    "fin-after-3": FIN_AFTER_3,
    "fin-after-3-1ms": paced(FIN_AFTER_3),
    "rst-tls": RST_TLS,
    "rst-tls-1ms": paced(RST_TLS),
    "keep-alive-1s": attrs.evolve(KEEP_ALIVE, bursts=8, target=0.0),
    # A refusal for the account's sake sends the client to its next sender, and a dropped message must not.
    "drop-senders": Scenario(dropped=0.3, refused=0.4, code=10005, senders=3),
    "frozen": Scenario(refused=0.2, holds=64, concurrency=(64,), bursts=1, timeout=1.0, target=0.0),
}


class Server:
    """What all connections share: the scenario, chance, the record, and the answers that are held back."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.chance = random.Random(seed)
        self.record: list[tuple[str, str]] = []
        self._held: list[Callable[[], None]] = []

    def decide(self, cus_message_id: str) -> tuple[str, bytes]:
        """Accept or refuse a message, for the record, and return which, and the answer that says so."""
        if self.chance.random() < self.scenario.dropped:
            self.record.append((cus_message_id, "accepted"))
            return "accepted", b""
        refused = self.chance.random() < self.scenario.refused
        kind = "refused" if refused else "accepted"
        self.record.append((cus_message_id, kind))
        message_id = cus_message_id if self.scenario.own_ids else f"wamid.{cus_message_id}"
        data = {"messaging_product": "whatsapp", "messages": [{"id": message_id}]}
        reply = (
            {"code": self.scenario.code, "message": "Request failed", "data": None}
            if refused
            else {"code": 0, "data": data, "message": "Request successful"}
        )
        return kind, http(json.dumps(reply, separators=(",", ":")).encode(), headers=self.scenario.headers)

    def hold(self, respond: Callable[[], None]) -> None:
        """Keep an answer back, and say so when there are as many as the scenario wants."""
        self._held.append(respond)
        if len(self._held) == self.scenario.holds:
            print("held", flush=True)

    def let_go(self) -> None:
        for respond in self._held:
            respond()
        print("answered", flush=True)


class Connection(asyncio.Protocol):
    """Reads each request whole, has it answered, and misbehaves."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = b""
        self._answers = 0
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._received += data
        while not self._transport.is_closing():
            head, end, rest = self._received.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if not end or len(rest) < length:
                return
            self._received = rest[length:]
            respond = partial(self._respond, *self._server.decide(json.loads(rest[:length])["cus_message_id"]))
            self._server.hold(respond) if self._server.scenario.holds else respond()

    def _respond(self, kind: str, answer: bytes) -> None:
        scenario, loop = self._server.scenario, asyncio.get_running_loop()
        self._answers += 1
        if self._answers == scenario.closes_after or not answer:
            self._close(answer)
            return
        extra = b""
        if scenario.extra is not None and kind in scenario.extra_after:
            extra = scenario.extra(answer, self._server.chance)
        if scenario.delay is None:
            self._write(answer + extra)
        else:
            self._write(answer)
            delay = self._server.chance.uniform(*scenario.delay)
            loop.call_later(delay, self._write, extra) if delay else self._write(extra)
        if scenario.idle is not None:
            self._idle = loop.call_later(scenario.idle, self._idled)

    def _idled(self) -> None:
        if self._server.scenario.idle_closes:
            self._close(self._server.scenario.idle_bytes)
        else:
            self._write(self._server.scenario.idle_bytes)

    def _write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self, last: bytes) -> None:
        """Send these bytes, and close the connection at once: the event loop would do so in its next turn only."""
        if self._transport.is_closing():
            return
        connection = self._transport.get_extra_info("socket")
        if self._server.scenario.resets:
            self._write(last)
            LIBC_CONNECT(connection.fileno(), bytes(16), 16)
            self._transport.abort()
            return
        with suppress(OSError):  # the client was faster
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # so that one segment carries the FIN, too
            self._write(last)
            connection.shutdown(socket.SHUT_WR)
        self._transport.close()


async def main(name: str, seed: str, certificate: str | None = None) -> None:
    server = Server(SCENARIOS[name], int(seed))
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0, ssl=context)
    print(listener.sockets[0].getsockname()[1], flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        server.let_go()
    print(json.dumps(server.record), flush=True)


if __name__ == "__main__":
    signal.alarm(MAX_SECONDS)  # whatever becomes of who started it
    asyncio.run(main(*sys.argv[1:]))
