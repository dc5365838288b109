"""Which column is which field of a message, and how the cells of a row become one."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import attrs

from ..errors import InvalidMessageError, InvalidReason
from ..messages import OtpMessage

__all__ = ["Row", "fields_of", "holds_results", "row_of"]

_ALIASES: Final = {
    "to": ("phone", "phone_number", "number", "mobile", "msisdn", "recipient"),
    "content": ("code", "otp", "message", "text"),
    "language_code": ("language", "lang"),
    "expires_at": ("expires", "expiry"),
}


@lru_cache(maxsize=512)
def _fold(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())


_FIELDS: Final = {
    _fold(name): field
    for field in (*(field.name for field in attrs.fields(OtpMessage)), "default_region")
    for name in (field, *_ALIASES.get(field, ()))
}
_COMPUTED = re.compile(r"\d+\.0+|\d[.,]?\d*[eE]\+?\d+")  # as programs write numbers, not as people write them
_RESULT: Final = {_fold(name) for name in ("status", "code", "meta_code")}


@attrs.frozen
class Row:
    """One row of a file: a message, or what is wrong with it.

    Attributes:
        line: The line it begins on, from 1.
        message: The message, or ``None`` where the row is not a valid one.
        extra: The columns that are no field of a message.
        problem: What is wrong with it; empty where nothing is.
        raw: What stands in the file: the cells of a CSV row, the text of an NDJSON line.
    """

    line: int
    message: OtpMessage | None
    extra: Mapping[str, Any] = attrs.field(repr=False)
    problem: str
    raw: list[str] | str = attrs.field(repr=False)


def holds_results(names: Iterable[str]) -> bool:
    """Return whether these columns are those of an export, whose ``code`` is the vendor's and no OTP."""
    return _RESULT.issubset(map(_fold, names))


def fields_of(names: Iterable[str]) -> dict[str, str]:
    """Return the message field behind each column name, whatever its letter case and punctuation; others are absent.

    Raises:
        ValueError: Two columns are the same field.
    """
    found: dict[str, str] = {}
    for name in names:
        field = _FIELDS.get(_fold(name))
        if field is not None:
            if field in found.values():
                raise ValueError(f"two columns are the message's {field!r}; rename one of them")
            found[name] = field
    return found


def row_of(
    line: int,
    values: Mapping[str, Any],
    fields: Mapping[str, str],
    raw: list[str] | str,
    default_region: str | None,
) -> Row:
    """Make the row of its cells by column name, given what `fields_of` returned for these names.

    Args:
        line: The line that the row begins on.
        values: The cells.
        fields: The field of a message behind each name.
        raw: What stands in the file.
        default_region: Whose national numbers to expect, unless the row says so itself.
    """
    extra = {name: value for name, value in values.items() if name not in fields}
    try:
        return Row(line, _message(values, fields, default_region), extra, "", raw)
    except InvalidMessageError as error:
        return Row(line, None, extra, str(error), raw)


def _message(values: Mapping[str, Any], fields: Mapping[str, str], default_region: str | None) -> OtpMessage:
    given: dict[str, Any] = {
        field: cell for name, field in fields.items() if (cell := _cell(values[name], field)) is not None
    }
    for field in ("to", "content"):
        if field not in given:
            raise InvalidMessageError(f"{field} is missing", field=field, reason=InvalidReason.MISSING)
    return OtpMessage(**{"default_region": default_region, **given})


def _cell(value: object, field: str) -> object:
    """Return the value of a field, or ``None`` for an empty cell."""
    if isinstance(value, str):
        if field != "content":
            value = value.strip()
        if not value:
            return None
    match field:
        case "to" if type(value) is int:
            return str(value)
        case "to" if isinstance(value, str) and _COMPUTED.fullmatch(value):
            raise InvalidMessageError(
                "to was taken for a decimal number by the program that wrote it, and may have lost digits",
                field="to",
                reason=InvalidReason.INVALID_NUMBER,
                hint="let that program treat the column as text",
            )
        case "api_type" if isinstance(value, str) and value in ("0", "1"):
            return int(value)
        case "expires_at":
            return _instant(value)
    return value


_FIRST_SECONDS = 1_000_000_000  # the year 2001
_FIRST_MILLISECONDS = 100_000_000_000  # as seconds, the year 5138


def _instant(value: object) -> object:
    """Read a time in ISO 8601, or in seconds or milliseconds since the epoch."""
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
            return datetime.fromisoformat(value)
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            return value
        seconds = float(value)
        if seconds >= _FIRST_SECONDS:
            return datetime.fromtimestamp(seconds / 1000 if seconds >= _FIRST_MILLISECONDS else seconds, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise InvalidMessageError(
        "expires_at is no time",
        field="expires_at",
        reason=InvalidReason.INVALID_TIME,
        hint="2030-12-31T23:59:00+02:00, or seconds since the epoch",
    )
