"""The queues of a sender, and the jobs in them."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

from procrastinate.jobs import Job
from procrastinate.manager import JobManager
from procrastinate.psycopg_connector import PsycopgConnector
from procrastinate.sync_psycopg_connector import SyncPsycopgConnector

from ..checks import InvalidValueError, text

__all__ = ["IDS_PER_JOB", "TASK", "JobManagers", "Queue", "job", "parse_sender", "queue_name"]

TASK: Final = "nxotp_async.send"
IDS_PER_JOB: Final = 100
# PostgreSQL cuts the names of channels at 63 bytes, and procrastinate's begin with 23 of its own.
_SENDER: Final = re.compile(r"[A-Za-z0-9._-]{1,24}")
_PRIORITIES: Final = {"login": 10, "bulk": 0}


class Queue(StrEnum):
    """Which messages go first."""

    LOGIN = "login"
    """Somebody waits for it. It never waits behind a bulk load."""
    BULK = "bulk"
    """Many together, which take what the logins leave."""


def parse_sender(value: object) -> str:
    """Check for the name of a sender."""
    sender = text(value)
    if not _SENDER.fullmatch(sender):
        raise InvalidValueError("must be 1 to 24 of the characters A-Z, a-z, 0-9, '.', '_' and '-'")
    return sender


def queue_name(sender: str, queue: Queue) -> str:
    """Return procrastinate's name of a queue."""
    return f"nxotp:{sender}:{queue}"


def job(sender: str, queue: Queue, ids: Sequence[int], *, at: datetime | None = None) -> Job:
    """Return a job that sends rows of the outbox.

    Args:
        sender: Whose.
        queue: In which queue.
        ids: The rows.
        at: Not before this time.
    """
    return Job(
        id=None,
        queue=queue_name(sender, queue),
        task_name=TASK,
        priority=_PRIORITIES[queue],
        lock=None,
        queueing_lock=None,
        task_kwargs={"ids": list(ids)},
        scheduled_at=at,
    )


def jobs(sender: str, queue: Queue, ids: Sequence[int]) -> Iterable[Job]:
    """Return the jobs for any number of rows."""
    for start in range(0, len(ids), IDS_PER_JOB):
        yield job(sender, queue, ids[start : start + IDS_PER_JOB])


class JobManagers:
    """procrastinate's, for connections that are the caller's: an asynchronous one, and a synchronous one."""

    asynchronous: Final = JobManager(PsycopgConnector())
    synchronous: Final = JobManager(SyncPsycopgConnector())
