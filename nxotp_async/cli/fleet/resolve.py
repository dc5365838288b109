"""``nxotp fleet resolve``."""

from typing import IO, TYPE_CHECKING

import click

from ...bulk import MessageState
from ...callbacks import parse_callback
from ...errors import CallbackVerificationError
from ..event_loop import run
from ..exit_codes import ExitCode
from ..output import fail, print_data, print_note
from .outboxes import outbox_of

if TYPE_CHECKING:
    from ...fleet import Outbox

__all__ = ["command"]


@click.command("resolve")
@click.argument("outcome", required=False, type=click.Choice(["delivered", "failed"]))
@click.argument("ids", nargs=-1, metavar="[CUS_MESSAGE_ID]...")
@click.option("--all", "everything", is_flag=True, help="Resolve every unknown message, of all senders.")
@click.option("--callbacks", type=click.File("rb"), help="A file of callback bodies, one a line; - is standard input.")
def command(outcome: str | None, ids: tuple[str, ...], everything: bool, callbacks: IO[bytes] | None) -> None:
    """Resolve messages whose outcome is unknown, by hand or by the vendor's status callbacks.

    \b
    nxotp fleet resolve                    list them
    nxotp fleet resolve delivered ID...    they arrived: accepted
    nxotp fleet resolve failed ID...       they did not: rejected
    nxotp fleet resolve --callbacks FILE   as the callbacks say

    Instead of the ids, --all resolves all of them. None is sent again: enqueue a new message for that.
    """  # noqa: D301 - click wants the backspace character itself
    if callbacks is not None and (outcome or ids or everything):
        raise click.UsageError("--callbacks cannot be used with an outcome, ids or --all")
    if everything and outcome is None:
        raise click.UsageError("--all requires an outcome: delivered or failed")
    if outcome is not None and bool(ids) is everything:
        raise click.UsageError(f"name the messages that are {outcome}: either their ids, or --all")
    run(_resolve(outbox_of(), outcome, list(dict.fromkeys(ids)), callbacks))


async def _resolve(outbox: "Outbox", outcome: str | None, ids: list[str], callbacks: IO[bytes] | None) -> None:
    async with outbox:
        if callbacks is not None:
            await _by_callbacks(outbox, callbacks)
        elif outcome is not None:
            await _by_hand(outbox, outcome, ids or await outbox.unknown_ids())
        elif unknown := await outbox.unknown_ids():
            print_data("\n".join(unknown))


async def _by_hand(outbox: "Outbox", outcome: str, ids: list[str]) -> None:
    state = MessageState.ACCEPTED if outcome == "delivered" else MessageState.REJECTED
    resolved = await outbox.resolve(ids, state)
    print_note(f"{resolved} of {len(ids)} {outcome}; {await _left(outbox)}")
    if resolved < len(ids):
        fail(f"{len(ids) - resolved} are not in the outbox, or are not unknown", ExitCode.FAILURE)


async def _by_callbacks(outbox: "Outbox", lines: IO[bytes]) -> None:
    read = updated = 0
    bad_lines = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            events = parse_callback(line)
        except CallbackVerificationError:
            bad_lines.append(number)
            continue
        read += 1
        for event in events:
            updated += await outbox.record(event)
    print_note(f"{read} callbacks read; they updated messages {updated} times; {await _left(outbox)}")
    if bad_lines:
        shown = ", ".join(map(str, bad_lines[:10]))
        fail(f"{len(bad_lines)} lines are not callbacks: {shown}", ExitCode.FAILURE)


async def _left(outbox: "Outbox") -> str:
    return f"{(await outbox.states())[MessageState.UNKNOWN]} unknown"
