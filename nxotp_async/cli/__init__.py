"""The ``nxotp`` command: one module for each subcommand, called `command` there, and those for what they share."""

from typing import Any

import click

from .._version import __version__
from ..errors import NxOtpError
from . import bench, bulk, demo, doctor, listen, sandbox, send, sign
from .exit_codes import ExitCode, exit_codes
from .output import fail

__all__ = ["nxotp"]


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as in Group
        """Run the subcommand; an error of the library ends it with one line and its exit code."""
        try:
            return super().invoke(ctx)
        except NxOtpError as error:
            fail(error, ExitCode.of(error))


_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}


@click.group(cls=_Group, context_settings=_SETTINGS, epilog=exit_codes())
@click.version_option(__version__, prog_name="nxotp")
def nxotp() -> None:
    """Send one-time passwords over WhatsApp through NXCloud's OTP API.

    \b
    Try it without an account:   nxotp demo
    Send one:                    nxotp send "+999 555 0100"
    Send a whole file:           nxotp bulk run otps.csv
    Find out why it fails:       nxotp doctor
    See status callbacks:        nxotp listen
    Debug a code 1003:           nxotp sign body.json
    Measure speed and latency:   nxotp bench

    The account comes from NXOTP_ACCESS_KEY, NXOTP_ACCESS_SECRET and NXOTP_APPKEY, or is asked for. Every
    setting of OtpClient has its variable, such as NXOTP_BASE_URL.
    """  # noqa: D301 - click wants the backspace character itself


for module in (demo, doctor, send, bulk, listen, sandbox, sign, bench):
    nxotp.add_command(module.command)
