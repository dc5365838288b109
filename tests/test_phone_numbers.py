"""Numbers as people write them, and as they may be shown."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nxotp_async.checks import InvalidValueError
from nxotp_async.errors import InvalidReason
from nxotp_async.phone_numbers import mask_number, parse_number, parse_region


def forget_numbering_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nxotp_async.phone_numbers.load_numbering_plans", lambda: None)


def refused(written: str, region: str | None = None) -> InvalidReason:
    with pytest.raises(InvalidValueError) as caught:
        parse_number(written, region)
    return caught.value.reason


@pytest.fixture
def numbering_plans(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        forget_numbering_plans(monkeypatch)


both = pytest.mark.parametrize("numbering_plans", [True, False], ids=["with plans", "without"], indirect=True)


@pytest.mark.parametrize(
    ("written", "digits"),
    [
        ("9995550100", "9995550100"),
        ("+9995550100", "9995550100"),
        ("+999 555-0100", "9995550100"),
        ("  +999 555 0100\t", "9995550100"),
        ("+44 7400-123-456", "447400123456"),
        ("+44.7400.123.456", "447400123456"),
        ("+1 (202) 555-0123", "12025550123"),
        ("(+1) 202 555 0123", "12025550123"),
        ("+39 06 698 83712", "390669883712"),  # Italy's numbers begin with 0
        ("+225 01 23 45 67 89", "2250123456789"),  # so do the Ivory Coast's
        (" 9995550100\u00a0", "9995550100"),
        ("+999\u00a0555\u202f0100", "9995550100"),
        ("+999\u2011555\u20130100", "9995550100"),
        ("\u202a+999 555 0100\u202c", "9995550100"),
        ("9995550", "9995550"),
        ("999555010012345", "999555010012345"),
    ],
    ids=ascii,
)
@pytest.mark.usefixtures("numbering_plans")
@both
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
@pytest.mark.usefixtures("numbering_plans")
@both
def test_what_is_no_number_is_refused_with_a_hint(written: str, reason: str, hint: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_number(written)
    assert reason in caught.value.problem
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    "written",
    [
        "(415) 555-2671",
        "415 555 2671",
        "415-555-2671",
        "1-202-555-0123",
        "0171 1234567",
        "86 139 1234 5678",
        "999 555 0100",
    ],
)
@pytest.mark.usefixtures("numbering_plans")
@both
def test_a_number_that_may_be_a_national_one_is_refused_without_a_region(written: str) -> None:
    assert refused(written) is InvalidReason.NATIONAL_NUMBER


@pytest.mark.parametrize(
    "written",
    [
        "+44 07911 123456",
        "+4407911123456",
        "4407911123456",
        "+49 0171 1234567",
        "+1 0202 555 0123",
        "+353 085 012 3456",
    ],
)
@pytest.mark.usefixtures("numbering_plans")
@both
def test_a_trunk_zero_after_the_country_code_is_refused(written: str) -> None:
    assert refused(written) is InvalidReason.TRUNK_PREFIX


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("+41 555 2671", InvalidReason.WRONG_LENGTH),
        ("4155552671", InvalidReason.WRONG_LENGTH),
        ("+1 202 555 012", InvalidReason.WRONG_LENGTH),
        ("+1 115 555 0123", InvalidReason.INVALID_NUMBER),
        ("+44 7700 900123", InvalidReason.INVALID_NUMBER),
        ("+210 555 0100", InvalidReason.INVALID_NUMBER),
        ("+7 8 912 345 67 89", InvalidReason.TRUNK_PREFIX),
    ],
)
def test_what_is_no_number_of_its_country_is_refused_where_this_is_known(
    written: str, reason: InvalidReason, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refused(written) is reason
    forget_numbering_plans(monkeypatch)
    assert parse_number(written)


@pytest.mark.parametrize("number", ["553196123456", "5215512345678"])
def test_digits_alone_are_checked_for_their_length_only(number: str) -> None:
    """WhatsApp has ids of Brazil and Mexico that are older than the numbering plan."""
    assert parse_number(number) == number


@pytest.mark.parametrize(
    ("written", "region", "digits"),
    [
        ("(415) 555-2671", "US", "14155552671"),
        ("4155552671", "US", "14155552671"),
        ("1-415-555-2671", "US", "14155552671"),
        ("14155552671", "US", "14155552671"),
        ("07911 123456", "GB", "447911123456"),
        ("0044 7911 123456", "GB", "447911123456"),
        ("0812 3456 7890", "ID", "6281234567890"),
        ("6281234567890", "ID", "6281234567890"),
        ("+44 7911 123456", "US", "447911123456"),
        ("447911123456", "US", "447911123456"),
        ("9995550100", "US", "9995550100"),
        ("+999 555 0100", "ID", "9995550100"),
    ],
)
def test_a_region_tells_whose_national_numbers_are_meant(written: str, region: str, digits: str) -> None:
    assert parse_number(written, region) == digits


@pytest.mark.parametrize(
    ("written", "region", "reason"),
    [
        ("555-2671", "US", InvalidReason.INVALID_NUMBER),
        ("07911 123456", "US", InvalidReason.INVALID_NUMBER),
        ("1", "US", InvalidReason.INVALID_NUMBER),
        ("3637762334", "US", InvalidReason.AMBIGUOUS_NUMBER),  # in the USA, or in Hungary
        ("+44 07911 123456", "GB", InvalidReason.TRUNK_PREFIX),
        ("", "GB", InvalidReason.EMPTY),
    ],
)
def test_what_is_no_number_of_the_region_or_may_be_two_is_refused(
    written: str, region: str, reason: InvalidReason
) -> None:
    assert refused(written, region) is reason


def test_a_region_is_two_letters_of_a_country() -> None:
    assert parse_region(" us ") == "US"
    for wrong in ("USA", "", "XX", "001"):
        with pytest.raises(InvalidValueError, match="the two letters of a country"):
            parse_region(wrong)
    with pytest.raises(InvalidValueError, match="must be a str, not int"):
        parse_region(1)


def test_a_region_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_numbering_plans(monkeypatch)
    with pytest.raises(InvalidValueError, match="needs the phonenumbers package") as caught:
        parse_region("US")
    assert caught.value.hint == "pip install 'nxotp_async[verification]'"


def test_an_int_is_no_number() -> None:
    with pytest.raises(InvalidValueError, match="must be a str, not int"):
        parse_number(9995550100)


separators = st.sampled_from(["", "", " ", "-", ".", " (", ") ", "\u00a0", "\u2011", " - "])


@settings(deadline=None)
@given(
    digits=st.from_regex(r"999[0-9]{4,12}", fullmatch=True),
    between=st.lists(separators, min_size=16, max_size=16),
)
def test_punctuation_never_changes_a_number(digits: str, between: list[str]) -> None:
    written = between[-1] + "+" + "".join(digit + gap for digit, gap in zip(digits, between, strict=False))
    assume("(0)" not in written)
    assert parse_number(written) == digits


@pytest.mark.parametrize(
    ("number", "masked"), [("9995550100", "99******00"), ("9995550", "99***50"), ("12", "12***12"), ("", "***")]
)
def test_a_masked_number_shows_its_ends(number: str, masked: str) -> None:
    assert mask_number(number) == masked
