"""``nxotp fleet``: messages in PostgreSQL, and workers on any number of machines."""

import click

from ..exit_codes import exit_codes
from . import demo, export, load, migrate, resolve, resume, status, work

__all__ = ["command"]


@click.group(
    "fleet",
    epilog=exit_codes(
        success="done",
        failure="something was left undone, or the database does not answer",
        usage="wrong usage or file",
        configuration="configuration, account or outbox",
        unknown=None,
    ),
)
def command() -> None:
    """Send what applications put into their outbox, with workers on any number of machines.

    \b
    nxotp fleet migrate    make the tables, or bring them up to date
    nxotp fleet work       send what is queued, until it is told to stop
    nxotp fleet load FILE  enqueue the messages of a file
    nxotp fleet status     show what is queued, sent, failed or paused
    nxotp fleet resume     let a paused sender go on at once
    nxotp fleet resolve    resolve unknown outcomes
    nxotp fleet export     write the result of each message
    nxotp fleet demo       kill a worker in the middle, without an account

    The outbox is the PostgreSQL database of NXOTP_DATABASE_URL, and its keys are in NXOTP_OUTBOX_KEYS, separated by
    commas. The account's keys are those of nxotp send.
    """  # noqa: D301 - click wants the backspace character itself


for module in (migrate, work, load, status, resume, resolve, export, demo):
    command.add_command(module.command)
