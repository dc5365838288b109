import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import orjson
import pytest
from bulk_runs import (
    ACCEPTED,
    ALICE,
    AT_ONCE,
    QUEUED,
    REJECTED,
    UNKNOWN,
    BulkLoop,
    Vendor,
    WatchedLedger,
    check,
    check_at,
    fail_some,
    fill,
    in_state,
    in_virtual_time,
    ledger_of,
    message,
    messages,
    refusal,
    rows,
    run,
    run_at,
    settled,
    virtual_dispatcher,
    went_out,
)
from test_cancellation import cancelled_at

from nxotp_async import (
    AccountError,
)
from nxotp_async.bulk import Dispatcher, Ledger, MessageState, Report
from nxotp_async.bulk.schema import Transition
from nxotp_async.hooks import Attempt
from nxotp_async.sandbox import Fault, Sandbox
from nxotp_async.testing import serve_in_thread
from nxotp_async.transports import Answer

# ---------------------------------------------------------------------------------------------- stopping


def stopping(at: float, **how: float) -> Callable[[Dispatcher], Awaitable[None]]:
    async def stop(dispatcher: Dispatcher) -> None:
        await asyncio.sleep(at)
        assert not dispatcher.is_stopping
        dispatcher.stop(**how)
        assert dispatcher.is_stopping

    return stop


def test_a_run_that_is_stopped_waits_for_what_is_in_flight_and_can_be_resumed() -> None:
    vendor = Vendor(latency=1.0)
    with ledger_of(messages(100)) as ledger:
        ended = run(ledger, vendor, meanwhile=stopping(2.5))
        posted = len(vendor.posts)
        assert posted == 12
        assert ended.report == Report(Counter({ACCEPTED: 12, QUEUED: 88}), None, True)
        assert ended.at == pytest.approx(3, abs=0.3)
        assert ended.dispatcher.in_flight == 0
        assert run(ledger, vendor).report == Report(Counter({ACCEPTED: 100}), None, False)
    assert len(vendor.posts) == 100


def test_what_fails_while_a_run_is_stopping_stays_queued() -> None:
    vendor = Vendor(lambda post: refusal(-1) if post.attempt == 1 else None, latency=1.0)
    with ledger_of(messages(20)) as ledger:
        assert run(ledger, vendor, meanwhile=stopping(0.5)).report == Report(Counter({QUEUED: 20}), None, True)
        assert len(vendor.posts) == 4
        assert run(ledger, vendor).report.counts == {ACCEPTED: 20}


@pytest.mark.parametrize("at", [0.0, 0.02, 0.1, 0.101, 0.15, 3.0])
def test_a_run_that_waits_for_the_rate_can_be_stopped_at_any_time(at: float) -> None:
    vendor = Vendor()
    with ledger_of(messages(100)) as ledger:
        ended = run(ledger, vendor, meanwhile=stopping(at), rate=0.1)
        assert ended.at <= at + 0.3
        assert ended.report.stopped
        assert ended.report.counts[ACCEPTED] == len(vendor.posts) <= 1


async def test_a_run_that_was_stopped_before_it_began_sends_nothing() -> None:
    with ledger_of(messages(5)) as ledger:
        async with Sandbox() as sandbox, sandbox.client() as client:
            dispatcher = Dispatcher(ledger, client)
            dispatcher.stop()
            assert await dispatcher.run() == Report(Counter({QUEUED: 5}), None, True)
            assert not sandbox.requests


async def test_a_run_is_stopped_in_the_middle_of_real_traffic() -> None:
    with ledger_of(messages(200)) as ledger:
        async with Sandbox() as sandbox, sandbox.client(max_concurrency=8) as client:
            dispatcher = Dispatcher(ledger, client)
            attempts = count(1)

            def stop_after_the_fiftieth(_: Attempt) -> None:
                if next(attempts) == 50:
                    dispatcher.stop()

            client.add_hooks(on_attempt=stop_after_the_fiftieth)
            report = await dispatcher.run()
            check(ledger, went_out(sandbox), report)
            assert report.stopped
            assert 50 <= report.counts[ACCEPTED] <= 57
            assert report.counts[QUEUED] == 200 - report.counts[ACCEPTED]
            assert (await run_at(sandbox, ledger)).counts == {ACCEPTED: 200}


@pytest.mark.parametrize("within", [0.0, 3.0])
def test_what_hangs_when_the_patience_ends_is_unknown_and_the_rest_queued(within: float) -> None:
    vendor = Vendor(latency=1e6)
    with ledger_of(messages(20)) as ledger:
        ended = run(ledger, vendor, meanwhile=stopping(2.0, within=within))
        assert ended.report == Report(Counter({UNKNOWN: 4, QUEUED: 16}), None, True)
        assert ended.at == pytest.approx(2 + within, abs=0.01)
        assert in_state(ledger, UNKNOWN) == {"m0", "m1", "m2", "m3"}
        assert {row["attempts"] for row in rows(ledger).values()} == {0, 1}
        vendor.latency = 0.1
        assert run(ledger, vendor).report.counts == {UNKNOWN: 4, ACCEPTED: 16}
    assert len(vendor.posts) == 20


def test_a_second_stop_does_not_lengthen_the_patience() -> None:
    async def twice(dispatcher: Dispatcher) -> None:
        await stopping(1.0, within=3.0)(dispatcher)
        await asyncio.sleep(2.0)
        dispatcher.stop(within=100.0)

    with ledger_of(messages(20)) as ledger:
        assert run(ledger, Vendor(latency=1e6), meanwhile=twice).at == pytest.approx(4, abs=0.01)


def test_a_run_that_is_ending_as_paused_can_be_hurried_up() -> None:
    vendor = Vendor(lambda post: refusal(9005) if post.name == "m0" else None)
    hang = asyncio.sleep

    class Slow(Vendor):
        async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
            answer = await super().post(url, body, headers, timeout)
            if orjson.loads(body)["cus_message_id"] != "m0":
                await hang(1e6)
            return answer

    vendor = Slow(vendor.treat)
    with ledger_of(messages(4)) as ledger:
        ended = run(ledger, vendor, meanwhile=hurrying_up)
        assert isinstance(ended.report.paused, AccountError)
        assert not ended.report.stopped
        assert ended.report.counts == {UNKNOWN: 3, QUEUED: 1}
        assert ended.at == pytest.approx(30, abs=0.01)


async def hurrying_up(dispatcher: Dispatcher) -> None:
    await asyncio.sleep(29)
    assert dispatcher.is_stopping
    dispatcher.stop(within=1)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - of another thread's doing, or of a server's
            await asyncio.sleep(0)


async def test_a_client_that_is_closed_in_the_middle_of_a_run_ends_it() -> None:
    with ledger_of(messages(50)) as ledger:
        async with Sandbox() as sandbox, sandbox.client(max_concurrency=4) as client:
            dispatcher = Dispatcher(ledger, client)
            sandbox.script(*[Fault()] * 10, *[Fault.hang()] * 4)
            running = asyncio.create_task(dispatcher.run())
            await until(lambda: sandbox.counts["requests"] == 14)
            await client.aclose()
            with pytest.raises(RuntimeError, match="the client was closed"):
                await running
            check(ledger, went_out(sandbox))
            assert dispatcher.counts == ledger.counts() == {ACCEPTED: 10, UNKNOWN: 4, QUEUED: 36}


# ---------------------------------------------------------------------------------------------- cancellation


class TurnLoop(BulkLoop):
    """A loop that does something at the start of its n-th turn from now."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = 0
        self.at_turn: int | None = None
        self.action: Callable[[], object] = lambda: None
        selector = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def counted(timeout: float | None = None) -> Any:
            self.turns += 1
            if self.turns == self.at_turn:
                self.action()
                timeout = 0
            return select(timeout)

        selector.select = counted


def check_interrupted(ledger: Ledger, vendor: Vendor) -> None:
    check(ledger, vendor.accepted)
    posted = {post.name for post in vendor.posts}
    assert in_state(ledger, UNKNOWN) <= posted
    assert in_state(ledger, QUEUED) >= rows(ledger).keys() - posted
    assert {row["attempts"] for name, row in rows(ledger).items() if name not in posted} <= {0}


@pytest.mark.parametrize("options", [{}, {"rate": 30.0}], ids=["no rate", "rate"])
def test_a_run_cancelled_at_any_turn_of_the_loop_leaves_nothing_behind(options: dict[str, Any]) -> None:
    async def main(turn: int, ledger: Ledger, vendor: Vendor) -> bool:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnLoop)
        before = asyncio.all_tasks()
        dispatcher = virtual_dispatcher(ledger, vendor, concurrency=3, **options)
        running = asyncio.create_task(dispatcher.run())
        loop.at_turn, loop.action = loop.turns + 1 + turn, running.cancel  # it begins in the next one
        await asyncio.wait([running])
        if not running.cancelled():
            running.result()
        for _ in range(10):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
        assert dispatcher.in_flight == 0
        assert dispatcher.counts == ledger.counts()
        return running.cancelled()

    states: Counter[MessageState] = Counter()
    for turn in count(1):
        vendor = Vendor(fail_some)
        with ledger_of(messages(7)) as ledger:
            cancelled = in_virtual_time(main(turn, ledger, vendor), TurnLoop)
            check_interrupted(ledger, vendor)
            states += ledger.counts()
            unknown = in_state(ledger, UNKNOWN)
            assert unknown >= {"m3"} & {post.name for post in vendor.posts}
            report = run(ledger, vendor).report
            assert report.counts == Counter({UNKNOWN: len(unknown | {"m3"})}) + Counter(
                {state: report.counts[state] for state in (ACCEPTED, REJECTED)}
            )
            assert max(Counter(post.name for post in vendor.posts if post.name in unknown).values(), default=0) <= 2
        if not cancelled:
            break
    assert turn > 50
    assert min(states[state] for state in (QUEUED, UNKNOWN, ACCEPTED, REJECTED)) > 10


async def test_a_run_cancelled_at_any_suspension_point_leaves_no_task_and_no_thread() -> None:
    async def awaited(suspension: int, dispatcher: Dispatcher) -> bool:
        return await cancelled_at(suspension, dispatcher.run())

    with serve_in_thread(Sandbox()) as sandbox:
        async with sandbox.client(max_concurrency=3) as client:
            await client.send_otp(ALICE, "482913")
            tasks, threads = asyncio.all_tasks(), threading.active_count()
            for suspension in range(1, 1000):
                # What was given up may reach the sandbox later: ids of their own tell it from the next run's.
                with ledger_of(message(100 * suspension + number) for number in range(9)) as ledger:
                    dispatcher = Dispatcher(ledger, client, retry=AT_ONCE)
                    cancelled = await asyncio.create_task(awaited(suspension, dispatcher))
                    await settled(client, tasks)
                    assert threading.active_count() == threads
                    check_at(sandbox, ledger)
                    assert dispatcher.in_flight == 0
                    assert await run_at(sandbox, ledger) == Report(ledger.counts(), None, False)
                    assert ledger.counts()[QUEUED] == 0
                if not cancelled:
                    break
            assert suspension >= 4


class HeldLedger(WatchedLedger):
    """A ledger whose n-th exchange waits in its thread, before or after it is done, until it is let go."""

    def __init__(self, held: int, *, when_done: bool) -> None:
        super().__init__(None)
        self.entered, self.go_on = threading.Event(), threading.Event()
        self._held = held
        self._when_done = when_done
        self._exchanges = count(1)
        self.threads: set[threading.Thread] = set()

    def expire(self, now: float, *, monotonic: float | None = None) -> Any:
        self.threads.add(threading.current_thread())
        return super().expire(now, monotonic=monotonic)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make a transaction; that of an exchange is the one that records something, or claims."""
        self._is_held = False
        with super().transaction():
            yield
        if self._is_held and self._when_done:
            self._wait()

    def record(self, transitions: Sequence[Transition], now: float) -> None:
        self._is_held = next(self._exchanges) == self._held
        if self._is_held and not self._when_done:
            self._wait()
        super().record(transitions, now)

    def _wait(self) -> None:
        self.entered.set()
        assert self.go_on.wait(10)


@contextmanager
def held_ledger(held: int, *, when_done: bool) -> Iterator[HeldLedger]:
    with HeldLedger(held, when_done=when_done) as ledger:
        fill(ledger, messages(12))
        yield ledger


@pytest.mark.parametrize("when_done", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("held", [1, 2, 3])
async def test_a_run_cancelled_while_the_ledger_is_written_leaves_nothing_behind(held: int, when_done: bool) -> None:
    with serve_in_thread(Sandbox()) as sandbox, held_ledger(held, when_done=when_done) as ledger:
        async with sandbox.client(max_concurrency=3) as client:
            tasks, threads = asyncio.all_tasks(), threading.active_count()
            running = asyncio.create_task(Dispatcher(ledger, client).run())
            await until(ledger.entered.is_set)
            running.cancel()
            asyncio.get_running_loop().call_soon(ledger.go_on.set)
            with pytest.raises(asyncio.CancelledError):
                await running
            await settled(client, tasks)
            assert threading.active_count() == threads
        assert len(ledger.threads) == 1  # one after the other, whatever was still under way
        check_at(sandbox, ledger)
        if held == 1:
            assert ledger.counts() == {QUEUED: 12}
            assert not sandbox.requests
        else:
            # What the exchange has claimed was never posted.
            assert {row["attempts"] for row in rows(ledger).values() if row["status"] == QUEUED} == {0}
            begun = ledger.counts()[ACCEPTED] + ledger.counts()[UNKNOWN]
            assert len(sandbox.requests) <= begun <= 3 * (held - 1)
        assert (await run_at(sandbox, ledger)).counts[QUEUED] == 0


@pytest.mark.parametrize("held", [1, 2])
async def test_what_is_claimed_while_a_run_is_being_stopped_is_not_sent(held: int) -> None:
    with held_ledger(held, when_done=True) as ledger:
        async with Sandbox() as sandbox, sandbox.client(max_concurrency=3) as client:
            dispatcher = Dispatcher(ledger, client)
            running = asyncio.create_task(dispatcher.run())
            await until(ledger.entered.is_set)
            dispatcher.stop()
            ledger.go_on.set()
            report = await running
            check(ledger, went_out(sandbox), report)
            sent = 3 * (held - 1)
            assert report == Report(+Counter({QUEUED: 12 - sent, ACCEPTED: sent}), None, True)
            assert len(sandbox.requests) == sent
