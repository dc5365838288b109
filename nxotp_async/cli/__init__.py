"""The ``nxotp`` command: one module for each subcommand, called `command` there, and those for what they share."""

from typing import Any

import click

from .._version import __version__
from ..errors import NxOtpError
from . import bench, bulk, demo, doctor, fleet, listen, sandbox, send, show_account, sign, store
from .exit_codes import ExitCode, exit_codes
from .output import fail

__all__ = ["nxotp"]


class _Group(click.Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note how errors are to be printed, before anything can be wrong."""
        if "--json" in args and (args[0] != "bench" or "-" in args[args.index("--json") + 1 :][:1]):
            ctx.obj = "json"
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as in Group
        """Run the subcommand; an error of the library ends it with one line and its exit code."""
        try:
            return super().invoke(ctx)
        except NxOtpError as error:
            fail(error, ExitCode.of(error))
        except click.ClickException as error:
            if ctx.obj is None:
                raise
            fail(error, ExitCode(error.exit_code))
        except click.Abort:
            fail("interrupted", ExitCode.INTERRUPTED)


_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=_Group, context_settings=_SETTINGS, epilog=exit_codes())
@click.version_option(__version__, prog_name="nxotp")
def nxotp() -> None:
    """Send one-time passwords over WhatsApp through NXCloud's OTP API.

    \b
    Try it without an account:   nxotp demo
    Send one:                    nxotp send "+999 555 0100"
    Send a whole file:           nxotp bulk run otps.csv
    Find out why it fails:       nxotp doctor
    Look at the account:         nxotp account
    See status callbacks:        nxotp listen
    Debug a code 1003:           nxotp sign body.json
    Measure speed and latency:   nxotp bench
    Prepare a shared store:      nxotp store migrate
    Send from an outbox:         nxotp fleet work

    The account comes from NXOTP_ACCESS_KEY, NXOTP_ACCESS_SECRET and NXOTP_APPKEY, or is asked for. Every
    setting of OtpClient has its variable, such as NXOTP_BASE_URL.
    """  # noqa: D301 - click wants the backspace character itself


for module in (demo, doctor, show_account, send, bulk, listen, sandbox, sign, bench, store, fleet):
    nxotp.add_command(module.command)
