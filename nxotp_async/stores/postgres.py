"""A store in PostgreSQL, for any number of processes and machines."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, LiteralString

from ..clocks import Clock
from ..errors import StoreError, sensitive_variables
from .base import BaseStore, Migration
from .connections import PostgresConnections
from .listening import Listener
from .schema import SCHEMA
from .watching import Watchers

__all__ = ["PostgresStore"]

_SWEEP_EVERY: Final = 60.0  # seconds
_SWEEP_AT_MOST: Final = 1000

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
        self._connections = PostgresConnections(
            url,
            what="store",
            migrate="nxotp store migrate",
            check=SCHEMA.check,
            listen_url=listen_url,
            max_connections=max_connections,
            timeout=timeout,
        )
        self._listeners = Listener(lambda: self._connections.listen("nxotp_store"), self._clock)
        self._sweep_at = 0.0

    def __repr__(self) -> str:
        return f"PostgresStore({self._connections!r})"

    async def migrate(self, *, dry_run: bool = False) -> Migration:
        """Make the tables, or bring them to the newest version, and return what was changed.

        Args:
            dry_run: Change nothing, and return what would be changed.

        Raises:
            ConfigurationError: The user may not do that, or the server or its tables cannot be used.
            StoreError: The server could not be reached.
        """
        async with self._in_time(), self._connections.unchecked() as connection:
            return await SCHEMA.migrate(connection, dry_run=dry_run)

    async def _execute(self, statement: LiteralString, arguments: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Execute a statement, and return its first row, if it has one."""
        rows = await self._connections.execute(statement, arguments)
        return rows[0] if rows else None

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
        now = self._clock.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + _SWEEP_EVERY
        with suppress(StoreError):
            async with self._connections.connection() as connection:
                await connection.execute(_SWEEP_RATES)
                cursor = await connection.execute(_SWEEP, {"limit": _SWEEP_AT_MOST})
                if cursor.rowcount == _SWEEP_AT_MOST:
                    self._sweep_at = now

    async def _reserve(self, key: str, count: int, rate: float, burst: float, patience: float) -> float | None:
        arguments = {"key": key, "cost": count / rate, "tolerance": burst / rate, "patience": patience}
        row = await self._execute(_RESERVE, arguments)
        return None if row is None else row[0]

    def _watchers(self) -> Watchers:
        return self._listeners.watchers()

    async def aclose(self) -> None:
        """Close the running loop's connections; see `Store.aclose`."""
        await self._listeners.aclose()
        await self._connections.aclose()
