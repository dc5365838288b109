import pickle

import pytest

from nxotp_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    InvalidSignatureError,
    MetaError,
    OtpContentError,
    ParameterError,
    PermissionDeniedError,
    ResponseCode,
    TemplateError,
    TimestampExpiredError,
    TransientApiError,
)
from nxotp_async.codes import error_class

# The vendor's table.
FAILURES: dict[int, type[ApiError]] = {
    -1: TransientApiError,
    1001: AuthenticationError,
    1002: ParameterError,
    1003: InvalidSignatureError,
    1004: TimestampExpiredError,
    1005: PermissionDeniedError,
    9000: ParameterError,
    9001: TransientApiError,
    9002: AccountError,
    9003: AccountError,
    9004: AccountError,
    9005: AccountError,
    9006: AccountError,
    9007: ApiError,
    9013: AccountError,
    9014: TemplateError,
    9015: OtpContentError,
    9099: MetaError,
    10003: AccountError,
    10005: TemplateError,
}

every_code = pytest.mark.parametrize("member", ResponseCode, ids=lambda member: str(member.value))


def test_the_vendors_codes_are_all_there_and_no_others() -> None:
    assert {member.value for member in ResponseCode} == {0, *FAILURES}


@pytest.mark.parametrize(("code", "kind"), FAILURES.items(), ids=str)
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
