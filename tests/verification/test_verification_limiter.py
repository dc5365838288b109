"""Counts that many tasks change at the same moment."""

import asyncio
from collections.abc import Callable

import pytest

from nxotp_async import RefusalReason, StoreError, VerificationRefusedError
from nxotp_async.stores import MemoryStore
from nxotp_async.verification.limiter import Limiter
from nxotp_async.verification.limits import Limits, Scope

NOW = 1_800_000_000.0
ALL = {Scope.ALL: ""}


class SlowStore(MemoryStore):
    """A store whose updates wait until they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.updates = 0
        self.is_down = False
        self.open = asyncio.Event()

    async def update(self, key: str, change: Callable[[bytes | None], bytes | None], *, ttl: float) -> bytes | None:
        self.updates += 1
        await self.open.wait()
        if self.is_down:
            raise StoreError("down")
        return await super().update(key, change, ttl=ttl)


@pytest.fixture
async def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def limiter(store: SlowStore) -> Limiter:
    return Limiter(store, Limits(messages_per_day=100), b"secret")


async def admit(limiter: Limiter) -> None:
    async with limiter.admitted(ALL, NOW):
        pass


async def begin(limiter: Limiter, count: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(admit(limiter)) for _ in range(count)]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_a_burst_is_counted_exactly_in_two_updates(limiter: Limiter, store: SlowStore) -> None:
    tasks = await begin(limiter, 150)
    store.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [result for result in results if isinstance(result, VerificationRefusedError)]
    assert len(refused) == 50
    assert {error.reason for error in refused} == {RefusalReason.BUDGET}
    assert store.updates == 2
    assert not limiter._queues


async def test_whoever_is_cancelled_is_not_counted_and_the_others_are(limiter: Limiter, store: SlowStore) -> None:
    tasks = await begin(limiter, 150)
    for cancelled in (tasks[0], *tasks[100:149]):  # the first one makes the update
        cancelled.cancel()
    await asyncio.sleep(0)
    store.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results].count(asyncio.CancelledError) == 50
    assert results.count(None) == 100
    with pytest.raises(VerificationRefusedError):
        await admit(limiter)
    assert not limiter._queues


async def test_an_outage_is_raised_for_everybody_at_once(limiter: Limiter, store: SlowStore) -> None:
    tasks = await begin(limiter, 50)
    store.is_down = True
    store.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {StoreError}
    assert len({id(result) for result in results}) == 50
    assert store.updates == 2
    assert not limiter._queues
