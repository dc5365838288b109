"""Checks of the account: what the vendor says of its balance, its numbers and its templates."""

import math

from ..account import AccountOverview, Balance, Quality, SendingNumber, Template
from ..client import OtpClient
from ..clocks import Clock
from ..errors import AuthenticationError, ConfigurationError, NxOtpError
from ..phone_numbers import mask_number
from ..settings import Settings
from .findings import Check, Finding, Status, printable

__all__ = ["examine_account"]

_UNCERTAIN = "sending may work nevertheless: the vendor's pages about this are of different years"


async def examine_account(timeout: float, clock: Clock) -> list[Finding]:
    """Ask the vendor about the account of the variables. ``timeout`` is the seconds for each question."""
    try:
        client = OtpClient(timeout=timeout, clock=clock)
    except ConfigurationError:
        return [Finding(Check.ACCOUNT, Status.SKIPPED, "not checked, because of settings")]
    async with client:
        overview = await client.account.overview()
    errors = overview.errors
    if len(errors) == 3 and all(isinstance(error, AuthenticationError) for error in errors):
        found = f"the vendor refuses the keys: {errors[0].args[0]}"
        return [Finding(Check.ACCOUNT, Status.FAILED, found, errors[0].hint or "", errors[0])]
    return _findings(overview, client.settings)


def _findings(overview: AccountOverview, settings: Settings) -> list[Finding]:
    findings = [_unknown(error) for error in overview.errors]
    if isinstance(overview.balance, Balance):
        findings.append(_balance(overview.balance))
    if isinstance(overview.numbers, list):
        findings += _numbers(overview.numbers, settings.business_phone)
    if isinstance(overview.templates, list):
        findings.append(_templates(overview.templates, settings.language_code))
    return findings


def _unknown(error: NxOtpError) -> Finding:
    return Finding(
        Check.ACCOUNT, Status.WARNING, f"could not be looked at: {printable(str(error.args[0]))}", _UNCERTAIN
    )


def _balance(balance: Balance) -> Finding:
    found = f"balance {balance.amount:,} {printable(balance.currency)}".rstrip()
    if balance.credit:
        found += f", credit {balance.credit:,}"
    if balance.available <= 0:
        return Finding(Check.ACCOUNT, Status.WARNING, found, "recharge the account")
    return Finding(Check.ACCOUNT, Status.OK, found)


def _numbers(numbers: list[SendingNumber], configured: str | None) -> list[Finding]:
    findings = [_number(number) for number in numbers]
    if configured is not None and numbers and configured not in {number.number for number in numbers}:
        found = f"NXOTP_BUSINESS_PHONE, {mask_number(configured)}, is none of the account's numbers"
        findings.append(Finding(Check.ACCOUNT, Status.WARNING, found, "correct it, or have the number bound"))
    return findings


def _number(number: SendingNumber) -> Finding:
    parts = [f"number {mask_number(number.number)}", f"quality {number.quality}"]
    if number.daily_limit is not None:
        limit = "no limit" if math.isinf(number.daily_limit) else f"{number.daily_limit:,.0f}"
        parts.append(f"recipients in 24 hours: {limit}")
    if number.status:
        parts.append(printable(number.status))
    found = ", ".join(parts)
    if number.quality is Quality.RED:
        advice = "recipients block or report it: send less, and only to who has asked for a code"
        return Finding(Check.ACCOUNT, Status.WARNING, found, advice)
    return Finding(Check.ACCOUNT, Status.OK, found)


def _templates(templates: list[Template], language: str) -> Finding:
    languages = sorted({template.language for template in templates if template.is_approved})
    found = f"{len(templates)} templates; approved in {len(languages)} languages"
    if 0 < len(languages) <= 10:
        found += ": " + printable(", ".join(languages))
    if templates and language not in languages:
        found += f"; none is approved in {language}, the default language"
        return Finding(Check.ACCOUNT, Status.WARNING, found, "have one approved, or set NXOTP_LANGUAGE_CODE")
    return Finding(Check.ACCOUNT, Status.OK, found)
