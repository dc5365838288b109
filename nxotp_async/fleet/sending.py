"""What a worker does with its jobs: a permit, the claim, the POST, the outcome."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final, LiteralString

import attrs

from ..bulk import MessageState
from ..bulk.flow import FlowControl
from ..bulk.schema import StoredMessage
from ..client import OtpClient
from ..clocks import Clock
from ..errors import AccountError, AuthenticationError, NxOtpError, TransportError, sensitive_variables
from ..messages import OtpMessage
from ..results import SendResult
from ..retry import RetryPolicy
from ..stores.base import time_limit
from .outbox import Outbox
from .queues import Queue, job
from .sealing import UnreadableError
from .senders import PROBE_EVERY, Sender
from .settling import Settler
from .statements import CLAIM, GIVE_UP, LOOK
from .states import Report

__all__ = ["Sending"]

_log = logging.getLogger("nxotp_async")

_PATIENCE: Final = 60.0  # seconds without a good answer, after which this worker sends nothing for a while
_TIMEOUT: Final = 5.0  # seconds for a statement before the POST
_BULK_SHARE: Final = 0.75  # of the requests in flight: a login always finds a place


class _StoppedError(Exception):
    """The worker stops, and begins nothing more."""


@attrs.frozen
class _Claimed:
    id: int
    claim: int
    cus_message_id: str
    sealed: bytes = attrs.field(repr=False)
    refusals: int
    seconds_left: float


class _Places:
    """The places for requests in flight, some of which a bulk load leaves to logins."""

    def __init__(self, count: int) -> None:
        self._left = {Queue.LOGIN: count, Queue.BULK: max(1, int(count * _BULK_SHARE))}
        self._together = max(1, self._left[Queue.BULK] // 3)
        self._freed = asyncio.Event()

    async def take(self, wanted: int, queue: Queue) -> int:
        """Wait for places, and return how many were taken. Those of a bulk load wait for one another."""
        needed = 1 if queue is Queue.LOGIN else min(wanted, self._together)
        while (left := self._of(queue)) < needed:
            self._freed.clear()
            await self._freed.wait()
        taken = min(wanted, left)
        self._count(-taken, queue)
        return taken

    def free(self, count: int, queue: Queue) -> int:
        """Free places, and return how many were freed."""
        if count > 0:
            self._count(count, queue)
            self._freed.set()
        return max(0, count)

    def _of(self, queue: Queue) -> int:
        return min(self._left[Queue.LOGIN], self._left[queue])

    def _count(self, change: int, queue: Queue) -> None:
        for each in {queue, Queue.LOGIN}:
            self._left[each] += change


class Sending:
    """The sending of one worker.

    Args:
        outbox: Where the messages are.
        client: Sends them.
        sender: Whose they are.
        policy: What is sent again.
        reject_on: Codes that refuse their message only, as in `Dispatcher`.
        clock: Sources of time and chance.

    Attributes:
        in_flight: The rows that this worker has claimed and not yet settled.
    """

    def __init__(
        self,
        outbox: Outbox,
        client: OtpClient,
        sender: Sender,
        *,
        policy: RetryPolicy,
        reject_on: Collection[int],
        clock: Clock,
    ) -> None:
        self.in_flight: set[int] = set()
        self._outbox = outbox
        self._client = client.with_options(retry=RetryPolicy(max_attempts=1))
        self._sender = sender
        self._settler = Settler(outbox, clock)
        self._reject_on = reject_on
        self._clock = clock
        self._flow_arguments = (sender, policy, reject_on, client.max_concurrency, _PATIENCE, clock)
        self._flow = FlowControl(*self._flow_arguments)
        self._places = _Places(client.max_concurrency)
        self._posts: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._waits: set[asyncio.Timeout] = set()

    def stop(self) -> None:
        """Begin nothing more. What is in flight is seen through."""
        self._is_stopping = True
        for wait in self._waits:
            if wait.when() is None:
                wait.reschedule(asyncio.get_running_loop().time())

    async def finish(self) -> None:
        """Return when what was in flight has its outcome."""
        while self._posts:
            await asyncio.wait(self._posts)

    @asynccontextmanager
    async def _until_stopped(self) -> AsyncIterator[None]:
        wait = asyncio.timeout(0.0 if self._is_stopping else None)
        self._waits.add(wait)
        try:
            async with wait:
                yield
        except TimeoutError:
            if not wait.expired():
                raise
            raise _StoppedError from None
        finally:
            self._waits.discard(wait)

    # ------------------------------------------------------------------------------------------ jobs

    async def run_job(self, ids: Iterable[int], queue: Queue, worker: int) -> None:
        """Send the rows of a job, and return when all of them are settled or in another job.

        Args:
            ids: The rows.
            queue: The job's queue.
            worker: The engine's id of this worker.
        """
        until = await self._look([id_ for id_ in ids if id_ not in self.in_flight])
        remaining, posts = list(until), list[asyncio.Task[None]]()
        try:
            while remaining:
                remaining = await self._send_some(remaining, until, queue, worker, posts)
        except _StoppedError:
            pass
        finally:
            if remaining:
                with suppress(NxOtpError):  # if the database is away, the reaper finds them
                    await self._give_back(remaining, queue)
        if posts:
            await asyncio.wait(posts)

    async def _look(self, ids: list[int]) -> dict[int, float]:
        """Return which rows are still queued, each with when it expires, by the clock that never jumps."""
        rows = await self._execute(LOOK, {"ids": ids})
        now = self._clock.monotonic()
        return {id_: now + seconds_left for id_, seconds_left in rows}

    async def _give_back(self, ids: list[int], queue: Queue) -> None:
        async with time_limit(_TIMEOUT, "outbox"), self._outbox.connections.connection() as connection:
            await self._outbox.defer([job(self._outbox.sender, queue, ids)], connection)

    async def _send_some(
        self, ids: list[int], until: dict[int, float], queue: Queue, worker: int, posts: list[asyncio.Task[None]]
    ) -> list[int]:
        """Send as many rows as may go now, or give up the first one, and return what remains of them."""
        places = 0
        try:
            async with self._until_stopped():
                places = await self._places.take(min(len(ids), self._sender.chunk()), queue)
                places -= self._places.free(places - await self._sender.may_go(places), queue)
                chunk, rest = ids[:places], ids[places:]
                patience = min(until[id_] for id_ in chunk) - self._clock.monotonic()
                is_permitted = await self._sender.permits(places, patience, queue)
                if not is_permitted and places > 1:  # one of them may expire before the others
                    places -= self._places.free(places - 1, queue)
                    chunk, rest = ids[:1], ids[1:]
                    patience = until[ids[0]] - self._clock.monotonic()
                    is_permitted = await self._sender.permits(1, patience, queue)
            if not is_permitted:
                reason = "the rate leaves no time for it before expires_at"
                await self._execute(GIVE_UP, {"ids": chunk, "reason": reason})
                return rest
            if self._sender.is_shut:  # meanwhile
                return ids
            for row in await self._claim(chunk, queue, worker):
                places -= 1
                posts.append(self._start(row, queue))
            return rest
        finally:
            self._places.free(places, queue)

    # ------------------------------------------------------------------------------------------ one message

    async def _claim(self, ids: list[int], queue: Queue, worker: int) -> list[_Claimed]:
        """Claim rows, durably, and return those that are this worker's now. Nothing of the others may be sent."""
        ids = [id_ for id_ in ids if id_ not in self.in_flight]
        self.in_flight.update(ids)
        try:
            claimed = [_Claimed(*row) for row in await self._execute(CLAIM, {"ids": ids, "worker": worker})]
        except BaseException:
            # They may be claimed or not: nothing else of this worker touches them, and no byte has left.
            await asyncio.shield(self._settler.unclaim(ids, queue, worker))
            self.in_flight.difference_update(ids)
            raise
        self.in_flight.difference_update(set(ids) - {row.id for row in claimed})
        return claimed

    def _start(self, row: _Claimed, queue: Queue) -> asyncio.Task[None]:
        task = asyncio.create_task(self._see_through(row), name="nxotp_async: fleet send")
        self._posts.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._posts.discard(task)
            self.in_flight.discard(row.id)
            self._places.free(1, queue)

        task.add_done_callback(done)
        return task

    @sensitive_variables
    async def _see_through(self, row: _Claimed) -> None:
        """Send a claimed row, and settle it. Cancelled, it leaves the row to the reaper."""
        expires_at = datetime.fromtimestamp(self._clock.time() + row.seconds_left, UTC)
        try:
            message = self._outbox.keys.open(row.sealed, row.cus_message_id, expires_at)
        except (UnreadableError, ValueError, KeyError, TypeError) as error:
            reason = str(error) if isinstance(error, UnreadableError) else "what is stored is no message"
            not_sent = MessageState.NOT_SENT
            report = Report(row.id, row.claim, not_sent, not_sent, error="Unreadable", reason=reason)
        else:
            try:
                result = await self._client.send(message)
            except NxOtpError as error:
                if error.result is None:
                    raise
                result = error.result
            report = self._report(row, message, result)
        await self._settler.settle(report)

    def _is_of_account(self, error: NxOtpError | None) -> bool:
        """Return whether an error concerns the whole account: a fleet stops at the first one, and probes."""
        return isinstance(error, AccountError | AuthenticationError) and error.code not in self._reject_on

    def _report(self, row: _Claimed, message: OtpMessage, result: SendResult) -> Report:
        """Return what becomes of a message, and take in what its result says of the sender."""
        flow = self._flow
        refused = result.error if self._is_of_account(result.error) else None
        # What the account is refused for is not counted against a message: the sender probes with one, again and again.
        transition = flow.transition(StoredMessage(row.id, message, 0 if refused else row.refusals), result)
        if result.error is None:
            self._sender.resume()
        paused = flow.paused or refused
        if paused is not None and flow is self._flow:
            self._flow = FlowControl(*self._flow_arguments)
            if isinstance(paused, TransportError):  # it may be this machine's network
                _log.error("%s; nothing is sent for %g s", paused, PROBE_EVERY)
                self._sender.hold(self._clock.monotonic() + PROBE_EVERY)
            else:
                self._sender.pause(paused)
        return Report(
            row.id,
            row.claim,
            transition.state,
            MessageState(result.status),
            delay=max(0.0, transition.not_before - self._clock.monotonic()),
            refusals=0 if refused else transition.refusals,
            message_id=transition.message_id,
            code=transition.code,
            meta_code=transition.meta_code,
            error=transition.error,
            reason=transition.reason,
        )

    async def _execute(self, statement: LiteralString, arguments: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        async with time_limit(_TIMEOUT, "outbox"):
            return await self._outbox.connections.execute(statement, arguments)
