"""A store in PostgreSQL, for any number of processes and machines."""

import asyncio
import math
import select
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from types import MappingProxyType
from typing import Any, Final, TypeVar

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..clocks import Clock
from ..errors import ConfigurationError, StoreError, sensitive_variables
from .base import BaseStore, Migration
from .listening import Listener
from .per_loop import PerLoop
from .schema import check_schema, migrate, planned_migration
from .watching import Watchers

__all__ = ["PostgresStore"]

_OLDEST: Final = 14
_SWEEP_EVERY: Final = 60.0  # seconds
_SWEEP_AT_MOST: Final = 1000
_SILENCE: Final = 30.0  # seconds without a notification after which the server is asked whether it is there
_T = TypeVar("_T")

_GET: Final = "SELECT value FROM nxotp_entries WHERE key = %(key)s AND expires_at > now()"
# A value is replaced and announced in one statement, which is one transaction.
_INSERT: Final = """
    WITH changed AS (
        INSERT INTO nxotp_entries AS old (key, value, expires_at)
        VALUES (%(key)s, %(value)s, now() + make_interval(secs => %(ttl)s))
        ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
        WHERE old.expires_at <= now() RETURNING 1
    ) SELECT pg_notify('nxotp_store', %(key)s) FROM changed
"""
_UPDATE: Final = """
    WITH changed AS (
        UPDATE nxotp_entries SET value = %(value)s, expires_at = now() + make_interval(secs => %(ttl)s)
        WHERE key = %(key)s AND value = %(seen)s AND expires_at > now() RETURNING 1
    ) SELECT pg_notify('nxotp_store', %(key)s) FROM changed
"""
_DELETE: Final = """
    WITH changed AS (
        DELETE FROM nxotp_entries WHERE key = %(key)s AND value = %(seen)s AND expires_at > now() RETURNING 1
    ) SELECT pg_notify('nxotp_store', %(key)s) FROM changed
"""
# clock_timestamp(), because now() is the time before the statement waited for the row.
_RESERVE: Final = """
    INSERT INTO nxotp_rates AS old (key, free_at)
    VALUES (%(key)s, extract(epoch FROM clock_timestamp()) + %(cost)s)
    ON CONFLICT (key) DO UPDATE
    SET free_at = greatest(old.free_at, extract(epoch FROM clock_timestamp())) + %(cost)s
    WHERE greatest(old.free_at - extract(epoch FROM clock_timestamp()), 0) + (%(cost)s - %(tolerance)s) <= %(patience)s
    RETURNING greatest(0, free_at - %(tolerance)s - extract(epoch FROM clock_timestamp()))
"""
_SWEEP: Final = """
    DELETE FROM nxotp_entries WHERE key IN (
        SELECT key FROM nxotp_entries WHERE expires_at <= now()
        ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
"""
_SWEEP_RATES: Final = "DELETE FROM nxotp_rates WHERE free_at < extract(epoch FROM clock_timestamp()) - 3600"

# Only for connections that do not say otherwise. A connection whose peer has vanished must be noticed.
_DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "application_name": "nxotp_async",
        "target_session_attrs": "read-write",
        "keepalives_idle": 30,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }
)


class _Connection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection that is closed when a call is cancelled.

    psycopg would ask the server, over another connection, to cancel the statement, and wait for that for ten seconds. A
    server that does not answer would make every limit of time so much longer.
    """

    async def wait(self, gen: PQGen[_T], interval: float = 0.1, timeout: float | None = None) -> _T:
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout)
        except asyncio.CancelledError:
            self.pgconn.finish()
            raise


class _Pool:
    """The connections of one event loop, opened when they are needed.

    It is not psycopg's: that one connects in the background, so that a call learns only that it has waited in vain, and
    after a restart of the server it goes on waiting for seconds.
    """

    def __init__(self, connect: Callable[[], Awaitable[_Connection]], max_size: int) -> None:
        self.sweep_at = 0.0
        self._connect = connect
        self._permits = asyncio.Semaphore(max_size)
        self._idle: list[_Connection] = []
        self._is_closed = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[_Connection]:
        """Lend a connection. One with which something went wrong is not used again."""
        async with self._permits:
            connection = await self._idle_connection() or await self._connect()
            try:
                yield connection
            except BaseException:
                await connection.close()
                raise
            self._idle.append(connection)
            if self._is_closed:
                await self.aclose()

    async def _idle_connection(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if _is_open(connection):
                return connection
            await connection.close()
        return None

    async def aclose(self) -> None:
        self._is_closed = True
        while self._idle:
            await self._idle.pop().close()


class PostgresStore(BaseStore):
    """Keeps values in PostgreSQL 14 or newer, with ``pip install "nxotp_async[postgres]"``.

    What was stored survives a crash of the server, as far as ``synchronous_commit`` is on, which is the default.

    Args:
        url: How to connect, as in libpq: ``postgresql://user:password@host/database?sslmode=verify-full``. It may be of
            a pooler, such as PgBouncer, also in transaction mode.
        listen_url: How to connect without a pooler, for the one connection of each event loop that hears of changes.
            Default: ``url``.
        max_connections: The maximum number of connections of each event loop, without that one.
        timeout: Seconds for one call.
        clock: The source of time, randomness and sleep.

    Raises:
        ConfigurationError: A string is wrong.
    """

    @sensitive_variables
    def __init__(
        self,
        url: str,
        *,
        listen_url: str | None = None,
        max_connections: int = 10,
        timeout: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(timeout, clock)
        self._conninfo = _conninfo(url, timeout)
        self._listen_conninfo = self._conninfo if listen_url is None else _conninfo(listen_url, timeout)
        self._max_connections = max_connections
        self._loops = PerLoop(self._open)
        self._listeners = Listener(self._listen, self._clock)

    def __repr__(self) -> str:
        given = conninfo_to_dict(self._conninfo)
        return f"PostgresStore(host={given.get('host')!r}, dbname={given.get('dbname')!r})"

    async def migrate(self, *, dry_run: bool = False) -> Migration:
        """Make the tables, or bring them to the newest version, and return what was changed.

        Args:
            dry_run: Change nothing, and return what would be changed.

        Raises:
            ConfigurationError: The user may not do that, or the server or its tables cannot be used.
            StoreError: The server could not be reached.
        """
        async with self._in_time():
            with _errors():
                async with await self._connect(self._conninfo) as connection:
                    migration = await planned_migration(connection)
                    return await migrate(connection) if migration.is_needed and not dry_run else migration

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[_Pool]:
        pool = _Pool(lambda: self._connect(self._conninfo), self._max_connections)
        async with pool.connection() as connection:
            await check_schema(connection)
        try:
            yield pool
        finally:
            await pool.aclose()

    async def _connect(self, conninfo: str) -> _Connection:
        # Prepared statements would not survive a pooler in transaction mode.
        connection = await _Connection.connect(conninfo, autocommit=True, prepare_threshold=None)
        if (version := connection.info.server_version // 10_000) < _OLDEST:
            await connection.close()
            raise ConfigurationError(f"the store's server is PostgreSQL {version}", hint="14 or newer")
        return connection

    async def _execute(self, statement: Any, arguments: Mapping[str, Any]) -> tuple[Any, ...] | None:  # noqa: ANN401
        """Execute a statement that does all of its work in one round trip, and return its row, if it has one."""
        with _errors():
            pool = await self._loops.get()
            async with pool.connection() as connection:
                cursor = await connection.execute(statement, arguments)
                return await cursor.fetchone()

    async def _read(self, key: str) -> bytes | None:
        row = await self._execute(_GET, {"key": key})
        return None if row is None else row[0]

    async def _replace(self, key: str, seen: bytes | None, value: bytes | None, ttl: float) -> bool:
        statement = _INSERT if seen is None else _DELETE if value is None else _UPDATE
        arguments = {"key": key, "seen": seen, "value": value, "ttl": ttl}
        is_replaced = await self._execute(statement, arguments) is not None
        await self._sweep()
        return is_replaced

    async def _sweep(self) -> None:
        """Delete some of what has expired: at most once a minute, or as long as there is more."""
        pool, now = await self._loops.get(), self._clock.monotonic()
        if now < pool.sweep_at:
            return
        pool.sweep_at = now + _SWEEP_EVERY
        with suppress(StoreError), _errors():
            async with pool.connection() as connection:
                await connection.execute(_SWEEP_RATES)
                cursor = await connection.execute(_SWEEP, {"limit": _SWEEP_AT_MOST})
                if cursor.rowcount == _SWEEP_AT_MOST:
                    pool.sweep_at = now

    async def _reserve(self, key: str, count: int, rate: float, burst: float, patience: float) -> float | None:
        arguments = {"key": key, "cost": count / rate, "tolerance": burst / rate, "patience": patience}
        row = await self._execute(_RESERVE, arguments)
        return None if row is None else row[0]

    @asynccontextmanager
    async def _listen(self) -> AsyncIterator[AsyncIterator[str]]:
        with _errors():
            async with self._in_time():
                connection = await self._connect(self._listen_conninfo)
            try:
                async with self._in_time():
                    await _check_is_direct(connection)
                    await connection.execute("LISTEN nxotp_store")
                yield self._notified(connection)
            finally:
                await connection.close()

    async def _notified(self, connection: _Connection) -> AsyncIterator[str]:
        while True:
            async for notification in connection.notifies(timeout=_SILENCE):
                yield notification.payload
            async with self._in_time():
                await connection.execute("SELECT 1")  # is it still there?

    def _watchers(self) -> Watchers:
        return self._listeners.watchers()

    async def aclose(self) -> None:
        """Close the running loop's connections; see `Store.aclose`."""
        await self._listeners.aclose()
        await self._loops.aclose()


def _conninfo(url: str, timeout: float) -> str:
    try:
        given = conninfo_to_dict(url)
    except (psycopg.Error, AttributeError, TypeError):
        given = {}
    if not given:
        raise ConfigurationError(
            "the store's URL is not one of PostgreSQL's", hint="postgresql://user:password@host:5432/database"
        )
    return make_conninfo("", **{**_DEFAULTS, "connect_timeout": math.ceil(timeout), **given})


def _is_open(connection: _Connection) -> bool:
    """Return whether an idle connection is still open, as far as this machine knows, without asking the server.

    Nothing is expected on it, so what can be read is its end, or a word before that.
    """
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


async def _check_is_direct(connection: _Connection) -> None:
    """Refuse a pooler: it would listen on a connection of its own, which it gives to others meanwhile."""
    cursor = await connection.execute("SELECT pg_backend_pid()")
    if await cursor.fetchone() != (connection.info.backend_pid,):
        raise ConfigurationError(
            "the store's URL leads to a pooler, such as PgBouncer, on which changes cannot be heard of",
            hint="pass listen_url=, a URL that leads to PostgreSQL itself (NXOTP_STORE_LISTEN)",
        )


_UNUSABLE: Final = (
    psycopg.errors.InvalidAuthorizationSpecification,
    psycopg.errors.InvalidCatalogName,
    psycopg.errors.InvalidPassword,
    psycopg.errors.InsufficientPrivilege,
)
# libpq does not pass on the code of an error while it connects.
_REFUSALS: Final = ("authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry")


@contextmanager
def _errors() -> Iterator[None]:
    """Turn psycopg's errors into ours."""
    try:
        yield
    except psycopg.errors.UndefinedTable:
        raise ConfigurationError("the store's tables are missing", hint="run  nxotp store migrate") from None
    except psycopg.Error as error:
        text = " ".join(str(error).split())
        if isinstance(error, _UNUSABLE) or any(refusal in text for refusal in _REFUSALS):
            raise ConfigurationError(f"PostgreSQL refuses the store: {text}") from None
        raise StoreError(f"the store's PostgreSQL failed: {type(error).__name__}: {text}") from None
