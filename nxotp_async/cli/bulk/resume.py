"""``nxotp bulk resume``."""

from pathlib import Path
from typing import Any

import click

from ...bulk import Ledger
from ..parameters import ledger_argument
from .sending import Sending, sending_options

__all__ = ["command"]


@click.command("resume")
@ledger_argument
@sending_options
def command(ledger: Path, **options: Any) -> None:  # noqa: ANN401 - options of several types, each checked by click
    """Send what is still queued in LEDGER, after a crash, a kill, a pause or Ctrl-C.

    What was in flight at a crash is unknown, and is not sent again by itself; see `nxotp bulk resolve`.
    """
    sending = Sending(**options)
    client = sending.client()
    with Ledger(ledger, create=False) as opened:
        sending.dispatch(opened, client)
