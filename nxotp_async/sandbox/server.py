"""The sandbox: a real HTTP server that answers as the vendor's OTP API does."""

import asyncio
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from email.utils import formatdate
from secrets import token_urlsafe
from types import TracebackType
from typing import Any, Final, Self

import attrs
from aiohttp import web

from ..client import OtpClient
from ..codes import ResponseCode
from ..messages import mask_number
from ..protocol import OTP_PATH
from ..signing import Credentials
from . import answers
from .callbacks import CallbackPlan, CallbackPusher
from .checks import check_body, check_headers, otp_code, parse_body
from .faults import MAGIC_RECIPIENTS, Fault, FaultKind, FaultPlan

__all__ = ["SANDBOX_BUSINESS_PHONE", "SANDBOX_CREDENTIALS", "ReceivedRequest", "Sandbox"]

SANDBOX_CREDENTIALS: Final = Credentials("sandbox-access-key", "sandbox-access-secret", "sandbox-appkey")
"""The keys of the sandbox's one account. They are no secret."""
SANDBOX_BUSINESS_PHONE: Final = "99955500000"
"""The number bound to the sandbox's application."""

_MAX_BODY_BYTES = 64 * 1024
_DRIP_INTERVAL = 0.05  # seconds
_NO_FAULT = Fault()


@attrs.frozen
class ReceivedRequest:
    """What the sandbox received, and what became of it.

    Attributes:
        arrived_at: Seconds since the epoch, by the sandbox's clock.
        headers: The request's headers.
        body: Its raw body; empty where the connection was reset before it was read.
        fields: The parsed body; empty where it was no JSON object.
        code: The vendor's code it earned, whether or not that was answered.
        fault: The kind of fault it met.
        message_id: The id of the message that went out, or ``None`` where none did.
    """

    arrived_at: float
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    fields: Mapping[str, Any] = attrs.field(repr=False)
    code: int
    fault: FaultKind
    message_id: str | None

    @property
    def to(self) -> str:
        """The recipient's number."""
        return str(self.fields.get("to", ""))

    @property
    def content(self) -> str:
        """The content as it was sent."""
        return str(self.fields.get("content", ""))

    @property
    def otp(self) -> str | None:
        """The OTP code, as the vendor extracts it from the content."""
        return otp_code(self.content)

    @property
    def cus_message_id(self) -> str | None:
        """The sender's own id."""
        return self.fields.get("cus_message_id")

    @property
    def ts(self) -> int:
        """The ``ts`` header, in milliseconds; 0 where it is none."""
        ts = self.headers.get("ts", "")
        return int(ts) if ts.isascii() and ts.isdigit() else 0

    def __str__(self) -> str:
        return f"{self.cus_message_id or '-'} to {mask_number(self.to)}: {int(self.code)} {self.fault}"


class Sandbox:
    """An emulator of the OTP API on a loopback port, for tests, demonstrations and load tests.

    It checks every header, the signature over the raw bytes, the 60 s window and every field, and answers with the
    vendor's codes. Faults come by script (`script`), by a seeded random share (``fault_rate``), or by number
    (`MAGIC_RECIPIENTS`).

        async with Sandbox() as sandbox, sandbox.client() as client:
            await client.send_otp("+999 555 0100", "482913")
            assert sandbox.messages[-1].otp == "482913"

    Args:
        host: Where to listen.
        port: Where to listen; 0 takes a free port.
        credentials: The keys of the one account there is.
        business_phones: The numbers bound to its application.
        fault_rate: The share of requests that meet one of ``faults``, from 0.0 to 1.0. Codes meet good requests only:
            a bad one is answered with its own.
        faults: What the share is drawn from: by default the codes -1 and 9001.
        seed: Makes the draws repeatable.
        latency: Seconds every answer takes at the least.
        clock_offset: Seconds the sandbox's clock is ahead; its ``Date`` header and its 60 s window follow it.
        echo_message_id: Whether the ``cus_message_id`` comes back as the message id, as the vendor documents it;
            else ids are made up, like that of the vendor's example answer.
        callbacks: Which status callbacks are pushed for messages that went out; none by default.
        keep: How many requests `requests` remembers; the oldest are forgotten first. The counters go on.
        clock: The clock, in seconds since the epoch.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        credentials: Credentials = SANDBOX_CREDENTIALS,
        business_phones: Sequence[str] = (SANDBOX_BUSINESS_PHONE,),
        fault_rate: float = 0.0,
        faults: Sequence[Fault] = (Fault.answer(-1), Fault.answer(9001)),
        seed: int | None = None,
        latency: float = 0.0,
        clock_offset: float = 0.0,
        echo_message_id: bool = True,
        callbacks: CallbackPlan | None = None,
        keep: int = 100_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.credentials = credentials
        self.requests: deque[ReceivedRequest] = deque(maxlen=keep)
        self.counts: Counter[str] = Counter()
        self.max_in_flight = 0
        self._host = host
        self._port = port
        self._business_phones = tuple(business_phones)
        self._plan = FaultPlan(fault_rate, faults, seed)
        self._latency = latency
        self._clock: Callable[[], float] = lambda: clock() + clock_offset
        self._echo_message_id = echo_message_id
        self._pusher: CallbackPusher | None = None
        if callbacks is not None:
            self._pusher = CallbackPusher(callbacks, credentials, self.counts, self._clock, seed)
        self._in_flight = 0
        self._runner: web.AppRunner | None = None

    # ------------------------------------------------------------------------------------------ use

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start listening.

        Raises:
            OSError: The port is taken.
            RuntimeError: It is running already.
        """
        if self._runner is not None:
            raise RuntimeError("the sandbox is running already")
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_post(OTP_PATH, self._receive)
        app.router.add_get("/sandbox/counts", self._show_counts)
        runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=0.1, handler_cancellation=True
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError:
            await runner.cleanup()
            raise
        if self._pusher is not None:
            await self._pusher.start()
        self._runner = runner

    async def stop(self) -> None:
        """Stop listening, and drop what is in flight."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()
            if self._pusher is not None:
                await self._pusher.stop()

    async def callbacks_settled(self) -> None:
        """Wait until every callback so far has been answered with 200, or given up."""
        if self._pusher is not None:
            await self._pusher.settled()

    @property
    def url(self) -> str:
        """The base URL to give to a client."""
        if self._runner is None:
            raise RuntimeError("the sandbox is not running: use it as 'async with Sandbox() as sandbox'")
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def client(self, **options: Any) -> OtpClient:  # noqa: ANN401 - OtpClient checks them
        """Return a client of this sandbox's account and first number. The options are those of `OtpClient`."""
        account = {
            "access_key": self.credentials.access_key,
            "access_secret": self.credentials.access_secret,
            "appkey": self.credentials.appkey,
            "base_url": self.url,
            "business_phone": next(iter(self._business_phones), None),
        }
        return OtpClient(**{**account, **options})

    def script(self, *faults: Fault) -> None:
        """Let the next requests meet these faults, one each."""
        self._plan.script(faults)

    @property
    def messages(self) -> list[ReceivedRequest]:
        """The requests whose message went out, the oldest first."""
        return [request for request in self.requests if request.message_id is not None]

    # ------------------------------------------------------------------------------------------ a request

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        self._in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self._in_flight)
        self.counts["requests"] += 1
        try:
            return await self._treat(request)
        finally:
            self._in_flight -= 1

    async def _treat(self, request: web.Request) -> web.StreamResponse:
        arrived_at = self._clock()
        fault = self._plan.next()
        if fault is not None and fault.kind is FaultKind.DISCONNECT_BEFORE_READING:
            self._record(arrived_at, request, b"", {}, ResponseCode.REQUEST_FAILED, fault, None)
            return _reset(request)
        try:
            body = await request.read()
        except (web.RequestPayloadError, ConnectionError):
            return web.Response()  # the client has gone in the middle of its request
        code: int
        code, why = check_headers(request.headers, body, self.credentials, now_ms=int(arrived_at * 1000))
        fields = parse_body(body)
        if code is ResponseCode.SUCCESS:
            code, why = check_body(fields, self.credentials, self._business_phones)
        fields = fields or {}
        fault = fault or MAGIC_RECIPIENTS.get(str(fields.get("to"))) or _NO_FAULT
        if code is ResponseCode.SUCCESS and fault.kind is FaultKind.CODE:
            code = fault.code
        elif code is ResponseCode.SUCCESS and fault.kind is FaultKind.META:
            code = ResponseCode.WHATSAPP_ERROR
        message_id = self._new_id(fields) if code is ResponseCode.SUCCESS and fault.accepts else None
        self._record(arrived_at, request, body, fields, code, fault, message_id)
        if message_id is not None and self._pusher is not None:
            await self._pusher.announce(fields, message_id)
        if latency := self._latency + fault.latency:
            await asyncio.sleep(latency)
        return await self._respond(request, code, why, fault, message_id or "")

    def _new_id(self, fields: Mapping[str, Any]) -> str:
        own = fields.get("cus_message_id") if self._echo_message_id else None
        return own or f"wamid.{token_urlsafe(21)}"

    def _record(
        self,
        arrived_at: float,
        request: web.Request,
        body: bytes,
        fields: Mapping[str, Any],
        code: int,
        fault: Fault,
        message_id: str | None,
    ) -> None:
        self.requests.append(ReceivedRequest(arrived_at, request.headers, body, fields, code, fault.kind, message_id))
        self.counts["messages"] += message_id is not None
        self.counts[f"code {int(code)}"] += 1
        self.counts[f"fault {fault.kind}"] += 1

    async def _respond(
        self, request: web.Request, code: int, why: str, fault: Fault, message_id: str
    ) -> web.StreamResponse:
        match fault.kind:
            case FaultKind.HTTP:
                return self._gateway(fault)
            case FaultKind.DISCONNECT_BEFORE_READING | FaultKind.DISCONNECT_AFTER_READING:
                return _reset(request)
            case FaultKind.HANG:
                await asyncio.Event().wait()
            case FaultKind.DRIP:
                return await self._drip(request)
        return self._json(_body(code, why, fault, message_id))

    def _headers(self) -> dict[str, str]:
        return {"Date": formatdate(self._clock(), usegmt=True)}

    def _json(self, body: bytes) -> web.Response:
        return web.Response(body=body, content_type="application/json", headers=self._headers())

    def _gateway(self, fault: Fault) -> web.Response:
        headers = self._headers()
        if fault.retry_after is not None:
            headers["Retry-After"] = str(fault.retry_after)
        if 300 <= fault.code < 400:
            headers["Location"] = OTP_PATH
        page = answers.gateway_page(fault.code)
        return web.Response(status=fault.code, text=page, content_type="text/html", headers=headers)

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={**self._headers(), "Content-Type": "application/json"})
        await response.prepare(request)
        with suppress(ConnectionResetError):  # the client has had enough
            while True:
                await response.write(b" ")
                await asyncio.sleep(_DRIP_INTERVAL)
        return response

    async def _show_counts(self, _: web.Request) -> web.Response:
        return web.json_response({**self.counts, "max_in_flight": self.max_in_flight})


def _reset(request: web.Request) -> web.Response:
    if request.transport is not None:
        # With a linger time of 0 the connection is reset when it is closed, not ended in order.
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()


def _body(code: int, why: str, fault: Fault, message_id: str) -> bytes:
    if code == ResponseCode.WHATSAPP_ERROR:
        return answers.meta_failure(fault.code or 100, why)
    if code != ResponseCode.SUCCESS:
        return answers.failure(code, why)
    match fault.kind:
        case FaultKind.TRUNCATED:
            whole = answers.success(message_id)
            return whole[: len(whole) // 2]
        case FaultKind.WRONG_TYPES:
            return answers.wrong_types(message_id)
        case FaultKind.WITHOUT_ID:
            return answers.without_id()
        case FaultKind.HUGE:
            return answers.huge(fault.size)
    return answers.success(message_id)
