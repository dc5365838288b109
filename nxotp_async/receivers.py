"""Receivers of status callbacks over HTTP: a sub-application for aiohttp, and an ASGI application for other servers."""

import asyncio
import hmac
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from traceback import format_exception
from types import MappingProxyType
from typing import Any, Final, Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from .callbacks import MAX_CALLBACK_BYTES, StatusEvent, parse_callback, verify_callback
from .checks import instance_of, number, optional, validate
from .clocks import Clock
from .errors import CallbackVerificationError, ConfigurationError
from .protocol import redact
from .signing import Credentials

__all__ = ["HANDLER_ARGS", "AsgiReceiver", "CallbackMiddleware", "EventSink", "aiohttp_receiver"]

_log = logging.getLogger("nxotp_async")

_READ_TIMEOUT: Final = 10.0  # seconds for the whole body
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~-]{16,}")  # the characters that a URL does not encode


class _ServerLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's log, with one line for an invalid request, and not a traceback that contains a part of the request."""

    def log(self, level: int, msg: object, *args: object, exc_info: Any = None, **options: Any) -> None:  # noqa: ANN401 - as in LoggerAdapter
        if isinstance(exc_info, HttpProcessingError):
            level = min(level, logging.WARNING)
            msg, args = "an invalid HTTP request was refused: %s", (type(exc_info).__name__,)
            exc_info = None
        super().log(level, msg, *args, exc_info=exc_info, **options)


HANDLER_ARGS: Final[Mapping[str, Any]] = MappingProxyType(
    {"keepalive_timeout": 30.0, "logger": _ServerLog(logging.getLogger("aiohttp.server"))}
)
"""Settings for a public aiohttp server: ``web.Application(handler_args=HANDLER_ARGS)``.

The server closes a connection if no request with all its headers comes within 30 seconds after the connection was
opened or after the last answer; aiohttp's default is an hour. And it logs one line for an invalid request, for example
one with too many headers. The application of `aiohttp_receiver` has these settings. An application that it is mounted
in needs them, too, because a server uses those of the outermost application.
"""


class EventSink(Protocol):
    """What a receiver passes events to: a `DeliveryTracker`, or your own code."""

    async def record(self, event: StatusEvent) -> object:
        """Store an event. The answer is 200 after this returns, or 503 if it raises, and the vendor sends it again."""
        ...


class _Receiver:
    """What both receivers have in common: from a request to the HTTP status of the answer."""

    def __init__(
        self,
        sink: EventSink,
        credentials: Credentials | None,
        token: str | None,
        allow_unsigned: bool,
        window: float,
        clock: Clock | None,
    ) -> None:
        if credentials is None and not allow_unsigned:
            raise ConfigurationError(
                "credentials are missing: they are needed to verify callbacks",
                hint="for an account whose callbacks are not signed, pass allow_unsigned=True and a token",
            )
        validate("credentials", optional(instance_of(Credentials)), credentials, ConfigurationError)
        if credentials is not None and not (credentials.access_key and credentials.access_secret):
            raise ConfigurationError("credentials need an access_key and an access_secret to verify callbacks")
        if allow_unsigned and token is None:
            raise ConfigurationError("allow_unsigned needs a token in the path, or anybody could forge callbacks")
        if token is not None and not _TOKEN.fullmatch(token):
            raise ConfigurationError("token must be 16 or more of the characters A-Z, a-z, 0-9, '-', '_', '.' and '~'")
        if not hasattr(sink, "record"):
            raise ConfigurationError(f"the sink must be a DeliveryTracker or have record(), not {type(sink).__name__}")
        self._sink = sink
        self._credentials = credentials
        self._token = token
        self._allow_unsigned = allow_unsigned
        self._window = validate("window", number(above=0), window, ConfigurationError)
        self._time = (clock or Clock()).time

    def matches(self, path: str) -> bool:
        """Return whether this is the path of callbacks."""
        return hmac.compare_digest(path.strip("/").encode("utf-8", "replace"), (self._token or "").encode())

    async def handle(self, headers: Mapping[str, str], body: bytes) -> int:
        """Verify a callback, store its events, and return the HTTP status of the answer."""
        if len(body) > MAX_CALLBACK_BYTES:
            return 413
        is_signed = any(name.lower() == "sign" for name in headers)
        if self._credentials is not None and (is_signed or not self._allow_unsigned):
            try:
                verify_callback(headers, body, self._credentials, self._time(), window=self._window)
            except CallbackVerificationError as error:
                _log.warning("a callback was refused: %s", error)
                return 401
        try:
            events = parse_callback(body)
        except CallbackVerificationError:
            return 400
        return await self._record(events)

    async def _record(self, events: Iterable[StatusEvent]) -> int:
        try:
            for event in events:
                await self._sink.record(event)
        except web.HTTPException:
            raise  # a sink under aiohttp has chosen the answer itself
        except Exception as error:
            # The error of an application's own sink may quote the recipient's number.
            trace = "\n".join(redact(line) for part in format_exception(error) for line in part.splitlines())
            _log.error(
                "a callback's events were not stored: it was answered 503, so that the vendor sends it again\n%s", trace
            )
            return 503
        return 200


def aiohttp_receiver(
    sink: EventSink,
    credentials: Credentials | None = None,
    *,
    token: str | None = None,
    allow_unsigned: bool = False,
    window: float = 300.0,
    clock: Clock | None = None,
) -> web.Application:
    """Return an aiohttp application that receives status callbacks.

        app = web.Application(handler_args=HANDLER_ARGS)
        app.add_subapp("/nxcloud", aiohttp_receiver(tracker, credentials))

    It answers 200 after the events are stored, also to a button click, which has none; 503 if the sink raises, 401 if
    the callback cannot be verified, 413 if it is too long, 400 if it is not a JSON object, 404 for another path.

    Args:
        sink: Stores the events, for example a `DeliveryTracker`.
        credentials: The account's keys, to verify callbacks.
        token: An unguessable last part of the path, at least 16 characters.
        allow_unsigned: Whether to accept callbacks without a signature; only those who know the token can send them.
        window: Seconds that a callback's ``ts`` may be before or after this machine's time.
        clock: The source of time, for tests.

    Raises:
        ConfigurationError: Callbacks could not be verified, or an argument is wrong.
    """
    receiver = _Receiver(sink, credentials, token, allow_unsigned, window, clock)

    async def post(request: web.Request) -> web.Response:
        if not receiver.matches(request.match_info.get("token", "")):
            return web.Response(status=404)
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                body = await request.content.read(MAX_CALLBACK_BYTES + 1)
                while len(body) <= MAX_CALLBACK_BYTES and not request.content.at_eof():
                    body += await request.content.read(MAX_CALLBACK_BYTES + 1 - len(body))
        except TimeoutError:
            return web.Response(status=408)
        except (ConnectionError, web.RequestPayloadError):
            return web.Response(status=400)  # is not sent: the client has disconnected
        return web.Response(status=await receiver.handle(request.headers, body))

    app = web.Application(client_max_size=MAX_CALLBACK_BYTES, handler_args=HANDLER_ARGS)
    app.router.add_post("/{token:.*}", post)
    app.router.add_post("", post)  # what it is mounted at, without a slash
    return app


_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class AsgiReceiver:
    """An ASGI application that receives status callbacks. `CallbackMiddleware` puts it in front of another application.

    The answers and arguments are those of `aiohttp_receiver`.
    """

    def __init__(
        self,
        sink: EventSink,
        credentials: Credentials | None = None,
        *,
        token: str | None = None,
        allow_unsigned: bool = False,
        window: float = 300.0,
        clock: Clock | None = None,
    ) -> None:
        self._receiver = _Receiver(sink, credentials, token, allow_unsigned, window, clock)

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Handle one request, or the lifespan, of an ASGI server."""
        if scope["type"] == "lifespan":
            await _handle_lifespan(receive, send)
        elif scope["type"] == "http":
            await _respond(send, await self._status(scope, receive))

    async def _status(self, scope: _Message, receive: _Receive) -> int:
        if not self._receiver.matches(_path(scope)):
            return 404
        if scope["method"] != "POST":
            return 405
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                body = await _read(receive)
        except TimeoutError:
            return 408
        if body is None:
            return 400  # is not sent: the client has disconnected
        return await self._receiver.handle(_headers(scope["headers"]), body)


class CallbackMiddleware:
    """Passes what is posted to one path to a receiver, and everything else to an ASGI application.

        app.add_middleware(CallbackMiddleware, path="/nxcloud", receiver=receiver)  # FastAPI, Starlette
        application = CallbackMiddleware(application, path="/nxcloud", receiver=receiver)  # any other

    It knows the path with and without a slash at its end. A *mount* of FastAPI and Starlette answers 307 where the
    slash is missing, which the vendor does not follow: the callback would be lost.

    Args:
        app: The application.
        path: The path of the receiver, without its token.
        receiver: The receiver.

    Raises:
        ConfigurationError: The path is that of the whole application.
    """

    def __init__(self, app: Callable[[Any, Any, Any], Awaitable[None]], /, path: str, receiver: AsgiReceiver) -> None:
        self._app = app
        self._path = f"/{path.strip('/')}"
        if self._path == "/":
            raise ConfigurationError("path must not be that of the whole application", hint="/nxcloud for example")
        self._receiver = receiver

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Handle one event of an ASGI server."""
        path = _path(scope) if scope["type"] == "http" else ""
        if f"{path}/".startswith(f"{self._path}/"):
            await self._receiver({**scope, "path": path[len(self._path) :], "root_path": ""}, receive, send)
        else:
            await self._app(scope, receive, send)


def _path(scope: _Message) -> str:
    """Return the path below that which the application is mounted at."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}


async def _read(receive: _Receive) -> bytes | None:
    """Return the body, or a part that is longer than `MAX_CALLBACK_BYTES`; ``None`` if the client disconnects."""
    body = bytearray()
    while len(body) <= MAX_CALLBACK_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return bytes(body)


async def _respond(send: _Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def _handle_lifespan(receive: _Receive, send: _Send) -> None:
    """Answer the lifespan events of a server for which this is the whole application: there is nothing to do."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
