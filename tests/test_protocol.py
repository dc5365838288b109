"""Messages become requests, and answers become outcomes, without I/O."""

import json
import math
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from support import VENDOR_FAILURES
from vendor_answers import ACCEPTED, FAILED, HTML, ID, META, NUMBER, accepted, every_text, outcome_of, refusal, refused

from nxotp_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    Credentials,
    Language,
    MetaError,
    NxOtpError,
    OtpContentError,
    OtpMessage,
    OutcomeUnknownError,
    TransientApiError,
    __version__,
    sign,
)
from nxotp_async.protocol import MAX_ANSWER_BYTES, OTP_PATH, decode, encode, request_headers, server_time

# --------------------------------------------------------------------------------------- message → request


def test_a_body_holds_every_field_in_a_fixed_order() -> None:
    message = OtpMessage(
        "+999 555 0100",
        "Your code is 004213",
        language_code="pt-BR",
        category="utility",
        cus_message_id="order-17",
        dr_webhook="https://example.com/hook",
        api_type=1,
        business_phone="+44 7400 123456",
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
    )
    assert encode(message, "app").decode() == (
        '{"appkey":"app","messaging_product":"whatsapp","recipient_type":"individual","to":"9995550100",'
        '"content":"Your code is 004213","language_code":"pt_BR","category":"UTILITY","cus_message_id":"order-17",'
        '"dr_webhook":"https://example.com/hook","api_type":1,"business_phone":"447400123456"}'
    )


def test_absent_fields_are_left_out() -> None:
    assert encode(OtpMessage("9995550100", "004213", language_code="en"), "app").decode() == (
        '{"appkey":"app","messaging_product":"whatsapp","recipient_type":"individual","to":"9995550100",'
        '"content":"004213","language_code":"en"}'
    )


def test_a_value_that_is_false_is_not_absent() -> None:
    message = OtpMessage("9995550100", "004213", language_code="en", api_type=0, cus_message_id="0")
    fields = json.loads(encode(message, "app"))
    assert (fields["api_type"], fields["cus_message_id"]) == (0, "0")


def test_a_code_keeps_its_zeros_and_stays_a_string() -> None:
    assert json.loads(encode(OtpMessage("9995550100", "0042", language_code="en"), "app"))["content"] == "0042"


def test_text_of_any_script_is_sent_as_utf_8() -> None:
    content = 'código "004213" \\ 牛 😀 \u2028\x00'
    body = encode(OtpMessage("9995550100", content, language_code="en"), "app")
    assert "牛 😀".encode() in body
    assert json.loads(body)["content"] == content


def test_the_same_message_is_always_the_same_bytes() -> None:
    message = OtpMessage("+999 555 0100", "004213", language_code="pt-BR", category="utility", api_type=0)
    twin = OtpMessage("9995550100", "004213", api_type=0, category="UTILITY", language_code=Language.PT_BR)
    assert len({encode(message, "app"), encode(message, "app"), encode(twin, "app")}) == 1


def test_the_headers_are_those_the_vendor_requires() -> None:
    account = Credentials(access_key="key", access_secret="secret", appkey="app")
    headers = request_headers(b'{"a":1}', ts=1655710885431, credentials=account)
    assert headers == {
        "accessKey": "key",
        "ts": "1655710885431",
        "bizType": "2",
        "action": "mt",
        "sign": sign(b'{"a":1}', ts=1655710885431, credentials=account),
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": f"nxotp_async/{__version__}",
    }
    assert "secret" not in str(headers)


def test_the_path_is_the_vendors() -> None:
    assert OTP_PATH == "/api/wa/otp"


# --------------------------------------------------------------------------------------- answers of the vendor


@pytest.mark.parametrize("status", [200, 201, 299])
def test_code_0_with_an_id_is_accepted(status: int) -> None:
    assert outcome_of(status, ACCEPTED) == ID


# Which outcome each code has with each status is told by test_outcomes.py; here is what the errors say.
@pytest.mark.parametrize("status", [200, 502])
@pytest.mark.parametrize(("code", "kind"), VENDOR_FAILURES.items(), ids=str)
def test_a_code_of_the_vendors_counts_whatever_the_http_status(code: int, kind: type[ApiError], status: int) -> None:
    error = refusal(refused(code), status)
    assert type(error) is kind
    assert (error.code, error.http_status, error.vendor_message) == (code, status, "no")
    assert f"code {code}" in str(error)
    assert error.hint


@pytest.mark.parametrize("status", [200, 201, 302, 400, 404])
@pytest.mark.parametrize(
    ("code", "kind"),
    [(1006, AuthenticationError), (1000, AuthenticationError), (4711, ApiError), (-2, ApiError), (999_999, ApiError)],
)
def test_a_code_no_table_lists_is_a_refusal_too(code: int, kind: type[ApiError], status: int) -> None:
    error = refusal(refused(code), status)
    assert type(error) is kind
    assert error.code == code
    assert str(code) in str(error)
    assert "no" in str(error)


# What a gateway, a proxy or a broken server may answer, as far as it is no answer of the vendor's.
NO_ANSWER = {
    "empty": b"",
    "blank": b" \r\n",
    "html": HTML,
    "text": b"upstream timed out",
    "json null": b"null",
    "json number": b"0",
    "json string": b'"Request successful"',
    "json list": b"[" + ACCEPTED + b"]",
    "empty object": b"{}",
    "object without a code": b'{"message":"internal error","data":{"messages":[]}}',
    "spring's error": b'{"timestamp":"2030-01-01","status":500,"error":"Internal Server Error"}',
    "byte order mark": b"\xef\xbb\xbf" + ACCEPTED,
    "utf-16": ACCEPTED.decode().encode("utf-16"),
    "utf-16 without a mark": ACCEPTED.decode().encode("utf-16-le"),
    "latin-1": accepted(message_id='"m\u00e9"').decode().encode("latin-1"),
    "invalid utf-8": ACCEPTED.replace(b"successful", b"\xff\xfe"),
    "overlong utf-8": ACCEPTED.replace(b"successful", b"\xc0\xaf"),
    "half a surrogate pair": ACCEPTED.replace(b"successful", rb"\ud800"),
    "two answers": ACCEPTED + b"\n" + ACCEPTED,
    "two kinds of answer": ACCEPTED + FAILED,
    "trailing text": ACCEPTED + b"x",
    "trailing comma": ACCEPTED[:-1] + b",}",
    "a comment": ACCEPTED[:-1] + b"/**/}",
    "single quotes": ACCEPTED.replace(b'"', b"'"),
    "a callback": b"callback(" + ACCEPTED + b")",
    "a raw control character": ACCEPTED.replace(b"successful", b"a\x00b"),
    "a bomb of lists": b"[" * 60_000,
    "a bomb of objects": b'{"data":' * 8_000,
    "a bomb inside an answer": accepted(more=',"x":' + "[" * 5_000 + "]" * 5_000),
    "an endless number": accepted(more=',"x":' + "9" * 60_000),
    "oversize": accepted(more=',"x":"' + "x" * MAX_ANSWER_BYTES + '"'),
}


@pytest.mark.parametrize("status", [200, 408, 503])
@pytest.mark.parametrize("body", NO_ANSWER.values(), ids=NO_ANSWER)
def test_an_answer_that_proves_nothing_is_unknown(body: bytes, status: int) -> None:
    outcome = decode(status, {}, body)
    assert type(outcome) is OutcomeUnknownError
    assert f"HTTP {status}: " in str(outcome)
    assert "may have been accepted" in (outcome.hint or "")


@pytest.mark.parametrize("status", [302, 403])
@pytest.mark.parametrize("body", NO_ANSWER.values(), ids=NO_ANSWER)
def test_a_redirect_or_an_http_refusal_is_a_refusal(body: bytes, status: int) -> None:
    error = refusal(body, status)
    assert type(error) is ApiError
    assert (error.code, error.http_status) == (None, status)
    assert f"HTTP {status}" in str(error)
    assert "base_url" in (error.hint or "")


@pytest.mark.parametrize("body", [*NO_ANSWER.values(), refused(429), refused(4711)], ids=[*NO_ANSWER, "429", "4711"])
def test_http_429_is_transient(body: bytes) -> None:
    error = refusal(body, 429)
    assert type(error) is TransientApiError
    assert error.http_status == 429


@pytest.mark.parametrize("code", [500, 4711, 1006, -2])
@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_gateways_own_code_in_its_5xx_proves_nothing(status: int, code: int) -> None:
    assert outcome_of(status, refused(code)) is OutcomeUnknownError


@pytest.mark.parametrize("status", [100, 302, 400, 404, 429, 500, 502])
def test_an_acceptance_under_another_http_status_is_unknown(status: int) -> None:
    assert outcome_of(status, ACCEPTED) is OutcomeUnknownError


@pytest.mark.parametrize("depth", [10, 200, 253, 254, 255, 300, 900, 995, 1_000, 1_020, 1_024, 1_025, 10_000])
@pytest.mark.parametrize("member", [',"x":', r',"\u0078":'], ids=["plain", "escaped"])
def test_no_depth_of_nesting_breaks_the_reader(depth: int, member: str) -> None:
    for bomb in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        assert outcome_of(200, accepted(more=member + bomb)) in ("m-1", OutcomeUnknownError)
        assert outcome_of(200, accepted("9005", more=member + bomb)) in (AccountError, OutcomeUnknownError)


def test_an_answer_that_was_cut_off_anywhere_is_unknown() -> None:
    for size in range(len(ACCEPTED)):
        assert outcome_of(200, ACCEPTED[:size]) is OutcomeUnknownError, size
        assert outcome_of(200, META[:size]) is OutcomeUnknownError, size


@pytest.mark.parametrize("size", [MAX_ANSWER_BYTES - 1, MAX_ANSWER_BYTES])
def test_an_answer_of_up_to_64_kib_is_read(size: int) -> None:
    assert MAX_ANSWER_BYTES == 65_536
    body = accepted() + b" " * (size - len(accepted()))
    assert outcome_of(200, body) == "m-1"


@pytest.mark.parametrize("size", [MAX_ANSWER_BYTES + 1, 10 * MAX_ANSWER_BYTES])
def test_a_longer_one_is_unknown_even_where_it_seems_to_refuse(size: int) -> None:
    for body in (accepted(), FAILED):
        assert outcome_of(200, body + b" " * (size - len(body))) is OutcomeUnknownError


# --------------------------------------------------------------------------------------- its code

ODD_CODES = {
    "text": '"0"',
    "text of a refusal": '"9001"',
    "empty text": '""',
    "true": "true",
    "false": "false",
    "null": "null",
    "list": "[0]",
    "object": "{}",
    "decimal zero": "0.0",
    "zero with an exponent": "0e0",
    "negative decimal zero": "-0.0",
    "one with an exponent": "1e0",
    "decimal code": "9001.0",
    "seven digits": "1000000",
    "seven digits below zero": "-1000000",
    "a phone number": "9995550100",
    "beyond 63 bits": str(2**63),
    "beyond 64 bits": str(2**64),
    "below 64 bits": str(-(2**63) - 1),
    "infinite": "1e999",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "two zeros": "00",
    "plus": "+0",
    "hexadecimal": "0x0",
    "nothing": "",
    "Arabic digit": "\u0660",
}


@pytest.mark.parametrize("code", ODD_CODES.values(), ids=ODD_CODES)
@pytest.mark.parametrize("status", [200, 500])
def test_a_code_that_is_none_of_the_vendors_kind_proves_nothing(code: str, status: int) -> None:
    assert outcome_of(status, accepted(code)) is OutcomeUnknownError


def test_minus_zero_is_the_integer_0() -> None:
    assert outcome_of(200, accepted("-0")) == "m-1"


# --------------------------------------------------------------------------------------- its message id


@pytest.mark.parametrize(
    "message_id", ["m-1", "wamid.HBgL=", "1", "m\u00e9", " m ", "x" * 1000], ids=lambda id_: id_[:9]
)
def test_an_id_comes_back_exactly(message_id: str) -> None:
    assert outcome_of(200, accepted(message_id=json.dumps(message_id))) == message_id
    assert outcome_of(200, accepted(message_id=f'"{message_id}"')) == message_id


@pytest.mark.parametrize(
    "message_id", ['""', '"  "', r'"\n\t"', r'"\u3000"', "null", "17", "1.5", "true", '["m-1"]', '{"id":"m-1"}']
)
def test_code_0_without_a_usable_id_is_unknown(message_id: str) -> None:
    assert outcome_of(200, accepted(message_id=message_id)) is OutcomeUnknownError


@pytest.mark.parametrize(
    "data",
    [
        "null",
        "[]",
        '"m-1"',
        "{}",
        '{"id":"m-1"}',
        '{"messages":null}',
        '{"messages":[]}',
        '{"messages":{}}',
        '{"messages":{"id":"m-1"}}',
        '{"messages":"m-1"}',
        '{"messages":["m-1"]}',
        '{"messages":[null]}',
        '{"messages":[{}]}',
        '{"messages":[{"ID":"m-1"}]}',
        '{"messages":[[{"id":"m-1"}]]}',
        '{"messages":[{},{"id":"m-1"}]}',
        '{"error":{"code":100}}',
        '[{"messages":[{"id":"m-1"}]}]',
    ],
)
def test_an_id_in_the_wrong_place_is_unknown(data: str) -> None:
    assert outcome_of(200, f'{{"code":0,"data":{data},"message":"Request successful"}}'.encode()) is OutcomeUnknownError


def test_code_0_without_data_is_unknown() -> None:
    assert outcome_of(200, b'{"code":0,"message":"Request successful"}') is OutcomeUnknownError
    assert outcome_of(200, b'{"code":0}') is OutcomeUnknownError


# --------------------------------------------------------------------------------------- its other fields


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":{"messages":[{"id":"m-1"}]},"code":0}',
        b'\n{ "code" : 0 ,\t"data" : { "messages" : [ { "id" : "m-1" } ] } }\r\n',
        accepted(more=',"traceId":"t-1","msg":"ok","extra":{"id":"x","code":9001,"data":{}}'),
        b'{"code":0,"data":{"messages":[{"id":"m-1","status":"queued"},{"id":"m-2"}],"contacts":[]},"message":null}',
        rb'{"c\u006fde":0,"data":{"messages":[{"id":"\u006d-1"}]},"message":"\u725b"}',
        b'{"code":0,"data":{"messages":[{"id":"m-1"}],"error":null},"message":[1,2]}',
    ],
)
def test_extra_fields_order_and_spelling_do_not_matter(body: bytes) -> None:
    assert outcome_of(200, body) == "m-1"


@pytest.mark.parametrize(
    "body",
    [
        b'{"code":0,"code":-1,"data":{"messages":[{"id":"m-1"}]}}',
        b'{"code":-1,"code":0,"data":{"messages":[{"id":"m-1"}]}}',
        b'{"code":0,"code":0,"data":{"messages":[{"id":"m-1"}]}}',
        rb'{"code":0,"c\u006fde":-1,"data":{"messages":[{"id":"m-1"}]}}',
        b'{"code":-1,"code":9005,"message":"no"}',
        b'{"code":0,"data":null,"data":{"messages":[{"id":"m-1"}]}}',
        b'{"code":0,"data":{"messages":[],"messages":[{"id":"m-1"}]}}',
        b'{"code":0,"data":{"messages":[{"id":"m-1","id":"m-2"}]}}',
        rb'{"code":0,"data":{"messages":[{"id":"m-1","\u0069d":"m-2"}]}}',
        b'{"code":9099,"data":{"error":{"code":100,"code":131056}}}',
        b'{"code":9099,"data":{"error":{"code":100},"error":{"code":131056}}}',
    ],
)
def test_an_answer_that_names_something_twice_is_unknown(body: bytes) -> None:
    assert outcome_of(200, body) is OutcomeUnknownError


@pytest.mark.parametrize("status", [200, 302, 400, 404, 429, 500])
@pytest.mark.parametrize("code", ["-1", "9001", "9005", "9099", "1004", "4711", '"0"', "true", "0.0", "null"])
def test_a_message_id_beside_anything_but_a_clear_success_is_unknown(status: int, code: str) -> None:
    assert outcome_of(status, accepted(code)) is OutcomeUnknownError


@pytest.mark.parametrize("status", [200, 302, 400, 404, 429, 500])
def test_a_name_that_comes_twice_is_unknown_whatever_the_status(status: int) -> None:
    assert outcome_of(status, b'{"code":0,"code":-1,"message":"no"}') is OutcomeUnknownError


@pytest.mark.parametrize("more", [',"message":"again"', ',"traceId":"1","traceId":"2"', ',"extra":[{"a":1,"a":1}]'])
def test_what_decides_nothing_may_be_named_twice(more: str) -> None:
    assert outcome_of(200, accepted(more=more)) == "m-1"


@pytest.mark.parametrize("name", ["message", "msg"])
def test_the_vendors_text_is_kept_by_either_name(name: str) -> None:
    error = refusal(json.dumps({"code": 9005, name: "top up first", "traceId": "t-1"}).encode())
    assert error.vendor_message == "top up first"
    assert "top up first" in str(error)
    assert '"traceId": "t-1"' in error.raw


def test_message_wins_over_msg() -> None:
    assert refusal(b'{"code":-1,"msg":"short","message":"long"}').vendor_message == "long"


@pytest.mark.parametrize("text", ["null", "17", "true", '["no"]', '{"no":1}'])
def test_a_text_that_is_none_is_as_good_as_missing(text: str) -> None:
    error = refusal(f'{{"code":9015,"message":{text}}}'.encode())
    assert type(error) is OtpContentError
    assert error.vendor_message == ""
    assert str(error) == str(refusal(b'{"code":9015}'))


def test_a_text_that_only_repeats_the_meaning_is_not_repeated() -> None:
    error = refusal(FAILED)
    assert error.vendor_message == "Request failed"
    assert str(error).lower().count("request failed") == 1


def test_long_texts_are_cut() -> None:
    long = {"message": "x " * 5_000, "type": "y " * 5_000, "fbtrace_id": "z " * 5_000}
    error = refusal(
        refused(9099, message="m " * 5_000, data={"error": {**long, "error_data": {"details": "d " * 5_000}}})
    )
    assert isinstance(error, MetaError)
    assert len(error.raw) <= 4096
    for text in (error.vendor_message, error.meta_type, error.fbtrace_id, error.details):
        assert 0 < len(text) <= 500
    assert len(str(error)) < 1_200


def test_the_raw_answer_is_kept_where_it_is_no_json() -> None:
    assert "502 Bad Gateway" in refusal(HTML, 404).raw
    assert refusal(b"\xff\xfeab", 404).raw == "\ufffd\ufffdab"


# --------------------------------------------------------------------------------------- Meta's errors


def test_metas_own_error_is_kept() -> None:
    error = refusal(META)
    assert isinstance(error, MetaError)
    assert (error.code, error.vendor_message) == (9099, "WhatsApp error")
    assert (error.meta_code, error.meta_type) == (100, "OAuthException")
    assert (error.fbtrace_id, error.details) == ("AmCuD7sOjcEDetBNhlT2cJm", "Invalid parameter")
    assert "Meta 100, (#100) Invalid parameter" in str(error)


@pytest.mark.parametrize(
    ("written", "meta_code"),
    [
        ("131056", 131056),
        ('"131056"', 131056),
        ("4", 4),
        ('"4"', 4),
        ("0", 0),
        ("true", None),
        ("131056.0", None),
        ('"131056.0"', None),
        ("null", None),
        ('""', None),
        ('"-4"', None),
        ('" 4"', None),
        ('"1e3"', None),
        ('"4_0"', None),
        ('"\u0664"', None),
        ('"\u00b2"', None),
        (f'"{"9" * 5_000}"', None),
        ("[4]", None),
        ("{}", None),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_metas_code_may_be_an_integer_or_its_digits(written: str, meta_code: int | None) -> None:
    error = refusal(f'{{"code":9099,"data":{{"error":{{"code":{written}}}}}}}'.encode())
    assert isinstance(error, MetaError)
    assert error.meta_code == meta_code
    assert type(error.meta_code) in (int, type(None))


@pytest.mark.parametrize(
    "data",
    [
        "null",
        "[]",
        '"error"',
        "{}",
        '{"error":null}',
        '{"error":"text"}',
        '{"error":[]}',
        '{"error":{}}',
        '{"error":{"message":1,"type":[],"fbtrace_id":{},"error_data":"text"}}',
        '{"error":{"error_data":{"details":null}}}',
    ],
)
def test_a_meta_error_without_its_parts_is_a_meta_error_all_the_same(data: str) -> None:
    error = refusal(f'{{"code":9099,"data":{data}}}'.encode())
    assert type(error) is MetaError
    assert (error.meta_code, error.meta_type, error.fbtrace_id, error.details) == (None, "", "", "")


def test_another_codes_data_is_not_taken_for_metas() -> None:
    error = refusal(refused(9005, data={"error": {"code": 131056, "message": "Pair rate limit hit"}}))
    assert type(error) is AccountError
    assert "131056" not in str(error)


# --------------------------------------------------------------------------------------- times in headers

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
EPOCH = 784111777.0


@pytest.fixture(params=["UTC0", "JST-9", "PST8PDT"])
def _any_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the test on machines of several time zones."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_any_zone")
@pytest.mark.parametrize(
    "text",
    [
        DATE,
        f"  {DATE} ",
        "06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 09:49:37 +0100",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        # Without a zone, and in the older forms that RFC 9110 still has read: all of them mean UTC.
        "Sun, 06 Nov 1994 08:49:37 -0000",
        "Sun, 06 Nov 1994 08:49:37",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ],
)
def test_a_date_is_read_the_same_in_every_time_zone(text: str) -> None:
    assert server_time({"Date": text}) == EPOCH


@pytest.mark.parametrize("name", ["Date", "date", "DATE"])
def test_the_name_of_a_header_may_be_in_any_letter_case(name: str) -> None:
    assert server_time({"X-Date": "other", name: DATE}) == EPOCH


BAD_DATES = [
    "",
    " ",
    "now",
    "0",
    "784111777",
    "Sun, 31 Feb 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 25:49:37 GMT",
    "Sun, 06 Nov 1994 08:49:37 +99999999999999999999",
    "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
    "\u0660",
]


@pytest.mark.parametrize("text", BAD_DATES)
def test_a_bad_date_is_no_date(text: str) -> None:
    assert server_time({"Date": text}) is None


def test_a_missing_date_is_no_date() -> None:
    assert server_time({}) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("86400", 86_400.0),
        ("86401", 86_400.0),
        ("9" * 5_000, 86_400.0),
        ("Sun, 06 Nov 1994 08:51:07 GMT", 90.0),
        (DATE, 0.0),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
        ("", None),
        ("-5", None),
        ("+5", None),
        ("1.5", None),
        ("1e3", None),
        ("inf", None),
        ("nan", None),
        ("\u0665", None),
        ("\u00b2", None),
        ("soon", None),
        ("5, 10", None),
        ("Sun, 31 Feb 1994 08:49:37 GMT", None),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_retry_after_is_seconds_or_a_date_by_the_servers_clock(text: str, seconds: float | None) -> None:
    error = refusal(b"", 429, {"Retry-After": text, "Date": DATE})
    assert error.retry_after == seconds


@pytest.mark.parametrize("headers", [{}, {"date": "now"}])
def test_a_retry_after_date_without_the_servers_clock_says_nothing(headers: dict[str, str]) -> None:
    assert refusal(b"", 429, {"retry-after": "Sun, 06 Nov 1994 08:51:07 GMT", **headers}).retry_after is None


def test_retry_after_is_kept_with_a_vendor_code_too() -> None:
    assert refusal(FAILED, headers={"RETRY-AFTER": "3"}).retry_after == 3.0


def test_without_retry_after_there_is_none() -> None:
    assert refusal(b"", 429, {"Date": DATE}).retry_after is None


DATE_PARTS = [
    *(
        "Sun,",
        "Sun",
        "06",
        "31",
        "0",
        "-1",
        "Nov",
        "Foo",
        "1994",
        "94",
        "9999",
        "0000",
        "08:49:37",
        "25:61:61",
        "1:2:3:4",
    ),
    *("::", "GMT", "EST", "-0000", "+9999", "-99999", "+" + "9" * 30, "(", '"', "\\", ",", "1.5", "\u0664", "\x00"),
]


@settings(max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text(max_size=40) | st.lists(st.sampled_from(DATE_PARTS), max_size=8).map(" ".join), st.sampled_from(["", DATE])
)
def test_no_header_breaks_the_reader(text: str, date: str) -> None:
    at = server_time({"Date": text})
    assert at is None or math.isfinite(at)
    for dated in (date, text):
        error = refusal(b"", 429, {"Retry-After": text, "Date": dated})
        assert error.retry_after is None or 0 <= error.retry_after <= 86_400


# --------------------------------------------------------------------------------------- against a second reader


class _DoubtfulError(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if any(names.count(name) > 1 for name in ("code", "data", "messages", "id")):
        raise _DoubtfulError
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise _DoubtfulError


def second_reader(body: bytes) -> dict[str, Any]:
    """Read an answer with another JSON library; an answer that is not beyond doubt is an empty one."""
    if len(body) > 65_536:
        return {}
    try:
        text = body.decode("utf-8", "strict")
        answer = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError, _DoubtfulError):
        return {}
    return answer if isinstance(answer, dict) else {}


def proven_id(status: int, answer: dict[str, Any]) -> str | None:
    """Return the message id, where the answer proves that the message was accepted."""
    if status // 100 != 2 or type(answer.get("code")) is not int or answer["code"] != 0:
        return None
    try:
        message_id = answer["data"]["messages"][0]["id"]
    except (KeyError, IndexError, TypeError):
        return None
    return message_id if isinstance(message_id, str) and message_id.strip() else None


# No integer of an answer can hold these: codes are kept as they are.
HIDDEN = "s3cr3t"
RECIPIENT = f"to {NUMBER}"


def judge(status: int, headers: dict[str, str], body: bytes) -> None:
    """Check what the library makes of an answer."""
    outcome = decode(status, headers, body, hide=(HIDDEN,))
    answer = second_reader(body)
    if isinstance(outcome, str):
        assert outcome == proven_id(status, answer)
        return
    assert isinstance(outcome, NxOtpError)
    assert type(outcome).__module__ == "nxotp_async.errors"
    if isinstance(outcome, ApiError):
        code = answer.get("code")
        assert 300 <= status < 500 or (type(code) is int and code != 0 and outcome.code == code)
    else:
        assert type(outcome) is OutcomeUnknownError
    for text in every_text(outcome):
        assert HIDDEN not in text
        assert RECIPIENT not in text
        assert text.isprintable()


statuses = st.sampled_from([200] * 12 + [100, 201, 204, 299, 301, 302, 400, 401, 404, 429, 500, 502, 503, 600])
SEEDS = [ACCEPTED, FAILED, META, accepted(), accepted(more=',"traceId":"t-1","msg":"ok"'), refused(1004), HTML]
TOKENS = [
    *(b'"code":0,', b'"code":-1,', b'"code":"0",', rb'"c\u006fde":0,'),
    *(b'"data":null,', b'"id":"m-2",', b'"message":1,'),
    *(bytes([char]) for char in b'{}[]",:\\0123-+. \0\n\xff'),
    *(b".0", b"e1", b"1e999", b"9" * 30, b"null", b"true", b"NaN", b"[[[[", rb"\u0000", rb"\ud800", b"\xef\xbb\xbf"),
    *(b"\x1b[2J", "\u202e".encode(), "牛".encode(), b"s3cr3t", b'"to 9995550100"', b"<html>"),
]


def mutated(body: bytes, edits: list[tuple[str, int, int]]) -> bytes:
    """Return the answer after a few accidents on its way."""
    for kind, place, amount in edits:
        at = place % (len(body) + 1)
        match kind:
            case "cut":
                body = body[:at]
            case "behead":
                body = body[at:]
            case "lose":
                body = body[:at] + body[at + amount % 20 :]
            case "repeat":
                body = body[:at] + body[max(0, at - amount) :]
            case "flip" if at < len(body):
                body = body[:at] + bytes([body[at] ^ (1 << amount % 8)]) + body[at + 1 :]
            case "insert":
                body = body[:at] + TOKENS[amount % len(TOKENS)] + body[at:]
    return body


edits = st.lists(
    st.tuples(
        st.sampled_from(["cut", "behead", "lose", "repeat", "flip", "flip", "insert", "insert"]),
        st.integers(0, 300),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)
accidents = st.builds(mutated, st.sampled_from(SEEDS), edits)

# Near misses: JSON put together from parts, most of them right.
CODE_PARTS = ["0"] * 8 + ["-0", "-1", "1004", "9001", "9099", "4711", *(code for code in ODD_CODES.values() if code)]
ID_PARTS = ['"m-1"'] * 8 + ['""', '" "', r'"\u006d"', r'"\ud83d\ude00"', r'"\ud800"', "1", "null", "[]", '{"id":"m"}']
TEXT_PARTS = ['"ok"'] * 4 + ["null", "0", '"to 9995550100"', r'"\u001b[2J"', '"s3cr3t"', '"\\', '"\x07"']
NAMES = ['"code"', '"data"', '"message"', '"msg"', '"id"', '"messages"', '"Code"', r'"c\u006fde"', '""', "code"]

members = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(CODE_PARTS + TEXT_PARTS)), max_size=2)


def _object(*pairs: tuple[str, str]) -> str:
    return "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"


def near_miss(
    code: str,
    message_id: str,
    text: str,
    shape: int,
    more: list[tuple[str, str]],
    inner: list[tuple[str, str]],
    turn: int,
) -> bytes:
    message = _object(*inner[:1], ('"id"', message_id))
    error = _object(('"code"', code), ('"message"', text), *inner)
    data = [
        *[_object(('"messages"', f"[{message}]"), *inner[1:])] * 6,
        _object(('"messages"', f"[{message},{message}]")),
        _object(('"messages"', message)),
        _object(('"messages"', "[]")),
        _object(('"error"', error)),
        f"[{message}]",
        "null",
    ][shape]
    pairs = [('"code"', code), ('"data"', data), ('"message"', text), *more]
    return _object(*pairs[turn:], *pairs[:turn]).encode()


near_misses = st.builds(
    near_miss,
    st.sampled_from(CODE_PARTS),
    st.sampled_from(ID_PARTS),
    st.sampled_from(TEXT_PARTS),
    st.integers(0, 11),
    members,
    members,
    st.integers(0, 3),
)

fuzz = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def examples(count: int) -> int:
    """Return how many to try: all, or the share that CI asks for where it runs the same tests once more."""
    return int(count * float(os.environ.get("FUZZ_SHARE", "1")))


@settings(fuzz, max_examples=examples(5_000))
@given(statuses, st.binary(max_size=100))
def test_arbitrary_bytes_never_fool_the_reader(status: int, body: bytes) -> None:
    judge(status, {}, body)


@settings(fuzz, max_examples=examples(8_000))
@given(statuses, accidents)
def test_accidents_on_the_way_never_fool_the_reader(status: int, body: bytes) -> None:
    judge(status, {"Date": DATE, "Retry-After": "1"}, body)


@settings(fuzz, max_examples=examples(8_000))
@given(statuses, near_misses)
def test_near_misses_never_fool_the_reader(status: int, body: bytes) -> None:
    judge(status, {}, body)


@pytest.mark.parametrize("answers", [accidents, near_misses], ids=["accidents", "near misses"])
@pytest.mark.parametrize(
    "kind", [str, OutcomeUnknownError, TransientApiError, MetaError], ids=lambda kind: kind.__name__
)
def test_the_answers_made_up_here_have_every_outcome(answers: st.SearchStrategy[bytes], kind: type) -> None:
    find(
        answers,
        lambda body: type(decode(200, {}, body)) is kind,
        settings=settings(fuzz, max_examples=5_000, database=None),
    )
