"""What a worker writes of the messages that it had claimed. It does not stop before it is durable."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Final

import attrs
import orjson

from ..bulk import MessageState
from ..clocks import Clock
from ..errors import NxOtpError
from ..stores.base import time_limit
from .outbox import Outbox
from .queues import IDS_PER_JOB, Queue, job
from .statements import SETTLE, UNCLAIM
from .states import Report

__all__ = ["Settler"]

_log = logging.getLogger("nxotp_async")

_BATCH: Final = 500
_TIMEOUT: Final = 10.0  # seconds for one transaction
_MAX_PAUSE: Final = 2.0  # seconds between two tries


class Settler:
    """Writes reports: what comes while a transaction is under way goes together into the next one.

    Args:
        outbox: Where to.
        clock: Sources of chance and sleep.
    """

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock
        self._reports: list[tuple[Report, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def settle(self, report: Report) -> None:
        """Write a report, and return when it is durable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reports.append((report, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="nxotp_async: settle")
        await asyncio.shield(done)

    async def _write(self) -> None:
        try:
            while self._reports:
                batch, self._reports = self._reports[:_BATCH], self._reports[_BATCH:]
                await self._until_done(partial(self._settle, [report for report, _ in batch]))
                for _, done in batch:
                    if not done.done():
                        done.set_result(None)
        finally:
            self._writing = None

    async def unclaim(self, ids: list[int], queue: Queue, worker: int) -> None:
        """Queue rows again whose claim may have been made or not; none of them was sent."""
        await self._until_done(partial(self._unclaim, ids, queue, worker))

    async def _until_done(self, write: Callable[[], Awaitable[None]]) -> None:
        tries = 0
        while True:
            try:
                async with time_limit(_TIMEOUT, "outbox"):
                    await write()
                return
            except NxOtpError as error:
                tries += 1
                _log.warning("outcomes cannot be written, and are kept until they can: %s", error)
            await self._clock.sleep(self._clock.random() * min(_MAX_PAUSE, 0.1 * 2.0 ** min(tries, 10)))

    async def _settle(self, reports: list[Report]) -> None:
        arguments = {"reports": orjson.dumps([attrs.asdict(report) for report in reports]).decode()}
        again: defaultdict[tuple[str, Queue], list[tuple[datetime, int]]] = defaultdict(list)
        async with self._outbox.connections.connection() as connection, connection.transaction():
            cursor = await connection.execute(SETTLE, arguments)
            for id_, state, sender, queue, not_before, _ in await cursor.fetchall():
                if state == MessageState.QUEUED:
                    again[sender, Queue(queue)].append((not_before, id_))
            jobs = []
            for (sender, queue), due in again.items():
                due.sort()
                # A login goes as soon as it may. Of a bulk load, many go together.
                size = 1 if queue is Queue.LOGIN else IDS_PER_JOB
                for start in range(0, len(due), size):
                    part = due[start : start + size]
                    jobs.append(job(sender, queue, [id_ for _, id_ in part], at=part[-1][0]))
            await self._outbox.defer(jobs, connection)

    async def _unclaim(self, ids: list[int], queue: Queue, worker: int) -> None:
        async with self._outbox.connections.connection() as connection, connection.transaction():
            cursor = await connection.execute(UNCLAIM, {"ids": ids, "worker": worker})
            if cursor.rowcount:
                await self._outbox.defer([job(self._outbox.sender, queue, ids)], connection)
