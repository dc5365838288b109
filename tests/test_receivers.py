import asyncio
import hashlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest
from aiohttp import web
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from web_servers import aiohttp_server, impatient_uvicorn, uvicorn_server  # noqa: F401 - one is a fixture

from nxotp_async import ConfigurationError, Credentials, receivers
from nxotp_async.callbacks import MAX_CALLBACK_BYTES, StatusEvent
from nxotp_async.receivers import HANDLER_ARGS, AsgiReceiver, CallbackMiddleware, aiohttp_receiver
from nxotp_async.testing import FakeClock
from nxotp_async.tracking import DeliveryTracker

KEYS: Final = Credentials("an-access-key", "s3cr3t-c4n4ry", "an-appkey")
TOKEN: Final = "t0k3n-c4n4ry-0123456789"
NUMBER: Final = "999555017342"
NOW_MS: Final = 1_800_000_000_000  # where the manual clock stands


def body(*statuses: str, message_id: str = "wamid.1", **fields: Any) -> bytes:
    events = [
        {"id": message_id, "status": status, "timestamp": "1660019986", "recipient_id": NUMBER} for status in statuses
    ]
    return orjson.dumps({"statuses": events, "messaging_product": "whatsapp", **fields})


DELIVERED: Final = body("delivered")


def signed(content: bytes, *, algorithm: str = "sha256", hashed: str = "", **changes: str) -> dict[str, str]:
    """Return the headers of a callback, signed as the vendor's page says, with these of them changed afterwards."""
    ts = changes.pop("ts", str(NOW_MS))
    secret, key = changes.pop("secret", KEYS.access_secret), changes.pop("key", KEYS.access_key)
    text = f"accessKey={key}&action=callback&bizType=2&ts={ts}".encode()
    text += (b"&body=" + content if content else b"") + f"&accessSecret={secret}".encode()
    digest = hashlib.new(hashed or algorithm, text).hexdigest()
    headers = {"accesskey": key, "action": "callback", "biztype": "2", "ts": ts, "algorithm": algorithm, "sign": digest}
    return headers | changes


def without(name: str) -> dict[str, str]:
    return {other: value for other, value in signed(DELIVERED).items() if other != name}


class Sink:
    """Takes events in, after whatever it is told to do."""

    def __init__(self, *first: Callable[[], Awaitable[None]]) -> None:
        self.events: list[tuple[str, str]] = []
        self._first = list(first)

    async def record(self, event: StatusEvent) -> None:
        if self._first:
            await self._first.pop(0)()
        self.events.append((event.message_id, event.status))


# ---------------------------------------------------------------------------------------------- both servers


Serve = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture(params=["aiohttp", "asgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve(kind: str, clock: FakeClock) -> Serve:
    """Return what runs a receiver with these arguments at a URL."""

    def served(sink: receivers.EventSink, *args: Any, **options: Any) -> AbstractAsyncContextManager[str]:
        options = {"clock": clock, **options}
        args = args or (KEYS,)
        if kind == "aiohttp":
            return aiohttp_server(aiohttp_receiver(sink, *args, **options))
        return uvicorn_server(AsgiReceiver(sink, *args, **options))

    return served


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def post(http: aiohttp.ClientSession, url: str, content: Any, headers: dict[str, str]) -> int:
    async with http.post(url, data=content, headers=headers) as response:
        return response.status


async def raw(url: str, *parts: bytes, end: bool = False) -> bytes:
    """Write these bytes to the server, and return the first line of what it answers."""
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if end:
            writer.write_eof()
        return await reader.readline()
    finally:
        writer.close()
        await writer.wait_closed()


def head(headers: dict[str, str], *more: str) -> bytes:
    lines = ["POST / HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers.items()), *more, "", ""]
    return "\r\n".join(lines).encode("latin-1")


async def turns() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


# ---------------------------------------------------------------------------------------------- what is taken


@pytest.mark.parametrize(
    ("content", "events"),
    [
        pytest.param(DELIVERED, [("wamid.1", "delivered")], id="one status"),
        pytest.param(body("sent", "read"), [("wamid.1", "sent"), ("wamid.1", "read")], id="two"),
        pytest.param(body("failed"), [("wamid.1", "failed")], id="failed"),
        pytest.param(body("played"), [("wamid.1", "played")], id="an unknown one"),
        pytest.param(body(), [], id="none"),
        pytest.param(
            b'{"messages":[{"type":"button","button":{"text":"Copy code"},"from":"999555017342"}]}', [], id="a click"
        ),
        pytest.param(b"{}", [], id="an empty object"),
        pytest.param(b'{"statuses":null}', [], id="null"),
        pytest.param(b'{"statuses":[1,null,[],{"id":5,"status":"read"}]}', [], id="odd statuses"),
    ],
)
@pytest.mark.parametrize("algorithm", ["sha256", "SHA256", "md5", "MD5"])
async def test_what_is_the_vendors_is_stored_and_answered_200(
    serve: Serve, http: aiohttp.ClientSession, content: bytes, events: list[tuple[str, str]], algorithm: str
) -> None:
    sink = Sink()
    async with serve(sink) as url:
        headers = signed(content, algorithm=algorithm, hashed=algorithm.lower())
        async with http.post(url, data=content, headers=headers) as response:
            assert response.status == 200
            assert await response.read() == b""
    assert sink.events == events


@pytest.mark.parametrize("write", [str.upper, str.title, lambda name: {"accesskey": "accessKey"}.get(name, name)])
async def test_headers_come_in_any_letter_case(
    serve: Serve, http: aiohttp.ClientSession, write: Callable[[str], str]
) -> None:
    sink = Sink()
    async with serve(sink) as url:
        headers = {write(name): value for name, value in signed(DELIVERED).items()}
        assert await post(http, url, DELIVERED, headers) == 200
    assert sink.events == [("wamid.1", "delivered")]


async def test_the_answer_waits_until_the_event_is_stored(serve: Serve, http: aiohttp.ClientSession) -> None:
    entered, stored = asyncio.Event(), asyncio.Event()

    async def store() -> None:
        entered.set()
        await stored.wait()

    sink = Sink(store)
    async with serve(sink) as url:
        answer = asyncio.create_task(post(http, url, DELIVERED, signed(DELIVERED)))
        await entered.wait()
        assert await post(http, url, body("read"), signed(body("read"))) == 200  # it holds up nobody else
        await turns()
        assert not answer.done()
        stored.set()
        assert await answer == 200
    assert sink.events == [("wamid.1", "read"), ("wamid.1", "delivered")]


async def test_a_tracker_takes_the_events_in(serve: Serve, http: aiohttp.ClientSession) -> None:
    tracker = DeliveryTracker()
    async with serve(tracker) as url:
        waiting = asyncio.create_task(tracker.wait("wamid.1", "read"))
        for status in ("sent", "read", "read", "delivered"):
            assert await post(http, url, body(status), signed(body(status))) == 200
        assert (await waiting).status == "read"


async def _fail() -> None:
    raise OSError("the store is away")


async def _time_out() -> None:
    raise TimeoutError


@pytest.mark.parametrize("failure", [_fail, _time_out])
async def test_what_could_not_be_stored_is_answered_503_and_comes_again(
    serve: Serve, http: aiohttp.ClientSession, failure: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    sink = Sink(failure)
    async with serve(sink) as url:
        assert await post(http, url, DELIVERED, signed(DELIVERED)) == 503
        assert sink.events == []
        assert await post(http, url, DELIVERED, signed(DELIVERED)) == 200
    assert sink.events == [("wamid.1", "delivered")]
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "nxotp_async"
    assert record.exc_info is None  # there are no frames whose variables an error reporter could show
    assert "Traceback" in record.getMessage()
    assert failure.__name__ in caplog.text  # the sink's own line is in the traceback
    assert NUMBER not in caplog.text


async def test_a_receiver_that_is_stopped_answers_nothing_for_the_sink(clock: FakeClock) -> None:
    async def cancel() -> None:
        raise asyncio.CancelledError

    receiver = AsgiReceiver(Sink(cancel), KEYS, clock=clock)
    with pytest.raises(asyncio.CancelledError):
        await call(receiver, "/")


async def call(app: Any, path: str, **fields: Any) -> int:
    """Have an ASGI application handle a callback to a path, and return the status of its answer."""
    headers = [(name.encode(), value.encode()) for name, value in signed(DELIVERED).items()]
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": DELIVERED}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": path, "headers": headers, **fields}, receive, send)
    return int(sent[0]["status"])


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="unsigned"),
        pytest.param(signed(DELIVERED, sign="0" * 64), id="forged"),
        pytest.param(signed(DELIVERED, sign="é" * 64), id="a sign that is no ASCII"),
        pytest.param(signed(DELIVERED, sign=""), id="an empty sign"),
        pytest.param(signed(body("read")), id="another body's"),
        pytest.param(signed(DELIVERED, secret="another"), id="another secret"),
        pytest.param(signed(DELIVERED, key="another"), id="another key"),
        pytest.param(signed(DELIVERED, algorithm="sha256", hashed="md5"), id="MD5 called SHA-256"),
        pytest.param(signed(DELIVERED, algorithm="md5", hashed="sha256"), id="SHA-256 called MD5"),
        pytest.param(signed(DELIVERED, algorithm="sha512", hashed="sha512"), id="SHA-512"),
        pytest.param(signed(DELIVERED, ts=str(NOW_MS - 300_001)), id="stale"),
        pytest.param(signed(DELIVERED, ts=str(NOW_MS + 300_001)), id="early"),
        pytest.param(signed(DELIVERED, ts=str(NOW_MS // 1000)), id="ts in seconds"),
        pytest.param(signed(DELIVERED, action="mt"), id="another action"),
        *(
            pytest.param(without(name), id=f"no {name}")
            for name in ("accesskey", "action", "biztype", "ts", "algorithm", "sign")
        ),
    ],
)
async def test_what_is_not_the_vendors_is_answered_401_and_not_stored(
    serve: Serve, http: aiohttp.ClientSession, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    sink = Sink()
    async with serve(sink) as url:
        assert await post(http, url, DELIVERED, headers) == 401
        assert await post(http, url, DELIVERED, signed(DELIVERED)) == 200
    assert sink.events == [("wamid.1", "delivered")]
    assert [record.getMessage()[:22] for record in caplog.records if record.name == "nxotp_async"] == [
        "a callback was refused"
    ]


@pytest.mark.parametrize("ts", [NOW_MS - 300_000, NOW_MS + 300_000])
async def test_the_clock_may_be_five_minutes_off(serve: Serve, http: aiohttp.ClientSession, ts: int) -> None:
    async with serve(Sink()) as url:
        assert await post(http, url, DELIVERED, signed(DELIVERED, ts=str(ts))) == 200


@pytest.mark.parametrize("window", [10, 0.5, 86_400.0])
async def test_how_far_the_clock_may_be_off_can_be_chosen(
    serve: Serve, http: aiohttp.ClientSession, window: float
) -> None:
    async with serve(Sink(), window=window) as url:
        for off, status in ((window, 200), (window + 0.001, 401)):
            for ts in (NOW_MS - round(off * 1000), NOW_MS + round(off * 1000)):
                assert await post(http, url, DELIVERED, signed(DELIVERED, ts=str(ts))) == status


@pytest.mark.parametrize(
    "content",
    [b"", DELIVERED[:-1], DELIVERED[:40], b"[]", b"null", b"5", b'"x"', b"\xff\xfe", b"{" * 5000, b"statuses=1"],
)
async def test_what_is_no_json_object_is_answered_400(
    serve: Serve, http: aiohttp.ClientSession, content: bytes
) -> None:
    sink = Sink()
    async with serve(sink) as url:
        assert await post(http, url, content, signed(content)) == 400
    assert sink.events == []


def padded(size: int) -> bytes:
    content = body("delivered", padding="")
    return content[:-2] + b"x" * (size - len(content)) + b'"}'


async def in_chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 60_000):
        yield content[start : start + 60_000]


@pytest.mark.parametrize(
    ("size", "status"),
    [(MAX_CALLBACK_BYTES, 200), (MAX_CALLBACK_BYTES + 1, 413), (4 * MAX_CALLBACK_BYTES, 413)],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_much_too_long_is_answered_413(
    serve: Serve, http: aiohttp.ClientSession, size: int, status: int, chunked: bool
) -> None:
    sink = Sink()
    content = padded(size)
    assert len(content) == size
    async with serve(sink) as url:
        data = in_chunks(content) if chunked else content
        assert await post(http, url, data, signed(content)) == status
        assert await post(http, url, body("read"), signed(body("read"))) == 200
    assert sink.events == [("wamid.1", "delivered")] * (status == 200) + [("wamid.1", "read")]


async def test_a_body_without_end_is_answered_413_and_not_kept(serve: Serve) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    async with serve(Sink()) as url:
        line = await raw(url, head({}, "Transfer-Encoding: chunked"), *[chunk] * 5)
    assert b" 413 " in line


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_other_methods_are_answered_405(serve: Serve, http: aiohttp.ClientSession, method: str) -> None:
    sink = Sink()
    async with (
        serve(sink, token=TOKEN) as url,
        http.request(method, f"{url}/{TOKEN}", data=DELIVERED, headers=signed(DELIVERED)) as response,
    ):
        assert response.status == 405
    assert sink.events == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param(f"/{TOKEN}", 200, id="the token"),
        pytest.param(f"/{TOKEN}/", 200, id="with a slash"),
        pytest.param(f"/{TOKEN}?from=vendor", 200, id="with a query"),
        pytest.param("/", 404, id="none"),
        pytest.param(f"/{TOKEN[:-1]}", 404, id="shortened"),
        pytest.param(f"/{TOKEN}x", 404, id="lengthened"),
        pytest.param(f"/{TOKEN.upper()}", 404, id="upper case"),
        pytest.param(f"/{TOKEN}/more", 404, id="further down"),
        pytest.param(f"/more/{TOKEN}", 404, id="deeper"),
        pytest.param("/%C3%A9%FF%00", 404, id="no text"),
        pytest.param(f"/?{TOKEN}", 404, id="in the query"),
    ],
)
@pytest.mark.parametrize("unsigned", [True, False])
async def test_only_the_token_leads_to_the_receiver(
    serve: Serve, http: aiohttp.ClientSession, path: str, status: int, unsigned: bool
) -> None:
    sink = Sink()
    protection = {"credentials": None, "allow_unsigned": True} if unsigned else {"credentials": KEYS}
    async with serve(sink, protection.pop("credentials"), token=TOKEN, **protection) as url:
        headers = {} if unsigned else signed(DELIVERED)
        assert await post(http, url + path, DELIVERED, headers) == status
    assert len(sink.events) == (status == 200)


@pytest.mark.parametrize("path", ["/callbacks", "/a/b", "/0"])
async def test_without_a_token_there_is_no_other_path(serve: Serve, http: aiohttp.ClientSession, path: str) -> None:
    async with serve(Sink()) as url:
        assert await post(http, url + path, DELIVERED, signed(DELIVERED)) == 404
        assert await post(http, url, DELIVERED, signed(DELIVERED)) == 200


async def test_the_token_is_no_substitute_for_a_signature(serve: Serve, http: aiohttp.ClientSession) -> None:
    sink = Sink()
    async with serve(sink, token=TOKEN) as url:
        assert await post(http, f"{url}/{TOKEN}", DELIVERED, {}) == 401
        assert await post(http, f"{url}/{TOKEN}", DELIVERED, signed(DELIVERED)) == 200
    assert len(sink.events) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 200, id="unsigned"),
        pytest.param({"ts": "1", "algorithm": "md5"}, 200, id="other headers"),
        pytest.param(signed(DELIVERED), 200, id="signed"),
        pytest.param(signed(DELIVERED, sign="0" * 64), 401, id="forged"),
        pytest.param(signed(DELIVERED, ts="1"), 401, id="stale"),
    ],
)
async def test_where_unsigned_is_allowed_a_signature_must_still_be_right(
    serve: Serve, http: aiohttp.ClientSession, headers: dict[str, str], status: int
) -> None:
    async with serve(Sink(), KEYS, token=TOKEN, allow_unsigned=True) as url:
        assert await post(http, f"{url}/{TOKEN}", DELIVERED, headers) == status


@pytest.mark.parametrize("content", [b"", b"[]", DELIVERED[:-1]])
async def test_an_unsigned_body_is_judged_like_any(serve: Serve, http: aiohttp.ClientSession, content: bytes) -> None:
    async with serve(Sink(), None, token=TOKEN, allow_unsigned=True) as url:
        assert await post(http, f"{url}/{TOKEN}", content, {}) == 400
        assert await post(http, f"{url}/{TOKEN}", padded(MAX_CALLBACK_BYTES + 1), {}) == 413


# ---------------------------------------------------------------------------------------------- bad connections


async def test_a_slow_body_is_answered_408(
    serve: Serve, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receivers, "_READ_TIMEOUT", 0.05)
    sink = Sink()
    async with serve(sink) as url:
        start = head(signed(DELIVERED), f"Content-Length: {len(DELIVERED)}")
        assert b" 408 " in await raw(url, start, DELIVERED[:20])
        assert await post(http, url, DELIVERED, signed(DELIVERED)) == 200
    assert len(sink.events) == 1


@pytest.mark.parametrize("sent", [0, 20, len(DELIVERED) - 1])
@pytest.mark.parametrize("waits", [False, True])
async def test_who_goes_away_in_the_middle_does_no_harm(
    serve: Serve, http: aiohttp.ClientSession, sent: int, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Sink()
    async with serve(sink) as url:
        host, port = url.removeprefix("http://").split(":")
        for _ in range(3):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(head(signed(DELIVERED), f"Content-Length: {len(DELIVERED)}") + DELIVERED[:sent])
            if waits:
                await turns()  # until the receiver is in the middle of it
            writer.close()
            await writer.wait_closed()
        assert await post(http, url, DELIVERED, signed(DELIVERED)) == 200
    assert sink.events == [("wamid.1", "delivered")]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_half_of_an_unsigned_callback_is_not_taken_for_a_whole(serve: Serve, http: aiohttp.ClientSession) -> None:
    sink = Sink()
    async with serve(sink, None, token=TOKEN, allow_unsigned=True) as url:
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        start = head({}, f"Content-Length: {len(DELIVERED) + 1}").replace(b"POST /", f"POST /{TOKEN}".encode())
        writer.write(start + DELIVERED)
        await turns()
        writer.close()
        await writer.wait_closed()
        await turns()
        assert await post(http, f"{url}/{TOKEN}", body("read"), {}) == 200
    assert sink.events == [("wamid.1", "read")]


@pytest.mark.parametrize(
    ("lines", "content"),
    [
        pytest.param(["Transfer-Encoding: chunked"], b"zz\r\nxx\r\n0\r\n\r\n", id="a chunk of no size"),
        pytest.param(["Transfer-Encoding: chunked"], b"5\r\nabcdefghi\r\n0\r\n\r\n", id="a chunk too long"),
        pytest.param(["Content-Length: 9", "Content-Encoding: gzip"], b"no gzip!!", id="no gzip"),
        pytest.param(["Content-Length: 9", "Content-Encoding: deflate"], b"no gzip!!", id="no deflate"),
        pytest.param(["Content-Length: 9", "Content-Encoding: br"], b"no gzip!!", id="no brotli"),
        pytest.param(["Content-Length: 9", "Content-Encoding: zstd"], b"no gzip!!", id="no zstd"),
        pytest.param(["Content-Length: 9", "Content-Encoding: x"], b"no gzip!!", id="an encoding nobody knows"),
        pytest.param(["Content-Length: -1"], b"", id="a negative length"),
        pytest.param(["Content-Length: x"], b"", id="no length"),
        pytest.param(["Content-Length: 2", "Transfer-Encoding: chunked"], b"0\r\n\r\n", id="two lengths"),
        pytest.param(["Content-Type: multipart/form-data", "Content-Length: 2"], b"{}", id="no boundary"),
        pytest.param(["Content-Type: text/plain; charset=x", "Content-Length: 2"], b"{}", id="no charset"),
    ],
)
async def test_broken_http_is_the_senders_fault(
    serve: Serve, http: aiohttp.ClientSession, lines: list[str], content: bytes
) -> None:
    sink = Sink()
    async with serve(sink) as url:
        line = await raw(url, head({}, *lines), content)
        assert line[9:10] == b"4", line
        assert await post(http, url, DELIVERED, signed(DELIVERED)) == 200
    assert len(sink.events) == 1


@pytest.fixture(params=["alone", "mounted"])
async def served_by_aiohttp(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncIterator[str]:
    """Return the URL of a receiver that is the whole application, or a part of one."""
    app = aiohttp_receiver(Sink(), KEYS, clock=clock)
    path = ""
    if request.param == "mounted":
        app, receiver, path = web.Application(handler_args=HANDLER_ARGS), app, "/nxcloud/"
        app.add_subapp(path, receiver)
    async with aiohttp_server(app) as url:
        yield url + path


@pytest.fixture
async def let_pass(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Awaitable[None]]:
    """Let seconds pass for the running loop's timers."""
    loop, passed = asyncio.get_running_loop(), 0.0
    now = loop.time
    monkeypatch.setattr(loop, "time", lambda: now() + passed)

    async def let_pass(seconds: float) -> None:
        nonlocal passed
        passed += seconds
        await turns()

    return let_pass


CALLBACK: Final = head(signed(DELIVERED), f"Content-Length: {len(DELIVERED)}") + DELIVERED


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([b"", b"", b""], id="silent"),
        pytest.param([CALLBACK[:20], b"", b""], id="stops in its first line"),
        pytest.param([CALLBACK[:60], b"", b""], id="stops in its headers"),
        pytest.param([CALLBACK[:60], CALLBACK[60:61], CALLBACK[61:62]], id="drips"),
        pytest.param([CALLBACK, b"", b""], id="has its answer"),
    ],
)
async def test_who_begins_no_request_for_half_a_minute_is_shown_the_door(
    served_by_aiohttp: str, let_pass: Callable[[float], Awaitable[None]], parts: list[bytes]
) -> None:
    url = urlsplit(served_by_aiohttp)
    first, second, third = (part.replace(b"POST /", f"POST {url.path or '/'}".encode()) for part in parts)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(first)
    if first.endswith(DELIVERED):
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    await turns()
    for part, seconds in ((second, 15), (third, 14)):
        await let_pass(seconds)
        writer.write(part)
        await turns()
    assert not reader.at_eof()
    await let_pass(1.1)
    assert reader.at_eof()
    writer.close()
    await writer.wait_closed()


async def test_a_connection_can_be_used_again_within_half_a_minute(
    served_by_aiohttp: str, let_pass: Callable[[float], Awaitable[None]]
) -> None:
    url = urlsplit(served_by_aiohttp)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    for _ in range(4):
        await let_pass(29)
        writer.write(CALLBACK.replace(b"POST /", f"POST {url.path or '/'}".encode()))
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    "request_head",
    [
        pytest.param(head({}, *(f"X-{number}: c4n4ry" for number in range(200))), id="many headers"),
        pytest.param(head({"x": "c4n4ry" * 2000}), id="a long header"),
        pytest.param(head({"c4n4ry" * 2000: "x"}), id="a long name"),
        pytest.param(head({"no header c4n4ry": "x"}), id="no header"),
        pytest.param(head({}).replace(b"POST /", b"POST /c4n4ry" + b"x" * 9000), id="a long path"),
        pytest.param(head({}).replace(b"POST /", b"P\x00ST /c4n4ry"), id="no method"),
        pytest.param(head({}).replace(b"HTTP/1.1", b"c4n4ry"), id="no protocol"),
    ],
)
async def test_a_head_that_is_no_good_is_answered_400_and_told_in_one_line(
    served_by_aiohttp: str, request_head: bytes, logs: pytest.LogCaptureFixture
) -> None:
    assert b" 400 " in await raw(served_by_aiohttp, request_head)
    (record,) = [record for record in logs.records if record.name == "aiohttp.server"]
    assert record.getMessage().startswith("an invalid HTTP request was refused: ")
    assert (record.exc_info, record.levelno <= logging.WARNING) == (None, True)


async def test_what_a_sink_raises_is_logged_with_its_traceback(
    clock: FakeClock, logs: pytest.LogCaptureFixture
) -> None:
    async with aiohttp_server(aiohttp_receiver(Sink(_fail), KEYS, clock=clock)) as url:
        assert b" 503 " in await raw(url, CALLBACK)
    (record,) = [record for record in logs.records if record.name == "nxotp_async"]
    assert record.levelno == logging.ERROR
    assert "the store is away" in record.getMessage()
    assert "in _fail" in record.getMessage()


async def test_a_number_in_what_a_sink_raises_is_not_logged(clock: FakeClock, logs: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise KeyError("no user has +999 555 0100")

    async with aiohttp_server(aiohttp_receiver(Sink(fail), KEYS, clock=clock)) as url:
        assert b" 503 " in await raw(url, CALLBACK)
    assert "no user has +***" in logs.text
    assert "555" not in logs.text


async def test_a_head_that_is_too_long_for_uvicorn_is_answered_400(logs: pytest.LogCaptureFixture) -> None:
    async with uvicorn_server(AsgiReceiver(Sink(), KEYS)) as url:
        assert b" 400 " in await raw(url, b"POST / HTTP/1.1\r\nHost: x\r\nX: " + b"c4n4ry" * 11_000)
    assert all(record.exc_info is None for record in logs.records)


# ---------------------------------------------------------------------------------------------- applications


async def _check_mounted(http: aiohttp.ClientSession, url: str, sink: Sink) -> None:
    for path, status in {
        f"/nxcloud/{TOKEN}": 200,
        f"/nxcloud/{TOKEN}/": 200,
        "/nxcloud/": 404,
        "/nxcloud/wrong-token-0123456789": 404,
        f"/{TOKEN}": 404,
        f"/other/{TOKEN}": 404,
    }.items():
        assert await post(http, url + path, DELIVERED, signed(DELIVERED)) == status, path
    assert await post(http, f"{url}/nxcloud/{TOKEN}", DELIVERED, signed(DELIVERED, sign="0" * 64)) == 401
    async with http.get(f"{url}/nxcloud/{TOKEN}") as response:
        assert response.status == 405
    assert sink.events == [("wamid.1", "delivered")] * 2


async def test_it_is_a_sub_application_of_aiohttp(http: aiohttp.ClientSession, clock: FakeClock) -> None:
    sink = Sink()
    app = web.Application()
    app.add_subapp("/nxcloud", aiohttp_receiver(sink, KEYS, token=TOKEN, clock=clock))
    async with aiohttp_server(app) as url:
        await _check_mounted(http, url, sink)


@pytest.mark.parametrize("framework", [FastAPI, Starlette])
async def test_it_is_mounted_in(framework: Any, http: aiohttp.ClientSession, clock: FakeClock) -> None:
    sink = Sink()
    app = framework()
    app.mount("/nxcloud", AsgiReceiver(sink, KEYS, token=TOKEN, clock=clock))
    async with uvicorn_server(app) as url:
        await _check_mounted(http, url, sink)


def _application_of(framework: Any) -> Any:
    """Return an application with a page of its own beside the callbacks."""

    async def page(_: Request) -> PlainTextResponse:
        return PlainTextResponse("the application's")

    app = framework()
    for path in ("/", "/nxcloudy", "/a/nxcloud"):
        app.add_route(path, page, methods=["POST"])
    return app


@pytest.mark.parametrize("framework", [FastAPI, Starlette])
@pytest.mark.parametrize("written", ["/nxcloud", "/nxcloud/", "nxcloud"])
async def test_in_front_of_an_application_it_is_found_with_and_without_the_slash(
    framework: Any, written: str, http: aiohttp.ClientSession, clock: FakeClock
) -> None:
    sink = Sink()
    app = _application_of(framework)
    app.add_middleware(CallbackMiddleware, path=written, receiver=AsgiReceiver(sink, KEYS, clock=clock))
    async with uvicorn_server(app) as url:
        for path in ("/nxcloud", "/nxcloud/", "/nxcloud?from=vendor"):
            async with http.post(url + path, data=DELIVERED, headers=signed(DELIVERED), allow_redirects=False) as given:
                assert given.status == 200, path
        assert len(sink.events) == 3
        assert await post(http, f"{url}/nxcloud/more", DELIVERED, signed(DELIVERED)) == 404
        for path in ("/", "/nxcloudy", "/a/nxcloud"):
            async with http.post(url + path) as page:
                assert await page.text() == "the application's"
    assert len(sink.events) == 3


async def test_in_front_of_an_application_it_knows_its_token(http: aiohttp.ClientSession, clock: FakeClock) -> None:
    sink = Sink()
    app = _application_of(FastAPI)
    receiver = AsgiReceiver(sink, KEYS, token=TOKEN, clock=clock)
    app.add_middleware(CallbackMiddleware, path="/nxcloud", receiver=receiver)
    async with uvicorn_server(app) as url:
        await _check_mounted(http, url, sink)


@pytest.mark.parametrize(
    ("path", "root_path"), [("/api/nxcloud", "/api"), ("/nxcloud", "/api"), ("/nxcloud", ""), ("/nxcloud/", "")]
)
async def test_in_front_of_an_application_a_prefix_of_the_server_does_not_matter(
    path: str, root_path: str, clock: FakeClock
) -> None:
    sink = Sink()
    app = CallbackMiddleware(Starlette(), path="/nxcloud", receiver=AsgiReceiver(sink, KEYS, clock=clock))
    assert await call(app, path, root_path=root_path) == 200
    assert len(sink.events) == 1


@pytest.mark.parametrize("path", ["", "/", "//"])
def test_in_front_of_an_application_it_does_not_take_its_place(path: str) -> None:
    with pytest.raises(ConfigurationError, match="path must not be that of the whole application"):
        CallbackMiddleware(Starlette(), path=path, receiver=AsgiReceiver(Sink(), KEYS))


async def test_in_front_of_an_application_other_events_are_the_applications(clock: FakeClock) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    wrapped = CallbackMiddleware(app, path="/nxcloud", receiver=AsgiReceiver(Sink(), KEYS, clock=clock))
    for kind in ("lifespan", "websocket"):
        await wrapped({"type": kind, "path": "/nxcloud"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan", "websocket"]


async def test_as_a_sub_application_of_aiohttp_it_is_found_with_and_without_the_slash(
    http: aiohttp.ClientSession, clock: FakeClock
) -> None:
    sink = Sink()
    app = web.Application()
    app.add_subapp("/nxcloud", aiohttp_receiver(sink, KEYS, clock=clock))
    async with aiohttp_server(app) as url:
        for path in ("/nxcloud", "/nxcloud/"):
            async with http.post(url + path, data=DELIVERED, headers=signed(DELIVERED), allow_redirects=False) as given:
                assert given.status == 200, path
        assert await post(http, f"{url}/nxcloudy", DELIVERED, signed(DELIVERED)) == 404
    assert len(sink.events) == 2


async def test_it_is_mounted_behind_two_prefixes(http: aiohttp.ClientSession, clock: FakeClock) -> None:
    sink = Sink()
    inner, outer = Starlette(), Starlette()
    inner.mount("/hooks", AsgiReceiver(sink, KEYS, token=TOKEN, clock=clock))
    outer.mount("/nxcloud", inner)
    async with uvicorn_server(outer) as url:
        assert await post(http, f"{url}/nxcloud/hooks/{TOKEN}", DELIVERED, signed(DELIVERED)) == 200
        assert await post(http, f"{url}/hooks/{TOKEN}", DELIVERED, signed(DELIVERED)) == 404


@pytest.mark.parametrize(
    ("root_path", "path"),
    [("", f"/{TOKEN}"), ("/nxcloud", f"/nxcloud/{TOKEN}"), ("/nxcloud", f"/{TOKEN}"), (None, f"/{TOKEN}")],
)
async def test_a_server_may_tell_the_prefix_as_part_of_the_path_or_not(
    root_path: str | None, path: str, clock: FakeClock
) -> None:
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "headers": []}
    scope |= {} if root_path is None else {"root_path": root_path}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in signed(DELIVERED).items()]
    sent: list[Any] = []
    parts = [{"type": "http.request", "body": DELIVERED[:9], "more_body": True}]
    parts += [{"type": "http.request", "more_body": True}, {"type": "http.request", "body": DELIVERED[9:]}]

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await AsgiReceiver(Sink(), KEYS, token=TOKEN, clock=clock)(scope, receive, send)
    assert [(message["type"], message.get("status")) for message in sent] == [
        ("http.response.start", 200),
        ("http.response.body", None),
    ]


async def test_the_whole_application_starts_and_stops_with_its_server(clock: FakeClock) -> None:
    received = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return received.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await AsgiReceiver(Sink(), KEYS)({"type": "lifespan"}, receive, send)
    assert sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


# ---------------------------------------------------------------------------------------------- protection


@pytest.mark.parametrize("make", [aiohttp_receiver, AsgiReceiver])
@pytest.mark.parametrize(
    ("credentials", "options", "why"),
    [
        pytest.param(None, {}, "credentials are missing", id="nothing"),
        pytest.param(None, {"token": TOKEN}, "credentials are missing", id="a token alone"),
        pytest.param(None, {"allow_unsigned": True}, "needs a token", id="unsigned without a token"),
        pytest.param(KEYS, {"allow_unsigned": True}, "needs a token", id="both without a token"),
        pytest.param(Credentials("", "x"), {}, "need an access_key", id="no access key"),
        pytest.param(Credentials("x", ""), {}, "need an access_key", id="no secret"),
        pytest.param(Credentials("x", ""), {"allow_unsigned": True, "token": TOKEN}, "need an", id="no secret, token"),
        pytest.param(KEYS, {"token": ""}, "token must be", id="an empty token"),
        pytest.param(KEYS, {"token": "c4n4ry-01234567"}, "token must be 16", id="15 characters"),
        pytest.param(KEYS, {"token": "c4n4ry/0123456789"}, "16 or more of", id="a slash"),
        pytest.param(KEYS, {"token": "c4n4ry-é0123456789"}, "16 or more of", id="no ASCII"),
        pytest.param(None, {"token": "c4n4ry", "allow_unsigned": True}, "token must be", id="a short one"),
        *(
            pytest.param(
                KEYS, {"window": window}, "^window must be (a number|more than 0, and finite)", id=f"{window!r}"
            )
            for window in (0, -1, float("nan"), float("inf"), "300", True, None)
        ),
    ],
)
def test_a_receiver_without_protection_is_not_made(
    make: Callable[..., Any], credentials: Credentials | None, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        make(Sink(), credentials, **options)
    assert "c4n4ry" not in f"{caught.value} {caught.value!r}"


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    caplog.set_level(logging.DEBUG)
    yield caplog
    for record in caplog.records:
        shown = f"{record.getMessage()} {record.exc_text} {record.args!r} {vars(record)!r}"
        for hidden in (KEYS.access_secret, TOKEN, NUMBER, "c4n4ry"):
            assert hidden not in shown, record.name


async def test_neither_logs_nor_reprs_hold_a_secret_the_token_or_a_number(
    serve: Serve, http: aiohttp.ClientSession, logs: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    sink = Sink(_fail)
    async with serve(sink, token=TOKEN) as url:
        for content, headers in [
            (DELIVERED, signed(DELIVERED)),  # cannot be stored
            (DELIVERED, signed(DELIVERED)),
            (DELIVERED, signed(DELIVERED, sign=KEYS.access_secret)),
            (DELIVERED, signed(DELIVERED, ts="1")),
            (DELIVERED, signed(DELIVERED, key=NUMBER)),
            (DELIVERED, signed(DELIVERED, algorithm="md5", ts=NUMBER)),
            (DELIVERED, {}),
            (DELIVERED[:-1], signed(DELIVERED[:-1])),
            (padded(MAX_CALLBACK_BYTES + 1), {}),
        ]:
            await post(http, f"{url}/{TOKEN}", content, headers)
        await post(http, f"{url}/{TOKEN}x", DELIVERED, {})
    assert len(logs.records) > 4
    options: dict[str, Any] = {"token": TOKEN, "clock": clock}
    app, asgi = aiohttp_receiver(sink, KEYS, **options), AsgiReceiver(sink, KEYS, **options)
    shown = [app, *app.router.routes(), asgi, asgi._receiver]
    assert "c4n4ry" not in repr(shown)


# ---------------------------------------------------------------------------------------------- fuzz

VALUES: Final[list[Any]] = [
    None, True, 0, -1, 1e308, 2**63, "", "sent", "read", "wamid.1", "9" * 400, "nan", "inf", "\u0000", "é",
    "1660019986", [], {}, [[]], [{}], {"id": {}}, {"recipient_id": 5},
]  # fmt: skip
NAMES: Final = ["id", "status", "timestamp", "recipient_id", "errors", "message", "conversation", "statuses", "x"]


def fuzzed_json(chance: random.Random, depth: int = 0) -> Any:
    roll = chance.random()
    if depth > 3 or roll < 0.3:
        return chance.choice(VALUES)
    if roll < 0.5:
        return [fuzzed_json(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {chance.choice(NAMES): fuzzed_json(chance, depth + 1) for _ in range(chance.randrange(6))}


def fuzzed_body(chance: random.Random) -> bytes:
    roll = chance.random()
    if roll < 0.4:
        fields = {"statuses": [fuzzed_json(chance) for _ in range(chance.randrange(4))]}
        return orjson.dumps(fields if chance.random() < 0.8 else fuzzed_json(chance))
    content = bytearray(body(chance.choice(["sent", "read"])) if roll < 0.9 else chance.randbytes(60))
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(content) + 1)
        content[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
    return bytes(content)


def fuzzed_headers(chance: random.Random, content: bytes, texts: list[str]) -> tuple[dict[str, str], bool]:
    """Return headers, and whether nothing was done to them."""
    headers = signed(content, algorithm=chance.choice(["sha256", "md5"]))
    if chance.random() < 0.5:
        return headers, True
    before = dict(headers)
    for _ in range(chance.randrange(1, 4)):
        name = chance.choice([*headers, "x"])
        match chance.randrange(4):
            case 0:
                headers.pop(name, None)
            case 1:
                headers[name] = headers.get(name, "")[: chance.randrange(9)]
            case _:
                headers[name] = chance.choice(texts)
    headers.pop("x", None)
    named = headers.get("algorithm", "")
    if named and named.isascii() and (named.lower() == "sha256") == (before["algorithm"] == "sha256"):
        before["algorithm"] = named  # every other name means MD5
    return headers, headers == before


async def test_20_000_callbacks_of_any_sort_are_answered_and_only_the_signed_are_stored(clock: FakeClock) -> None:
    chance = random.Random(11)
    texts = ["", "0", "x", "é", "\ud800", "\x00", "٣", "²", "9" * 30, "-1", "nan", "sha256", "MD5", "a" * 5000, "\n"]
    sink = Sink()
    seen: dict[int, int] = {}
    for allow_unsigned in (False, True):
        receiver = receivers._Receiver(sink, KEYS, TOKEN, allow_unsigned, 300.0, clock)
        for _ in range(10_000):
            content = fuzzed_body(chance)
            headers, intact = fuzzed_headers(chance, content, texts)
            stored = len(sink.events)
            status = await receiver.handle(headers, content)
            seen[status] = seen.get(status, 0) + 1
            taken = intact or (allow_unsigned and "sign" not in headers)
            assert (status in (200, 400)) if taken else (status == 401), (headers, content)
            assert status == 200 or len(sink.events) == stored
    assert set(seen) == {200, 400, 401}
    assert min(seen.values()) > 1000
    assert len(sink.events) > 1000


async def test_400_callbacks_of_any_sort_are_answered_over_http(serve: Serve, http: aiohttp.ClientSession) -> None:
    chance = random.Random(12)
    texts = ["", "0", "x", "é", "²", "9" * 30, "-1", "nan", "sha256", "MD5", "a" * 5000]
    sink = Sink()
    seen: set[int] = set()
    async with serve(sink) as url:
        for _ in range(400):
            content = fuzzed_body(chance)
            headers, intact = fuzzed_headers(chance, content, texts)
            more = {"Content-Type": chance.choice(["application/json", "text/html; charset=x", "multipart/form-data"])}
            status = await post(http, url, content, {**more, **headers})
            seen.add(status)
            assert (status in (200, 400)) if intact else (status == 401), (headers, content)
    assert seen == {200, 400, 401}
