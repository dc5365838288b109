import asyncio
import gc
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ScriptedTransport, VirtualTimeLoop

from nxotp_async import ApiError, ConfigurationError, OtpMessage, SendResult, SendStatus, StoreError
from nxotp_async.callbacks import StatusEvent
from nxotp_async.receivers import aiohttp_receiver
from nxotp_async.sandbox import SANDBOX_CREDENTIALS, CallbackPlan, Fault, Sandbox, sandbox_client
from nxotp_async.stores import MemoryStore, watching
from nxotp_async.testing import FakeClock
from nxotp_async.tracking import DeliveryState, DeliveryTracker

TO: Final = "+999 555 0100"
OWN, VENDORS = "order-1", "wamid.1"
ORDER: Final = ("queued", "sent", "delivered", "read")


def result(status: SendStatus = SendStatus.ACCEPTED, own: str = OWN, vendors: str | None = VENDORS) -> SendResult:
    error = ApiError("no", code=9002) if status is SendStatus.REJECTED else None
    message_id = vendors if status is SendStatus.ACCEPTED else None
    return SendResult(OtpMessage(TO, "482913", cus_message_id=own), status, message_id, error=error)


def event(status: str, message_id: str = VENDORS, at: int = 1_660_019_986, **fields: Any) -> StatusEvent:
    return StatusEvent(message_id, status, datetime.fromtimestamp(at, UTC), "9995550100", **fields)


async def status_of(tracker: DeliveryTracker, message_id: str) -> str:
    state = await tracker.state(message_id)
    assert state is not None, message_id
    return state.status


async def turns() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


def in_virtual_time(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


def waited_for(tracker: DeliveryTracker) -> int:
    """Count the keys that somebody waits for."""
    assert isinstance(tracker._store, MemoryStore)
    return len(tracker._store._watchers())


# ---------------------------------------------------------------------------------------------- whole deliveries


class Ear:
    """A tracker that remembers what it was told, and every state a message was ever in."""

    def __init__(self) -> None:
        self.tracker = DeliveryTracker()
        self.heard: defaultdict[str, list[str]] = defaultdict(list)
        self.seen: defaultdict[str, list[str]] = defaultdict(list)

    async def record(self, event: StatusEvent) -> None:
        self.heard[event.message_id].append(event.status)
        await self.tracker.record(event)
        await self.look(event.message_id)

    async def look(self, message_id: str) -> None:
        self.seen[message_id].append(await status_of(self.tracker, message_id))


@asynccontextmanager
async def listening(ear: Ear) -> AsyncIterator[str]:
    runner = web.AppRunner(aiohttp_receiver(ear, SANDBOX_CREDENTIALS), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def messages(count: int) -> list[OtpMessage]:
    return [OtpMessage(TO, "482913", cus_message_id=f"order-{index}") for index in range(count)]


def never_back(seen: Sequence[str]) -> bool:
    """Return whether each status is the one before, or one that may follow it."""
    may_follow = {
        "queued": {"queued", "sent", "delivered", "read", "failed", "deleted"},
        "sent": {"sent", "delivered", "read", "failed", "deleted"},
        "delivered": {"delivered", "read", "deleted"},
        "read": {"read", "deleted"},
        "failed": {"failed"},
        "deleted": {"deleted"},
    }
    return all(after in may_follow[before] for before, after in pairwise(seen))


async def test_a_thousand_messages_end_as_they_should_whatever_the_callbacks_go_through() -> None:
    ear = Ear()
    async with listening(ear) as webhook:
        plan = CallbackPlan(webhook=webhook, shuffle=True, copies=3, early=0.3, failed=0.2, forged=0.1)
        async with Sandbox(callbacks=plan, seed=7) as sandbox, sandbox.client() as client:
            overtaken = 0
            async for sent in client.send_many(messages(1000)):
                assert sent.status is SendStatus.ACCEPTED
                state = await ear.tracker.add(sent)
                overtaken += state.status != "queued"
                await ear.look(str(sent.message_id))
            await sandbox.callbacks_settled()
            counts = sandbox.counts
    failed = {message_id for message_id, heard in ear.heard.items() if "failed" in heard}
    assert 150 < len(failed) < 250
    assert overtaken > 100
    assert len(ear.heard) == len(ear.seen) == 1000
    for message_id, heard in ear.heard.items():
        ended = "failed" if message_id in failed else "read"
        assert sorted(heard) == sorted(3 * (["sent", "failed"] if ended == "failed" else ["sent", "delivered", "read"]))
        state = await ear.tracker.wait(message_id, "read")
        assert (state.status, state.send_status) == (ended, SendStatus.ACCEPTED)
        assert bool(state.errors) == (ended == "failed")
        assert never_back(ear.seen[message_id]), ear.seen[message_id]
    assert counts["callbacks taken"] == 9 * (1000 - len(failed)) + 6 * len(failed)
    assert counts["callbacks refused"] == counts["forged callbacks taken"] == 0
    assert counts["forged callbacks refused"] > 500


async def test_a_thousand_sends_of_unknown_outcome_are_settled_by_their_callbacks() -> None:
    ear = Ear()
    async with listening(ear) as webhook:
        plan = CallbackPlan(webhook=webhook, statuses=("sent",))
        lost = [Fault.disconnect_after_reading()]
        async with Sandbox(callbacks=plan, fault_rate=1.0, faults=lost) as sandbox, sandbox.client() as client:
            results = [sent async for sent in client.send_many(messages(1000))]
            for sent in results:
                await ear.tracker.add(sent)
            await sandbox.callbacks_settled()
    assert [sent.status for sent in results] == [SendStatus.UNKNOWN] * 1000
    assert sandbox.counts["messages"] == 1000
    for index in range(1000):
        state = await ear.tracker.wait(f"order-{index}", "sent")
        assert state.send_status is SendStatus.ACCEPTED


async def test_a_message_that_the_vendor_calls_otherwise_goes_by_both_ids() -> None:
    ear = Ear()
    async with listening(ear) as webhook:
        plan = CallbackPlan(webhook=webhook, shuffle=True, early=0.5, failed=0.3)
        async with Sandbox(callbacks=plan, echo_message_id=False, seed=1) as sandbox, sandbox.client() as client:
            results = [sent async for sent in client.send_many(messages(50))]
            for sent in results:
                await ear.tracker.add(sent)
            await sandbox.callbacks_settled()
    for sent in results:
        own, vendors = str(sent.message.cus_message_id), str(sent.message_id)
        assert own != vendors
        state = await ear.tracker.state(own)
        assert state == await ear.tracker.state(vendors)
        assert state is not None
        assert state.ids == {own, vendors}
        assert state.status == ("failed" if "failed" in ear.heard[vendors] else "read")


# ---------------------------------------------------------------------------------------------- one message


async def test_a_message_that_was_accepted_is_queued_by_both_its_ids() -> None:
    tracker = DeliveryTracker()
    added = await tracker.add(result())
    assert added == DeliveryState(frozenset({OWN, VENDORS}), "queued", SendStatus.ACCEPTED)
    assert await tracker.state(OWN) == await tracker.state(VENDORS) == added


async def test_a_message_nobody_has_heard_of_has_no_state() -> None:
    tracker = DeliveryTracker()
    await tracker.add(result())
    assert await tracker.state("order-2") is None


@pytest.mark.parametrize("status", [SendStatus.UNKNOWN, SendStatus.NOT_SENT, SendStatus.REJECTED])
async def test_a_send_that_was_not_accepted_is_known_by_its_own_id(status: SendStatus) -> None:
    tracker = DeliveryTracker()
    assert await tracker.add(result(status)) == DeliveryState(frozenset({OWN}), "queued", status)


@pytest.mark.parametrize("called", [OWN, VENDORS])
async def test_callbacks_that_overtake_the_answer_are_kept_and_paired(called: str) -> None:
    tracker = DeliveryTracker()
    assert await tracker.record(event("delivered", called, at=5)) is True
    assert await tracker.state(called) == DeliveryState(
        frozenset({called}), "delivered", SendStatus.ACCEPTED, datetime.fromtimestamp(5, UTC)
    )
    added = await tracker.add(result())
    assert added == DeliveryState(
        frozenset({OWN, VENDORS}), "delivered", SendStatus.ACCEPTED, datetime.fromtimestamp(5, UTC)
    )
    await tracker.record(event("read", called))
    assert [await status_of(tracker, OWN), await status_of(tracker, VENDORS)] == ["read", "read"]


@pytest.mark.parametrize("first", [OWN, VENDORS])
async def test_what_came_early_under_both_ids_is_put_together(first: str) -> None:
    tracker = DeliveryTracker()
    second = OWN if first == VENDORS else VENDORS
    await tracker.record(event("sent", first))
    await tracker.record(event("read", second, at=9))
    added = await tracker.add(result())
    assert (added.status, added.updated_at) == ("read", datetime.fromtimestamp(9, UTC))
    assert await tracker.state(first) == await tracker.state(second) == added


@pytest.mark.parametrize("status", [SendStatus.UNKNOWN, SendStatus.REJECTED, SendStatus.NOT_SENT])
@pytest.mark.parametrize("early", [True, False])
async def test_a_callback_proves_that_the_message_went_out_whatever_the_answer(status: SendStatus, early: bool) -> None:
    tracker = DeliveryTracker()
    if early:
        await tracker.record(event("sent", OWN))
    await tracker.add(result(status))
    if not early:
        await tracker.record(event("sent", OWN))
    state = await tracker.state(OWN)
    assert state is not None
    assert (state.status, state.send_status) == ("sent", SendStatus.ACCEPTED)


async def test_an_answer_that_is_added_again_changes_nothing() -> None:
    tracker = DeliveryTracker()
    await tracker.add(result())
    await tracker.record(event("delivered"))
    before = await tracker.state(OWN)
    assert await tracker.add(result()) == before
    assert await tracker.state(VENDORS) == before


@pytest.mark.parametrize(
    ("arrivals", "status", "news"),
    [
        pytest.param(["sent", "sent", "sent"], "sent", [True, False, False], id="repeated"),
        pytest.param(["read", "delivered", "sent"], "read", [True, False, False], id="backwards"),
        pytest.param(["delivered", "sent", "delivered"], "delivered", [True, False, False], id="out of order"),
        pytest.param(["read"], "read", [True], id="read alone"),
        pytest.param(["sent", "failed", "read"], "failed", [True, True, False], id="nothing follows failed"),
        pytest.param(["failed", "sent", "failed"], "failed", [True, False, False], id="failed before sent"),
        pytest.param(["delivered", "failed"], "delivered", [True, False], id="what was delivered did not fail"),
        pytest.param(["read", "deleted", "read"], "deleted", [True, True, False], id="nothing follows deleted"),
        pytest.param(["sent", "deleted", "failed"], "deleted", [True, True, False], id="deleted, failed"),
        pytest.param(["sent", "played", "read"], "read", [True, False, True], id="an unknown one"),
        pytest.param(["sent", "", "\ud800", "queued"], "sent", [True, False, False, False], id="odd ones"),
    ],
)
async def test_callbacks_move_a_message_forward_only(arrivals: list[str], status: str, news: list[bool]) -> None:
    tracker = DeliveryTracker()
    await tracker.add(result())
    assert [await tracker.record(event(name)) for name in arrivals] == news
    assert await status_of(tracker, OWN) == status


async def test_old_news_change_neither_time_nor_errors() -> None:
    tracker = DeliveryTracker()
    why = ({"code": 470, "title": "Re-engagement message"},)
    await tracker.record(event("failed", at=5, errors=why))
    for name, at in (("sent", 1), ("failed", 9)):
        assert await tracker.record(event(name, at=at)) is False
    state = await tracker.state(VENDORS)
    assert state == DeliveryState(
        frozenset({VENDORS}), "failed", SendStatus.ACCEPTED, datetime.fromtimestamp(5, UTC), why
    )


async def test_a_status_that_is_not_known_still_proves_that_the_message_went_out() -> None:
    tracker = DeliveryTracker()
    await tracker.add(result(SendStatus.UNKNOWN))
    assert await tracker.record(event("played", OWN)) is True
    assert await tracker.state(OWN) == DeliveryState(frozenset({OWN}), "queued", SendStatus.ACCEPTED)


async def test_a_second_message_by_the_same_own_id_takes_nothing_back() -> None:
    tracker = DeliveryTracker()
    await tracker.add(result(vendors="wamid.1"))
    await tracker.add(result(vendors="wamid.2"))
    await tracker.record(event("read", "wamid.2"))
    await tracker.record(event("sent", "wamid.1"))
    assert await status_of(tracker, OWN) == "read"


HISTORIES = st.one_of(
    st.lists(st.sampled_from(["sent", "delivered", "read", "played"]), max_size=8),
    st.lists(st.sampled_from(["sent", "delivered", "read", "deleted", ""]), max_size=8),
    st.lists(st.sampled_from(["sent", "failed", "warning"]), max_size=8),
)


def ending(arrivals: Sequence[str]) -> str:
    """Say where a message ends whose statuses make one story, in whatever order they came."""
    for end in ("deleted", "failed"):
        if end in arrivals:
            return end
    return max((name for name in arrivals if name in ORDER), key=ORDER.index, default="queued")


@settings(max_examples=300, deadline=None)
@given(HISTORIES, st.data())
def test_any_order_and_repetition_ends_in_the_same_status_and_none_goes_back(arrivals: list[str], data: Any) -> None:
    answered = data.draw(st.integers(0, len(arrivals)), "the answer comes before")
    ids = data.draw(st.lists(st.sampled_from([OWN, VENDORS]), min_size=len(arrivals), max_size=len(arrivals)))

    async def scenario() -> None:
        tracker = DeliveryTracker()
        seen: dict[str, list[str]] = {OWN: ["queued"], VENDORS: ["queued"]}
        for index in range(len(arrivals) + 1):
            if index == answered:
                added = await tracker.add(result())
                assert added.status == ending(arrivals[:index])
            if index < len(arrivals):
                await tracker.record(event(arrivals[index], ids[index]))
            for message_id, statuses in seen.items():
                if (state := await tracker.state(message_id)) is not None:
                    statuses.append(state.status)
        for statuses in seen.values():
            assert statuses[-1] == ending(arrivals)
            assert never_back(statuses), statuses
        final = await tracker.state(OWN)
        assert final is not None
        assert final == await tracker.state(VENDORS)
        assert (final.ids, final.send_status) == (frozenset({OWN, VENDORS}), SendStatus.ACCEPTED)

    asyncio.run(scenario())


# ---------------------------------------------------------------------------------------------- waiting


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        ("sent", "sent"),
        ("delivered", "sent"),
        ("read", "sent"),
        ("delivered", "delivered"),
        ("read", "delivered"),
        ("read", "read"),
        ("failed", "sent"),
        ("failed", "read"),
        ("deleted", "delivered"),
    ],
)
@pytest.mark.parametrize("called", [OWN, VENDORS])
@pytest.mark.parametrize("there_already", [True, False])
async def test_who_waits_hears_when_it_is_reached_exceeded_or_over(
    status: str, wanted: str, called: str, there_already: bool
) -> None:
    tracker = DeliveryTracker()
    await tracker.add(result())
    if there_already:
        await tracker.record(event(status))
        state = await tracker.wait(called, wanted, timeout=0)
    else:
        waiting = asyncio.create_task(tracker.wait(called, wanted))
        await turns()
        assert not waiting.done()
        await tracker.record(event(status))
        state = await waiting
    assert state.status == status
    assert waited_for(tracker) == 0


@pytest.mark.parametrize("status", [SendStatus.REJECTED, SendStatus.NOT_SENT])
@pytest.mark.parametrize("there_already", [True, False])
async def test_nobody_waits_for_a_message_that_did_not_go_out(status: SendStatus, there_already: bool) -> None:
    tracker = DeliveryTracker()
    if there_already:
        await tracker.add(result(status))
    waiting = asyncio.create_task(tracker.wait(OWN))
    await turns()
    assert waiting.done() is there_already
    if not there_already:
        await tracker.add(result(status))
    state = await waiting
    assert (state.status, state.send_status) == ("queued", status)


@pytest.mark.parametrize("status", [SendStatus.ACCEPTED, SendStatus.UNKNOWN])
async def test_what_is_short_of_it_ends_no_wait(status: SendStatus) -> None:
    tracker = DeliveryTracker()
    waiting = asyncio.create_task(tracker.wait(OWN, "read"))
    await tracker.add(result(status))
    for name in ("sent", "played", "sent", "delivered"):
        await turns()
        await tracker.record(event(name, OWN))
    await turns()
    assert not waiting.done()
    await tracker.record(event("read", OWN))
    assert (await waiting).status == "read"


@pytest.mark.parametrize("called", [OWN, VENDORS])
async def test_one_may_wait_before_anything_is_known(called: str) -> None:
    tracker = DeliveryTracker()
    waiting = asyncio.create_task(tracker.wait(called))
    await turns()
    await tracker.record(event("delivered", VENDORS))
    await tracker.add(result())
    state = await waiting
    assert state.status == "delivered"


@pytest.mark.parametrize("wanted", ["queued", "failed", "deleted", "", "READ", "played"])
async def test_only_what_a_message_may_come_to_is_waited_for(wanted: str) -> None:
    tracker = DeliveryTracker()
    with pytest.raises(ValueError, match="sent, delivered or read"):
        await tracker.wait(OWN, wanted)
    assert waited_for(tracker) == 0


@pytest.mark.parametrize("timeout", [0.0, 0.5, 1.0, 2.0, 30.0])
def test_a_wait_ends_when_its_time_is_over(timeout: float) -> None:
    async def scenario() -> None:
        tracker = DeliveryTracker()
        await tracker.add(result())
        began = now()
        waiting = asyncio.create_task(tracker.wait(OWN, timeout=timeout))
        await turns()
        await tracker.record(event("sent"))
        with pytest.raises(TimeoutError):
            await waiting
        assert now() - began == pytest.approx(timeout, abs=0.01)
        assert waited_for(tracker) == 0

    in_virtual_time(scenario())


def test_a_wait_without_a_limit_has_none() -> None:
    async def scenario() -> str:
        tracker = DeliveryTracker()
        waiting = asyncio.create_task(tracker.wait(OWN))
        await asyncio.sleep(1_000_000)
        assert not waiting.done()
        await tracker.record(event("delivered", OWN))
        return (await waiting).status

    assert in_virtual_time(scenario()) == "delivered"


async def test_several_wait_for_one_message_each_for_its_own() -> None:
    tracker = DeliveryTracker()
    await tracker.add(result())
    waits = {
        (called, wanted): asyncio.create_task(tracker.wait(called, wanted))
        for called in (OWN, VENDORS)
        for wanted in ("sent", "delivered", "read")
    }
    for name in ("sent", "delivered", "read"):
        await turns()
        await tracker.record(event(name))
        await turns()
        done = {wanted for (_, wanted), wait in waits.items() if wait.done()}
        assert done == set(ORDER[1 : ORDER.index(name) + 1])
    assert {(await wait).status for wait in waits.values()} == {"sent", "delivered", "read"}
    assert waited_for(tracker) == 0


async def test_a_wait_that_is_cancelled_leaves_nothing_and_disturbs_nobody() -> None:
    tracker = DeliveryTracker()
    cancelled, patient = (asyncio.create_task(tracker.wait(OWN)) for _ in range(2))
    await turns()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert waited_for(tracker) == 1
    await tracker.record(event("delivered", OWN))
    assert (await patient).status == "delivered"
    assert waited_for(tracker) == 0


async def test_a_thousand_waits_of_which_half_are_cancelled_leave_nothing() -> None:
    tracker = DeliveryTracker()
    waits = [asyncio.create_task(tracker.wait(f"order-{index}")) for index in range(1000)]
    await turns()
    for wait in waits[::2]:
        wait.cancel()
    for index in range(1, 1000, 2):
        await tracker.record(event("read", f"order-{index}"))
    done = await asyncio.gather(*waits, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in done[::2])
    assert {outcome.status for outcome in done[1::2] if isinstance(outcome, DeliveryState)} == {"read"}
    assert waited_for(tracker) == 0


# ---------------------------------------------------------------------------------------------- events


async def statuses_until_read(reader: AsyncIterator[DeliveryState]) -> list[str]:
    heard: list[str] = []
    async for state in reader:
        heard.append(state.status)
        if state.status == "read":
            return heard
    return heard


async def test_every_reader_hears_every_change_once_and_from_then_on() -> None:
    tracker = DeliveryTracker()
    await tracker.record(event("sent", "wamid.0"))
    listeners = [asyncio.create_task(statuses_until_read(tracker.events())) for _ in range(2)]
    await turns()
    await tracker.record(event("sent"))
    await turns()
    listeners.append(asyncio.create_task(statuses_until_read(tracker.events())))
    for name in ("sent", "delivered", "sent", "delivered", "read"):
        await turns()
        await tracker.record(event(name))
    heard = [await listener for listener in listeners]
    assert heard == [["sent", "delivered", "read"]] * 2 + [["delivered", "read"]]


async def test_who_reads_late_hears_the_newest_state_of_each_message() -> None:
    tracker = DeliveryTracker()
    reader = tracker.events()
    for message_id in ("wamid.1", "wamid.2"):
        for name in ("sent", "delivered"):
            await tracker.record(event(name, message_id))
    await tracker.record(event("read", "wamid.1"))
    heard = [await anext(reader) for _ in range(2)]
    assert [([*state.ids], state.status) for state in heard] == [(["wamid.1"], "read"), (["wamid.2"], "delivered")]


async def test_an_answer_is_a_change_too_but_a_second_id_is_not_another_message() -> None:
    tracker = DeliveryTracker()
    reader = tracker.events()
    await tracker.add(result(SendStatus.UNKNOWN))
    first = await anext(reader)
    await tracker.add(result())
    second = await anext(reader)
    await tracker.record(event("read"))
    assert [first.send_status, second.send_status] == [SendStatus.UNKNOWN, SendStatus.ACCEPTED]
    assert await anext(reader) == DeliveryState(
        frozenset({OWN, VENDORS}), "read", SendStatus.ACCEPTED, event("read").timestamp
    )


async def test_who_reads_too_slowly_misses_the_oldest(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watching, "_MAX_UNREAD", 3)
    tracker = DeliveryTracker()
    slow, quick = tracker.events(), tracker.events()
    swift: list[str] = []
    with caplog.at_level(logging.WARNING, "nxotp_async"):
        for index in range(5):
            await tracker.record(event("sent", f"wamid.{index}"))
            swift.extend((await anext(quick)).ids)
    assert swift == [f"wamid.{index}" for index in range(5)]
    assert [list((await anext(slow)).ids) for _ in range(3)] == [["wamid.2"], ["wamid.3"], ["wamid.4"]]
    assert len(caplog.records) == 2
    assert "too slow" in caplog.text


async def test_a_reader_ends_when_nobody_refers_to_it() -> None:
    tracker = DeliveryTracker()
    assert isinstance(tracker._store, MemoryStore)
    followers = tracker._store._watchers()._followers
    kept, dropped = tracker.events(), tracker.events()
    listener = asyncio.create_task(statuses_until_read(tracker.events()))
    await turns()
    assert len(followers) == 3
    del dropped
    listener.cancel()
    del listener
    await turns()
    gc.collect()
    assert len(followers) == 1
    await tracker.record(event("sent"))
    assert (await anext(kept)).status == "sent"


def test_a_reader_that_gave_up_for_a_while_misses_nothing() -> None:
    async def scenario() -> str:
        tracker = DeliveryTracker()
        reader = tracker.events()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await anext(reader)
        await tracker.record(event("read"))
        return (await anext(reader)).status

    assert in_virtual_time(scenario()) == "read"


# ---------------------------------------------------------------------------------------------- what is stored


async def test_a_message_is_forgotten_when_nothing_was_heard_of_it_for_so_long(clock: FakeClock) -> None:
    tracker = DeliveryTracker(MemoryStore(clock=clock), keep_for=10)
    await tracker.add(result())
    clock.advance(6)
    await tracker.record(event("sent"))
    clock.advance(6)
    assert await status_of(tracker, OWN) == "sent"
    clock.advance(4)
    assert await tracker.state(OWN) is None
    await tracker.record(event("delivered"))
    assert await tracker.state(VENDORS) == DeliveryState(
        frozenset({VENDORS}), "delivered", SendStatus.ACCEPTED, event("delivered").timestamp
    )


async def test_a_callback_of_a_message_that_nobody_here_has_sent_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = DeliveryTracker()
    await tracker.add(result())
    with caplog.at_level(logging.INFO, "nxotp_async"):
        await tracker.record(event("sent"))
        await tracker.record(event("sent", "wamid.HBgLOTk5NTU1MDEwMAA"))
        await tracker.record(event("read", "wamid.HBgLOTk5NTU1MDEwMAA"))
    assert [record.getMessage() for record in caplog.records] == [
        "a callback says sent of message ...DEwMAA to 99******00, of which no send is known here (yet)"
    ]


async def test_neither_what_a_tracker_shows_nor_what_it_stores_holds_the_number_or_the_code() -> None:
    store = MemoryStore()
    tracker = DeliveryTracker(store)
    added = await tracker.add(result())
    why = ({"code": 470, "error_data": {"details": "9995550100 has no WhatsApp"}},)
    await tracker.record(event("failed", errors=why, raw={"recipient_id": "9995550100"}))
    shown = f"{tracker!r} {added!r} {await tracker.state(OWN)!r} {tracker.events()!r} {store!r}"
    stored = str(store._entries)
    assert "has no WhatsApp" in stored
    for hidden in ("9995550100", "482913"):
        assert hidden not in shown
        assert hidden not in stored


async def test_a_state_that_a_newer_version_has_written_is_left_alone() -> None:
    store = MemoryStore()
    tracker = DeliveryTracker(store)
    await tracker.record(event("sent"))
    (key,) = store._entries
    newer = b'{"version":2,"something":"else"}'
    await store.update(key, lambda _: newer, ttl=60)
    for call in (tracker.record(event("read")), tracker.state(VENDORS), tracker.wait(VENDORS)):
        with pytest.raises(StoreError, match="update this worker"):
            await call
    assert await store.get(key) == newer


async def test_what_is_added_to_the_form_of_a_state_disturbs_no_older_worker() -> None:
    store = MemoryStore()
    tracker = DeliveryTracker(store)
    await tracker.record(event("sent"))
    (key,) = store._entries
    await store.update(key, lambda value: (value or b"").replace(b'{"ids"', b'{"more":[1],"ids"'), ttl=60)
    assert await tracker.record(event("read"))
    assert await status_of(tracker, VENDORS) == "read"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"store": "redis://127.0.0.1"}, r"store must be a Store, not str \(store_from_url"),
        ({"keep_for": 0}, "keep_for must be more than 0"),
    ],
)
def test_wrong_arguments_of_a_tracker_are_refused(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        DeliveryTracker(**arguments)


async def test_a_wait_that_ends_in_vain_says_what_is_known() -> None:
    tracker = DeliveryTracker()
    with pytest.raises(TimeoutError, match=r"not delivered within 0 s; nothing is known of it: OtpClient\(tracker"):
        await tracker.wait("m-1", timeout=0)


class HangingTracker(DeliveryTracker):
    async def add(self, result: SendResult) -> DeliveryState:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


def test_a_tracker_that_hangs_holds_up_a_send_for_five_seconds_at_most() -> None:
    async def send() -> float:
        options = {"transport": ScriptedTransport(), "tracker": HangingTracker()}
        result = await sandbox_client("http://127.0.0.1:1", **options).send_otp("+999 555 0100", "482913")
        assert result.status is SendStatus.ACCEPTED
        return now()

    assert in_virtual_time(send()) == pytest.approx(5, abs=0.01)
