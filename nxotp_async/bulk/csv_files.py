"""CSV: reading rows of messages, and writing rows."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from ..errors import InputFileError
from .columns import RESULTS_ARE_NO_INPUT, Row, fields_of, holds_results, row_of
from .lines import MAX_LINE_BYTES, Lines

__all__ = ["csv_line", "read_csv"]

_EXAMPLE: Final = "the first line must name the columns: to,content and any others"
_TWICE: Final = 'write a quote inside a quoted cell twice: ""'
_NO_END: Final = ("a quoted cell that begins in this row has no end", _TWICE)


def csv_line(cells: Iterable[object]) -> str:
    """Return one row of CSV, ended by a line feed."""
    # Python quotes a lone carriage return only where it is a part of the row's own end.
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


def read_csv(lines: Lines) -> tuple[list[str], Iterator[Row]]:
    """Read the line with the names of the columns. Return them, and the rows that follow, which are read one by one.

    Raises:
        InputFileError: There is no such line, or it does not name the columns of messages.
    """
    first = next((line for line in lines if line.strip()), "")
    rows = _cells(first, lines)
    _, names = next(rows, (0, None))
    if names is None:
        raise InputFileError(f"{lines.name} is empty", hint=_EXAMPLE)
    columns = [name.strip() or f"column_{place}" for place, name in enumerate(names, start=1)]
    if holds_results(columns):
        raise lines.refusal(*RESULTS_ARE_NO_INPUT)
    try:
        fields = fields_of(columns)
    except ValueError as error:
        raise lines.refusal(str(error)) from None
    missing = {"to", "content"} - set(fields.values())
    if missing:
        # What stands there instead is not repeated: it may be numbers and codes.
        raise lines.refusal(f"names no column {' and no column '.join(sorted(missing, reverse=True))}", _EXAMPLE)
    if len(set(columns)) != len(columns):
        raise lines.refusal("names a column twice", "rename one of them")
    return columns, _rows(rows, columns, fields)


def _rows(rows: Iterable[tuple[int, list[str]]], columns: list[str], fields: Mapping[str, str]) -> Iterator[Row]:
    for line, cells in rows:
        if len(cells) == len(columns):
            yield row_of(line, dict(zip(columns, cells, strict=True)), fields, cells)
        else:
            # Its cells may be under the wrong names, so that none of them is kept: one could be the code.
            yield Row(line, None, {}, f"has {len(cells)} cells, not {len(columns)}", cells)


def _cells(first: str, lines: Lines) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that is not blank, with the line that it begins on.

    Args:
        first: The first line, which was read already.
        lines: The others.
    """
    begins_on, length = lines.number, 0

    def of_rows() -> Iterator[str]:
        """Yield the lines, as long as those of one row are not too long together."""
        nonlocal length
        yield first
        for line in lines:
            length += len(line)
            if length > MAX_LINE_BYTES:
                raise lines.refusal(*_NO_END, line=begins_on)
            yield line

    reader = csv.reader(of_rows(), delimiter=_delimiter(first), strict=True)
    before = lines.number - 1
    while True:
        begins_on, length = before + reader.line_num + 1, 0
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise lines.refusal(*_explain(error, lines.number > begins_on), line=begins_on) from None
        if any(cells):
            yield begins_on, cells


def _delimiter(header: str) -> str:
    """Return what separates the names of the first line: spreadsheets of many countries write semicolons."""
    return max(",;\t|", key=header.count)


def _explain(error: csv.Error, goes_on: bool) -> tuple[str, str | None]:
    """Say what is wrong with a row, given whether it goes on below its first line."""
    text = str(error)
    if "unexpected end of data" in text or ("field limit" in text and goes_on):
        return _NO_END
    if "field limit" in text:
        return f"a cell is longer than {csv.field_size_limit():,} characters", None
    if "expected after" in text:
        return "a quoted cell goes on after its closing quote", _TWICE
    if "new-line" in text:
        return "holds a carriage return outside of quotes", "end each row with a line feed"
    return "is no CSV row", None
