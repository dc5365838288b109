"""`SharedRate`, in virtual time over a store in memory, and over the real ones."""

import asyncio
import math
import uuid
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest
from support import VirtualTimeLoop

from nxotp_async import Clock, ConfigurationError
from nxotp_async.pacing import SharedRate
from nxotp_async.stores import MemoryStore
from nxotp_async.stores.base import BaseStore
from nxotp_async.throttling import AdaptiveRate


def now() -> float:
    return asyncio.get_running_loop().time()


CLOCK = Clock(monotonic=now, random=lambda: 0.5)


def in_virtual_time(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


async def use(rate: SharedRate, used: list[float], *, seconds: float) -> None:
    """Use permits, one after the other, for so long."""
    while await rate.acquire(seconds - now()):
        used.append(now())


def most_within(used: list[float], seconds: float) -> int:
    return max(sum(at <= other < at + seconds for other in used) for at in used)


@pytest.mark.parametrize("background", [False, True])
def test_four_processes_together_have_the_rate_and_no_more(background: bool) -> None:
    async def scenario() -> list[float]:
        store, used = MemoryStore(clock=CLOCK), list[float]()
        rates = [SharedRate(store, "sender", 80, background=background, clock=CLOCK) for _ in range(4)]
        async with asyncio.TaskGroup() as group:
            for rate in rates * 8:
                group.create_task(use(rate, used, seconds=30))
        return sorted(used)

    used = in_virtual_time(scenario())
    assert 2400 - 24 * background <= len(used) <= 2401
    assert most_within(used, 0.0999) <= 9


def test_nobody_waits_behind_a_bulk_load_for_more_than_a_permit_and_a_half() -> None:
    async def scenario() -> tuple[list[float], list[float]]:
        store, used, waits = MemoryStore(clock=CLOCK), list[float](), list[float]()
        bulk = SharedRate(store, "sender", 80, background=True, clock=CLOCK)
        login = SharedRate(store, "sender", 80, clock=CLOCK)
        async with asyncio.TaskGroup() as group:
            for _ in range(64):
                group.create_task(use(bulk, used, seconds=30))
            for number in range(200):
                await asyncio.sleep(0.137 + 0.0001 * number)
                began = now()
                assert await login.acquire(1)
                waits.append(now() - began)
                used.append(now())
        return sorted(used), waits

    used, waits = in_virtual_time(scenario())
    assert max(waits) < 1.5 / 80
    assert most_within(used, 0.0999) <= 9
    assert len([at for at in used if at < 30]) > 0.95 * 2400


@pytest.mark.parametrize("background", [False, True])
def test_several_permits_come_when_the_last_of_them_is_due(background: bool) -> None:
    async def scenario() -> list[float]:
        rate = SharedRate(MemoryStore(clock=CLOCK), "sender", 100, background=background, clock=CLOCK)
        used = []
        for _ in range(20):
            assert await rate.acquire(math.inf, 10)
            used.append(now())
        assert not await rate.acquire(0.05, 10)
        return used

    used = in_virtual_time(scenario())
    assert used[-1] - used[0] == pytest.approx(19 * 0.1, abs=0.01)


def test_a_rate_halves_once_for_what_was_sent_together_and_grows_back() -> None:
    rate = AdaptiveRate(80, 80, 100.0)
    lowered = rate.throttled(sent_at=99.0, now=101.0)
    assert lowered.rate == 40
    assert lowered.throttled(sent_at=100.5, now=101.5) is lowered
    assert lowered.throttled(sent_at=102.0, now=102.0).rate == pytest.approx(21)
    assert lowered.present(111.0) == pytest.approx(40 * 1.05**10)
    assert lowered.present(9e9) == 80
    assert AdaptiveRate(80, 1, 0.0).throttled(sent_at=1.0, now=1.0).rate == AdaptiveRate.FLOOR


def test_permits_that_are_not_waited_for_are_left_to_others() -> None:
    async def scenario() -> None:
        store = MemoryStore(clock=CLOCK)
        for background in (False, True):
            rate = SharedRate(store, f"sender-{background}", 1, background=background, clock=CLOCK)
            began = now()
            assert await rate.acquire(0.01)
            assert not await rate.acquire(0.5)
            assert await rate.acquire(1.5)
            assert now() - began == pytest.approx(1, abs=0.01)

    in_virtual_time(scenario())


def test_a_burst_may_be_used_at_once() -> None:
    async def scenario() -> list[float]:
        rate = SharedRate(MemoryStore(clock=CLOCK), "sender", 10, burst=5, clock=CLOCK)
        used: list[float] = []
        await use(rate, used, seconds=1)
        return used

    used = in_virtual_time(scenario())
    assert used[4] < 0.001
    assert all(later - earlier == pytest.approx(0.1, abs=0.001) for earlier, later in pairwise(used[4:]))


async def test_processes_share_a_rate_over_every_store(new_store: Callable[[], BaseStore]) -> None:
    name = uuid.uuid4().hex
    one, other = (SharedRate(new_store(), name, 0.01) for _ in range(2))
    assert await one.acquire(0)
    assert not await other.acquire(1)
    assert await SharedRate(new_store(), f"{name}-2", 0.01).acquire(0)


@pytest.mark.parametrize(("per_second", "burst"), [(0, None), (-1, None), (float("inf"), None), (80, 0), (80, 1.5)])
def test_a_rate_that_is_none_is_refused(per_second: float, burst: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"per_second|burst"):
        SharedRate(MemoryStore(), "sender", per_second, burst=burst)
