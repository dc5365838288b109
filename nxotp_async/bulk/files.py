"""Reading messages from CSV and NDJSON files: row by row, in bounded memory, each row with its line."""

import csv
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import attrs
import orjson

from ..errors import InputFileError, InvalidMessageError, without_frames
from ..messages import OtpMessage
from .columns import fields_of, holds_results, parse_message

__all__ = ["FileFormat", "MessageFile", "Row", "json_object", "open_messages"]

MAX_LINE_BYTES: Final = 1 << 20


class FileFormat(StrEnum):
    """How rows are written."""

    CSV = "csv"
    NDJSON = "ndjson"


_FORMAT_OF_SUFFIX: Final = {
    ".csv": FileFormat.CSV,
    ".tsv": FileFormat.CSV,
    ".txt": FileFormat.CSV,
    ".ndjson": FileFormat.NDJSON,
    ".jsonl": FileFormat.NDJSON,
}


@attrs.frozen
class Row:
    """One row of a file: a message, or the reason why it is none.

    Attributes:
        line: The line it begins on, from 1.
        message: The message, or ``None``.
        extra: The columns that are no field of a message.
        problem: Why it is no message; empty where it is one.
        raw: What stands in the file: the cells of a CSV row, the text of an NDJSON line.
    """

    line: int
    message: OtpMessage | None
    extra: Mapping[str, Any] = attrs.field(repr=False)
    problem: str
    raw: list[str] | str = attrs.field(repr=False)


class MessageFile:
    """The rows of an open file. Iterating over them reads it, once.

    Attributes:
        name: What to call it.
        format: How its rows are written.
        columns: The column names of a CSV file; empty for NDJSON.
    """

    def __init__(self, stream: BinaryIO, name: str, file_format: FileFormat) -> None:
        self.name = name
        self.format = file_format
        self.columns: list[str] = []
        self._stream = stream
        self._line = 0  # the last one read
        self._row_line = 1  # where the current row begins
        self._row_length = 0  # in characters
        if file_format is FileFormat.CSV:
            self._cells = self._read_header()

    def __iter__(self) -> Iterator[Row]:
        """Read the rows.

        Raises:
            InputFileError: The file is refused; the text names the line.
        """
        failure = None
        try:
            yield from self._csv_rows() if self.format is FileFormat.CSV else self._ndjson_rows()
        except InputFileError as error:
            failure = without_frames(error)
        if failure is not None:
            raise failure

    # ------------------------------------------------------------------------------------------ lines

    def _refuse(self, problem: str, hint: str | None = None, *, line: int | None = None) -> InputFileError:
        line = line or max(self._line, 1)
        return InputFileError(f"{self.name}, line {line}: {problem}", line=line, hint=hint)

    def _refuse_results(self, names: Iterable[str]) -> None:
        if holds_results(names):
            raise self._refuse(
                "is a file of results: its codes are the vendor's, no OTPs",
                "run the file of messages, or resume its ledger",
            )

    def _read_line(self) -> str:
        """Return the next line with its end, or an empty text after the last one."""
        self._line += 1
        try:
            raw = self._stream.readline(MAX_LINE_BYTES + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise self._refuse("the compressed file ends early, or is damaged", "transfer it again") from None
        except OSError as error:
            raise self._refuse(f"cannot be read: {error.strerror or type(error).__name__}") from None
        if len(raw) > MAX_LINE_BYTES:
            raise self._refuse(f"longer than {MAX_LINE_BYTES:,} bytes", "end each row with a line feed")
        if b"\0" in raw:
            raise self._refuse("holds a NUL byte", "save the file as UTF-8; UTF-16 looks like this")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise self._refuse("is not UTF-8", "save the file as UTF-8") from None
        return text.removeprefix("\ufeff") if self._line == 1 else text

    def _lines(self) -> Iterator[str]:
        while line := self._read_line():
            yield line

    # ------------------------------------------------------------------------------------------ CSV

    def _read_header(self) -> "Iterator[list[str]]":
        first = self._read_line()
        while first and not first.strip():
            first = self._read_line()
        if not first:
            raise InputFileError(f"{self.name} is empty", hint=_CSV_EXAMPLE)
        cells = self._read_csv(first)
        names = next(cells, None)
        if names is None:
            raise InputFileError(f"{self.name} is empty", hint=_CSV_EXAMPLE)
        self.columns = [name.strip() or f"column_{place}" for place, name in enumerate(names, start=1)]
        self._refuse_results(self.columns)
        try:
            self._fields = fields_of(self.columns)
        except ValueError as error:
            raise self._refuse(str(error)) from None
        missing = {"to", "content"} - set(self._fields.values())
        if missing:
            # What stands there instead is not repeated: it may be numbers and codes.
            raise self._refuse(f"names no column {' and no column '.join(sorted(missing, reverse=True))}", _CSV_EXAMPLE)
        if len(set(self.columns)) != len(self.columns):
            raise self._refuse("names a column twice", "rename one of them")
        return cells

    def _read_csv(self, first: str) -> Iterator[list[str]]:
        """Yield the cells of each row that is not blank, and keep track of the line it begins on."""
        before = self._line - 1
        reader = csv.reader(chain([first], self._row_lines()), delimiter=_delimiter(first), strict=True)
        while True:
            self._row_line = before + reader.line_num + 1
            self._row_length = 0
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise self._refuse(*_explain(error, self._line > self._row_line), line=self._row_line) from None
            if any(cells):
                yield cells

    def _row_lines(self) -> Iterator[str]:
        """Yield the lines, as long as those of one row are not too long together."""
        for line in self._lines():
            self._row_length += len(line)
            if self._row_length > MAX_LINE_BYTES:
                raise self._refuse(*_NO_END, line=self._row_line)
            yield line

    def _csv_rows(self) -> Iterator[Row]:
        for cells in self._cells:
            if len(cells) != len(self.columns):
                # Its cells may be under the wrong names, so that none of them is kept: one could be the code.
                yield Row(self._row_line, None, {}, f"has {len(cells)} cells, not {len(self.columns)}", cells)
                continue
            values = dict(zip(self.columns, cells, strict=True))
            message, problem = _message_or_problem(values, self._fields)
            extra = {name: cell for name, cell in values.items() if name not in self._fields}
            yield Row(self._row_line, message, extra, problem, cells)

    # ------------------------------------------------------------------------------------------ NDJSON

    def _ndjson_rows(self) -> Iterator[Row]:
        first = True
        for line in self._lines():
            text = line.strip()
            if not text:
                continue
            values = json_object(text)
            if first and values is None:
                raise self._refuse("is no JSON object", "NDJSON has one object a line, and no list around them")
            first = False
            yield self._ndjson_row(values, text)
        if first:
            raise InputFileError(f"{self.name} is empty", hint='a row is {"to": "...", "content": "..."}')

    def _ndjson_row(self, values: dict[str, Any] | None, text: str) -> Row:
        if values is None:
            return Row(self._line, None, {}, "is no JSON object", text)
        self._refuse_results(values)
        try:
            fields = fields_of(values)
        except ValueError as error:
            return Row(self._line, None, {}, str(error), text)
        message, problem = _message_or_problem(values, fields)
        extra = {name: value for name, value in values.items() if name not in fields}
        return Row(self._line, message, extra, problem, text)


def json_object(text: str) -> dict[str, Any] | None:
    """Read an object of NDJSON, or return ``None`` where the text is none."""
    try:
        values = orjson.loads(text)
        if text.count("[") + text.count("{") > _DEEP:
            orjson.dumps(values)  # what is nested too deeply can be read, but not written again
    except (orjson.JSONDecodeError, TypeError):
        return None
    return values if isinstance(values, dict) else None


_DEEP: Final = 200  # brackets
_CSV_EXAMPLE: Final = "the first line must name the columns: to,content and any others"


def _message_or_problem(values: Mapping[str, Any], fields: Mapping[str, str]) -> tuple[OtpMessage | None, str]:
    try:
        return parse_message(values, fields), ""
    except InvalidMessageError as error:
        return None, str(error)


def _delimiter(header: str) -> str:
    """Return what separates the names of the first line: spreadsheets of many countries write semicolons."""
    return max(",;\t|", key=header.count)


_TWICE: Final = 'write a quote inside a quoted cell twice: ""'
_NO_END: Final = ("a quoted cell that begins in this row has no end", _TWICE)


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


# ---------------------------------------------------------------------------------------------- opening


@contextmanager
def open_messages(path: str, file_format: FileFormat | None = None) -> Iterator[MessageFile]:
    """Open a file of messages. What is compressed with gzip is recognised, whatever its name.

    Args:
        path: The file's path; ``-`` is standard input.
        file_format: How its rows are written; by default its name tells.

    Raises:
        InputFileError: It cannot be opened, is of another kind, or is empty.
    """
    name = "standard input" if path == "-" else os.fsencode(Path(path).name or path).decode(errors="replace")
    file_format = file_format or _format_of(path, name)
    try:
        file = io.FileIO(sys.stdin.fileno() if path == "-" else path, closefd=path != "-")
        os.set_blocking(file.fileno(), True)  # what is not there yet would be taken for the end
    except OSError as error:
        raise InputFileError(f"{name} cannot be opened: {error.strerror or 'it is no file'}") from None
    except (ValueError, AttributeError):  # it is closed, or was when this process began
        raise InputFileError(f"{name} cannot be opened: it is closed") from None
    with file:
        failure = None
        try:
            messages = MessageFile(_decompressed(file, path, name), name, file_format)
        except InputFileError as error:
            failure = without_frames(error)
        if failure is not None:
            raise failure
        yield messages


def _format_of(path: str, name: str) -> FileFormat:
    suffix = Path(path.lower().removesuffix(".gz")).suffix
    if suffix not in _FORMAT_OF_SUFFIX:
        raise InputFileError(f"the format of {name} cannot be told from its name", hint="say --format csv or ndjson")
    return _FORMAT_OF_SUFFIX[suffix]


class _Rewound(io.RawIOBase):
    """A file of which the start was read already, and is read again."""

    def __init__(self, start: bytes, rest: io.RawIOBase) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - a writable buffer, as in RawIOBase
        if not self._start:
            return self._rest.readinto(buffer)
        count = min(len(buffer), len(self._start))
        buffer[:count], self._start = self._start[:count], self._start[count:]
        return count


def _decompressed(file: io.FileIO, path: str, name: str) -> BinaryIO:
    start = b""
    try:
        while len(start) < 4 and (more := file.read(4 - len(start))):  # a pipe may bring it byte by byte
            start += more
    except OSError as error:
        raise InputFileError(f"{name} cannot be read: {error.strerror}") from None
    stream = io.BufferedReader(_Rewound(start, file))
    if start.startswith(b"\x1f\x8b"):
        return cast("BinaryIO", gzip.GzipFile(fileobj=stream))
    if path.lower().endswith(".gz") and start:
        raise InputFileError(f"{name} is not compressed with gzip", hint="remove .gz from its name")
    if start.startswith(b"PK\x03\x04"):
        raise InputFileError(f"{name} is a spreadsheet or a zip archive", hint="save it as CSV in UTF-8")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputFileError(f"{name}, line 1: is UTF-16", line=1, hint="save the file as UTF-8")
    return cast("BinaryIO", stream)
