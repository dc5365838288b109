"""``nxotp bulk resolve``."""

from pathlib import Path
from typing import IO

import click

from ...bulk import Ledger, MessageState, settle
from ..exit_codes import ExitCode
from ..output import fail, print_data, print_note
from ..parameters import ledger_argument
from .remote import opened

__all__ = ["command"]


@click.command("resolve")
@ledger_argument
@click.argument("outcome", required=False, type=click.Choice(["delivered", "failed", "resend"]))
@click.argument("ids", nargs=-1, metavar="[CUS_MESSAGE_ID]...")
@click.option("--all", "everything", is_flag=True, help="Resolve every unknown message.")
@click.option("--callbacks", type=click.File("rb"), help="A file of callback bodies, one a line; - is standard input.")
def command(
    ledger: Path, outcome: str | None, ids: tuple[str, ...], everything: bool, callbacks: IO[bytes] | None
) -> None:
    """Resolve messages whose outcome is unknown, by hand or by the vendor's status callbacks.

    \b
    nxotp bulk resolve run.db                    list them
    nxotp bulk resolve run.db delivered ID...    they arrived: accepted
    nxotp bulk resolve run.db failed ID...       they did not: rejected
    nxotp bulk resolve run.db resend ID...       queue again: may deliver twice
    nxotp bulk resolve run.db --callbacks FILE   as the callbacks say

    Instead of the ids, --all resolves all of them. What is queued again is sent by `nxotp bulk resume`.
    """  # noqa: D301 - click wants the backspace character itself
    if callbacks is not None and (outcome or ids or everything):
        raise click.UsageError("--callbacks cannot be used with an outcome, ids or --all")
    if outcome is not None and bool(ids) is everything:
        raise click.UsageError(f"name the messages that are {outcome}: either their ids, or --all")
    if everything and outcome is None:
        raise click.UsageError("--all requires an outcome: delivered, failed or resend")
    with opened(ledger, create=False) as own:
        if callbacks is not None:
            _resolve_by_callbacks(own, callbacks)
        elif outcome is not None:
            _resolve_by_hand(own, outcome, own.unknown_ids() if everything else list(dict.fromkeys(ids)))
        elif unknown := own.unknown_ids():
            print_data("\n".join(unknown))


def _resolve_by_hand(ledger: Ledger, outcome: str, ids: list[str]) -> None:
    resend = outcome == "resend"
    resolved = ledger.requeue(ids) if resend else ledger.resolve(dict.fromkeys(ids, outcome))
    ledger.forget_codes()
    print_note(f"{resolved} of {len(ids)} {'queued again' if resend else outcome}; {_left(ledger)}")
    if resolved < len(ids):
        why = "are not in the ledger, or are not unknown" + (", or their code has expired" if resend else "")
        fail(f"{len(ids) - resolved} {why}", ExitCode.FAILURE)


def _resolve_by_callbacks(ledger: Ledger, file: IO[bytes]) -> None:
    settled = settle(ledger, file)
    ledger.forget_codes()
    print_note(f"{settled.callbacks} callbacks read; they updated messages {settled.messages} times; {_left(ledger)}")
    if settled.bad_lines:
        shown = ", ".join(map(str, settled.bad_lines[:10]))
        fail(f"{len(settled.bad_lines)} lines are not callbacks: {shown}", ExitCode.FAILURE)


def _left(ledger: Ledger) -> str:
    return f"{ledger.counts()[MessageState.UNKNOWN]} unknown"
