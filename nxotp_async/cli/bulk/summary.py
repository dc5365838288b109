"""What became of a bulk run, for people and for machines, and what to do next."""

import io
import os
from collections import Counter
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...bulk import Ledger, MessageState, Reason, Report
from ..common import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_REJECTED, EXIT_UNKNOWN, print_data, stderr

__all__ = ["exit_code", "print_summary", "summary_fields"]


def exit_code(report: Report) -> int:
    """Return the exit code that tells most."""
    counts = report.counts
    if report.stopped:
        return EXIT_INTERRUPTED
    if report.paused is not None:
        return EXIT_CONFIGURATION
    if counts[MessageState.UNKNOWN]:
        return EXIT_UNKNOWN
    return EXIT_REJECTED if counts[MessageState.REJECTED] or counts[MessageState.NOT_SENT] else 0


def summary_fields(ledger: Ledger, report: Report) -> dict[str, Any]:
    """Return the summary as plain data."""
    return {
        "ledger": os.fsencode(str(ledger.path)).decode(errors="replace"),
        "total": report.counts.total(),
        **{str(state): report.counts[state] for state in MessageState if state is not MessageState.SENDING},
        "paused": report.paused and {"error": type(report.paused).__name__, "message": str(report.paused)},
        "stopped": report.stopped,
        "receipts": _funnel(ledger),
        "reasons": [attrs.asdict(reason) for reason in ledger.reasons()],
    }


def print_summary(ledger: Ledger, report: Report) -> None:
    """Print how many messages are in which state and why, and say what to do next."""
    print_data(_table(report.counts, ledger.reasons()))
    name = ledger.path
    if any((funnel := _funnel(ledger)).values()):
        print_data("callbacks: " + ", ".join(f"{name} {count:,}" for name, count in funnel.items()))
    if report.paused is not None:
        _say(f"paused: {report.paused}")
        _say(f"mend it, then go on with: nxotp bulk resume {name}")
    elif report.counts[MessageState.QUEUED]:
        _say(f"go on with: nxotp bulk resume {name}")
    if report.counts[MessageState.UNKNOWN]:
        _say(f"unknown ones may have arrived; settle them with: nxotp bulk resolve {name} --help")
    _say(f"one row of results for each row of the input: nxotp bulk export {name}")


def _funnel(ledger: Ledger) -> dict[str, int]:
    """Count the messages that have come at least so far, as callbacks tell."""
    receipts = ledger.receipts()
    return {
        "sent": receipts.total(),
        "delivered": receipts["delivered"] + receipts["read"],
        "read": receipts["read"],
        "failed": receipts["failed"],
    }


def _say(text: str) -> None:
    stderr.print(text, markup=False, soft_wrap=True)


def _table(counts: Counter[MessageState], reasons: list[Reason]) -> str:
    states = Table(show_header=False, box=None, pad_edge=False)
    for state in MessageState:
        if counts[state] or state is not MessageState.SENDING:
            states.add_row(state.replace("_", " "), f"{counts[state]:,}")
    states.add_row("total", f"{counts.total():,}", style="bold")
    text = io.StringIO()
    console = Console(file=text, highlight=False, width=100)
    console.print(states)
    if reasons:
        console.print(_reasons_table(reasons))
    return text.getvalue().rstrip("\n")


def _reasons_table(reasons: list[Reason]) -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left")
    for heading in ("state", "why", "number", "for example (and what to do)"):
        table.add_column(heading, justify="right" if heading == "number" else "left")
    for reason in reasons:
        code = reason.code if reason.meta_code is None else f"{reason.code}/{reason.meta_code}"
        why = reason.error if reason.code is None else f"{reason.error} {code}"
        table.add_row(reason.state.replace("_", " "), why, f"{reason.count:,}", Text(reason.reason or ""))
    return table
