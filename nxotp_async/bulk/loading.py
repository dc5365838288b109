"""Taking a file into a ledger: all of it, or nothing."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs

from ..errors import InputFileError
from .files import MessageFile, Row
from .ledger import Ledger
from .records import Entry

__all__ = ["Loaded", "load"]

_BATCH_ROWS: Final = 1000
_BATCH_CHARACTERS: Final = 1_000_000
_MAX_COLUMNS: Final = 1000


@attrs.frozen
class Loaded:
    """What loading a file did.

    Attributes:
        rows: How many rows the file has.
        queued: How many of them are now queued.
        known: How many the ledger held before; they were not taken in again.
        rejected: How many are no messages.
    """

    rows: int
    queued: int
    known: int
    rejected: int


def _ignore(*_: object) -> None:
    pass


def load(
    ledger: Ledger,
    file: MessageFile,
    *,
    strict: bool = False,
    on_reject: Callable[[Row, str], object] = _ignore,
    on_progress: Callable[[int], object] = _ignore,
    before_commit: Callable[[], object] = _ignore,
) -> Loaded:
    """Take the rows of a file into the ledger, durably, or none of them where the file is refused.

    A row's identity is its ``cus_message_id``, or else a digest of recipient, content and row number: a row that the
    ledger holds already, from the same file loaded before for example, is not taken in again.

    Args:
        ledger: Where to.
        file: Where from.
        strict: Whether to refuse the file where any row is no message.
        on_reject: Called with every row that is no message, and what is wrong with it.
        on_progress: Called now and then with the number of rows read so far.
        before_commit: Called when all went well, before it becomes durable.

    Raises:
        InputFileError: The file is refused; nothing was taken in.
        LedgerError: The ledger cannot be written.
    """
    rows = queued = known = rejected = 0
    columns: dict[str, None] = {}
    with ledger.transaction():
        source = ledger.add_source(file.name)
        for batch in _batches(file):
            held = ledger.add(source, [_entry(ledger, number, row) for number, row in batch])
            twins = []
            for number, row in batch:
                columns.update(dict.fromkeys(row.extra))
                at, line = held.get(_identity(ledger, number, row), (source, row.line))
                if at != source:
                    known += 1
                    continue
                problem = row.problem
                if line != row.line:
                    problem = f"cus_message_id is that of line {line}"
                    twins.append(_bad_entry(ledger, number, row, problem))
                if problem:
                    rejected += 1
                    on_reject(row, problem)
                else:
                    queued += 1
            ledger.add(source, twins)
            rows += len(batch)
            if len(columns) > _MAX_COLUMNS:
                raise InputFileError(f"{file.name} has more than {_MAX_COLUMNS} different columns")
            on_progress(rows)
        if not rows:
            raise InputFileError(f"{file.name} holds no rows")
        if strict and rejected:
            raise InputFileError(
                f"{file.name}: {rejected} of {rows} rows are no messages", hint="nothing was loaded or sent"
            )
        ledger.set_columns(source, list(columns))
        before_commit()
    return Loaded(rows, queued, known, rejected)


def _batches(rows: Iterable[Row]) -> Iterator[list[tuple[int, Row]]]:
    """Yield the rows with their numbers, from 1, in batches that are neither long nor large."""
    batch: list[tuple[int, Row]] = []
    size = 0
    for number, row in enumerate(rows, start=1):
        batch.append((number, row))
        size += len(row.raw) if isinstance(row.raw, str) else sum(map(len, row.raw))
        if len(batch) >= _BATCH_ROWS or size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _entry(ledger: Ledger, number: int, row: Row) -> Entry:
    if row.message is None:
        return _bad_entry(ledger, number, row, row.problem)
    return Entry(row.line, _identity(ledger, number, row), row.message, row.extra, "")


def _bad_entry(ledger: Ledger, number: int, row: Row, problem: str) -> Entry:
    # Its own cus_message_id stays free for the row that comes in its place.
    return Entry(row.line, ledger.identify(number, *row.raw), None, row.extra, problem)


def _identity(ledger: Ledger, number: int, row: Row) -> str:
    if row.message is None:
        return ledger.identify(number, *row.raw)
    return row.message.cus_message_id or ledger.identify(number, row.message.to, row.message.content)
