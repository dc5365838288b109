"""The countries' numbering plans, as the phonenumbers package knows them. It is an extra."""

import re
from typing import Final

try:
    import phonenumbers
    from phonenumbers import NumberParseException, PhoneNumber, PhoneNumberFormat, PhoneNumberType
except ImportError as error:
    raise ImportError(
        'phonenumbers is not installed: it comes with  pip install "nxotp_async[verification]"', name="phonenumbers"
    ) from error

from .checks import InvalidValueError
from .errors import InvalidReason

__all__ = ["REGIONS", "TEST_NUMBERS", "check_number", "number_of_region", "region_and_kind"]

REGIONS: Final = frozenset(phonenumbers.SUPPORTED_REGIONS)
"""The two capital letters of every country that has a numbering plan."""
TEST_NUMBERS: Final = "999"
"""A country code that E.164 reserves: numbers with it reach nobody, and are those of the sandbox and of examples."""
_NOT_MOBILE: Final = frozenset(
    {
        PhoneNumberType.FIXED_LINE,
        PhoneNumberType.TOLL_FREE,
        PhoneNumberType.PREMIUM_RATE,
        PhoneNumberType.SHARED_COST,
        PhoneNumberType.PAGER,
        PhoneNumberType.UAN,
        PhoneNumberType.VOICEMAIL,
    }
)
_MEXICAN_MOBILE: Final = re.compile(r"521\d{10}")
"""What Mexico's mobile numbers were until 2019, and WhatsApp's ids of them still are."""
_HINT: Final = "write it with its country code, +86 139 1234 5678 for example"


def check_number(digits: str, *, length_only: bool) -> None:
    """Check for a valid number of its country.

    Args:
        digits: The number with its country code.
        length_only: Whether any number of a possible length is good enough.

    Raises:
        InvalidValueError: It is no such number.
    """
    if digits.startswith(TEST_NUMBERS) or _MEXICAN_MOBILE.fullmatch(digits):
        return
    try:
        number = phonenumbers.parse(f"+{digits}")
    except NumberParseException:
        problem = "has an unknown country code, or far too few digits"
        raise InvalidValueError(problem, _HINT, InvalidReason.INVALID_NUMBER) from None
    if not phonenumbers.is_possible_number(number):
        problem = f"has too few or too many digits for its country code, {number.country_code}"
        raise InvalidValueError(problem, _HINT, InvalidReason.WRONG_LENGTH)
    if length_only:
        return
    if not phonenumbers.is_valid_number(number):
        problem = f"is not a valid number of its country code, {number.country_code}"
        raise InvalidValueError(problem, _HINT, InvalidReason.INVALID_NUMBER)
    if _e164(number) != digits:
        problem = "holds a prefix that is not dialled from abroad"
        raise InvalidValueError(problem, "leave it out", InvalidReason.TRUNK_PREFIX)


def number_of_region(digits: str, region: str, *, may_be_international: bool) -> str:
    """Return a number that was written as it is dialled within a region, in E.164.

    Args:
        digits: The number as it was written.
        region: One of `REGIONS`.
        may_be_international: Whether it may also be one with its country code. If it is a valid number in both ways,
            it is refused.

    Raises:
        InvalidValueError: It is not a valid number, or it is two.
    """
    national = _if_valid(digits, region)
    international = _if_valid(f"+{digits}", None) if may_be_international else None
    if national and international and national != international:
        problem = f"is a number of {region}, and read with a country code another one"
        raise InvalidValueError(problem, _HINT, InvalidReason.AMBIGUOUS_NUMBER)
    if found := national or international:
        return found
    if may_be_international and digits.startswith(TEST_NUMBERS):
        return digits
    raise InvalidValueError(f"is not a valid number of {region}", _HINT, InvalidReason.INVALID_NUMBER)


def _if_valid(written: str, region: str | None) -> str | None:
    try:
        number = phonenumbers.parse(written, region)
    except NumberParseException:
        return None
    return _e164(number) if phonenumbers.is_valid_number(number) else None


def _e164(number: PhoneNumber) -> str:
    return phonenumbers.format_number(number, PhoneNumberFormat.E164).removeprefix("+")


def region_and_kind(digits: str) -> tuple[str | None, bool]:
    """Return the region of a number in E.164, or ``None`` if it cannot be told, and whether it may be a mobile number.

    Of a country code that several countries share, only a valid number says whose it is: messages to an invalid one
    could be anybody's, and cost what they cost there. It is no mobile number only if it surely is another kind.
    """
    try:
        number = phonenumbers.parse(f"+{digits}")
    except NumberParseException:
        return None, True
    region = phonenumbers.region_code_for_number(number)
    if region is None:
        regions = phonenumbers.region_codes_for_country_code(number.country_code or 0)
        region = regions[0] if len(regions) == 1 else None
    return region, phonenumbers.number_type(number) not in _NOT_MOBILE
