import pickle

import pytest
from support import VENDOR_FAILURES

from nxotp_async import ApiError, MetaCode, ResponseCode
from nxotp_async.codes import AUTHENTICATION_CODES

every_code = pytest.mark.parametrize("member", [*ResponseCode, *MetaCode], ids=lambda member: str(member.value))


def test_the_vendors_codes_are_all_there_and_no_others() -> None:
    assert {member.value for member in ResponseCode} == {0, *VENDOR_FAILURES}


@pytest.mark.parametrize(("code", "kind"), VENDOR_FAILURES.items(), ids=str)
def test_a_code_becomes_its_error(code: int, kind: type[ApiError]) -> None:
    known = ResponseCode.find(code)
    assert known is not None
    assert known.error_class is kind


@pytest.mark.parametrize(
    "code", [1, 2, -2, 200, 500, 999, 1000, 1010, 9008, 9016, 9098, 9100, 10004, 10006, 2**63, None]
)
def test_a_code_that_no_table_lists_is_not_found(code: int | None) -> None:
    assert ResponseCode.find(code) is None
    assert MetaCode.find(code) is None


def test_the_family_about_authentication() -> None:
    assert [*AUTHENTICATION_CODES] == [1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009]


def test_what_throttles_the_whole_account_is_temporary_and_what_throttles_one_recipient_is_not_the_whole_account() -> (
    None
):
    throttling = {code for code in MetaCode if code.throttling}
    assert throttling == {4, 80007, 130429}
    assert (
        throttling < {code for code in MetaCode if code.temporary} == {4, 80007, 130429, 131016, 131056, 131057, 133004}
    )

    assert {code for code in MetaCode if code.undeliverable} == {131021, 131026, 131030}


@every_code
def test_a_code_is_found_by_its_number(member: ResponseCode | MetaCode) -> None:
    assert type(member).find(member.value) is member
    assert member == member.value


@every_code
def test_a_code_tells_its_meaning_and_what_to_do(member: ResponseCode | MetaCode) -> None:
    for text in (member.meaning, member.advice) if isinstance(member, ResponseCode) else (member.meaning,):
        assert text == text.strip()
        assert len(text.split()) >= 2
        # They become parts of sentences.
        assert not text.endswith(".")


@every_code
def test_a_code_survives_pickling(member: ResponseCode | MetaCode) -> None:
    assert pickle.loads(pickle.dumps(member)) is member
