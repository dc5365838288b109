"""``nxotp bulk export``."""

import sys
from pathlib import Path
from typing import Any

import click

from ...bulk import Ledger, export
from ...bulk.exporting import RESULT_COLUMNS
from ...phone_numbers import mask_number
from ..parameters import ledger_argument
from ..results_file import export_options, write_results

__all__ = ["command"]


@click.command("export")
@ledger_argument
@export_options
def command(ledger: Path, output: Path | None, **options: Any) -> None:  # noqa: ANN401 - those of write_results
    """Write one row of results for each row of the input, in its order, with the input's own further columns.

    No row holds a code. Numbers are written in full, but masked on a terminal. An existing output is replaced if it
    is an earlier export in the same format, or empty. If the output cannot be written, the exit code is 2.
    """
    show_number = mask_number if output in (None, Path("-")) and sys.stdout.isatty() else str
    with Ledger(ledger, create=False) as opened:
        write_results(
            lambda file, file_format: export(opened, file, file_format, show_number=show_number),
            RESULT_COLUMNS,
            output=output,
            **options,
        )
