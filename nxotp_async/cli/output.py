"""Data on standard output, and everything else on standard error."""

import io
import os
import re
import sys
from typing import IO, Any, NoReturn, TextIO, cast

import click
import orjson
from rich.console import Console
from rich.table import Table

from ..errors import NxOtpError
from ..settings import SETTINGS
from .exit_codes import ExitCode

__all__ = [
    "discard",
    "error_fields",
    "fail",
    "print_data",
    "print_error",
    "print_json",
    "print_line",
    "print_note",
    "print_tables",
    "printable",
    "stderr",
]

_WIDTH = 100  # characters, where a table goes to no terminal
_TYPES = {
    ExitCode.FAILURE: "Failure",
    ExitCode.USAGE: "UsageError",
    ExitCode.CONFIGURATION: "ConfigurationError",
    ExitCode.INTERRUPTED: "Interrupted",
}


class _Stderr(io.TextIOBase):
    """Standard error, which may be closed or full: that is no reason to end a run."""

    def write(self, text: str) -> int:
        stream = self._stream()
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            discard(stream)
        return len(text)

    def isatty(self) -> bool:
        return self._stream().isatty()

    @staticmethod
    def _stream() -> TextIO:
        # While rich shows progress, it has put itself in the place of sys.stderr.
        return cast("TextIO", getattr(sys.stderr, "rich_proxied_file", sys.stderr))


stderr = Console(file=cast("TextIO", _Stderr()), highlight=False)


def discard(stream: IO[Any]) -> None:
    """Let a stream that cannot be written lead to the null device.

    What is left in its buffer would fail once more when Python ends, and change the exit code.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_note(text: str) -> None:
    """Print a line to standard error."""
    stderr.print(_by_variables(text), markup=False, soft_wrap=True)


def _by_variables(text: str) -> str:
    """Return an error with the variables of settings in place of the arguments of `OtpClient`."""
    return re.sub(r"\b(?:base_url|max_concurrency|rate_limit)\b", lambda name: SETTINGS[name[0]].variable, text)


def print_error(error: object) -> None:
    """Print an error to standard error, or a warning."""
    print_note(f"nxotp: {error}")


def fail(error: object, code: ExitCode) -> NoReturn:
    """Print an error, and exit. With --json among the arguments, it is a line of JSON on standard output."""
    context = click.get_current_context(silent=True)
    if context is not None and context.find_root().obj == "json":
        print_data(orjson.dumps({"error": error_fields(error, code)}))
    else:
        print_error(error)
    sys.exit(code)


def error_fields(error: object, code: ExitCode = ExitCode.FAILURE) -> dict[str, object]:
    """Return an error as programs read it. One that is a text only has the type of its exit code."""
    message = str(error)
    field = getattr(error, "field", None)
    if isinstance(error, NxOtpError):
        message = _by_variables(str(error.args[0]))  # without the hint
    elif isinstance(error, click.ClickException):
        message = error.format_message()
        parameter = getattr(error, "param", None)
        field = parameter.opts[-1] if parameter else getattr(error, "option_name", None)
    return {
        "type": _TYPES[code] if isinstance(error, str | click.UsageError) else type(error).__name__,
        "message": message,
        "hint": _by_variables(getattr(error, "hint", None) or "") or None,
        "field": field or None,
        "code": getattr(error, "code", None),
        "cus_message_id": getattr(error, "cus_message_id", None),
    }


def print_data(text: str | bytes) -> bool:
    """Print to standard output. If that fails, print the error and return false: the result stays what it is."""
    try:
        try:
            click.echo(text)
        except UnicodeEncodeError:
            click.echo(str(text).encode(sys.stdout.encoding, "replace"))
    except OSError as error:
        print_error(f"cannot write to standard output: {error.strerror}")
        discard(sys.stdout)
        return False
    return True


def print_json(value: object) -> None:
    """Print the value to standard output as indented JSON."""
    print_data(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def print_line(value: object) -> bool:
    """Print the value to standard output as one line of JSON, as `print_data` does."""
    return print_data(orjson.dumps(value))


def print_tables(*parts: Table | str) -> bool:
    """Print tables, and lines of text between them, as `print_data` does."""
    text, is_terminal = io.StringIO(), sys.stdout.isatty()
    width = None if is_terminal else _WIDTH
    console = Console(file=text, force_terminal=is_terminal, width=width, highlight=False, markup=False)
    for part in parts:
        for column in part.columns if isinstance(part, Table) else ():
            column.overflow = "fold"  # a narrow terminal must not cut off what is copied from it
        console.print(part)
    return print_data("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def printable(text: str) -> str:
    """Return the text as one line, in which characters that control a terminal are escaped."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
