"""The ``nxotp`` command. Data goes to stdout, everything else to stderr. One module a subcommand."""

import click

from .._version import __version__
from .bench import bench
from .bulk import bulk
from .demo import demo
from .doctor import doctor
from .listen import listen
from .sandbox import sandbox
from .send import send
from .sign import sign

__all__ = ["nxotp"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nxotp")
def nxotp() -> None:
    """Send one-time passwords over WhatsApp through NXCloud's OTP API.

    \b
    Try it without an account:   nxotp demo
    Send one:                    nxotp send "+999 555 0100"
    Send a whole file:           nxotp bulk run otps.csv
    Find out why it fails:       nxotp doctor
    See what arrives:            nxotp listen
    Look into a code 1003:       nxotp sign body.json
    Measure speed and latency:   nxotp bench

    The account comes from NXOTP_ACCESS_KEY, NXOTP_ACCESS_SECRET and NXOTP_APPKEY, or is asked for. Every
    setting of OtpClient has its variable, such as NXOTP_BASE_URL.

    \b
    Exit codes: 0 accepted, 1 rejected or not sent, 2 wrong usage or message, 3 configuration or account,
    6 unknown: it may have been accepted, 130 interrupted.
    """  # noqa: D301 - click wants the backspace character itself


for command in (demo, doctor, send, bulk, listen, sandbox, sign, bench):
    nxotp.add_command(command)
