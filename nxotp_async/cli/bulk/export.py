"""``nxotp bulk export``."""

import sys
from pathlib import Path
from typing import IO, Any

import click

from ...bulk import FileFormat, export
from ...bulk.exporting import RESULT_COLUMNS
from ...phone_numbers import mask_number
from ..parameters import ledger_argument
from ..results_file import export_options, write_results
from .remote import ask_run, looked_at, run_export

__all__ = ["command"]


@click.command("export")
@ledger_argument
@export_options
def command(ledger: Path, output: Path | None, **options: Any) -> None:  # noqa: ANN401 - those of write_results
    """Write one row of results for each row of the input, in its order, with the input's own further columns.

    No row holds a code. Numbers are written in full, but masked on a terminal. An existing output is replaced if it
    is an earlier export in the same format, or empty. If the output cannot be written, the exit code is 2.

    While a run is at work, it writes the rows as they are at the moment: their status may still be queued or sending.
    """
    is_masked = output in (None, Path("-")) and sys.stdout.isatty()

    def write(file: IO[str], file_format: FileFormat) -> str:
        if (progress := ask_run(ledger, "/progress")) is not None:
            with run_export(ledger, f"format={file_format}{'&masked' if is_masked else ''}") as texts:
                for text in texts:
                    file.write(text)
            return f"the rows of a run at work, {progress['queued']:,} of them without an outcome yet,"
        with looked_at(ledger) as opened:
            show_number = mask_number if is_masked else str
            return f"{export(opened, file, file_format, show_number=show_number):,} rows"

    write_results(write, RESULT_COLUMNS, output=output, **options)
