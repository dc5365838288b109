"""How many messages of a ledger went where, how far they came, and what they cost."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from ..phone_numbers import calling_code, mask_number
from .money import CNY, money
from .schema import MessageState

__all__ = ["reach_of"]


def reach_of(groups: Iterable[tuple[Any, ...]]) -> dict[str, list[dict[str, Any]]]:
    """Return how many messages went where and what they cost, by country and by sender, those with most first.

    A country is its calling code. The groups are those of the statement REACH.
    """
    countries: dict[str, Counter[str]] = defaultdict(Counter)
    senders: dict[str, Counter[str]] = defaultdict(Counter)
    for digits, sender, state, receipt, currency, count, price, foreign_price in groups:
        figures = Counter({"messages": count, str(state): count})
        if receipt in ("delivered", "read"):
            figures["delivered"] = count
        elif receipt == "failed":
            figures["failed"] = count
        if foreign_price is not None:
            figures[f"cost {currency}"] = foreign_price
        elif price is not None:
            figures[f"cost {CNY}"] = price
        countries[f"+{calling_code(digits)}"].update(figures)
        senders[mask_number(sender) if sender else ""].update(figures)
    return {"countries": _table("country", countries), "senders": _table("sender", senders)}


def _table(key: str, groups: dict[str, Counter[str]]) -> list[dict[str, Any]]:
    states = [str(state) for state in MessageState if state is not MessageState.SENDING]
    rows = sorted(groups.items(), key=lambda item: (-item[1]["messages"], item[0]))
    return [
        {
            key: name,
            "messages": figures["messages"],
            **{state: figures[state] for state in states},
            "delivered": figures["delivered"],
            "failed": figures["failed"],
            "costs": {
                what.removeprefix("cost "): money(amount)
                for what, amount in sorted(figures.items())
                if what.startswith("cost ")
            },
        }
        for name, figures in rows
    ]
