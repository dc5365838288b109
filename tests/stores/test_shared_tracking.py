"""Trackers of several processes over one store: nothing is lost, nothing goes back, everybody hears of it."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from nxotp_async import OtpMessage, SendResult, SendStatus
from nxotp_async.callbacks import StatusEvent
from nxotp_async.stores.base import BaseStore
from nxotp_async.tracking import DeliveryTracker

MESSAGES = 1000
AT_ONCE = 50
NewStore = Callable[[], BaseStore]


@pytest.fixture
def trackers(new_store: NewStore) -> tuple[DeliveryTracker, DeliveryTracker]:
    return DeliveryTracker(new_store()), DeliveryTracker(new_store())


@pytest.fixture
def ids() -> list[str]:
    run = uuid.uuid4().hex
    return [f"{run}-{index}" for index in range(MESSAGES)]


def event(message_id: str, status: str) -> StatusEvent:
    return StatusEvent(message_id, status, datetime.fromtimestamp(1_660_019_986, UTC))


def result(own: str, vendors: str) -> SendResult:
    return SendResult(OtpMessage("+999 555 0100", "482913", cus_message_id=own), SendStatus.ACCEPTED, vendors)


async def statuses(tracker: DeliveryTracker, ids: Sequence[str]) -> list[str]:
    states = []
    for start in range(0, len(ids), AT_ONCE):
        states += await asyncio.gather(*map(tracker.state, ids[start : start + AT_ONCE]))
    return ["lost" if state is None else state.status for state in states]


async def test_two_callbacks_at_the_same_moment_never_end_at_the_earlier_status(
    trackers: tuple[DeliveryTracker, DeliveryTracker], ids: list[str]
) -> None:
    one, other = trackers
    for start in range(0, MESSAGES, AT_ONCE):
        some = ids[start : start + AT_ONCE]
        await asyncio.gather(
            *(one.record(event(name, "sent")) for name in some),
            *(other.record(event(name, "delivered")) for name in some),
        )
    assert await statuses(one, ids) == ["delivered"] * MESSAGES


async def test_a_callback_beside_the_answer_is_never_lost(
    trackers: tuple[DeliveryTracker, DeliveryTracker], ids: list[str]
) -> None:
    one, other = trackers
    for start in range(0, MESSAGES, AT_ONCE):
        some = ids[start : start + AT_ONCE]
        await asyncio.gather(
            *(one.add(result(name, f"wamid-{name}")) for name in some),
            *(other.record(event(f"wamid-{name}", "delivered")) for name in some),
        )
    assert await statuses(other, ids) == ["delivered"] * MESSAGES
    assert await statuses(other, [f"wamid-{name}" for name in ids[::10]]) == ["delivered"] * (MESSAGES // 10)


async def test_who_waits_hears_of_what_another_process_receives(
    trackers: tuple[DeliveryTracker, DeliveryTracker], ids: list[str]
) -> None:
    waits, receives = trackers
    some = ids[:200]
    waiting = [
        asyncio.create_task(waits.wait(name if index % 2 else f"wamid-{name}", "delivered", timeout=60))
        for index, name in enumerate(some)
    ]
    await asyncio.gather(*(waits.add(result(name, f"wamid-{name}")) for name in some))
    await asyncio.gather(
        *(receives.record(event(f"wamid-{name}", status)) for status in ("sent", "delivered") for name in some)
    )
    assert {state.status for state in await asyncio.gather(*waiting)} == {"delivered"}


async def test_events_come_from_all_processes(
    trackers: tuple[DeliveryTracker, DeliveryTracker], ids: list[str]
) -> None:
    reads, receives = trackers
    events = reads.events()
    # Whoever has just begun to listen may miss the first ones.
    first = asyncio.ensure_future(anext(events))
    for name in ids:
        await receives.record(event(name, "sent"))
        if first.done():
            break
        await asyncio.wait([first], timeout=0.01)
    assert (await first).status == "sent"
    await receives.record(event(ids[0], "read"))
    async with asyncio.timeout(30):
        async for state in events:
            if state.ids == frozenset(ids[:1]) and state.status == "read":
                break
