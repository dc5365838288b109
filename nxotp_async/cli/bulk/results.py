"""``nxotp bulk status``, ``nxotp bulk export`` and ``nxotp bulk resolve``."""

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from ...bulk import FileFormat, Ledger, MessageState, Report, settle
from ...bulk import export as export_results
from ...bulk.exporting import is_export
from ...errors import LedgerError
from ...phone_numbers import mask_number
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
@click.option("--force", is_flag=True, help="Replace a file that is not an earlier export, too.")
def export(ledger: Path, file_format: FileFormat | None, output: Path | None, force: bool) -> None:
    """Write one row of results for each row of the input, in its order, with the input's own further columns.

    No row holds a code. Numbers are written in full, but for a terminal. An output that is there already is replaced
    where it is an earlier export in the same format, or empty.
    """
    if file_format is None:
        is_ndjson = output is not None and output.suffix in (".ndjson", ".jsonl")
        file_format = FileFormat.NDJSON if is_ndjson else FileFormat.CSV
    output = None if output == Path("-") else output
    if output is not None:
        _check_replaceable(output, file_format, force)
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
    """Exit where the results would take the place of something that is not an earlier export."""
    try:
        if not output.exists():
            return
        if not output.is_file():
            fail(
                f"cannot write {output}: it is no regular file; redirect standard output in place of --output",
                EXIT_USAGE,
            )
        if _is_ledger(output):
            fail(f"{output} is a ledger; the results would take its place", EXIT_USAGE)
        replaceable = force or is_export(output, file_format)
    except OSError as error:
        fail(f"cannot write {output}: {error.strerror}", EXIT_USAGE)
    if not replaceable:
        fail(
            f"{output} is there, and is not an earlier export in {file_format.upper()}: give another name, or --force",
            EXIT_USAGE,
        )


def _is_ledger(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


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
