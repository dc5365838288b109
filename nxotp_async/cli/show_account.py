"""``nxotp account``."""

import math
import sys

import click
from rich.table import Table

from ..account import AccountOverview, Balance, SendingNumber, Template
from ..client import OtpClient
from ..errors import NxOtpError
from ..phone_numbers import mask_number
from .account import account_client, ask_credentials
from .event_loop import run
from .exit_codes import ExitCode, exit_codes
from .output import error_fields, print_error, print_json, print_tables, printable
from .parameters import PHONE_NUMBER, Seconds, base_url_option, json_option

__all__ = ["command"]


@click.command(
    "account",
    epilog=exit_codes(
        success="everything could be looked at",
        failure="something could not",
        usage="wrong usage",
        configuration="configuration, or the account is refused",
        unknown=None,
    ),
)
@click.option(
    "--business-phone", type=PHONE_NUMBER, help="The number whose templates to show. Default: NXOTP_BUSINESS_PHONE."
)
@base_url_option
@click.option("--timeout", type=Seconds(1, 60), default=10.0, help="For each question.")
@json_option(help="Print it as JSON.")
def command(business_phone: str | None, base_url: str | None, timeout: float, as_json: bool) -> None:
    """Show the account: its balance, its sending numbers with their quality and limits, and its templates.

    Nothing is sent to anybody. The vendor's pages about this are of different years: what cannot be understood is
    empty, and what cannot be asked is told with the reason.
    """
    client = account_client(ask_credentials(), base_url=base_url, business_phone=business_phone, timeout=timeout)
    overview = run(_look(client))
    if as_json:
        print_json(_fields(overview))
    else:
        if parts := _tables(overview):
            print_tables(*parts)
        for name in ("balance", "numbers", "templates"):
            if isinstance(error := getattr(overview, name), NxOtpError):
                print_error(f"{name} could not be looked at: {printable(str(error))}")
    sys.exit(ExitCode.of(overview.errors[0]) if overview.errors else ExitCode.SUCCESS)


async def _look(client: OtpClient) -> AccountOverview:
    async with client:
        return await client.account.overview()


def _tables(overview: AccountOverview) -> list[Table | str]:
    parts: list[Table | str] = []
    if isinstance(balance := overview.balance, Balance):
        credit = f", credit {balance.credit:,}" if balance.credit else ""
        parts.append(f"balance: {balance.amount:,} {printable(balance.currency)}{credit}")
    if isinstance(overview.numbers, list):
        parts.append(_numbers(overview.numbers))
    if isinstance(overview.templates, list):
        parts.append(_templates(overview.templates))
    return parts


def _numbers(numbers: list[SendingNumber]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("number", "quality", "status", "name", "recipients in 24 hours"):
        table.add_column(heading)
    for number in numbers:
        cells = (number.quality, number.status, number.name, _limit(number.daily_limit))
        table.add_row(mask_number(number.number), *map(printable, cells))
    return table


def _templates(templates: list[Template]) -> Table:
    """Return the templates by name, each with its languages by status, so that 65 of them need no 65 lines."""
    table = Table(box=None, pad_edge=False)
    for heading in ("template", "category", "status", "languages"):
        table.add_column(heading)
    languages: dict[tuple[str, str, str], list[str]] = {}
    for one in templates:
        languages.setdefault((one.name, one.category, one.status), []).append(one.language)
    for key, found in languages.items():
        table.add_row(*map(printable, (*key, " ".join(found))))
    return table


def _limit(limit: float | None) -> str:
    if limit is None:
        return ""
    return "no limit" if math.isinf(limit) else f"{limit:,.0f}"


def _fields(overview: AccountOverview) -> dict[str, object]:
    """Return what programs read: ``null`` for what could not be looked at. A limit of ``null`` is none, or not told."""
    balance, numbers, templates = overview.balance, overview.numbers, overview.templates
    return {
        "balance": _balance_fields(balance) if isinstance(balance, Balance) else None,
        "numbers": [*map(_number_fields, numbers)] if isinstance(numbers, list) else None,
        "templates": [*map(_template_fields, templates)] if isinstance(templates, list) else None,
        "errors": [error_fields(error) for error in overview.errors],
    }


def _balance_fields(balance: Balance) -> dict[str, object]:
    return {"currency": balance.currency, "amount": str(balance.amount), "credit": str(balance.credit)}


def _number_fields(number: SendingNumber) -> dict[str, object]:
    limit = number.daily_limit
    return {
        "number": mask_number(number.number),
        "quality": number.quality,
        "name": number.name,
        "name_status": number.name_status,
        "status": number.status,
        "daily_limit": None if limit is None or math.isinf(limit) else int(limit),
        "is_unlimited": limit is not None and math.isinf(limit),
    }


def _template_fields(template: Template) -> dict[str, object]:
    names = ("id", "name", "language", "category", "status", "rejected_reason")
    return {name: getattr(template, name) for name in names}
