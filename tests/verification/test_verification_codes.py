"""Codes and sealed numbers."""

import secrets
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxotp_async import ConfigurationError
from nxotp_async.verification.codes import CODE_LENGTH, VerificationKey, load_keys, normalize_code

KEY = VerificationKey(b"k" * 32)
OTHER = VerificationKey(b"o" * 32)
NUMBERS = st.from_regex(r"[1-9][0-9]{6,14}", fullmatch=True)
IDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=40)

# ---------------------------------------------------------------------------------------------- codes


def test_a_code_is_what_a_separate_calculation_makes_of_key_and_id() -> None:
    # openssl dgst -sha256 -mac HMAC, over "nxotp verification code" and then over the id, and RFC 4226 by hand
    assert KEY.code("an-id") == "190158"


def test_a_code_is_the_same_each_time_and_another_one_for_another_id_or_key() -> None:
    codes = {KEY.code(f"id-{index}") for index in range(100)}
    assert KEY.code("an-id") == KEY.code("an-id") == VerificationKey(b"k" * 32).code("an-id")
    assert len(codes) > 95
    assert KEY.code("an-id") != OTHER.code("an-id")


def test_codes_have_six_digits_and_every_digit_is_as_frequent_in_every_place() -> None:
    codes = [KEY.code(f"id-{index}") for index in range(20_000)]
    assert all(len(code) == CODE_LENGTH and code.isascii() and code.isdigit() for code in codes)
    for place in range(CODE_LENGTH):
        counts = Counter(code[place] for code in codes)
        assert set(counts) == set("0123456789")
        assert max(abs(count - 2000) for count in counts.values()) < 6 * 43  # 43 is the standard deviation


@pytest.mark.parametrize(
    "typed",
    [
        *("482913", "482 913", "482-913", " 482913\n", "4 8 2 9 1 3"),
        *("482\u00a0913", "482\u2011913", "\u200e482913\u200f"),
        *("".join(chr(zero + int(digit)) for digit in "482913") for zero in (0xFF10, 0x660, 0x6F0, 0x966, 0x1D7CE)),
    ],
)
def test_a_code_is_read_as_people_type_it(typed: str) -> None:
    assert normalize_code(typed) == "482913"


@pytest.mark.parametrize(
    "typed",
    [
        *("", "48291", "4829130", "48291a", "48291²", "48291½", "④⑧②⑨①③", "+482913", "482.913", "\ud800"),
        *("4" * 10_000, " " * 65, None, 482913, b"482913", ["4", "8", "2", "9", "1", "3"]),
    ],
)
def test_what_is_no_code_is_none(typed: Any) -> None:
    assert normalize_code(typed) == ""


@given(st.text(max_size=70))
def test_reading_a_code_never_raises(typed: str) -> None:
    code = normalize_code(typed)
    assert code == "" or (len(code) == CODE_LENGTH and code.isascii() and code.isdigit())


# ---------------------------------------------------------------------------------------------- numbers


@given(NUMBERS, IDS)
def test_a_number_comes_back_with_its_id_and_its_key_only(number: str, name: str) -> None:
    sealed = KEY.seal(name, number)
    assert len(sealed) == 31
    assert number.encode() not in sealed
    assert KEY.unseal(name, sealed) == number
    assert OTHER.unseal(name, sealed) is None
    assert KEY.unseal(name + "x", sealed) is None


@pytest.mark.parametrize("index", range(31))
def test_a_sealed_number_that_somebody_changed_is_none(index: int) -> None:
    sealed = bytearray(KEY.seal("an-id", "6281234567890"))
    sealed[index] ^= 1
    assert KEY.unseal("an-id", bytes(sealed)) is None


@pytest.mark.parametrize("sealed", [b"", b"x", b"x" * 16, b"x" * 31, b"x" * 1000])
def test_what_was_never_sealed_is_none(sealed: bytes) -> None:
    assert KEY.unseal("an-id", sealed) is None


def test_one_number_is_sealed_differently_each_time() -> None:
    assert len({KEY.seal(secrets.token_urlsafe(24), "6281234567890")[:15] for _ in range(100)}) == 100


# ---------------------------------------------------------------------------------------------- keys


def test_keys_come_from_the_argument_or_the_variable() -> None:
    one, two = "1" * 32, "2" * 40
    codes = [key.code("an-id") for key in load_keys([one, two.encode()], {})]
    assert codes == [key.code("an-id") for key in load_keys(None, {"NXOTP_VERIFICATION_KEY": f" {one},{two} "})]
    assert [load_keys(one, {})[0].code("an-id"), load_keys(two, {})[0].code("an-id")] == codes


@pytest.mark.parametrize(
    "key",
    [None, "", b"", [], "x" * 31, b"x" * 31, ["x" * 32, "short"], [None], [32], 32, "s3cr3t"],
)
def test_a_key_that_is_too_short_or_none_is_refused_and_not_shown(key: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"key \(or NXOTP_VERIFICATION_KEY\)") as refused:
        load_keys(key, {})
    assert "s3cr3t" not in f"{refused.value!r} {refused.value}"
    assert "openssl rand -hex 32" in str(refused.value)


def test_a_key_shows_nothing() -> None:
    assert repr(KEY) == "VerificationKey(***)"
