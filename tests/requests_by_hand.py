"""Requests to a sandbox made and signed by hand: a correct client cannot make a wrong one."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import aiohttp
import pytest

from nxotp_async.sandbox import (
    Sandbox,
)
from nxotp_async.testing import FakeClock

PATH = "/api/wa/otp"
NUMBER = "9995550100"
CODE = "482913"
ABSENT: Any = None
FIELDS: dict[str, Any] = {
    "appkey": "sandbox-appkey",
    "messaging_product": "whatsapp",
    "recipient_type": "individual",
    "to": NUMBER,
    "content": f"Your code is {CODE}",
    "language_code": "en",
    "cus_message_id": "order-1",
}
REQUIRED_FIELDS = ("appkey", "messaging_product", "recipient_type", "to", "content", "language_code")
FAILED = {"code": -1, "message": "Request failed", "data": None}


def success(message_id: str) -> dict[str, Any]:
    data = {"messaging_product": "whatsapp", "messages": [{"id": message_id}]}
    return {"code": 0, "data": data, "message": "Request successful"}


def body_with(**changes: Any) -> bytes:
    return json.dumps({**FIELDS, **changes}).encode()


def body_without(name: str) -> bytes:
    return json.dumps({key: value for key, value in FIELDS.items() if key != name}).encode()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> Any:
        return self.json["code"]


class Api:
    """Requests to a sandbox by hand, right in everything but what a test changes."""

    def __init__(self, sandbox: Sandbox, clock: FakeClock, session: aiohttp.ClientSession) -> None:
        self._sandbox = sandbox
        self._clock = clock
        self._session = session

    @property
    def now_ms(self) -> int:
        return int(self._clock.time() * 1000)

    def headers(self, body: bytes, changes: dict[str, Any]) -> dict[str, str]:
        """Headers signed as the vendor's page tells it. Whatever is changed is signed too, so that only it is wrong."""
        headers: dict[str, Any] = {
            "accessKey": "sandbox-access-key",
            "ts": str(self.now_ms),
            "bizType": "2",
            "action": "mt",
            "Content-Type": "application/json",
            **changes,
        }
        signed = "&".join(f"{name}={headers[name]}" for name in ("accessKey", "action", "bizType", "ts")).encode()
        signed += (b"&body=" + body if body else b"") + b"&accessSecret=sandbox-access-secret"
        headers = {"sign": hashlib.md5(signed).hexdigest(), **headers}
        return {name: value for name, value in headers.items() if value is not ABSENT}

    async def post(
        self, body: bytes, changes: dict[str, Any] | None = None, *, body_sent: bytes | None = None
    ) -> Answer:
        """POST a body with the headers for it, of which some are changed, or left out by a change to ``ABSENT``."""
        headers = self.headers(body, changes or {})
        body_sent = body if body_sent is None else body_sent
        url = self._sandbox.url + PATH
        async with self._session.post(url, data=body_sent, headers=headers, allow_redirects=False) as response:
            return Answer(response.status, dict(response.headers), await response.read())

    async def post_good(self, **changes: Any) -> Answer:
        return await self.post(body_with(**changes))

    def head(self, body: bytes, **more: str) -> bytes:
        """The request up to its body, as bytes."""
        headers = {"Host": "sandbox", "Content-Length": str(len(body)), **self.headers(body, {}), **more}
        lines = [f"POST {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode()

    async def connect(self) -> "Wire":
        host, port = self._sandbox.url.removeprefix("http://").split(":")
        return Wire(*await asyncio.open_connection(host, int(port)))


class Wire:
    """A bare connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def __aenter__(self) -> "Wire":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def read_until(self, end: bytes) -> bytes:
        async with asyncio.timeout(10):
            return await self._reader.readuntil(end)

    async def read_to_the_end(self) -> bytes:
        async with asyncio.timeout(10):
            return await self._reader.read()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    # Without the default Content-Type, so that a request can go without.
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(skip_auto_headers={"Content-Type"}, timeout=timeout) as session:
        yield session


@pytest.fixture
def api(sandbox: Sandbox, clock: FakeClock, session: aiohttp.ClientSession) -> Api:
    return Api(sandbox, clock, session)


@pytest.fixture
def api_of(clock: FakeClock, session: aiohttp.ClientSession) -> Callable[[Sandbox], Api]:
    """For the tests that need a sandbox of another kind."""
    return lambda sandbox: Api(sandbox, clock, session)
