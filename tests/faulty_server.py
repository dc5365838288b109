"""A server that misbehaves on its connections, in a process of its own: what its client's kernel knows, a client in
the same event loop would have known too.

    python tests/faulty_server.py SCENARIO SEED [CERTIFICATE]

It prints its port. At the end of its standard input it prints, as JSON, every request that it has read whole, in
order: the cus_message_id, and whether it was accepted or refused.
"""

import asyncio
import json
import random
import socket
import ssl
import struct
import sys
from collections.abc import Callable
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
        concurrency: The only concurrency this makes sense for.
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
    concurrency: int | None = None
    bursts: int | None = None
    timeout: float = 5.0
    target: float | None = None


_duplicate = Scenario(extra=itself, refused=0.2)
_duplicate_late = attrs.evolve(_duplicate, delay=LATE, extra_share=0.3)
_refusal = Scenario(extra=itself, refused=0.25, code=-1, extra_after=("refused",))

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
}


class Server:
    """The listener, and the record of what it was asked and has answered."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.chance = random.Random(seed)
        self.record: list[tuple[str, str]] = []

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


class Connection(asyncio.Protocol):
    """Reads each request whole, answers it, and misbehaves."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while not self._transport.is_closing():
            head, end, rest = self._received.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if not end or len(rest) < length:
                return
            self._received = rest[length:]
            self._answer(json.loads(rest[:length])["cus_message_id"])

    def _answer(self, cus_message_id: str) -> None:
        scenario, chance = self._server.scenario, self._server.chance
        kind, answer = self._server.answer(cus_message_id)
        extra = b""
        if scenario.extra and kind in scenario.extra_after and chance.random() < scenario.extra_share:
            extra = scenario.extra(answer, chance)
        if scenario.delay is None:
            self._write(answer + extra)
            return
        self._write(answer)
        delay = chance.uniform(*scenario.delay)
        if delay:
            asyncio.get_running_loop().call_later(delay, self._write, extra)
        else:
            self._write(extra)

    def _write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)


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
        pass
    print(json.dumps(server.record), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
