"""``nxotp fleet demo``."""

import sys
from collections import Counter
from typing import TYPE_CHECKING

import attrs
import click
from rich.table import Table

from ...bulk import MessageState
from ...errors import ConfigurationError
from ..event_loop import run
from ..exit_codes import ExitCode, exit_codes
from ..output import fail, print_error, print_json, print_note, print_tables
from ..parameters import json_option
from ..progress import Snapshot, run_progress

if TYPE_CHECKING:
    from ...fleet.demo import FleetDemoReport

__all__ = ["command"]


@click.command(
    "demo",
    epilog=exit_codes(
        success="nothing was lost or sent twice",
        failure="something was, or a process ended early",
        usage="wrong usage",
        configuration="an extra is not installed",
        unknown=None,
    ),
)
@click.option("--count", type=click.IntRange(20, 100_000), default=1000, help="Logins, one of twenty is rolled back.")
@json_option(help="Print the report as JSON.")
def command(count: int, as_json: bool) -> None:
    """Kill one of two workers in the middle of a thousand logins, and count what was lost or sent twice.

    It starts its own PostgreSQL, from the extra fleet-demo, and its own sandbox: it needs no database, account or
    network, and uses no settings. When it ends, also by Ctrl-C, nothing of it is left.
    """
    try:
        report = run(_demo(count))
    except ConfigurationError as error:
        fail(error, ExitCode.CONFIGURATION)
    except ChildProcessError as error:
        fail(error, ExitCode.FAILURE)
    if as_json:
        print_json(attrs.asdict(report))
    else:
        print_tables(_table(report))
    if not report.is_good:
        print_error("messages were lost, sent twice, or sent although they were rolled back")
    sys.exit(ExitCode.SUCCESS if report.is_good else ExitCode.FAILURE)


async def _demo(count: int) -> "FleetDemoReport":
    try:
        from ...fleet.demo import run_fleet_demo  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        hint = 'pip install "nxotp_async[cli,fleet,fleet-demo]"'
        raise ConfigurationError(f"{error.name} is not installed: a fleet needs it", hint=hint) from None
    seen: list[Counter[MessageState]] = []

    def look() -> Snapshot | None:
        if not seen:
            return None
        states = seen[-1]
        done = states.total() - states[MessageState.QUEUED] - states[MessageState.SENDING]
        text = "  ".join(f"{state} {number:,}" for state, number in sorted(states.items()))
        return Snapshot(done, states.total() or 1, text)

    async with run_progress(look):
        return await run_fleet_demo(count=count, on_step=print_note, on_states=seen.append)


def _table(report: "FleetDemoReport") -> Table:
    title = f"{report.committed + report.rolled_back:,} logins in {report.seconds:.1f} s, one of two workers killed"
    table = Table(show_header=False, title=title, title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    never_sent = report.rolled_back - report.rolled_back_sent
    for name, number in (
        ("committed", report.committed),
        ("accepted", report.accepted),
        ("unknown: in flight when their worker was killed", report.unknown),
        ("of these, received by the sandbox", report.unknown_received),
        ("rolled back and never sent", never_sent),
        ("lost", report.lost),
        ("sent twice", report.sent_twice),
    ):
        table.add_row(name, f"{number:,}")
    return table
