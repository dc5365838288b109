"""``nxotp bulk resume``."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..parameters import ledger_argument
from .remote import ask_run, opened, steer
from .sending import Sending, sending_options
from .steering import say

__all__ = ["command"]


@click.command("resume")
@ledger_argument
@sending_options
def command(ledger: Path, **options: Any) -> None:  # noqa: ANN401 - options of several types, each checked by click
    """Send what is still queued in LEDGER, after a crash, a kill, a pause or Ctrl-C.

    A run that is at work and was paused by `nxotp bulk pause` goes on; the options are those that it has, then.

    What was in flight at a crash is unknown, and is not sent again by itself; see `nxotp bulk resolve`.
    """
    context = click.get_current_context()
    given = {name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    progress = ask_run(ledger, "/progress")
    if progress is not None and progress["is_paused"] and given <= {"as_json"}:
        say("resumed", steer(ledger, "/resume"), as_json=options["as_json"])
        return
    sending = Sending(**options)
    client = sending.client()
    with opened(ledger, create=False) as own:
        sending.dispatch(own, client)
