"""``nxotp store``."""

import os
import sys

import click

from ..errors import ConfigurationError
from ..stores import Migration, store_from_url
from .account import ask
from .event_loop import run
from .exit_codes import ExitCode, exit_codes
from .output import print_data, print_json
from .parameters import json_option

__all__ = ["command"]


@click.group("store")
def command() -> None:
    """Look after the store that the processes of an application share."""


@command.command(
    "migrate",
    epilog=exit_codes(
        success="the store can be used",
        failure="with --check, a migration is needed; or the store does not answer",
        usage="wrong usage",
        configuration="the store cannot be used as it is configured",
        unknown=None,
    ),
)
@click.option("--check", is_flag=True, help="Change nothing, and exit with 1 if a migration is needed.")
@json_option(help="Print the result as JSON.")
def migrate(check: bool, as_json: bool) -> None:
    """Make the tables of the store, or bring them to the version that this nxotp_async needs.

    The store is the one in NXOTP_STORE; its URL is asked for if that is not set. Only PostgreSQL has tables. It does no
    harm to run this again, or while an application uses the store, also one with the version before.
    """
    url = os.environ.get("NXOTP_STORE") or ask("URL of the store")
    if not url:
        raise ConfigurationError(
            "NXOTP_STORE is missing: the URL of the store", hint="postgresql://user:password@host/database"
        )
    store = store_from_url(url)
    migration = run(store.migrate(dry_run=check))
    is_needed = check and migration is not None and migration.is_needed
    if as_json:
        versions = {"before": migration and migration.before, "after": migration and migration.after}
        print_json({"store": type(store).__name__, **versions, "migration_needed": is_needed})
    else:
        print_data(_text(type(store).__name__, migration, is_needed=is_needed))
    sys.exit(ExitCode.FAILURE if is_needed else ExitCode.SUCCESS)


def _text(store: str, migration: Migration | None, *, is_needed: bool) -> str:
    if migration is None:
        return f"{store} has no tables: nothing to migrate"
    if not migration.is_needed:
        return f"the tables have version {migration.after}: nothing to migrate"
    before = f"have version {migration.before}" if migration.before else "are missing"
    if is_needed:
        return f"the tables {before}, and need version {migration.after}: run  nxotp store migrate"
    return f"the tables were migrated from version {migration.before} to {migration.after}"
