"""``nxotp bulk requeue``."""

from pathlib import Path

import click

from ..exit_codes import ExitCode
from ..output import fail, print_note
from ..parameters import ledger_argument
from .remote import opened

__all__ = ["command"]


@click.command("requeue")
@ledger_argument
@click.argument("ids", nargs=-1, metavar="[CUS_MESSAGE_ID]...")
@click.option("--code", "codes", type=int, multiple=True, help="Those rejected with this code, the vendor's or Meta's.")
@click.option("--all", "everything", is_flag=True, help="Every rejected message.")
def command(ledger: Path, ids: tuple[str, ...], codes: tuple[int, ...], everything: bool) -> None:
    """Queue rejected messages again, after the template or the account was mended.

    It needs their codes: send with `--keep-codes`. What was accepted, or may have been, is never queued again by this.
    `nxotp bulk resume --keep-codes` sends what is queued.
    """
    if bool(ids or codes) is everything:
        raise click.UsageError("name the messages: their ids, --code, or --all")
    with opened(ledger, create=False) as own:
        found, queued = own.requeue_rejected(None if everything else [*ids, *codes])
    print_note(f"{queued:,} of {found:,} rejected messages queued again")
    if queued < found:
        fail(f"{found - queued:,} have no code any more: it has expired, or was not kept", ExitCode.FAILURE)
    if not found:
        fail("no message of these was rejected", ExitCode.FAILURE)
