# ruff: noqa: S608 - statements are put together from constants
"""What a ledger holds: its tables, the states of a message, what goes in and comes out, and every statement.

How a message goes from state to state, and the statement that takes it there:

    a row of a file -> queued                           INSERT
    a row of a file -> not_sent                         INSERT: it is not a valid message
    queued -> sending                                   CLAIM: durable before the first byte leaves
    queued -> queued, but not before a time             DEFER
    queued -> not_sent, rejected, unknown               EXPIRE, CAP
    sending -> accepted, rejected, not_sent, unknown    RECORD
    sending -> queued, not before a time                RECORD: it is sent again
    sending -> unknown, accepted                        INTERRUPT: the process has ended meanwhile
    unknown -> accepted, rejected                       RESOLVE
    unknown -> queued                                   REQUEUE: by hand; it may have arrived from then on

Rows go into a statement as one JSON text, and come out as one: that is one step of SQLite's, and so one handover of
Python's lock to the event loop.
"""

from enum import StrEnum
from typing import Final

import attrs

from ..messages import OtpMessage
from .exporting import RESULT_COLUMNS

__all__ = ["MessageState", "StoredMessage", "Transition"]

TABLES: Final = """
CREATE TABLE metadata (digest_key BLOB NOT NULL, log_state INTEGER NOT NULL);
CREATE TABLE sources (id INTEGER PRIMARY KEY, name TEXT NOT NULL, columns TEXT NOT NULL, loaded_at REAL NOT NULL);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    line INTEGER NOT NULL,
    cus_message_id TEXT NOT NULL UNIQUE,
    recipient TEXT,
    content TEXT,
    options TEXT,
    expires_at REAL,
    extra TEXT,
    state TEXT NOT NULL,
    not_before REAL NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    message_id TEXT,
    code INTEGER,
    meta_code INTEGER,
    error TEXT,
    reason TEXT,
    may_have_arrived INTEGER NOT NULL DEFAULT 0,
    receipt TEXT,
    sent_at REAL,
    finished_at REAL
);
CREATE INDEX vendors_ids ON messages (message_id) WHERE message_id != cus_message_id;
CREATE INDEX deferred ON messages (not_before) WHERE state = 'queued' AND not_before > 0;
"""


class MessageState(StrEnum):
    """How far a message of a ledger has come."""

    QUEUED = "queued"
    """It waits to be sent."""
    SENDING = "sending"
    """It is in flight."""
    ACCEPTED = "accepted"
    """The vendor accepted it."""
    REJECTED = "rejected"
    """The vendor said no."""
    NOT_SENT = "not_sent"
    """It will not be sent: its row is not a valid message, its code has expired, or its recipient has had enough."""
    UNKNOWN = "unknown"
    """It may have been accepted. It is not sent again, unless somebody says so."""


# ---------------------------------------------------------------------------------------------- what goes in and out


@attrs.frozen
class StoredMessage:
    """A message on its way out of the ledger."""

    key: int  # its place in the ledger
    message: OtpMessage
    refusals: int  # how many attempts have counted against the retry policy's max_attempts


@attrs.frozen
class Transition:
    """Where a claimed message goes from ``sending``."""

    key: int
    state: MessageState
    attempts: int = 0  # POSTs begun for it since it was claimed
    refusals: int = 0  # how many of them count against max_attempts
    not_before: float = 0.0  # in seconds of the run's clock that never jumps; 0.0 for any time
    message_id: str | None = None
    code: int | None = None
    meta_code: int | None = None
    error: str | None = None
    reason: str | None = None
    throttled: str | None = attrs.field(default=None, repr=False)  # its recipient, where Meta has throttled that one


TRANSITION_COLUMNS: Final = tuple(field.name for field in attrs.fields(Transition))


def _rows(*names: str) -> str:
    """Return the SQL for a table of these columns, whose rows come as one JSON text."""
    columns = ", ".join(f"json_extract(value, '$[{place}]') AS {name}" for place, name in enumerate(names))
    return f"(SELECT {columns} FROM json_each(?))"


# ---------------------------------------------------------------------------------------------- rows of files

DIGEST_KEY: Final = "SELECT digest_key FROM metadata"
INSERT_SOURCE: Final = "INSERT INTO sources (name, columns, loaded_at) VALUES (?, '[]', ?)"
SET_COLUMNS: Final = "UPDATE sources SET columns = ? WHERE id = ?"
EXTRA_COLUMNS: Final = "SELECT columns FROM sources ORDER BY id"
INSERT: Final = """
INSERT OR IGNORE INTO messages
    (source, line, cus_message_id, extra, recipient, content, options, expires_at, state, error, reason, finished_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
FIND: Final = """
SELECT cus_message_id, source, line FROM messages WHERE cus_message_id IN (SELECT value FROM json_each(?))
"""

# ---------------------------------------------------------------------------------------------- a run

# What waited did so by the clock of an earlier run, which may have been another process's.
RESET_TIMES: Final = "UPDATE messages SET not_before = 0 WHERE state = 'queued' AND not_before > 0"
_QUEUED: Final = """
SELECT json_group_array(json_array(id, refusals, cus_message_id, recipient, content, expires_at, options)) FROM (
    SELECT * FROM messages WHERE state = 'queued' AND (expires_at IS NULL OR expires_at > ?) AND {} LIMIT ?
)
"""
DUE: Final = _QUEUED.format("not_before > 0 AND not_before <= ? ORDER BY not_before")
FRESH: Final = _QUEUED.format("not_before = 0 AND id > ? ORDER BY id")
# What will have expired when it is due never is.
NEXT_DUE: Final = """
SELECT min(not_before) FROM messages
WHERE state = 'queued' AND not_before > 0 AND (expires_at IS NULL OR expires_at > ? + max(0, not_before - ?))
"""
CLAIM: Final = """
UPDATE messages SET state = 'sending', not_before = 0, sent_at = ? WHERE id IN (SELECT value FROM json_each(?))
"""
DEFER: Final = f"""
UPDATE messages SET not_before = o.not_before FROM {_rows("id", "not_before")} AS o WHERE messages.id = o.id
"""
# A message that may have arrived before, and was queued again by hand, is unknown for as long as it is not accepted.
RECORD: Final = f"""
UPDATE messages SET
    state = CASE
        WHEN o.state = 'unknown' AND receipt IS NOT NULL THEN 'accepted'
        WHEN o.state IN ('rejected', 'not_sent') AND may_have_arrived THEN 'unknown'
        ELSE o.state END,
    attempts = messages.attempts + o.attempts,
    refusals = messages.refusals + o.refusals,
    not_before = CASE WHEN o.state = 'queued' THEN max(o.not_before, 0.001) ELSE 0 END,
    message_id = coalesce(o.message_id, messages.message_id),
    code = o.code,
    meta_code = o.meta_code,
    error = CASE
        WHEN receipt IS NULL OR o.state NOT IN ('accepted', 'unknown') THEN o.error
        WHEN receipt = 'failed' THEN messages.error END,
    reason = CASE
        WHEN receipt IS NULL OR o.state NOT IN ('accepted', 'unknown') THEN o.reason
        WHEN receipt = 'failed' THEN messages.reason END,
    content = CASE
        WHEN o.state = 'queued' OR (o.state = 'unknown' AND receipt IS NULL) THEN content
        WHEN o.state != 'accepted' AND may_have_arrived THEN content END,
    sent_at = CASE WHEN o.attempts OR o.state != 'queued' THEN sent_at END,
    finished_at = CASE WHEN o.state != 'queued' THEN ? END
FROM {_rows(*TRANSITION_COLUMNS)} AS o
WHERE messages.id = o.key
"""
# A callback may come before the answer, or when the process that waited for it has ended.
INTERRUPT: Final = """
UPDATE messages SET
    state = iif(receipt IS NULL, 'unknown', 'accepted'),
    content = CASE WHEN receipt IS NULL THEN content END,
    error = CASE WHEN receipt IS NULL THEN 'Interrupted' ELSE error END,
    reason = CASE WHEN receipt IS NULL THEN 'the process ended while the message was in flight' ELSE reason END,
    code = NULL, meta_code = NULL, finished_at = ?
WHERE state = 'sending'
"""
CAP: Final = """
UPDATE messages SET
    state = CASE WHEN may_have_arrived THEN 'unknown' ELSE 'not_sent' END,
    content = CASE WHEN may_have_arrived THEN content END,
    finished_at = ?, error = 'Capped', reason = 'the recipient has ' || ? || ' messages of this ledger already'
WHERE state = 'queued' AND id IN (
    SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY recipient ORDER BY state = 'queued', id) AS place
        FROM messages WHERE recipient IS NOT NULL AND state NOT IN ('not_sent', 'rejected')
    ) WHERE place > ?
)
"""
_EXPIRE: Final = """
UPDATE messages SET
    state = '{}', error = 'Expired', content = NULL, finished_at = ?,
    reason = 'expires_at passed before it could be sent' || coalesce('; the last answer was: ' || reason, '')
WHERE state = 'queued' AND expires_at <= ? + coalesce(max(0, not_before - ?), 0) AND {}
"""
EXPIRE: Final = {
    MessageState.UNKNOWN: _EXPIRE.format("unknown", "may_have_arrived"),
    MessageState.NOT_SENT: _EXPIRE.format("not_sent", "NOT may_have_arrived AND code IS NULL"),
    MessageState.REJECTED: _EXPIRE.format("rejected", "NOT may_have_arrived AND code IS NOT NULL"),
}
ERASE_EXPIRED: Final = """
UPDATE messages SET content = NULL WHERE state = 'unknown' AND expires_at <= ? AND content IS NOT NULL
"""

# ---------------------------------------------------------------------------------------------- by hand, by callbacks

# By hand, which names no message id, only what is unknown can be settled. What a callback speaks of was accepted, even
# where it says that the delivery has failed.
_RESOLVE: Final = f"""
UPDATE messages SET
    receipt = o.status,
    message_id = coalesce(messages.message_id, o.message_id),
    state = CASE
        WHEN state IN ('sending', 'accepted') THEN state
        WHEN o.status = 'failed' AND o.message_id IS NULL THEN 'rejected'
        ELSE 'accepted' END,
    error = CASE WHEN o.status = 'failed' THEN 'DeliveryFailed' END,
    reason = CASE WHEN o.status = 'failed' THEN 'its delivery has failed' END,
    content = CASE WHEN state = 'sending' THEN content END,
    not_before = 0,
    finished_at = CASE WHEN state IN ('sending', 'accepted') THEN finished_at ELSE ? END
FROM {_rows("id", "status", "message_id")} AS o
WHERE {{}}
    AND (state = 'unknown'
        OR (o.message_id IS NOT NULL AND (state IN ('accepted', 'sending') OR (state = 'queued' AND may_have_arrived))))
    AND advances(coalesce(receipt, 'queued'), o.status) -- of callbacks.py
"""
RESOLVE: Final = (
    _RESOLVE.format("messages.cus_message_id = o.id"),
    # As documented the vendor calls a message by its cus_message_id; should it not, by the id that came back.
    _RESOLVE.format("messages.message_id = o.id AND messages.message_id != messages.cus_message_id"),
)
REQUEUE: Final = """
UPDATE messages SET state = 'queued', not_before = 0, refusals = 0, finished_at = NULL, may_have_arrived = 1
WHERE state = 'unknown' AND content IS NOT NULL AND (expires_at IS NULL OR expires_at > ?)
    AND cus_message_id IN (SELECT value FROM json_each(?))
"""

# ---------------------------------------------------------------------------------------------- looking at it

QUEUED_LANGUAGES: Final = """
SELECT json_extract(options, '$.language_code') AS language, count(*) FROM messages
WHERE state = 'queued' GROUP BY language
"""
COUNTS: Final = "SELECT state, count(*) FROM messages GROUP BY state"
REASONS: Final = """
SELECT state, error, code, meta_code, count(*) AS n, max(reason) FROM messages
WHERE error IS NOT NULL AND state IN ('rejected', 'not_sent', 'unknown')
GROUP BY state, error, code, meta_code ORDER BY n DESC
"""
RECEIPTS: Final = "SELECT receipt, count(*) FROM messages WHERE receipt IS NOT NULL GROUP BY receipt"
AWAITED: Final = """
SELECT count(*) FROM messages
WHERE state IN ('accepted', 'unknown', 'sending') AND coalesce(receipt, 'sent') = 'sent'
"""
SENT_SINCE: Final = "SELECT recipient, max(sent_at) FROM messages WHERE sent_at > ? GROUP BY recipient"
UNKNOWN_IDS: Final = "SELECT cus_message_id FROM messages WHERE state = 'unknown' ORDER BY id"
RESULTS: Final = f"""
SELECT id, extra, {", ".join(RESULT_COLUMNS.values())} FROM messages WHERE id > ? ORDER BY id LIMIT ?
"""
