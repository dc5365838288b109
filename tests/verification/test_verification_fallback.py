"""Another channel for codes that WhatsApp does not deliver."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from support import VirtualTimeLoop
from verifier_support import KEY, UNLIMITED, NewVerifier, code_of

from nxotp_async import (
    ApiError,
    ConfigurationError,
    NotSentError,
    OtpClient,
    OtpMessage,
    OutcomeUnknownError,
    RefusalReason,
    SendStatus,
    StoreError,
    VerificationRefusedError,
)
from nxotp_async.callbacks import parse_callback
from nxotp_async.receivers import aiohttp_receiver
from nxotp_async.sandbox import SANDBOX_CREDENTIALS, CallbackPlan, Fault, Sandbox
from nxotp_async.sms import SmsFallback
from nxotp_async.stores import MemoryStore
from nxotp_async.stores.base import BaseStore
from nxotp_async.testing import FakeClock, MemoryTransport, signed_callback
from nxotp_async.tracking import DeliveryTracker
from nxotp_async.verification import Action, Fallback, Limits, VerificationEvent, Verifier

NUMBER, DIGITS = "+62 812-3456-7890", "6281234567890"


@pytest.fixture
def events() -> list[VerificationEvent]:
    return []


def what(events: list[VerificationEvent]) -> list[tuple[Any, ...]]:
    return [(event.action, event.status, event.reason) for event in events]


in_memory = pytest.mark.parametrize("store_kind", ["memory"])


def watching(client: OtpClient, store: BaseStore, fallback: Fallback, **options: Any) -> Verifier:
    """Return a verifier that falls back after a minute."""
    defaults: dict[str, Any] = {"key": KEY, "countries": "any", "limits": UNLIMITED, "fallback_after": 60}
    return Verifier(client, **{**defaults, "store": store, "fallback": fallback, **options})


# ---------------------------------------------------------------------------------------------- at once


@in_memory
async def test_a_number_that_is_not_on_whatsapp_gets_its_code_by_sms(
    sandbox: Sandbox, client: OtpClient, new_verifier: NewVerifier, clock: FakeClock, events: list[VerificationEvent]
) -> None:
    verifier = new_verifier(fallback=SmsFallback(client), on_event=events.append)
    sandbox.script(Fault.meta(131026))
    started = await verifier.start(NUMBER)
    assert (started.send_status, started.has_fallen_back) == (SendStatus.ACCEPTED, True)
    (sms,) = sandbox.messages
    assert sms.is_sms
    assert what(events) == [
        (Action.FALLBACK, SendStatus.ACCEPTED, None),
        (Action.START, SendStatus.REJECTED, RefusalReason.UNDELIVERABLE),
    ]
    assert [event.message_id for event in events] == [sms.message_id, started.message_id]
    clock.advance(30)
    sandbox.script(Fault.meta(131026))
    with pytest.raises(VerificationRefusedError) as caught:  # once at most
        await verifier.resend(started.id)
    assert caught.value.reason is RefusalReason.UNDELIVERABLE
    assert len(sandbox.messages) == 1
    clock.advance(60)
    assert (await verifier.resend(started.id)).has_fallen_back
    assert code_of(sandbox, DIGITS) == sms.otp
    assert (await verifier.check(started.id, sms.otp or "")).approved


OUTCOMES: list[tuple[Exception, SendStatus | None]] = [
    (OutcomeUnknownError("lost"), SendStatus.UNKNOWN),
    (RuntimeError(f"{DIGITS} 482913"), SendStatus.UNKNOWN),  # what it has done before that is not known
    (ApiError("no"), None),
    (NotSentError("no"), None),
]


@in_memory
@pytest.mark.parametrize(("error", "status"), OUTCOMES, ids=lambda value: type(value).__name__)
async def test_what_the_fallback_raises_says_what_became_of_the_code(
    sandbox: Sandbox,
    new_verifier: NewVerifier,
    events: list[VerificationEvent],
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: SendStatus | None,
) -> None:
    calls: list[OtpMessage] = []

    async def fallback(message: OtpMessage) -> None:
        calls.append(message)
        raise error

    verifier = new_verifier(fallback=fallback, on_event=events.append, limits=Limits(messages_per_day=3))
    sandbox.script(Fault.meta(131030))
    if status is None:
        with pytest.raises(VerificationRefusedError) as caught:
            await verifier.start(NUMBER)
        assert caught.value.reason is RefusalReason.UNDELIVERABLE
    else:
        assert (await verifier.start(NUMBER)).send_status is status
    assert [event.status for event in events if event.action is Action.FALLBACK] == [
        status or SendStatus.of(error)  # type: ignore[arg-type] # the others have a status
    ]
    assert len(calls) == 1
    assert DIGITS not in caplog.text
    # What was surely not sent is not counted: of three messages, one or two are left.
    for _ in range(2 if status is None else 1):
        await verifier.start(NUMBER)
    with pytest.raises(VerificationRefusedError):
        await verifier.start(NUMBER)


@in_memory
async def test_a_limit_forbids_a_fallback_too(
    sandbox: Sandbox, client: OtpClient, new_verifier: NewVerifier, events: list[VerificationEvent]
) -> None:
    limits = Limits(messages_per_day=1)
    verifier = new_verifier(fallback=SmsFallback(client), limits=limits, on_event=events.append)
    sandbox.script(Fault.meta(131026))
    with pytest.raises(VerificationRefusedError) as caught:
        await verifier.start(NUMBER)
    assert caught.value.reason is RefusalReason.UNDELIVERABLE
    assert what(events)[0] == (Action.FALLBACK, None, RefusalReason.BUDGET)
    assert not sandbox.messages


# ---------------------------------------------------------------------------------------------- over real callbacks


@asynccontextmanager
async def listening(tracker: DeliveryTracker) -> AsyncIterator[str]:
    runner = web.AppRunner(aiohttp_receiver(tracker, SANDBOX_CREDENTIALS), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("status", ["delivered", "failed"])
async def test_a_callback_says_whether_the_fallback_is_needed(new_store: Callable[[], BaseStore], status: str) -> None:
    """One process starts the verification, and the other one gets the callback."""
    trackers = DeliveryTracker(new_store()), DeliveryTracker(new_store())
    fallen_back = asyncio.Event()

    def on_event(event: VerificationEvent) -> None:
        if event.action is Action.FALLBACK:
            fallen_back.set()

    async with AsyncExitStack() as stack:
        webhook = await stack.enter_async_context(listening(trackers[1]))
        sandbox = await stack.enter_async_context(Sandbox(callbacks=CallbackPlan(webhook=webhook, statuses=[status])))
        verifiers = []
        for tracker in trackers:
            client = await stack.enter_async_context(sandbox.client(tracker=tracker))
            verifier = watching(client, new_store(), SmsFallback(client), on_event=on_event)
            verifiers.append(await stack.enter_async_context(verifier))
        started = await verifiers[0].start(NUMBER)
        if status == "delivered":
            await asyncio.gather(*(tracker.wait(started.message_id, timeout=10) for tracker in trackers))
        else:
            async with asyncio.timeout(10):
                await fallen_back.wait()
        await asyncio.gather(*(verifier.aclose() for verifier in verifiers))
        assert [message.is_sms for message in sandbox.messages] == [False, True][: 1 + (status == "failed")]
        assert len({message.otp for message in sandbox.messages}) == 1
        found = await verifiers[1].get(started.id)
        assert found is not None
        assert found.has_fallen_back == (status == "failed")


async def test_of_many_processes_at_the_same_moment_one_falls_back(
    sandbox: Sandbox, new_store: Callable[[], BaseStore], clock: FakeClock
) -> None:
    calls: list[OtpMessage] = []
    called = asyncio.Event()

    async def fallback(message: OtpMessage) -> None:
        calls.append(message)
        called.set()

    async with AsyncExitStack() as stack:
        verifiers = []
        for _ in range(3):
            tracker = DeliveryTracker(new_store())
            client = await stack.enter_async_context(sandbox.client(tracker=tracker, clock=clock))
            verifier = watching(client, new_store(), fallback, clock=clock)
            verifiers.append(await stack.enter_async_context(verifier))
        started = await verifiers[0].start(NUMBER)
        for verifier, pause in zip(verifiers[1:], (30, 60), strict=True):
            clock.advance(pause)
            await verifier.resend(started.id)
        failed = [signed_callback(message.message_id or "", "failed") for message in sandbox.messages]
        events = [parse_callback(callback.body)[0] for callback in failed]
        await asyncio.gather(*(DeliveryTracker(new_store()).record(event) for event in events))
        async with asyncio.timeout(10):
            await called.wait()
            await asyncio.gather(*(task for task in asyncio.all_tasks() if "Fallbacks" in repr(task)))
    assert len(calls) == 1
    assert calls[0].code == code_of(sandbox, DIGITS)


# ---------------------------------------------------------------------------------------------- in time


class Watched:
    """A verifier in virtual time, whose messages are accepted, and what its fallback was called with."""

    def __init__(self, **options: Any) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self.sandbox = Sandbox(clock=loop.clock)
        store = MemoryStore(clock=loop.clock)
        self.tracker = DeliveryTracker(store)
        self.calls: list[tuple[float, OtpMessage]] = []
        self.takes = 0.0  # seconds
        client = MemoryTransport(self.sandbox).client(
            base_url="http://127.0.0.1:1", tracker=self.tracker, clock=loop.clock
        )
        self.verifier = watching(
            client, store, self.fall_back, **{"fallback_after": 20, "clock": loop.clock, **options}
        )

    async def fall_back(self, message: OtpMessage) -> None:
        self.calls.append((asyncio.get_running_loop().time(), message))
        await asyncio.sleep(self.takes)

    async def report(self, message_id: str, status: str) -> None:
        (event,) = parse_callback(signed_callback(message_id, status).body)
        await self.tracker.record(event)


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test())

    return run


@in_virtual_time
async def test_what_no_callback_calls_delivered_in_time_is_sent_another_way() -> None:
    watched = Watched()
    began = asyncio.get_running_loop().time()
    async with watched.verifier:
        started = await watched.verifier.start(NUMBER)
        await watched.report(started.message_id, "sent")
        await asyncio.sleep(19)
        assert not watched.calls
        await asyncio.sleep(2)
        ((at, message),) = watched.calls
        assert at - began == pytest.approx(20, abs=0.1)
        assert (message.to, message.code) == (DIGITS, code_of(watched.sandbox, DIGITS))
        assert message.cus_message_id != started.message_id
        await asyncio.sleep(300)
    assert len(watched.calls) == 1


@pytest.mark.parametrize("status", ["delivered", "read"])
def test_what_was_delivered_in_time_is_not(status: str) -> None:
    async def main() -> None:
        watched = Watched()
        async with watched.verifier:
            started = await watched.verifier.start(NUMBER)
            await asyncio.sleep(19)
            await watched.report(started.message_id, status)
            await asyncio.sleep(300)
        assert not watched.calls

    in_virtual_time(main)()


@in_virtual_time
async def test_nor_is_what_has_ended_meanwhile() -> None:
    watched = Watched()
    async with watched.verifier:
        approved, cancelled = await watched.verifier.start(NUMBER), await watched.verifier.start("+6591234567")
        assert (await watched.verifier.check(approved.id, code_of(watched.sandbox, DIGITS))).approved
        await watched.verifier.cancel(cancelled.id)
        await asyncio.sleep(300)
    assert not watched.calls


@in_virtual_time
async def test_whoever_closes_waits_for_what_is_being_sent_and_for_nothing_else() -> None:
    watched = Watched()
    watched.takes = 5
    await watched.verifier.start(NUMBER)
    await asyncio.sleep(10)
    await watched.verifier.start("+6591234567")
    await asyncio.sleep(11)  # the first one is being sent, and the second one still waits
    began = asyncio.get_running_loop().time()
    await watched.verifier.aclose()
    assert asyncio.get_running_loop().time() - began == pytest.approx(4, abs=0.1)
    assert len(watched.calls) == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await watched.verifier.aclose()


@in_virtual_time
async def test_a_fallback_that_never_ends_is_ended() -> None:
    watched = Watched()
    watched.takes = 1e6
    async with watched.verifier:
        started = await watched.verifier.start(NUMBER)
        await asyncio.sleep(20 + 31)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        found = await watched.verifier.get(started.id)
        assert found is not None
        assert found.has_fallen_back


@in_virtual_time
async def test_so_many_may_wait_and_no_more() -> None:
    watched = Watched()
    fallbacks = watched.verifier._fallbacks
    assert fallbacks is not None
    for index in range(10_005):

        async def fall_back(index: int = index) -> None:
            watched.calls.append((index, None))  # type: ignore[arg-type] # there is no message

        fallbacks.watch(f"message-{index}", fall_back)
    assert len(asyncio.all_tasks()) == 10_001
    await asyncio.sleep(21)
    assert len(watched.calls) == 10_000


@in_virtual_time
async def test_an_outage_of_the_store_is_reported_and_breaks_nothing() -> None:
    events: list[VerificationEvent] = []
    watched = Watched(on_event=events.append)
    async with watched.verifier:
        await watched.verifier.start(NUMBER)

        async def fail(_: str) -> None:
            raise StoreError("down")

        watched.verifier._verifications._store.get = fail  # type: ignore[method-assign,assignment] # that is the outage
        await asyncio.sleep(30)
    assert not watched.calls
    assert what(events) == [(Action.START, SendStatus.ACCEPTED, None), (Action.FALLBACK, SendStatus.NOT_SENT, None)]


def test_a_store_that_is_closed_ends_the_waiting(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        watched = Watched()
        await watched.verifier.start(NUMBER)
        await asyncio.sleep(1)
        await watched.tracker._store.aclose()
        await asyncio.sleep(30)
        assert not watched.calls

    in_virtual_time(main)()
    assert "no fallback for message" in caplog.text


async def test_without_a_fallback_there_is_nothing_to_close(client: OtpClient) -> None:
    async with Verifier(client, store=MemoryStore(), key=KEY, countries="any") as verifier:
        await verifier.aclose()


# ---------------------------------------------------------------------------------------------- configuration


async def nothing(_: OtpMessage) -> None: ...


@in_memory
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fallback": 5}, r"^fallback must be a coroutine function"),
        ({"fallback": print}, r"^fallback must be a coroutine function"),
        ({"fallback_after": 20}, r"^fallback_after needs a fallback, and a client with a tracker"),
        ({"fallback": nothing, "fallback_after": 20}, r"^fallback_after needs a fallback, and a client with a tracker"),
        ({"fallback": nothing, "fallback_after": 0}, r"^fallback_after must be"),
        ({"fallback": nothing, "fallback_after": 301}, r"^fallback_after must be"),
        ({"fallback": nothing, "fallback_after": "20"}, r"^fallback_after must be"),
    ],
)
def test_a_wrong_option_is_named(new_verifier: NewVerifier, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        new_verifier(**options)
