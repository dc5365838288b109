"""The lines of an input file, in bounded memory."""

import gzip
import zlib
from typing import BinaryIO, Final, Self

from ..errors import InputFileError

__all__ = ["MAX_LINE_BYTES", "Lines"]

MAX_LINE_BYTES: Final = 1 << 20


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
            raw = self._stream.readline(MAX_LINE_BYTES + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise self.refusal("the compressed file ends early, or is damaged", "transfer it again") from None
        except OSError as error:
            raise self.refusal(f"cannot be read: {error.strerror or type(error).__name__}") from None
        if not raw:
            raise StopIteration
        if len(raw) > MAX_LINE_BYTES:
            raise self.refusal(f"longer than {MAX_LINE_BYTES:,} bytes", "end each row with a line feed")
        if b"\0" in raw:
            raise self.refusal("holds a NUL byte", "save the file as UTF-8; UTF-16 looks like this")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise self.refusal("is not UTF-8", "save the file as UTF-8") from None
        return text.removeprefix("\ufeff") if self.number == 1 else text
