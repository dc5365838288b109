"""Checks of single values, for settings, options and the fields of messages.

A check takes a value and returns it, perhaps in another form. What it refuses ends a sentence that begins with the
value's name: "must be a str, not int".
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from .errors import InvalidReason

__all__ = [
    "InvalidValueError",
    "flag",
    "header_text",
    "instance_of",
    "integer",
    "integers",
    "number",
    "optional",
    "text",
    "validate",
]

_T = TypeVar("_T")


class InvalidValueError(ValueError):
    """A check refuses a value.

    Attributes:
        problem: What is wrong with it, never the value itself: it may be a secret.
        hint: What to write in its place, or ``None``.
        reason: The same as a code.
    """

    def __init__(self, problem: str, hint: str | None = None, reason: InvalidReason = InvalidReason.INVALID) -> None:
        super().__init__(f"{problem} ({hint})" if hint else problem)
        self.problem = problem
        self.hint = hint
        self.reason = reason


def validate(
    name: str, check: Callable[[object], _T], value: object, error: Callable[..., Exception] = InvalidValueError
) -> _T:
    """Return what the check makes of a value.

    Raises:
        Exception: The check refuses it. ``error`` is called with a text, which begins with the name, and a ``hint``.
    """
    try:
        return check(value)
    except InvalidValueError as refused:
        raise error(f"{name} {refused.problem}", hint=refused.hint) from None


def instance_of(kind: type[_T]) -> Callable[[object], _T]:
    """Return a check for an object of this class."""

    def check(value: object) -> _T:
        if not isinstance(value, kind):
            problem = f"must be a {kind.__name__}, not {type(value).__name__}"
            raise InvalidValueError(problem, reason=InvalidReason.WRONG_TYPE)
        return value

    return check


text = instance_of(str)
flag = instance_of(bool)


def header_text(value: object) -> str:
    """Check for a text that can stand in an HTTP header as it is."""
    header = text(value)
    if not (header.isascii() and header.isprintable()) or header != header.strip():
        raise InvalidValueError("must be printable ASCII without spaces around it; was it copied whole?")
    return header


def number(
    *, above: float | None = None, at_least: float = -sys.float_info.max, at_most: float = sys.float_info.max
) -> Callable[[object], float]:
    """Return a check for a finite number between bounds: more than ``above``, or ``at_least`` so much."""
    lowest = f"{at_least:,g} at least" if above is None else f"more than {above:,g}"
    highest = "finite" if at_most == sys.float_info.max else f"{at_most:,g} at most"

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidValueError(f"must be a number, not {type(value).__name__}")
        if not ((above is None or value > above) and at_least <= value <= at_most):
            raise InvalidValueError(f"must be {lowest}, and {highest}")
        return value

    return check


def integer(*, at_least: int) -> Callable[[object], int]:
    """Return a check for an integer."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidValueError(f"must be an integer, not {type(value).__name__}")
        if value < at_least:
            raise InvalidValueError(f"must be {at_least:,} at least")
        return value

    return check


def integers(value: object) -> frozenset[int]:
    """Check for a collection of integers."""
    values: list[Any] = [*value] if isinstance(value, Iterable) else [None]
    if not all(type(each) is int for each in values):
        raise InvalidValueError("must be a collection of integers")
    return frozenset(values)


def optional(check: Callable[[object], _T]) -> Callable[[object], _T | None]:
    """Return a check that lets ``None`` pass, too."""
    return lambda value: None if value is None else check(value)
