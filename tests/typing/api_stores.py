"""What type checkers see of `stores` and `pacing`. Nothing here is ever run."""

from collections.abc import AsyncIterator, Callable
from typing import assert_type

from nxotp_async import Clock, OtpClient
from nxotp_async.bulk import Dispatcher, Ledger
from nxotp_async.pacing import SharedRate
from nxotp_async.stores import MemoryStore, Migration, PostgresStore, RedisStore, Store, hashed_key, store_from_url
from nxotp_async.tracking import DeliveryTracker


async def a_store(store: Store) -> None:
    def change(value: bytes | None) -> bytes | None:
        return None if value else b"1"

    assert_type(await store.get("a:1"), bytes | None)
    assert_type(await store.update("a:1", change, ttl=60), bytes | None)
    assert_type(await store.wait("a:1", b"1", timeout=5), bytes | None)
    assert_type(await store.wait("a:1", None, timeout=None), bytes | None)
    assert_type(await store.reserve("a", 1, rate=80, burst=1, patience=10), float | None)
    assert_type(store.changes("a:"), AsyncIterator[str])
    assert_type(await store.aclose(), None)


async def the_stores(clock: Clock) -> None:
    stores: list[Store] = [
        MemoryStore(max_entries=10, clock=clock),
        PostgresStore("postgresql://h/d", listen_url="postgresql://h2/d", max_connections=5, timeout=3, clock=clock),
        RedisStore("redis://h", prefix="app:", max_connections=5, timeout=3, clock=clock),
        store_from_url("redis://h"),
        store_from_url(environment={}),
    ]
    assert_type(hashed_key("a", "1", secret=b"s"), str)
    migration = await PostgresStore("postgresql://h/d").migrate(dry_run=True)
    assert_type(migration, Migration)
    assert_type((migration.before, migration.after, migration.is_needed), tuple[int, int, bool])
    assert_type(await store_from_url("redis://h").migrate(), Migration | None)
    async with MemoryStore() as store:
        assert_type(store, MemoryStore)
    DeliveryTracker(stores[0], keep_for=60)


class MyStore:
    """A class of the application's is a `Store` without inheriting from it."""

    async def get(self, key: str) -> bytes | None: ...

    async def update(self, key: str, change: Callable[[bytes | None], bytes | None], *, ttl: float) -> bytes | None: ...

    async def wait(self, key: str, seen: bytes | None, *, timeout: float | None) -> bytes | None: ...

    async def reserve(self, key: str, count: int, *, rate: float, burst: float, patience: float) -> float | None: ...

    def changes(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError

    async def aclose(self) -> None: ...


def own() -> None:
    DeliveryTracker(MyStore())


async def a_rate(store: Store, clock: Clock, ledger: Ledger) -> None:
    rate = SharedRate(store, "sender", 80)
    SharedRate(store, "sender", 80, burst=5, background=True, clock=clock)
    assert_type(await rate.acquire(10), bool)
    assert_type(rate.per_second, float)
    Dispatcher(ledger, OtpClient(rate_limit=rate), rate=rate)
