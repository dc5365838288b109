"""The SMS service: requests as its page describes them, and what is known of a message after each answer."""

import hashlib
import json
from typing import Any

import aiohttp
import pytest
from support import ScriptedTransport

from nxotp_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    NotSentError,
    NxOtpError,
    OtpClient,
    OtpMessage,
    OutcomeUnknownError,
    RetryPolicy,
    SendStatus,
    TransientApiError,
)
from nxotp_async.sandbox import Fault, Sandbox, sandbox_client
from nxotp_async.sms import SMS_PATH, SmsFallback, decode_sms, sms_headers
from nxotp_async.testing import FakeClock, MemoryTransport

MESSAGE = OtpMessage("+999 555 0100", "482913", cus_message_id="0123456789abcdef")
OK = b'{"result":"Request succeeded","code":"0","messageid":"abc123"}'


@pytest.fixture
def sms(client: OtpClient) -> SmsFallback:
    return SmsFallback(client, text="{code} is your code.", source_address="EXAMPLE")


async def test_a_message_is_sent_as_the_vendor_describes_it(sandbox: Sandbox, sms: SmsFallback) -> None:
    result = await sms(MESSAGE)
    assert (result.status, result.message_id) == (SendStatus.ACCEPTED, "0123456789abcdef")
    (request,) = sandbox.messages
    assert request.fields == {
        "appKey": "sandbox-appkey",
        "phone": "9995550100",
        "content": "482913 is your code.",
        "sysMessageId": "0123456789abcdef",
        "sourceAddress": "EXAMPLE",
    }
    names = ("accessKey", "action", "bizType", "ts")
    signed = "&".join(f"{name}={request.headers[name]}" for name in names).encode()
    assert signed.startswith(b"accessKey=sandbox-access-key&action=mtsend&bizType=3&ts=")
    signed += b"&body=" + request.body + b"&accessSecret=sandbox-access-secret"
    assert request.headers["sign"] == hashlib.md5(signed).hexdigest()


async def test_it_is_recorded_beside_messages_of_whatsapp(
    sandbox: Sandbox, client: OtpClient, sms: SmsFallback
) -> None:
    await client.send(MESSAGE)
    await sms(MESSAGE)
    first, second = sandbox.messages_to("+999 555 0100")
    assert (first.is_sms, second.is_sms) == (False, True)
    assert first.otp == second.otp == "482913"
    assert first.cus_message_id == second.cus_message_id == "0123456789abcdef"


async def test_an_id_that_the_service_does_not_take_is_left_out(sandbox: Sandbox, sms: SmsFallback) -> None:
    assert (await sms(OtpMessage("+999 555 0100", "482913", cus_message_id="login/1"))).message_id
    assert "sysMessageId" not in sandbox.messages[0].fields


# Whatever became of a message, that is what its sender says: with the fault, whether the sandbox accepted it.
FAULTS: list[tuple[Fault, type[NxOtpError], bool]] = [
    (Fault.answer(3), AccountError, False),
    (Fault.answer(6), ApiError, False),
    (Fault.answer(9), AccountError, False),
    (Fault.answer(27), ApiError, False),
    (Fault.answer(28), TransientApiError, False),
    (Fault.answer(88), ApiError, False),
    (Fault.answer(1003), AuthenticationError, False),
    (Fault.http(403), ApiError, False),
    (Fault.http(500), OutcomeUnknownError, False),
    (Fault.http(502), OutcomeUnknownError, True),
    (Fault.disconnect_before_reading(), OutcomeUnknownError, False),
    (Fault.disconnect_after_reading(), OutcomeUnknownError, True),
    (Fault.truncated(), OutcomeUnknownError, True),
    (Fault.wrong_types(), OutcomeUnknownError, True),
    (Fault.without_id(), OutcomeUnknownError, True),
    (Fault.huge(), OutcomeUnknownError, True),
]


@pytest.mark.parametrize(("fault", "error", "went_out"), FAULTS, ids=lambda value: str(getattr(value, "kind", "")))
async def test_what_may_have_been_accepted_is_never_sent_again(
    sandbox: Sandbox, sms: SmsFallback, fault: Fault, error: type[NxOtpError], went_out: bool
) -> None:
    attempts = 3 if error is TransientApiError else 1
    sandbox.script(*[fault] * attempts)
    with pytest.raises(error) as caught:
        await sms(MESSAGE)
    assert caught.value.attempts == len(sandbox.requests) == attempts
    assert len(sandbox.messages) == went_out
    assert caught.value.result is not None
    assert "482913" not in f"{caught.value!r} {caught.value} {vars(caught.value)!r}"
    assert "9995550100" not in f"{caught.value!r} {caught.value} {vars(caught.value)!r}"


async def test_what_was_refused_for_a_moment_is_sent_again(sandbox: Sandbox, sms: SmsFallback) -> None:
    sandbox.script(Fault.answer(28))
    assert (await sms(MESSAGE)).attempts == 2
    assert len(sandbox.messages) == 1


async def test_a_wrong_clock_is_corrected(clock: FakeClock) -> None:
    async with Sandbox(clock=clock, clock_offset=300) as sandbox, sandbox.client(clock=clock) as client:
        assert (await SmsFallback(client)(MESSAGE)).attempts == 2


async def test_what_never_left_is_not_sent(clock: FakeClock) -> None:
    async with sandbox_client("http://127.0.0.1:9", clock=clock, retry=RetryPolicy(max_attempts=1)) as client:
        with pytest.raises(NotSentError):
            await SmsFallback(client)(MESSAGE)


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, OK, "abc123"),
        (200, OK.replace(b'"0"', b"0"), "abc123"),
        (500, OK, OutcomeUnknownError),
        (200, OK.replace(b'"0"', b'"6"'), OutcomeUnknownError),  # a code and an id contradict one another
        (200, OK.replace(b'"0"', b'"0","code":"6"'), OutcomeUnknownError),
        (200, OK.replace(b'"0"', b"true"), OutcomeUnknownError),
        (200, OK.replace(b'"0"', b'"\xd9\xa0"'), OutcomeUnknownError),
        (200, OK.replace(b'"abc123"', b"7"), OutcomeUnknownError),
        (200, b'{"result":"no","code":"482913"}', OutcomeUnknownError),  # that would be the message's own code
        (502, b'{"result":"no","code":"502"}', OutcomeUnknownError),
        (502, b'{"result":"no","code":"6"}', ApiError),
        (200, b'{"result":"no","code":"104"}', ApiError),
        (200, b"[]", OutcomeUnknownError),
        (200, b"", OutcomeUnknownError),
        (429, b"", TransientApiError),
    ],
)
def test_an_answer_says_no_more_than_is_beyond_doubt(status: int, body: bytes, outcome: Any) -> None:
    found = decode_sms(status, {}, body, hide=("482913", "9995550100"))
    assert found == outcome if isinstance(outcome, str) else type(found) is outcome


async def test_permits_and_hooks_are_its_own(clock: FakeClock) -> None:
    results: list[Any] = []
    transport = ScriptedTransport((200, {}, OK))
    client = sandbox_client("https://otp.example", transport=transport, on_result=results.append, max_concurrency=1)
    await client.state.of_running_loop().permits.acquire()
    assert (await SmsFallback(client, appkey="of the SMS application")(MESSAGE)).status is SendStatus.ACCEPTED
    assert not results
    assert json.loads(transport.posts[0][0])["appKey"] == "of the SMS application"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("text", value) for value in ("", "Your code", "{code} {code}", 5, "x" * 1000 + "{code}")),
        ("client", object()),
        ("appkey", "a\nb"),
        ("appkey", 5),
        ("source_address", "\u4e2d"),
        ("rate_limit", 0),
        ("rate_limit", "5"),
    ],
)
def test_a_wrong_option_is_named(client: OtpClient, name: str, value: Any) -> None:
    options: dict[str, Any] = {"client": client, name: value}
    with pytest.raises(ConfigurationError, match=f"^{name} must"):
        SmsFallback(options.pop("client"), **options)


async def test_it_shows_no_key(client: OtpClient) -> None:
    assert (
        repr(SmsFallback(client, appkey="s3cr3t")) == f"SmsFallback(<OtpClient {client.settings.base_url}{SMS_PATH}>)"
    )


# ---------------------------------------------------------------------------------------------- the sandbox


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"appKey": "another"}, "1002"),
        ({"appKey": None}, "1002"),
        ({"phone": "0123"}, "6"),
        ({"content": ""}, "1002"),
        ({"content": "x" * 1001}, "1002"),
        ({"sysMessageId": "short"}, "1002"),
        ({"drUrl": 5}, "1002"),
    ],
)
async def test_the_sandbox_refuses_what_is_wrong(
    sandbox: Sandbox, client: OtpClient, changes: dict[str, Any], code: str
) -> None:
    fields = {"appKey": "sandbox-appkey", "phone": "9995550100", "content": "482913", **changes}
    body = json.dumps({name: value for name, value in fields.items() if value is not None}).encode()
    ts = int(client.settings.clock.time() * 1000)
    headers = sms_headers(body, ts=ts, credentials=sandbox.credentials)
    async with aiohttp.ClientSession() as session:
        async with session.post(sandbox.url + SMS_PATH, data=body, headers=headers) as answer:
            assert (await answer.json())["code"] == code
        # The path names the service, not the header.
        async with session.post(client.url, data=body, headers=headers) as answer:
            assert (await answer.json())["code"] == 1002
    assert not sandbox.messages


async def test_the_sandbox_speaks_it_in_memory_too() -> None:
    sandbox = Sandbox()
    await SmsFallback(MemoryTransport(sandbox).client())(MESSAGE)
    assert sandbox.messages[-1].is_sms
