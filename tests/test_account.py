"""`OtpClient.account`, against the sandbox, and against answers that differ from the vendor's pages."""

import json
import math
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from support import ScriptedTransport, raw_server, sending

from nxotp_async import (
    AccountError,
    ApiError,
    ApiType,
    InvalidSignatureError,
    Language,
    NotSentError,
    OtpClient,
    TransientApiError,
    TransportError,
)
from nxotp_async.account import Balance, Quality, SendingNumber, Template
from nxotp_async.sandbox import SANDBOX_BUSINESS_PHONE, Sandbox, SandboxAccount, sandbox_client
from nxotp_async.testing import FakeClock, MemoryTransport
from nxotp_async.transports import Answer

NUMBER = "99955500001"
ENTRY = {
    "display_phone_number": "+999 555 00001",
    "quality_rating": "YELLOW",
    "verified_name": "Shop",
    "name_status": "APPROVED",
    "status": "CONNECTED",
    "current_limit": "TIER_10K",
    "code_verification_status": "VERIFIED",
}


def client_of(data: object, code: object = 0, *, key: str = "message", **options: Any) -> OtpClient:
    """Return a client of a vendor that answers this."""
    body = json.dumps({"code": code, key: "as it says", "data": data, "traceId": "x"}).encode()
    return sandbox_client("https://otp.example", transport=ScriptedTransport(Answer(200, {}, body)), **options)


# ---------------------------------------------------------------------------------------------- the sandbox


async def test_the_sandbox_tells_its_balance(sandbox: Sandbox, client: OtpClient) -> None:
    sandbox.account.balance, sandbox.account.credit = Decimal("111694.16"), Decimal(500)
    balance = await client.account.balance()
    assert balance == Balance("CNY", Decimal("111694.16"), Decimal("500.00"))
    assert balance.available == Decimal("112194.16")
    assert balance.raw["amount_cus"] == "111694.16"


async def test_the_sandbox_tells_its_numbers(clock: FakeClock) -> None:
    account = SandboxAccount(quality={NUMBER: "RED"}, current_limit="TIER_2K")
    sandbox = Sandbox(business_phones=[SANDBOX_BUSINESS_PHONE, NUMBER], account=account, clock=clock)
    async with sandbox, sandbox.client(clock=clock) as client:
        first, second = await client.account.numbers()
    assert first == SendingNumber(SANDBOX_BUSINESS_PHONE, Quality.GREEN, "Sandbox", "APPROVED", "CONNECTED", 2000)
    assert (second.number, second.quality) == (NUMBER, Quality.RED)


async def test_the_sandbox_tells_its_templates_page_by_page(sandbox: Sandbox, client: OtpClient) -> None:
    sandbox.account.languages = ["en", "id"]
    templates = await client.account.templates()
    assert [template.language for template in templates] == list(Language)
    assert [template.language for template in templates if template.is_approved] == ["en", "id"]
    assert templates[0] == Template("sandbox-af", "otp", "af", "AUTHENTICATION", "REJECTED", "INVALID_FORMAT")


async def test_without_a_number_the_templates_are_those_of_the_first(sandbox: Sandbox, clock: FakeClock) -> None:
    async with sandbox.client(clock=clock, business_phone=None) as client:
        assert client.settings.business_phone is None
        assert len(await client.account.templates()) == len(Language)


async def test_what_the_sandbox_says_is_what_it_does(sandbox: Sandbox, client: OtpClient) -> None:
    sandbox.account = SandboxAccount(balance=Decimal(1), price=Decimal("0.4"), languages=["en"])
    for _ in range(2):
        await client.send_otp("+999 555 0100", "482913")
    with pytest.raises(ApiError, match="10005"):
        await client.send_otp("+999 555 0100", "482913", language_code="id", api_type=ApiType.CLOUD)
    with pytest.raises(AccountError, match="9005"):
        await client.send_otp("+999 555 0100", "482913")
    assert (await client.account.balance()).amount == Decimal("0.20")


async def test_questions_are_no_messages(sandbox: Sandbox, client: OtpClient) -> None:
    await client.account.balance()
    await client.account.templates()
    assert not sandbox.requests
    assert sandbox.counts["requests"] == 0
    assert client.in_flight == 0


async def test_a_wrong_secret_is_told(sandbox: Sandbox, clock: FakeClock) -> None:
    async with sandbox.client(clock=clock, access_secret="wrong-secret-of-a-test") as client:
        with pytest.raises(InvalidSignatureError) as raised:
            await client.account.balance()
    assert raised.value.code == 1003
    assert "wrong-secret" not in f"{raised.value} {vars(raised.value)}"


async def test_a_sandbox_in_memory_answers_too() -> None:
    client = MemoryTransport(Sandbox()).client()
    assert (await client.account.balance()).amount == 1000
    assert len(await client.account.numbers()) == 1


# ---------------------------------------------------------------------------------------------- other answers


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({NUMBER: [ENTRY]}, id="a map to lists, as in the example"),
        pytest.param([ENTRY], id="an array, as in the table"),
        pytest.param({NUMBER: ENTRY}, id="a map"),
    ],
)
async def test_numbers_in_every_notation(data: object) -> None:
    (number,) = await client_of(data).account.numbers()
    assert number == SendingNumber(NUMBER, Quality.YELLOW, "Shop", "APPROVED", "CONNECTED", 10_000)


async def test_fields_that_are_absent_or_of_another_type_are_empty() -> None:
    (number,) = await client_of(
        {NUMBER: [{"quality_rating": "UNKNOW", "verified_name": None, "status": ["?"]}]}
    ).account.numbers()
    assert number == SendingNumber(NUMBER, Quality.UNKNOWN, "", "", "", None)
    (template,) = await client_of({"data": [{"id": 7, "language": "en", "status": "approved"}]}).account.templates()
    assert template == Template("7", "", "en", "", "APPROVED", "")


@pytest.mark.parametrize("data", [None, [], {}, "none", 7, [None], {NUMBER: None}])
async def test_no_numbers_is_an_empty_list(data: object) -> None:
    assert await client_of(data).account.numbers() == []
    assert await client_of(data).account.templates() == []


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("TIER_250", 250),
        ("TIER_1K", 1000),
        ("tier_100k", 100_000),
        ("TIER_UNLIMITED", math.inf),
        ("2000", 2000),
        (2000, 2000),
        ("10K", 10_000),
        ("1M", 1_000_000),
        ("a lot", None),
        (None, None),
        ("", None),
    ],
)
async def test_daily_limits(text: object, limit: float | None) -> None:
    (number,) = await client_of([{**ENTRY, "current_limit": text}]).account.numbers()
    assert number.daily_limit == limit


@pytest.mark.parametrize(
    ("fields", "amount", "credit"),
    [
        ({"amount_cus": "1,694.16", "credit_cus": "500.00"}, "1694.16", "500"),
        ({"amount_cus": 12.5}, "12.5", "0"),
        ({"amount_cus": "-3", "credit_cus": None}, "-3", "0"),
    ],
)
async def test_balances_in_other_notations(fields: dict[str, Any], amount: str, credit: str) -> None:
    balance = await client_of(fields).account.balance()
    assert (balance.amount, balance.credit) == (Decimal(amount), Decimal(credit))


@pytest.mark.parametrize("data", [None, {}, [], {"amount_cus": "much"}, {"amount_cus": "NaN"}])
async def test_no_balance_is_an_error(data: object) -> None:
    with pytest.raises(TransportError, match="no balance"):
        await client_of(data).account.balance()


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (1100, AccountError, "code 1100, account unavailable"),
        (1102, AccountError, "code 1102, balance insufficient"),
        ("211", TransientApiError, "code 211, asked too often"),
        (9018, ApiError, "code 9018, as it says"),
        (9003, AccountError, "code 9003, application does not exist or is unavailable"),
    ],
)
@pytest.mark.parametrize("key", ["message", "msg"])
async def test_refusals(code: object, kind: type[ApiError], text: str, key: str) -> None:
    with pytest.raises(kind) as raised:
        await client_of(None, code, key=key).account.balance()
    assert str(raised.value).startswith(text)
    assert raised.value.vendor_message == "as it says"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, {}, b"<html>"),
        Answer(200, {}, b""),
        Answer(200, {}, b"[]"),
        Answer(200, {}, b'{"data": {}}'),
        Answer(200, {}, b'{"code": true, "data": {}}'),
    ],
)
async def test_what_is_no_answer_of_the_vendors_is_an_error(answer: Answer) -> None:
    client = sandbox_client("https://otp.example", transport=ScriptedTransport(answer))
    with pytest.raises(TransportError, match="not one of the vendor's API"):
        await client.account.numbers()


async def test_a_lost_answer_speaks_of_no_message() -> None:
    async with raw_server(sending(b"")) as server, sandbox_client(server.url) as client:
        with pytest.raises(TransportError) as raised:
            await client.account.balance()
        assert "message may have been accepted" not in str(raised.value)
    async with sandbox_client(server.url) as client:
        with pytest.raises(NotSentError):
            await client.account.balance()


async def test_paging_that_never_ends_is_left() -> None:
    pages = 0

    async def page(request: web.Request) -> web.Response:
        nonlocal pages
        pages += 1
        paging = {"cursors": {"after": f"page-{pages}"}, "next": "https://elsewhere.example"}
        return web.json_response({"code": 0, "data": {"data": [{"language": "en"}], "paging": paging}})

    app = web.Application()
    app.router.add_post("/api/wa/getTemplate", page)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with sandbox_client(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
            assert len(await client.account.templates()) == pages == 50
    finally:
        await runner.cleanup()


def test_a_number_is_masked() -> None:
    assert NUMBER not in repr(SendingNumber(NUMBER, Quality.GREEN, "", "", "", None, {"display_phone_number": NUMBER}))
