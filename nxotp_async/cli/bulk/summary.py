"""What became of a bulk run, for people and for machines, and what to do next."""

import os
from collections import Counter
from typing import Any

import attrs
from rich.table import Table

from ...bulk import Ledger, MessageState, Reason, Report
from ..exit_codes import ExitCode
from ..output import error_fields, print_data, print_json, print_note, print_tables

__all__ = ["exit_code", "print_summary"]


def exit_code(report: Report) -> ExitCode:
    """Return the exit code of a run."""
    counts = report.counts
    if report.stopped:
        return ExitCode.INTERRUPTED
    if report.paused is not None:
        return ExitCode.CONFIGURATION
    if counts[MessageState.UNKNOWN]:
        return ExitCode.UNKNOWN
    return ExitCode.SUCCESS if counts[MessageState.ACCEPTED] == counts.total() else ExitCode.FAILURE


def print_summary(ledger: Ledger, report: Report, *, as_json: bool, transport: str | None = None) -> None:
    """Print how many messages are in which state and why, and what to do next; or, as JSON, the former alone."""
    if as_json:
        print_json(_fields(ledger, report) | ({} if transport is None else {"transport": transport}))
        return
    if transport is not None:
        print_note(f"sent over the transport {transport}")
    reasons = ledger.reasons()
    print_tables(_states(report.counts), *([_reasons(reasons)] if reasons else []))
    if any((funnel := _funnel(ledger)).values()):
        print_data("callbacks: " + ", ".join(f"{name} {count:,}" for name, count in funnel.items()))
    if report.paused is not None:
        print_note(f"paused: {report.paused}")
        print_note(f"fix it, then continue with: nxotp bulk resume {ledger.path}")
    elif report.counts[MessageState.QUEUED]:
        print_note(f"continue with: nxotp bulk resume {ledger.path}")
    if report.counts[MessageState.UNKNOWN]:
        print_note(f"unknown messages may have arrived; resolve them: nxotp bulk resolve {ledger.path} --help")
    print_note(f"write one row of results for each row of the input: nxotp bulk export {ledger.path}")


def _fields(ledger: Ledger, report: Report) -> dict[str, Any]:
    return {
        "ledger": os.fsencode(str(ledger.path)).decode(errors="replace"),
        "total": report.counts.total(),
        **{str(state): report.counts[state] for state in MessageState if state is not MessageState.SENDING},
        "paused": report.paused and error_fields(report.paused),
        "stopped": report.stopped,
        "receipts": _funnel(ledger),
        "reasons": [attrs.asdict(reason) for reason in ledger.reasons()],
    }


def _funnel(ledger: Ledger) -> dict[str, int]:
    """Count the messages that have come at least so far, as callbacks tell."""
    receipts = ledger.receipts()
    return {
        "sent": receipts.total(),
        "delivered": receipts["delivered"] + receipts["read"],
        "read": receipts["read"],
        "failed": receipts["failed"],
    }


def _states(counts: Counter[MessageState]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    for state in MessageState:
        if counts[state] or state is not MessageState.SENDING:
            table.add_row(state.replace("_", " "), f"{counts[state]:,}")
    table.add_row("total", f"{counts.total():,}", style="bold")
    return table


def _reasons(reasons: list[Reason]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("state", "error", "count", "example"):
        table.add_column(heading, justify="right" if heading == "count" else "left")
    for reason in reasons:
        code = reason.code if reason.meta_code is None else f"{reason.code}/{reason.meta_code}"
        error = reason.error if reason.code is None else f"{reason.error} {code}"
        table.add_row(reason.state.replace("_", " "), error, f"{reason.count:,}", reason.reason or "")
    return table
