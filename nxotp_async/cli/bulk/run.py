"""``nxotp bulk run``."""

import sys
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import click

from ...bulk import FileFormat, Ledger, MessageFile, Row, load, open_messages
from ..exit_codes import ExitCode
from ..output import print_data, print_json, print_note
from ..parameters import FILE, FILE_FORMAT, default_region_option
from ..progress import reading_progress
from .loading import rejects_file, take_in
from .remote import opened
from .sending import Sending, sending_options

__all__ = ["command"]


@click.command("run")
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--ledger", type=FILE, help="Ledger to keep track in. Default: FILE.ledger")
@click.option("--format", "file_format", type=FILE_FORMAT, help="Default: by the suffix of FILE.")
@click.option("--rejects", type=FILE, help="File to write invalid rows to. Default: FILE.rejects...")
@click.option("--strict", is_flag=True, help="Send nothing if any row is invalid.")
@click.option("--dry-run", is_flag=True, help="Check every row, report the invalid ones, and send nothing.")
@default_region_option
@sending_options
def command(
    file: str,
    ledger: Path | None,
    file_format: FileFormat | None,
    rejects: Path | None,
    strict: bool,
    dry_run: bool,
    default_region: str | None,
    **options: Any,  # noqa: ANN401 - options of several types, each checked by click
) -> None:
    """Send the messages of FILE: CSV or NDJSON, also compressed with gzip; - is standard input.

    The file is read and checked whole before the first message is sent; invalid rows are written to the rejects file,
    with their line and what is wrong with them. After a crash repeat the command, or use `nxotp bulk resume`: rows
    that are in the ledger are neither added nor sent again.
    """
    if dry_run:
        _check(open_messages(file, file_format, default_region=default_region), as_json=options["as_json"])
    sending = Sending(**options)
    if ledger is None:
        if file == "-":
            raise click.UsageError("--ledger is required if FILE is standard input: --ledger run.db")
        ledger = Path(f"{file}.ledger")
    with ExitStack() as stack:
        with open_messages(file, file_format, default_region=default_region) as messages:
            client = sending.client()
            rejected = rejects_file(rejects, str(ledger) if file == "-" else file, messages)
            is_new = not ledger.exists()
            own = stack.enter_context(opened(ledger))
            try:
                take_in(own, messages, rejected, strict=strict, where=f"queued in {own.path}")
            except BaseException:
                if is_new:  # and there is nothing in it
                    own.close()
                    ledger.unlink()
                raise
        sending.dispatch(own, client)


def _check(opening: AbstractContextManager[MessageFile], *, as_json: bool) -> None:
    rejects: list[dict[str, object]] = []

    def report(row: Row, problem: str) -> None:
        if as_json:
            rejects.append({"line": row.line, "problem": problem})
        else:
            print_data(f"line {row.line}: {problem}")

    with opening as messages, Ledger(None) as ledger, reading_progress() as show:
        loaded = load(ledger, messages, on_reject=report, on_progress=show)
    if as_json:
        print_json({"rows": loaded.rows, "good": loaded.queued, "bad": loaded.rejected, "rejects": rejects})
    else:
        print_note(f"{loaded.rows} rows: {loaded.queued} valid, {loaded.rejected} invalid; nothing was sent")
    sys.exit(ExitCode.FAILURE if loaded.rejected else ExitCode.SUCCESS)
