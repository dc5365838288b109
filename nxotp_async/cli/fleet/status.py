"""``nxotp fleet status``."""

import asyncio
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs
import click
import orjson
from rich.table import Table

from ...bulk import MessageState
from ..event_loop import run
from ..output import print_data, print_tables
from ..parameters import Seconds, json_option
from .outboxes import outbox_of

if TYPE_CHECKING:
    from ...fleet import FleetStatus, SenderStatus

__all__ = ["command"]


@click.command("status")
@click.option("--watch", "is_watching", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option("--every", type=Seconds(0.1), default=2.0, help="With --watch: how long between two looks.")
@json_option(help="Print it as JSON; with --watch, one object a line.")
def command(is_watching: bool, every: float, as_json: bool) -> None:
    """Show what is queued, what became of the rest, how fast it goes, and who is paused and why: each sender.

    "workers" counts procrastinate's: each process of nxotp fleet work has one for each of its queues.
    """
    if is_watching:
        run(_watch(every, as_json=as_json), interrupted="stopped")
    else:
        run(_watch(every, as_json=as_json, looks=1))


async def _watch(every: float, *, as_json: bool, looks: int | None = None) -> None:
    """Print how the fleet is doing, once or again and again."""
    outbox = outbox_of()
    from ...fleet import fleet_status  # noqa: PLC0415 - an extra
    from ...stores import PostgresStore  # noqa: PLC0415 - the same

    async with outbox, PostgresStore(outbox.connections.conninfo) as store:
        while True:
            status = await fleet_status(outbox, store, now=time.time())
            if not _print(status, as_json=as_json, is_watching=looks is None) or looks == 1:
                return
            await asyncio.sleep(every)


def _print(status: "FleetStatus", *, as_json: bool, is_watching: bool) -> bool:
    if as_json:
        option = 0 if is_watching else orjson.OPT_INDENT_2
        return print_data(orjson.dumps(_fields(status), option=option))
    if is_watching and sys.stdout.isatty():
        click.clear()
    parts: list[Table | str] = [f"workers {status.workers}"]
    for sender in status.senders:
        parts += [*_lines(sender), _reasons(sender)] if sender.outcomes else _lines(sender)
    return print_tables(*parts)


def _fields(status: "FleetStatus") -> dict[str, Any]:
    senders = []
    for sender in status.senders:
        fields = attrs.asdict(sender, recurse=False)
        fields["queued"] = {str(queue): count for queue, count in sender.queued.items()}
        fields["states"] = {str(state): sender.states[state] for state in MessageState}
        fields["outcomes"] = [
            {"state": str(state), "error": error, "code": code, "count": count}
            for (state, error, code), count in _merged(sender).items()
        ]
        senders.append(fields)
    return {"workers": status.workers, "senders": senders}


def _merged(sender: "SenderStatus") -> Counter[tuple[MessageState, str | None, int | None]]:
    """Count the outcomes of both queues together."""
    counts: Counter[tuple[MessageState, str | None, int | None]] = Counter()
    for each in sender.outcomes:
        counts[each.state, each.error, each.code] += each.count
    return counts


def _lines(sender: "SenderStatus") -> list[str]:
    queued = ", ".join(f"{queue} {count:,}" for queue, count in sender.queued.items())
    oldest = "" if sender.oldest_queued is None else f", the oldest for {sender.oldest_queued:,.0f} s"
    limit = "" if sender.limit is None else f", lowered to {sender.limit:,.0f}/s at most"
    lines = [
        f"sender {sender.sender}: {sender.rate:,.1f} outcomes a second{limit}",
        f"  queued: {queued}{oldest}; sending: {sender.states[MessageState.SENDING]:,}",
    ]
    if sender.paused is not None:
        since = datetime.fromtimestamp(sender.paused_at or 0.0, UTC).isoformat("T", "seconds")
        lines.append(f"  paused since {since}: {sender.paused}")
    return lines


def _reasons(sender: "SenderStatus") -> Table:
    table = Table(box=None)
    for heading in ("state", "error", "count"):
        table.add_column(heading, justify="right" if heading == "count" else "left")
    for (state, error, code), count in _merged(sender).items():
        table.add_row(state.replace("_", " "), f"{error or ''} {'' if code is None else code}".strip(), f"{count:,}")
    return table
