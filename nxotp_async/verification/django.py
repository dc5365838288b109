"""A login in Django: URL patterns with asynchronous views. Django's protection against CSRF stays on."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, UnreadablePostError
from django.urls import URLPattern, path
from django.views.decorators.http import require_POST

from ..errors import NxOtpError
from . import Verifier
from .http import ACTIONS, MAX_BODY, NO_STORE, Answer, Endpoints, problem

__all__ = ["problem_response", "verification_urls"]


def verification_urls(
    get_verifier: Callable[[], Verifier],
    on_approved: Callable[[HttpRequest, str], Awaitable[HttpResponseBase | dict[str, Any]]],
    *,
    region: str | None = None,
) -> list[URLPattern]:
    """Return the endpoints ``start``, ``resend`` and ``check``.

        urlpatterns = [path("login/", include(verification_urls(get_verifier, log_in, region="ID")))]

    Args:
        get_verifier: Returns the process's verifier.
        on_approved: Called with the request and the verified number, as E.164 digits. It begins the session, for
            example, and returns the answer: a response, or a dict that is sent as JSON.
        region: Whose national numbers to expect where a request does not say it: the two letters of a country.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    endpoints = Endpoints[HttpRequest, HttpResponseBase](on_approved, region)
    return [path(action, _view(endpoints, action, get_verifier), name=f"verification-{action}") for action in ACTIONS]


def problem_response(error: NxOtpError) -> HttpResponseBase:
    """Return the answer of the endpoints to an error of a `Verifier`, for views of your own.

    Args:
        error: What it raised.
    """
    return _response(problem(error))


def _view(
    endpoints: Endpoints[HttpRequest, HttpResponseBase], action: str, get_verifier: Callable[[], Verifier]
) -> Callable[[HttpRequest], Coroutine[Any, Any, HttpResponseBase]]:
    @require_POST
    async def view(request: HttpRequest) -> HttpResponseBase:
        return _response(
            await endpoints.respond(
                action,
                get_verifier(),
                request,
                content_type=request.headers.get("Content-Type", ""),
                body=_read(request),
                ip=request.META.get("REMOTE_ADDR"),
            )
        )

    return view


def _read(request: HttpRequest) -> bytes:
    try:
        return request.read(MAX_BODY + 1)
    except UnreadablePostError:
        return b""  # nobody reads the answer


def _response(answer: Answer | HttpResponseBase) -> HttpResponseBase:
    if isinstance(answer, Answer):
        return HttpResponse(answer.body, status=answer.status, headers=answer.headers)
    answer.headers.setdefault(*NO_STORE)
    return answer
