"""Phone numbers: as people write them, in E.164, and masked."""

from .errors import InvalidMessageError

__all__ = ["mask_number", "parse_number"]


def mask_number(number: str) -> str:
    """Return the number with all but its first two and last two characters starred."""
    return f"{number[:2]}{'*' * max(len(number) - 4, 3)}{number[-2:]}"


# What people put between the digits of a number: spaces (no-break and thin ones too), dots, hyphens and
# dashes, parentheses, and the invisible direction marks that come along when a number is copied from a contact.
_NUMBER_PUNCTUATION = str.maketrans(
    "", "", " \t\u00a0\u2007\u2009\u202f.-\u2010\u2011\u2012\u2013\u2212()\u200e\u200f\u202a\u202c"
)
_NUMBER_EXAMPLE = "write it with its country code, +86 139 1234 5678 for example"


def parse_number(value: object, field: str = "to") -> str:
    """Turn a phone number as people write it into E.164 digits, without the plus sign.

    Raises:
        InvalidMessageError: It is no E.164 number: 7 to 15 ASCII digits, the first of them not 0.
    """
    if not isinstance(value, str):
        raise InvalidMessageError(f"{field} must be a str, not {type(value).__name__}", field=field)
    if value.isascii() and value.isdigit() and 7 <= len(value) <= 15 and value[0] != "0":
        return value
    if "(0)" in value:
        raise InvalidMessageError(
            f"{field} holds a trunk prefix '(0)', which is not dialled from abroad", field=field, hint="leave it out"
        )
    digits = value.translate(_NUMBER_PUNCTUATION).removeprefix("+")
    if not digits:
        raise InvalidMessageError(f"{field} is empty", field=field, hint=_NUMBER_EXAMPLE)
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidMessageError(
            f"{field} holds something other than the ASCII digits 0-9 and number punctuation",
            field=field,
            hint=_NUMBER_EXAMPLE,
        )
    if digits.startswith("00"):
        raise InvalidMessageError(
            f"{field} starts with the dialling prefix 00", field=field, hint="write + in place of 00"
        )
    if digits.startswith("0"):
        raise InvalidMessageError(
            f"{field} starts with 0: the country code is missing", field=field, hint=_NUMBER_EXAMPLE
        )
    if not 7 <= len(digits) <= 15:
        raise InvalidMessageError(
            f"{field} has {len(digits)} digits; an E.164 number has 7 to 15", field=field, hint=_NUMBER_EXAMPLE
        )
    return digits
