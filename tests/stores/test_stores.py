"""What every store does: the same tests over memory, PostgreSQL and Valkey."""

import asyncio
import threading
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from nxotp_async import StoreError
from nxotp_async.stores import Store, hashed_key, store_from_url
from nxotp_async.stores.base import BaseStore

TTL = 60.0
NewStore = Callable[[], BaseStore]


@pytest.fixture
def key() -> str:
    return f"test:{uuid.uuid4().hex}"


def becomes(value: bytes | None) -> Callable[[bytes | None], bytes | None]:
    return lambda _: value


def appended(value: bytes) -> Callable[[bytes | None], bytes | None]:
    return lambda before: (before or b"") + value


async def until(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Wait for what a real server does by its own clock."""
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - nothing here hears of it
            await asyncio.sleep(0)


# ---------------------------------------------------------------------------------------------- values


async def test_a_key_that_nobody_has_set_has_no_value(store: Store, key: str) -> None:
    assert await store.get(key) is None


@pytest.mark.parametrize("value", [b"", b"1", b"\0\xff\r\n", b"x" * 20_000], ids=["empty", "short", "binary", "long"])
async def test_a_value_is_what_it_was_changed_to(store: Store, key: str, value: bytes) -> None:
    assert await store.update(key, becomes(value), ttl=TTL) == value
    assert await store.get(key) == value
    assert await store.update(key, appended(b"!"), ttl=TTL) == value + b"!"
    assert await store.get(key) == value + b"!"


async def test_a_change_is_given_the_value_that_is_there(store: Store, key: str) -> None:
    seen: list[bytes | None] = []

    def change(value: bytes | None) -> bytes | None:
        seen.append(value)
        return b"1" if value is None else value + b"2"

    for _ in range(3):
        await store.update(key, change, ttl=TTL)
    assert seen == [None, b"1", b"12"]


async def test_a_value_that_becomes_none_is_gone(store: Store, key: str) -> None:
    await store.update(key, becomes(b"1"), ttl=TTL)
    assert await store.update(key, becomes(None), ttl=TTL) is None
    assert await store.get(key) is None
    assert await store.update(key, becomes(None), ttl=TTL) is None


async def test_a_change_that_raises_changes_nothing(store: Store, key: str) -> None:
    await store.update(key, becomes(b"1"), ttl=TTL)

    def refuse(_: bytes | None) -> bytes | None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await store.update(key, refuse, ttl=TTL)
    assert await store.get(key) == b"1"


async def test_a_value_expires(store: Store, key: str) -> None:
    await store.update(key, becomes(b"1"), ttl=0.05)

    async def is_gone() -> bool:
        return await store.get(key) is None

    await until(is_gone)
    assert await store.update(key, appended(b"2"), ttl=TTL) == b"2"
    assert await store.get(key) == b"2"


async def test_a_value_that_has_not_changed_is_not_kept_longer(store: Store, key: str) -> None:
    await store.update(key, becomes(b"1"), ttl=0.05)
    await store.update(key, becomes(b"1"), ttl=TTL)

    async def is_gone() -> bool:
        return await store.get(key) is None

    await until(is_gone)


async def test_stores_of_several_processes_have_the_same_values(new_store: NewStore, key: str) -> None:
    one, other = new_store(), new_store()
    await one.update(key, becomes(b"1"), ttl=TTL)
    assert await other.get(key) == b"1"


async def test_no_change_is_lost_when_many_are_made_at_once(new_store: NewStore, key: str) -> None:
    stores = [new_store() for _ in range(4)]

    def count(value: bytes | None) -> bytes:
        return str(int(value or b"0") + 1).encode()

    await asyncio.gather(*(stores[index % 4].update(key, count, ttl=TTL) for index in range(40)))
    assert await stores[0].get(key) == b"40"


async def test_what_is_never_at_rest_is_given_up_in_time(
    store: BaseStore, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def replace(*_: object) -> bool:  # others are always faster
        return False

    monkeypatch.setattr(store, "_timeout", 0.2)
    monkeypatch.setattr(store, "_replace", replace)
    with pytest.raises(StoreError, match="others change the same value"):
        await store.update(key, becomes(b"1"), ttl=TTL)


# ---------------------------------------------------------------------------------------------- waiting


async def test_who_waits_for_what_is_there_already_does_not_wait(store: Store, key: str) -> None:
    await store.update(key, becomes(b"1"), ttl=TTL)
    assert await store.wait(key, None, timeout=30) == b"1"
    assert await store.wait(key, b"0", timeout=30) == b"1"


async def test_a_change_by_another_process_wakes_who_waits(new_store: NewStore, key: str) -> None:
    waits, changes = new_store(), new_store()
    seen: bytes | None = None
    for value in (b"1", b"2", None, b"3"):
        waiting = asyncio.create_task(waits.wait(key, seen, timeout=30))
        await asyncio.sleep(0)
        await changes.update(key, becomes(value), ttl=TTL)
        assert await waiting == value
        seen = value


async def test_another_key_wakes_nobody(store: Store, key: str) -> None:
    waiting = asyncio.create_task(store.wait(key, None, timeout=30))
    await store.update(f"{key}-other", becomes(b"1"), ttl=TTL)
    assert await store.wait(f"{key}-other", None, timeout=30) == b"1"
    assert not waiting.done()
    await store.update(key, becomes(b"2"), ttl=TTL)
    assert await waiting == b"2"


async def test_a_wait_ends_with_its_time(store: Store, key: str) -> None:
    with pytest.raises(TimeoutError):
        await store.wait(key, None, timeout=0.05)


async def test_a_thousand_waits_are_woken_and_leave_nothing(new_store: NewStore, key: str) -> None:
    store, other = new_store(), new_store()
    waits = [asyncio.create_task(store.wait(f"{key}-{index % 10}", None, timeout=30)) for index in range(1000)]
    await asyncio.sleep(0)
    for wait in waits[::2]:
        wait.cancel()
    for index in range(10):
        await other.update(f"{key}-{index}", becomes(b"1"), ttl=TTL)
    done = await asyncio.gather(*waits, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in done[::2])
    assert set(done[1::2]) == {b"1"}
    assert len(store._watchers()) == 0


async def test_waiting_asks_the_store_nothing_while_nothing_happens(
    store: BaseStore, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = store._read

    async def counted(key: str) -> bytes | None:
        reads.append(key)
        return await read(key)

    monkeypatch.setattr(store, "_read", counted)
    assert await store.update(f"{key}-0", becomes(b"1"), ttl=TTL) == b"1"
    await store.wait(f"{key}-0", None, timeout=30)  # it listens now, or will at the next turn
    waits = [asyncio.create_task(store.wait(f"{key}-{index}", None, timeout=30)) for index in range(1, 101)]

    async def all_have_looked() -> bool:
        return len(reads) >= 102

    await until(all_have_looked)
    for index in range(20):
        await store.update(f"{key}-other-{index}", becomes(b"1"), ttl=TTL)
    assert len([name for name in reads if "other" not in name]) <= 302  # one each, and one when listening began
    for wait in waits:
        wait.cancel()


async def test_a_closed_store_ends_its_waits_and_can_be_used_again(store: BaseStore, key: str) -> None:
    waiting = asyncio.create_task(store.wait(key, None, timeout=30))
    await asyncio.sleep(0)
    await store.update(f"{key}-other", becomes(b"1"), ttl=TTL)
    await store.aclose()
    with pytest.raises(StoreError, match="closed"):
        await waiting
    await store.update(key, becomes(b"1"), ttl=TTL)
    assert await store.wait(key, None, timeout=30) == b"1"


async def test_the_changes_of_all_processes_are_told_by_key(new_store: NewStore, key: str) -> None:
    store, other = new_store(), new_store()
    changes = store.changes(key)
    # A store that has just begun to listen may miss what comes before: so the first one is repeated until it is heard.
    first = asyncio.ensure_future(anext(changes))
    while not first.done():
        await other.update(key, appended(b"1"), ttl=TTL)
        await asyncio.wait([first], timeout=0.01)
    await other.update(f"not-{key}", becomes(b"1"), ttl=TTL)
    await other.update(f"{key}-1", becomes(b"1"), ttl=TTL)
    heard = await first
    while heard == key:
        heard = await anext(changes)
    assert heard == f"{key}-1"


def test_a_store_serves_several_loops_and_threads(store_url: str, key: str) -> None:
    store = store_from_url(store_url)
    ready = threading.Event()
    heard: list[bytes | None] = []

    async def listen() -> None:
        waiting = asyncio.create_task(store.wait(key, None, timeout=30))
        await store.get(key)
        ready.set()
        heard.append(await waiting)
        await store.aclose()

    async def change() -> None:
        await store.update(key, becomes(b"1"), ttl=TTL)

    thread = threading.Thread(target=asyncio.run, args=(listen(),))
    thread.start()
    ready.wait(30)
    asyncio.run(change())  # closes nothing: the end of the loop does
    thread.join(30)
    assert heard == [b"1"]
    asyncio.run(change())


# ---------------------------------------------------------------------------------------------- permits


async def test_permits_are_reserved_one_after_the_other(new_store: NewStore, key: str) -> None:
    stores = [new_store() for _ in range(2)]
    waits = [await stores[index % 2].reserve(key, 1, rate=0.1, burst=1, patience=100) for index in range(4)]
    assert [round(wait or 0.0, -1) for wait in waits] == [0, 10, 20, 30]


async def test_so_many_permits_may_be_used_at_once(store: Store, key: str) -> None:
    waits = [await store.reserve(key, 1, rate=0.1, burst=3, patience=100) for _ in range(5)]
    assert [round(wait or 0.0, -1) for wait in waits] == [0, 0, 0, 10, 20]


async def test_several_permits_are_reserved_together(store: Store, key: str) -> None:
    assert await store.reserve(key, 5, rate=0.1, burst=1, patience=100) == pytest.approx(40, abs=5)
    assert await store.reserve(key, 1, rate=0.1, burst=1, patience=100) == pytest.approx(50, abs=5)


async def test_who_is_less_patient_reserves_nothing(store: Store, key: str) -> None:
    assert await store.reserve(key, 1, rate=0.1, burst=1, patience=0) == 0
    assert await store.reserve(key, 1, rate=0.1, burst=1, patience=5) is None
    assert await store.reserve(key, 1, rate=0.1, burst=1, patience=15) == pytest.approx(10, abs=5)


async def test_permits_of_the_past_are_not_saved_up(store: Store, key: str) -> None:
    await store.reserve(key, 1, rate=1000, burst=1, patience=1)

    async def is_free() -> bool:
        return await store.reserve(f"{key}-probe", 1, rate=20, burst=1, patience=0) is not None

    await until(is_free)
    await until(is_free)  # a twentieth of a second later
    waits = [await store.reserve(key, 1, rate=0.1, burst=1, patience=100) for _ in range(2)]
    assert [round(wait or 0.0, -1) for wait in waits] == [0, 10]


# ---------------------------------------------------------------------------------------------- keys


def test_a_hashed_key_shows_nothing_of_the_name() -> None:
    keys = {
        hashed_key("delivery", "9995550100"),
        hashed_key("delivery", "9995550101"),
        hashed_key("other", "9995550100"),
        hashed_key("delivery", "9995550100", secret=b"one"),
        hashed_key("delivery", "9995550100", secret=b"two"),
    }
    assert len(keys) == 5
    assert not [key for key in keys if "999" in key]
    assert hashed_key("delivery", "\ud800").startswith("delivery:")
