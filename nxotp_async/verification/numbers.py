"""Which numbers are verified, and what is counted together of numbers and IP addresses."""

from collections.abc import Collection, Mapping
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Self

import attrs

from .. import numbering_plans
from ..checks import InvalidValueError, text
from ..errors import RefusalReason, VerificationRefusedError
from ..phone_numbers import mask_number, parse_number, parse_region
from .codes import CODE_LENGTH, normalize_code
from .limits import Scope

__all__ = ["Recipient", "parse_countries", "parse_ip", "parse_test_numbers"]


def parse_countries(value: object) -> frozenset[str] | None:
    """Return the countries whose numbers are verified; ``None`` means all.

    Raises:
        InvalidValueError: There is none, or one does not exist.
    """
    if value == "any":
        return None
    if isinstance(value, str | bytes) or not isinstance(value, Collection) or not value:
        hint = '"any" means every country, also the most expensive ones'
        raise InvalidValueError('must be a set of countries, {"ID", "SG"} for example', hint)
    return frozenset(map(parse_region, value))


def parse_ip(value: object) -> str:
    """Return what is counted together of an IP address: an IPv6 network of 64 bits is one customer's.

    Raises:
        InvalidValueError: It is none.
    """
    written = text(value).strip()
    try:
        address = ip_address(written)
    except ValueError:
        raise InvalidValueError("must be an IP address, without a port") from None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return str(ip_network((address.packed, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)


def parse_test_numbers(value: object) -> dict[str, str]:
    """Return codes by number.

    Raises:
        InvalidValueError: A number or a code is none.
    """
    if not isinstance(value, Mapping):
        raise InvalidValueError('must be codes by number, {"+999 555 0100": "123456"} for example')
    codes = {parse_number(number): normalize_code(code) for number, code in value.items()}
    if not all(codes.values()):
        raise InvalidValueError(f"must have a code of {CODE_LENGTH} digits for every number")
    return codes


@attrs.frozen
class Recipient:
    """A number that a code is sent to, and what is known of it.

    Attributes:
        number: E.164 digits.
        country: Its country by two letters, or ``None`` if it cannot be told.
        is_mobile: Whether it may be a mobile number.
    """

    number: str = attrs.field(repr=mask_number)
    country: str | None
    is_mobile: bool

    @classmethod
    def of(cls, number: str) -> Self:
        """Return the recipient with this number."""
        return cls(number, *numbering_plans.region_and_kind(number))

    @property
    def prefix(self) -> str:
        """The number without its last four digits."""
        return self.number[:-4]

    @property
    def scopes(self) -> dict[Scope, str]:
        """What every message to the number counts in."""
        return {Scope.PREFIX: self.prefix, Scope.COUNTRY: self.country or "", Scope.ALL: ""}

    def check(self, countries: frozenset[str] | None, *, is_sandbox: bool) -> None:
        """Refuse a number that no code is sent to.

        Args:
            countries: The countries that are allowed; ``None`` means all.
            is_sandbox: Whether test numbers, which belong to no country, are allowed.

        Raises:
            VerificationRefusedError: It is one.
        """
        if self.number.startswith(numbering_plans.TEST_NUMBERS):
            is_allowed = is_sandbox
        else:
            is_allowed = countries is None or self.country in countries
        if not is_allowed:
            raise VerificationRefusedError("a number of a country that is not allowed", reason=RefusalReason.COUNTRY)
        if not self.is_mobile:
            raise VerificationRefusedError("not a mobile number", reason=RefusalReason.NOT_MOBILE)
