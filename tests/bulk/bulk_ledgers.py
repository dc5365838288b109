"""Ledgers, and rows in them."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from unittest import mock
from weakref import WeakKeyDictionary

from nxotp_async import OtpMessage
from nxotp_async.bulk import Ledger, MessageState, Row
from nxotp_async.bulk.exchange import Batch, LedgerExchange
from nxotp_async.bulk.schema import Transition

TO = "9995550100"
CODE = "482913"
NOW: Final = 1_000_000_000.0  # long ago, so that what has expired then has expired by the machine's clock, too
UPTIME: Final = 5000.0  # the same moment by a clock that never jumps
FAR = datetime(2999, 1, 1, tzinfo=UTC)

QUEUED, SENDING, ACCEPTED = MessageState.QUEUED, MessageState.SENDING, MessageState.ACCEPTED
REJECTED, NOT_SENT, UNKNOWN = MessageState.REJECTED, MessageState.NOT_SENT, MessageState.UNKNOWN


class ProbedLedger(Ledger):
    """A ledger that shows its connection to the database, and counts its transactions."""

    connection: sqlite3.Connection
    transactions = 0

    def __init__(self, path: Path | None, *, create: bool = True) -> None:
        connect = sqlite3.connect

        def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
            self.connection = connect(*arguments, **options)
            return self.connection

        with mock.patch("sqlite3.connect", watched):
            super().__init__(path, create=create)

    def transaction(self) -> AbstractContextManager[None]:
        self.transactions += 1
        return super().transaction()

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Let the file not grow any more."""
        ((pages,),) = self.connection.execute("PRAGMA page_count")
        ((before,),) = self.connection.execute("PRAGMA max_page_count")
        self.connection.execute(f"PRAGMA max_page_count = {pages}")
        try:
            yield
        finally:
            self.connection.execute(f"PRAGMA max_page_count = {before}")


def entry(number: int, content: str = CODE, *, to: str = TO, extra: Any = None, **fields: Any) -> tuple[str, Row]:
    """Return a row whose key in a new ledger is its number, if rows are numbered from 1, with its identity."""
    identity = f"id-{number}"
    message = OtpMessage(to, content, cus_message_id=identity, **fields)
    return identity, Row(number + 1, message, extra or {}, "", "")


def bad_entry(number: int, problem: str = "to is missing", extra: Any = None) -> tuple[str, Row]:
    return f"id-{number}", Row(number + 1, None, extra or {}, problem, "")


def entries(count: int) -> list[tuple[str, Row]]:
    """Return rows from 1, each with a recipient of its own."""
    return [entry(number, to=f"999{number:07}") for number in range(1, count + 1)]


def take(ledger: Ledger, *rows: tuple[str, Row], columns: Sequence[str] = ()) -> dict[str, tuple[int, int]]:
    """Take rows in as a file's, and return what the ledger held before."""
    with ledger.transaction():
        source = ledger.add_source("otps.csv", NOW)
        held = ledger.add(source, rows, NOW)
        ledger.set_columns(source, columns)
    return held


_RUNS: WeakKeyDictionary[Ledger, LedgerExchange] = WeakKeyDictionary()


def begin(
    ledger: Ledger,
    now: float = NOW,
    monotonic: float | None = None,
    *,
    per_recipient: float = 0.0,
    max_per_recipient: int | None = None,
    keep_codes: bool = False,
) -> None:
    """Begin a run, the one that `claim` and `record` belong to from now on."""
    run = _RUNS[ledger] = LedgerExchange(ledger, per_recipient, max_per_recipient, keep_codes=keep_codes)
    assert run.begin(now, _uptime(now) if monotonic is None else monotonic) == ledger.counts()


def _uptime(now: float) -> float:
    return UPTIME + (now - NOW)


def claim(
    ledger: Ledger, wanted: int = 100, *transitions: Transition, now: float = NOW, monotonic: float | None = None
) -> Batch:
    return _RUNS[ledger].exchange(transitions, wanted, now, _uptime(now) if monotonic is None else monotonic)


def look_again(ledger: Ledger, now: float) -> int:
    """Look through the queue from its start, and return how many are in it."""
    return _RUNS[ledger].look_again(now, _uptime(now))[QUEUED]


def record(ledger: Ledger, *transitions: Transition, now: float = NOW) -> None:
    assert claim(ledger, 0, *transitions, now=now).messages == []


def keys(claimed: Batch) -> list[int]:
    return [message.key for message in claimed.messages]


def states(ledger: Ledger) -> list[str]:
    return [result["status"] for result in ledger.results()]


def row(ledger: Ledger, number: int = 1) -> dict[str, Any]:
    return list(ledger.results())[number - 1]


def contents(ledger: ProbedLedger) -> list[str | None]:
    """Return what is kept of the messages' contents."""
    return [content for (content,) in ledger.connection.execute("SELECT content FROM messages ORDER BY id")]


def brought_to(state: MessageState, ledger: Ledger, **transition: Any) -> None:
    """Take one row in and bring it to a state."""
    take(ledger, entry(1))
    begin(ledger)
    if state is not QUEUED:
        assert keys(claim(ledger)) == [1]
    if state not in (QUEUED, SENDING):
        record(ledger, Transition(1, state, 1, **transition))
    assert states(ledger) == [state]


def expiring(number: int, seconds: float, **fields: Any) -> tuple[str, Row]:
    return entry(number, expires_at=datetime.fromtimestamp(NOW + seconds, UTC), **fields)
