"""What became of every row, as CSV or NDJSON: one row for each of the input, in its order."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import orjson

from .files import FileFormat
from .formats import csv_line, json_object
from .money import money

if TYPE_CHECKING:
    from .ledger import Ledger

__all__ = ["RESULT_COLUMNS", "export", "export_lines", "is_export"]

RESULT_COLUMNS: Final = {
    "line": "line",
    "cus_message_id": "cus_message_id",
    "to": "recipient",
    "status": "state",
    "message_id": "message_id",
    "code": "code",
    "meta_code": "meta_code",
    "error": "error",
    "reason": "reason",
    "attempts": "attempts",
    "receipt": "receipt",
    "sent_at": "sent_at",
    "finished_at": "finished_at",
    "price": "price",
    "foreign_price": "foreign_price",
    "currency": "currency",
}
"""The columns of a result, each with what the ledger's table calls it."""

_HEAD_BYTES: Final = 1024 * 1024  # far more than the names of the columns have


def export(
    ledger: "Ledger", output: IO[str], file_format: FileFormat, *, show_number: Callable[[str], str] = str
) -> int:
    """Write every row of the ledger, and return how many there were.

    The columns of the input that are no field of a message come after those of the result; one that is called like
    one of them gets ``input_`` before its name. What ``show_number`` makes of a recipient's number is written.

    Raises:
        LedgerError: The ledger cannot be read.
        OSError: The output cannot be written.
    """
    count = -1 if file_format is FileFormat.CSV else 0  # without the line of the columns
    for line in export_lines(ledger, file_format, show_number=show_number):
        output.write(line)
        count += 1
    return count


def export_lines(
    ledger: "Ledger", file_format: FileFormat, *, show_number: Callable[[str], str] = str
) -> Iterator[str]:
    """Yield the lines that `export` writes, in CSV that of the columns first."""
    extra_names = _extra_names(ledger.extra_columns())
    columns = [*RESULT_COLUMNS, *extra_names.values()]
    if file_format is FileFormat.CSV:
        yield csv_line(columns)
    for result in ledger.results():
        extra = result.pop("extra")
        result["to"] = result["to"] and show_number(result["to"])
        for name in ("sent_at", "finished_at"):
            seconds = result[name]
            result[name] = seconds and datetime.fromtimestamp(seconds, UTC).isoformat("T", "milliseconds")
        for name in ("price", "foreign_price"):
            result[name] = money(result[name])
        result |= {extra_names[name]: value for name, value in extra.items()}
        if file_format is FileFormat.CSV:
            yield csv_line(_cell(result.get(name)) for name in columns)
        else:
            yield orjson.dumps(result).decode() + "\n"


def is_export(path: Path, file_format: FileFormat, columns: Iterable[str] = tuple(RESULT_COLUMNS)) -> bool:
    """Return whether a file is an earlier export in this format: its first line begins with these columns.

    An empty file counts as one: it is the export of an empty ledger as NDJSON, and holds nothing to lose.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES).decode(errors="replace")
    if file_format is FileFormat.NDJSON:
        names = list(json_object(head.partition("\n")[0]) or ())
    else:
        try:
            names = next(csv.reader(io.StringIO(head, newline="")), [])
        except csv.Error:
            return False
    expected = list(columns)
    return not head or names[: len(expected)] == expected


def _extra_names(columns: list[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for column in columns:
        name = column
        while name in RESULT_COLUMNS or name in names.values():
            name = f"input_{name}"
        names[column] = name
    return names


def _cell(value: object) -> object:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
