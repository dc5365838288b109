"""What messages cost, as callbacks tell, and how many more a budget allows."""

from decimal import ROUND_CEILING, Decimal
from typing import Final

import attrs

from ..callbacks import StatusEvent
from ..checks import InvalidValueError, validate
from ..errors import ConfigurationError

__all__ = ["CNY", "Budget", "Charge", "charge_of", "money"]

_MILLION: Final = 1_000_000  # money is kept in millionths, as whole numbers
CNY: Final = "CNY"

Charge = tuple[int | None, int | None, str]
"""What a message costs: its price in millionths of a CNY, that in the other currency, and which that is."""


def charge_of(event: StatusEvent) -> Charge | None:
    """Return what an event says that its message costs, or nothing."""
    costs = [cost for cost in event.costs if cost.message_id == event.message_id] or event.costs
    prices = [cost.price for cost in costs if cost.price is not None]
    currency = next((cost.currency for cost in costs if cost.foreign_price is not None), "")
    foreign = [cost.foreign_price for cost in costs if cost.foreign_price is not None and cost.currency == currency]
    if not prices and not foreign:
        return None
    return _millionths(prices), _millionths(foreign), currency


def _millionths(amounts: list[Decimal]) -> int | None:
    whole = (sum(amounts, Decimal(0)) * _MILLION).to_integral_value(ROUND_CEILING) if amounts else None
    return None if whole is None else int(max(Decimal(0), min(whole, Decimal(2**62))))


def money(millionths: int | None) -> str | None:
    """Return an amount as text."""
    return None if millionths is None else f"{(Decimal(millionths) / _MILLION).normalize():f}"


# ---------------------------------------------------------------------------------------------- a budget


@attrs.frozen
class Budget:
    """What the messages of a ledger may cost together.

    What may have been accepted counts as ``price``, until a callback says what it costs; or as the highest price that
    one has told, if that is more.

    Attributes:
        amount: The most that may be spent.
        price: What a message costs at the most.
        currency: Of both: ``CNY``, or another one that callbacks name.

    Raises:
        ConfigurationError: A value is wrong.
    """

    amount: Decimal
    price: Decimal
    currency: str

    def __attrs_post_init__(self) -> None:
        validate("price", _above_zero, self.price, ConfigurationError)
        validate("budget", _not_negative, self.amount, ConfigurationError)

    def room(self, unpriced: int, spent: int, highest: int) -> int:
        """Return how many more messages it allows, given what was sent: how many of unknown cost, and the others'."""
        price = max(int((self.price * _MILLION).to_integral_value(ROUND_CEILING)), highest)
        return max(0, (int(self.amount * _MILLION) - spent) // price - unpriced)

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency}"


def _above_zero(value: object) -> object:
    if not isinstance(value, Decimal) or not value.is_finite() or value <= 0:
        raise InvalidValueError("must be more than 0")
    return value


def _not_negative(value: object) -> object:
    if not isinstance(value, Decimal) or not value.is_finite() or value < 0:
        raise InvalidValueError("must be 0 or more")
    return value
