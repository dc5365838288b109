"""``nxotp bulk export``."""

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from ...bulk import FileFormat, export
from ...bulk.exporting import is_export
from ...bulk.looking import look
from ...phone_numbers import mask_number
from ..exit_codes import ExitCode
from ..output import discard, fail, print_note
from ..parameters import FILE, FILE_FORMAT, ledger_argument
from .remote import ask_run, run_export

__all__ = ["command"]


@click.command("export")
@ledger_argument
@click.option("--format", "file_format", type=FILE_FORMAT, help="Default: by the suffix of --output; otherwise csv.")
@click.option("--output", "-o", type=FILE, help="A file, created with mode 0600. Default: standard output.")
@click.option("--force", is_flag=True, help="Also replace a file that is not an earlier export.")
def command(ledger: Path, file_format: FileFormat | None, output: Path | None, force: bool) -> None:
    """Write one row of results for each row of the input, in its order, with the input's own further columns.

    No row holds a code. Numbers are written in full, but masked on a terminal. An existing output is replaced if it
    is an earlier export in the same format, or empty. If the output cannot be written, the exit code is 2.

    While a run is at work, it writes the rows as they are at the moment: their status may still be queued or sending.
    """
    if file_format is None:
        is_ndjson = output is not None and output.suffix in (".ndjson", ".jsonl")
        file_format = FileFormat.NDJSON if is_ndjson else FileFormat.CSV
    output = None if output == Path("-") else output
    if output is not None:
        _check_replaceable(output, file_format, force)
    show_number = mask_number if output is None and sys.stdout.isatty() else str
    try:
        if (progress := ask_run(ledger, "/progress")) is not None:
            _export_of_run(ledger, file_format, output, masked=show_number is mask_number)
            rows = f"the rows of a run at work, {progress['queued']:,} of them without an outcome yet,"
        else:
            with look(ledger) as opened, _written(output) as file:
                rows = f"{export(opened, file, file_format, show_number=show_number):,} rows"
    except OSError as error:
        if output is None:
            discard(sys.stdout)
        if isinstance(error, BrokenPipeError):  # the reader has had enough
            return
        fail(f"cannot write {output or 'to standard output'}: {error.strerror}", ExitCode.USAGE)
    if output is not None:
        print_note(f"{rows} written to {output}")


def _export_of_run(ledger: Path, file_format: FileFormat, output: Path | None, *, masked: bool) -> None:
    with run_export(ledger, f"format={file_format}{'&masked' if masked else ''}") as texts, _written(output) as file:
        for text in texts:
            file.write(text)


@contextmanager
def _written(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        sys.stdout.flush()
        return
    path = Path(os.path.realpath(path))  # a link stays one
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=path.parent, prefix="export-", suffix=".part", delete=False
    ) as file:
        part = Path(file.name)
        try:
            yield file
            file.close()
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _check_replaceable(output: Path, file_format: FileFormat, force: bool) -> None:
    """Exit if the results would replace something that is not an earlier export."""
    try:
        if not output.exists():
            problem = None
        elif not output.is_file():
            problem = f"cannot write {output}: it is not a regular file; redirect standard output instead of --output"
        elif _is_ledger(output):
            problem = f"{output} is a ledger, which is never replaced"
        elif force or is_export(output, file_format):
            problem = None
        else:
            problem = (
                f"{output} exists, and is not an earlier export in {file_format.upper()}: choose another name, "
                "or use --force"
            )
    except OSError as error:
        problem = f"cannot write {output}: {error.strerror}"
    if problem:
        fail(problem, ExitCode.USAGE)


def _is_ledger(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"
