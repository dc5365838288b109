"""Where an export goes: a file that replaces an earlier one, or standard output."""

import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from ..bulk import FileFormat
from ..bulk.exporting import is_export
from .exit_codes import ExitCode
from .output import discard, fail, print_note
from .parameters import FILE, FILE_FORMAT, options

__all__ = ["export_options", "write_results"]

export_options = options(
    click.option(
        "--format", "file_format", type=FILE_FORMAT, help="Default: by the suffix of --output; otherwise csv."
    ),
    click.option("--output", "-o", type=FILE, help="A file, created with mode 0600. Default: standard output."),
    click.option("--force", is_flag=True, help="Also replace a file that is not an earlier export."),
)


def _format_of(file_format: FileFormat | None, output: Path | None) -> FileFormat:
    """Return the format that was asked for, or that the name of the output tells."""
    is_ndjson = output is not None and output.suffix in (".ndjson", ".jsonl")
    return file_format or (FileFormat.NDJSON if is_ndjson else FileFormat.CSV)


def write_results(
    write: Callable[[IO[str], FileFormat], str],
    columns: Iterable[str],
    *,
    file_format: FileFormat | None,
    output: Path | None,
    force: bool,
) -> None:
    """Have the results written, and tell what was written; exit where that cannot be done.

    Args:
        write: Writes them, and returns what it has written: ``12 rows``.
        columns: The columns by which an earlier export is known.
        file_format: As in the options.
        output: As in the options.
        force: As in the options.
    """
    file_format = _format_of(file_format, output)
    output = None if output == Path("-") else output
    if output is not None:
        _check_replaceable(output, file_format, columns, force)
    try:
        with _written(output) as file:
            written = write(file, file_format)
    except OSError as error:
        if output is None:
            discard(sys.stdout)
        if isinstance(error, BrokenPipeError):  # the reader has had enough
            return
        fail(f"cannot write {output or 'to standard output'}: {error.strerror}", ExitCode.USAGE)
    if output is not None:
        print_note(f"{written} written to {output}")


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


def _check_replaceable(output: Path, file_format: FileFormat, columns: Iterable[str], force: bool) -> None:
    """Exit if the results would replace something that is not an earlier export."""
    try:
        if not output.exists():
            problem = None
        elif not output.is_file():
            problem = f"cannot write {output}: it is not a regular file; redirect standard output instead of --output"
        elif _is_ledger(output):
            problem = f"{output} is a ledger, which is never replaced"
        elif force or is_export(output, file_format, columns):
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
