"""The tables of the outbox, and procrastinate's beside them."""

from pathlib import Path
from typing import Final, LiteralString

import attrs
from procrastinate.schema import SchemaManager

from ..errors import ConfigurationError
from ..stores import Migration
from ..stores.schema import SCHEMA as STORE_SCHEMA
from ..stores.schema import Connection, Schema

__all__ = ["SCHEMA", "FleetMigration", "check_fleet", "migrate_fleet"]

_MIGRATIONS: Final[tuple[tuple[tuple[LiteralString, ...], int], ...]] = (
    (
        (
            """
            CREATE TABLE nxotp_outbox (
                id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                cus_message_id text NOT NULL UNIQUE,
                sender text NOT NULL,
                queue text NOT NULL,
                state text NOT NULL DEFAULT 'queued',
                sealed bytea,
                recipient bytea NOT NULL,
                expires_at timestamptz NOT NULL,
                not_before timestamptz NOT NULL DEFAULT now(),
                claims integer NOT NULL DEFAULT 0,
                worker_id bigint,
                refusals integer NOT NULL DEFAULT 0,
                outcome text,
                receipt text,
                message_id text,
                code integer,
                meta_code integer,
                error text,
                reason text,
                queued_at timestamptz NOT NULL DEFAULT now(),
                sent_at timestamptz,
                finished_at timestamptz
            ) WITH (fillfactor = 70)
            """,
            "CREATE INDEX nxotp_outbox_queued ON nxotp_outbox (sender, queue) WHERE state = 'queued'",
            "CREATE INDEX nxotp_outbox_expiring ON nxotp_outbox (expires_at) WHERE state = 'queued'",
            "CREATE INDEX nxotp_outbox_sending ON nxotp_outbox (worker_id) WHERE state = 'sending'",
            "CREATE INDEX nxotp_outbox_unknown ON nxotp_outbox (expires_at) WHERE state = 'unknown'",
            "CREATE INDEX nxotp_outbox_finished ON nxotp_outbox (finished_at) WHERE finished_at IS NOT NULL",
            "CREATE INDEX nxotp_outbox_recipient ON nxotp_outbox (recipient)",
            "CREATE INDEX nxotp_outbox_message_id ON nxotp_outbox (message_id) WHERE message_id <> cus_message_id",
            "CREATE TABLE nxotp_outbox_keys (fingerprint text PRIMARY KEY)",
            # The newest of procrastinate's migrations that were made by us; none where its tables are an application's.
            "CREATE TABLE nxotp_outbox_engine (migration text NOT NULL)",
        ),
        1,
    ),
)
_COMMAND: Final = "nxotp fleet migrate"
SCHEMA: Final = Schema(
    "outbox",
    "nxotp_outbox_schema",
    _COMMAND,
    "nxotp_outbox, nxotp_outbox_keys, nxotp_outbox_engine and procrastinate's tables",
    _MIGRATIONS,
)


@attrs.frozen
class FleetMigration:
    """What the tables of a fleet need, or what was done to them.

    Attributes:
        outbox: The tables of the outbox.
        store: The tables of what the workers share: rates, and who is paused.
        engine: procrastinate's migrations; ``None`` where its tables are looked after by another application.
    """

    outbox: Migration
    store: Migration
    engine: tuple[str, ...] | None

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to change."""
        return self.outbox.is_needed or self.store.is_needed or bool(self.engine)


async def migrate_fleet(connection: Connection, *, dry_run: bool = False) -> FleetMigration:
    """Make all the tables of a fleet, or bring them to their newest versions, and return what was changed.

    procrastinate's are made and kept up to date only if they are not there yet: otherwise they are an application's.
    """
    engine = await _engine_migrations(connection)
    if engine and not dry_run:
        await _migrate_engine(connection, engine)
    outbox = await SCHEMA.migrate(connection, dry_run=dry_run)
    if engine and not dry_run:
        async with connection.transaction():
            await connection.execute("DELETE FROM nxotp_outbox_engine")
            await connection.execute("INSERT INTO nxotp_outbox_engine VALUES (%s)", (_all_migrations()[-1].name,))
    return FleetMigration(outbox, await STORE_SCHEMA.migrate(connection, dry_run=dry_run), engine)


async def check_fleet(connection: Connection) -> None:
    """Check that the tables are there, in a version that this library works with.

    Raises:
        ConfigurationError: They are not.
    """
    migration = await migrate_fleet(connection, dry_run=True)
    if migration.is_needed:
        problem = "are older than this version needs" if migration.outbox.before else "are missing"
        raise ConfigurationError(f"the outbox's tables {problem}", hint=f"run  {_COMMAND}")


async def _engine_migrations(connection: Connection) -> tuple[str, ...] | None:
    """Return which of procrastinate's migrations are still to be made."""
    cursor = await connection.execute(
        "SELECT to_regclass('procrastinate_jobs') IS NOT NULL, to_regclass('nxotp_outbox_engine') IS NOT NULL"
    )
    has_engine, has_own = await cursor.fetchone() or (False, False)
    if not has_engine:
        return ("schema.sql",)
    if not has_own:
        return None
    cursor = await connection.execute("SELECT migration FROM nxotp_outbox_engine")
    newest = await cursor.fetchone()
    return None if newest is None else tuple(file.name for file in _all_migrations() if file.name > newest[0])


def _all_migrations() -> list[Path]:
    return sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))


async def _migrate_engine(connection: Connection, names: tuple[str, ...]) -> None:
    texts: dict[str, str] = {file.name: file.read_text(encoding="utf-8") for file in _all_migrations()}
    texts["schema.sql"] = SchemaManager.get_schema()
    async with connection.transaction():
        for name in names:
            await connection.execute(texts[name].encode())
