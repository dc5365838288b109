"""What is accepted and refused of single values, and in which words."""

import math
from functools import partial
from typing import Any

import pytest

from nxotp_async import ConfigurationError, InvalidMessageError
from nxotp_async.checks import (
    InvalidValueError,
    flag,
    instance_of,
    integer,
    integers,
    number,
    optional,
    text,
    validate,
)


def problem(check: Any, value: object) -> str:
    with pytest.raises(InvalidValueError) as caught:
        check(value)
    return caught.value.problem


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (text, ""),
        (flag, False),
        (instance_of(dict), {}),
        (integer(at_least=1), 1),
        (integer(at_least=1), 10**400),
        (number(above=0), 5e-324),
        (number(above=0), 1),
        (number(at_least=0), 0.0),
        (number(at_least=0), 1.7976931348623157e308),
        (number(at_least=0.001, at_most=100_000), 100_000),
        (number(), -1.5),
        (optional(text), None),
        (optional(text), "x"),
    ],
)
def test_what_passes_is_returned_as_it_is(check: Any, value: object) -> None:
    assert check(value) is value


@pytest.mark.parametrize("values", [(), [1, -1], {9001}, range(3), (n for n in (1, 2))])
def test_integers_are_collected(values: Any) -> None:
    assert all(type(code) is int for code in integers(values))
    assert isinstance(integers([]), frozenset)


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        (text, b"x", "must be a str, not bytes"),
        (flag, 1, "must be a bool, not int"),
        (instance_of(dict), [], "must be a dict, not list"),
        (integer(at_least=1), 0, "must be 1 at least"),
        (integer(at_least=1), 1.0, "must be an integer, not float"),
        (integer(at_least=1), True, "must be an integer, not bool"),
        (number(above=0), 0, "must be more than 0, and finite"),
        (number(above=0), math.inf, "must be more than 0, and finite"),
        (number(above=0), math.nan, "must be more than 0, and finite"),
        (number(above=0), 10**400, "must be more than 0, and finite"),
        (number(at_least=0), -5e-324, "must be 0 at least, and finite"),
        (number(), -math.inf, "must be -1.79769e+308 at least, and finite"),
        (number(at_least=0.001, at_most=100_000), 100_001, "must be 0.001 at least, and 100,000 at most"),
        (number(above=0, at_most=86_400), 0, "must be more than 0, and 86,400 at most"),
        (number(above=0), "1", "must be a number, not str"),
        (number(above=0), True, "must be a number, not bool"),
        (integers, 5, "must be a collection of integers"),
        (integers, None, "must be a collection of integers"),
        (integers, "12", "must be a collection of integers"),
        (integers, [1.0], "must be a collection of integers"),
        (integers, [[1]], "must be a collection of integers"),
        (integers, [True], "must be a collection of integers"),
        (optional(text), 5, "must be a str, not int"),
    ],
)
def test_what_is_refused_is_told_without_the_value(check: Any, value: object, expected: str) -> None:
    assert problem(check, value) == expected


def refuse(value: object) -> object:
    raise InvalidValueError("is no good", "write another")


def test_a_refused_value_is_named_in_the_error() -> None:
    with pytest.raises(InvalidValueError, match=r"^rate is no good \(write another\)$"):
        validate("rate", refuse, 5)
    with pytest.raises(ConfigurationError) as caught:
        validate("rate", refuse, 5, ConfigurationError)
    assert (caught.value.args, caught.value.hint) == (("rate is no good",), "write another")
    with pytest.raises(InvalidMessageError) as refused:
        validate("to", refuse, 5, partial(InvalidMessageError, field="to"))
    assert (str(refused.value), refused.value.field) == ("to is no good (write another)", "to")


def test_what_passes_is_returned_by_the_name_too() -> None:
    assert validate("rate", number(above=0), 5, ConfigurationError) == 5
