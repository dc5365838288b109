"""``nxotp bulk``: a whole file of messages, in a ledger that survives a crash."""

import click

from ..exit_codes import exit_codes
from . import export, requeue, resolve, resume, run, status, steering

__all__ = ["command"]


@click.group(
    "bulk",
    epilog=exit_codes(
        success="all accepted",
        failure="some rejected or not sent",
        configuration="configuration, account or ledger: mend it, then resume",
        away="the vendor was away: resume later",
        unknown="some unknown",
    ),
)
def command() -> None:
    """Send a whole file of messages; nothing is lost, nothing is sent twice.

    \b
    nxotp bulk run otps.csv              send it; the ledger is otps.csv.ledger
    nxotp bulk resume otps.csv.ledger    continue after a crash, a kill or Ctrl-C
    nxotp bulk status otps.csv.ledger    show the outcomes, and what to do
    nxotp bulk pause otps.csv.ledger     have a run wait, until you resume it
    nxotp bulk set otps.csv.ledger       change a run's rate or concurrency
    nxotp bulk stop otps.csv.ledger      end a run
    nxotp bulk export otps.csv.ledger    write the result of each row of the file
    nxotp bulk resolve otps.csv.ledger   resolve unknown outcomes
    nxotp bulk requeue otps.csv.ledger   queue rejected messages again

    A file is CSV with a line of column names, or NDJSON; `to` and `content` are required, the other fields of a
    message are optional (language_code, category, cus_message_id, dr_webhook, api_type, business_phone, expires_at).
    """  # noqa: D301 - click wants the backspace character itself


for module in (run, resume, status, export, resolve, requeue):
    command.add_command(module.command)
for steered in (steering.pause, steering.change, steering.stop):
    command.add_command(steered)
