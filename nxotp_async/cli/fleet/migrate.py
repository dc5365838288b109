"""``nxotp fleet migrate``."""

import sys
from typing import TYPE_CHECKING

import click

from ..event_loop import run
from ..exit_codes import ExitCode, exit_codes
from ..output import print_data, print_json
from ..parameters import json_option
from .outboxes import outbox_of

if TYPE_CHECKING:
    from ...fleet import FleetMigration
    from ...stores import Migration

__all__ = ["command"]


@click.command(
    "migrate",
    epilog=exit_codes(
        success="the outbox can be used",
        failure="with --check, a migration is needed; or the database does not answer",
        usage="wrong usage",
        configuration="the outbox cannot be used as it is configured",
        unknown=None,
    ),
)
@click.option("--check", is_flag=True, help="Change nothing, and exit with 1 if a migration is needed.")
@json_option(help="Print the result as JSON.")
def command(check: bool, as_json: bool) -> None:
    """Make the tables of the outbox, or bring them to the version that this nxotp_async needs.

    procrastinate's tables are made and kept up to date as well, unless they were there before: then they belong to
    another application, which looks after them. It does no harm to run this again, or while a fleet is at work.
    """
    migration = run(outbox_of().migrate(dry_run=check))
    is_needed = check and migration.is_needed
    if as_json:
        versions = {name: [part.before, part.after] for name, part in _parts(migration).items()}
        print_json({**versions, "procrastinate": migration.engine, "migration_needed": is_needed})
    else:
        print_data(_text(migration, is_needed=is_needed))
    sys.exit(ExitCode.FAILURE if is_needed else ExitCode.SUCCESS)


def _parts(migration: "FleetMigration") -> dict[str, "Migration"]:
    return {"outbox": migration.outbox, "store": migration.store}


def _text(migration: "FleetMigration", *, is_needed: bool) -> str:
    if not migration.is_needed:
        return f"the tables have version {migration.outbox.after}: nothing to migrate"
    changes = [
        f"the {name}'s tables from version {part.before} to {part.after}"
        for name, part in _parts(migration).items()
        if part.is_needed
    ]
    if migration.engine:
        changes.append(f"procrastinate's tables ({', '.join(migration.engine)})")
    return f"{'needed: ' if is_needed else 'migrated: '}{'; '.join(changes)}"
