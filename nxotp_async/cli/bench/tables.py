"""What the benchmark prints."""

import sys
from pathlib import Path

from rich.table import Table

from ...bench import BenchmarkReport, compare
from ...bench.figures import caveats, described, figures
from ..exit_codes import ExitCode
from ..output import fail, print_data, print_error, print_tables

__all__ = ["print_comparison", "print_report", "read_report"]


def read_report(path: Path) -> BenchmarkReport:
    """Read a report from its file."""
    try:
        return BenchmarkReport.from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be read: {error}", ExitCode.USAGE)


def print_report(report: BenchmarkReport, *, as_json: bool) -> bool:
    """Print every figure, and the caveats; return false if standard output cannot be written."""
    written = True
    if as_json:
        written = print_data(report.to_json())
    elif report.seconds:
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column()
        table.add_column(justify="right")
        for figure in figures(report):
            table.add_row(figure.name, figure.text)
        written = print_tables(described(report), table)
    for caveat in caveats(report):
        print_error(caveat)
    return written


def print_comparison(first: BenchmarkReport, second: BenchmarkReport) -> None:
    """Print every figure of both, and how their conditions differ; exit if standard output cannot be written."""
    rows, differences = compare(first, second)
    table = Table("", "first", "second", "change", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(row.first.name, row.first.text, row.second.text, row.change)
    written = print_tables(table)
    for difference in differences:
        print_error(f"different conditions: {difference}")
    if not written:
        sys.exit(ExitCode.CONFIGURATION)
