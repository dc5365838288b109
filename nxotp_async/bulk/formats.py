"""CSV and NDJSON: reading rows of messages from lines, in bounded memory, and writing rows of CSV."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Final, Self

import orjson

from ..errors import InputFileError
from .columns import Row, fields_of, holds_results, row_of

__all__ = ["Lines", "csv_line", "json_object", "read_csv", "read_ndjson"]

_MAX_LINE_BYTES: Final = 1 << 20
_DEEP: Final = 200  # brackets
_EXAMPLE: Final = "the first line must name the columns: to,content and any others"
_TWICE: Final = 'write a quote inside a quoted cell twice: ""'
_NO_END: Final = ("a quoted cell that begins in this row has no end", _TWICE)


class Lines:
    """The lines of a file with their ends, each checked when it is read.

    Iterating raises `InputFileError` where one is not UTF-8, is too long, or cannot be read.

    Attributes:
        name: What to call the file.
        number: The line that was read last, from 1; 0 before the first.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name = name
        self.number = 0
        self._stream = stream

    def refusal(self, problem: str, hint: str | None = None, *, line: int | None = None) -> InputFileError:
        """Return the error that says what is wrong with a line, by default the one that was read last."""
        line = line or max(self.number, 1)
        return InputFileError(f"{self.name}, line {line}: {problem}", line=line, hint=hint)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        self.number += 1
        try:
            raw = self._stream.readline(_MAX_LINE_BYTES + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise self.refusal("the compressed file ends early, or is damaged", "transfer it again") from None
        except OSError as error:
            raise self.refusal(f"cannot be read: {error.strerror or type(error).__name__}") from None
        if not raw:
            raise StopIteration
        if len(raw) > _MAX_LINE_BYTES:
            raise self.refusal(f"longer than {_MAX_LINE_BYTES:,} bytes", "end each row with a line feed")
        if b"\0" in raw:
            raise self.refusal("holds a NUL byte", "save the file as UTF-8; UTF-16 looks like this")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise self.refusal("is not UTF-8", "save the file as UTF-8") from None
        return text.removeprefix("\ufeff") if self.number == 1 else text

    def refuse_results(self, names: Iterable[str]) -> None:
        """Refuse the file where these columns are those of an export."""
        if holds_results(names):
            raise self.refusal(
                "is a file of results: its codes are the vendor's, no OTPs",
                "run the file of messages, or resume its ledger",
            )


# ---------------------------------------------------------------------------------------------- CSV


def read_csv(lines: Lines, default_region: str | None) -> tuple[list[str], Iterator[Row]]:
    """Read the line with the names of the columns. Return them, and the rows that follow, which are read one by one."""
    first = next((line for line in lines if line.strip()), "")
    rows = _cells(first, lines)
    _, names = next(rows, (0, None))
    if names is None:
        raise InputFileError(f"{lines.name} is empty", hint=_EXAMPLE)
    columns = [name.strip() or f"column_{place}" for place, name in enumerate(names, start=1)]
    lines.refuse_results(columns)
    try:
        fields = fields_of(columns)
    except ValueError as error:
        raise lines.refusal(str(error)) from None
    missing = {"to", "content"} - set(fields.values())
    if missing:
        # What stands there instead is not repeated: it may be numbers and codes.
        raise lines.refusal(f"names no column {' and no column '.join(sorted(missing, reverse=True))}", _EXAMPLE)
    if len(set(columns)) != len(columns):
        raise lines.refusal("names a column twice", "rename one of them")
    return columns, _rows(rows, columns, fields, default_region)


def _rows(
    rows: Iterable[tuple[int, list[str]]], columns: list[str], fields: Mapping[str, str], default_region: str | None
) -> Iterator[Row]:
    for line, cells in rows:
        if len(cells) == len(columns):
            yield row_of(line, dict(zip(columns, cells, strict=True)), fields, cells, default_region)
        else:
            # Its cells may be under the wrong names, so that none of them is kept: one could be the code.
            yield Row(line, None, {}, f"has {len(cells)} cells, not {len(columns)}", cells)


def _cells(first: str, lines: Lines) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that is not blank, with the line that it begins on."""
    begins_on, length = lines.number, 0

    def of_rows() -> Iterator[str]:
        """Yield the lines, as long as those of one row are not too long together."""
        nonlocal length
        yield first
        for line in lines:
            length += len(line)
            if length > _MAX_LINE_BYTES:
                raise lines.refusal(*_NO_END, line=begins_on)
            yield line

    delimiter = max(",;\t|", key=first.count)  # spreadsheets of many countries write semicolons
    reader = csv.reader(of_rows(), delimiter=delimiter, strict=True)
    before = lines.number - 1
    while True:
        begins_on, length = before + reader.line_num + 1, 0
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise lines.refusal(*_explain(error, lines.number > begins_on), line=begins_on) from None
        if any(cells):
            yield begins_on, cells


def _explain(error: csv.Error, goes_on: bool) -> tuple[str, str | None]:
    """Say what is wrong with a row, given whether it goes on below its first line."""
    text = str(error)
    if "unexpected end of data" in text or ("field limit" in text and goes_on):
        return _NO_END
    if "field limit" in text:
        return f"a cell is longer than {csv.field_size_limit():,} characters", None
    if "expected after" in text:
        return "a quoted cell goes on after its closing quote", _TWICE
    if "new-line" in text:
        return "holds a carriage return outside of quotes", "end each row with a line feed"
    return "is no CSV row", None


def csv_line(cells: Iterable[object]) -> str:
    """Return one row of CSV, ended by a line feed."""
    # Python quotes a lone carriage return only where it is a part of the row's own end.
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


# ---------------------------------------------------------------------------------------------- NDJSON


def read_ndjson(lines: Lines, default_region: str | None) -> Iterator[Row]:
    """Read the rows; a file whose first line is not an object is refused."""
    is_first = True
    for line in lines:
        text = line.strip()
        if not text:
            continue
        values = json_object(text)
        if is_first and values is None:
            raise lines.refusal("is no JSON object", "NDJSON has one object a line, and no list around them")
        lines.refuse_results(values or ())
        is_first = False
        yield _row(lines.number, values, text, default_region)
    if is_first:
        raise InputFileError(f"{lines.name} is empty", hint='a row is {"to": "...", "content": "..."}')


def _row(line: int, values: dict[str, Any] | None, text: str, default_region: str | None) -> Row:
    if values is None:
        return Row(line, None, {}, "is no JSON object", text)
    try:
        fields = fields_of(values)
    except ValueError as error:
        return Row(line, None, {}, str(error), text)
    return row_of(line, values, fields, text, default_region)


def json_object(text: str) -> dict[str, Any] | None:
    """Return the object that a line of NDJSON holds, or ``None`` where it holds something else."""
    try:
        values = orjson.loads(text)
        if text.count("[") + text.count("{") > _DEEP:
            orjson.dumps(values)  # what is nested too deeply can be read, but not written again
    except (orjson.JSONDecodeError, TypeError):
        return None
    return values if isinstance(values, dict) else None
