"""The sandbox over HTTP: a web application that carries out the sandbox's replies."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from email.utils import formatdate
from typing import Final

from aiohttp import web

from ..protocol import OTP_PATH
from ..sms import SMS_PATH
from .account_queries import QUERIES
from .answers import Reply
from .faults import FaultKind
from .requests import ReceivedRequest

__all__ = ["make_app"]

_MAX_BODY_BYTES: Final = 64 * 1024
_DRIP_INTERVAL: Final = 0.05  # seconds


def make_app(
    receive: Callable[..., AbstractAsyncContextManager[Reply]],
    announce: Callable[[ReceivedRequest], Awaitable[None]],
    clock: Callable[[], float],
    answer_query: Callable[[str, Mapping[str, str], bytes], bytes],
) -> web.Application:
    """Return the web application of a sandbox.

    Args:
        receive: `Sandbox.receive`.
        announce: Pushes the callbacks of a request.
        clock: Seconds since the epoch, for the ``Date`` headers.
        answer_query: Returns the answer to what is asked about the account, given the path, the headers and the body.
    """

    async def post_otp(request: web.Request) -> web.StreamResponse:
        try:
            async with receive(request.headers, request.read, path=request.path) as reply:
                await announce(reply.request)
                return await _respond(request, reply)
        except (web.RequestPayloadError, ConnectionError):
            return web.Response()  # the client closed the connection in the middle of its request

    async def post_query(request: web.Request) -> web.Response:
        answer = answer_query(request.path, request.headers, await request.read())
        return web.Response(body=answer, content_type="application/json")

    async def set_date(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = formatdate(clock(), usegmt=True)

    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app.router.add_post(OTP_PATH, post_otp)
    app.router.add_post(SMS_PATH, post_otp)
    for path in QUERIES:
        app.router.add_post(path, post_query)
    app.on_response_prepare.append(set_date)
    return app


async def _respond(request: web.Request, reply: Reply) -> web.StreamResponse:
    if reply.delay:
        await asyncio.sleep(reply.delay)
    status, headers, body = reply.answer
    match reply.request.fault:
        case FaultKind.DISCONNECT_BEFORE_READING | FaultKind.DISCONNECT_AFTER_READING:
            return _reset(request)
        case FaultKind.HANG:
            await asyncio.Event().wait()
        case FaultKind.DRIP:
            return await _drip(request, headers)
    return web.Response(status=status, headers=headers, body=body)


def _reset(request: web.Request) -> web.Response:
    if request.transport is not None:
        # With a linger time of 0, closing the socket sends a reset instead of an orderly end.
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()


async def _drip(request: web.Request, headers: Mapping[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    with suppress(ConnectionResetError):  # the client closed the connection
        while True:
            await response.write(b" ")
            await asyncio.sleep(_DRIP_INTERVAL)
    return response
