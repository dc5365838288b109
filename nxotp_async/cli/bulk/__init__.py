"""``nxotp bulk``: a whole file of messages, in a ledger that survives a crash. One module for what belongs together."""

import click

from .results import export, resolve, status
from .run import resume, run

__all__ = ["bulk"]


@click.group()
def bulk() -> None:
    """Send a whole file of messages; nothing is lost, nothing is sent twice.

    \b
    nxotp bulk run otps.csv              send it; the ledger is otps.csv.ledger
    nxotp bulk resume otps.csv.ledger    go on after a crash, a kill or Ctrl-C
    nxotp bulk status otps.csv.ledger    what became of it, and what to do next
    nxotp bulk export otps.csv.ledger    one row of results for each row of the file
    nxotp bulk resolve otps.csv.ledger   settle what is unknown

    A file is CSV with a line of column names, or NDJSON; `to` and `content` must be there, the other fields of a
    message may (language_code, category, cus_message_id, dr_webhook, api_type, business_phone, expires_at).

    \b
    Exit codes: 0 all accepted, 1 some rejected or not sent, 2 wrong usage or file, 3 configuration, account or
    ledger, 6 some unknown, 130 interrupted.
    """  # noqa: D301 - click wants the backspace character itself


for command in (run, resume, status, export, resolve):
    bulk.add_command(command)
