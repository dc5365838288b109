"""What of the outbox nobody looks after any more: each worker sees to that now and then, one of them at a time."""

import logging
from typing import Final

import attrs
from procrastinate.jobs import Status
from procrastinate.manager import JobManager

from ..stores.base import time_limit
from .outbox import Outbox
from .queues import TASK, Queue, jobs
from .statements import ERASE, EXPIRE, INTERRUPT, ORPHANS, SWEEP

__all__ = ["Reaped", "reap"]

_log = logging.getLogger("nxotp_async")

_TIMEOUT: Final = 60.0  # seconds for all of it
_AT_MOST: Final = 5000  # rows of each kind, so that no transaction is long
_LONGEST: Final = 600.0  # seconds that a message is in flight at most, whatever its worker says
_LOCK: Final = 0x6E786F7472  # an advisory lock: one reaper at a time


@attrs.frozen
class Reaped:
    """What was done.

    Attributes:
        expired: Messages that were not sent in time.
        interrupted: Messages in flight whose worker has gone.
        deferred: Queued messages that no job carried any more.
        deleted: Messages that are settled for so long that they were deleted.
    """

    expired: int
    interrupted: int
    deferred: int
    deleted: int


async def reap(outbox: Outbox, engine: JobManager, *, stalled_after: float, keep: float) -> Reaped | None:
    """Look after what is left alone, and return what was done; ``None``: another worker is at it.

    Args:
        outbox: The outbox.
        engine: procrastinate's jobs.
        stalled_after: Seconds without a heartbeat after which a worker has gone.
        keep: Seconds that a message is kept after its outcome.

    Raises:
        StoreError: PostgreSQL failed, or did not answer in time.
    """
    arguments = {"limit": _AT_MOST, "stalled_after": stalled_after, "longest": _LONGEST, "keep": keep}
    async with time_limit(_TIMEOUT, "outbox"), outbox.connections.connection() as connection:
        async with connection.transaction():
            cursor = await connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (_LOCK,))
            if await cursor.fetchone() != (True,):
                return None
            counts = []
            for statement in (EXPIRE, INTERRUPT):
                cursor = await connection.execute(statement, arguments)
                counts.append((await cursor.fetchone() or (0,))[0])
            orphans = {"task": TASK, "stalled_after": stalled_after, "grace": stalled_after}
            cursor = await connection.execute(ORPHANS, orphans)
            deferred = 0
            for sender, queue, ids in await cursor.fetchall():
                await outbox.defer(list(jobs(sender, Queue(queue), ids)), connection)
                deferred += len(ids)
            await connection.execute(ERASE, arguments)
            cursor = await connection.execute(SWEEP, arguments)
            deleted = cursor.rowcount
        with outbox.errors():
            for stalled in await engine.get_stalled_jobs(task_name=TASK, seconds_since_heartbeat=stalled_after):
                await engine.finish_job(stalled, Status.FAILED, delete_job=True)
    reaped = Reaped(counts[0], counts[1], deferred, deleted)
    if reaped.interrupted or reaped.deferred:
        _log.warning(
            "workers have gone: %d messages were in flight and are unknown, %d are queued again",
            reaped.interrupted,
            reaped.deferred,
        )
    return reaped
