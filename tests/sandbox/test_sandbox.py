"""The sandbox answers as the vendor's documentation says."""

import asyncio
import contextlib
import hashlib
import json
import socket
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest
from requests_by_hand import (
    ABSENT,
    CODE,
    FIELDS,
    NUMBER,
    PATH,
    REQUIRED_FIELDS,
    Answer,
    Api,
    body_with,
    body_without,
    success,
)

from nxotp_async import (
    Category,
    ConfigurationError,
    InvalidSignatureError,
    Language,
    OtpClient,
    OtpMessage,
    ResponseCode,
    RetryPolicy,
    SendStatus,
)
from nxotp_async.sandbox import (
    SANDBOX_BUSINESS_PHONE,
    Fault,
    FaultKind,
    ReceivedRequest,
    Sandbox,
    sandbox_client,
)
from nxotp_async.testing import FakeClock

# ---------------------------------------------------------------------------------------------- a good request


async def test_a_good_request_is_answered_as_the_vendor_documents_it(api: Api) -> None:
    answer = await api.post_good()
    assert (answer.status, answer.json) == (200, success("order-1"))
    assert answer.headers["Content-Type"].startswith("application/json")


async def test_a_message_without_an_id_of_its_own_gets_one(api: Api, sandbox: Sandbox) -> None:
    first = await api.post(body_without("cus_message_id"))
    second = await api.post(body_without("cus_message_id"))
    ids = [answer.json["data"]["messages"][0]["id"] for answer in (first, second)]
    assert all(ids)
    assert len(set(ids)) == 2
    assert [message.message_id for message in sandbox.messages] == ids


async def test_ids_are_made_up_where_none_shall_be_echoed(clock: FakeClock, api_of: Callable[[Sandbox], Api]) -> None:
    async with Sandbox(clock=clock, echo_message_id=False) as sandbox:
        answers = [await api_of(sandbox).post_good() for _ in range(2)]
    ids = [answer.json["data"]["messages"][0]["id"] for answer in answers]
    assert [answer.json for answer in answers] == [success(message_id) for message_id in ids]
    assert len({*ids, "order-1"}) == 3
    assert [(message.cus_message_id, message.message_id) for message in sandbox.messages] == [
        ("order-1", message_id) for message_id in ids
    ]


@pytest.mark.parametrize(
    "optional",
    [
        {"business_phone": SANDBOX_BUSINESS_PHONE},
        {"category": ""},
        {"category": "AUTHENTICATION"},
        {"category": "UTILITY"},
        {"api_type": 0},
        {"api_type": 1},
        {"dr_webhook": "https://example.com/status"},
        {"a_field_of_tomorrow": True},
    ],
    ids=str,
)
async def test_an_optional_field_is_accepted(api: Api, optional: dict[str, Any]) -> None:
    assert (await api.post_good(**optional)).json == success("order-1")


@pytest.mark.parametrize("language", list(Language))
async def test_there_is_a_template_in_every_language_of_the_vendors(api: Api, language: Language) -> None:
    assert (await api.post_good(language_code=language.value)).code == 0


@pytest.mark.parametrize("content", ["1234", "12345678", "Code: 004213.", "認証コードは482913です", "<482913>"])
async def test_the_code_is_found_in_the_content(api: Api, sandbox: Sandbox, content: str) -> None:
    assert (await api.post_good(content=content)).code == 0
    assert sandbox.messages[0].otp == OtpMessage(NUMBER, content).code


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
async def test_a_content_type_is_read_as_http_has_it(api: Api, content_type: str) -> None:
    assert (await api.post(body_with(), {"Content-Type": content_type})).code == 0


async def test_header_names_are_read_in_any_letter_case(api: Api, sandbox: Sandbox) -> None:
    body = body_with()
    async with await api.connect() as wire:
        head, end = api.head(body).split(b"\r\n", 1)
        names_lowered = [line.partition(b":") for line in end.split(b"\r\n")]
        wire.write(b"\r\n".join([head, *(name.lower() + colon + value for name, colon, value in names_lowered)]) + body)
        answer = await wire.read_until(b"Request successful")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(sandbox.messages) == 1


async def test_other_addresses_than_the_otp_apis_do_not_exist(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    async with session.post(sandbox.url + "/api/wa/mt") as wrong_path, session.get(sandbox.url + PATH) as wrong_method:
        assert (wrong_path.status, wrong_method.status) == (404, 405)
    assert not sandbox.requests


# ---------------------------------------------------------------------------------------------- refused headers


@pytest.mark.parametrize("value", [ABSENT, ""], ids=["absent", "empty"])
@pytest.mark.parametrize("header", ["accessKey", "ts", "bizType", "action", "sign"])
async def test_without_one_of_the_required_headers_parameters_are_missing(
    api: Api, sandbox: Sandbox, header: str, value: str | None
) -> None:
    answer = await api.post(body_with(), {header: value})
    assert (answer.status, answer.code, answer.json["data"]) == (200, 1001, None)
    assert header in answer.json["message"]
    assert not sandbox.messages


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"accessKey": "somebody-elses"}, 1005),
        ({"accessKey": "SANDBOX-ACCESS-KEY"}, 1005),
        ({"bizType": "1"}, 1002),
        ({"action": "send"}, 1002),
        ({"ts": "yesterday"}, 1004),
        ({"ts": "1800000000.000"}, 1004),
        ({"ts": "+1800000000000"}, 1004),
        ({"ts": "1_800_000_000_000"}, 1004),
        ({"ts": "-1800000000000"}, 1004),
        ({"ts": "9" * 5000}, 1004),
        ({"ts": "\u00b2"}, 1004),
        ({"Content-Type": "text/plain"}, 1003),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 1003),
        ({"Content-Type": ABSENT}, 1003),
        ({"sign": "0" * 32}, 1003),
        ({"sign": "ß"}, 1003),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_wrong_header_has_its_code(api: Api, sandbox: Sandbox, changes: dict[str, Any], code: int) -> None:
    answer = await api.post(body_with(), changes)
    assert (answer.status, answer.code, answer.json["data"]) == (200, code, None)
    assert [request.code for request in sandbox.requests] == [code]
    assert not sandbox.messages


@pytest.mark.parametrize(
    ("offset", "code"), [(-60_001, 1004), (-60_000, 0), (0, 0), (60_000, 0), (60_001, 1004)], ids=str
)
async def test_a_timestamp_may_be_60_seconds_away_and_not_a_millisecond_more(api: Api, offset: int, code: int) -> None:
    assert (await api.post(body_with(), {"ts": str(api.now_ms + offset)})).code == code


async def test_a_timestamp_in_seconds_is_refused(api: Api) -> None:
    assert (await api.post(body_with(), {"ts": str(api.now_ms // 1000)})).code == 1004


async def test_a_sign_is_for_exactly_the_bytes_of_the_body(api: Api, sandbox: Sandbox) -> None:
    body = body_with()
    assert (await api.post(body, body_sent=body.replace(b'": "', b'":"'))).code == 1003
    assert (await api.post(body, body_sent=body + b"\n")).code == 1003
    assert (await api.post(body + b"\n")).code == 0
    assert len(sandbox.messages) == 1


async def test_a_sign_is_lowercase(api: Api) -> None:
    body = body_with()
    sign = api.headers(body, {})["sign"]
    assert (await api.post(body, {"sign": sign})).code == 0
    assert (await api.post(body, {"sign": sign.upper()})).code == 1003


def _md5(text: bytes) -> str:
    return hashlib.md5(text).hexdigest()


SECRET = b"&accessSecret=sandbox-access-secret"
Signer = Callable[[bytes, bytes], str]


def _of_other_json(**options: Any) -> Signer:
    return lambda head, body: _md5(head + b"&body=" + json.dumps(json.loads(body), **options).encode() + SECRET)


MISTAKES: list[tuple[str, Signer]] = [
    ("must be in lowercase", lambda head, body: _md5(head + b"&body=" + body + SECRET).upper()),
    ("is SHA-256: MD5 is expected", lambda head, body: hashlib.sha256(head + b"&body=" + body + SECRET).hexdigest()),
    ("was made without the body", lambda head, _: _md5(head + SECRET)),
    ("is of other JSON than was sent", _of_other_json()),
    ("is of other JSON than was sent", _of_other_json(ensure_ascii=False)),
    ("is of other JSON than was sent", _of_other_json(separators=(",", ":"))),
    ("does not match: the access secret is wrong", lambda head, body: _md5(head + b"&body=" + body)),
]


@pytest.mark.parametrize(("told", "sign"), MISTAKES)
async def test_the_usual_mistake_in_a_sign_is_named(api: Api, sandbox: Sandbox, told: str, sign: Signer) -> None:
    body = json.dumps({**FIELDS, "content": "кодé 482913"}, separators=(",", ":"), ensure_ascii=False).encode()
    head = f"accessKey=sandbox-access-key&action=mt&bizType=2&ts={api.now_ms}".encode()
    answer = await api.post(body, {"sign": sign(head, body)})
    assert answer.code == 1003
    assert answer.json["message"].startswith(f"Invalid signature: the sign {told}")
    assert sandbox.requests[0].why in answer.json["message"]


async def test_a_wrong_sign_of_json_that_is_nested_deeply_is_refused(api: Api) -> None:
    body = b'{"to":' + b"[" * 1000 + b"]" * 1000 + b"}"
    assert (await api.post(body, {"sign": "0" * 32})).code == 1003


async def test_a_sign_with_another_secret_is_refused(sandbox: Sandbox, clock: FakeClock) -> None:
    async with sandbox.client(clock=clock, access_secret="another-secret") as client:
        with pytest.raises(InvalidSignatureError):
            await client.send_otp(NUMBER, CODE)


# ---------------------------------------------------------------------------------------------- refused bodies


@pytest.mark.parametrize(
    "body",
    [b"", b"to=9995550100", b"[]", b'"text"', b"null", body_with()[:-1], b'{"content": "\xff"}', b"{'to': 1}"],
    ids=repr,
)
async def test_a_body_that_is_no_json_object_is_a_parameter_error(api: Api, sandbox: Sandbox, body: bytes) -> None:
    assert (await api.post(body)).code == 1002
    assert sandbox.requests[0].body == body
    assert sandbox.requests[0].fields == {}


@pytest.mark.parametrize("how", ["absent", "null", "empty"])
@pytest.mark.parametrize("field", REQUIRED_FIELDS)
async def test_without_one_of_the_required_fields_there_is_a_parameter_exception(
    api: Api, field: str, how: str
) -> None:
    bodies = {"absent": body_without(field), "null": body_with(**{field: None}), "empty": body_with(**{field: ""})}
    answer = await api.post(bodies[how])
    assert (answer.code, answer.json["data"]) == (9000, None)
    assert field in answer.json["message"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        *(({field: 5}, 1002) for field in REQUIRED_FIELDS),
        *(({field: ["x"]}, 1002) for field in REQUIRED_FIELDS),
        ({"business_phone": 99955500000}, 1002),
        ({"category": 1}, 1002),
        ({"cus_message_id": 17}, 1002),
        ({"dr_webhook": {"url": "https://example.com"}}, 1002),
        ({"dr_webhook": "example.com/status"}, 1002),
        ({"api_type": "0"}, 1002),
        ({"api_type": 1.0}, 1002),
        ({"api_type": True}, 1002),
        ({"api_type": 2}, 1002),
        ({"messaging_product": "sms"}, 1002),
        ({"recipient_type": "group"}, 1002),
        ({"appkey": "somebody-elses"}, 9003),
        ({"business_phone": "99955500001"}, 10003),
        ({"category": "MARKETING"}, 9014),
        ({"category": "authentication"}, 9014),
        ({"language_code": "xx"}, 10005),
        ({"language_code": "pt-BR"}, 10005),
        ({"content": "no code at all"}, 9015),
        ({"content": "123"}, 9015),
        ({"content": "123456789"}, 9015),
        ({"content": "1234 or 5678"}, 9015),
        ({"content": "٤٨٢٩١٣"}, 9015),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_wrong_field_has_its_code(api: Api, sandbox: Sandbox, changes: dict[str, Any], code: int) -> None:
    answer = await api.post_good(**changes)
    assert (answer.status, answer.code, answer.json["data"]) == (200, code, None)
    assert [request.code for request in sandbox.requests] == [code]
    assert not sandbox.messages


@pytest.mark.parametrize(
    "number", ["+9995550100", "0999555010", "999 555 0100", "999555", "9995550100000000", "\uff19995550100", "me"]
)
async def test_a_number_that_is_none_is_whatsapps_own_refusal(api: Api, sandbox: Sandbox, number: str) -> None:
    answer = await api.post_good(to=number)
    error = answer.json["data"]["error"]
    assert (answer.code, answer.json["message"]) == (9099, "WhatsApp error")
    assert (error["code"], error["message"], error["type"]) == (100, "(#100) Invalid parameter", "OAuthException")
    assert isinstance(error["fbtrace_id"], str)
    assert error["error_data"].keys() == {"messaging_product", "details"}
    assert error["error_data"]["messaging_product"] == "whatsapp"
    assert not sandbox.messages


async def test_the_business_phones_are_those_it_was_given(clock: FakeClock, api_of: Callable[[Sandbox], Api]) -> None:
    async with Sandbox(clock=clock, business_phones=["99955500001", "99955500002"]) as sandbox:
        phones = ("99955500001", "99955500002", SANDBOX_BUSINESS_PHONE)
        codes = [(await api_of(sandbox).post_good(business_phone=phone)).code for phone in phones]
    assert codes == [0, 0, 10003]


async def test_no_answer_quotes_the_number_or_the_code(api: Api) -> None:
    for changes in ({"to": f"{NUMBER}0000000"}, {"content": CODE * 2}, {"category": CODE}, {"language_code": NUMBER}):
        answer = await api.post_good(**changes)
        assert answer.code != 0
        assert NUMBER.encode() not in answer.body
        assert CODE.encode() not in answer.body


async def test_a_body_too_long_for_any_message_is_refused(api: Api, sandbox: Sandbox) -> None:
    assert (await api.post(body_with(filler="x" * 100_000))).status == 413
    assert not sandbox.messages


# ---------------------------------------------------------------------------------------------- its clock


@pytest.mark.parametrize("offset", [-3600.0, 0.0, 90.0])
async def test_the_date_header_and_the_window_follow_the_clock_offset(
    clock: FakeClock, api_of: Callable[[Sandbox], Api], offset: float
) -> None:
    async with Sandbox(clock=clock, clock_offset=offset) as sandbox:
        api = api_of(sandbox)
        its_now = api.now_ms + int(offset * 1000)
        on_time, late = (
            await api.post(body_with(), {"ts": str(its_now)}),
            await api.post(body_with(), {"ts": str(its_now - 60_001)}),
        )
        sandbox.script(Fault.http(503))
        gateway = await api.post(body_with())
        async with aiohttp.ClientSession() as session, session.get(sandbox.url) as elsewhere:
            pass
    assert (on_time.code, late.code) == (0, 1004)
    for answer in (on_time, late, gateway, elsewhere):
        assert parsedate_to_datetime(answer.headers["Date"]).timestamp() == clock.time() + offset
    assert sandbox.requests[0].arrived_at == clock.time() + offset


async def test_a_client_corrects_its_timestamps_by_the_sandboxs_clock(clock: FakeClock) -> None:
    async with (
        Sandbox(clock=clock, clock_offset=-300) as sandbox,
        sandbox.client(clock=clock) as client,
    ):
        assert [(await client.send_otp(NUMBER, CODE)).attempts for _ in range(2)] == [2, 1]
    assert [request.code for request in sandbox.requests] == [1004, 0, 0]


# ---------------------------------------------------------------------------------------------- what it records


async def test_a_request_is_recorded_as_it_came(api: Api, sandbox: Sandbox, clock: FakeClock) -> None:
    body = body_with()
    await api.post(body)
    (request,) = sandbox.requests
    assert request.body == body
    assert request.fields == FIELDS
    assert request.headers["accesskey"] == "sandbox-access-key"
    assert (request.arrived_at, request.ts) == (clock.time(), api.now_ms)
    assert (request.to, request.content, request.otp) == (NUMBER, FIELDS["content"], CODE)
    assert (request.cus_message_id, request.message_id) == ("order-1", "order-1")
    assert (request.code, request.fault) == (ResponseCode.SUCCESS, FaultKind.NONE)
    assert sandbox.messages == [request]


async def test_a_refused_request_is_recorded_but_is_no_message(api: Api, sandbox: Sandbox) -> None:
    await api.post(body_with(), {"accessKey": "somebody-elses"})
    await api.post(b"no JSON", {"ts": "never"})
    await api.post_good()
    assert [request.code for request in sandbox.requests] == [1005, 1004, 0]
    assert [request.message_id for request in sandbox.requests] == [None, None, "order-1"]
    assert [message.message_id for message in sandbox.messages] == ["order-1"]
    nothing_readable = sandbox.requests[1]
    assert (nothing_readable.to, nothing_readable.content, nothing_readable.otp) == ("", "", None)
    assert (nothing_readable.cus_message_id, nothing_readable.ts) == (None, 0)


async def test_a_record_shows_neither_number_nor_code_nor_keys(api: Api, sandbox: Sandbox) -> None:
    await api.post_good()
    await api.post_good(content=f"{CODE} {CODE}")
    await api.post_good(to=f"+{NUMBER}")
    assert len(sandbox.requests) == 3
    for shown in (show(request) for request in sandbox.requests for show in (repr, str)):
        assert NUMBER not in shown
        assert CODE not in shown
        assert "sandbox-access-key" not in shown
        assert "sandbox-appkey" not in shown


async def test_a_record_as_text_tells_what_became_of_the_request(api: Api, sandbox: Sandbox) -> None:
    sandbox.script(Fault.answer(9001))
    await api.post_good()
    assert str(sandbox.requests[0]) == "order-1 to 99******00: 9001 code"


async def test_a_record_says_why(api: Api, sandbox: Sandbox) -> None:
    sandbox.script(*[Fault.slow(0)] * 2, Fault.answer(9001), Fault.meta(131056), Fault.meta(7), Fault.http(503))
    sandbox.script(Fault.truncated(), Fault.slow(0.001))
    await api.post_good()
    await api.post_good(category="x")
    for _ in range(6):
        await api.post_good()
    assert [request.why for request in sandbox.requests] == [
        "",
        "unknown category",
        "a fault",
        "Meta's 131056, Pair rate limit hit",
        "Meta's 7, unknown",
        "fault http 503",
        "fault truncated",
        "0.001 s late",
    ]


async def test_who_watches_hears_of_every_request_before_its_answer(
    clock: FakeClock, api_of: Callable[[Sandbox], Api]
) -> None:
    heard: list[ReceivedRequest] = []
    async with Sandbox(clock=clock, on_request=heard.append) as sandbox:
        api = api_of(sandbox)
        await api.post_good()
        assert [request.code for request in heard] == [0]
        await api.post(b"")
    assert heard == [*sandbox.requests]
    assert [request.code for request in heard] == [0, 1002]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"sender_limit": 0}, "sender_limit must be 1 at least"),
        ({"sender_limit": 0.5}, "sender_limit must be an integer"),
        ({"recipient_interval": 0}, "recipient_interval must be more than 0"),
        ({"latency": -1}, "latency must be 0 at least"),
        ({"latency": "1"}, "latency must be a number"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_refused(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Sandbox(**wrong)


# ---------------------------------------------------------------------------------------------- WhatsApp's limits


def meta_code(answer: Answer) -> int | None:
    data = answer.json["data"]
    return data["error"]["code"] if answer.code == 9099 else None


async def test_a_number_may_send_so_many_messages_in_any_second(
    clock: FakeClock, api_of: Callable[[Sandbox], Api]
) -> None:
    phones = [SANDBOX_BUSINESS_PHONE, "99955500001"]
    async with Sandbox(clock=clock, sender_limit=80, business_phones=phones) as sandbox:
        api = api_of(sandbox)

        async def send(**fields: Any) -> int | None:
            return meta_code(await api.post_good(**fields))

        assert await send() is None
        clock.advance(0.5)
        assert [await send() for _ in range(79)] == [None] * 79
        assert await send() == 130429
        assert await send(business_phone=SANDBOX_BUSINESS_PHONE) == 130429  # the number that is meant without one
        assert await send(business_phone="99955500001") is None  # another number's limit is its own
        clock.advance(0.499)
        assert await send() == 130429
        clock.advance(0.001)  # the first was a second ago; what was refused did not count
        assert await send() is None
        assert await send() == 130429
        clock.advance(0.5)
        assert [await send() for _ in range(80)] == [None] * 79 + [130429]
    assert sandbox.counts["messages"] == 1 + 79 + 1 + 1 + 79


async def test_a_recipient_gets_one_message_in_so_many_seconds(
    clock: FakeClock, api_of: Callable[[Sandbox], Api]
) -> None:
    async with Sandbox(clock=clock, recipient_interval=6) as sandbox:
        api = api_of(sandbox)

        async def send(to: str = NUMBER) -> int | None:
            return meta_code(await api.post_good(to=to))

        assert await send() is None
        assert (await send(), await send("9995550101")) == (131056, None)
        clock.advance(5.999)
        assert await send() == 131056
        clock.advance(0.001)
        assert (await send(), await send()) == (None, 131056)
        assert await send("9995550101") is None
        clock.advance(6.0)
        assert await send("9995550101") is None


async def test_what_was_not_accepted_does_not_count_for_the_limits(
    clock: FakeClock, api_of: Callable[[Sandbox], Api]
) -> None:
    async with Sandbox(clock=clock, sender_limit=1, recipient_interval=6) as sandbox:
        api = api_of(sandbox)
        sandbox.script(Fault.answer(9001), Fault.http(503), Fault.meta(4))
        await api.post_good(category="x")
        codes = [(await api.post_good()).status for _ in range(3)]
        assert codes == [503, 200, 200]
        assert sandbox.counts["messages"] == 1


async def test_the_client_learns_of_the_limits_as_of_whatsapps(clock: FakeClock) -> None:
    async with (
        Sandbox(clock=clock, recipient_interval=6) as sandbox,
        sandbox.client(clock=clock, deadline=60, retry=RetryPolicy(max_attempts=9)) as client,
    ):
        results = [await client.send_otp(NUMBER, CODE) for _ in range(2)]
    assert [result.status for result in results] == [SendStatus.ACCEPTED] * 2
    assert results[1].attempts > 1
    assert sandbox.messages[1].arrived_at - sandbox.messages[0].arrived_at >= 6


async def test_it_counts(api: Api, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    sandbox.script(Fault.answer(9001), Fault.truncated())
    for _ in range(3):
        await api.post_good()
    await api.post_good(appkey="somebody-elses")
    assert sandbox.counts == {
        "requests": 4,
        "messages": 2,
        "code 9001": 1,
        "code 0": 2,
        "code 9003": 1,
        "fault code": 1,
        "fault truncated": 1,
        "fault none": 2,
    }
    async with session.get(f"{sandbox.url}/sandbox/counts") as response:
        assert await response.json() == {**sandbox.counts, "max_in_flight": 1}


async def test_it_remembers_as_many_requests_as_it_shall_keep(
    clock: FakeClock, api_of: Callable[[Sandbox], Api]
) -> None:
    async with Sandbox(clock=clock, keep=2) as sandbox:
        for number in range(5):
            await api_of(sandbox).post_good(cus_message_id=f"order-{number}")
    assert [request.cus_message_id for request in sandbox.requests] == ["order-3", "order-4"]
    assert [message.cus_message_id for message in sandbox.messages] == ["order-3", "order-4"]
    assert (sandbox.counts["requests"], sandbox.counts["messages"]) == (5, 5)


async def test_it_knows_how_many_requests_were_in_flight_at_most(api: Api, sandbox: Sandbox) -> None:
    assert sandbox.max_in_flight == 0
    body = body_with()
    wires = [await api.connect() for _ in range(3)]
    for wire in wires:
        # The 100 comes once the request has begun, which then waits for its body.
        wire.write(api.head(body, Expect="100-continue"))
        await wire.read_until(b"100 Continue\r\n\r\n")
    for wire in wires:
        async with wire:
            wire.write(body)
            await wire.read_until(b"Request successful")
    await api.post_good()
    assert sandbox.max_in_flight == 3


async def test_a_request_whose_client_has_gone_is_not_in_flight(sandbox: Sandbox, clock: FakeClock) -> None:
    sandbox.script(Fault.hang(), Fault.hang())
    async with sandbox.client(clock=clock, timeout=0.05, max_concurrency=1) as client:
        results = await client.send_batch([OtpMessage(NUMBER, CODE)] * 3)
    assert results.summary().unknown == 2
    assert sandbox.max_in_flight == 1


# ---------------------------------------------------------------------------------------------- its life


async def test_a_taken_port_is_an_oserror_and_the_sandbox_can_start_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sandbox = Sandbox(port=port)
        tasks = asyncio.all_tasks()
        with pytest.raises(OSError, match="in use"):
            await sandbox.start()
        assert asyncio.all_tasks() == tasks
        with pytest.raises(RuntimeError):
            _ = sandbox.url
        await sandbox.stop()
    async with sandbox:
        assert sandbox.url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("use", [lambda sandbox: sandbox.url, Sandbox.client], ids=["url", "client"])
async def test_a_sandbox_that_does_not_run_says_how_it_is_run(use: Callable[[Sandbox], object]) -> None:
    sandbox = Sandbox()
    with pytest.raises(RuntimeError, match="async with Sandbox"):
        use(sandbox)
    async with sandbox:
        use(sandbox)
    with pytest.raises(RuntimeError, match="async with Sandbox"):
        use(sandbox)


async def test_stopping_is_idempotent_and_frees_the_port() -> None:
    sandbox = Sandbox()
    await sandbox.stop()
    await sandbox.start()
    port = int(sandbox.url.rpartition(":")[2])
    await sandbox.stop()
    await sandbox.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_second_start_leaves_nothing_behind() -> None:
    async with Sandbox() as sandbox:
        port = int(sandbox.url.rpartition(":")[2])
        with contextlib.suppress(RuntimeError):
            await sandbox.start()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_what_was_received_can_be_read_after_the_end(clock: FakeClock) -> None:
    async with Sandbox(clock=clock) as sandbox, sandbox.client(clock=clock) as client:
        await client.send_otp(NUMBER, CODE, category=Category.UTILITY)
    assert [message.fields["category"] for message in sandbox.messages] == ["UTILITY"]


async def test_an_ipv6_address_is_bracketed_in_the_url(clock: FakeClock) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    async with Sandbox(host="::1", clock=clock) as sandbox:
        assert sandbox.url.startswith("http://[::1]:")
        async with sandbox.client(clock=clock) as client:
            assert (await client.send_otp(NUMBER, CODE)).status is SendStatus.ACCEPTED


async def test_on_all_addresses_it_names_one_that_works(clock: FakeClock) -> None:
    async with Sandbox(host="0.0.0.0", clock=clock) as sandbox:
        assert sandbox.url.startswith("http://127.0.0.1:")
        assert "NXOTP_INSECURE_SANDBOX_HOST" not in sandbox.environ
        async with sandbox.client(clock=clock) as client:
            assert (await client.send_otp(NUMBER, CODE)).status is SendStatus.ACCEPTED


def test_a_client_of_a_sandbox_elsewhere_may_use_plain_http() -> None:
    assert sandbox_client("http://sandbox:8099").url == "http://sandbox:8099/api/wa/otp"
    with pytest.raises(ConfigurationError, match="must not be set with an account's keys"):
        sandbox_client("http://sandbox:8099", access_secret="an-accounts")
    with pytest.raises(ConfigurationError, match="plain https URL"):
        sandbox_client("sandbox:8099")


async def test_the_options_of_its_client_are_those_of_the_client(sandbox: Sandbox, clock: FakeClock) -> None:
    client = sandbox.client(clock=clock, language_code="pt_BR", business_phone=SANDBOX_BUSINESS_PHONE)
    assert isinstance(client, OtpClient)
    async with client:
        await client.send_otp(NUMBER, CODE)
    (message,) = sandbox.messages
    assert isinstance(message, ReceivedRequest)
    assert message.fields["language_code"] == "pt_BR"
    assert message.fields["business_phone"] == SANDBOX_BUSINESS_PHONE


async def test_its_client_does_not_take_the_developers_own_account(
    sandbox: Sandbox, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NXOTP_ACCESS_KEY", "a-real-key")
    monkeypatch.setenv("NXOTP_BASE_URL", "https://example.invalid")
    monkeypatch.setenv("NXOTP_BUSINESS_PHONE", "99955500099")
    async with sandbox.client(clock=clock) as client:
        assert (await client.send_otp(NUMBER, CODE)).status is SendStatus.ACCEPTED
