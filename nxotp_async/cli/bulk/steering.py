"""``nxotp bulk pause``, ``set`` and ``stop``: a run that is at work, steered from another terminal."""

from pathlib import Path
from typing import Any

import click

from ..output import print_json, print_note
from ..parameters import CONCURRENCY, RATE, json_option, ledger_argument
from .progress import progress_text
from .remote import steer

__all__ = ["change", "pause", "say", "stop"]

_json_option = json_option(help="Print the run's progress as JSON.")


@click.command("pause")
@ledger_argument
@_json_option
def pause(ledger: Path, as_json: bool) -> None:
    """Have the run of LEDGER send nothing more until `nxotp bulk resume LEDGER`.

    What is in flight has its outcome written. The run's process stays, and goes on receiving callbacks.
    """
    say("paused", steer(ledger, "/pause"), as_json=as_json)


@click.command("stop")
@ledger_argument
@_json_option
def stop(ledger: Path, as_json: bool) -> None:
    """End the run of LEDGER as Ctrl-C does: what is in flight may finish, for 30 seconds at the most.

    A second one ends it at once, and what was in flight then is unknown.
    """
    say("stopping", steer(ledger, "/stop"), as_json=as_json)


@click.command("set")
@ledger_argument
@click.option("--rate", type=RATE, help="Messages a second at most.")
@click.option("--no-rate", is_flag=True, help="No limit of the rate.")
@click.option("--concurrency", type=CONCURRENCY, help="Requests in flight at most; no more than the run began with.")
@_json_option
def change(ledger: Path, rate: float | None, no_rate: bool, concurrency: int | None, as_json: bool) -> None:
    """Change the rate or the concurrency of the run of LEDGER, which goes on.

    The next run begins with its own options again.
    """
    if rate is not None and no_rate:
        raise click.UsageError("--rate and --no-rate exclude one another")
    wanted: dict[str, float | None] = {}
    if rate is not None or no_rate:
        wanted["rate"] = rate
    if concurrency is not None:
        wanted["concurrency"] = concurrency
    if not wanted:
        raise click.UsageError("say what to change: --rate, --no-rate or --concurrency")
    say("changed", steer(ledger, "/set", wanted), as_json=as_json)


def say(what: str, progress: dict[str, Any], *, as_json: bool) -> None:
    """Print what was done, and the progress of the run."""
    if as_json:
        print_json(progress)
    else:
        print_note(
            f"{what}: process {progress['process']}, {progress['in_flight']} in flight; {progress_text(progress)}"
        )
