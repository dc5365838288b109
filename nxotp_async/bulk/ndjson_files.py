"""NDJSON: reading rows of messages, one JSON object a line."""

from collections.abc import Iterator
from typing import Any, Final

import orjson

from ..errors import InputFileError
from .columns import RESULTS_ARE_NO_INPUT, Row, fields_of, holds_results, row_of
from .lines import Lines

__all__ = ["json_object", "read_ndjson"]

_DEEP: Final = 200  # brackets


def read_ndjson(lines: Lines) -> Iterator[Row]:
    """Read the rows.

    Raises:
        InputFileError: The first line is not an object, or there is none.
    """
    is_first = True
    for line in lines:
        text = line.strip()
        if not text:
            continue
        values = json_object(text)
        if is_first and values is None:
            raise lines.refusal("is no JSON object", "NDJSON has one object a line, and no list around them")
        if values is not None and holds_results(values):
            raise lines.refusal(*RESULTS_ARE_NO_INPUT)
        is_first = False
        yield _row(lines.number, values, text)
    if is_first:
        raise InputFileError(f"{lines.name} is empty", hint='a row is {"to": "...", "content": "..."}')


def _row(line: int, values: dict[str, Any] | None, text: str) -> Row:
    if values is None:
        return Row(line, None, {}, "is no JSON object", text)
    try:
        fields = fields_of(values)
    except ValueError as error:
        return Row(line, None, {}, str(error), text)
    return row_of(line, values, fields, text)


def json_object(text: str) -> dict[str, Any] | None:
    """Return the object that a line of NDJSON holds, or ``None`` where it holds something else."""
    try:
        values = orjson.loads(text)
        if text.count("[") + text.count("{") > _DEEP:
            orjson.dumps(values)  # what is nested too deeply can be read, but not written again
    except (orjson.JSONDecodeError, TypeError):
        return None
    return values if isinstance(values, dict) else None
