"""``nxotp fleet resume``."""

import click

from ..event_loop import run
from ..output import print_note
from .outboxes import outbox_of, sender_option

__all__ = ["command"]


@click.command("resume")
@sender_option
def command(sender: str) -> None:
    """Let a paused sender go on at once.

    Without this it finds out by itself, with one message every 30 seconds, whether it works again.
    """
    run(_resume(sender))


async def _resume(sender: str) -> None:
    outbox = outbox_of(sender)
    from ...fleet.senders import SenderState, change_sender, read_sender  # noqa: PLC0415 - an extra
    from ...stores import PostgresStore  # noqa: PLC0415 - the same

    async with outbox, PostgresStore(outbox.connections.conninfo) as store:
        state = await read_sender(store, sender)
        if state.paused is None:
            print_note(f"sender {sender} is not paused")
            return
        await change_sender(store, sender, SenderState.resume)
    print_note(f"sender {sender} goes on; it was paused: {state.paused}")
