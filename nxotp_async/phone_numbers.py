"""Phone numbers: as people write them, in E.164, and masked."""

import re
from functools import lru_cache
from types import ModuleType
from typing import Final, NoReturn

from .checks import InvalidValueError, text
from .errors import InvalidReason

__all__ = ["VERIFICATION_EXTRA", "calling_code", "load_numbering_plans", "mask_number", "parse_number", "parse_region"]

VERIFICATION_EXTRA: Final = "pip install 'nxotp_async[verification]'"
"""How to install the phonenumbers package."""


def mask_number(number: str) -> str:
    """Return the number with all but its first two and last two characters starred."""
    return f"{number[:2]}{'*' * max(len(number) - 4, 3)}{number[-2:]}"


def calling_code(number: str) -> str:
    """Return the country code that an E.164 number begins with; its first three digits are enough."""
    found = re.match(_CALLING_CODE, number)
    return found[0] if found else number[:3]


# What people put between the digits of a number: spaces (no-break and thin ones too), dots, hyphens and
# dashes, parentheses, and the invisible direction marks that come along when a number is copied from a contact.
_MARKS: Final = "\u200e\u200f\u202a\u202c"
_AROUND: Final = " \t\u00a0" + _MARKS
_PUNCTUATION: Final = str.maketrans("", "", " \t\u00a0\u2007\u2009\u202f.-\u2010\u2011\u2012\u2013\u2212()" + _MARKS)
_EXAMPLE: Final = "write it with its country code, +86 139 1234 5678 for example"

# ITU-T E.164 divides the country codes like this. In most countries, a 0 after the code is a trunk prefix, which is
# dialled only within the country; in the excluded ones, numbers of subscribers begin with 0 (libphonenumber 9.0).
_CALLING_CODE: Final = r"(?>1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|\d{3})"
_TRUNK_ZERO: Final = rf"(?!39|225|226|229|241|242|250|378|881|992|999){_CALLING_CODE}0"
_BEGINS_WITH_TRUNK_ZERO: Final = re.compile(_TRUNK_ZERO, re.ASCII)
_E164_DIGITS: Final = re.compile(rf"(?!{_TRUNK_ZERO})[1-9]\d{{6,14}}", re.ASCII)


@lru_cache(maxsize=1)
def load_numbering_plans() -> ModuleType | None:
    """Return the module, or ``None`` where the phonenumbers package is not installed. The first call takes 20 ms."""
    try:
        from . import numbering_plans  # noqa: PLC0415 - an extra, and too slow for ``import nxotp_async``
    except ImportError:
        return None
    return numbering_plans


def parse_region(value: object) -> str:
    """Return the two capital letters of a region (ISO 3166-1), ``US`` for example.

    Raises:
        InvalidValueError: It is no such region, or the phonenumbers package is not installed.
    """
    region, plans = text(value).strip().upper(), load_numbering_plans()
    if plans is None:
        raise InvalidValueError("needs the phonenumbers package", VERIFICATION_EXTRA)
    if region not in plans.REGIONS:
        problem = "must be the two letters of a country (ISO 3166)"
        raise InvalidValueError(problem, "US or ID, for example", InvalidReason.UNKNOWN_VALUE)
    return region


def parse_number(value: object, default_region: str | None = None) -> str:
    """Turn a phone number as people write it into E.164 digits, without the plus sign.

    Digits alone, as the vendor wants them, are taken for a number with its country code. Everything else needs the plus
    sign, or a region: ``(415) 555-2671`` would be somebody in Switzerland, whose country code is 41.

    If the phonenumbers package is installed, the number must also be a valid one of its country. Of digits alone, only
    the length is checked: some WhatsApp ids of Brazil and Mexico are older than the numbering plan.

    Args:
        value: The number.
        default_region: Whose national numbers to expect where there is no plus sign, as `parse_region` returns it.

    Raises:
        InvalidValueError: It is no E.164 number (7 to 15 digits, the first of them not 0), or not surely one.
    """
    written, plans = text(value), load_numbering_plans()
    if default_region is None and _E164_DIGITS.fullmatch(written):
        if plans is not None:
            plans.check_number(written, length_only=True)
        return written
    digits, has_plus = _read(written)
    is_bare = written.strip(_AROUND) == digits
    if default_region is not None and plans is not None and not has_plus:
        national: str = plans.number_of_region(digits, default_region, may_be_international=is_bare)
        return national
    _check_e164(digits)
    if not (has_plus or is_bare):
        _refuse("has no + before its country code, or no country code", InvalidReason.NATIONAL_NUMBER)
    if plans is not None:
        plans.check_number(digits, length_only=is_bare)
    return digits


def _read(written: str) -> tuple[str, bool]:
    """Return the digits, and whether a plus sign stands before them."""
    if "(0)" in written:
        problem = "holds a trunk prefix '(0)', which is not dialled from abroad"
        raise InvalidValueError(problem, "leave it out", InvalidReason.TRUNK_PREFIX)
    rest = written.translate(_PUNCTUATION)
    digits = rest.removeprefix("+")
    if not digits:
        _refuse("is empty", InvalidReason.EMPTY)
    if not (digits.isascii() and digits.isdigit()):
        problem = "holds something other than the ASCII digits 0-9 and number punctuation"
        _refuse(problem, InvalidReason.INVALID_CHARACTER)
    return digits, rest != digits


def _refuse(problem: str, reason: InvalidReason) -> NoReturn:
    raise InvalidValueError(problem, _EXAMPLE, reason)


def _check_e164(digits: str) -> None:
    if digits.startswith("00"):
        problem = "starts with the dialling prefix 00"
        raise InvalidValueError(problem, "write + in place of 00", InvalidReason.DIALLING_PREFIX)
    if digits.startswith("0"):
        _refuse("starts with 0: the country code is missing", InvalidReason.NATIONAL_NUMBER)
    if not 7 <= len(digits) <= 15:
        _refuse(f"has {len(digits)} digits; an E.164 number has 7 to 15", InvalidReason.WRONG_LENGTH)
    if _BEGINS_WITH_TRUNK_ZERO.match(digits):
        problem = "has a trunk prefix 0 after its country code, which is not dialled from abroad"
        raise InvalidValueError(problem, "leave the 0 out", InvalidReason.TRUNK_PREFIX)
