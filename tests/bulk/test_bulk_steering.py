"""A run that is paused, resumed, slowed and narrowed while it is at work."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from bulk_runs import ACCEPTED, QUEUED, Vendor, always, ledger_of, messages, refusal, run, virtual_dispatcher
from support import VirtualTimeLoop

from nxotp_async import Clock, ConfigurationError
from nxotp_async.bulk import Dispatcher
from nxotp_async.bulk.pacing import SendRate
from nxotp_async.pacing import SharedRate
from nxotp_async.stores import MemoryStore

Steering = Callable[[Dispatcher], Awaitable[None]]
CLOCK = Clock(
    time=lambda: asyncio.get_running_loop().time(),
    monotonic=lambda: asyncio.get_running_loop().time(),
    sleep=asyncio.sleep,
)


def paused_from(begin: float, end: float) -> Steering:
    async def steer(dispatcher: Dispatcher) -> None:
        await asyncio.sleep(begin)
        dispatcher.pause()
        assert dispatcher.is_paused
        await asyncio.sleep(end - begin)
        assert dispatcher.in_flight == 0
        dispatcher.resume()

    return steer


@pytest.mark.parametrize("rate", [None, 20.0, "shared"])
def test_nothing_is_sent_while_a_run_is_paused_and_all_of_it_afterwards(rate: float | str | None) -> None:
    vendor = Vendor()
    limit = (
        SharedRate(MemoryStore(clock=CLOCK), "sender", 20, background=True, clock=CLOCK) if rate == "shared" else rate
    )
    with ledger_of(messages(100)) as ledger:
        ended = run(ledger, vendor, rate=limit, meanwhile=paused_from(1.0, 500.0))
        assert ended.report.counts == {ACCEPTED: 100}
        assert not ended.report.stopped
    assert not [at for at in vendor.times() if 1.2 < at < 500]
    assert 10 < len([at for at in vendor.times() if at < 1.2]) < 60


def test_what_is_in_flight_at_a_pause_has_its_outcome_written_meanwhile() -> None:
    async def steer(dispatcher: Dispatcher) -> None:
        await asyncio.sleep(0.05)
        dispatcher.pause()
        await asyncio.sleep(10.0)
        assert ledger.counts() == {ACCEPTED: 4, QUEUED: 6}
        dispatcher.resume()

    with ledger_of(messages(10)) as ledger:
        assert run(ledger, Vendor(), meanwhile=steer).report.counts == {ACCEPTED: 10}


def test_a_paused_run_can_be_stopped() -> None:
    async def steer(dispatcher: Dispatcher) -> None:
        await asyncio.sleep(0.05)
        dispatcher.pause()
        await asyncio.sleep(100.0)
        dispatcher.stop()

    with ledger_of(messages(10)) as ledger:
        ended = run(ledger, Vendor(), meanwhile=steer)
        assert (ended.report.stopped, ended.report.counts) == (True, {ACCEPTED: 4, QUEUED: 6})
        assert ended.at == pytest.approx(100.05, abs=0.01)


def test_a_pause_counts_as_no_outage() -> None:
    """After it, the run has all of its patience again."""
    with ledger_of(messages(10)) as ledger:
        vendor = Vendor(lambda post: refusal(-1) if post.at < 120 else None)
        assert run(ledger, vendor, meanwhile=paused_from(2.0, 119.0)).report.counts == {ACCEPTED: 10}


def test_a_rate_is_changed_in_mid_run() -> None:
    async def steer(dispatcher: Dispatcher) -> None:
        await asyncio.sleep(2.0)
        dispatcher.set_rate(5)
        assert dispatcher.rate == 5
        await asyncio.sleep(10.0)
        dispatcher.set_rate(50)

    vendor = Vendor()
    with ledger_of(messages(300)) as ledger:
        run(ledger, vendor, rate=20, concurrency=16, meanwhile=steer)
    slow = [at for at in vendor.times() if 2.2 < at < 12]
    assert [second - first for first, second in pairwise(slow)] == pytest.approx([0.2] * (len(slow) - 1), abs=0.11)
    assert len(slow) == pytest.approx(49, abs=2)
    assert len([at for at in vendor.times() if 13 <= at < 14]) == pytest.approx(50, abs=6)


def test_a_limit_can_be_given_and_taken_away() -> None:
    async def steer(dispatcher: Dispatcher) -> None:
        await asyncio.sleep(1.0)
        dispatcher.set_rate(10)
        await asyncio.sleep(5.0)
        dispatcher.set_rate(None)

    vendor = Vendor()
    with ledger_of(messages(200)) as ledger:
        run(ledger, vendor, meanwhile=steer)
    assert len([at for at in vendor.times() if 1.15 < at < 6]) == pytest.approx(49, abs=3)
    assert len([at for at in vendor.times() if 6.15 < at < 7]) > 20


def test_a_rate_that_the_vendor_has_lowered_stays_so_under_another_limit() -> None:
    rate = SendRate(80, 0.0)
    assert rate.throttled(0.0, 0.0)
    rate.limit_to(60, 0.0)
    assert rate.rate == 40
    rate.limit_to(30, 0.0)
    assert rate.rate == 30
    rate.limit_to(None, 0.0)
    assert rate.take(1000, 0.0) == 1000


def test_a_concurrency_is_changed_in_mid_run() -> None:
    async def steer(dispatcher: Dispatcher) -> None:
        await asyncio.sleep(5.0)
        dispatcher.set_concurrency(2)
        assert dispatcher.concurrency == 2
        await asyncio.sleep(5.0)
        assert dispatcher.in_flight <= 2
        narrow.append(ledger.most_in_flight)
        ledger.most_in_flight = 0
        await asyncio.sleep(5.0)
        narrow.append(ledger.most_in_flight)
        dispatcher.set_concurrency(8)

    narrow: list[int] = []
    with ledger_of(messages(400)) as ledger:
        run(ledger, Vendor(latency=0.5), concurrency=8, meanwhile=steer)
        assert narrow == [8, 2]
        assert ledger.most_in_flight == 8


@pytest.mark.parametrize("concurrency", [0, 5, True, 2.0])
def test_a_concurrency_beyond_the_clients_is_refused(concurrency: int) -> None:
    with ledger_of([]) as ledger:

        async def main() -> None:
            dispatcher = virtual_dispatcher(ledger, Vendor(), concurrency=4)
            with pytest.raises(ConfigurationError, match="concurrency must be"):
                dispatcher.set_concurrency(concurrency)
            assert dispatcher.concurrency == 4

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(main())


@pytest.mark.parametrize("rate", [0, -1, float("nan"), 81, None])
def test_a_rate_that_is_wrong_or_above_the_shared_one_is_refused(rate: float | None) -> None:
    async def main() -> None:
        with ledger_of([]) as ledger:
            shared = SharedRate(MemoryStore(clock=CLOCK), "sender", 80, background=True, clock=CLOCK)
            dispatcher = virtual_dispatcher(ledger, Vendor(), rate=shared)
            with pytest.raises(ConfigurationError, match="rate must be"):
                dispatcher.set_rate(rate)
            dispatcher.set_rate(8)
            assert dispatcher.rate == 8

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


def test_what_waits_for_the_vendor_is_looked_at_again_after_a_pause() -> None:
    """A run that waits longer and longer for a vendor that is away tries at once when it is resumed."""
    vendor = Vendor(always(refusal(-1)))

    async def steer(dispatcher: Dispatcher) -> None:
        await asyncio.sleep(20.0)
        dispatcher.pause()
        await asyncio.sleep(30.0)
        vendor.treat = None
        dispatcher.resume()

    with ledger_of(messages(4)) as ledger:
        assert run(ledger, vendor, meanwhile=steer).report.counts == {ACCEPTED: 4}
