import asyncio
import random
from collections.abc import Iterator

import pytest

from nxotp_async.streaming import as_completed


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
    stream = as_completed(items(), work, concurrency=concurrency, asleep=lambda: chance.randrange(3), streams=set())
    while (result := await anext(stream, None)) is not None:
        taken += 1
        results.append(result)
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
    assert sorted(results) == list(range(200))
    assert worst <= 2 * concurrency
