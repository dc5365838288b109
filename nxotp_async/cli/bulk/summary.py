"""What became of a bulk run, for people and for machines, and what to do next."""

import os
from typing import Any, Final

import attrs
from rich.table import Table

from ...bulk import Ledger, MessageState, Report
from ..exit_codes import ExitCode
from ..output import error_fields, print_data, print_json, print_note, print_tables
from .progress import progress_text

__all__ = ["exit_code", "print_summary", "summary_of"]


def exit_code(report: Report) -> ExitCode:
    """Return the exit code of a run."""
    counts = report.counts
    if report.stopped:
        return ExitCode.INTERRUPTED
    if report.paused is not None:
        return ExitCode.of_pause(report.paused)
    if counts[MessageState.UNKNOWN]:
        return ExitCode.UNKNOWN
    return ExitCode.SUCCESS if counts[MessageState.ACCEPTED] == counts.total() else ExitCode.FAILURE


def summary_of(ledger: Ledger, report: Report) -> dict[str, Any]:
    """Return how many messages are in which state and why, as programs read it."""
    return {
        "ledger": os.fsencode(str(ledger.path)).decode(errors="replace"),
        "total": report.counts.total(),
        **{str(state): report.counts[state] for state in MessageState if state is not MessageState.SENDING},
        "paused": report.paused and error_fields(report.paused),
        "stopped": report.stopped,
        "receipts": _funnel(ledger),
        "reasons": [attrs.asdict(reason) for reason in ledger.reasons()],
        **ledger.reach(),
        "run": None,
    }


def print_summary(summary: dict[str, Any], *, as_json: bool) -> None:
    """Print what `summary_of` returns, as JSON, or as tables, with what to do next."""
    if as_json:
        print_json(summary)
        return
    ledger = summary["ledger"]
    if "transport" in summary:
        print_note(f"sent over the transport {summary['transport']}")
    print_tables(_states(summary), *([_reasons(summary["reasons"])] if summary["reasons"] else []))
    if any(summary["receipts"].values()):
        print_data("callbacks: " + ", ".join(f"{name} {count:,}" for name, count in summary["receipts"].items()))
    for key, groups in (("country", summary["countries"]), ("sender", summary["senders"])):
        if len(groups) > 1 or (key == "country" and any(group["costs"] for group in groups)):
            print_tables(_groups(key, groups))
    if summary["run"] is not None:
        print_data(f"at work, process {summary['run']['process']}: {progress_text(summary['run'])}")
        return
    if (paused := summary["paused"]) is not None:
        print_note(f"paused: {paused['message']}" + (f" ({paused['hint']})" if paused["hint"] else ""))
        print_note(f"fix it, then continue with: nxotp bulk resume {ledger}")
    elif summary["queued"]:
        print_note(f"continue with: nxotp bulk resume {ledger}")
    if summary["unknown"]:
        print_note(f"unknown messages may have arrived; resolve them: nxotp bulk resolve {ledger} --help")
    print_note(f"write one row of results for each row of the input: nxotp bulk export {ledger}")


def _funnel(ledger: Ledger) -> dict[str, int]:
    """Count the messages that have come at least so far, as callbacks tell."""
    receipts = ledger.receipts()
    return {
        "sent": receipts.total(),
        "delivered": receipts["delivered"] + receipts["read"],
        "read": receipts["read"],
        "failed": receipts["failed"],
    }


_MOST_GROUPS: Final = 20


def _groups(key: str, groups: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    figures = [
        name
        for name in ("messages", "queued", "accepted", "delivered", "failed", "rejected", "not_sent", "unknown")
        if name in ("messages", "accepted") or any(group[name] for group in groups)
    ]
    table.add_column(key)
    for name in (*figures, "cost"):
        table.add_column(name.replace("_", " "), justify="right")
    for group in groups[:_MOST_GROUPS]:
        cost = ", ".join(f"{amount} {currency}" for currency, amount in group["costs"].items())
        table.add_row(group[key] or "the client's", *(f"{group[name]:,}" for name in figures), cost or "-")
    if len(groups) > _MOST_GROUPS:
        table.add_row(f"{len(groups) - _MOST_GROUPS} more: --json")
    return table


def _states(summary: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    for state in MessageState:
        if state is not MessageState.SENDING:
            table.add_row(state.replace("_", " "), f"{summary[state]:,}")
    table.add_row("total", f"{summary['total']:,}", style="bold")
    return table


def _reasons(reasons: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("state", "error", "count", "example"):
        table.add_column(heading, justify="right" if heading == "count" else "left")
    for reason in reasons:
        code = reason["code"] if reason["meta_code"] is None else f"{reason['code']}/{reason['meta_code']}"
        error = reason["error"] if reason["code"] is None else f"{reason['error']} {code}"
        table.add_row(reason["state"].replace("_", " "), error, f"{reason['count']:,}", reason["reason"] or "")
    return table
