"""Files of messages, CSV and NDJSON: read row by row, in bounded memory, each row with its line."""

import gzip
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import attrs

from ..errors import InputFileError, sensitive_variables, without_frames
from .columns import Row
from .formats import Lines, read_csv, read_ndjson

__all__ = ["FileFormat", "MessageFile", "open_messages", "read_messages"]


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
class MessageFile:
    """The rows of an open file. Iterating over them reads it, once.

    Attributes:
        columns: The column names of a CSV file; empty for NDJSON.
    """

    name: str
    format: FileFormat
    columns: list[str]
    _rows: Iterator[Row] = attrs.field(repr=False)

    def __iter__(self) -> Iterator[Row]:
        """Read the rows.

        Raises:
            InputFileError: The file is refused; the text names the line.
        """
        try:
            yield from self._rows
            return
        except InputFileError as error:
            failure = without_frames(error)
        raise failure


@contextmanager
def open_messages(
    path: str, file_format: FileFormat | None = None, *, default_region: str | None = None
) -> Iterator[MessageFile]:
    """Open a file of messages. What is compressed with gzip is recognised, whatever its name.

    Args:
        path: The file's path; ``-`` is standard input.
        file_format: How its rows are written; by default its name tells.
        default_region: Whose national numbers to expect in rows that do not say it themselves, in a column
            ``default_region``: two capital letters, as `OtpMessage` takes them.

    Raises:
        InputFileError: It cannot be opened, is of another kind, or is empty.
    """
    name = "standard input" if path == "-" else os.fsencode(Path(path).name or path).decode(errors="replace")
    file_format = file_format or _FORMAT_OF_SUFFIX.get(Path(path.lower().removesuffix(".gz")).suffix)
    if file_format is None:
        raise InputFileError(f"the format of {name} cannot be told from its name", hint="say --format csv or ndjson")
    try:
        file = io.FileIO(sys.stdin.fileno() if path == "-" else path, closefd=path != "-")
        os.set_blocking(file.fileno(), True)  # what is not there yet would be taken for the end
    except OSError as error:
        raise InputFileError(f"{name} cannot be opened: {error.strerror or 'it is no file'}") from None
    except (ValueError, AttributeError):  # it is closed, or was when this process began
        raise InputFileError(f"{name} cannot be opened: it is closed") from None
    with file:
        yield read_messages(_decompressed(file, path, name), name, file_format, default_region=default_region)


@sensitive_variables
def read_messages(
    stream: BinaryIO, name: str, file_format: FileFormat, *, default_region: str | None = None
) -> MessageFile:
    """Read the beginning of a stream of rows, as far as it names the columns. Errors call it by the name.

    Raises:
        InputFileError: It is empty, or its first line does not name the columns of messages.
    """
    lines = Lines(stream, name)
    if file_format is FileFormat.NDJSON:
        return MessageFile(name, file_format, [], read_ndjson(lines, default_region))
    return MessageFile(name, file_format, *read_csv(lines, default_region))


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
