"""The ledger: what became of every message of a run, in one SQLite file that survives a crash.

The intent to send is durable before the first byte leaves, the outcome soon after. So a message that the ledger calls
queued has not been sent, one that it calls accepted has been, and one that a crash left in between is unknown.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

import attrs
import orjson

from ..errors import LedgerError, without_frames
from .database import IN_LOG, checkpoint, close_database, guarded, mark, open_database, transaction
from .encoding import as_columns, as_json, as_message
from .records import Claim, ClaimedMessage, Entry, MessageState, Outcome, Reason
from .statements import CAP, EXPIRE, NEXT_DUE, ORPHANS, RECORD, RESOLVE, RESULTS

__all__ = ["Ledger"]

_QueuedRow = tuple[int, str, str, str, str | None, float | None, int]
_Admit = Callable[[bool, str], float]
_PAGE: Final = 1000  # rows read at once, so that nothing stays locked in between
_COMMITS_IN_LOG: Final = 100  # before the write-ahead log, some megabytes then, is put into the file
_MAX_ROUNDS: Final = 20  # of looking for messages in one exchange, so that none takes long


class Ledger:
    """A run's ledger. Its methods block; several threads may call them, and wait for one another.

    Args:
        path: Its file, made with mode 0600; ``None`` makes a temporary one.
        create: Whether to make the file where it does not exist.

    Raises:
        LedgerError: It cannot be used: another process has it, it is no ledger, or it cannot be written.
    """

    def __init__(self, path: Path | str | None, *, create: bool = True) -> None:
        self.path: Path | None = None if path is None else Path(path)
        self.commits: int = 0
        self._commits_in_log = 0
        self._looked_through = 0  # the place up to which the queue has been looked through in this run
        self._name = "the temporary ledger" if path is None else str(path)
        self._lock = threading.RLock()
        self._database = open_database(self.path, create=create)
        try:
            (self._identity_key,) = self._one("SELECT key FROM identity")
            self._mark_orphans()
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. What was in flight and has no outcome is unknown when it is opened again."""
        with self._lock:
            close_database(self._database, self._name)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all changes within it together, durably, or none of them. It costs one fsync."""
        with self._lock:
            with transaction(self._database, self._name):
                if not self._commits_in_log:
                    mark(self._database, IN_LOG)
                yield
            self.commits += 1
            self._commits_in_log += 1
            if self._commits_in_log >= _COMMITS_IN_LOG:
                with suppress(LedgerError):  # what was committed is durable all the same
                    self._checkpoint()

    def _checkpoint(self) -> None:
        with self._access():
            self._commits_in_log = 0
            checkpoint(self._database)

    @contextmanager
    def _access(self) -> Iterator[None]:
        with self._lock, guarded(self._name):
            yield

    def _one(self, statement: str, parameters: Sequence[object] = ()) -> Any:  # noqa: ANN401 - a row of SQLite's
        with self._access():
            return self._database.execute(statement, parameters).fetchone()

    def _mark_orphans(self) -> None:
        with self.transaction():
            self._database.execute(ORPHANS, (time.time(),))

    # ------------------------------------------------------------------------------------------ rows in

    def identify(self, number: int, *parts: str) -> str:
        """Return the identity of a row without an id: a keyed digest, so that it tells strangers nothing."""
        text = "\0".join((str(number), *parts))
        return hashlib.blake2b(
            text.encode("utf-8", "surrogatepass"), digest_size=16, key=self._identity_key
        ).hexdigest()

    def add_source(self, name: str) -> int:
        """Within a transaction, note a file whose rows follow, and return its number."""
        cursor = self._database.execute(
            "INSERT INTO sources (name, columns, loaded_at) VALUES (?, '[]', ?)", (name, time.time())
        )
        return int(cursor.lastrowid or 0)

    def set_columns(self, source: int, columns: Sequence[str]) -> None:
        """Within a transaction, note the names of a file's columns that are no field of a message."""
        self._database.execute("UPDATE sources SET columns = ? WHERE id = ?", (as_json(columns), source))

    def add(self, source: int, entries: Sequence[Entry]) -> dict[str, tuple[int, int]]:
        """Within a transaction, take rows in as queued, or as not sent where they are no messages.

        Returns:
            The identities that the ledger held before, each with the source and the line it has there. These rows
            were not taken in.
        """
        inserted = self._database.executemany(
            "INSERT OR IGNORE INTO messages (source, line, cus_message_id, recipient, content, options, expires_at,"
            " extra, state, error, reason, finished_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [as_columns(source, entry) for entry in entries],
        ).rowcount
        if inserted == len(entries):
            return {}
        lines = {entry.identity: entry.line for entry in entries}
        held = self._database.execute(
            "SELECT cus_message_id, source, line FROM messages"
            " WHERE cus_message_id IN (SELECT value FROM json_each(?))",
            (as_json(list(lines)),),
        )
        return {identity: (at, line) for identity, at, line in held if (at, line) != (source, lines[identity])}

    # ------------------------------------------------------------------------------------------ a run

    def begin_run(self, now: float, *, max_per_recipient: int | None = None) -> None:
        """Let everything that is queued be sent at any time, but for what has expired or is over the cap.

        Args:
            now: Seconds since the epoch.
            max_per_recipient: How many messages of the ledger one recipient may get.
        """
        self._checkpoint()  # all of a file may have just been loaded
        self._looked_through = 0
        with self.transaction():
            # What waited did so by the clock of an earlier run, which may have been another process's.
            self._database.execute("UPDATE messages SET not_before = 0 WHERE state = 'queued' AND not_before > 0")
        self.expire(now)
        if max_per_recipient is not None:
            with self.transaction():
                self._database.execute(CAP, (now, max_per_recipient, max_per_recipient))

    def expire(self, now: float, *, monotonic: float | None = None) -> Counter[MessageState]:
        """Take messages out of the queue whose codes have expired, and erase those codes.

        Args:
            now: Seconds since the epoch.
            monotonic: The time by the run's clock that never jumps, to take those, too, that will have expired when
                they are due.

        Returns:
            How many are in which state now.
        """
        expired: Counter[MessageState] = Counter()
        with self.transaction():
            for state, statement in EXPIRE.items():
                expired[state] = self._database.execute(statement, (now, now, monotonic)).rowcount
            self._database.execute(
                "UPDATE messages SET content = NULL"
                " WHERE state = 'unknown' AND expires_at <= ? AND content IS NOT NULL",
                (now,),
            )
        return +expired

    def look_again(self) -> bool:
        """Look through the queue from its start again, and return whether anything is in it."""
        self._looked_through = 0
        (is_queued,) = self._one("SELECT EXISTS (SELECT 1 FROM messages WHERE state = 'queued')")
        return bool(is_queued)

    def exchange(self, outcomes: Sequence[Outcome], wanted: int, now: float, monotonic: float, admit: _Admit) -> Claim:
        """Write outcomes and claim further messages, in one durable step.

        Args:
            outcomes: What became of messages claimed before.
            wanted: How many messages to claim at the most.
            now: Seconds since the epoch; judges ``expires_at``.
            monotonic: Seconds of the run's clock that never jumps; judges ``not_before``.
            admit: Given whether a message has waited before, and its recipient, returns 0.0 where it may be sent
                now, else the time until which it has to wait, in seconds of the clock that never jumps.
        """
        looked_through = self._looked_through
        try:
            return self._exchange(outcomes, wanted, now, monotonic, admit)
        except BaseException as error:
            self._looked_through = looked_through
            if not isinstance(error, LedgerError):
                raise
            failure = without_frames(error)  # they hold the contents of messages
        raise failure

    def _exchange(self, outcomes: Sequence[Outcome], wanted: int, now: float, monotonic: float, admit: _Admit) -> Claim:
        messages: list[ClaimedMessage] = []
        exhausted = False
        with self.transaction():
            self._record(outcomes, now)
            for _ in range(_MAX_ROUNDS):
                missing = wanted - len(messages)
                if not missing:
                    break
                rows = self._due(missing, now, monotonic)
                has_waited = bool(rows)
                rows = rows or self._fresh(missing, now)
                exhausted = not rows
                if exhausted:
                    break
                messages += self._claim(rows, now, partial(admit, has_waited))
            (next_due,) = self._one(NEXT_DUE, (now, monotonic))
        return Claim(messages, next_due, exhausted)

    def _record(self, outcomes: Sequence[Outcome], now: float) -> None:
        if outcomes:
            self._database.execute(RECORD, (now, as_json([attrs.astuple(outcome) for outcome in outcomes])))

    def _due(self, limit: int, now: float, monotonic: float) -> list[_QueuedRow]:
        return self._queued("not_before > 0 AND not_before <= ?", "not_before", (now, monotonic, limit))

    def _fresh(self, limit: int, now: float) -> list[_QueuedRow]:
        rows = self._queued("not_before = 0 AND id > ?", "id", (now, self._looked_through, limit))
        if rows:
            self._looked_through = rows[-1][0]
        return rows

    def _queued(self, where: str, order: str, parameters: tuple[object, ...]) -> list[_QueuedRow]:
        # As one JSON text it is one step of SQLite's, and so one handover of Python's lock to the event loop.
        (rows,) = self._one(
            "SELECT json_group_array(json_array(id, cus_message_id, recipient, content, options, expires_at, refusals))"  # noqa: S608 - constants
            " FROM (SELECT * FROM messages WHERE state = 'queued' AND (expires_at IS NULL OR expires_at > ?)"
            f" AND {where} ORDER BY {order} LIMIT ?)",
            parameters,
        )
        return cast("list[_QueuedRow]", orjson.loads(rows))

    def _claim(self, rows: Iterable[_QueuedRow], now: float, admit: Callable[[str], float]) -> list[ClaimedMessage]:
        claimed, waiting = [], []
        for key, cus_message_id, recipient, content, options, expires_at, refusals in rows:
            not_before = admit(recipient)
            if not_before:
                waiting.append((key, not_before))
            else:
                message = as_message(cus_message_id, recipient, content, options, expires_at)
                claimed.append(ClaimedMessage(key, message, refusals))
        if claimed:
            self._database.execute(
                "UPDATE messages SET state = 'sending', not_before = 0, sent_at = ?"
                " WHERE id IN (SELECT value FROM json_each(?))",
                (now, as_json([claim.key for claim in claimed])),
            )
        if waiting:
            self._database.execute(
                "UPDATE messages SET not_before = json_extract(o.value, '$[1]') FROM json_each(?) AS o"
                " WHERE messages.id = json_extract(o.value, '$[0]')",
                (as_json(waiting),),
            )
        return claimed

    def forget_codes(self) -> None:
        """Let nothing of the erased codes remain in the file, where nothing is queued any more."""
        with self._access():
            if not self.counts()[MessageState.QUEUED]:
                # Erased text is overwritten, but not in the gaps that remain where SQLite has divided a page.
                self._database.execute("VACUUM")
            self._checkpoint()

    # ------------------------------------------------------------------------------------------ looking at it

    def counts(self) -> Counter[MessageState]:
        """Count the messages in each state."""
        with self._access():
            rows = self._database.execute("SELECT state, count(*) FROM messages GROUP BY state").fetchall()
        return Counter({MessageState(state): count for state, count in rows})

    def reasons(self) -> list[Reason]:
        """Count the messages that were not accepted by why, the most frequent reason first."""
        with self._access():
            rows = self._database.execute(
                "SELECT state, error, code, meta_code, count(*) AS n, max(reason) FROM messages"
                " WHERE error IS NOT NULL AND state IN ('rejected', 'not_sent', 'unknown')"
                " GROUP BY state, error, code, meta_code ORDER BY n DESC"
            ).fetchall()
        return [Reason(MessageState(state), *rest) for state, *rest in rows]

    def receipts(self) -> Counter[str]:
        """Count the messages that went out by how far they have come, as callbacks tell."""
        with self._access():
            rows = self._database.execute(
                "SELECT receipt, count(*) FROM messages WHERE receipt IS NOT NULL GROUP BY receipt"
            ).fetchall()
        return Counter(dict(rows))

    def count_awaited(self) -> int:
        """Count the messages that may have gone out, and of which no callback has told whether they arrived."""
        (count,) = self._one(
            "SELECT count(*) FROM messages WHERE state IN ('accepted', 'unknown', 'sending')"
            " AND coalesce(receipt, 'sent') = 'sent'"
        )
        return int(count)

    def sent_since(self, then: float) -> dict[str, float]:
        """Return when each recipient was last sent to, in seconds since the epoch, as far as it was later than this."""
        with self._access():
            rows = self._database.execute(
                "SELECT recipient, max(sent_at) FROM messages WHERE sent_at > ? GROUP BY recipient", (then,)
            ).fetchall()
        return dict(rows)

    def extra_columns(self) -> list[str]:
        """Return the names of the columns that are no field of a message, in the order of the files."""
        with self._access():
            rows = self._database.execute("SELECT columns FROM sources ORDER BY id").fetchall()
        return list(dict.fromkeys(name for (columns,) in rows for name in orjson.loads(columns)))

    def results(self) -> Iterator[dict[str, Any]]:
        """Yield every row with what became of it, in the order of the input; ``extra`` holds its other columns."""
        last = 0
        while True:
            with self._access():
                cursor = self._database.execute(RESULTS, (last, _PAGE))
                names = [column[0] for column in cursor.description]
                rows = cursor.fetchall()
            for row in rows:
                result = dict(zip(names, row, strict=True))
                last = result.pop("id")
                yield {**result, "extra": orjson.loads(result["extra"] or "{}")}
            if len(rows) < _PAGE:
                return

    # ------------------------------------------------------------------------------------------ by hand

    def resolve(self, receipts: Mapping[str, str], *, by_callback: bool = False) -> int:
        """Note what became of messages, and return how many that says more of than was known before.

        An unknown message becomes accepted, but rejected where somebody says by hand that it has ``failed``.

        Args:
            receipts: ``sent``, ``delivered``, ``read``, ``failed`` or ``deleted``, by ``cus_message_id``.
            by_callback: Whether the vendor says so, who calls the message by the same id. Only unknown messages are
                settled otherwise.
        """
        rows = [(key, receipt, key if by_callback else None) for key, receipt in receipts.items()]
        with self.transaction():
            parameters = (time.time(), as_json(rows))
            return sum(self._database.execute(statement, parameters).rowcount for statement in RESOLVE)

    def requeue(self, cus_message_ids: Iterable[str]) -> int:
        """Queue unknown messages again, and return how many were. Those whose code is erased stay unknown.

        Their recipients may get two messages.
        """
        with self.transaction():
            return self._database.execute(
                "UPDATE messages SET state = 'queued', not_before = 0, refusals = 0, finished_at = NULL,"
                " may_have_arrived = 1"
                " WHERE state = 'unknown' AND content IS NOT NULL AND (expires_at IS NULL OR expires_at > ?)"
                " AND cus_message_id IN (SELECT value FROM json_each(?))",
                (time.time(), as_json(list(cus_message_ids))),
            ).rowcount

    def unknown_ids(self) -> list[str]:
        """Return the ``cus_message_id`` of every unknown message, in the order of the input."""
        with self._access():
            rows = self._database.execute(
                "SELECT cus_message_id FROM messages WHERE state = 'unknown' ORDER BY id"
            ).fetchall()
        return [cus_message_id for (cus_message_id,) in rows]
