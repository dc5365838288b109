"""``nxotp doctor``."""

import sys

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..checks import InvalidValueError
from ..doctor import Check, Finding, Status, examine, is_local, send_one
from ..errors import AccountError, AuthenticationError, OutcomeUnknownError
from ..phone_numbers import mask_number, parse_number
from .common import EXIT_CONFIGURATION, EXIT_REJECTED, EXIT_UNKNOWN, EXIT_USAGE, print_data, print_json, run, stderr

__all__ = ["doctor"]


def _parse_number(_: click.Context, option: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else parse_number(value)
    except InvalidValueError as error:
        failure = f"the number {error}"
    raise click.BadParameter(failure, param=option)


@click.command()
@click.option(
    "--send-to",
    metavar="NUMBER",
    callback=_parse_number,
    help="If no check fails, send one real OTP with a random code to this number. You are asked to confirm it, unless "
    "the API's server is this machine.",
)
@click.option("--yes", is_flag=True, help="Send the OTP without asking.")
@click.option(
    "--timeout",
    type=click.IntRange(1, 60),
    default=5,
    show_default=True,
    help="Seconds for each step on the network.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(send_to: str | None, yes: bool, timeout: int, as_json: bool) -> None:
    """Check why sending would fail, and say what to do.

    It checks the environment, the NXOTP_ variables (keys are never shown), the DNS, the connection with its
    certificate, an answer of the API's server, and this machine's clock. No message is sent, unless you ask for one:

    \b
    nxotp doctor                                what works, what does not, what to do
    nxotp doctor --send-to "+999 555 0100"      and send one OTP
    nxotp doctor --json                         the same for a program

    With a FAILED check, messages cannot be sent; with a warning, they can. Checks are skipped if one that they depend
    on failed: fix the first failure first.

    \b
    Exit codes: 0 sending should work, 1 the network or the vendor refuses, 2 wrong usage, or the OTP was not
    confirmed, 3 the settings, the account or the clock are wrong, 6 the OTP may have been accepted,
    130 interrupted.
    """  # noqa: D301 - click wants the backspace character itself
    with stderr.status("checking"):
        findings = run(examine(timeout=timeout))
    if not as_json:
        _print_findings(findings)
    if send_to is not None:
        sent = _send(findings, send_to, yes)
        findings.append(sent)
        if not as_json:
            _print_findings([sent])
    code = _exit_code(findings)
    if as_json:
        fields = [
            {"check": finding.check, "status": finding.status, "found": finding.found, "advice": finding.advice}
            for finding in findings
        ]
        print_json({"ready": code == 0, "findings": fields})
    else:
        print_data(_verdict(code))
    sys.exit(code)


def _verdict(code: int) -> str:
    if code == EXIT_USAGE:
        return "nothing was sent"
    return "ready to send" if code == 0 else "not ready: fix the first FAILED check first"


def _send(findings: list[Finding], to: str, yes: bool) -> Finding:
    if any(finding.status is Status.FAILED for finding in findings):
        return Finding(Check.SEND, Status.SKIPPED, "not sent, because a check failed")
    if not (yes or is_local() or _confirmed(to)):
        return Finding(Check.SEND, Status.SKIPPED, "not sent, because it was not confirmed", "confirm it with --yes")
    return run(send_one(to), interrupted="interrupted; the OTP may have been accepted")


def _confirmed(to: str) -> bool:
    return sys.stdin.isatty() and click.confirm(f"Send one real OTP to {mask_number(to)}?", err=True)


def _exit_code(findings: list[Finding]) -> int:
    failed = [finding for finding in findings if finding.status is Status.FAILED]
    if not failed:
        # A message that was asked for and not sent is not a success.
        return EXIT_USAGE if any(f.check is Check.SEND and f.status is Status.SKIPPED for f in findings) else 0
    for finding in failed:
        match finding:
            case Finding(check=Check.SETTINGS | Check.CLOCK) | Finding(error=AccountError() | AuthenticationError()):
                return EXIT_CONFIGURATION
            case Finding(error=OutcomeUnknownError()):
                return EXIT_UNKNOWN
    return EXIT_REJECTED


_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "bold red", Status.SKIPPED: "dim"}


def _print_findings(findings: list[Finding]) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    for width in (max(map(len, Check)), max(map(len, Status))):
        table.add_column(min_width=width, no_wrap=True)
    table.add_column()
    last = None
    for finding in findings:
        # Nothing is said by colour alone: each status has a word, and the most important one is in capitals.
        word = finding.status.upper() if finding.status is Status.FAILED else finding.status
        check = "" if finding.check is last else finding.check
        table.add_row(check, Text(word, _STYLES[finding.status]), Text(finding.found))
        if finding.advice:
            table.add_row("", "", Text(f"-> {finding.advice}", "italic"))
        last = finding.check
    console = Console(highlight=False)
    with console.capture() as capture:
        console.print(table)
    print_data("\n".join(line.rstrip() for line in capture.get().splitlines()))
