"""A worker of the fleet: procrastinate's, our jobs in it, and the reaper."""

import asyncio
import logging
from collections.abc import Collection
from typing import Final, cast

from procrastinate import JobContext
from procrastinate.worker import Worker as Engine

from ..checks import instance_of, integers, number, validate
from ..client import OtpClient
from ..clocks import Clock
from ..errors import ConfigurationError, NxOtpError
from ..retry import RetryPolicy
from ..stores import PostgresStore
from ..stores.schema import Connection
from .engine import connected, new_app
from .outbox import Outbox
from .queues import TASK, Queue, queue_name
from .reaper import reap
from .senders import Sender
from .sending import Sending

__all__ = ["Worker"]

_log = logging.getLogger("nxotp_async")

_JOBS: Final = {Queue.LOGIN: 64, Queue.BULK: 4}  # at the same time
_POLL_EVERY: Final = 1.0  # seconds; only for what is due later, everything else is pushed
_DAY: Final = 86_400.0  # seconds


class Worker:
    """Sends the messages of one sender, together with any number of other workers.

    Args:
        outbox: Where the messages are, and whose.
        client: Sends them; its ``max_concurrency`` is how many requests are in flight at most.
        rate: Messages a second of all workers of the sender together. Give all of them the same.
        queues: Which queues. Default: all.
        retry: What is sent again. Default: as `Dispatcher` has it.
        reject_on: Codes of the vendor's, or HTTP statuses without one, that refuse their message only, although they
            look like the whole account's.
        stalled_after: Seconds without a sign of life after which a worker has gone: what it had in flight is unknown
            then. Give all workers the same.
        keep: Seconds that a message is kept after its outcome.
        clock: Sources of time and chance for tests.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        outbox: Outbox,
        client: OtpClient,
        *,
        rate: float = 80.0,
        queues: Collection[Queue] = tuple(Queue),
        retry: RetryPolicy | None = None,
        reject_on: Collection[int] = (),
        stalled_after: float = 30.0,
        keep: float = 7 * _DAY,
        clock: Clock | None = None,
    ) -> None:
        validate("rate", number(at_least=0.001), rate, ConfigurationError)
        validate("stalled_after", number(at_least=0.5), stalled_after, ConfigurationError)
        validate("keep", number(at_least=0), keep, ConfigurationError)
        validate("reject_on", integers, reject_on, ConfigurationError)
        policy = validate("retry", instance_of(RetryPolicy), retry or RetryPolicy(max_attempts=5), ConfigurationError)
        self._outbox = outbox
        self._queues = tuple(dict.fromkeys(Queue(queue) for queue in queues))
        self._stalled_after = stalled_after
        self._keep = keep
        self._clock = clock or Clock()
        self._conninfo = outbox.connections.listen_conninfo
        self._store = PostgresStore(self._conninfo)
        self._sender = Sender(self._store, outbox.sender, rate, self._clock)
        self._sending = Sending(outbox, client, self._sender, policy=policy, reject_on=reject_on, clock=self._clock)
        self.is_stopping = False
        """Whether nothing more is begun."""
        self._engines: dict[Queue, Engine] = {}  # those that are connected

    @property
    def in_flight(self) -> int:
        """How many messages this worker has claimed and not yet settled."""
        return len(self._sending.in_flight)

    @property
    def condition(self) -> str:
        """How it is, in words: ready, paused and why, draining, or connecting."""
        if self.is_stopping:
            return "draining"
        if len(self._engines) < len(self._queues):
            return "connecting to the database"
        return "ready" if self._sender.paused is None else f"paused: {self._sender.paused}"

    @property
    def is_ready(self) -> bool:
        """Whether it takes messages: it is connected, not stopping, and its sender is not paused."""
        return self.condition == "ready"

    def stop(self) -> None:
        """Take no more messages; `run` returns when what is in flight has its outcome, and the rest is given back."""
        self.is_stopping = True
        self._sending.stop()
        for engine in self._engines.values():
            engine.stop()  # type: ignore[no-untyped-call] # as procrastinate declares it

    async def check(self) -> None:
        """Check that the worker can do its work.

        Raises:
            ConfigurationError: It cannot, as the database or the keys are.
            StoreError: PostgreSQL could not be reached.
        """
        async with self._outbox.connections.connection() as connection:
            await _check_keys(self._outbox, connection)
        async with self._outbox.connections.direct() as connection:
            cursor = await connection.execute("SHOW synchronous_commit")
            if await cursor.fetchone() == ("off",):
                raise ConfigurationError(
                    "synchronous_commit is off for the user of the outbox: after a crash of the database, a message "
                    "that was sent could be sent again",
                    hint="ALTER ROLE … SET synchronous_commit = on",
                )

    async def run(self) -> None:
        """Send messages until `stop` is called.

        A database that goes away is waited for. Where this is cancelled, what is in flight is given up: the reaper of
        another worker finds it, and it is unknown then.

        Raises:
            ConfigurationError: See `check`.
        """
        await self.check()
        helpers = [
            asyncio.create_task(self._sender.follow(), name="nxotp_async: sender"),
            asyncio.create_task(self._reap(), name="nxotp_async: reaper"),
        ]
        engines = [asyncio.create_task(self._run_engine(queue)) for queue in self._queues]
        try:
            await asyncio.wait(engines)
            await self._sending.finish()
        finally:
            for task in (*engines, *helpers):
                task.cancel()
            await asyncio.gather(*engines, *helpers, return_exceptions=True)
            await self._store.aclose()

    async def _run_engine(self, queue: Queue) -> None:
        while not self.is_stopping:
            try:
                await self._run_engine_once(queue)
            except Exception as error:
                cause = error.__cause__ or error  # procrastinate's tell nothing
                _log.warning("the queue of %s stopped: %s; connecting again", queue, type(cause).__name__)
            finally:
                self._engines.pop(queue, None)
            if not self.is_stopping:
                await self._clock.sleep(0.2 + self._clock.random())

    async def _run_engine_once(self, queue: Queue) -> None:
        app = new_app()

        @app.task(name=TASK, pass_context=True)
        async def send(context: JobContext, ids: list[int]) -> None:
            try:
                await self._sending.run_job(ids, queue, cast("int", context.job.worker_id))
            except Exception as error:
                # What of it is still queued, the reaper finds.
                _log.warning("a job failed: %s", error if isinstance(error, NxOtpError) else type(error).__name__)
                raise

        # The engine notices that its heartbeats or its listening have failed only while its periodic deferrer runs,
        # and that ends at once where nothing is periodic.
        @app.periodic(cron="0 0 29 2 *")
        @app.task(name=f"{TASK}.nothing", queue=queue_name(self._outbox.sender, queue))
        async def nothing(timestamp: int) -> None:
            pass

        async with connected(app, self._conninfo, max_size=4):
            engine = Engine(
                app,
                queues=[queue_name(self._outbox.sender, queue)],
                name=f"nxotp.{queue}",
                concurrency=_JOBS[queue],
                fetch_job_polling_interval=_POLL_EVERY,
                shutdown_graceful_timeout=60.0,
                delete_jobs="always",
                install_signal_handlers=False,
                update_heartbeat_interval=self._stalled_after / 3,
                stalled_worker_timeout=self._stalled_after,
            )
            if self.is_stopping:
                return
            self._engines[queue] = engine
            await engine.run()  # type: ignore[no-untyped-call] # as procrastinate declares it

    async def _reap(self) -> None:
        while True:
            try:
                async with connected(new_app(), self._conninfo) as app:
                    await reap(self._outbox, app.job_manager, stalled_after=self._stalled_after, keep=self._keep)
            except Exception as error:
                _log.warning("nothing was reaped: %s", error if isinstance(error, NxOtpError) else type(error).__name__)
            await self._clock.sleep(min(10.0, self._stalled_after) * (0.5 + 0.5 * self._clock.random()))


async def _check_keys(outbox: Outbox, connection: Connection) -> None:
    """Check that the keys are those of this outbox, and make them known to those that enqueue."""
    cursor = await connection.execute("SELECT fingerprint FROM nxotp_outbox_keys")
    known = {row[0] for row in await cursor.fetchall()}
    if known and known.isdisjoint(outbox.keys.fingerprints):
        raise ConfigurationError(
            "none of the keys in NXOTP_OUTBOX_KEYS is one of this outbox: its messages could not be read",
            hint="give the keys that the other workers have; if they are lost, empty the table nxotp_outbox_keys",
        )
    await connection.execute(
        "INSERT INTO nxotp_outbox_keys SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING", (outbox.keys.fingerprints,)
    )
