"""Taking a file into a ledger: all of it, or nothing."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs

from ..errors import InputFileError, sensitive_variables
from .columns import Row
from .files import MessageFile
from .ledger import Ledger
from .rejects import rejected_lines

__all__ = ["Loaded", "load"]

_BATCH_ROWS: Final = 1000
_BATCH_CHARACTERS: Final = 1_000_000
_MAX_COLUMNS: Final = 1000


@attrs.frozen
class Loaded:
    """How many rows of a file there were, and what became of them.

    Attributes:
        rows: All of them.
        queued: How many are now queued.
        known: How many the ledger held before; they were not taken in again.
        rejected: How many are not valid messages.
    """

    rows: int
    queued: int
    known: int
    rejected: int


def _ignore(*_: object) -> None:
    pass


@sensitive_variables
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
        strict: Whether to refuse the file where any row is not a valid message.
        on_reject: Called with every row that is not a valid message, and what is wrong with it.
        on_progress: Called now and then with the number of rows read so far.
        before_commit: Called when all went well, before it becomes durable.

    Raises:
        InputFileError: The file is refused; nothing was taken in.
        LedgerError: The ledger cannot be written.
    """
    rows = queued = known = rejected = 0
    columns: dict[str, None] = {}
    corrected: list[int] = []
    now = time.time()
    with ledger.transaction():
        source = ledger.add_source(file.name, now)
        for batch in _batches(file):
            for row, problem in _add(ledger, source, batch, now):
                columns.update(dict.fromkeys(row.extra))
                if problem is None:
                    known += 1
                    continue
                corrected += rejected_lines(row)
                if problem:
                    rejected += 1
                    on_reject(row, problem)
                else:
                    queued += 1
            rows += len(batch)
            if len(columns) > _MAX_COLUMNS:
                raise InputFileError(f"{file.name} has more than {_MAX_COLUMNS} different columns")
            on_progress(rows)
        if not rows:
            raise InputFileError(f"{file.name} holds no rows")
        if strict and rejected:
            raise InputFileError(
                f"{file.name}: {rejected} of {rows} rows are invalid", hint="nothing was loaded or sent"
            )
        if corrected:
            ledger.correct(source, corrected)
        ledger.set_columns(source, list(columns))
        before_commit()
    return Loaded(rows, queued, known, rejected)


def _batches(rows: Iterable[Row]) -> Iterator[list[tuple[int, Row]]]:
    """Yield the rows with their numbers, from 1, in batches that are neither long nor large."""
    batch: list[tuple[int, Row]] = []
    size = 0
    for number, row in enumerate(rows, start=1):
        batch.append((number, row))
        size += sum(map(len, _cells(row)))
        if len(batch) >= _BATCH_ROWS or size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _add(ledger: Ledger, source: int, batch: list[tuple[int, Row]], now: float) -> Iterator[tuple[Row, str | None]]:
    """Take rows in, and yield each with what is wrong with it, or ``None`` where the ledger held it before."""
    identities = [_identity(ledger, number, row) for number, row in batch]
    held = ledger.add(source, [(identity, row) for identity, (_, row) in zip(identities, batch, strict=True)], now)
    duplicates = []
    for identity, (number, row) in zip(identities, batch, strict=True):
        at, line = held.get(identity, (source, row.line))
        if at != source:
            yield row, None
        elif line == row.line:
            yield row, row.problem
        else:
            bad = attrs.evolve(row, message=None, problem=f"cus_message_id is that of line {line}")
            duplicates.append((_identity(ledger, number, bad), bad))
            yield row, bad.problem
    ledger.add(source, duplicates, now)


def _identity(ledger: Ledger, number: int, row: Row) -> str:
    message = row.message
    if message is None:  # its own cus_message_id stays free for the row that comes in its place
        return ledger.identify(number, *_cells(row))
    return message.cus_message_id or ledger.identify(number, message.to, message.content)


def _cells(row: Row) -> list[str]:
    return [row.raw] if isinstance(row.raw, str) else row.raw
