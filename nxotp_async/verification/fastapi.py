"""A login in FastAPI: a router with the endpoints, and a dependency for endpoints of your own."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.requests import ClientDisconnect

from ..errors import ConfigurationError, NxOtpError
from . import Verifier
from .http import ACTIONS, MAX_BODY, NO_STORE, Answer, Endpoints, problem

__all__ = ["get_verifier", "problem_response", "verification_router"]


def get_verifier(request: Request) -> Verifier:
    """Return the application's verifier, ``app.state.verifier``: ``Annotated[Verifier, Depends(get_verifier)]``.

    Raises:
        ConfigurationError: There is none.
    """
    verifier = getattr(request.app.state, "verifier", None)
    if not isinstance(verifier, Verifier):
        raise ConfigurationError("app.state.verifier is missing", hint="make the Verifier in the lifespan")
    return verifier


def verification_router(
    on_approved: Callable[[Request, str], Awaitable[Response | dict[str, Any]]], *, region: str | None = None
) -> APIRouter:
    """Return the endpoints ``start``, ``resend`` and ``check`` of `get_verifier`'s verifier.

        app.include_router(verification_router(log_in, region="ID"), prefix="/login")

    Args:
        on_approved: Called with the request and the verified number, as E.164 digits. It begins the session, for
            example, and returns the answer: a response, or a dict that is sent as JSON.
        region: Whose national numbers to expect where a request does not say it: the two letters of a country.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    endpoints = Endpoints[Request, Response](on_approved, region)
    router = APIRouter(tags=["verification"])
    for action, fields in ACTIONS.items():
        endpoint = _endpoint(endpoints, action)
        router.add_api_route(f"/{action}", endpoint, methods=["POST"], name=action, openapi_extra=_schema(fields))
    return router


def problem_response(_: Request, error: NxOtpError) -> Response:
    """Return the answer of the router to an error of a `Verifier`, for endpoints of your own.

    app.add_exception_handler(NxOtpError, problem_response)

    Args:
        error: What it raised.
    """
    return _response(problem(error))


def _endpoint(endpoints: Endpoints[Request, Response], action: str) -> Callable[..., Awaitable[Response]]:
    async def endpoint(request: Request, verifier: Annotated[Verifier, Depends(get_verifier)]) -> Response:
        return _response(
            await endpoints.respond(
                action,
                verifier,
                request,
                content_type=request.headers.get("content-type", ""),
                body=await _read(request),
                ip=request.client and request.client.host,
            )
        )

    return endpoint


async def _read(request: Request) -> bytes:
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                break
    except ClientDisconnect:
        return b""  # nobody reads the answer
    return body


def _response(answer: Answer | Response) -> Response:
    if isinstance(answer, Answer):
        return Response(answer.body, answer.status, answer.headers)
    answer.headers.setdefault(*NO_STORE)
    return answer


def _schema(fields: tuple[str, ...]) -> dict[str, Any]:
    schema = {"type": "object", "required": [*fields], "properties": {name: {"type": "string"} for name in fields}}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
