"""A login in aiohttp: routes with the endpoints."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from ..errors import ConfigurationError, NxOtpError
from . import Verifier
from .http import ACTIONS, MAX_BODY, NO_STORE, Answer, Endpoints, problem

__all__ = ["VERIFIER", "problem_response", "verification_routes"]

VERIFIER: Final = web.AppKey("nxotp verifier", Verifier)
"""Where the application keeps its verifier: ``app[VERIFIER] = Verifier(...)``."""


def verification_routes(
    prefix: str,
    on_approved: Callable[[web.Request, str], Awaitable[web.StreamResponse | dict[str, Any]]],
    *,
    region: str | None = None,
) -> list[web.RouteDef]:
    """Return the endpoints ``start``, ``resend`` and ``check`` of the verifier in ``app[VERIFIER]``.

        app.add_routes(verification_routes("/login", log_in, region="ID"))

    Args:
        prefix: The path before them.
        on_approved: Called with the request and the verified number, as E.164 digits. It begins the session, for
            example, and returns the answer: a response, or a dict that is sent as JSON.
        region: Whose national numbers to expect where a request does not say it: the two letters of a country.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    endpoints = Endpoints[web.Request, web.StreamResponse](on_approved, region)
    return [web.post(f"{prefix}/{action}", _handler(endpoints, action)) for action in ACTIONS]


def problem_response(error: NxOtpError) -> web.StreamResponse:
    """Return the answer of the endpoints to an error of a `Verifier`, for handlers of your own.

    Args:
        error: What it raised.
    """
    return _response(problem(error))


def _handler(
    endpoints: Endpoints[web.Request, web.StreamResponse], action: str
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        if VERIFIER not in request.config_dict:
            raise ConfigurationError("app[VERIFIER] is missing", hint="make the Verifier in a cleanup_ctx")
        return _response(
            await endpoints.respond(
                action,
                request.config_dict[VERIFIER],
                request,
                content_type=request.headers.get("Content-Type", ""),
                body=await _read(request),
                ip=request.remote,
            )
        )

    return handler


async def _read(request: web.Request) -> bytes:
    body = b""
    try:
        while len(body) <= MAX_BODY and not request.content.at_eof():
            body += await request.content.read(MAX_BODY + 1 - len(body))
    except (ConnectionError, web.RequestPayloadError):
        return b""  # nobody reads the answer
    return body


def _response(answer: Answer | web.StreamResponse) -> web.StreamResponse:
    if isinstance(answer, Answer):
        return web.Response(body=answer.body, status=answer.status, headers=answer.headers)
    answer.headers.setdefault(*NO_STORE)
    return answer
