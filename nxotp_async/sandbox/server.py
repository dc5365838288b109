"""The sandbox: a real HTTP server that answers as the vendor's OTP API does."""

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from ..client import OtpClient
from ..protocol import OTP_PATH
from ..signing import Credentials
from ..urls import host_and_port
from .callbacks import CallbackPlan, CallbackPusher
from .emulator import SANDBOX_BUSINESS_PHONE, SANDBOX_CREDENTIALS, Emulator
from .faults import Fault, FaultKind

__all__ = ["Sandbox"]

_MAX_BODY_BYTES = 64 * 1024
_DRIP_INTERVAL = 0.05  # seconds


class Sandbox(Emulator):
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
        super().__init__(
            credentials=credentials,
            business_phones=business_phones,
            fault_rate=fault_rate,
            faults=faults,
            seed=seed,
            latency=latency,
            clock_offset=clock_offset,
            echo_message_id=echo_message_id,
            keep=keep,
            clock=clock,
        )
        self.max_in_flight: int = 0
        self._host = host
        self._port = port
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
        app.on_response_prepare.append(self._date)
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
        return f"http://{host_and_port(*self._runner.addresses[0][:2])}"

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that let ``OtpClient()`` use this sandbox, its account and its first number."""
        settings = {"base_url": self.url, **self._account()}
        return {f"NXOTP_{name.upper()}": value for name, value in settings.items()}

    def client(self, **options: Any) -> OtpClient:  # noqa: ANN401 - OtpClient checks them
        """Return a client of this sandbox's account and first number. The options are those of `OtpClient`."""
        return super().client(**{"base_url": self.url, **options})

    # ------------------------------------------------------------------------------------------ a request

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        self._in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self._in_flight)
        try:
            return await self._respond(request)
        finally:
            self._in_flight -= 1

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        arrived_at, fault = self._arrive()
        if fault is not None and fault.kind is FaultKind.DISCONNECT_BEFORE_READING:
            self._drop(arrived_at, request.headers, fault)
            return _reset(request)
        try:
            body = await request.read()
        except (web.RequestPayloadError, ConnectionError):
            return web.Response()  # the client has gone in the middle of its request
        treatment = self._treat(arrived_at, request.headers, body, fault)
        message_id = treatment.request.message_id
        if message_id is not None and self._pusher is not None:
            await self._pusher.announce(dict(treatment.request.fields), message_id)
        if latency := self._latency + treatment.fault.latency:
            await asyncio.sleep(latency)
        status, headers, answer = self._answer(treatment)
        match treatment.fault.kind:
            case FaultKind.DISCONNECT_BEFORE_READING | FaultKind.DISCONNECT_AFTER_READING:
                return _reset(request)
            case FaultKind.HANG:
                await asyncio.Event().wait()
            case FaultKind.DRIP:
                return await _drip(request, headers)
        return web.Response(status=status, headers=headers, body=answer)

    async def _date(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = self._now()

    async def _show_counts(self, _: web.Request) -> web.Response:
        return web.json_response({**self.counts, "max_in_flight": self.max_in_flight})


def _reset(request: web.Request) -> web.Response:
    if request.transport is not None:
        # With a linger time of 0 the connection is reset when it is closed, not ended in order.
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()


async def _drip(request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    with suppress(ConnectionResetError):  # the client has had enough
        while True:
            await response.write(b" ")
            await asyncio.sleep(_DRIP_INTERVAL)
    return response
