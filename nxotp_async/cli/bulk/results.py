"""``nxotp bulk status``, ``nxotp bulk export`` and ``nxotp bulk resolve``."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from ...bulk import FileFormat, Ledger, MessageState, Report, settle
from ...bulk import export as export_results
from ...errors import LedgerError
from ...messages import mask_number
from ..common import EXIT_CONFIGURATION, EXIT_REJECTED, EXIT_USAGE, fail, print_data, print_json, stderr
from .summary import print_summary, summary_fields

__all__ = ["export", "resolve", "status"]

_ledger_argument = click.argument("ledger", type=click.Path(path_type=Path))


@contextmanager
def _opened(path: Path) -> Iterator[Ledger]:
    try:
        with Ledger(path, create=False) as ledger:
            yield ledger
    except LedgerError as error:
        fail(error, EXIT_CONFIGURATION)


@click.command()
@_ledger_argument
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(ledger: Path, as_json: bool) -> None:
    """Show what became of the messages in LEDGER, and what to do next. A run that is at work shows it itself."""
    with _opened(ledger) as opened:
        report = Report(opened.counts(), paused=None, stopped=False)
        if as_json:
            print_json(summary_fields(opened, report))
        else:
            print_summary(opened, report)


@click.command()
@_ledger_argument
@click.option(
    "--format",
    "file_format",
    type=click.Choice(FileFormat, case_sensitive=False),
    help="Default: as the output's name says; csv.",
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="A file, made with mode 0600. Default: stdout.")
def export(ledger: Path, file_format: FileFormat | None, output: Path | None) -> None:
    """Write one row of results for each row of the input, in its order, with the input's own further columns.

    No row holds a code. Numbers are written in full, but for a terminal.
    """
    if file_format is None:
        is_ndjson = output is not None and output.suffix in (".ndjson", ".jsonl")
        file_format = FileFormat.NDJSON if is_ndjson else FileFormat.CSV
    output = None if output == Path("-") else output
    if output is not None and _is_ledger(output):
        fail(f"{output} is a ledger; the results would take its place", EXIT_USAGE)
    show_number = mask_number if output is None and sys.stdout.isatty() else str
    with _opened(ledger) as opened:
        try:
            with _written(output) as file:
                count = export_results(opened, file, file_format, show_number=show_number)
        except OSError as error:
            if output is None:
                # What is left in the buffer would fail once more, and change the exit code, when Python ends.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):  # whoever reads has had enough
                return
            fail(f"cannot write {output or 'to standard output'}: {error.strerror}", EXIT_USAGE)
    if output is not None:
        stderr.print(f"{count:,} rows written to {output}", markup=False, soft_wrap=True)


@contextmanager
def _written(path: Path | None) -> Iterator[IO[str]]:
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        sys.stdout.flush()
        return
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        with os.fdopen(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", newline=""
        ) as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _is_ledger(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError:
        return False


@click.command()
@_ledger_argument
@click.argument("outcome", required=False, type=click.Choice(["delivered", "failed", "resend"]))
@click.argument("ids", nargs=-1, metavar="[CUS_MESSAGE_ID]...")
@click.option("--all", "everything", is_flag=True, help="Settle every unknown message.")
@click.option("--callbacks", type=click.File("rb"), help="A file of callback bodies, one a line; - is standard input.")
def resolve(
    ledger: Path, outcome: str | None, ids: tuple[str, ...], everything: bool, callbacks: IO[bytes] | None
) -> None:
    """Settle messages whose outcome is unknown, by hand or by the vendor's status callbacks.

    \b
    nxotp bulk resolve run.db                        list them
    nxotp bulk resolve run.db delivered ID...        they arrived: accepted
    nxotp bulk resolve run.db failed ID...           they did not: rejected
    nxotp bulk resolve run.db resend ID...           queue them again; who got the first gets a second
    nxotp bulk resolve run.db --callbacks FILE       as the callbacks say

    In place of the ids, --all settles all of them. What is queued again is sent by `nxotp bulk resume`.
    """  # noqa: D301 - click wants the backspace character itself
    if callbacks is not None and (outcome or ids or everything):
        fail("--callbacks goes without an outcome, ids and --all", EXIT_USAGE)
    if outcome is not None and bool(ids) is everything:
        fail(f"say which messages are {outcome}: their ids, or --all", EXIT_USAGE)
    if everything and outcome is None:
        fail("say what --all of them are: delivered, failed or resend", EXIT_USAGE)
    with _opened(ledger) as opened:
        if callbacks is not None:
            _settle_by_callbacks(opened, callbacks)
        elif outcome is not None:
            _settle_by_hand(opened, outcome, opened.unknown_ids() if everything else list(dict.fromkeys(ids)))
        elif unknown := opened.unknown_ids():
            print_data("\n".join(unknown))


def _settle_by_hand(ledger: Ledger, outcome: str, ids: list[str]) -> None:
    settled = ledger.requeue(ids) if outcome == "resend" else ledger.resolve(dict.fromkeys(ids, outcome))
    ledger.forget_codes()
    what = "queued again" if outcome == "resend" else outcome
    stderr.print(f"{settled} of {len(ids)} settled as {what}; {_left(ledger)} are unknown")
    if settled < len(ids):
        why = "are not in the ledger, or are not unknown"
        if outcome == "resend":
            why += ", or their code has expired and is erased"
        fail(f"{len(ids) - settled} {why}", EXIT_REJECTED)


def _settle_by_callbacks(ledger: Ledger, file: IO[bytes]) -> None:
    settled = settle(ledger, file)
    ledger.forget_codes()
    stderr.print(
        f"{settled.callbacks} callbacks told something new of messages {settled.messages} times; "
        f"{_left(ledger)} are unknown"
    )
    if settled.bad_lines:
        shown = ", ".join(map(str, settled.bad_lines[:10]))
        fail(f"{len(settled.bad_lines)} lines are no callback: {shown}", EXIT_REJECTED)


def _left(ledger: Ledger) -> int:
    return ledger.counts()[MessageState.UNKNOWN]
