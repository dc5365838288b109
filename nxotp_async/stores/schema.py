"""The tables of a `PostgresStore`, and how they are made."""

from typing import Any, Final, LiteralString

import psycopg

from ..errors import ConfigurationError
from .base import Migration

__all__ = ["Connection", "check_schema", "migrate", "planned_migration"]

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

# What brings the tables from each version to the next one, and the oldest version of the library's own that still
# works with the result: during a rolling deploy, older and newer workers use the same tables.
_MIGRATIONS: Final[tuple[tuple[tuple[LiteralString, ...], int], ...]] = (
    (
        (
            "CREATE TABLE nxotp_entries (key text PRIMARY KEY, value bytea NOT NULL, expires_at timestamptz NOT NULL)",
            "CREATE INDEX nxotp_entries_expires_at ON nxotp_entries (expires_at)",
            # A crash may forget the rates, and nothing waits until they are on the disk.
            "CREATE UNLOGGED TABLE nxotp_rates (key text PRIMARY KEY, free_at float8 NOT NULL) WITH (fillfactor = 10)",
        ),
        1,
    ),
)
_VERSION: Final = len(_MIGRATIONS)
_LOCK: Final = 0x6E786F7470  # an advisory lock: one migration at a time


async def check_schema(connection: Connection) -> None:
    """Check that the tables are there, and that this version of the library works with them; make them if allowed.

    Raises:
        ConfigurationError: They are missing and may not be made, or are older or newer than this version can use.
    """
    migration = await planned_migration(connection)
    if not migration.is_needed:
        return
    try:
        await migrate(connection)
    except psycopg.errors.InsufficientPrivilege:
        problem = "are older than this version needs" if migration.before else "are missing"
        raise ConfigurationError(
            f"the store's tables {problem}, and its user may not change that",
            hint="run  nxotp store migrate  with a user that may create tables, then grant this one "
            "SELECT, INSERT, UPDATE and DELETE on nxotp_entries, nxotp_rates and nxotp_schema",
        ) from None


async def planned_migration(connection: Connection) -> Migration:
    """Return what `migrate` would change.

    Raises:
        ConfigurationError: The tables are newer than this version of the library can use.
    """
    version, needs = await _versions(connection)
    if needs > _VERSION:
        raise ConfigurationError(
            f"the store's tables have version {version}, which needs a newer nxotp_async than this", hint="update it"
        )
    return Migration(version, max(version, _VERSION))


async def migrate(connection: Connection) -> Migration:
    """Make the tables, or bring them to the newest version, in one transaction; return what was changed.

    Other programs may use the tables meanwhile.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        # Only after this does PostgreSQL see the table of another one who has just made it.
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS nxotp_schema (version integer NOT NULL, needs integer NOT NULL)"
        )
        migration = await planned_migration(connection)
        for statements, _ in _MIGRATIONS[migration.before :]:
            for statement in statements:
                await connection.execute(statement)
        if migration.is_needed:
            await connection.execute("DELETE FROM nxotp_schema")
            await connection.execute("INSERT INTO nxotp_schema VALUES (%s, %s)", (_VERSION, _MIGRATIONS[-1][1]))
    return migration


async def _versions(connection: Connection) -> tuple[int, int]:
    """Return the version of the tables, 0 if there are none, and which version of the library's own they need."""
    cursor = await connection.execute("SELECT to_regclass('nxotp_schema') IS NOT NULL")
    row = await cursor.fetchone()
    if row is None or not row[0]:
        return 0, 0
    cursor = await connection.execute("SELECT version, needs FROM nxotp_schema")
    return await cursor.fetchone() or (0, 0)
