"""``nxotp bulk run`` and ``nxotp bulk resume``."""

import sys
from pathlib import Path
from typing import Any

import click

from ...bulk import FileFormat, Ledger, Loaded, MessageFile, RejectsFile, Row, load, open_messages
from ...errors import InputFileError, LedgerError
from ..common import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_REJECTED, EXIT_USAGE, fail, print_json, stderr
from .progress import LoadingProgress
from .sending import Sending, sending_options

__all__ = ["resume", "run"]

_SHOWN_REJECTS = 20


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--ledger", type=click.Path(path_type=Path), help="Where to keep track. Default: FILE.ledger")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(FileFormat, case_sensitive=False),
    help="Default: as the file's name says.",
)
@click.option(
    "--rejects", type=click.Path(path_type=Path), help="Where to set bad rows aside. Default: FILE.rejects..."
)
@click.option("--strict", is_flag=True, help="Send nothing where any row is bad.")
@click.option("--dry-run", is_flag=True, help="Check every row, report the bad ones, and send nothing.")
@sending_options
def run(
    file: str,
    ledger: Path | None,
    file_format: FileFormat | None,
    rejects: Path | None,
    strict: bool,
    dry_run: bool,
    **options: Any,  # noqa: ANN401 - options of several types, each checked by click
) -> None:
    """Send the messages of FILE: CSV or NDJSON, also compressed with gzip; - is standard input.

    The file is read and checked whole before the first message is sent; bad rows are set aside with their line and
    what is wrong with them. After a crash give the same command once more, or `nxotp bulk resume`: rows that are in
    the ledger are neither taken in nor sent again.
    """
    try:
        if dry_run:
            _check(file, file_format, as_json=options["as_json"])
        else:
            _run(file, file_format, ledger, rejects, strict=strict, sending=Sending(**options))
    except InputFileError as error:
        fail(error, EXIT_USAGE)
    except LedgerError as error:
        fail(error, EXIT_CONFIGURATION)


def _check(file: str, file_format: FileFormat | None, *, as_json: bool) -> None:
    rejected: list[dict[str, object]] = []

    def report(row: Row, problem: str) -> None:
        if as_json:
            rejected.append({"line": row.line, "problem": problem})
        else:
            click.echo(f"line {row.line}: {problem}")

    with open_messages(file, file_format) as messages, Ledger(None) as ledger, LoadingProgress() as progress:
        loaded = load(ledger, messages, on_reject=report, on_progress=progress.show)
    if as_json:
        print_json({"rows": loaded.rows, "good": loaded.queued, "bad": loaded.rejected, "rejects": rejected})
    else:
        stderr.print(f"{loaded.rows} rows: {loaded.queued} good, {loaded.rejected} bad; nothing was sent")
    sys.exit(EXIT_REJECTED if loaded.rejected else 0)


def _run(
    file: str,
    file_format: FileFormat | None,
    ledger_path: Path | None,
    rejects_path: Path | None,
    *,
    strict: bool,
    sending: Sending,
) -> None:
    if ledger_path is None:
        if file == "-":
            fail("standard input has no name to call a ledger after: say --ledger run.db", EXIT_USAGE)
        ledger_path = Path(f"{file}.ledger")
    with open_messages(file, file_format) as messages:
        client = sending.client()
        base = Path(ledger_path if file == "-" else file.removesuffix(".gz"))
        rejects = RejectsFile(rejects_path or base.with_name(f"{base.stem}.rejects.{messages.format}"), messages)
        with Ledger(ledger_path) as ledger:
            try:
                loaded, kept = _load(ledger, messages, rejects, strict=strict)
            except KeyboardInterrupt:
                fail("interrupted; nothing was sent", EXIT_INTERRUPTED)
            _announce(loaded, ledger_path, kept)
            sending.dispatch(ledger, client)


def _load(ledger: Ledger, messages: MessageFile, rejects: RejectsFile, *, strict: bool) -> tuple[Loaded, Path | None]:
    shown = 0
    kept: Path | None = None

    def set_aside(row: Row, problem: str) -> None:
        nonlocal shown
        shown += 1
        if shown <= _SHOWN_REJECTS:
            stderr.print(f"line {row.line}: {problem}", markup=False, soft_wrap=True)
        if not strict:
            rejects.add(row, problem)

    def keep() -> None:
        nonlocal kept
        kept = rejects.keep()

    try:
        with LoadingProgress() as progress:
            loaded = load(
                ledger, messages, strict=strict, on_reject=set_aside, on_progress=progress.show, before_commit=keep
            )
    finally:
        rejects.discard()
        if shown > _SHOWN_REJECTS:
            stderr.print(f"... and {shown - _SHOWN_REJECTS} bad rows more")
    return loaded, kept


def _announce(loaded: Loaded, ledger: Path, rejects: Path | None) -> None:
    parts = [f"{loaded.rows} rows: {loaded.queued} queued in {ledger}"]
    if loaded.known:
        parts.append(f"{loaded.known} were there before")
    if loaded.rejected:
        parts.append(f"{loaded.rejected} set aside in {rejects}")
    stderr.print(", ".join(parts), markup=False, soft_wrap=True)


@click.command()
@click.argument("ledger", type=click.Path(path_type=Path))
@sending_options
def resume(ledger: Path, **options: Any) -> None:  # noqa: ANN401 - options of several types, each checked by click
    """Send what is still queued in LEDGER, after a crash, a kill, a pause or Ctrl-C.

    What was in flight at a crash is unknown, and is not sent again by itself; see `nxotp bulk resolve`.
    """
    sending = Sending(**options)
    try:
        client = sending.client()
        with Ledger(ledger, create=False) as opened:
            sending.dispatch(opened, client)
    except LedgerError as error:
        fail(error, EXIT_CONFIGURATION)
