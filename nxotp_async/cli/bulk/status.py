"""``nxotp bulk status``."""

import time
from pathlib import Path
from typing import Any, Final

import click

from ...bulk import Report
from ...bulk.looking import look
from ..output import print_data, print_line
from ..parameters import Seconds, json_option, ledger_argument
from .progress import progress_text
from .remote import ask_run
from .summary import print_summary, summary_of

__all__ = ["command"]

_INTERVAL: Final = 1.0  # seconds


@click.command("status")
@ledger_argument
@click.option("--watch", is_flag=True, help="Show the progress of the run again and again, until it ends.")
@click.option("--interval", type=Seconds(0.1, 3600), default=_INTERVAL, help="How often --watch looks.")
@json_option(help="Print it as JSON; with --watch, the progress as one object a line.")
def command(ledger: Path, watch: bool, interval: float, as_json: bool) -> None:
    """Show what became of the messages in LEDGER, and what to do next.

    A run that is at work answers itself, and goes on. A ledger whose disk is full or read-only can be looked at, too.
    """
    while watch and (progress := ask_run(ledger, "/progress")) is not None:
        if not _show(progress, as_json=as_json):
            return
        time.sleep(interval)
    summary = ask_run(ledger, "/status")
    if summary is None:
        with look(ledger) as opened:
            summary = summary_of(opened, Report(opened.counts(), paused=None, stopped=False))
    print_summary(summary, as_json=as_json)


def _show(progress: dict[str, Any], *, as_json: bool) -> bool:
    if as_json:
        return print_line(progress)
    done = progress["total"] - progress["queued"]
    share = done / progress["total"] if progress["total"] else 0.0
    return print_data(f"{done:,}/{progress['total']:,} ({share:.0%})  {progress_text(progress)}")
