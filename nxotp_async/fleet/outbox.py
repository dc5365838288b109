"""The outbox: messages that are committed with the caller's own rows, and what became of them."""

import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, LiteralString, Self, cast

import psycopg
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from psycopg.rows import tuple_row

from ..bulk import MessageState
from ..callbacks import TERMINAL_STATUSES, StatusEvent, advances
from ..checks import integer, number, validate
from ..clocks import Clock
from ..errors import (
    ConfigurationError,
    sensitive_variables,
)
from ..messages import OtpMessage
from ..phone_numbers import parse_number
from ..stores.base import time_limit
from ..stores.connections import PostgresConnections
from ..stores.listening import Listener
from ..stores.schema import Connection
from ..stores.watching import wait_until
from .batches import Batch, only_id
from .entries import Enqueued, OutboxCount, OutboxMessage
from .queues import JobManagers, Queue, jobs, parse_sender
from .schema import FleetMigration, check_fleet, migrate_fleet
from .sealing import Keys
from .statements import COUNTS, ENQUEUE, ENTRIES, RECEIVE, RESOLVE

__all__ = ["Outbox"]

_KNOWN_STATUSES: Final = ("queued", "sent", "delivered", "read", *TERMINAL_STATUSES)


class Outbox:
    """Messages in PostgreSQL, enqueued in the caller's own transactions and sent by the workers of a fleet.

    One outbox serves a whole program, in any number of event loops. Constructing it does no I/O. The tables are made by
    ``nxotp fleet migrate``. What is stored of a number and a content is encrypted, and is erased with the outcome or
    when the code expires.

    Args:
        url: How to connect, as in libpq. Default: the variable ``NXOTP_DATABASE_URL``. It may be of a pooler, such as
            PgBouncer, also in transaction mode.
        keys: Fernet keys; the first one encrypts, and all of them decrypt. Default: the variable ``NXOTP_OUTBOX_KEYS``,
            separated by commas.
        sender: Whose rate and account the messages use: a name that workers are started with.
        expires_after: Seconds after which a message that has no ``expires_at`` expires.
        max_queued: How many messages of the sender may be queued, in each queue.
        listen_url: How to connect without a pooler, for `wait`. Default: the variable ``NXOTP_OUTBOX_LISTEN``, or
            ``url``.
        timeout: Seconds for one call.
        environment: The variables. Default: those of this process.
        clock: Sources of time and chance for tests.

    Raises:
        ConfigurationError: An argument or a variable is missing or wrong.
    """

    @sensitive_variables
    def __init__(
        self,
        url: str | None = None,
        *,
        keys: Sequence[str] | None = None,
        sender: str = "default",
        expires_after: float = 600.0,
        max_queued: int = 100_000,
        listen_url: str | None = None,
        timeout: float = 5.0,
        environment: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        environment = os.environ if environment is None else environment
        url = url or environment.get("NXOTP_DATABASE_URL")
        if not url:
            raise ConfigurationError(
                "url (or NXOTP_DATABASE_URL) is missing: where the outbox is",
                hint="postgresql://user:password@host/database",
            )
        given = [key.strip() for key in environment.get("NXOTP_OUTBOX_KEYS", "").split(",") if key.strip()]
        self.keys = Keys(given if keys is None else keys)
        self.sender = validate("sender", parse_sender, sender, ConfigurationError)
        self._expires_after = validate("expires_after", number(above=0), expires_after, ConfigurationError)
        self.max_queued = validate("max_queued", integer(at_least=1), max_queued, ConfigurationError)
        self._timeout = validate("timeout", number(above=0), timeout, ConfigurationError)
        self._clock = clock or Clock()
        self.connections = PostgresConnections(
            url,
            what="outbox",
            migrate="nxotp fleet migrate",
            check=check_fleet,
            listen_url=listen_url or environment.get("NXOTP_OUTBOX_LISTEN") or None,
            max_connections=10,
            timeout=timeout,
        )
        self._listener = Listener(lambda: self.connections.listen("nxotp_outbox"), self._clock)

    def __repr__(self) -> str:
        return f"Outbox({self.connections!r}, sender={self.sender!r})"

    async def __aenter__(self) -> Self:
        await self.get("")  # connects, and raises what is wrong with the configuration
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the running loop's connections."""
        await self._listener.aclose()
        await self.connections.aclose()

    async def migrate(self, *, dry_run: bool = False) -> FleetMigration:
        """Make the tables, or bring them to their newest versions, and return what was changed.

        Args:
            dry_run: Change nothing, and return what would be changed.

        Raises:
            ConfigurationError: The user may not do that, or the server or its tables cannot be used.
            StoreError: The server could not be reached.
        """
        async with time_limit(60.0, "outbox"), self.connections.unchecked() as connection:
            return await migrate_fleet(connection, dry_run=dry_run)

    # ------------------------------------------------------------------------------------------ messages in

    @sensitive_variables
    async def enqueue(
        self, message: OtpMessage, *, connection: Connection | None = None, queue: Queue = Queue.LOGIN
    ) -> str:
        """Enqueue a message in the caller's transaction, and return its ``cus_message_id``.

        It adds two statements, and is sent when the transaction has been committed. After an error of the first four
        kinds, the transaction can go on.

        Args:
            message: What to send.
            connection: The transaction's connection, of psycopg 3. Default: one of the outbox's own, so that the
                message is committed when this returns.
            queue: Which messages go first.

        Raises:
            TypeError: That is no message, or no such connection.
            InvalidMessageError: The outbox holds another message with this ``cus_message_id``.
            OutboxFullError: Too many messages are queued.
            ConfigurationError: The workers have none of the keys; or the tables are missing.
            StoreError: PostgreSQL failed, or did not answer in time.
        """
        enqueued = await self.enqueue_many([message], connection=connection, queue=queue)
        return only_id(enqueued)

    @sensitive_variables
    async def enqueue_many(
        self, messages: Iterable[OtpMessage], *, connection: Connection | None = None, queue: Queue = Queue.BULK
    ) -> Enqueued:
        """Enqueue many messages, all of them or none, and return their ids.

        It costs as many statements as `enqueue`; some hundreds at a time are best. A ``cus_message_id`` that the outbox
        holds already is left alone. The arguments and errors are those of `enqueue`.
        """
        batch = self._batch(messages, queue)
        if connection is None:
            async with time_limit(self._timeout, "outbox"), self.connections.connection() as own, own.transaction():
                return await self._enqueue(batch, own)
        if not isinstance(connection, psycopg.AsyncConnection):
            raise TypeError(_no_connection(connection, "psycopg.AsyncConnection"))
        return await self._enqueue(batch, connection)

    async def _enqueue(self, batch: Batch, connection: Connection) -> Enqueued:
        with self.errors():
            async with connection.cursor(row_factory=tuple_row) as cursor:
                await cursor.execute(ENQUEUE, batch.arguments)
                ids = batch.take(await cursor.fetchone())
        await self.defer(list(jobs(self.sender, batch.queue, ids)), connection)
        return batch.enqueued

    async def defer(self, jobs: list[Job], connection: Connection) -> None:
        """Give jobs to the workers, in the transaction of a connection."""
        if jobs:
            with self.errors():
                await JobManagers.asynchronous.batch_defer_jobs_async(jobs, connection=connection)

    @sensitive_variables
    def enqueue_sync(
        self, message: OtpMessage, *, connection: psycopg.Connection[Any], queue: Queue = Queue.LOGIN
    ) -> str:
        """Enqueue a message in a transaction of a synchronous connection, as `enqueue` does.

        Of Django, this is ``django.db.connection.connection``, inside ``transaction.atomic()``.
        """
        if not isinstance(connection, psycopg.Connection):
            raise TypeError(_no_connection(connection, "psycopg.Connection"))
        batch = self._batch([message], queue)
        with self.errors():
            with connection.cursor(row_factory=tuple_row) as cursor:
                cursor.execute(ENQUEUE, batch.arguments)
                ids = batch.take(cursor.fetchone())
            if ids:
                new = list(jobs(self.sender, queue, ids))
                JobManagers.synchronous.batch_defer_jobs(new, connection=connection)
        return only_id(batch.enqueued)

    def _batch(self, messages: Iterable[OtpMessage], queue: Queue) -> Batch:
        return Batch(messages, self.keys, self.sender, queue, self.max_queued, self._expires_after)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the errors of psycopg, and of procrastinate with it, into ours."""
        with self.connections.errors():
            try:
                yield
            except ConnectorException as error:
                if error.__cause__ is None:
                    raise
                raise error.__cause__ from None

    # ------------------------------------------------------------------------------------------ messages out

    async def get(self, cus_message_id: str) -> OutboxMessage | None:
        """Return what is known of a message, or ``None``.

        Raises:
            ConfigurationError: The outbox cannot be used as it is.
            StoreError: PostgreSQL failed, or did not answer in time.
        """
        found = await self._entries("WHERE cus_message_id = %(id)s", {"id": cus_message_id})
        return found[0] if found else None

    async def wait(self, cus_message_id: str, *, timeout: float | None = None) -> OutboxMessage:
        """Wait until a message has its outcome, and return what is known of it then. Pushed, not polled.

        Args:
            cus_message_id: Its id; the transaction that enqueues it need not have been committed.
            timeout: Seconds to wait; ``None`` means without limit. An outage of the database does not end the wait.

        Raises:
            TimeoutError: It has none in time. It may still be sent.
            ConfigurationError: The outbox cannot be used as it is.
        """
        found: OutboxMessage | None = await wait_until(
            self._listener.watchers(),
            cus_message_id,
            lambda: self.get(cus_message_id),
            lambda message: message is not None and message.is_settled,
            timeout,
            self._clock,
        )
        return cast("OutboxMessage", found)

    @sensitive_variables
    async def find(self, to: str, *, limit: int = 100) -> list[OutboxMessage]:
        """Return the newest messages to a number, newest first.

        Args:
            to: The number, as in `OtpMessage`.
            limit: How many at most.

        Raises:
            ValueError: That is no number.
        """
        arguments = {"digests": self.keys.digests(parse_number(to)), "limit": limit}
        return await self._entries("WHERE recipient = ANY(%(digests)s) ORDER BY id DESC LIMIT %(limit)s", arguments)

    async def unknown_ids(self) -> list[str]:
        """Return the ids of the messages of all senders whose outcome is unknown, in the order of enqueuing."""
        rows = await self.rows("SELECT cus_message_id FROM nxotp_outbox WHERE state = 'unknown' ORDER BY id", {})
        return [row[0] for row in rows]

    async def results(self, *, batch: int = 1000) -> AsyncIterator[OutboxMessage]:
        """Yield all messages of the outbox, in the order in which they were enqueued."""
        after = 0
        while True:
            rows = await self.rows(
                f"{ENTRIES} WHERE id > %(after)s ORDER BY id LIMIT %(limit)s", {"after": after, "limit": batch}
            )
            for row in rows:
                yield OutboxMessage(*row[:-1])
            if not rows:
                return
            after = rows[-1][-1]

    async def counts(self) -> list[OutboxCount]:
        """Return how many messages have come how far, by sender, queue, state and code."""
        return [OutboxCount(*row) for row in await self.rows(COUNTS, {})]

    async def states(self) -> Counter[MessageState]:
        """Return how many messages of all senders are in which state."""
        counts: Counter[MessageState] = Counter()
        for each in await self.counts():
            counts[each.state] += each.count
        return counts

    async def record(self, event: StatusEvent) -> bool:
        """Note a status callback, and return whether it says anything new: an outbox is an `EventSink`.

        What a callback speaks of was accepted: that settles what is unknown.

        Raises:
            StoreError: PostgreSQL failed, or did not answer in time; the vendor sends the callback again then.
        """
        earlier = [status for status in _KNOWN_STATUSES if advances(status, event.status)]
        arguments = {"message_id": event.message_id, "status": event.status, "earlier": earlier}
        return bool((await self.rows(RECEIVE, arguments))[0][0])

    async def resolve(self, cus_message_ids: Sequence[str], state: MessageState) -> int:
        """Say of messages whose outcome is unknown what became of them, and return how many these were.

        Args:
            cus_message_ids: Their ids. Those of other messages change nothing.
            state: Accepted, or rejected.

        Raises:
            ValueError: Another state.
        """
        if state not in (MessageState.ACCEPTED, MessageState.REJECTED):
            raise ValueError(f"a message is resolved as accepted or rejected, not as {state}")
        rows = await self.rows(RESOLVE, {"ids": list(cus_message_ids), "state": state})
        return int(rows[0][0])

    async def _entries(self, where: LiteralString, arguments: Mapping[str, Any]) -> list[OutboxMessage]:
        return [OutboxMessage(*row[:-1]) for row in await self.rows(f"{ENTRIES} {where}", arguments)]

    async def rows(self, statement: LiteralString, arguments: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Execute a statement, and return its rows."""
        async with time_limit(self._timeout, "outbox"):
            return await self.connections.execute(statement, arguments)


def _no_connection(connection: object, wanted: str) -> str:
    return (
        f"connection must be a {wanted}, not {type(connection).__module__}.{type(connection).__qualname__}: "
        "pass the driver's own connection, of psycopg 3"
    )
