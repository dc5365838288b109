"""What became of every row, as CSV or NDJSON: one row for each of the input, in its order."""

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import orjson

from .files import FileFormat
from .formats import csv_line
from .ledger import Ledger
from .schema import RESULT_COLUMNS

__all__ = ["export", "is_export"]

_HEAD_BYTES: Final = 1024 * 1024  # far more than the names of the columns have


def export(ledger: Ledger, output: IO[str], file_format: FileFormat, *, show_number: Callable[[str], str] = str) -> int:
    """Write every row of the ledger, and return how many there were.

    The columns of the input that are no field of a message come after those of the result; one that is called like
    one of them gets ``input_`` before its name.

    Args:
        ledger: Where from.
        output: Where to.
        file_format: How.
        show_number: Makes of a recipient's number what is written.

    Raises:
        LedgerError: The ledger cannot be read.
        OSError: The output cannot be written.
    """
    extra_names = _extra_names(ledger.extra_columns())
    columns = [*RESULT_COLUMNS, *extra_names.values()]
    write = _csv_writer(output, columns) if file_format is FileFormat.CSV else _ndjson_writer(output)
    count = 0
    for result in ledger.results():
        count += 1
        extra = result.pop("extra")
        result["to"] = result["to"] and show_number(result["to"])
        for name in ("sent_at", "finished_at"):
            seconds = result[name]
            result[name] = seconds and datetime.fromtimestamp(seconds, UTC).isoformat("T", "milliseconds")
        write({**result, **{extra_names[name]: value for name, value in extra.items()}})
    return count


def is_export(path: Path, file_format: FileFormat) -> bool:
    """Return whether a file is an earlier export in this format: its first line begins with the columns of a result.

    An empty file counts as one: it is the export of an empty ledger as NDJSON, and holds nothing to lose.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    try:
        names = _names(head.decode(errors="replace"), file_format) if head else RESULT_COLUMNS
    except (ValueError, csv.Error):
        return False
    return names[: len(RESULT_COLUMNS)] == RESULT_COLUMNS


def _names(head: str, file_format: FileFormat) -> tuple[str, ...]:
    if file_format is FileFormat.CSV:
        return tuple(next(csv.reader(io.StringIO(head, newline=""))))
    row = orjson.loads(head.partition("\n")[0])
    return tuple(row) if isinstance(row, dict) else ()


def _extra_names(columns: list[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for column in columns:
        name = column
        while name in RESULT_COLUMNS or name in names.values():
            name = f"input_{name}"
        names[column] = name
    return names


def _csv_writer(output: IO[str], columns: list[str]) -> Callable[[dict[str, Any]], object]:
    output.write(csv_line(columns))
    return lambda row: output.write(csv_line(_cell(row.get(name)) for name in columns))


def _cell(value: object) -> object:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def _ndjson_writer(output: IO[str]) -> Callable[[dict[str, Any]], object]:
    return lambda row: output.write(orjson.dumps(row).decode() + "\n")
