"""Writing rows of CSV."""

import csv
import io
from collections.abc import Iterable

__all__ = ["csv_line"]


def csv_line(cells: Iterable[object]) -> str:
    """Return one row of CSV, ended by a line feed."""
    # Python quotes a lone carriage return only where it is a part of the row's own end.
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"
