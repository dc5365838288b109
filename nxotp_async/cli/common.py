"""What the subcommands share: exit codes, running a coroutine, failing, asking."""

import asyncio
import io
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn, TextIO, TypeVar, cast

import click
import orjson
from rich.console import Console

__all__ = [
    "EXIT_CONFIGURATION",
    "EXIT_INTERRUPTED",
    "EXIT_REJECTED",
    "EXIT_UNKNOWN",
    "EXIT_USAGE",
    "ask_content",
    "ask_key",
    "fail",
    "print_data",
    "print_json",
    "printable",
    "run",
    "stderr",
]

EXIT_REJECTED: Final = 1
EXIT_USAGE: Final = 2
EXIT_CONFIGURATION: Final = 3
EXIT_UNKNOWN: Final = 6
EXIT_INTERRUPTED: Final = 130

_T = TypeVar("_T")


class _Stderr(io.TextIOBase):
    """Standard error, which may be closed or go away: what is told there is no reason to end a run."""

    def write(self, text: str) -> int:
        self._try(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def isatty(self) -> bool:
        return self._stream().isatty()

    def fileno(self) -> int:
        return self._stream().fileno()

    @staticmethod
    def _stream() -> TextIO:
        # While rich shows progress, it has put itself in the place of sys.stderr.
        return cast("TextIO", getattr(sys.stderr, "rich_proxied_file", sys.stderr))

    def _try(self, write: Callable[[TextIO], object]) -> None:
        stream = self._stream()
        try:
            write(stream)
        except OSError:
            # What is left in the buffer would fail once more, and change the exit code, when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


stderr = Console(file=cast("TextIO", _Stderr()), highlight=False)


def run(main: Coroutine[Any, Any, _T], *, interrupted: str = "interrupted") -> _T:
    """Run the coroutine, on uvloop where it is installed. Ctrl-C ends it cleanly, with this text and exit code 130."""
    loop_factory: Callable[[], asyncio.AbstractEventLoop]
    try:
        from uvloop import new_event_loop as loop_factory  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        loop_factory = asyncio.new_event_loop
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(main)
    except KeyboardInterrupt:
        fail(interrupted, EXIT_INTERRUPTED)


def fail(message: object, code: int) -> NoReturn:
    """Say what went wrong, and exit."""
    stderr.print(f"nxotp: {message}", markup=False, soft_wrap=True)
    sys.exit(code)


def print_json(value: object) -> None:
    """Print the value to stdout as indented JSON."""
    print_data(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def print_data(text: str | bytes) -> bool:
    """Print to stdout. Where that fails, say so, and return false: what an exit code tells has happened nonetheless."""
    try:
        try:
            click.echo(text)
        except UnicodeEncodeError:
            click.echo(str(text).encode(sys.stdout.encoding, "replace"))
    except OSError as error:
        stderr.print(f"nxotp: cannot write to standard output: {error.strerror}", markup=False)
        # What is left in the buffer would fail once more, and change the exit code, when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def printable(text: str) -> str:
    """Return the text as one line, with what is no letter made visible, and nothing in it that steers a terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def ask_key(name: str) -> str | None:
    """Return a key of the account from its variable, or ask for it where somebody sits at the terminal."""
    given = os.environ.get(f"NXOTP_{name.upper()}")
    return given if given or not _at_terminal() else _prompt(name.replace("_", " ").capitalize())


def ask_content() -> str:
    """Read the content of a message from standard input, without echo where somebody sits at the terminal."""
    if _at_terminal():
        return _prompt("Content")
    try:
        content = sys.stdin.read(10_000).strip() if sys.stdin else ""
    except UnicodeDecodeError:
        fail("the content on standard input is not UTF-8", EXIT_USAGE)
    if not content:
        fail("the content is expected on standard input, which is empty", EXIT_USAGE)
    return content


def _at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _prompt(label: str) -> str:
    return str(click.prompt(label, hide_input=True, err=True))
