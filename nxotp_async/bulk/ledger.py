"""The ledger: what became of every message of a run, in one SQLite file that survives a crash.

The intent to send is durable before the first byte leaves, the outcome soon after. So a message that the ledger calls
queued has not been sent, one that it calls accepted has been, and one that a crash left in between is unknown.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Self

import attrs
import orjson

from ..languages import Language
from ..messages import ApiType, Category, OtpMessage
from . import schema
from .columns import Row
from .database import Database
from .exporting import RESULT_COLUMNS
from .money import Charge
from .reach import reach_of
from .schema import MessageState, StoredMessage, Transition

__all__ = ["Ledger", "Reason"]

_PAGE: Final = 1000  # rows read at once, so that nothing stays locked in between
_TRANSITION: Final = attrgetter(*schema.TRANSITION_COLUMNS)


@attrs.frozen
class Reason:
    """Why messages are in a state: the error's class, the vendor's code and Meta's, if there are any; and how many are.

    Attributes:
        reason: The text of one of their errors.
    """

    state: MessageState
    error: str | None
    code: int | None
    meta_code: int | None
    count: int
    reason: str | None


class Ledger:
    """A run's ledger. Its methods block; several threads may call them, and wait for one another.

    Times are seconds since the epoch, but for those called ``monotonic``, which are seconds of the run's clock that
    never jumps.

    Args:
        path: Its file, made with mode 0600; ``None`` makes a temporary one.
        create: Whether to make the file where it does not exist.
        digest_key: What identifies rows instead of the file's own key, so that two ledgers identify a row alike.

    Raises:
        LedgerError: It cannot be used: another process has it, it is no ledger, or it cannot be written. So do the
            methods.
    """

    def __init__(self, path: Path | str | None, *, create: bool = True, digest_key: bytes | None = None) -> None:
        self.path: Path | None = None if path is None else Path(path)
        self._database = Database(self.path, create=create)
        try:
            ((own_key,),) = self._database.query(schema.DIGEST_KEY)
            self._digest_key = digest_key or own_key
            with self.transaction():
                self._database.change(schema.INTERRUPT, (time.time(),))
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. What was in flight and has no outcome is unknown when it is opened again."""
        self._database.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Make all changes within it together, durably, or none of them. It costs one fsync."""
        return self._database.transaction()

    # ------------------------------------------------------------------------------------------ rows of files

    def identify(self, number: int, *parts: str) -> str:
        """Return the identity of a row without an id: a keyed digest, so that it tells strangers nothing."""
        text = "\0".join((str(number), *parts))
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=self._digest_key).hexdigest()

    def add_source(self, name: str, now: float) -> int:
        """Within a transaction, note a file whose rows follow, and return its number."""
        self._database.change(schema.INSERT_SOURCE, (name, now))
        ((source,),) = self._database.query("SELECT last_insert_rowid()")
        return int(source)

    def set_columns(self, source: int, columns: Sequence[str]) -> None:
        """Within a transaction, note the names of a file's columns that are no field of a message."""
        self._database.change(schema.SET_COLUMNS, (_json(columns), source))

    def add(self, source: int, rows: Sequence[tuple[str, Row]], now: float) -> dict[str, tuple[int, int]]:
        """Within a transaction, take rows in, each with its identity: as queued, or as not sent where it is no message.

        Rows whose identity the ledger holds already are left out, and returned: the source and the line of each there.
        """
        encoded = [_encoded(source, identity, row, now) for identity, row in rows]
        if self._database.insert(schema.INSERT, encoded) == len(rows):
            return {}
        lines = {identity: row.line for identity, row in rows}
        held = self._database.query(schema.FIND, (_json(list(lines)),))
        return {identity: (at, line) for identity, at, line in held if (at, line) != (source, lines[identity])}

    def correct(self, source: int, lines: Sequence[int]) -> None:
        """Within a transaction, note that invalid rows of other files, known by their lines, came again."""
        self._database.change(schema.CORRECT, (source, _json(lines)))

    # ------------------------------------------------------------------------------------------ a run

    def begin_run(self, now: float, *, max_per_recipient: int | None = None, keep_codes: bool = False) -> None:
        """Let everything that is queued be sent at any time, but for what has expired or is over the cap.

        The codes of what is rejected are kept from now on, or else erased, those that were kept before included.
        """
        self._database.checkpoint()  # all of a file may have just been loaded
        with self.transaction():
            self._database.change(schema.RESET_TIMES)
            self._database.change(schema.KEEP_CODES, (keep_codes,))
            if not keep_codes:
                self._database.change(schema.ERASE_REJECTED)
            self._expire(now, None)
            if max_per_recipient is not None:
                self._database.change(schema.CAP, (now, max_per_recipient, max_per_recipient))

    def expire(self, now: float, *, monotonic: float | None = None) -> Counter[MessageState]:
        """Take out of the queue what has expired, erase those codes, and return how many are in which state now.

        Given the run's time, too, what will have expired when it is due is taken as well.
        """
        with self.transaction():
            return self._expire(now, monotonic)

    def _expire(self, now: float, monotonic: float | None) -> Counter[MessageState]:
        parameters = (now, now, monotonic)
        expired = Counter({state: self._database.change(sql, parameters) for state, sql in schema.EXPIRE.items()})
        self._database.change(schema.ERASE_EXPIRED, (now,))
        return +expired

    def record(self, transitions: Sequence[Transition], now: float) -> None:
        """Within a transaction, note where claimed messages have gone."""
        if transitions:
            self._database.change(schema.RECORD, (now, _json([_TRANSITION(each) for each in transitions])))

    def due(self, limit: int, now: float, monotonic: float) -> list[StoredMessage]:
        """Return messages that have waited for their time, which has come, the earliest first."""
        return self._queued(schema.DUE, (now, monotonic, limit))

    def fresh(self, limit: int, now: float, *, after: int) -> list[StoredMessage]:
        """Return messages that may be sent at any time, in the order of the input, from behind this key."""
        return self._queued(schema.FRESH, (now, after, limit))

    def _queued(self, statement: str, parameters: tuple[object, ...]) -> list[StoredMessage]:
        ((rows,),) = self._database.query(statement, parameters)
        return [StoredMessage(key, _decoded(*columns), refusals) for key, refusals, *columns in orjson.loads(rows)]

    def claim(self, keys: Sequence[int], now: float) -> None:
        """Within a transaction, mark messages as in flight."""
        if keys:
            self._database.change(schema.CLAIM, (now, _json(keys)))

    def defer(self, times: Sequence[tuple[int, float]]) -> None:
        """Within a transaction, let messages wait: each key with the ``monotonic`` time before which it is not sent."""
        if times:
            self._database.change(schema.DEFER, (_json(times),))

    def next_due(self, now: float, monotonic: float) -> float | None:
        """Return when the first message that waits is due, by the run's clock; ``None`` where none waits."""
        ((next_due,),) = self._database.query(schema.NEXT_DUE, (now, monotonic))
        return None if next_due is None else float(next_due)

    def sent_since(self, then: float) -> dict[str, float]:
        """Return when each recipient was last sent to, as far as it was later than this."""
        return dict(self._database.query(schema.SENT_SINCE, (then,)))

    def forget_codes(self) -> None:
        """Let nothing of the erased codes remain in the file, where nothing is queued any more."""
        self._database.checkpoint(rebuild=not self.counts()[MessageState.QUEUED])

    # ------------------------------------------------------------------------------------------ looking at it

    def counts(self) -> Counter[MessageState]:
        """Count the messages in each state."""
        return Counter({MessageState(state): count for state, count in self._database.query(schema.COUNTS)})

    def queued_languages(self, default: str) -> Counter[str]:
        """Count what is queued by its template language; of messages that name none, that is the default."""
        rows = self._database.query(schema.QUEUED_LANGUAGES)
        languages: Counter[str] = Counter()
        for language, count in rows:
            languages[language or default] += count
        return languages

    def reasons(self) -> list[Reason]:
        """Count the messages that were not accepted by why, the most frequent reason first."""
        return [Reason(MessageState(state), *rest) for state, *rest in self._database.query(schema.REASONS)]

    def receipts(self) -> Counter[str]:
        """Count the messages that went out by how far they have come, as callbacks tell."""
        return Counter(dict(self._database.query(schema.RECEIPTS)))

    def reach(self) -> dict[str, list[dict[str, Any]]]:
        """Count the messages by country and by sender: how far they have come, and what they cost."""
        return reach_of(self._database.query(schema.REACH))

    def spent(self, currency: str) -> tuple[int, int, int]:
        """Return what has been sent: how many messages have no price yet; of the others all and the highest price."""
        ((unpriced, spent, highest),) = self._database.query(schema.SPENT, (currency,))
        return unpriced, spent, highest

    def count_awaited(self) -> int:
        """Count the messages that may have gone out, and of which no callback has told whether they arrived."""
        ((count,),) = self._database.query(schema.AWAITED)
        return int(count)

    def extra_columns(self) -> list[str]:
        """Return the names of the columns that are no field of a message, in the order of the files."""
        rows = self._database.query(schema.EXTRA_COLUMNS)
        return list(dict.fromkeys(name for (columns,) in rows for name in orjson.loads(columns)))

    def results(self) -> Iterator[dict[str, Any]]:
        """Yield every row with what became of it, in the order of the input; ``extra`` holds its other columns."""
        last = 0
        while rows := self._database.query(schema.RESULTS, (last, _PAGE)):
            last = rows[-1][0]
            for _, extra, *values in rows:
                yield {**dict(zip(RESULT_COLUMNS, values, strict=True)), "extra": orjson.loads(extra or "{}")}

    # ------------------------------------------------------------------------------------------ by hand

    def resolve(
        self, receipts: Mapping[str, str], *, by_callback: bool = False, charges: Mapping[str, Charge] | None = None
    ) -> int:
        """Note what became of messages, and return how many that says more of than was known before.

        An unknown message becomes accepted, but rejected where somebody says by hand that it has ``failed``.

        Args:
            receipts: ``sent``, ``delivered``, ``read``, ``failed`` or ``deleted``, by ``cus_message_id``.
            by_callback: Whether the vendor says so, who calls the message by the same id. Only unknown messages are
                settled otherwise.
            charges: What messages cost, by the same id.
        """
        rows = [(key, receipt, key if by_callback else None) for key, receipt in receipts.items()]
        with self.transaction():
            if charges:
                costs = _json([(key, *charge) for key, charge in charges.items()])
                for sql in schema.CHARGE:
                    self._database.change(sql, (costs,))
            return sum(self._database.change(sql, (time.time(), _json(rows))) for sql in schema.RESOLVE)

    def requeue(self, cus_message_ids: Iterable[str]) -> int:
        """Queue unknown messages again, and return how many were. Those whose code is erased stay unknown.

        Their recipients may get two messages.
        """
        with self.transaction():
            return self._database.change(schema.REQUEUE, (time.time(), _json(list(cus_message_ids))))

    def requeue_rejected(self, which: Iterable[str | int] | None = None) -> tuple[int, int]:
        """Queue rejected messages again. Return how many there were, and how many of them are queued now.

        Those are not whose code was not kept, or has expired.

        Args:
            which: Their ``cus_message_id``, or codes of the vendor's or Meta's, for which they were rejected; ``None``
                for all.
        """
        chosen = None if which is None else _json(list(which))
        with self.transaction():
            ((found,),) = self._database.query(schema.COUNT_REJECTED, (chosen,))
            return found, self._database.change(schema.REQUEUE_REJECTED, (chosen, time.time()))

    def unknown_ids(self) -> list[str]:
        """Return the ``cus_message_id`` of every unknown message, in the order of the input."""
        return [cus_message_id for (cus_message_id,) in self._database.query(schema.UNKNOWN_IDS)]


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


# ---------------------------------------------------------------------------------------------- a message's columns

_LATEST: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
_OPTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "language_code": Language,
    "category": Category,
    "dr_webhook": str,
    "api_type": ApiType,
    "business_phone": str,
}


def _encoded(source: int, identity: str, row: Row, now: float) -> tuple[object, ...]:
    """Return the values of a row, in the order of the statement INSERT."""
    message = row.message
    extra = _json(row.extra) if row.extra else None
    if message is None:
        error = (MessageState.NOT_SENT, "InvalidMessageError", row.problem, now)
        return (source, row.line, identity, extra, None, None, None, None, *error)
    options = {name: value for name in _OPTIONS if (value := getattr(message, name)) is not None}
    expires_at = message.expires_at and min(message.expires_at.timestamp(), _LATEST)
    content = (message.to, message.content, _json(options) if options else None, expires_at)
    return (source, row.line, identity, extra, *content, MessageState.QUEUED, None, None, None)


def _decoded(
    cus_message_id: str, recipient: str, content: str, expires_at: float | None, options: str | None
) -> OtpMessage:
    return OtpMessage.restored(
        recipient,
        content,
        cus_message_id=cus_message_id,
        expires_at=None if expires_at is None else datetime.fromtimestamp(expires_at, UTC),
        **{name: _OPTIONS[name](value) for name, value in orjson.loads(options or "{}").items()},
    )
