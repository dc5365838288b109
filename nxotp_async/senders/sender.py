"""A sending number, the account that it belongs to, and which sender a recipient belongs to."""

import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import attrs

from ..checks import instance_of, integer, number, optional, validate
from ..errors import ConfigurationError
from ..pacing import SharedRate
from ..phone_numbers import mask_number, parse_number
from ..signing import Credentials

__all__ = ["DEFAULT_RATE", "Sender", "SenderAccount", "in_order"]

_T = TypeVar("_T")

DEFAULT_RATE: Final = 80.0
"""Messages a second from one number, as Meta documents it."""


def _valid(check: Callable[[object], object]) -> Callable[[object, "attrs.Attribute[Any]", object], object]:
    return lambda _, field, value: validate(f"{field.name} of a sender", check, value, ConfigurationError)


def _rate(value: object) -> object:
    return value if isinstance(value, SharedRate) else number(at_least=0.001)(value)


def _number(value: str | None) -> str | None:
    return None if value is None else validate("business_phone of a sender", parse_number, value, ConfigurationError)


@attrs.frozen(kw_only=True)
class SenderAccount:
    """An account that senders belong to.

    Attributes:
        credentials: Its keys. Default: those of the client.
        daily_limit: Messages of all its senders together in 24 hours, those that this process sends. WhatsApp's limit
            is one of recipients, so this is on the safe side. Default: no limit.

    Raises:
        ConfigurationError: A value is wrong.
    """

    credentials: Credentials | None = attrs.field(default=None, validator=_valid(optional(instance_of(Credentials))))
    daily_limit: int | None = attrs.field(default=None, validator=_valid(optional(integer(at_least=1))))


@attrs.frozen
class Sender:
    """A number to send by.

    Attributes:
        business_phone: The number. ``None`` leaves it to the vendor which number of the account sends.
        rate: Messages a second, per event loop, or a `SharedRate`; 80 by default, as Meta documents it for a number.
        weight: How large its share of the recipients is, in relation to the other senders. Default: as its rate.
        account: The account that it belongs to. Senders with the same keys belong to one.

    Raises:
        ConfigurationError: A value is wrong.
    """

    business_phone: str | None = attrs.field(converter=_number, repr=lambda value: repr(value and mask_number(value)))
    rate: float | SharedRate = attrs.field(default=DEFAULT_RATE, kw_only=True, validator=_valid(_rate))
    weight: float = attrs.field(
        default=attrs.Factory(lambda self: self.per_second, takes_self=True),
        kw_only=True,
        validator=_valid(number(above=0)),
    )
    account: SenderAccount = attrs.field(
        default=SenderAccount(), kw_only=True, validator=_valid(instance_of(SenderAccount))
    )

    @property
    def per_second(self) -> float:
        """Messages a second."""
        return self.rate.per_second if isinstance(self.rate, SharedRate) else self.rate

    @property
    def label(self) -> str:
        """The number, masked, to show."""
        return "the number that the vendor chooses" if self.business_phone is None else mask_number(self.business_phone)


def in_order(senders: Iterable[_T], recipient: str, of: Callable[[_T], Sender]) -> list[_T]:
    """Return the senders in the order in which they are to be tried for a recipient.

    It is the same in every process, and at any time. A sender that is added takes its share of the recipients from the
    others, and one that is removed leaves its recipients to the next in their order; all others stay where they are
    (weighted rendezvous hashing).
    """
    return sorted(senders, key=lambda sender: _score(of(sender), recipient))


def _score(sender: Sender, recipient: str) -> float:
    digest = hashlib.blake2b(f"{sender.business_phone or ''} {recipient}".encode(), digest_size=8).digest()
    share = (int.from_bytes(digest) + 1) / (2.0**64 + 2)  # between 0.0 and 1.0, neither of them
    return -math.log(share) / sender.weight  # exponentially distributed: each has its weight's chance of the smallest
