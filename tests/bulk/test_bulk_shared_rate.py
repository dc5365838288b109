"""Bulk runs with a rate that other processes share, in virtual time."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from bulk_runs import (
    ACCEPTED,
    NOT_SENT,
    QUEUED,
    SENDING,
    Ended,
    Vendor,
    always,
    in_state,
    in_virtual_time,
    ledger_of,
    message,
    messages,
    refusal,
    rows,
    run,
    virtual_dispatcher,
)

from nxotp_async import Clock, ConfigurationError, StoreError
from nxotp_async.bulk import Dispatcher, Report
from nxotp_async.pacing import SharedRate
from nxotp_async.stores import MemoryStore, hashed_key
from nxotp_async.transports import Answer


def now() -> float:
    return asyncio.get_running_loop().time()


CLOCK = Clock(monotonic=now, random=lambda: 0.5)


def shared(store: MemoryStore, per_second: float = 80, *, background: bool = True) -> SharedRate:
    return SharedRate(store, "sender", per_second, background=background, clock=CLOCK)


class FailingStore(MemoryStore):
    """A store that fails for as long as it is told."""

    def __init__(self, error: Exception, *, seconds: float = math.inf, after: float = 0.0) -> None:
        super().__init__(clock=CLOCK)
        self.asked: list[float] = []
        self._error = error
        self._after = after
        self._until = after + seconds

    async def reserve(self, *args: Any, **options: Any) -> float | None:
        if self._after <= now() < self._until:
            self.asked.append(now())
            raise self._error
        return await super().reserve(*args, **options)


async def use_up(store: MemoryStore, *, seconds: float) -> None:
    """Take all permits of the next seconds, as a flood of logins in other processes does."""
    key = hashed_key("rate", "sender")
    assert await store.reserve(key, int(80 * seconds), rate=80, burst=1, patience=math.inf) is not None


def test_two_runs_and_the_logins_of_others_keep_one_rate_and_no_login_waits() -> None:
    async def main() -> tuple[list[float], list[float]]:
        store, waits = MemoryStore(clock=CLOCK), list[float]()
        runs = [virtual_dispatcher(ledger, vendor, concurrency=64, rate=shared(store)) for ledger in (one, other)]
        running = [asyncio.create_task(dispatcher.run()) for dispatcher in runs]
        login = shared(store, background=False)
        logins = list[float]()
        while not all(task.done() for task in running):
            await asyncio.sleep(0.137)
            began = now()
            assert await login.acquire(1)
            waits.append(now() - began)
            logins.append(now())
        for task in running:
            assert (await task).counts == {ACCEPTED: 800}
        return sorted(vendor.times() + logins), waits

    vendor = Vendor(latency=0.3)
    with ledger_of(messages(800)) as one, ledger_of(message(number) for number in range(1000, 1800)) as other:
        times, waits = in_virtual_time(main())
    assert max(waits) < 1.5 / 80
    assert max(sum(at <= later < at + 0.0999 for later in times) for at in times) <= 9
    assert times[-1] < 1.1 * len(times) / 80


def test_a_run_waits_without_a_deadline_while_others_use_the_rate_up_and_its_messages_stay_queued() -> None:
    async def watch(dispatcher: Dispatcher) -> None:
        await use_up(store, seconds=100)
        while now() < 99:
            await asyncio.sleep(0.7)
            assert len(in_state(ledger, SENDING)) <= 24
        assert not vendor.posts

    store, vendor = MemoryStore(clock=CLOCK), Vendor()
    with ledger_of(messages(40)) as ledger:
        ended = run(ledger, vendor, rate=shared(store), concurrency=64, meanwhile=watch)
    assert ended.report == Report(Counter({ACCEPTED: 40}), None, False)
    assert ended.at == pytest.approx(100.6, abs=0.5)


def test_outcomes_are_written_while_others_use_the_rate_up() -> None:
    async def watch(dispatcher: Dispatcher) -> None:
        await posted.wait()
        await use_up(store, seconds=60)
        await asyncio.sleep(3)
        assert in_state(ledger, ACCEPTED) == {post.name for post in vendor.posts}

    store, vendor, posted = MemoryStore(clock=CLOCK), Vendor(), asyncio.Event()
    vendor.before_post = lambda _: posted.set()
    with ledger_of(messages(40)) as ledger:
        assert run(ledger, vendor, rate=shared(store), concurrency=64, meanwhile=watch).report.counts == {ACCEPTED: 40}


def test_a_run_that_waits_for_a_permit_stops_at_once_and_leaves_nothing_unknown() -> None:
    async def stop(dispatcher: Dispatcher) -> None:
        await use_up(store, seconds=600)
        await asyncio.sleep(10)
        dispatcher.stop()

    store, vendor = MemoryStore(clock=CLOCK), Vendor()
    with ledger_of(messages(40)) as ledger:
        ended = run(ledger, vendor, rate=shared(store), meanwhile=stop)
    assert ended.report == Report(Counter({QUEUED: 40}), None, True)
    assert ended.at < 10.01


def test_a_code_that_expires_before_its_permit_is_not_sent() -> None:
    async def flood(dispatcher: Dispatcher) -> None:
        await use_up(store, seconds=10)

    store, vendor = MemoryStore(clock=CLOCK), Vendor()
    with ledger_of(message(number, expires_in=5 if number % 2 else 60) for number in range(40)) as ledger:
        ended = run(ledger, vendor, rate=shared(store), concurrency=64, meanwhile=flood)
        assert in_state(ledger, NOT_SENT) == {f"m{number}" for number in range(1, 40, 2)}
    assert ended.report.counts == {ACCEPTED: 20, NOT_SENT: 20}
    assert vendor.times() == [pytest.approx(10 + number / 80, abs=0.02) for number in range(20)]


def test_a_rate_of_a_message_in_some_seconds_is_kept_and_used_up() -> None:
    store, vendor = MemoryStore(clock=CLOCK), Vendor()
    with ledger_of(messages(10)) as ledger:
        ended = run(ledger, vendor, rate=shared(store, 0.2))
    assert ended.report.counts == {ACCEPTED: 10}
    assert vendor.times() == [pytest.approx(5 * number, abs=0.01) for number in range(10)]


def test_throttling_slows_a_run_down_below_the_shared_rate() -> None:
    throttled = Vendor(lambda post: Answer(429, {}, b"") if post.attempt == 1 and post.at < 1 else None)
    with ledger_of(messages(800)) as ledger:
        ended = run(ledger, throttled, rate=shared(MemoryStore(clock=CLOCK)), concurrency=64)
    assert ended.report.counts == {ACCEPTED: 800}
    assert sum(1 <= at < 2 for at in throttled.times()) < 60


# ---------------------------------------------------------------------------------------------- the store fails


def runs_over(store: MemoryStore, *, check: Callable[[Ended, Vendor], None]) -> None:
    vendor = Vendor()
    with ledger_of(messages(400)) as ledger:
        check(run(ledger, vendor, rate=shared(store), concurrency=64, patience=60), vendor)
        if rows(ledger):
            assert not in_state(ledger, SENDING)


def test_an_outage_of_the_store_is_waited_for_with_ever_longer_pauses() -> None:
    def check(ended: Ended, vendor: Vendor) -> None:
        assert ended.report == Report(Counter({ACCEPTED: 400}), None, False)
        assert not any(2 <= at < 22 for at in vendor.times())

    store = FailingStore(StoreError("down"), after=2, seconds=20)
    runs_over(store, check=check)
    assert len({round(at, 1) for at in store.asked}) <= 8


@pytest.mark.parametrize("error", [StoreError("down"), RuntimeError("a store of one's own")], ids=["ours", "foreign"])
def test_a_store_that_is_down_for_a_minute_pauses_the_run(error: Exception) -> None:
    def check(ended: Ended, vendor: Vendor) -> None:
        assert isinstance(ended.report.paused, StoreError)
        assert ended.report.counts == {QUEUED: 400}
        assert 60 <= ended.at <= 75

    runs_over(FailingStore(error), check=check)


def test_a_store_that_cannot_be_used_pauses_the_run_at_once() -> None:
    def check(ended: Ended, vendor: Vendor) -> None:
        assert isinstance(ended.report.paused, ConfigurationError)
        assert ended.report.counts == {QUEUED: 400}
        assert ended.at < 0.1

    runs_over(FailingStore(ConfigurationError("no rights")), check=check)


def test_the_rate_of_a_run_alone_is_used_up() -> None:
    vendor = Vendor(always(refusal(9015)), latency=0.2)
    with ledger_of(messages(80)) as ledger:
        ended = run(ledger, vendor, rate=shared(MemoryStore(clock=CLOCK)), concurrency=64)
    assert ended.at == pytest.approx(1.2, abs=0.1)
