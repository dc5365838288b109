"""``nxotp doctor``."""

import sys

import click
from rich.table import Table
from rich.text import Text

from ..doctor import Check, Finding, Status, examine, is_local, send_one
from ..phone_numbers import mask_number
from .event_loop import run
from .exit_codes import ExitCode, exit_codes
from .output import print_data, print_json, print_tables, stderr
from .parameters import PHONE_NUMBER, Seconds, json_option

__all__ = ["command"]


@click.command(
    "doctor",
    epilog=exit_codes(
        success="sending should work",
        failure="the network or the vendor refuses",
        usage="wrong usage, or the OTP was not confirmed",
        configuration="the settings, the account or the clock are wrong",
        unknown="the OTP may have been accepted",
    ),
)
@click.option(
    "--send-to",
    metavar="NUMBER",
    type=PHONE_NUMBER,
    help="If no check fails, send one real OTP with a random code to this number. You are asked to confirm it, unless "
    "the API's server is this machine.",
)
@click.option("--yes", is_flag=True, help="Send the OTP without asking.")
@click.option("--timeout", type=Seconds(1, 60), default=5.0, help="For each step on the network.")
@json_option(help="Print the findings as JSON.")
def command(send_to: str | None, yes: bool, timeout: float, as_json: bool) -> None:
    """Check why sending would fail, and say what to do.

    It checks the environment, the NXOTP_ variables (keys are never shown), the DNS, the connection with its
    certificate, an answer of the API's server, and this machine's clock. No message is sent, unless you ask for one:

    \b
    nxotp doctor                                what works, and what to do
    nxotp doctor --send-to "+999 555 0100"      and send one OTP
    nxotp doctor --json                         the same for a program

    With a FAILED check, messages cannot be sent; with a warning, they can. Checks are skipped if one that they depend
    on failed: fix the first failure first.
    """  # noqa: D301 - click wants the backspace character itself
    with stderr.status("checking"):
        findings = run(examine(timeout=timeout))
    if not as_json:
        print_tables(_table(findings))
    if send_to is not None:
        sent = _send(findings, send_to, yes)
        findings.append(sent)
        if not as_json:
            print_tables(_table([sent]))
    code = _exit_code(findings)
    if as_json:
        names = ("check", "status", "found", "advice")
        fields = [{name: getattr(finding, name) for name in names} for finding in findings]
        print_json({"ready": code is ExitCode.SUCCESS, "findings": fields})
    else:
        ends = {ExitCode.SUCCESS: "ready to send", ExitCode.USAGE: "nothing was sent"}
        print_data(ends.get(code, "not ready: fix the first FAILED check first"))
    sys.exit(code)


def _send(findings: list[Finding], to: str, yes: bool) -> Finding:
    if any(finding.status is Status.FAILED for finding in findings):
        return Finding(Check.SEND, Status.SKIPPED, "not sent, because a check failed")
    if not (yes or is_local() or _confirmed(to)):
        return Finding(Check.SEND, Status.SKIPPED, "not sent, because it was not confirmed", "confirm it with --yes")
    return run(send_one(to), interrupted="interrupted; the OTP may have been accepted")


def _confirmed(to: str) -> bool:
    return sys.stdin.isatty() and click.confirm(f"Send one real OTP to {mask_number(to)}?", err=True)


def _exit_code(findings: list[Finding]) -> ExitCode:
    codes = [_code_of(finding) for finding in findings if finding.status is Status.FAILED]
    if not codes and any(one.check is Check.SEND and one.status is Status.SKIPPED for one in findings):
        return ExitCode.USAGE  # a message that was asked for and not sent is not a success
    # The first that tells more than that something failed.
    return next((code for code in codes if code is not ExitCode.FAILURE), codes[0] if codes else ExitCode.SUCCESS)


def _code_of(failed: Finding) -> ExitCode:
    if failed.check in (Check.SETTINGS, Check.CLOCK):
        return ExitCode.CONFIGURATION
    return ExitCode.of(failed.error) if failed.error else ExitCode.FAILURE


_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "bold red", Status.SKIPPED: "dim"}


def _table(findings: list[Finding]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for width in (max(map(len, Check)), max(map(len, Status))):
        table.add_column(min_width=width, no_wrap=True)
    table.add_column()
    last = None
    for finding in findings:
        # Nothing is said by colour alone: each status has a word, and the most important one is in capitals.
        word = finding.status.upper() if finding.status is Status.FAILED else finding.status
        check = "" if finding.check is last else finding.check
        table.add_row(check, Text(word, _STYLES[finding.status]), finding.found)
        if finding.advice:
            table.add_row("", "", Text(f"-> {finding.advice}", "italic"))
        last = finding.check
    return table
