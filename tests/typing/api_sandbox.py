"""What type checkers see of `sandbox` and `testing`. Nothing here is ever run."""

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, assert_type

from nxotp_async import Clock, Credentials, OtpClient, Transport
from nxotp_async.sandbox import (
    MAGIC_RECIPIENTS,
    SANDBOX_BUSINESS_PHONE,
    SANDBOX_CREDENTIALS,
    CallbackPlan,
    Fault,
    FaultKind,
    ReceivedRequest,
    Reply,
    Sandbox,
    sandbox_client,
)
from nxotp_async.testing import (
    NO_PAUSES,
    FakeClock,
    MemoryTransport,
    SignedCallback,
    UnpooledTransport,
    assert_nothing_sent,
    assert_otp_sent,
    code_for,
    serve_in_thread,
    signed_callback,
)


async def a_sandbox() -> None:
    Sandbox(port=8080, fault_rate=0.1, faults=[Fault.hang()], seed=1, latency=1, echo_message_id=False, keep=10)
    Sandbox(callbacks=CallbackPlan(webhook="http://127.0.0.1:8000/", statuses=["sent"], algorithm="md5"))
    async with Sandbox() as sandbox, sandbox.client() as client:
        assert_type(sandbox, Sandbox)
        assert_type(client, OtpClient)
        assert_type(sandbox.url, str)
        assert_type(sandbox.environ, dict[str, str])
        assert_type(sandbox.max_in_flight, int)
        assert_type(sandbox.messages, list[ReceivedRequest])
        assert_type(sandbox.messages_to("+999 555 0100"), list[ReceivedRequest])
        assert_type(sandbox.requests, deque[ReceivedRequest])
        assert_type(sandbox.counts, Counter[str])
        assert_type(sandbox.script(Fault.answer(9005), Fault.http(429, retry_after=1)), None)

    async def read() -> bytes:
        return b""

    async with sandbox.receive({"ts": "0"}, read) as reply:
        assert_type(reply, Reply)
        assert_type(reply.request, ReceivedRequest)
        assert_type(reply.delay, float)
        assert_type(reply.answer, tuple[int, Mapping[str, str], bytes])
    assert_type(await sandbox.callbacks_settled(), None)
    assert_type(await sandbox.start(), None)
    assert_type(await sandbox.stop(), None)


def a_request(request: ReceivedRequest) -> None:
    assert_type(request.arrived_at, float)
    assert_type(request.headers, Mapping[str, str])
    assert_type(request.to, str)
    assert_type(request.content, str)
    assert_type(request.otp, str | None)
    assert_type(request.cus_message_id, str | None)
    assert_type(request.message_id, str | None)
    assert_type(request.ts, int)
    assert_type(request.code, int)
    assert_type(request.fault, FaultKind)
    assert_type(request.body, bytes)
    assert_type(request.fields, Mapping[str, Any])
    assert_type(request.why, str)
    assert_type(request.is_sms, bool)


def faults() -> None:
    assert_type(Fault.answer(9005), Fault)
    assert_type(Fault.meta(131056), Fault)
    assert_type(Fault.http(429, retry_after=1), Fault)
    assert_type(Fault.slow(2.5), Fault)
    assert_type(Fault.disconnect_before_reading(), Fault)
    assert_type(Fault.disconnect_after_reading(), Fault)
    assert_type(Fault.truncated(), Fault)
    assert_type(Fault.wrong_types(), Fault)
    assert_type(Fault.without_id(), Fault)
    assert_type(Fault.drip(), Fault)
    assert_type(Fault.huge(size=10), Fault)
    assert_type(Fault.hang(), Fault)
    assert_type(Fault.hang().accepts, bool)
    assert_type(MAGIC_RECIPIENTS["999000009005"], Fault)
    assert_type(SANDBOX_CREDENTIALS, Credentials)
    assert_type(sandbox_client("http://127.0.0.1:8099", max_concurrency=8), OtpClient)
    Sandbox(sender_limit=80, recipient_interval=6, on_request=print)
    CallbackPlan(hosts=["app"], reuse_connections=False, cost="costs")
    assert_type(CallbackPlan().url_for(None), str | None)
    Sandbox(callbacks=CallbackPlan(failed=0.1, delay=1, early=0.5, shuffle=True, copies=2, loss=0.1, forged=0.1))
    number: str = SANDBOX_BUSINESS_PHONE
    del number


async def in_tests() -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        assert_type(sandbox, Sandbox)
        assert_type(assert_otp_sent(sandbox, "+999 555 0100", code="004213", within=1), ReceivedRequest)
        assert_type(code_for(sandbox, "+999 555 0100", within=1), str)
    transport = MemoryTransport(sandbox)
    assert_type(transport.client(), OtpClient)
    assert_type(assert_nothing_sent(sandbox), None)
    assert_type(transport.reachable, bool)
    transports: list[Transport] = [transport, UnpooledTransport()]
    assert_type(signed_callback("id", "failed", to="1", errors=[{"code": 1}], now=1.5), SignedCallback)
    assert_type(signed_callback("id").headers, dict[str, str])
    assert_type(signed_callback("id").body, bytes)
    clock = FakeClock(now=1_800_000_000)
    assert_type(clock.slept, list[float])
    assert_type(clock.chance, float)
    assert_type(clock.time(), float)
    assert_type(clock.advance(60), None)
    clocks: list[Clock] = [NO_PAUSES, clock]
    OtpClient(transport=transports[0], clock=clocks[0])
    Sandbox(clock=clock)
