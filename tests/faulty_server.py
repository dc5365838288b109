"""A server that misbehaves on its connections, in a process of its own: what its client's kernel knows, a client in
the same event loop would have known too.

    python tests/faulty_server.py SCENARIO SEED [CERTIFICATE]

It prints its port. At the end of its standard input it prints, as JSON, every request that it has read whole, in
order: the cus_message_id, and whether it was accepted or refused. Where it holds its answers back, it prints a line
when it has all requests, and sends the answers when it has read one.
"""

import asyncio
import json
import random
import signal
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

import attrs


def http(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def itself(answer: bytes, chance: random.Random) -> bytes:
    return answer


def junk(answer: bytes, chance: random.Random) -> bytes:
    return chance.choice((b"\r\n", b"junk\r\n\r\n", b"HTTP/1.1 500 Oops\r\nX-Junk: "))


LATE: Final = (0.001, 0.005)
TIMED_OUT: Final = "408 Request Timeout"


@attrs.frozen(kw_only=True)
class Scenario:
    """What the server does, and how the client has to send for it to matter.

    Attributes:
        refused: The share of the messages that are refused; the others are accepted.
        code: The code they are refused with; -1 is tried again.
        own_ids: Whether the message id is the cus_message_id, or made from it.
        headers: Of each answer.
        extra: Makes the bytes that follow an answer although nobody asked for them.
        extra_share: The share of the answers that they follow.
        extra_after: The kind of answer they follow.
        delay: Seconds between the answer and these bytes, from and to; without, both are one write.
        closes_after: The number of answers after which a connection is closed.
        resets: Whether it is reset instead.
        tls: Whether it is TLS.
        idle: Seconds without a request after which...
        idle_bytes: ... these bytes are sent...
        idle_closes: ... and the connection is closed.
        holds: Answers this number of requests together, when the client has been stopped.
        pause: Seconds between the client's bursts of one message for each connection, from and to; without, it sends
            one message after the other.
        concurrency: The ones this makes sense for, where not all.
        bursts: How many bursts at the most.
        timeout: Seconds for an attempt of the client's.
        target: The share of unknown outcomes that is put up with.
    """

    refused: float = 0.0
    code: int = 1002
    own_ids: bool = False
    headers: str = ""
    extra: Callable[[bytes, random.Random], bytes] | None = None
    extra_share: float = 1.0
    extra_after: tuple[str, ...] = ("accepted", "refused")
    delay: tuple[float, float] | None = None
    closes_after: int | None = None
    resets: bool = False
    tls: bool = False
    idle: float | None = None
    idle_bytes: bytes = b""
    idle_closes: bool = False
    holds: int = 0
    pause: tuple[float, float] | None = None
    concurrency: tuple[int, ...] = ()
    bursts: int | None = None
    timeout: float = 5.0
    target: float | None = None


_duplicate = Scenario(extra=itself, refused=0.2)
_duplicate_late = attrs.evolve(_duplicate, delay=LATE, extra_share=0.3)
_refusal = Scenario(extra=itself, refused=0.25, code=-1, extra_after=("refused",))
_idle_408 = Scenario(refused=0.2, idle=0.005, idle_bytes=http(b"", status=TIMED_OUT), pause=(0.004, 0.006))
_fin = Scenario(closes_after=1, target=0.01)
_fin_after_3 = attrs.evolve(_fin, closes_after=3)
_rst = attrs.evolve(_fin, resets=True, tls=True)


def _paced(scenario: Scenario) -> Scenario:
    return attrs.evolve(scenario, pause=(0.001, 0.001), concurrency=(1,), target=0.0)


SCENARIOS: Final = {
    "duplicate": _duplicate,
    "duplicate-next-write": attrs.evolve(_duplicate, delay=(0, 0)),
    "duplicate-late": _duplicate_late,
    "duplicate-late-own-ids": attrs.evolve(_duplicate_late, own_ids=True),
    "refusal": _refusal,
    "refusal-next-write": attrs.evolve(_refusal, delay=(0, 0)),
    "refusal-late": attrs.evolve(_refusal, delay=LATE),
    "junk": Scenario(extra=junk),
    "junk-late": Scenario(extra=junk, extra_share=0.3, delay=LATE),
    "idle-408": _idle_408,
    "idle-408-closes": attrs.evolve(
        _idle_408, idle_bytes=http(b"", status=TIMED_OUT, headers="Connection: close\r\n"), idle_closes=True
    ),
    "fin": _fin,
    "fin-1ms": _paced(_fin),
    "fin-after-3": _fin_after_3,
    "fin-after-3-1ms": _paced(_fin_after_3),
    "rst-tls": _rst,
    "rst-tls-1ms": _paced(_rst),
    "keep-alive-1s": Scenario(
        headers="Keep-Alive: timeout=1\r\n", idle=1.0, idle_closes=True, pause=(0.995, 1.005), bursts=8, target=0.0
    ),
    "frozen": Scenario(refused=0.2, holds=64, concurrency=(64,), bursts=1, timeout=1.0, target=0.0),
}


class Server:
    """The listener, and the record of what it was asked and has answered."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.chance = random.Random(seed)
        self.record: list[tuple[str, str]] = []
        self._held: list[Callable[[], None]] = []

    def answer(self, cus_message_id: str) -> tuple[str, bytes]:
        """Accept or refuse a message, for the record, and return the answer that says so."""
        refused = self.chance.random() < self.scenario.refused
        kind = "refused" if refused else "accepted"
        self.record.append((cus_message_id, kind))
        message_id = cus_message_id if self.scenario.own_ids else f"wamid.{cus_message_id}"
        data = {"messaging_product": "whatsapp", "messages": [{"id": message_id}]}
        body = (
            {"code": self.scenario.code, "message": "Request failed", "data": None}
            if refused
            else {"code": 0, "data": data, "message": "Request successful"}
        )
        return kind, http(json.dumps(body, separators=(",", ":")).encode(), headers=self.scenario.headers)

    def hold(self, answer: Callable[[], None]) -> None:
        """Keep an answer for `let_go`, and say so when there are enough of them."""
        self._held.append(answer)
        if len(self._held) == self.scenario.holds:
            print("holds", flush=True)

    def let_go(self) -> None:
        for answer in self._held:
            answer()
        print("answered", flush=True)


class Connection(asyncio.Protocol):
    """Reads each request whole, answers it, and misbehaves."""

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
            kind, answer = self._server.answer(json.loads(rest[:length])["cus_message_id"])
            respond = partial(self._respond, kind, answer)
            self._server.hold(respond) if self._server.scenario.holds else respond()

    def _respond(self, kind: str, answer: bytes) -> None:
        scenario, chance = self._server.scenario, self._server.chance
        loop = asyncio.get_running_loop()
        extra = b""
        if scenario.extra and kind in scenario.extra_after and chance.random() < scenario.extra_share:
            extra = scenario.extra(answer, chance)
        if scenario.delay is None:
            self._write(answer + extra)
        else:
            self._write(answer)
            delay = chance.uniform(*scenario.delay)
            loop.call_later(delay, self._write, extra) if delay else self._write(extra)
        self._answers += 1
        if self._answers == scenario.closes_after:
            self._close()
        elif scenario.idle is not None:
            self._idle = loop.call_later(scenario.idle, self._idled)

    def _idled(self) -> None:
        self._write(self._server.scenario.idle_bytes)
        if self._server.scenario.idle_closes:
            self._close()

    def _write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        """Close the connection at once after what was written last."""
        if self._transport.is_closing():
            return
        connection = self._transport.get_extra_info("socket")
        if self._server.scenario.resets:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            connection.shutdown(socket.SHUT_WR)
            self._transport.close()


async def main(name: str, seed: str, certificate: str | None = None) -> None:
    server = Server(SCENARIOS[name], int(seed))
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0, ssl=context, backlog=256)
    print(listener.sockets[0].getsockname()[1], flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        server.let_go()
    print(json.dumps(server.record), flush=True)


if __name__ == "__main__":
    signal.alarm(900)  # whatever becomes of the process that started it
    asyncio.run(main(*sys.argv[1:]))
