"""`RateLimiter`: in virtual time, with timers that fire late, and with a loop that stands still."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest
from support import VirtualTimeLoop

from nxotp_async import Clock
from nxotp_async.rates import RateLimiter


def in_virtual_time(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


def most_in_a_second(times: list[float]) -> int:
    return max(sum(at <= other < at + 1.0 for other in times) for at in times)


async def take(limiter: RateLimiter, count: int) -> list[float]:
    """Return when so many permits came that were asked for at the same time."""
    times: list[float] = []

    async def one() -> None:
        await limiter.acquire()
        times.append(now())

    await asyncio.gather(*(one() for _ in range(count)))
    return times


def late(lateness: Callable[[], float]) -> Clock:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds + lateness())

    return Clock(monotonic=now, sleep=sleep)


@pytest.mark.parametrize("rate", [1, 2.5, 80, 250])
def test_permits_are_evenly_spaced_from_the_first_on(rate: float) -> None:
    times = in_virtual_time(take(RateLimiter(rate, Clock(monotonic=now)), 600))
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([1.01 / rate] * 599, abs=1e-4)


@pytest.mark.parametrize(
    "lateness",
    [
        pytest.param(lambda chance: chance.uniform(0, 0.002), id="some"),
        pytest.param(lambda chance: chance.choice([0.0] * 50 + [0.05]), id="now and then much"),
        pytest.param(lambda chance: chance.choice([0.0] * 200 + [2.0]), id="a loop that stands still"),
    ],
)
def test_no_second_has_more_permits_than_the_rate_however_late_timers_are(
    lateness: Callable[[random.Random], float],
) -> None:
    chance = random.Random(1)
    times = in_virtual_time(take(RateLimiter(80, late(lambda: lateness(chance))), 1600))
    assert most_in_a_second(times) <= 80


def test_timers_that_fire_late_do_not_lower_the_rate() -> None:
    chance = random.Random(1)
    times = in_virtual_time(take(RateLimiter(80, late(lambda: chance.uniform(0, 0.005))), 80 * 60))
    assert len(times) / times[-1] > 79


def test_a_pause_in_which_nobody_asks_saves_no_permits_up() -> None:
    async def main() -> list[float]:
        limiter = RateLimiter(10, Clock(monotonic=now))
        await limiter.acquire()
        await asyncio.sleep(60)
        return await take(limiter, 3)

    first, second, third = in_virtual_time(main())
    assert (second - first, third - second) == pytest.approx((0.101, 0.101), abs=1e-4)


def test_who_gives_up_waiting_takes_no_permit_and_holds_nobody_up() -> None:
    async def main() -> list[float]:
        limiter = RateLimiter(1, Clock(monotonic=now))
        await limiter.acquire()
        impatient = asyncio.create_task(limiter.acquire())
        waiting = asyncio.create_task(take(limiter, 2))
        await asyncio.sleep(0.5)
        impatient.cancel()
        return await waiting

    assert in_virtual_time(main()) == pytest.approx([1.01, 2.02], abs=1e-3)
