"""Which numbers are verified, and what is counted together of numbers and IP addresses."""

from collections.abc import Collection
from ipaddress import IPv6Address, ip_address, ip_network

from .. import numbering_plans
from ..checks import InvalidValueError, text
from ..errors import RefusalReason, VerificationRefusedError
from ..phone_numbers import parse_region
from .limits import Scope

__all__ = ["check_number", "parse_countries", "parse_ip", "scopes_of"]


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


def check_number(number: str, countries: frozenset[str] | None, *, is_sandbox: bool) -> None:
    """Refuse a number that no code is sent to.

    Args:
        number: E.164 digits.
        countries: The countries that are allowed; ``None`` means all.
        is_sandbox: Whether test numbers, which belong to no country, are allowed.

    Raises:
        VerificationRefusedError: It is one.
    """
    if number.startswith(numbering_plans.TEST_NUMBERS):
        is_allowed = is_sandbox
    else:
        is_allowed = countries is None or numbering_plans.region_of(number) in countries
    if not is_allowed:
        raise VerificationRefusedError("a number of a country that is not allowed", reason=RefusalReason.COUNTRY)
    if not numbering_plans.is_mobile(number):
        raise VerificationRefusedError("not a mobile number", reason=RefusalReason.NOT_MOBILE)


def scopes_of(number: str) -> dict[Scope, str]:
    """Return what every message to a number counts in."""
    country = numbering_plans.region_of(number) or ""
    return {Scope.PREFIX: number[:-4], Scope.COUNTRY: country, Scope.ALL: ""}
