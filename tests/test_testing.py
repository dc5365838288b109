"""The testing kit: a sandbox in a thread, a transport in memory that is no second vendor, and assertions that tell."""

import asyncio
import gc
import socket
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from fastapi import FastAPI

from nxotp_async import (
    AuthenticationError,
    Clock,
    Credentials,
    InvalidMessageError,
    InvalidSignatureError,
    NotSentError,
    NxOtpError,
    OtpClient,
    OtpMessage,
    OutcomeUnknownError,
    RetryPolicy,
    SendResult,
    SendStatus,
)
from nxotp_async.callbacks import parse_callback
from nxotp_async.receivers import AsgiReceiver, aiohttp_receiver
from nxotp_async.sandbox import (
    MAGIC_RECIPIENTS,
    SANDBOX_BUSINESS_PHONE,
    SANDBOX_CREDENTIALS,
    Fault,
    FaultKind,
    ReceivedRequest,
    Sandbox,
)
from nxotp_async.testing import (
    NO_PAUSES,
    FakeClock,
    MemoryTransport,
    UnpooledTransport,
    assert_nothing_sent,
    assert_otp_sent,
    serve_in_thread,
    signed_callback,
)
from nxotp_async.tracking import DeliveryTracker

WRITTEN = "+999 555 0100"
NUMBER = "9995550100"
OTHER = "9995550199"
CODE = "482913"
CONTENT = f"Your code is {CODE}"


@pytest.fixture
def vendor() -> Sandbox:
    """A sandbox that does not run."""
    return Sandbox()


@pytest.fixture
def transport(vendor: Sandbox) -> MemoryTransport:
    return MemoryTransport(vendor)


@pytest.fixture
def client(transport: MemoryTransport) -> OtpClient:
    return transport.client()


@pytest.fixture(scope="module")
def served() -> Iterator[Sandbox]:
    with serve_in_thread(Sandbox()) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(served: Sandbox) -> Sandbox:
    served.requests.clear()
    return served


async def test_what_is_no_fault_is_refused_at_once() -> None:
    vendor = Sandbox()
    with pytest.raises(TypeError, match=r"expected a Fault, Fault\.answer\(9005\) for example, not int"):
        vendor.script(Fault.answer(-1), 9005)  # type: ignore[arg-type] # what is tested
    assert (await MemoryTransport(vendor).client().send_otp("+999 555 0100", "482913")).attempts == 1


# ---------------------------------------------------------------------------------------------- a fake clock


async def test_a_fake_clock_stands_still_but_for_pauses() -> None:
    clock = FakeClock(now=1_000_000_000)
    sandbox = Sandbox(clock=clock)
    sandbox.script(Fault.answer(-1), Fault.answer(-1))
    client = MemoryTransport(sandbox).client(clock=clock, retry=RetryPolicy(backoff_base=0.5))
    async with asyncio.timeout(10):
        result = await client.send_otp(WRITTEN, CONTENT)
    assert clock.slept == [0.5, 1.0]
    assert result.elapsed == 1.5
    assert [request.arrived_at for request in sandbox.requests] == [1_000_000_000, 1_000_000_000.5, 1_000_000_001.5]


async def test_a_fake_clock_is_advanced() -> None:
    clock = FakeClock()
    client = MemoryTransport(Sandbox(clock=clock)).client(clock=clock)
    message = OtpMessage(WRITTEN, CONTENT, expires_at=datetime.fromtimestamp(clock.time() + 60, UTC))
    await client.send(message)
    clock.advance(60)
    with pytest.raises(NotSentError, match="expires_at"):
        await client.send(message)
    assert clock.slept == []


async def test_a_fake_clocks_chance_shortens_the_pauses() -> None:
    clock = FakeClock()
    clock.chance = 0.25
    sandbox = Sandbox(clock=clock)
    sandbox.script(Fault.answer(-1))
    await MemoryTransport(sandbox).client(clock=clock, retry=RetryPolicy(backoff_base=4.0)).send_otp(WRITTEN, CONTENT)
    assert clock.slept == [1.0]


# ---------------------------------------------------------------------------------------------- a sandbox in a thread


def test_a_sandbox_in_a_thread_serves_a_test_without_an_event_loop(sandbox: Sandbox) -> None:
    client = sandbox.client()
    for _ in range(2):
        asyncio.run(client.send_otp(WRITTEN, CONTENT))
    assert [message.otp for message in sandbox.messages] == [CODE, CODE]


async def test_a_sandbox_in_a_thread_serves_a_test_with_one(sandbox: Sandbox) -> None:
    async with sandbox.client() as client:
        await client.send_otp(WRITTEN, CONTENT)
    assert [message.otp for message in sandbox.messages] == [CODE]


@pytest.mark.parametrize("fails", [False, True])
def test_it_has_gone_when_the_block_is_left(fails: bool) -> None:
    threads = threading.active_count()
    with suppress(ZeroDivisionError), serve_in_thread(Sandbox()) as sandbox:
        client = sandbox.client(clock=NO_PAUSES)
        asyncio.run(client.send_otp(WRITTEN, CONTENT))
        assert 1 / (not fails)
    assert threading.active_count() == threads
    with pytest.raises(NotSentError):
        asyncio.run(client.send_otp(WRITTEN, CONTENT))


def test_it_has_gone_even_where_a_request_hangs() -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        sandbox.script(Fault.hang())
        with pytest.raises(OutcomeUnknownError):
            asyncio.run(sandbox.client(timeout=0.05).send_otp(WRITTEN, CONTENT))
    with pytest.raises(RuntimeError, match="not running"):
        assert sandbox.url


def test_a_port_that_is_taken_is_told_and_leaves_no_thread() -> None:
    threads = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OSError, match=str(port)), serve_in_thread(Sandbox(port=port)):
            pass
    assert threading.active_count() == threads


@pytest.mark.parametrize("failing", ["start", "stop"])
def test_what_another_server_raises_is_raised_and_leaves_no_thread(failing: str) -> None:
    @asynccontextmanager
    async def server() -> AsyncIterator[str]:
        if failing == "start":
            raise ZeroDivisionError
        yield "running"
        raise ZeroDivisionError

    threads = threading.active_count()
    served = []
    with pytest.raises(ZeroDivisionError), serve_in_thread(server()) as running:
        served.append(running)
    assert served == ([] if failing == "start" else ["running"])
    assert threading.active_count() == threads


def test_its_environment_makes_a_client_of_it(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in sandbox.environ.items():
        monkeypatch.setenv(name, value)
    asyncio.run(OtpClient().send_otp(WRITTEN, CONTENT))
    assert sandbox.messages[0].fields["business_phone"] == SANDBOX_BUSINESS_PHONE


async def test_its_environment_names_no_number_where_none_is_bound() -> None:
    async with Sandbox(business_phones=()) as sandbox:
        assert set(sandbox.environ) == {
            "NXOTP_BASE_URL",
            "NXOTP_ACCESS_KEY",
            "NXOTP_ACCESS_SECRET",
            "NXOTP_APPKEY",
        }


async def test_an_unpooled_client_leaves_nothing_open(sandbox: Sandbox) -> None:
    sandbox.script(Fault.disconnect_after_reading())
    client = sandbox.client(transport=UnpooledTransport())
    await client.send_batch([OtpMessage(WRITTEN, CONTENT)] * 2)
    del client
    gc.collect()  # an open session would warn here, and warnings are errors
    assert len(sandbox.messages) == 2


# ---------------------------------------------------------------------------------------------- in memory


def outcome(result: SendResult) -> tuple[Any, ...]:
    return result.status, type(result.error), getattr(result.error, "code", None), result.attempts


def record(request: ReceivedRequest) -> tuple[Any, ...]:
    return request.code, request.fault, request.message_id, dict(request.fields), bool(request.body)


NO_ANSWER = {FaultKind.HANG, FaultKind.DRIP}


@pytest.mark.parametrize("number", [NUMBER, *MAGIC_RECIPIENTS])
async def test_every_number_has_the_same_outcome_in_memory_as_over_http(
    number: str, sandbox: Sandbox, vendor: Sandbox, transport: MemoryTransport
) -> None:
    fault = MAGIC_RECIPIENTS.get(number, Fault())
    timeout = 0.05 if fault.kind in NO_ANSWER or fault.latency else 10.0
    message = OtpMessage(number, CONTENT, cus_message_id="order-1")
    results = []
    for served in (sandbox, transport):
        async with served.client(timeout=timeout, clock=NO_PAUSES) as client:
            results += [result async for result in client.send_many([message])]
    over_http, in_memory = results
    assert outcome(in_memory) == outcome(over_http)
    assert [record(request) for request in vendor.requests] == [record(request) for request in sandbox.requests]
    if over_http.status is SendStatus.REJECTED:
        assert str(in_memory.error) == str(over_http.error)


@pytest.mark.parametrize("fault", [Fault.disconnect_before_reading(), Fault.truncated(), Fault.http(503)])
async def test_a_scripted_fault_has_the_same_outcome_in_memory_as_over_http(
    fault: Fault, sandbox: Sandbox, vendor: Sandbox, transport: MemoryTransport
) -> None:
    message = OtpMessage(NUMBER, CONTENT, cus_message_id="order-1")
    results = []
    for received, client in ((sandbox, sandbox.client(clock=NO_PAUSES)), (vendor, transport.client())):
        received.script(fault)
        async with client:
            results += [result async for result in client.send_many([message, message])]
    assert [outcome(result) for result in results[2:]] == [outcome(result) for result in results[:2]]
    assert [record(request) for request in vendor.requests] == [record(request) for request in sandbox.requests]


async def test_a_request_looks_the_same_in_memory_as_over_http() -> None:
    clock = Clock(time=lambda: 1_800_000_000.0)
    in_memory = Sandbox(clock=clock)
    async with Sandbox(clock=clock) as over_http:
        for sandbox, sender in ((over_http, over_http), (in_memory, MemoryTransport(in_memory))):
            async with sender.client(clock=clock) as client:
                await client.send_otp(WRITTEN, CONTENT, cus_message_id="order-1")
            (message,) = sandbox.messages
            assert (message.to, message.otp, message.content) == (NUMBER, CODE, CONTENT)
            assert (message.arrived_at, message.ts) == (1_800_000_000, 1_800_000_000_000)
            assert message.headers["bizType"] == message.headers["biztype"] == "2"
            assert str(message) == "order-1 to 99******00: 0 none"
            assert sandbox.counts == {"requests": 1, "messages": 1, "code 0": 1, "fault none": 1}


@pytest.mark.parametrize(
    ("option", "failure"), [("access_key", AuthenticationError), ("access_secret", InvalidSignatureError)]
)
async def test_the_keys_are_checked(
    vendor: Sandbox, transport: MemoryTransport, option: str, failure: type[NxOtpError]
) -> None:
    with pytest.raises(failure):
        await transport.client(**{option: "another"}).send_otp(WRITTEN, CONTENT)
    assert vendor.messages == []


async def test_a_client_of_the_application_s_own_account_can_be_tested() -> None:
    keys = Credentials("own-key", "own-secret", "own-app")
    vendor = Sandbox(credentials=keys, business_phones=())
    async with OtpClient(
        access_key="own-key", access_secret="own-secret", appkey="own-app", transport=MemoryTransport(vendor)
    ) as client:
        await client.send_otp(WRITTEN, CONTENT)
    assert vendor.messages[0].fields["appkey"] == "own-app"


async def test_a_clock_that_is_off_is_corrected(vendor: Sandbox, transport: MemoryTransport) -> None:
    behind = Clock(time=lambda: NO_PAUSES.time() - 600, sleep=NO_PAUSES.sleep)
    result = await transport.client(clock=behind).send_otp(WRITTEN, CONTENT)
    assert result.attempts == 2
    assert [request.code for request in vendor.requests] == [1004, 0]


async def test_a_temporary_refusal_is_retried_without_a_pause(vendor: Sandbox, transport: MemoryTransport) -> None:
    vendor.script(Fault.answer(-1), Fault.http(429, retry_after=20))
    async with asyncio.timeout(10):
        result = await transport.client().send_otp(WRITTEN, CONTENT)
    assert result.attempts == 3
    assert len(vendor.messages) == 1


async def test_a_message_whose_answer_is_lost_went_out_all_the_same(vendor: Sandbox, client: OtpClient) -> None:
    vendor.script(Fault.disconnect_after_reading())
    with pytest.raises(OutcomeUnknownError):
        await client.send_otp(WRITTEN, CONTENT)
    assert assert_otp_sent(vendor, WRITTEN).otp == CODE


async def test_while_it_is_not_reachable_nothing_arrives(
    vendor: Sandbox, transport: MemoryTransport, client: OtpClient
) -> None:
    transport.reachable = False
    with pytest.raises(NotSentError) as caught:
        await client.send_otp(WRITTEN, CONTENT)
    assert caught.value.attempts > 3
    assert not vendor.requests
    transport.reachable = True
    await client.send_otp(WRITTEN, CONTENT)
    assert len(vendor.messages) == 1


@pytest.mark.parametrize("slow", [Fault.slow(4.9), Fault.slow(5.0), Fault.hang()])
async def test_no_time_passes_however_slow_the_answer(vendor: Sandbox, transport: MemoryTransport, slow: Fault) -> None:
    vendor.script(slow)
    client = transport.client(timeout=5.0)
    async with asyncio.timeout(3):
        (result,) = [result async for result in client.send_many([OtpMessage(WRITTEN, CONTENT)])]
    in_time = slow == Fault.slow(4.9)
    assert result.status is (SendStatus.ACCEPTED if in_time else SendStatus.UNKNOWN)
    assert in_time or "within 5 s" in str(result.error)


async def test_the_latency_of_all_answers_counts_too() -> None:
    vendor = Sandbox(latency=3.0)
    vendor.script(Fault.slow(2.0))
    client = MemoryTransport(vendor).client(timeout=5.0)
    with pytest.raises(OutcomeUnknownError):
        await client.send_otp(WRITTEN, CONTENT)
    await client.send_otp(WRITTEN, CONTENT)


async def test_others_run_while_it_sends(client: OtpClient) -> None:
    ran: list[bool] = []
    asyncio.get_running_loop().call_soon(ran.append, True)
    await client.send_otp(WRITTEN, CONTENT)
    assert ran


async def test_it_takes_many_at_once(transport: MemoryTransport) -> None:
    collector = await transport.client(max_concurrency=10).send_batch(
        OtpMessage(f"99955500{index:02}", CONTENT) for index in range(30)
    )
    assert collector.summary().accepted == 30


def test_it_serves_one_loop_after_the_other(vendor: Sandbox, client: OtpClient) -> None:
    for _ in range(2):
        asyncio.run(client.send_otp(WRITTEN, CONTENT))
    asyncio.run(client.aclose())
    assert len(vendor.messages) == 2


# ---------------------------------------------------------------------------------------------- callbacks

Answers = Callable[[dict[str, str], bytes], int]


@contextmanager
def fastapi_application(tracker: DeliveryTracker) -> Iterator[Answers]:
    if find_spec("httpx2") is None:
        pytest.skip("FastAPI's TestClient needs httpx2")
    from fastapi.testclient import TestClient as Browser

    app = FastAPI()
    app.mount("/nxcloud", AsgiReceiver(tracker, SANDBOX_CREDENTIALS))
    with Browser(app) as browser:
        yield lambda headers, body: int(browser.post("/nxcloud/", content=body, headers=headers).status_code)


@contextmanager
def aiohttp_application(tracker: DeliveryTracker) -> Iterator[Answers]:
    def post(headers: dict[str, str], body: bytes) -> int:
        async def ask() -> int:
            app = web.Application()
            app.add_subapp("/nxcloud", aiohttp_receiver(tracker, SANDBOX_CREDENTIALS))
            async with TestClient(TestServer(app)) as browser:
                return (await browser.post("/nxcloud/", data=body, headers=headers)).status

        return asyncio.run(ask())

    yield post


@pytest.mark.parametrize("application", [fastapi_application, aiohttp_application])
def test_a_signed_callback_is_accepted_by_the_receivers_of_every_framework(
    application: Callable[[DeliveryTracker], AbstractContextManager[Answers]],
) -> None:
    tracker = DeliveryTracker()
    why = {"code": 131026, "title": "Message undeliverable"}
    with application(tracker) as answer:
        assert answer(*signed_callback("one", "sent", to=NUMBER)) == 200
        assert answer(*signed_callback("two", "failed", errors=[why])) == 200
        headers, body = signed_callback("three")
        assert answer(headers, body + b" ") == 401
        assert answer(*signed_callback("three", credentials=Credentials("another", "secret"))) == 401
        assert answer(*signed_callback("three", now=time.time() - 301)) == 401
    one, two, three = (asyncio.run(tracker.state(message_id)) for message_id in ("one", "two", "three"))
    assert one is not None
    assert two is not None
    assert (one.status, two.status, three) == ("sent", "failed", None)


def test_a_signed_callback_has_the_fields_of_the_vendors() -> None:
    headers, body = signed_callback("some-id", "failed", to=NUMBER, errors=[{"code": 131026}], now=1_800_000_000.5)
    (event,) = parse_callback(body)
    assert (event.message_id, event.status, event.recipient) == ("some-id", "failed", NUMBER)
    assert (event.timestamp, event.errors) == (datetime.fromtimestamp(1_800_000_000, UTC), ({"code": 131026},))
    assert headers["ts"] == "1800000000500"
    assert signed_callback("some-id").headers.keys() == headers.keys()


# ---------------------------------------------------------------------------------------------- assertions


def failure_of(call: Callable[[], object]) -> str:
    with pytest.raises(AssertionError) as caught:
        call()
    for frame, _ in traceback.walk_tb(caught.tb):
        if frame.f_code.co_filename.endswith("nxotp_async/testing.py"):
            shown = repr(frame.f_locals)
            assert CODE not in shown
            assert NUMBER not in shown
            assert WRITTEN not in shown
    text = str(caught.value)
    assert CODE not in text
    assert NUMBER not in text
    return text


async def test_a_sent_otp_is_found_by_its_number_as_people_write_it(vendor: Sandbox, client: OtpClient) -> None:
    await client.send_otp(OTHER, "Your code is 111111")
    await client.send_otp(WRITTEN, CONTENT)
    for written in (WRITTEN, NUMBER, "+999-(555)-0100"):
        assert assert_otp_sent(vendor, to=written).otp == CODE
    assert assert_otp_sent(vendor, NUMBER, code=CODE) is vendor.messages[1]


async def test_it_is_found_in_a_sandbox_too(sandbox: Sandbox) -> None:
    async with sandbox.client() as client:
        await client.send_otp(WRITTEN, CONTENT)
    assert assert_otp_sent(sandbox, WRITTEN, code=CODE) is sandbox.messages[0]


def test_nothing_at_all_is_told(vendor: Sandbox) -> None:
    assert failure_of(lambda: assert_otp_sent(vendor, WRITTEN, code=CODE)) == (
        "no OTP was sent to 99******00; no request was received"
    )


async def test_what_arrived_instead_is_told(vendor: Sandbox, client: OtpClient) -> None:
    await client.send_otp(OTHER, CONTENT)
    await client.send_otp("+999 555 9900", CONTENT)  # looks like the other when both are masked
    faults = [Fault.answer(9003), Fault.answer(4711), Fault.http(503), Fault.disconnect_before_reading()]
    for fault in faults:
        vendor.script(fault)
        with pytest.raises(NxOtpError):
            await client.send_otp(WRITTEN, CONTENT)
    assert failure_of(lambda: assert_otp_sent(vendor, WRITTEN)).splitlines() == [
        "no OTP was sent to 99******00; requests received:",
        "  to 99******99: sent",
        "  to 99******00, which is another number: sent",
        "  to 99******00: rejected with 9003, application does not exist or is unavailable",
        "  to 99******00: rejected with 4711, an undocumented code",
        "  to 99******00: not sent, because of the fault http",
        "  to ***: rejected with -1, request failed",
    ]


async def test_of_many_requests_the_last_are_told(vendor: Sandbox, client: OtpClient) -> None:
    await client.send_batch(OtpMessage(f"99955502{index:02}", CONTENT) for index in range(30))
    lines = failure_of(lambda: assert_otp_sent(vendor, WRITTEN)).splitlines()
    assert lines[0] == "no OTP was sent to 99******00; the last 10 of 30 requests:"
    assert len(lines) == 11


async def test_a_wrong_code_is_told_without_showing_either(vendor: Sandbox, client: OtpClient) -> None:
    await client.send_otp(WRITTEN, CONTENT)
    text = failure_of(lambda: assert_otp_sent(vendor, WRITTEN, code="736251"))
    assert text == "the OTP that was sent to 99******00 has another code than the expected one (codes are not shown)"


async def test_an_otp_that_went_out_twice_fails_until_the_first_is_forgotten(
    vendor: Sandbox, client: OtpClient
) -> None:
    for _ in range(2):
        await client.send_otp(WRITTEN, CONTENT)
    text = failure_of(lambda: assert_otp_sent(vendor, WRITTEN))
    assert text.startswith("2 OTPs were sent to 99******00, expected one; ")
    vendor.requests.clear()
    await client.send_otp(WRITTEN, "Your code is 736251")
    assert assert_otp_sent(vendor, WRITTEN).otp == "736251"


async def test_a_refused_request_sent_nothing(vendor: Sandbox, client: OtpClient) -> None:
    assert_nothing_sent(vendor)
    vendor.script(Fault.answer(9005))
    with pytest.raises(NxOtpError):
        await client.send_otp(WRITTEN, CONTENT)
    assert_nothing_sent(vendor)


async def test_what_should_not_have_gone_out_is_told(vendor: Sandbox, client: OtpClient) -> None:
    await client.send_otp(WRITTEN, CONTENT)
    assert failure_of(lambda: assert_nothing_sent(vendor)).splitlines() == [
        "1 OTP was sent; requests received:",
        "  to 99******00: sent",
    ]
    await client.send_otp(WRITTEN, CONTENT)
    assert failure_of(lambda: assert_nothing_sent(vendor)).startswith("2 OTPs were sent; ")


def test_a_number_that_is_none_is_refused(vendor: Sandbox) -> None:
    with pytest.raises(InvalidMessageError, match="country code"):
        assert_otp_sent(vendor, "0139 1234 5678")


# ---------------------------------------------------------------------------------------------- waiting


def test_a_code_that_is_sent_in_the_background_is_waited_for() -> None:
    looked_for = threading.Event()
    sandboxes: list[Sandbox] = []

    class Watched(Sandbox):
        @property
        def messages(self) -> list[ReceivedRequest]:
            looked_for.set()
            return super().messages

    def work() -> None:
        assert looked_for.wait(20)
        for number in (OTHER, WRITTEN):
            asyncio.run(sandboxes[0].client().send_otp(number, CONTENT))

    with serve_in_thread(Watched()) as sandbox:
        sandboxes.append(sandbox)
        background = threading.Thread(target=work)
        background.start()
        assert assert_otp_sent(sandbox, WRITTEN, within=20).otp == CODE
        background.join()


async def test_a_coroutine_waits_in_a_thread(vendor: Sandbox, client: OtpClient) -> None:
    background = asyncio.create_task(client.send_otp(WRITTEN, CONTENT))
    message = await asyncio.to_thread(assert_otp_sent, vendor, WRITTEN, within=20)
    assert message.otp == CODE
    await background


async def test_waiting_in_an_event_loop_is_refused(vendor: Sandbox, client: OtpClient) -> None:
    await client.send_otp(WRITTEN, CONTENT)
    with pytest.raises(RuntimeError, match=r"asyncio\.to_thread"):
        assert_otp_sent(vendor, WRITTEN, within=20)


def test_waiting_ends(vendor: Sandbox) -> None:
    assert vendor.messages_to(WRITTEN, within=0.01) == []
    assert "no OTP" in failure_of(lambda: assert_otp_sent(vendor, WRITTEN, within=0.01))
