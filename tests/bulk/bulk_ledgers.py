"""Ledgers, and rows in them."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from nxotp_async import OtpMessage
from nxotp_async.bulk import Ledger, MessageState
from nxotp_async.bulk.records import Claim, Entry, Outcome

TO = "9995550100"
CODE = "482913"
NOW: Final = 1_000_000_000.0  # long ago, so that what has expired then has expired by the machine's clock, too
UPTIME: Final = 5000.0  # the same moment by a clock that never jumps
FAR = datetime(2999, 1, 1, tzinfo=UTC)

QUEUED, SENDING, ACCEPTED = MessageState.QUEUED, MessageState.SENDING, MessageState.ACCEPTED
REJECTED, NOT_SENT, UNKNOWN = MessageState.REJECTED, MessageState.NOT_SENT, MessageState.UNKNOWN


def entry(number: int, content: str = CODE, *, to: str = TO, extra: Any = None, **fields: Any) -> Entry:
    """Return a row whose key in a new ledger is its number, if rows are numbered from 1."""
    identity = f"id-{number}"
    message = OtpMessage(to, content, cus_message_id=identity, **fields)
    return Entry(number + 1, identity, message, extra or {}, "")


def bad_entry(number: int, problem: str = "to is missing", extra: Any = None) -> Entry:
    return Entry(number + 1, f"id-{number}", None, extra or {}, problem)


def entries(count: int) -> list[Entry]:
    """Return rows from 1, each with a recipient of its own."""
    return [entry(number, to=f"999{number:07}") for number in range(1, count + 1)]


def take(ledger: Ledger, *rows: Entry, columns: Sequence[str] = ()) -> dict[str, tuple[int, int]]:
    """Take rows in as a file's, and return what the ledger held before."""
    with ledger.transaction():
        source = ledger.add_source("otps.csv")
        held = ledger.add(source, rows)
        ledger.set_columns(source, columns)
    return held


def at_once(has_waited: bool, recipient: str) -> float:
    return 0.0


def claim(
    ledger: Ledger,
    wanted: int = 100,
    *outcomes: Outcome,
    now: float = NOW,
    admit: Callable[[bool, str], float] = at_once,
) -> Claim:
    return ledger.exchange(outcomes, wanted, now, UPTIME + (now - NOW), admit)


def record(ledger: Ledger, *outcomes: Outcome, now: float = NOW) -> None:
    assert claim(ledger, 0, *outcomes, now=now).messages == []


def keys(claimed: Claim) -> list[int]:
    return [message.key for message in claimed.messages]


def states(ledger: Ledger) -> list[str]:
    return [result["status"] for result in ledger.results()]


def row(ledger: Ledger, number: int = 1) -> dict[str, Any]:
    return list(ledger.results())[number - 1]


def contents(ledger: Ledger) -> list[str | None]:
    """Return what is kept of the messages' contents."""
    return [content for (content,) in ledger._database.execute("SELECT content FROM messages ORDER BY id")]


def brought_to(state: MessageState, ledger: Ledger, **outcome: Any) -> None:
    """Take one row in and bring it to a state."""
    take(ledger, entry(1))
    ledger.begin_run(NOW)
    if state is not QUEUED:
        assert keys(claim(ledger)) == [1]
    if state not in (QUEUED, SENDING):
        record(ledger, Outcome(1, state, 1, **outcome))
    assert states(ledger) == [state]


def expiring(number: int, seconds: float, **fields: Any) -> Entry:
    return entry(number, expires_at=datetime.fromtimestamp(NOW + seconds, UTC), **fields)
