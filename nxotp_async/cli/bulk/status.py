"""``nxotp bulk status``."""

from pathlib import Path

import click

from ...bulk import Ledger, Report
from ..parameters import json_option, ledger_argument
from .summary import print_summary

__all__ = ["command"]


@click.command("status")
@ledger_argument
@json_option(help="Print it as JSON.")
def command(ledger: Path, as_json: bool) -> None:
    """Show what became of the messages in LEDGER, and what to do next. A run in progress shows it itself."""
    with Ledger(ledger, create=False) as opened:
        print_summary(opened, Report(opened.counts(), paused=None, stopped=False), as_json=as_json)
