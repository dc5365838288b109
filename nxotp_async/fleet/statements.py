# ruff: noqa: S608 - statements are put together from constants
"""Every statement of the outbox. ``states.py`` says which changes there are, row by row.

Each locks its rows in the order of their ids, so that no two statements wait for one another; and each looks at the
time when it has the rows, because ``now()`` is the time before it waited for them.
"""

from typing import Final, LiteralString

__all__ = [
    "CLAIM",
    "COUNTS",
    "ENQUEUE",
    "ENTRIES",
    "ERASE",
    "EXPIRE",
    "GIVE_UP",
    "INTERRUPT",
    "LOOK",
    "ORPHANS",
    "RECEIVE",
    "RESOLVE",
    "SETTLE",
    "SWEEP",
    "UNCLAIM",
]

# Whoever waits for a message hears of its outcome.
_TELL: Final = "SELECT id, state, sender, queue, not_before, pg_notify('nxotp_outbox', cus_message_id) FROM changed"
_TELL_ALL: Final = "SELECT count(*), count(pg_notify('nxotp_outbox', cus_message_id)) FROM changed"

# All of the messages, or none of them where there are too many or the workers could not read them.
ENQUEUE: Final[LiteralString] = """
WITH waiting AS (
    SELECT count(*) AS number FROM (
        SELECT FROM nxotp_outbox
        WHERE sender = %(sender)s AND queue = %(queue)s AND state = 'queued' LIMIT %(max_queued)s
    ) AS part
), keys AS (
    SELECT NOT EXISTS (SELECT FROM nxotp_outbox_keys)
        OR EXISTS (SELECT FROM nxotp_outbox_keys WHERE fingerprint = %(fingerprint)s) AS known
), added AS (
    INSERT INTO nxotp_outbox (sender, queue, cus_message_id, sealed, recipient, expires_at)
    SELECT %(sender)s, %(queue)s, given.cus_message_id, given.sealed, given.recipient,
        coalesce(given.expires_at, clock_timestamp() + make_interval(secs => %(expires_after)s))
    FROM unnest(%(ids)s::text[], %(sealed)s::bytea[], %(recipients)s::bytea[], %(expires)s::timestamptz[])
        WITH ORDINALITY AS given (cus_message_id, sealed, recipient, expires_at, place), waiting, keys
    WHERE keys.known AND waiting.number + cardinality(%(ids)s::text[]) <= %(max_queued)s
    ORDER BY given.place
    ON CONFLICT (cus_message_id) DO NOTHING
    RETURNING id, cus_message_id
)
SELECT waiting.number, keys.known,
    (SELECT array_agg(id ORDER BY id) FROM added), (SELECT array_agg(cus_message_id) FROM added)
FROM waiting, keys
"""

# ---------------------------------------------------------------------------------------------- a worker

LOOK: Final[LiteralString] = """
SELECT id, extract(epoch FROM expires_at - clock_timestamp())::float8 FROM nxotp_outbox
WHERE id = ANY(%(ids)s) AND state = 'queued' AND not_before <= clock_timestamp() ORDER BY id
"""
# A row that somebody else has locked is being claimed, settled or expired by them.
CLAIM: Final[LiteralString] = """
UPDATE nxotp_outbox AS outbox
SET state = 'sending', claims = outbox.claims + 1, worker_id = %(worker)s, sent_at = clock_timestamp()
FROM (SELECT id FROM nxotp_outbox WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE SKIP LOCKED) AS mine
WHERE outbox.id = mine.id AND outbox.state = 'queued'
    AND outbox.not_before <= clock_timestamp() AND outbox.expires_at > clock_timestamp()
RETURNING outbox.id, outbox.claims, outbox.cus_message_id, outbox.sealed, outbox.refusals,
    extract(epoch FROM outbox.expires_at - clock_timestamp())::float8
"""
# The claim may have been committed, although no answer came: nothing was sent.
UNCLAIM: Final[LiteralString] = """
UPDATE nxotp_outbox AS outbox SET state = 'queued'
FROM (SELECT id FROM nxotp_outbox WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE) AS mine
WHERE outbox.id = mine.id AND outbox.state = 'sending' AND outbox.worker_id = %(worker)s
"""
SETTLE: Final[LiteralString] = f"""
WITH report AS (
    SELECT given.*, outbox.state AS was, CASE
        WHEN outbox.state = 'unknown' THEN given.outcome
        WHEN given.state IN ('queued', 'unknown') AND outbox.receipt IS NOT NULL THEN 'accepted'
        ELSE given.state END AS becomes
    FROM jsonb_to_recordset(%(reports)s) AS given (
        id bigint, claim integer, state text, outcome text, delay float8, refusals integer,
        message_id text, code integer, meta_code integer, error text, reason text
    ) JOIN nxotp_outbox AS outbox ON outbox.id = given.id AND outbox.claims = given.claim
    WHERE outbox.state = 'sending' OR (outbox.state = 'unknown' AND given.outcome <> 'unknown')
    ORDER BY outbox.id FOR UPDATE OF outbox
), changed AS (
    UPDATE nxotp_outbox AS outbox SET
        state = report.becomes,
        outcome = CASE WHEN report.becomes = 'queued' THEN report.outcome END,
        not_before = clock_timestamp() + make_interval(secs => report.delay),
        refusals = outbox.refusals + report.refusals,
        message_id = coalesce(report.message_id, outbox.message_id),
        code = report.code, meta_code = report.meta_code,
        error = CASE WHEN report.becomes <> 'accepted' THEN report.error END,
        reason = CASE WHEN report.becomes <> 'accepted' THEN report.reason END,
        sealed = CASE WHEN report.becomes IN ('queued', 'unknown') THEN outbox.sealed END,
        finished_at = CASE WHEN report.becomes <> 'queued' THEN clock_timestamp() END
    FROM report WHERE outbox.id = report.id
    RETURNING outbox.*
)
{_TELL}
"""
# The rate leaves no time for these.
GIVE_UP: Final[LiteralString] = f"""
WITH changed AS (
    UPDATE nxotp_outbox AS outbox SET
        state = coalesce(outcome, 'not_sent'), sealed = NULL, finished_at = clock_timestamp(),
        error = coalesce(error, 'NotSentError'), reason = concat_ws('; the last answer was: ', %(reason)s::text, reason)
    FROM (SELECT id FROM nxotp_outbox WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE SKIP LOCKED) AS mine
    WHERE outbox.id = mine.id AND outbox.state = 'queued'
    RETURNING outbox.*
)
{_TELL_ALL}
"""

# ---------------------------------------------------------------------------------------------- the reaper

EXPIRE: Final[LiteralString] = f"""
WITH changed AS (
    UPDATE nxotp_outbox AS outbox SET
        state = coalesce(outcome, 'not_sent'), sealed = NULL, finished_at = clock_timestamp(),
        error = coalesce(error, 'Expired'),
        reason = concat_ws('; the last answer was: ', 'expires_at passed before it could be sent', reason)
    FROM (
        SELECT id FROM nxotp_outbox WHERE state = 'queued' AND expires_at <= clock_timestamp()
        ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) AS old
    WHERE outbox.id = old.id
    RETURNING outbox.*
)
{_TELL_ALL}
"""
_ALIVE: Final = """
SELECT id FROM procrastinate_workers WHERE last_heartbeat > clock_timestamp() - make_interval(secs => %(stalled_after)s)
"""
INTERRUPT: Final[LiteralString] = f"""
WITH changed AS (
    UPDATE nxotp_outbox AS outbox SET
        state = CASE WHEN receipt IS NULL THEN 'unknown' ELSE 'accepted' END,
        sealed = CASE WHEN receipt IS NULL THEN sealed END, finished_at = clock_timestamp(),
        error = CASE WHEN receipt IS NULL THEN 'Interrupted' END,
        reason = CASE WHEN receipt IS NULL THEN 'the worker went away while the message was in flight' END
    FROM (
        SELECT id FROM nxotp_outbox WHERE state = 'sending' AND (
            worker_id NOT IN ({_ALIVE}) OR sent_at < clock_timestamp() - make_interval(secs => %(longest)s)
        ) ORDER BY id FOR UPDATE SKIP LOCKED
    ) AS left_alone
    WHERE outbox.id = left_alone.id
    RETURNING outbox.*
)
{_TELL_ALL}
"""
# What is queued for a while, and in no job that a living worker has or will get.
ORPHANS: Final[LiteralString] = f"""
WITH carried AS MATERIALIZED (
    SELECT DISTINCT jsonb_array_elements(args -> 'ids')::bigint AS id FROM procrastinate_jobs
    WHERE task_name = %(task)s AND (status = 'todo' OR (status = 'doing' AND worker_id IN ({_ALIVE})))
)
SELECT sender, queue, array_agg(id ORDER BY id) FROM nxotp_outbox AS outbox
WHERE state = 'queued' AND expires_at > clock_timestamp()
    AND greatest(queued_at, not_before) < clock_timestamp() - make_interval(secs => %(grace)s)
    AND NOT EXISTS (SELECT FROM carried WHERE carried.id = outbox.id)
GROUP BY sender, queue
"""
ERASE: Final[LiteralString] = """
UPDATE nxotp_outbox SET sealed = NULL WHERE id IN (
    SELECT id FROM nxotp_outbox WHERE state = 'unknown' AND expires_at <= clock_timestamp() AND sealed IS NOT NULL
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
"""
SWEEP: Final[LiteralString] = """
DELETE FROM nxotp_outbox WHERE id IN (
    SELECT id FROM nxotp_outbox WHERE finished_at < clock_timestamp() - make_interval(secs => %(keep)s)
    ORDER BY finished_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
"""

# ---------------------------------------------------------------------------------------------- callbacks, by hand

# As documented the vendor calls a message by its cus_message_id; should it not, by the id that came back.
RECEIVE: Final[LiteralString] = f"""
WITH changed AS (
    UPDATE nxotp_outbox AS outbox SET
        receipt = %(status)s,
        message_id = coalesce(message_id, %(message_id)s),
        state = CASE WHEN state = 'sending' THEN state ELSE 'accepted' END,
        sealed = CASE WHEN state = 'sending' THEN sealed END,
        error = CASE WHEN state = 'accepted' THEN error END,
        reason = CASE WHEN state = 'accepted' THEN reason END,
        finished_at = CASE
            WHEN state = 'accepted' THEN finished_at WHEN state <> 'sending' THEN clock_timestamp() END
    FROM (
        SELECT id FROM nxotp_outbox WHERE cus_message_id = %(message_id)s
            OR (message_id = %(message_id)s AND message_id <> cus_message_id)
        ORDER BY id FOR UPDATE
    ) AS meant
    WHERE outbox.id = meant.id AND coalesce(receipt, 'queued') = ANY(%(earlier)s)
        AND (state IN ('sending', 'unknown', 'accepted') OR (state = 'queued' AND claims > 0))
    RETURNING outbox.*
)
{_TELL_ALL}
"""
RESOLVE: Final[LiteralString] = f"""
WITH changed AS (
    UPDATE nxotp_outbox AS outbox SET
        state = %(state)s, sealed = NULL, finished_at = clock_timestamp(), error = NULL, reason = 'resolved by hand'
    FROM (SELECT id FROM nxotp_outbox WHERE cus_message_id = ANY(%(ids)s) ORDER BY id FOR UPDATE) AS meant
    WHERE outbox.id = meant.id AND state = 'unknown'
    RETURNING outbox.*
)
{_TELL_ALL}
"""

# ---------------------------------------------------------------------------------------------- looking at it

# The columns are in the order of OutboxMessage's attributes.
ENTRIES: Final[LiteralString] = """
SELECT cus_message_id, sender, queue, state, message_id, claims, code, meta_code, error, reason, receipt,
    queued_at, expires_at, sent_at, finished_at, id
FROM nxotp_outbox
"""
COUNTS: Final[LiteralString] = """
SELECT sender, queue, state, code, error, count(*),
    max(extract(epoch FROM clock_timestamp() - queued_at) )::float8
FROM nxotp_outbox GROUP BY sender, queue, state, code, error
"""
