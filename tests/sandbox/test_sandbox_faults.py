"""The sandbox goes wrong in exactly the ways it is told to."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import aiohttp
import pytest
from requests_by_hand import (
    CODE,
    FAILED,
    PATH,
    Api,
    body_with,
)
from support import VENDOR_FAILURES

from nxotp_async import (
    ApiError,
    MetaError,
    NxOtpError,
    OtpMessage,
    OutcomeUnknownError,
    ResponseCode,
    RetryPolicy,
    SendResult,
    SendStatus,
    TransientApiError,
)
from nxotp_async.sandbox import (
    MAGIC_RECIPIENTS,
    Fault,
    FaultKind,
    Sandbox,
)
from nxotp_async.testing import FakeClock

# ---------------------------------------------------------------------------------------------- faults, in general


async def test_a_script_is_met_in_its_order_and_then_all_is_well(api: Api, sandbox: Sandbox) -> None:
    sandbox.script(Fault.answer(9001), Fault.meta(4))
    sandbox.script(Fault.answer(-1))
    assert [(await api.post_good()).code for _ in range(5)] == [9001, 9099, -1, 0, 0]
    assert [request.fault for request in sandbox.requests] == ["code", "meta", "code", "none", "none"]


async def drawn(api_of: Callable[[Sandbox], Api], clock: FakeClock, count: int, **options: Any) -> list[int]:
    async with Sandbox(clock=clock, **options) as sandbox:
        return [(await api_of(sandbox).post_good()).code for _ in range(count)]


async def test_a_seed_makes_the_random_faults_repeatable(clock: FakeClock, api_of: Callable[[Sandbox], Api]) -> None:
    codes = await drawn(api_of, clock, 60, fault_rate=0.5, seed=7)
    assert set(codes) == {0, -1, 9001}
    assert await drawn(api_of, clock, 60, fault_rate=0.5, seed=7) == codes
    assert await drawn(api_of, clock, 60, fault_rate=0.5, seed=8) != codes


@pytest.mark.parametrize(("rate", "expected"), [(0.0, {0}), (1.0, {9005})])
async def test_a_rate_of_none_and_of_all_are_just_that(
    clock: FakeClock, api_of: Callable[[Sandbox], Api], rate: float, expected: set[int]
) -> None:
    assert set(await drawn(api_of, clock, 20, fault_rate=rate, faults=[Fault.answer(9005)])) == expected


async def test_a_script_comes_before_the_random_faults(clock: FakeClock, api_of: Callable[[Sandbox], Api]) -> None:
    async with Sandbox(clock=clock, fault_rate=1.0, faults=[Fault.answer(9005)]) as sandbox:
        sandbox.script(Fault.answer(-1))
        assert [(await api_of(sandbox).post_good()).code for _ in range(3)] == [-1, 9005, 9005]


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="fault_rate must be 0 at least, and 1 at most"):
        Sandbox(fault_rate=rate)


def test_a_rate_without_faults_is_refused() -> None:
    with pytest.raises(ValueError, match="fault_rate needs faults"):
        Sandbox(fault_rate=0.1, faults=[])


@pytest.mark.parametrize(
    "fault", [Fault.answer(9001), Fault.meta(4), Fault.truncated(), Fault.without_id(), Fault.huge()], ids=str
)
async def test_a_wrong_request_is_told_so_even_where_a_fault_was_due(api: Api, sandbox: Sandbox, fault: Fault) -> None:
    sandbox.script(fault)
    assert (await api.post(body_with(), {"accessKey": "somebody-elses"})).code == 1005
    assert not sandbox.messages


async def test_a_script_comes_before_a_magic_number(api: Api, sandbox: Sandbox) -> None:
    sandbox.script(Fault.answer(9001))
    assert [(await api.post_good(to="999000009005")).code for _ in range(2)] == [9001, 9005]


# ---------------------------------------------------------------------------------------------- each fault on the wire


@pytest.mark.parametrize("code", [-1, 1003, 9001, 9005, 9015, 10005])
async def test_a_code_is_answered_as_the_vendor_does(api: Api, sandbox: Sandbox, code: int) -> None:
    sandbox.script(Fault.answer(code))
    answer = await api.post_good()
    assert (answer.status, answer.code, answer.json["data"]) == (200, code, None)
    assert answer.json.keys() == FAILED.keys()
    assert not sandbox.messages


async def test_the_code_minus_one_is_answered_to_the_letter(api: Api, sandbox: Sandbox) -> None:
    sandbox.script(Fault.answer(-1))
    assert (await api.post_good()).json == FAILED


@pytest.mark.parametrize("code", [1000, 7777], ids=["of a family the vendor lists", "of no list"])
async def test_a_code_without_a_name_is_answered_as_given(api: Api, sandbox: Sandbox, code: int) -> None:
    sandbox.script(Fault.answer(code))
    assert (await api.post_good()).code == code


@pytest.mark.parametrize("code", [4, 131056, 999_999], ids=["known", "known", "unknown"])
async def test_a_code_of_metas_stands_inside_a_whatsapp_error(api: Api, sandbox: Sandbox, code: int) -> None:
    sandbox.script(Fault.meta(code))
    answer = await api.post_good()
    error = answer.json["data"]["error"]
    assert (answer.status, answer.code, answer.json["message"]) == (200, 9099, "WhatsApp error")
    assert error.keys() == {"code", "message", "type", "fbtrace_id", "error_data"}
    assert error["code"] == code
    assert error["message"].startswith(f"(#{code}) ")
    assert not sandbox.messages


@pytest.mark.parametrize(("status", "went_out"), [(403, False), (500, False), (502, True), (503, False), (504, True)])
async def test_an_http_status_comes_with_a_gateways_page(
    api: Api, sandbox: Sandbox, status: int, went_out: bool
) -> None:
    sandbox.script(Fault.http(status))
    answer = await api.post_good()
    assert answer.status == status
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.body.startswith(b"<html>")
    assert "Retry-After" not in answer.headers
    assert "Location" not in answer.headers
    assert bool(sandbox.messages) is went_out  # a gateway may time out on a message that the API behind it accepted


async def test_an_http_status_can_ask_for_a_pause(api: Api, sandbox: Sandbox) -> None:
    sandbox.script(Fault.http(429, retry_after=7))
    answer = await api.post_good()
    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")


async def test_a_redirect_names_its_target(api: Api, sandbox: Sandbox) -> None:
    sandbox.script(Fault.http(307))
    answer = await api.post_good()
    assert (answer.status, answer.headers["Location"]) == (307, PATH)
    assert not sandbox.messages


async def test_a_disconnect_before_reading_needs_the_headers_only(api: Api, sandbox: Sandbox) -> None:
    sandbox.script(Fault.disconnect_before_reading())
    async with await api.connect() as wire:
        wire.write(api.head(body_with()))
        with pytest.raises(ConnectionResetError):
            await wire.read_to_the_end()
    (request,) = sandbox.requests
    assert (request.body, request.fields) == (b"", {})
    assert request.fault is FaultKind.DISCONNECT_BEFORE_READING
    assert not sandbox.messages


async def test_a_disconnect_after_reading_comes_when_the_message_is_accepted(api: Api, sandbox: Sandbox) -> None:
    sandbox.script(Fault.disconnect_after_reading())
    body = body_with()
    async with await api.connect() as wire:
        wire.write(api.head(body, Expect="100-continue"))
        await wire.read_until(b"100 Continue\r\n\r\n")
        assert not sandbox.requests
        wire.write(body)
        with pytest.raises(ConnectionResetError):
            await wire.read_to_the_end()
    assert [message.body for message in sandbox.messages] == [body]


@pytest.mark.parametrize(
    "fault", [Fault.disconnect_before_reading(), Fault.disconnect_after_reading()], ids=lambda fault: str(fault.kind)
)
async def test_a_disconnect_answers_nothing_at_all(api: Api, sandbox: Sandbox, fault: Fault) -> None:
    sandbox.script(fault)
    with pytest.raises(aiohttp.ClientConnectionError):
        await api.post_good()
    assert (await api.post_good()).code == 0
    assert [request.fault for request in sandbox.requests] == [fault.kind, FaultKind.NONE]


async def test_a_truncated_answer_is_half_of_a_good_one(api: Api, sandbox: Sandbox) -> None:
    whole = (await api.post_good()).body
    sandbox.script(Fault.truncated())
    answer = await api.post_good()
    assert answer.status == 200
    assert answer.body == whole[: len(whole) // 2]
    with pytest.raises(json.JSONDecodeError):
        _ = answer.json
    assert len(sandbox.messages) == 2


async def test_an_answer_of_wrong_types_is_json_all_the_same(api: Api, sandbox: Sandbox) -> None:
    sandbox.script(Fault.wrong_types())
    answer = (await api.post_good()).json
    assert answer["code"] == "0"
    assert type(answer["data"]["messages"]["id"]) is int
    assert len(sandbox.messages) == 1


async def test_an_answer_without_an_id_is_a_success_otherwise(api: Api, sandbox: Sandbox) -> None:
    sandbox.script(Fault.without_id())
    data = {"messaging_product": "whatsapp", "messages": []}
    assert (await api.post_good()).json == {"code": 0, "data": data, "message": "Request successful"}
    assert len(sandbox.messages) == 1


async def test_a_drip_begins_an_answer_and_never_ends_it(api: Api, sandbox: Sandbox) -> None:
    sandbox.script(Fault.drip())
    async with await api.connect() as wire:
        wire.write(api.head(body_with()) + body_with())
        head = await wire.read_until(b"\r\n\r\n")
        chunks = [await wire.read_until(b" \r\n") for _ in range(2)]
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"application/json" in head
    assert chunks == [b"1\r\n \r\n"] * 2
    assert len(sandbox.messages) == 1


@pytest.mark.parametrize("fault", [Fault.huge(), Fault.huge(3000)], ids=["a mebibyte", "as told"])
async def test_a_huge_answer_is_a_long_success(api: Api, sandbox: Sandbox, fault: Fault) -> None:
    sandbox.script(fault)
    answer = await api.post_good()
    assert answer.code == 0
    assert fault.size <= len(answer.body) <= fault.size + 200
    assert len(sandbox.messages) == 1


async def test_a_hanging_request_gets_no_answer_while_others_do(
    clock: FakeClock, api_of: Callable[[Sandbox], Api]
) -> None:
    async with Sandbox(clock=clock) as sandbox:
        api = api_of(sandbox)
        sandbox.script(Fault.hang())
        body = body_with(cus_message_id="lost")
        wire = await api.connect()
        wire.write(api.head(body, Expect="100-continue"))
        await wire.read_until(b"100 Continue\r\n\r\n")
        wire.write(body)
        assert (await api.post_good()).code == 0
    async with wire:
        assert await wire.read_to_the_end() == b""
    assert [message.cus_message_id for message in sandbox.messages] == ["lost", "order-1"]


@pytest.mark.parametrize(
    ("latency", "fault"), [(0.03, Fault()), (0.0, Fault.slow(0.03)), (0.01, Fault.slow(0.02))], ids=str
)
async def test_an_answer_takes_as_long_as_it_shall(
    clock: FakeClock, api_of: Callable[[Sandbox], Api], latency: float, fault: Fault
) -> None:
    async with Sandbox(clock=clock, latency=latency) as sandbox:
        sandbox.script(fault)
        started = asyncio.get_running_loop().time()
        assert (await api_of(sandbox).post_good()).code == 0
        assert asyncio.get_running_loop().time() - started >= 0.03


# ---------------------------------------------------------------------------------------------- magic numbers


class Expected(NamedTuple):
    status: SendStatus
    error: type[NxOtpError]
    went_out: bool


def refused(error: type[NxOtpError]) -> Expected:
    return Expected(SendStatus.REJECTED, error, went_out=False)


def lost(*, went_out: bool) -> Expected:
    return Expected(SendStatus.UNKNOWN, OutcomeUnknownError, went_out)


# 9099 needs Meta's code inside, and is tested with those.
VENDOR_CODES = {code: error for code, error in VENDOR_FAILURES.items() if code != 9099}
META_CODES = (4, 100, 80007, 130429, 131016, 131021, 131026, 131030, 131056, 131057, 133004)
OUTCOMES: dict[str, Expected] = {
    **{f"9990{abs(code):08}": refused(error) for code, error in VENDOR_CODES.items()},
    **{f"9991{code:08}": refused(MetaError) for code in META_CODES},
    "999200000307": refused(ApiError),
    "999200000403": refused(ApiError),
    "999200000404": refused(ApiError),
    "999200000429": refused(TransientApiError),
    "999200000500": lost(went_out=False),
    "999200000502": lost(went_out=True),
    "999200000503": lost(went_out=False),
    "999200000504": lost(went_out=True),
    "999300000001": lost(went_out=False),
    **{f"99930000000{digit}": lost(went_out=True) for digit in range(2, 10)},
}
WITHOUT_END = ("999300000006", "999300000008", "999300000009")


async def send_to(number: str, sandbox: Sandbox, clock: FakeClock) -> SendResult:
    timeout = 1.0 if number in WITHOUT_END else 10.0
    client = sandbox.client(clock=clock, timeout=timeout, retry=RetryPolicy(max_attempts=1))
    async with client:
        (result,) = await client.send_batch([OtpMessage(number, CODE)])
    return result


def test_the_outcome_of_every_magic_number_is_known_here() -> None:
    assert OUTCOMES.keys() == MAGIC_RECIPIENTS.keys()


def test_every_kind_of_fault_has_a_magic_number() -> None:
    assert {fault.kind for fault in MAGIC_RECIPIENTS.values()} == set(FaultKind)


def test_every_code_of_the_vendors_has_a_magic_number() -> None:
    assert set(VENDOR_CODES) | {0, 9099} == set(ResponseCode)


@pytest.mark.parametrize("number", OUTCOMES)
async def test_a_magic_number_has_its_outcome(number: str, sandbox: Sandbox, clock: FakeClock) -> None:
    expected = OUTCOMES[number]
    result = await send_to(number, sandbox, clock)
    assert (result.status, type(result.error)) == (expected.status, expected.error)
    assert (result.message_id, result.attempts) == (None, 1)
    (request,) = sandbox.requests
    assert (request.message_id is not None) is expected.went_out


@pytest.mark.parametrize("code", VENDOR_CODES)
async def test_a_magic_code_arrives_with_its_meaning_and_advice(code: int, sandbox: Sandbox, clock: FakeClock) -> None:
    error = (await send_to(f"9990{abs(code):08}", sandbox, clock)).error
    assert isinstance(error, ApiError)
    known = ResponseCode.find(code)
    assert known is not None
    assert error.code == code
    assert known.meaning in str(error)
    assert known.advice in str(error)


@pytest.mark.parametrize("code", META_CODES)
async def test_a_magic_code_of_metas_arrives_whole(code: int, sandbox: Sandbox, clock: FakeClock) -> None:
    error = (await send_to(f"9991{code:08}", sandbox, clock)).error
    assert isinstance(error, MetaError)
    assert (error.code, error.meta_code, error.meta_type) == (9099, code, "OAuthException")
    assert error.fbtrace_id
    assert error.details
    assert ResponseCode.WHATSAPP_ERROR.advice in str(error)
