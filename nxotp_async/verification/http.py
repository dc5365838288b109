"""A login over HTTP, without a framework: what is asked, what is answered, and nothing that a cache may keep."""

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from inspect import iscoroutinefunction
from typing import Any, Final, Generic, TypeVar

import attrs
import orjson

from ..checks import InvalidValueError, optional, text, validate
from ..errors import (
    ConfigurationError,
    InvalidMessageError,
    InvalidReason,
    NxOtpError,
    RefusalReason,
    VerificationRefusedError,
    sensitive_variables,
)
from ..messages import check_field
from ..phone_numbers import parse_region
from . import CheckStatus, Verification, Verifier
from .numbers import parse_ip

__all__ = ["ACTIONS", "MAX_BODY", "NO_STORE", "Answer", "Endpoints", "problem"]

_log = logging.getLogger("nxotp_async")

ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {"start": ("number",), "resend": ("id",), "check": ("id", "code")}
"""The endpoints, and the fields that each must be given."""
MAX_BODY: Final = 4096  # bytes
NO_STORE: Final = ("Cache-Control", "no-store")
_LIMIT: Final = "limit"  # which limit it is would tell an attacker what to change

Request = TypeVar("Request")
Response = TypeVar("Response")


@attrs.frozen
class Answer:
    """What is answered.

    Attributes:
        status: The HTTP status.
        content: The JSON document.
    """

    status: int
    content: Mapping[str, object] = attrs.field(repr=False)

    @property
    def body(self) -> bytes:
        """The body of the answer."""
        return orjson.dumps(self.content)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        kind = "problem+json" if self.status >= HTTPStatus.BAD_REQUEST else "json"
        headers = dict([NO_STORE, ("Content-Type", f"application/{kind}")])
        if retry_after := self.content.get("retry_after"):
            headers["Retry-After"] = str(retry_after)
        return headers


class Endpoints(Generic[Request, Response]):
    """The endpoints ``start``, ``resend`` and ``check``, for the requests and the responses of a framework.

    Args:
        on_approved: Called with the request and the verified number, as E.164 digits.
        region: Whose national numbers to expect where a request does not say it: the two letters of a country.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        on_approved: Callable[[Request, str], Awaitable[Response | dict[str, Any]]],
        region: str | None,
    ) -> None:
        validate("on_approved", _async_function, on_approved, ConfigurationError)
        self._on_approved = on_approved
        self._region = validate("region", optional(parse_region), region, ConfigurationError)
        self._has_warned = False

    async def respond(
        self, action: str, verifier: Verifier, request: Request, *, content_type: str, body: bytes, ip: str | None
    ) -> Answer | Response:
        """Return the answer, or what the application answers after an approval.

        Args:
            action: One of `ACTIONS`.
            verifier: What does it.
            request: The framework's request, for ``on_approved``.
            content_type: The request's header, or an empty text.
            body: The request's body, or as much of it as is longer than `MAX_BODY`.
            ip: The address of the person, as the server knows it.
        """
        answer = await self._answer(action, verifier, content_type, body, ip)
        if isinstance(answer, Answer):
            return answer
        del body  # error reporters show the local variables of this frame if the application's function raises
        result = await self._on_approved(request, answer)
        return Answer(HTTPStatus.OK, result) if isinstance(result, dict) else result

    @sensitive_variables
    async def _answer(
        self, action: str, verifier: Verifier, content_type: str, body: bytes, ip: str | None
    ) -> Answer | str:
        """Return the answer, or the number that was verified."""
        if content_type.partition(";")[0].strip().lower() != "application/json":
            return _problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not_json")
        if len(body) > MAX_BODY:
            return _problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large")
        try:
            fields = orjson.loads(body)
        except orjson.JSONDecodeError:
            fields = None
        if not isinstance(fields, dict):
            return _problem(HTTPStatus.BAD_REQUEST, "not_json")
        try:
            required = [_required(fields, name) for name in ACTIONS[action]]
            if action == "start":
                return await self._start(verifier, fields, self._known(ip))
            if action == "resend":
                return _pending(verifier, await verifier.resend(*required))
            check = await verifier.check(*required)
        except NxOtpError as error:
            return problem(error)
        left = {"checks_left": check.checks_left} if check.status is CheckStatus.WRONG else {}
        return check.number or _problem(HTTPStatus.FORBIDDEN, check.status, **left)

    async def _start(self, verifier: Verifier, fields: Mapping[str, Any], ip: str | None) -> Answer:
        region, language_code = fields.get("region", self._region), fields.get("language_code")
        started = await verifier.start(fields["number"], region=region, language_code=language_code, ip=ip)
        return _pending(verifier, started)

    def _known(self, ip: str | None) -> str | None:
        """Return the address, or ``None`` if the server listens on a Unix socket, for example."""
        try:
            return parse_ip(ip)
        except InvalidValueError:
            if not self._has_warned:
                _log.warning("the server does not tell the addresses of its clients: ip_per_hour limits nobody")
                self._has_warned = True
            return None


def problem(error: NxOtpError) -> Answer:
    """Return the problem details (RFC 9457) of an error of a `Verifier`.

    Args:
        error: What it raised.
    """
    retry_after = None if error.retry_after is None else max(1, math.ceil(error.retry_after))
    if isinstance(error, InvalidMessageError):
        detail = str(error)  # contains no value
        return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, error.reason, field=error.field, detail=detail)
    if isinstance(error, VerificationRefusedError) and retry_after is None:
        return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, error.reason)
    if isinstance(error, VerificationRefusedError):
        reason = error.reason if error.reason is RefusalReason.TOO_SOON else _LIMIT
        return _problem(HTTPStatus.TOO_MANY_REQUESTS, reason, retry_after=retry_after)
    _log.error("a verification failed: %s: %s", type(error).__name__, error)
    more = {} if retry_after is None else {"retry_after": retry_after}
    return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", **more)


def _problem(status: HTTPStatus, reason: str, **more: object) -> Answer:
    return Answer(status, {"title": status.phrase, "status": int(status), "reason": reason, **more})


def _pending(verifier: Verifier, verification: Verification) -> Answer:
    """Tell seconds, and not times: the browser's clock may be wrong."""
    now, resend_at = verifier.clock.time(), verification.resend_at
    content = {
        "id": verification.id,
        "expires_in": math.ceil(verification.expires_at.timestamp() - now),
        "resend_in": None if resend_at is None else math.ceil(resend_at.timestamp() - now),
        "checks_left": verification.checks_left,
    }
    return Answer(HTTPStatus.OK, content)


def _required(fields: Mapping[str, Any], name: str) -> str:
    if name not in fields:
        raise InvalidMessageError(f"{name} is missing", field=name, reason=InvalidReason.MISSING)
    return check_field(name, text, fields[name])


def _async_function(value: object) -> object:
    if not (iscoroutinefunction(value) or iscoroutinefunction(getattr(value, "__call__", None))):  # noqa: B004 - the method itself
        raise InvalidValueError("must be an async function of a request and a number")
    return value
