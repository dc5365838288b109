"""Parameters and fields of requests to the API, checked. What is wrong is a problem that names it."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import attrs
import orjson
from aiohttp import web

from ..checks import InvalidValueError, integer, number, text, validate
from ..phone_numbers import parse_number
from .faults import Fault, FaultKind
from .problems import ProblemError

__all__ = [
    "FAULT_FIELDS",
    "MAX_NUMBER",
    "NUMBER",
    "NUMBERS",
    "STATUS",
    "fault_in",
    "field_of",
    "fields_of",
    "integer_in",
    "number_in",
    "query_of",
    "seconds_in",
]

_T = TypeVar("_T")
_REQUIRED: Final[Any] = object()
_E164: Final = re.compile("[1-9][0-9]{6,14}")
_MAX_LATENCY: Final = 60.0  # seconds
_DAY: Final = 86_400  # seconds
_MAX_CODE: Final = 999_999
_MOST_NUMBERS: Final = 100
_STATUSES: Final = ("sent", "delivered", "read", "failed", "deleted")

FAULT_FIELDS: Final = ("kind", "code", "latency", "retry_after", "probability", "to")
MAX_NUMBER: Final = 2**53 - 1  # JavaScript's largest exact integer


def query_of(request: web.Request, *names: str) -> dict[str, str]:
    """Return the parameters of a request; each may be given once."""
    for name in request.query:
        if name not in names:
            raise ProblemError(
                400, f"there is no parameter of this name; those there are: {', '.join(names) or 'none'}", field=name
            )
        if len(request.query.getall(name)) > 1:
            raise ProblemError(400, f"{name} is given more than once", field=name)
    return dict(request.query)


def number_in(query: Mapping[str, str]) -> str | None:
    """Return the phone number of the parameter ``to``, if it is given."""
    if "to" not in query:
        return None
    return _checked("to", NUMBER, re.sub("^ ", "+", query["to"]))  # a + that was not encoded has become a space


def integer_in(
    query: Mapping[str, str], name: str, default: int, *, at_least: int = 0, at_most: int = MAX_NUMBER
) -> int:
    """Return the parameter of this name as an integer."""
    given = query.get(name)
    if given is None:
        return default
    if not re.fullmatch("[0-9]{1,16}", given) or not at_least <= int(given) <= at_most:
        raise ProblemError(400, f"{name} must be an integer from {at_least} to {at_most}", field=name)
    return int(given)


def seconds_in(query: Mapping[str, str], name: str, default: float, *, at_most: float) -> float:
    """Return the parameter of this name as seconds, 0 at least."""
    given = query.get(name)
    if given is None:
        return default
    try:
        value = float(given)
    except ValueError:
        raise ProblemError(400, f"{name} must be a number of seconds", field=name) from None
    return _checked(name, number(at_least=0, at_most=at_most), value)


async def fields_of(request: web.Request, *names: str) -> dict[str, Any]:
    """Return the fields of a request's JSON body."""
    query_of(request)
    if request.content_type != "application/json":
        raise ProblemError(415, "the Content-Type must be application/json")
    try:
        fields = orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise ProblemError(400, f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ProblemError(400, "the body must be a JSON object")
    for name in fields:
        if name not in names:
            raise ProblemError(400, f"there is no field of this name; those there are: {', '.join(names)}", field=name)
    return fields


def field_of(fields: Mapping[str, Any], name: str, check: Callable[[object], _T], default: _T = _REQUIRED) -> _T:
    """Return what the check makes of a field, or the default if it is left out."""
    if name in fields:
        return _checked(name, check, fields[name])
    if default is _REQUIRED:
        raise ProblemError(400, f"{name} is missing", field=name)
    return default


def _checked(name: str, check: Callable[[object], _T], value: object) -> _T:
    def problem(text: str, hint: str | None) -> ProblemError:
        return ProblemError(400, f"{text} ({hint})" if hint else text, field=name)

    return validate(name, check, value, problem)


def _one_of(*values: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if value not in values:
            raise InvalidValueError(f"must be one of {', '.join(values)}")
        return text(value)

    return check


def _numbers(value: object) -> list[int]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MOST_NUMBERS:
        raise InvalidValueError(f"must be an array of 1 to {_MOST_NUMBERS} numbers of callbacks")
    return [_whole(each, at_least=1) for each in value]


def _whole(value: object, *, at_least: int, at_most: int | None = None) -> int:
    """Check for an integer. For JSON, 3.0 is one."""
    whole = integer(at_least=at_least)(int(value) if isinstance(value, float) and value.is_integer() else value)
    if at_most is not None and whole > at_most:
        raise InvalidValueError(f"must be {at_most:,} at most")
    return whole


def _code(value: object) -> int:
    return _whole(value, at_least=-_MAX_CODE, at_most=_MAX_CODE)


def _retry_after(value: object) -> int:
    return _whole(value, at_least=0, at_most=_DAY)


def _number(value: object) -> str:
    # The sandbox takes every number that looks like one, whatever the numbering plan of its country says.
    return value if isinstance(value, str) and _E164.fullmatch(value) else parse_number(value)


NUMBER: Final = _number
"""Check for a phone number, in any notation."""
STATUS: Final = _one_of(*_STATUSES)
"""Check for a status of a message."""
NUMBERS: Final = _numbers
"""Check for numbers of callbacks."""


def fault_in(fields: Mapping[str, Any]) -> Fault:
    """Return the fault that the fields of a request describe."""
    kind = FaultKind(field_of(fields, "kind", _one_of(*FaultKind)))
    latency = field_of(fields, "latency", number(at_least=0, at_most=_MAX_LATENCY), 0.0)
    code = field_of(fields, "code", _code) if "code" in fields else None
    retry_after = field_of(fields, "retry_after", _retry_after) if "retry_after" in fields else None
    has_code = kind in (FaultKind.CODE, FaultKind.META, FaultKind.HTTP)
    if has_code and code is None:
        raise ProblemError(400, f"code is missing: a fault of kind {kind} needs one", field="code")
    if not has_code and code is not None:
        raise ProblemError(400, f"code must be left out: a fault of kind {kind} has none", field="code")
    if kind is not FaultKind.HTTP and retry_after is not None:
        raise ProblemError(400, "retry_after is for a fault of kind http only", field="retry_after")
    if kind is FaultKind.NONE and not latency:
        raise ProblemError(400, "latency must be more than 0: a fault of kind none is only late", field="latency")
    try:
        fault = _fault(kind, code or 0, retry_after)
    except ValueError as error:
        raise ProblemError(400, f"code is wrong: {error}", field="code") from None
    return attrs.evolve(fault, latency=latency)


def _fault(kind: FaultKind, code: int, retry_after: int | None) -> Fault:
    match kind:
        case FaultKind.CODE:
            return Fault.answer(code)
        case FaultKind.META:
            return Fault.meta(code)
        case FaultKind.HTTP:
            return Fault.http(code, retry_after=retry_after)
        case FaultKind.HUGE:
            return Fault.huge()
    return Fault(kind=kind)
