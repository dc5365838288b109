"""Numbers as people write them, and as they may be shown."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nxotp_async.checks import InvalidValueError
from nxotp_async.phone_numbers import mask_number, parse_number


@pytest.mark.parametrize(
    ("written", "digits"),
    [
        ("9995550100", "9995550100"),
        ("+9995550100", "9995550100"),
        ("+999 555-0100", "9995550100"),
        ("  +999 555 0100\t", "9995550100"),
        ("+44 7700-900-123", "447700900123"),
        ("+44.7700.900.123", "447700900123"),
        ("+1 (202) 555-0123", "12025550123"),
        ("(+1) 202 555 0123", "12025550123"),
        ("1-202-555-0123", "12025550123"),
        ("+999\u00a0555\u202f0100", "9995550100"),
        ("+999\u2011555\u20130100", "9995550100"),
        ("\u202a+999 555 0100\u202c", "9995550100"),
        ("9995550", "9995550"),
        ("999555010012345", "999555010012345"),
    ],
    ids=ascii,
)
def test_a_number_is_accepted_as_people_write_it(written: str, digits: str) -> None:
    assert parse_number(written) == digits


@pytest.mark.parametrize(
    ("written", "reason", "hint"),
    [
        ("009995550100", "dialling prefix 00", "write + in place of 00"),
        ("00 44 7700 900123", "dialling prefix 00", "write + in place of 00"),
        ("07700 900123", "country code is missing", "country code"),
        ("+0999 555 0100", "country code is missing", "country code"),
        ("+44 (0)7700 900123", "trunk prefix", "leave it out"),
        ("999555", "6 digits", "country code"),
        ("9995550100123456", "16 digits", "country code"),
        ("", "empty", "country code"),
        ("   ", "empty", "country code"),
        ("+", "empty", "country code"),
        ("++999 555 0100", "other than the ASCII digits", "country code"),
        ("+999+555 0100", "other than the ASCII digits", "country code"),
        ("999 555 0100+", "other than the ASCII digits", "country code"),
        ("+999 555 CODE", "other than the ASCII digits", "country code"),
        ("+999 555 0100 ext. 7", "other than the ASCII digits", "country code"),
        ("tel:+9995550100", "other than the ASCII digits", "country code"),
        ("999,555,0100", "other than the ASCII digits", "country code"),
        ("9995550100\n9995550101", "other than the ASCII digits", "country code"),
        ("999555010\u0663", "other than the ASCII digits", "country code"),
        ("\uff19\uff19\uff19\uff15\uff15\uff15\uff10\uff11\uff10\uff10", "other than the ASCII digits", "country code"),
        ("999555010\u00b2", "other than the ASCII digits", "country code"),
        ("999555010\U0001d7d8", "other than the ASCII digits", "country code"),
        ("\ud8009995550100", "other than the ASCII digits", "country code"),
    ],
    ids=ascii,
)
def test_what_is_no_number_is_refused_with_a_hint(written: str, reason: str, hint: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_number(written)
    assert reason in caught.value.problem
    assert hint in (caught.value.hint or "")


def test_an_int_is_no_number() -> None:
    with pytest.raises(InvalidValueError, match="must be a str, not int"):
        parse_number(9995550100)


separators = st.sampled_from(["", "", " ", "-", ".", " (", ") ", "\u00a0", "\u2011", " - "])


@settings(deadline=None)
@given(
    digits=st.from_regex(r"[1-9][0-9]{6,14}", fullmatch=True),
    between=st.lists(separators, min_size=16, max_size=16),
    plus=st.sampled_from(["", "+"]),
)
def test_punctuation_never_changes_a_number(digits: str, between: list[str], plus: str) -> None:
    written = between[-1] + plus + "".join(digit + gap for digit, gap in zip(digits, between, strict=False))
    assume("(0)" not in written)
    assert parse_number(written) == digits


@pytest.mark.parametrize(
    ("number", "masked"), [("9995550100", "99******00"), ("9995550", "99***50"), ("12", "12***12"), ("", "***")]
)
def test_a_masked_number_shows_its_ends(number: str, masked: str) -> None:
    assert mask_number(number) == masked
