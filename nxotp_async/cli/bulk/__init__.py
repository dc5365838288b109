"""``nxotp bulk``: a whole file of messages, in a ledger that survives a crash."""

import click

from ..exit_codes import exit_codes
from . import export, resolve, resume, run, status, steering

__all__ = ["command"]


@click.group(
    "bulk",
    epilog=exit_codes(
        success="all accepted",
        failure="some rejected or not sent",
        configuration="configuration, account or ledger: mend it; also a run that was paused for that",
        away="a run was paused because the vendor was away: try again later",
        unknown="some unknown",
    ),
)
def command() -> None:
    """Send a whole file of messages; nothing is lost, nothing is sent twice.

    \b
    nxotp bulk run otps.csv              send it; the ledger is otps.csv.ledger
    nxotp bulk resume otps.csv.ledger    continue after a crash, a kill or Ctrl-C
    nxotp bulk status otps.csv.ledger    show the outcomes, and what to do next; also while it is at work
    nxotp bulk pause otps.csv.ledger     have the run that is at work wait, until nxotp bulk resume
    nxotp bulk set otps.csv.ledger       change its rate or its concurrency
    nxotp bulk stop otps.csv.ledger      end it
    nxotp bulk export otps.csv.ledger    write the result of each row of the file
    nxotp bulk resolve otps.csv.ledger   resolve unknown outcomes

    A file is CSV with a line of column names, or NDJSON; `to` and `content` are required, the other fields of a
    message are optional (language_code, category, cus_message_id, dr_webhook, api_type, business_phone, expires_at).
    """  # noqa: D301 - click wants the backspace character itself


for module in (run, resume, status, export, resolve):
    command.add_command(module.command)
for steered in (steering.pause, steering.change, steering.stop):
    command.add_command(steered)
