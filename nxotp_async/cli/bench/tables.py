"""What the benchmark prints."""

import io
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ...bench import BenchmarkReport, compare
from ...bench.figures import caveats, described, figures
from ..common import EXIT_USAGE, fail, print_data, stderr

__all__ = ["print_comparison", "print_report", "read_report", "say_caveats"]


def read_report(path: Path) -> BenchmarkReport:
    """Read a report from its file."""
    try:
        return BenchmarkReport.from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be read: {error}", EXIT_USAGE)


def print_report(report: BenchmarkReport) -> bool:
    """Print every figure, and the caveats; return false if standard output cannot be written."""
    if not report.seconds:
        say_caveats(report)
        return True
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for figure in figures(report):
        table.add_row(figure.name, figure.text)
    written = _print(table, described(report))
    say_caveats(report)
    return written


def say_caveats(report: BenchmarkReport) -> None:
    """Print the caveats of a report."""
    _warn(caveats(report))


def print_comparison(first: BenchmarkReport, second: BenchmarkReport) -> bool:
    """Print every figure of both, and how their conditions differ. Return as `print_report` does."""
    rows, differences = compare(first, second)
    table = Table("", "first", "second", "change", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(row.first.name, row.first.text, row.second.text, row.change)
    written = _print(table)
    _warn(f"different conditions: {difference}" for difference in differences)
    return written


def _print(table: Table, *heading: str) -> bool:
    text = io.StringIO()
    Console(file=text, highlight=False, markup=False, width=100).print(table)
    return print_data("\n".join([*heading, *(line.rstrip() for line in text.getvalue().splitlines())]))


def _warn(texts: Iterable[str]) -> None:
    for text in texts:
        stderr.print(f"nxotp: {text}", style="bold yellow", markup=False, soft_wrap=True)
