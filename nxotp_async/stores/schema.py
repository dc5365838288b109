# ruff: noqa: S608 - statements are put together from constants
"""Tables on a PostgreSQL server, and how they are made; those of a `PostgresStore`."""

from typing import Any, Final, LiteralString

import attrs
import psycopg

from ..errors import ConfigurationError
from .base import Migration

__all__ = ["SCHEMA", "Connection", "Schema"]

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

_LOCK: Final = 0x6E786F7470  # an advisory lock: one migration at a time


@attrs.frozen
class Schema:
    """The tables of a part of the library.

    Attributes:
        what: Whose they are, for the texts of errors.
        versions: The table that says which version they have.
        command: What makes them.
        tables: Their names, for the text that says what an application may do with them.
        migrations: The statements that bring them from each version to the next one, and the oldest version of the
            library's own that still works with the result: during a rolling deploy, older and newer workers use the
            same tables.
    """

    what: str
    versions: LiteralString
    command: str
    tables: str
    migrations: tuple[tuple[tuple[LiteralString, ...], int], ...]

    async def check(self, connection: Connection) -> None:
        """Check that the tables are there, and that this version of the library works with them; make them if allowed.

        Raises:
            ConfigurationError: They are missing and may not be made, or are older or newer than this version can use.
        """
        migration = await self.planned(connection)
        if not migration.is_needed:
            return
        try:
            await self.migrate(connection)
        except psycopg.errors.InsufficientPrivilege:
            problem = "are older than this version needs" if migration.before else "are missing"
            raise ConfigurationError(
                f"the {self.what}'s tables {problem}, and its user may not change that",
                hint=f"run  {self.command}  with a user that may create tables, then grant this one "
                f"SELECT, INSERT, UPDATE and DELETE on {self.tables} and {self.versions}",
            ) from None

    async def planned(self, connection: Connection) -> Migration:
        """Return what `migrate` would change.

        Raises:
            ConfigurationError: The tables are newer than this version of the library can use.
        """
        version, needs = await self._versions(connection)
        newest = len(self.migrations)
        if needs > newest:
            raise ConfigurationError(
                f"the {self.what}'s tables have version {version}, which needs a newer nxotp_async than this",
                hint="update it",
            )
        return Migration(version, max(version, newest))

    async def migrate(self, connection: Connection, *, dry_run: bool = False) -> Migration:
        """Make the tables, or bring them to the newest version, in one transaction; return what was changed.

        Other programs may use the tables meanwhile.
        """
        if dry_run or not (await self.planned(connection)).is_needed:
            return await self.planned(connection)
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            # Only after this does PostgreSQL see the table of another one who has just made it.
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self.versions} (version integer NOT NULL, needs integer NOT NULL)"
            )
            migration = await self.planned(connection)
            for statements, _ in self.migrations[migration.before :]:
                for statement in statements:
                    await connection.execute(statement)
            if migration.is_needed:
                await connection.execute(f"DELETE FROM {self.versions}")
                newest = len(self.migrations), self.migrations[-1][1]
                await connection.execute(f"INSERT INTO {self.versions} VALUES (%s, %s)", newest)
        return migration

    async def _versions(self, connection: Connection) -> tuple[int, int]:
        """Return the version of the tables, 0 if there are none, and which version of the library's own they need."""
        cursor = await connection.execute("SELECT to_regclass(%s) IS NOT NULL", (self.versions,))
        row = await cursor.fetchone()
        if row is None or not row[0]:
            return 0, 0
        cursor = await connection.execute(f"SELECT version, needs FROM {self.versions}")
        version, needs = await cursor.fetchone() or (0, 0)
        return version, needs


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
SCHEMA: Final = Schema("store", "nxotp_schema", "nxotp store migrate", "nxotp_entries, nxotp_rates", _MIGRATIONS)
