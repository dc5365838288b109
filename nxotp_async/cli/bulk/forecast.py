"""What a bulk run will meet, as far as the account tells: said before the first message is sent."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

import attrs

from ...account import AccountOverview, Balance, Quality
from ...bulk import Ledger, MessageState
from ...client import OtpClient
from ...phone_numbers import mask_number
from ..output import printable

__all__ = ["Forecast", "forecast"]

_TIMEOUT: Final = 3.0  # seconds for each question; a run is not held up for long


@attrs.frozen
class Forecast:
    """What a run will meet.

    Attributes:
        warnings: What may go wrong, one line each.
        refusal: Why no message can pass, or ``None``.
    """

    warnings: list[str]
    refusal: str | None


async def forecast(ledger: Ledger, client: OtpClient, price: Decimal | None, currency: str | None = None) -> Forecast:
    """Ask the vendor about the account, and compare that with what is queued.

    Args:
        ledger: What is to be sent.
        client: Sends it.
        price: What a message costs, if that is known.
        currency: Of the price. Default: the account's. In another one, the price says nothing of the balance.
    """
    queued = (await asyncio.to_thread(ledger.counts))[MessageState.QUEUED]
    if not queued:
        return Forecast([], None)
    languages = await asyncio.to_thread(ledger.queued_languages, client.settings.language_code)
    overview = await client.with_options(timeout=_TIMEOUT).account.overview()
    warnings = [f"the account could not be looked at: {error.args[0]}" for error in overview.errors[:1]]
    warnings += [
        *_money(overview, queued, price, currency),
        *_limits(overview, queued),
        *_languages(overview, languages),
    ]
    balance = overview.balance
    is_empty = isinstance(balance, Balance) and balance.available <= 0
    return Forecast([*map(printable, warnings)], "the account has no balance left" if is_empty else None)


def _money(overview: AccountOverview, queued: int, price: Decimal | None, currency: str | None) -> Iterator[str]:
    if isinstance(balance := overview.balance, Balance) and price is not None:
        if currency not in (None, balance.currency):
            return
        affordable = max(0, int(balance.available / price))
        if affordable < queued:
            money = f"{balance.available:,} {balance.currency}".rstrip()
            yield f"the balance, {money}, lasts for {affordable:,} of {queued:,} messages at {price} each"


def _limits(overview: AccountOverview, queued: int) -> Iterator[str]:
    if not isinstance(numbers := overview.numbers, list):
        return
    limits = [number.daily_limit for number in numbers if number.daily_limit is not None]
    if limits and max(limits) < queued:
        yield f"WhatsApp allows this business {max(limits):,.0f} recipients in 24 hours; {queued:,} messages are queued"
    for number in numbers:
        if number.quality is Quality.RED:
            yield f"the quality of {mask_number(number.number)} is RED: WhatsApp may lower its limits"


def _languages(overview: AccountOverview, languages: Counter[str]) -> Iterator[str]:
    if not isinstance(templates := overview.templates, list) or not templates:
        return
    approved = {template.language for template in templates if template.is_approved}
    if missing := {language: count for language, count in languages.items() if language not in approved}:
        shown = ", ".join(f"{language} ({count:,} messages)" for language, count in sorted(missing.items()))
        yield f"no template is approved in {shown}"
