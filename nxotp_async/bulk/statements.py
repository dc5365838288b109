"""The longer ones of the ledger's SQL statements. Rows come as one JSON text, see `encoding.as_json`."""

from collections.abc import Mapping
from typing import Final

from .records import MessageState

__all__ = ["CAP", "EXPIRE", "NEXT_DUE", "ORPHANS", "RECORD", "RESOLVE", "RESULTS"]

# A callback may come before the answer, or when the process that waited for it has ended.
ORPHANS: Final = """
UPDATE messages SET
    state = iif(receipt IS NULL, 'unknown', 'accepted'),
    content = CASE WHEN receipt IS NULL THEN content END,
    error = CASE WHEN receipt IS NULL THEN 'Interrupted' ELSE error END,
    reason = CASE WHEN receipt IS NULL THEN 'the process ended while the message was in flight' ELSE reason END,
    code = NULL, meta_code = NULL, finished_at = ?
WHERE state = 'sending'
"""
# A message that may have arrived before, and was queued again by hand, is unknown for as long as it is not accepted.
RECORD: Final = """
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
FROM (
    SELECT
        json_extract(value, '$[0]') AS key, json_extract(value, '$[1]') AS state,
        json_extract(value, '$[2]') AS attempts, json_extract(value, '$[3]') AS refusals,
        json_extract(value, '$[4]') AS not_before, json_extract(value, '$[5]') AS message_id,
        json_extract(value, '$[6]') AS code, json_extract(value, '$[7]') AS meta_code,
        json_extract(value, '$[8]') AS error, json_extract(value, '$[9]') AS reason
    FROM json_each(?)
) AS o
WHERE messages.id = o.key
"""
# By hand, which names no message id, only what is unknown can be settled. What a callback speaks of was accepted, even
# where it says that the delivery has failed. The same order as callbacks.advances has it.
_RESOLVE: Final = """
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
FROM (
    SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS status,
        json_extract(value, '$[2]') AS message_id FROM json_each(?)
) AS o
WHERE {match}
    AND (state = 'unknown'
        OR (o.message_id IS NOT NULL AND (state IN ('accepted', 'sending') OR (state = 'queued' AND may_have_arrived))))
    AND CASE coalesce(receipt, '')
        WHEN 'failed' THEN 0
        WHEN 'deleted' THEN 0
        WHEN 'read' THEN o.status = 'deleted'
        WHEN 'delivered' THEN o.status IN ('deleted', 'read')
        WHEN 'sent' THEN o.status != 'sent'
        ELSE 1 END
"""
RESOLVE: Final = tuple(
    _RESOLVE.format(match=match)
    for match in (
        "messages.cus_message_id = o.id",
        # As documented the vendor calls a message by its cus_message_id; should it not, by the id that came back.
        "messages.message_id = o.id AND messages.message_id != messages.cus_message_id",
    )
)
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
# What will have expired when it is due never is.
NEXT_DUE: Final = """
SELECT min(not_before) FROM messages
WHERE state = 'queued' AND not_before > 0 AND (expires_at IS NULL OR expires_at > ? + max(0, not_before - ?))
"""
_EXPIRE: Final = """
UPDATE messages SET
    state = '{state}', error = 'Expired', content = NULL, finished_at = ?,
    reason = 'expires_at passed before it could be sent' || coalesce('; the last answer was: ' || reason, '')
WHERE state = 'queued' AND expires_at <= ? + coalesce(max(0, not_before - ?), 0) AND {condition}
"""
EXPIRE: Final[Mapping[MessageState, str]] = {
    state: _EXPIRE.format(state=state, condition=condition)
    for state, condition in {
        MessageState.UNKNOWN: "may_have_arrived",
        MessageState.NOT_SENT: "NOT may_have_arrived AND code IS NULL",
        MessageState.REJECTED: "NOT may_have_arrived AND code IS NOT NULL",
    }.items()
}
RESULTS: Final = """
SELECT id, line, cus_message_id, recipient AS "to", state AS status, message_id, code, meta_code, error, reason,
    attempts, receipt, sent_at, finished_at, extra
FROM messages WHERE id > ? ORDER BY id LIMIT ?
"""
