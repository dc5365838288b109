"""``nxotp fleet``: messages in PostgreSQL, and workers on any number of machines."""

import click

from ..exit_codes import exit_codes
from . import migrate, work

__all__ = ["command"]


@click.group(
    "fleet",
    epilog=exit_codes(
        success="done",
        failure="the database does not answer",
        usage="wrong usage",
        configuration="configuration, account or outbox",
        unknown=None,
    ),
)
def command() -> None:
    """Send what applications put into their outbox, with workers on any number of machines.

    \b
    nxotp fleet migrate    make the tables, or bring them to the version that this nxotp_async needs
    nxotp fleet work       send what is queued, until it is told to stop

    The outbox is the PostgreSQL database of NXOTP_DATABASE_URL, and its keys are in NXOTP_OUTBOX_KEYS, separated by
    commas. The account's keys are those of nxotp send.
    """  # noqa: D301 - click wants the backspace character itself


for module in (migrate, work):
    command.add_command(module.command)
