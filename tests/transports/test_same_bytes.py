"""The same bytes, split anywhere, through both transports: the same outcome."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ACCEPTED, raw_server

from nxotp_async import OtpMessage, RetryPolicy, SendStatus
from nxotp_async.sandbox import sandbox_client

REFUSED = b'{"code":1002,"message":"Parameter error","data":null}'
BODIES = (ACCEPTED, REFUSED, b"<html>busy</html>", b"", b" " * 70_000, ACCEPTED[:-1] + b" " * 66_000 + b"}")
STATUS_LINES = (
    *(b"HTTP/1.1 %d Reason" % status for status in (200, 201, 204, 304, 307, 400, 408, 429, 500, 503, 101, 999)),
    *(b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/2 200 OK", b"HTTP/1.1 20 OK", b"http/1.1 200 OK", b"ICY 200 OK"),
)
HEADERS = (
    *(b"Connection: close", b"Connection: keep-alive", b"Keep-Alive: timeout=1", b"X-Empty:", b"Date: today"),
    *(
        b"X-Long: " + b"x" * 5000,
        b"Content-Encoding: gzip",
        b"bad header",
        b": nameless",
        b"X-Odd: \xff\x01",
        b" folded",
    ),
    *(b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Upgrade: h2c"),
)
BEFORE = (b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 2, b"\r\n")
AFTER = (b"", b"", b"\r\n", b"junk", b"HTTP/1.1 500 Oops\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


def by_length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def until_closed(body: bytes) -> bytes:
    return b"\r\n" + body


def cut_off(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%s" % (len(body) + 1, body)


def in_chunks(body: bytes) -> bytes:
    parts = [body[start : start + 30_000] for start in range(0, len(body), 30_000)]
    chunks = b"".join(b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nX-Trailer: x\r\n\r\n"


def in_chunks_without_end(body: bytes) -> bytes:
    return in_chunks(body).removesuffix(b"0\r\nX-Trailer: x\r\n\r\n")


@attrs.frozen
class Bytes:
    """What the server sends: an answer, what follows it in the same write, and where it is split."""

    answer: bytes
    after: bytes
    splits: Sequence[int]

    def parts(self) -> list[bytes]:
        whole = self.answer + self.after
        places = sorted({0, *(split % (len(whole) + 1) for split in self.splits), len(whole)})
        return [whole[start:end] for start, end in pairwise(places)]


@st.composite
def some_bytes(draw: st.DrawFn) -> Bytes:
    head = draw(st.sampled_from(BEFORE)) + draw(st.sampled_from(STATUS_LINES)) + b"\r\n"
    head += b"".join(header + b"\r\n" for header in draw(st.lists(st.sampled_from(HEADERS), max_size=2)))
    framing = draw(st.sampled_from([by_length, by_length, until_closed, cut_off, in_chunks, in_chunks_without_end]))
    answer = head + framing(draw(st.sampled_from(BODIES)))
    if draw(st.booleans()):
        place = draw(st.integers(0, min(len(answer), 400) - 1))
        answer = answer[:place] + draw(st.binary(max_size=2)) + answer[place + 1 :]
    return Bytes(answer, draw(st.sampled_from(AFTER)), draw(st.lists(st.integers(0, 200), max_size=4)))


async def outcomes(sent: Bytes) -> dict[str, SendStatus]:
    async def answer(writer: asyncio.StreamWriter) -> None:
        for part in sent.parts():
            writer.write(part)
            for _ in range(3):  # the client reads it
                await asyncio.sleep(0)
        await writer.drain()
        writer.close()

    found = {}
    async with raw_server(answer) as server:
        for transport in ("aiohttp", "wire"):
            async with sandbox_client(
                server.url, transport=transport, timeout=5, retry=RetryPolicy(max_attempts=1)
            ) as client:
                (result,) = await client.send_batch([OtpMessage("+999 555 0100", "482913")])
                found[transport] = result.status
        assert len(server.requests) == 2
    return found


@settings(max_examples=120, deadline=None)
@given(sent=some_bytes())
def test_both_transports_have_the_same_outcome(sent: Bytes) -> None:
    found = asyncio.run(outcomes(sent))
    assert found["aiohttp"] is found["wire"]
