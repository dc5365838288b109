"""The connections of each event loop to a PostgreSQL server."""

import asyncio
import math
import select
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import Any, Final, LiteralString, TypeVar

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..errors import ConfigurationError, StoreError, sensitive_variables
from .base import time_limit
from .per_loop import PerLoop
from .schema import Connection

__all__ = ["PostgresConnections"]

_OLDEST: Final = 14
_SILENCE: Final = 30.0  # seconds without a notification after which the server is asked whether it is there
_T = TypeVar("_T")

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


class PostgresConnections:
    """Connects to PostgreSQL 14 or newer: a small pool in each event loop, and connections that listen.

    Args:
        url: How to connect, as in libpq.
        what: Whose server it is, for the texts of errors: ``"store"``, for example.
        migrate: The command that makes its tables, for the texts of errors.
        check: Called with the first connection of each event loop, before it is used. Raises where the server cannot be
            used as it is.
        listen_url: How to connect without a pooler. Default: ``url``.
        max_connections: The maximum number of connections of each event loop, without those that listen.
        timeout: Seconds to connect.

    Raises:
        ConfigurationError: A string is wrong.
    """

    @sensitive_variables
    def __init__(
        self,
        url: str,
        *,
        what: str,
        migrate: str,
        check: Callable[[Connection], Awaitable[None]],
        listen_url: str | None,
        max_connections: int,
        timeout: float,
    ) -> None:
        self._what = what
        self._migrate = migrate
        self._check = check
        self._timeout = timeout
        self.conninfo = _conninfo(url, what, timeout)
        self.listen_conninfo = self.conninfo if listen_url is None else _conninfo(listen_url, what, timeout)
        self._max_connections = max_connections
        self._loops = PerLoop(self._open)

    def __repr__(self) -> str:
        given = conninfo_to_dict(self.conninfo)
        return f"host={given.get('host')!r}, dbname={given.get('dbname')!r}"

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[_Pool]:
        pool = _Pool(self._connect, self._max_connections)
        async with pool.connection() as connection:
            await self._check(connection)
        try:
            yield pool
        finally:
            await pool.aclose()

    async def _connect(self) -> _Connection:
        return await self._connect_to(self.conninfo)

    async def _connect_to(self, conninfo: str) -> _Connection:
        # Prepared statements would not survive a pooler in transaction mode.
        connection = await _Connection.connect(conninfo, autocommit=True, prepare_threshold=None)
        if (version := connection.info.server_version // 10_000) < _OLDEST:
            await connection.close()
            raise ConfigurationError(f"the {self._what}'s server is PostgreSQL {version}", hint="14 or newer")
        return connection

    @asynccontextmanager
    async def unchecked(self) -> AsyncIterator[Connection]:
        """Give a connection of its own, whatever state the server's tables are in."""
        with self.errors():
            async with await self._connect() as connection:
                yield connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection, which is in autocommit mode. psycopg's errors become the library's."""
        with self.errors():
            pool = await self._loops.get()
            async with pool.connection() as connection:
                yield connection

    async def execute(self, statement: LiteralString, arguments: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Execute a statement that does all of its work in one round trip, and return its rows, if it has any."""
        async with self.connection() as connection:
            cursor = await connection.execute(statement, arguments)
            return await cursor.fetchall() if cursor.description else []

    @asynccontextmanager
    async def direct(self) -> AsyncIterator[_Connection]:
        """Give a connection of its own that leads to PostgreSQL itself.

        Raises:
            ConfigurationError: It leads to a pooler.
        """
        with self.errors():
            async with time_limit(self._timeout, self._what):
                connection = await self._connect_to(self.listen_conninfo)
            try:
                async with time_limit(self._timeout, self._what):
                    await self._check_is_direct(connection)
                yield connection
            finally:
                await connection.close()

    @asynccontextmanager
    async def listen(self, channel: LiteralString) -> AsyncIterator[AsyncIterator[str]]:
        """Give the payloads of a channel's notifications, on a connection of its own."""
        async with self.direct() as connection:
            async with time_limit(self._timeout, self._what):
                await connection.execute(f"LISTEN {channel}")
            yield self._notified(connection)

    async def _notified(self, connection: _Connection) -> AsyncIterator[str]:
        while True:
            async for notification in connection.notifies(timeout=_SILENCE):
                yield notification.payload
            async with time_limit(self._timeout, self._what):
                await connection.execute("SELECT 1")  # is it still there?

    async def _check_is_direct(self, connection: Connection) -> None:
        """Refuse a pooler: it would listen on a connection of its own, which it gives to others meanwhile."""
        cursor = await connection.execute("SELECT pg_backend_pid()")
        if await cursor.fetchone() != (connection.info.backend_pid,):
            raise ConfigurationError(
                f"the {self._what}'s URL leads to a pooler, such as PgBouncer, on which changes cannot be heard of",
                hint=f"pass listen_url=, a URL that leads to PostgreSQL itself (NXOTP_{self._what.upper()}_LISTEN)",
            )

    async def aclose(self) -> None:
        """Close the running loop's pool."""
        await self._loops.aclose()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn psycopg's errors into ours."""
        try:
            yield
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction):
            raise ConfigurationError(f"the {self._what}'s tables are missing", hint=f"run  {self._migrate}") from None
        except psycopg.Error as error:
            text = " ".join(str(error).split())
            if isinstance(error, psycopg.errors.ReadOnlySqlTransaction) or "session is read-only" in text:
                raise StoreError(
                    f"the {self._what}'s PostgreSQL is in recovery: a standby, which takes no changes",
                    hint="let the URL lead to the primary, or name all hosts: postgresql://user@host1,host2/database",
                ) from None
            if isinstance(error, _UNUSABLE) or any(refusal in text for refusal in _REFUSALS):
                raise ConfigurationError(f"PostgreSQL refuses the {self._what}: {text}") from None
            raise StoreError(f"the {self._what}'s PostgreSQL failed: {type(error).__name__}: {text}") from None


def _conninfo(url: str, what: str, timeout: float) -> str:
    try:
        given = conninfo_to_dict(url)
    except (psycopg.Error, AttributeError, TypeError):
        given = {}
    if not given:
        raise ConfigurationError(
            f"the {what}'s URL is not one of PostgreSQL's", hint="postgresql://user:password@host:5432/database"
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


_UNUSABLE: Final = (
    psycopg.errors.InvalidAuthorizationSpecification,
    psycopg.errors.InvalidCatalogName,
    psycopg.errors.InvalidPassword,
    psycopg.errors.InsufficientPrivilege,
)
# libpq does not pass on the code of an error while it connects.
_REFUSALS: Final = ("authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry")
