import pickle

import pytest
from support import VENDOR_FAILURES

from nxotp_async import (
    ApiError,
    AuthenticationError,
    ResponseCode,
)
from nxotp_async.codes import error_class

every_code = pytest.mark.parametrize("member", ResponseCode, ids=lambda member: str(member.value))


def test_the_vendors_codes_are_all_there_and_no_others() -> None:
    assert {member.value for member in ResponseCode} == {0, *VENDOR_FAILURES}


@pytest.mark.parametrize(("code", "kind"), VENDOR_FAILURES.items(), ids=str)
def test_a_code_becomes_its_error(code: int, kind: type[ApiError]) -> None:
    assert error_class(code) is kind
    known = ResponseCode.find(code)
    assert known is not None
    assert known.error_class is kind


@pytest.mark.parametrize("code", [1000, *range(1006, 1010)])
def test_the_rest_of_the_1000_family_is_about_authentication(code: int) -> None:
    assert error_class(code) is AuthenticationError


@pytest.mark.parametrize("code", [1, 2, -2, 200, 404, 500, 999, 1010, 9008, 9016, 9098, 9100, 10004, 10006, 2**63])
def test_an_unknown_code_is_a_plain_api_error(code: int) -> None:
    assert error_class(code) is ApiError
    assert ResponseCode.find(code) is None


@every_code
def test_a_code_is_found_by_its_number(member: ResponseCode) -> None:
    assert ResponseCode.find(member.value) is member
    assert member == member.value


@every_code
def test_a_code_tells_its_meaning_and_what_to_do(member: ResponseCode) -> None:
    for text in (member.meaning, member.advice):
        assert text == text.strip()
        assert len(text.split()) >= 2
        # They become parts of sentences.
        assert not text.endswith(".")


@every_code
def test_a_code_survives_pickling(member: ResponseCode) -> None:
    assert pickle.loads(pickle.dumps(member)) is member
