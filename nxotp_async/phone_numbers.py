"""Phone numbers: as people write them, in E.164, and masked."""

from .checks import InvalidValueError, text

__all__ = ["mask_number", "parse_number"]


def mask_number(number: str) -> str:
    """Return the number with all but its first two and last two characters starred."""
    return f"{number[:2]}{'*' * max(len(number) - 4, 3)}{number[-2:]}"


# What people put between the digits of a number: spaces (no-break and thin ones too), dots, hyphens and
# dashes, parentheses, and the invisible direction marks that come along when a number is copied from a contact.
_PUNCTUATION = str.maketrans(
    "", "", " \t\u00a0\u2007\u2009\u202f.-\u2010\u2011\u2012\u2013\u2212()\u200e\u200f\u202a\u202c"
)
_EXAMPLE = "write it with its country code, +86 139 1234 5678 for example"


def parse_number(value: object) -> str:
    """Turn a phone number as people write it into E.164 digits, without the plus sign.

    Raises:
        InvalidValueError: It is no E.164 number: 7 to 15 ASCII digits, the first of them not 0.
    """
    written = text(value)
    if written.isascii() and written.isdigit() and 7 <= len(written) <= 15 and written[0] != "0":
        return written
    if "(0)" in written:
        raise InvalidValueError("holds a trunk prefix '(0)', which is not dialled from abroad", "leave it out")
    digits = written.translate(_PUNCTUATION).removeprefix("+")
    if not digits:
        raise InvalidValueError("is empty", _EXAMPLE)
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidValueError("holds something other than the ASCII digits 0-9 and number punctuation", _EXAMPLE)
    if digits.startswith("00"):
        raise InvalidValueError("starts with the dialling prefix 00", "write + in place of 00")
    if digits.startswith("0"):
        raise InvalidValueError("starts with 0: the country code is missing", _EXAMPLE)
    if not 7 <= len(digits) <= 15:
        raise InvalidValueError(f"has {len(digits)} digits; an E.164 number has 7 to 15", _EXAMPLE)
    return digits
