import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from nxotp_async.streaming import Stream, as_completed


@pytest.mark.parametrize("seed", range(50))
async def test_items_are_read_at_most_twice_the_concurrency_ahead(seed: int) -> None:
    """Whatever the order in which workers and their consumer get their turns."""
    chance = random.Random(seed)
    concurrency = chance.choice([1, 2, 3, 5])
    read = taken = worst = 0

    def items() -> Iterator[int]:
        nonlocal read, worst
        for item in range(200):
            read += 1
            worst = max(worst, read - taken)
            yield item

    async def work(item: int) -> int:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        return item

    results = []
    stream = as_completed(
        items(), work, concurrency=concurrency, sleeping=lambda: chance.randrange(3), open_streams=set()
    )
    while (result := await anext(stream, None)) is not None:
        taken += 1
        results.append(result)
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
    assert sorted(results) == list(range(200))
    assert worst <= 2 * concurrency


async def test_a_stream_that_is_cancelled_before_its_worker_has_begun_ends() -> None:
    async def work(item: int) -> int:
        return item

    streams: set[Stream[Any, Any]] = set()
    results = as_completed([1], work, concurrency=1, sleeping=lambda: 0, open_streams=streams)
    reading = asyncio.create_task(anext(results))
    await asyncio.sleep(0)  # it has hired a worker, whose turn comes next
    (stream,) = streams
    stream.failure = RuntimeError("closed")
    await stream.cancel()
    with pytest.raises(RuntimeError, match="closed"):
        await asyncio.wait_for(reading, 5)


async def test_an_asynchronous_source_that_never_waits_keeps_all_workers_busy() -> None:
    in_work = most = 0

    async def items() -> AsyncIterator[int]:
        for item in range(200):
            yield item

    async def work(item: int) -> int:
        nonlocal in_work, most
        in_work += 1
        most = max(most, in_work)
        for _ in range(2):  # shorter than it takes to hire them all, one a turn
            await asyncio.sleep(0)
        in_work -= 1
        return item

    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    results = [
        result async for result in as_completed(items(), work, concurrency=10, sleeping=lambda: 0, open_streams=set())
    ]
    counting.cancel()
    assert sorted(results) == list(range(200))
    assert most == 10
    assert turns < 120  # one item a turn would take two hundred
