"""Who may use the sandbox's page and its API, and what is answered to others: problems after RFC 9457."""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import hdrs, web
from yarl import URL

from ..urls import is_loopback

__all__ = ["SECURITY_HEADERS", "Guard", "ProblemError"]

_READING: Final = {hdrs.METH_GET, hdrs.METH_HEAD}
SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

"""What every answer says to the browser: nothing from elsewhere, no script in a text, no copy on a disk."""
_DETAILS: Final = {404: "there is nothing at this address", 405: "this method is not allowed here"}
_ASK: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>nxotp sandbox</title>
<body><main><h1>nxotp sandbox</h1>
<p>This sandbox listens on more than loopback. It printed a token when it started.</p>
<form><label>Token <input name="token" autocomplete="off" autofocus></label> <button>Open</button></form></main></body>
</html>
"""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ProblemError(Exception):
    """What is wrong with a request, as the answer tells it.

    Args:
        status: The HTTP status.
        detail: What is wrong, for people.
        field: The parameter or the field that is wrong, if it is one.
        headers: Further headers of the answer.
    """

    def __init__(
        self, status: int, detail: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.field = field
        self.headers = headers or {}

    def response(self) -> web.Response:
        """Return the answer."""
        problem: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": str(self),
        }
        if self.field is not None:
            problem["field"] = self.field
        return web.Response(
            status=self.status,
            headers=self.headers,
            body=orjson.dumps(problem),
            content_type="application/problem+json",
        )


class Guard:
    """Lets through who may use the page and the API. The messages are only tests, but codes all the same.

    On loopback, the ``Host`` header must name loopback: a web page whose name leads to 127.0.0.1 must not read them.
    Elsewhere, a token is needed. What changes something must not come from another web page.

    Args:
        token: The token; ``None`` where none is needed, because only loopback is listened on.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    async def __call__(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answer a request, with a problem if that is the answer."""
        try:
            if self._token is not None and request.path == "/" and "token" in request.query:
                response: web.StreamResponse = self._enter(request, self._token)
            else:
                self._check(request)
                response = await handler(request)
        except ProblemError as problem:
            response = problem.response()
            if problem.status == HTTPStatus.UNAUTHORIZED and request.path == "/":
                response = web.Response(status=problem.status, text=_ASK, content_type="text/html")
        except web.HTTPException as error:
            allow = {"Allow": error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else {}
            response = ProblemError(error.status, _DETAILS.get(error.status, error.reason), headers=allow).response()
        if not response.prepared:
            response.headers.update(SECURITY_HEADERS)
        return response

    def _enter(self, request: web.Request, token: str) -> web.Response:
        """Turn the token of a link into a cookie, so that it stays in no address bar."""
        if not _is_same(request.query["token"], token):
            raise ProblemError(401, "this is not the sandbox's token")
        entered = web.Response(status=303, headers={hdrs.LOCATION: "/"})
        entered.set_cookie(_cookie(request), token, httponly=True, samesite="Strict")
        return entered

    def _check(self, request: web.Request) -> None:
        if self._token is None and not is_loopback(_host(request)):
            raise ProblemError(403, "the Host header must name loopback: 127.0.0.1, [::1] or localhost")
        if self._token is not None and not self._knows(request, self._token):
            raise ProblemError(401, "the sandbox's token is needed", headers={hdrs.WWW_AUTHENTICATE: "Bearer"})
        if request.method not in _READING:
            origin = request.headers.get(hdrs.ORIGIN)
            is_ours = origin is None or origin.partition("://")[2] == request.headers.get(hdrs.HOST)
            if not is_ours or request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
                raise ProblemError(403, "the request comes from another web page")

    @staticmethod
    def _knows(request: web.Request, token: str) -> bool:
        scheme, _, bearer = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else request.cookies.get(_cookie(request), "")
        return _is_same(given, token)


def _is_same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), token.encode())


def _cookie(request: web.Request) -> str:
    return f"nxotp_sandbox_{request.url.port}"  # browsers send a cookie to every port of a host


def _host(request: web.Request) -> str:
    try:
        return URL(f"http://{request.headers.get(hdrs.HOST, '')}").host or ""
    except ValueError:
        return ""
