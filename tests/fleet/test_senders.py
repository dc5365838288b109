"""What the workers of a sender share, in virtual time over a store in memory."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support import VirtualTimeLoop

from nxotp_async import AccountError, Clock
from nxotp_async.fleet import Queue
from nxotp_async.fleet.senders import PROBE_EVERY, Sender, SenderState, read_sender
from nxotp_async.stores import MemoryStore


def now() -> float:
    return asyncio.get_running_loop().time()


CLOCK = Clock(time=lambda: 1_800_000_000 + now(), monotonic=now, random=lambda: 0.5)


def in_virtual_time(scenario: Callable[[MemoryStore, list[Sender]], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario with two workers of one sender."""

    async def main() -> None:
        store = MemoryStore(clock=CLOCK)
        senders = [Sender(store, "one", 80.0, CLOCK) for _ in range(2)]
        following = [asyncio.create_task(sender.follow()) for sender in senders]
        await asyncio.sleep(0.1)
        await scenario(store, senders)
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        await store.aclose()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


def test_throttling_lowers_the_rate_of_all_workers_once() -> None:
    async def scenario(_: MemoryStore, senders: list[Sender]) -> None:
        one, other = senders
        assert one.throttled(now() - 0.1, now())
        await asyncio.sleep(0.1)
        assert [sender.rate for sender in senders] == pytest.approx([40, 40], rel=0.01)
        assert not other.throttled(now() - 0.5, now())  # sent before the rate fell
        await asyncio.sleep(5)
        assert other.throttled(now() - 0.1, now())
        await asyncio.sleep(0.1)
        assert [sender.rate for sender in senders] == pytest.approx([25.6, 25.6], rel=0.02)
        await asyncio.sleep(60)
        assert [sender.rate for sender in senders] == [80, 80]

    in_virtual_time(scenario)


def test_a_paused_sender_lets_one_message_through_now_and_then_until_one_passes() -> None:
    async def scenario(store: MemoryStore, senders: list[Sender]) -> None:
        one, other = senders
        assert await one.may_go(5) == 5
        one.pause(AccountError("code 9002, no balance"))
        began = now()
        assert (await read_sender(store, "one")).paused is None or one.is_shut
        await asyncio.sleep(0.1)
        assert other.is_shut
        assert (await read_sender(store, "one")).paused == "code 9002, no balance"
        going = [asyncio.create_task(sender.may_go(5)) for sender in senders]
        done, waiting = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [1]
        assert now() - began == pytest.approx(PROBE_EVERY, abs=0.5)
        assert sum(sender.is_shut for sender in senders) == 1
        (one if not one.is_shut else other).resume()
        assert await waiting.pop() == 5
        assert (await read_sender(store, "one")).paused is None
        assert now() - began < PROBE_EVERY + 1

    in_virtual_time(scenario)


def test_a_worker_that_is_held_stops_no_other() -> None:
    async def scenario(_: MemoryStore, senders: list[Sender]) -> None:
        one, other = senders
        one.hold(now() + 7)
        began = now()
        assert await other.may_go(3) == 3
        assert now() == began
        assert await one.may_go(3) == 3
        assert now() - began == pytest.approx(7, abs=0.1)

    in_virtual_time(scenario)


def test_logins_go_before_a_bulk_load() -> None:
    async def scenario(_: MemoryStore, senders: list[Sender]) -> None:
        async def load(sender: Sender) -> None:
            while now() < 10:
                assert await sender.permits(sender.chunk(), 60, Queue.BULK)

        loads = [asyncio.create_task(load(sender)) for sender in senders]
        await asyncio.sleep(1)
        waits = []
        for _number in range(50):
            began = now()
            assert await senders[0].permits(1, 60, Queue.LOGIN)
            waits.append(now() - began)
            await asyncio.sleep(0.137)
        assert max(waits) < 0.1
        await asyncio.gather(*loads)

    in_virtual_time(scenario)


def test_a_state_is_stored_and_read_as_it_was() -> None:
    state = SenderState().throttled(80, 1.0, 2.0).pause("why", 3.0)
    assert SenderState.load(state.dump()) == state
    assert SenderState.load(SenderState().dump()) == SenderState()
