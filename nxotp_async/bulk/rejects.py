"""The rejects file: rows that are no messages, as they were, each with its line and what is wrong with it."""

import os
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO, Final

import orjson

from ..errors import InputFileError
from .columns import Row
from .files import FileFormat, MessageFile
from .formats import csv_line, json_object

__all__ = ["RejectsFile", "rejected_lines"]

_LINE: Final = "rejected_line"
_REASON: Final = "rejected_reason"


def rejected_lines(row: Row) -> list[int]:
    """Return the line that a row of a file of rejects had before, if it is one."""
    line = str(row.extra.get(_LINE, ""))
    return [int(line)] if line.isascii() and line.isdigit() and len(line) < 16 else []


class RejectsFile:
    """A file of the rows that were set aside, in the format of the file they come from.

    It is made, with mode 0600 because codes are in it, when the first row is added, and gets its name by `keep`.
    A file that is there already is left alone: it may have been worked on. The new one gets a number then.
    """

    def __init__(self, path: Path, source: MessageFile) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._source = source
        self._file: IO[str] | None = None

    def add(self, row: Row, problem: str) -> None:
        """Write a row, and what is wrong with it.

        Raises:
            InputFileError: The file cannot be written.
        """
        try:
            file = self._file = self._file or self._create()
            if isinstance(row.raw, str):
                why = {_LINE: row.line, _REASON: problem}
                values = json_object(row.raw)
                kept = {"rejected_text": row.raw} if values is None else values
                file.write(orjson.dumps({**why, **kept, **why}).decode() + "\n")
            else:
                file.write(csv_line([row.line, problem, *self._kept(row.raw)]))
        except OSError as error:
            raise self._unwritable(error) from None

    def _create(self) -> IO[str]:
        self._part.unlink(missing_ok=True)  # one of a process that was killed
        descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        file = os.fdopen(descriptor, "w", encoding="utf-8", newline="")
        if self._source.format is FileFormat.CSV:
            file.write(csv_line([_LINE, _REASON, *self._kept(self._source.columns)]))
        return file

    def _kept(self, cells: list[str]) -> list[str]:
        """Leave out the cells that say why a row was rejected before, where this is a rejects file once more."""
        old = {place for place, name in enumerate(self._source.columns) if name in (_LINE, _REASON)}
        return [cell for place, cell in enumerate(cells) if place not in old]

    def keep(self) -> Path | None:
        """Give the file its name, durably, and return it; ``None`` where no row was added.

        Raises:
            InputFileError: The file cannot be written.
        """
        if self._file is None:
            return None
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            for number in count(1):
                path = self._path if number == 1 else self._path.with_stem(f"{self._path.stem}-{number}")
                if not path.exists():
                    break
            return self._part.rename(path)
        except OSError as error:
            raise self._unwritable(error) from None

    def discard(self) -> None:
        """Remove the file, unless it was kept."""
        if self._file is not None:
            with suppress(OSError):  # what could not be written cannot be now
                self._file.close()
            self._part.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> InputFileError:
        return InputFileError(
            f"the rejects file {self._path} cannot be written: {error.strerror}", hint="nothing was loaded or sent"
        )
