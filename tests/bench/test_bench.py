"""The benchmark's loops and what they record, by a clock that stands still between two timers: every value is exact."""

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import attrs
import pytest
from support import accepted

from nxotp_async import Clock, NotSentError, OtpClient, OtpMessage, OutcomeUnknownError
from nxotp_async.bench import Benchmark, BenchmarkReport, Plan, made_up_messages
from nxotp_async.bench.figures import caveats
from nxotp_async.bench.histogram import Histogram
from nxotp_async.bench.recorder import Recorder, Second
from nxotp_async.sandbox import MAGIC_RECIPIENTS, Fault, Sandbox, sandbox_client
from nxotp_async.transports import Answer

_T = TypeVar("_T")

# Powers of two, so that every due time is a binary fraction, and sums of them are exact.
START = 4096.0  # seconds
RATE = 64
TICK = 1 / RATE
REFUSED = Answer(200, {}, b'{"code":9015,"message":"no code","data":null}')
BUSY = Answer(200, {}, b'{"code":9001,"message":"busy","data":null}')


class ExactLoop(asyncio.SelectorEventLoop):
    """An event loop whose time moves only when there is nothing to do but to wait, and then to the next timer."""

    def __init__(self) -> None:
        self.now = START
        selector = selectors.DefaultSelector()
        select = selector.select

        def jump(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            assert timeout is not None, "nothing would ever happen again"
            self.now += timeout
            return select(0)

        selector.select = jump  # type: ignore[method-assign]
        super().__init__(selector)
        self._clock_resolution = math.ulp(START)  # timers fire before this has passed, and so never early

    def time(self) -> float:
        return self.now


class Vendor:
    """A transport that answers after a while, and at times stalls: answers nobody before the stall is over.

    Attributes:
        posts: How many requests came.
        most: How many were in flight at the most.
    """

    def __init__(self, takes: float = 0.0, *, stalls: tuple[float, float] = (0.0, 0.0), blocks_at: float = -1) -> None:
        self.posts = self.most = 0
        self.outcomes: dict[str, list[Answer | Exception]] = {}
        self._in_flight = 0
        self._takes = takes
        self._stalls = stalls
        self._blocks_at = blocks_at

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ExactLoop)
        self.posts += 1
        self._in_flight += 1
        self.most = max(self.most, self._in_flight)
        begin, end = (START + moment for moment in self._stalls)
        if loop.now == START + self._blocks_at:
            loop.now += 1.0  # as a callback does that computes, or blocks
        await asyncio.sleep((end - loop.now if begin <= loop.now < end else 0.0) + self._takes)
        self._in_flight -= 1
        outcomes = next((every for number, every in self.outcomes.items() if number.encode() in body), [])
        outcome = outcomes.pop(0) if outcomes else Answer(200, {}, accepted())
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def aclose(self) -> None:
        pass


def exactly(main: Callable[[Clock], Coroutine[Any, Any, _T]]) -> _T:
    loop = ExactLoop()
    clock = Clock(time=lambda: 1_800_000_000 + loop.now, monotonic=loop.time, random=lambda: 1.0)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(clock))


def client_of(vendor: Vendor, clock: Clock, permits: int) -> OtpClient:
    return sandbox_client("https://otp.invalid", transport=vendor, clock=clock, max_concurrency=permits)


def measured(
    vendor: Vendor, plan: Plan, *, permits: int = 1000, messages: list[OtpMessage] | None = None
) -> BenchmarkReport:
    async def main(clock: Clock) -> BenchmarkReport:
        async with client_of(vendor, clock, permits) as client:
            report = await Benchmark(client, messages or made_up_messages(), plan, clock=clock).run()
        assert len(asyncio.all_tasks()) == 1
        return report

    return exactly(main)


def plan(**options: Any) -> Plan:
    return Plan(**{"warm_up": 0, **options})


def assert_latencies(report: BenchmarkReport, expected: list[float]) -> None:
    """Check every single latency: that the histograms are one and the same."""
    histogram = Histogram()
    for seconds in expected:
        histogram.record(seconds)
    assert report.completed == len(expected)
    assert report.histogram == histogram.encode()
    assert report.latency == histogram.percentiles()


# ---------------------------------------------------------------------------------------------- no coordinated omission


def test_a_stall_shows_in_the_latency_of_every_arrival_it_kept_waiting() -> None:
    report = measured(Vendor(stalls=(1, 2)), plan(rate=RATE, duration=32))
    ramp = [1 - place / RATE for place in range(RATE)]
    assert_latencies(report, ramp + [0.0] * (31 * RATE))
    assert report.latency is not None
    assert report.latency.max == 1000
    assert report.latency.p999 == pytest.approx(1000 - 2000 / RATE, rel=0.001)
    assert report.latency.p99 == pytest.approx(1000 - 1000 * 20 / RATE, rel=0.001)


def test_a_closed_loop_hides_the_same_stall() -> None:
    report = measured(Vendor(TICK, stalls=(1, 2)), plan(duration=32), permits=1)
    assert_latencies(report, [1 + TICK] + [TICK] * (31 * RATE - 1))
    assert report.latency is not None
    assert report.latency.max == 1015.625
    assert report.latency.p999 == pytest.approx(1000 * TICK, rel=0.001)


def test_a_blocked_event_loop_shows_likewise_and_the_late_are_counted() -> None:
    vendor = Vendor(blocks_at=1)
    report = measured(vendor, plan(rate=RATE, duration=4))
    assert vendor.most >= RATE - 1  # what has come due begins at once, not one after another
    assert_latencies(report, [1 - place / RATE for place in range(RATE)] + [0.0] * (3 * RATE))
    assert report.arrivals is not None
    assert (report.arrivals.due, report.arrivals.dropped) == (4 * RATE, 0)
    assert report.arrivals.late == RATE - 1  # all that came due while the first one blocked
    assert report.arrivals.worst_lateness == 1000 - 1000 / RATE
    assert report.loop_lag is not None
    assert 970 <= report.loop_lag.max <= 1000
    # Of the timers that a second of four held up, one each 20 ms, not only the first is counted.
    assert report.loop_lag.p90 > 500


def test_an_arrival_just_in_time_is_not_late() -> None:
    recorder = Recorder(Clock(), math.inf)
    for lateness in (0.0, 0.010, 0.011, 0.5):
        recorder.arrived(lateness)
    assert (recorder.late, recorder.worst_lateness) == (2, 0.5)


def test_arrivals_beyond_those_that_may_be_pending_are_dropped_and_counted() -> None:
    report = measured(Vendor(stalls=(0, 1)), plan(rate=RATE, duration=4, max_pending=10))
    assert_latencies(report, [1 - place / RATE for place in range(10)] + [0.0] * (3 * RATE))
    assert report.arrivals is not None
    assert (report.arrivals.due, report.arrivals.dropped) == (4 * RATE, RATE - 10)
    assert (report.completed, report.in_flight) == (4 * RATE - (RATE - 10), 0)


def test_the_permits_bound_what_is_in_flight_and_waiting_for_one_is_latency() -> None:
    vendor = Vendor(4 * TICK)
    report = measured(vendor, plan(rate=RATE, count=8), permits=2)
    assert_latencies(report, [(4 + place // 2 * 2) * TICK for place in range(8)])
    assert vendor.most == 2
    assert report.arrivals is not None
    assert report.arrivals.late == 0


def test_a_schedule_does_not_drift() -> None:
    begun: list[float] = []

    class Noting(Vendor):
        async def post(self, *request: Any) -> Answer:
            begun.append(asyncio.get_running_loop().time() - START)
            return await super().post(*request)

    report = measured(Noting(), plan(rate=RATE, duration=3))
    assert begun == [place / RATE for place in range(3 * RATE)]
    assert (report.seconds, report.drain_seconds, report.throughput) == (3.0, 0.0, RATE)


def test_a_timer_that_fires_early_begins_nothing_early() -> None:
    async def main(clock: Clock) -> BenchmarkReport:
        async def sleep(seconds: float) -> None:
            await asyncio.sleep(seconds * 0.75)

        hasty = Clock(time=clock.time, monotonic=clock.monotonic, sleep=sleep)
        async with client_of(Vendor(), clock, 8) as client:
            return await Benchmark(client, made_up_messages(), plan(rate=1, count=4), clock=hasty).run()

    report = exactly(main)
    assert report.latency is not None
    assert 0 <= report.latency.max < 1
    assert report.seconds == 4


@pytest.mark.parametrize(("rate", "duration", "due"), [(30, 0.1, 3), (0.5, 10, 5), (0.3, 10, 3), (1000, 0.0001, 1)])
def test_what_is_due_before_the_end_arrives(rate: float, duration: float, due: int) -> None:
    report = measured(Vendor(), plan(rate=rate, duration=duration))
    assert report.completed == due
    assert report.seconds == pytest.approx(duration)
    assert report.throughput == pytest.approx(due / duration)


# ---------------------------------------------------------------------------------------------- the closed loop


def test_a_closed_loop_keeps_its_number_in_flight_and_sees_all_of_them_through() -> None:
    vendor = Vendor(1.0)
    report = measured(vendor, plan(duration=2.5), permits=3)
    assert_latencies(report, [1.0] * 9)
    assert (vendor.posts, vendor.most, report.concurrency) == (9, 3, 3)
    assert (report.seconds, report.drain_seconds) == (2.5, 0.5)
    assert report.throughput == 6 / 2.5  # what came after the window does not count
    assert report.arrivals is None


def test_a_closed_loop_ends_after_its_count() -> None:
    vendor = Vendor(0.5)
    report = measured(vendor, plan(count=7), permits=2)
    assert (vendor.posts, report.completed, vendor.most) == (7, 7, 2)
    assert (report.seconds, report.drain_seconds, report.throughput) == (2.0, 0.0, 3.5)


# ---------------------------------------------------------------------------------------------- warming up

both_loops = pytest.mark.parametrize("load", [{}, {"rate": RATE}], ids=["closed", "open"])


@both_loops
def test_the_warm_up_counts_for_nothing(load: dict[str, float]) -> None:
    vendor = Vendor(TICK, stalls=(0, 0.5))
    first = made_up_messages(1)
    vendor.outcomes[first[0].to] = [REFUSED] * 4
    report = measured(vendor, plan(duration=2, warm_up=1, **load), permits=1, messages=first)
    assert_latencies(report, [TICK] * (2 * RATE))
    assert vendor.posts > report.completed
    assert (report.accepted, report.failures, report.retries) == (2 * RATE, {}, 0)
    assert report.arrivals is None or (report.arrivals.due, report.arrivals.late) == (2 * RATE, 0)
    assert (report.seconds, report.timeline[0].second, len(report.timeline)) == (2.0, 0, 3)
    assert report.started.timestamp() >= 1_800_000_000 + START + 1


# ---------------------------------------------------------------------------------------------- outcomes


@both_loops
def test_every_outcome_is_counted_by_status_and_reason(load: dict[str, float]) -> None:
    vendor = Vendor()
    messages = made_up_messages(5)
    vendor.outcomes = {
        messages[0].to: [REFUSED],
        messages[1].to: [NotSentError("refused")],
        messages[2].to: [OutcomeUnknownError("gone")],
        messages[3].to: [BUSY, BUSY],  # and well at the third attempt
    }
    report = measured(vendor, plan(count=10, **load), messages=messages)
    assert (report.completed, report.accepted, report.rejected, report.not_sent, report.unknown) == (10, 7, 1, 1, 1)
    assert report.failures == {"9015": 1, "NotSentError": 1, "OutcomeUnknownError": 1}
    assert report.examples["NotSentError"] == "refused"
    assert report.examples.keys() == report.failures.keys()
    assert report.retries == 2
    assert vendor.posts == 12
    assert sum(second.failed for second in report.timeline) == 3


@both_loops
def test_messages_are_sent_again_from_the_first_one(load: dict[str, float]) -> None:
    report = measured(Vendor(), plan(count=10, **load), messages=made_up_messages(3))
    assert report.accepted == 10


def test_a_benchmark_without_messages_is_refused() -> None:
    with pytest.raises(ValueError, match="messages is empty"):
        Benchmark(sandbox_client("https://otp.invalid"), [])


def test_what_is_made_up_is_nobodys_and_always_accepted() -> None:
    numbers = {message.to for message in made_up_messages()}
    assert len(numbers) == 1000
    assert all(number.startswith("999555") for number in numbers)
    assert not numbers & MAGIC_RECIPIENTS.keys()


# ---------------------------------------------------------------------------------------------- the timeline


def test_a_second_in_which_nothing_ended_has_its_row() -> None:
    report = measured(Vendor(stalls=(1, 3)), plan(rate=2, duration=5))
    counts = [(row.second, row.completed, row.p50, row.p99) for row in report.timeline]
    assert counts == [(0, 2, 0, 0), (1, 0, None, None), (2, 0, None, None), (3, 6, 500.223, 2000), (4, 2, 0, 0)]
    assert sum(row.completed for row in report.timeline) == report.completed


def test_the_last_second_that_passed_is_there_for_who_asks() -> None:
    now = 5.0
    recorder = Recorder(Clock(monotonic=lambda: now), 10.0)
    assert recorder.last_second() is None
    recorder.add(0.25, 1, None)
    now = 6.5
    assert recorder.last_second() == Second(0, 1, 0, 250.0, 250.0)
    now = 8.0
    assert recorder.last_second() == Second(2, 0, 0, None, None)
    assert (recorder.elapsed, recorder.seconds, recorder.time_left) == (3.0, 3.0, 7.0)
    now = 30.0
    assert (recorder.elapsed, recorder.seconds, recorder.time_left) == (25.0, 10.0, 0.0)


def test_an_end_is_final() -> None:
    now = 0.0
    recorder = Recorder(Clock(monotonic=lambda: now), math.inf)
    recorder.add(0.1, 1, None)
    now = 2.5
    recorder.finish()
    cpu = recorder.cpu_seconds
    now = 9.0
    assert (recorder.elapsed, len(recorder.timeline), recorder.cpu_seconds) == (2.5, 3, cpu)


# ---------------------------------------------------------------------------------------------- being interrupted


@both_loops
def test_what_was_measured_before_an_interruption_is_reported(load: dict[str, float]) -> None:
    async def main(clock: Clock) -> BenchmarkReport:
        vendor = Vendor(stalls=(2, 1000))
        vendor._takes = TICK
        async with client_of(vendor, clock, 4) as client:
            benchmark = Benchmark(client, made_up_messages(), plan(duration=60, **load), clock=clock)
            running = asyncio.create_task(benchmark.run())
            await asyncio.sleep(2.5)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert asyncio.all_tasks() == {asyncio.current_task()}
            return benchmark.report()

    report = exactly(main)
    assert report.interrupted
    assert (report.seconds, report.drain_seconds) == (2.5, 0.0)
    assert report.in_flight == (RATE // 2 if load else 4)
    assert report.completed == (2 * RATE if load else 4 * 2 * RATE)
    assert report.throughput == report.completed / 2.5
    assert len(report.timeline) == 3


def test_a_warm_up_that_is_interrupted_has_measured_nothing() -> None:
    async def main(clock: Clock) -> BenchmarkReport:
        async with client_of(Vendor(TICK), clock, 4) as client:
            benchmark = Benchmark(client, made_up_messages(), plan(duration=60, warm_up=10), clock=clock)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await benchmark.run()
            return benchmark.report()

    report = exactly(main)
    assert report.interrupted
    assert (report.completed, report.latency, report.timeline) == (0, None, [])
    assert (report.throughput, report.cpu_per_send, report.loop_lag) == (0.0, None, None)
    assert (report.seconds, report.drain_seconds, report.cpu_share) == (0.0, 0.0, 0.0)


def test_a_server_that_cannot_keep_up_is_told_from_one_whose_last_messages_are_tried_again() -> None:
    slow = measured(Vendor(2 * TICK), plan(rate=RATE, duration=8), permits=1)
    assert any("the queue grew" in caveat for caveat in caveats(slow))
    vendor = Vendor()
    vendor.outcomes = {message.to: [BUSY, BUSY] for message in made_up_messages(4 * RATE)[::3]}
    retried = measured(vendor, plan(rate=RATE, duration=4))
    assert retried.throughput < 0.9 * RATE
    assert not any("the queue grew" in caveat for caveat in caveats(retried))


# ---------------------------------------------------------------------------------------------- plans


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"count": 5, "duration": 5}, "either count or duration must be given, and not both"),
        ({"duration": None}, "either count or duration must be given, and not both"),
        ({"count": 0}, "count must be 1 at least"),
        ({"duration": 0}, "duration must be more than 0"),
        ({"duration": math.nan}, "duration must be more than 0"),
        ({"duration": 1e6}, "duration must be more than 0, and 86,400 at most"),
        ({"rate": 0}, "rate must be 0.001 at least, and 100,000 at most"),
        ({"rate": math.nan}, "rate must be 0.001 at least"),
        ({"rate": math.inf}, "rate must be 0.001 at least"),
        ({"warm_up": -1}, "warm_up must be 0 at least, and 86,400 at most"),
        ({"warm_up": math.nan}, "warm_up must be"),
        ({"max_pending": 0}, "max_pending must be 1 at least"),
        ({"count": 1.5}, "count must be an integer, not float"),
    ],
    ids=str,
)
def test_a_plan_that_makes_no_sense_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Plan(**options)


def test_a_plan_lasts_ten_seconds_where_nothing_else_is_said() -> None:
    assert (Plan().duration, Plan(count=5).duration, Plan(duration=3).duration) == (10.0, None, 3)
    assert (Plan().rate, Plan().warm_up) == (None, 2.0)


# ---------------------------------------------------------------------------------------------- histograms


def test_a_histogram_tells_percentiles_to_three_digits_and_the_slowest_exactly() -> None:
    histogram = Histogram()
    assert (histogram.percentiles(), len(histogram)) == (None, 0)
    for milliseconds in range(1, 10_001):
        histogram.record(milliseconds / 1000)
    histogram.record(12.345678)
    figures = histogram.percentiles()
    assert figures is not None
    assert attrs.astuple(figures) == pytest.approx((5000, 9000, 9900, 9990, 12345.678), rel=0.001)
    assert figures.max == 12345.678


def test_adding_histograms_keeps_the_slowest_exact() -> None:
    first, second = Histogram(), Histogram()
    first.record(1.234567)
    second.record(0.5)
    first.add(second)
    second.add(first)
    for histogram, count in ((first, 2), (second, 3)):
        figures = histogram.percentiles()
        assert figures is not None
        assert (figures.max, len(histogram)) == (1234.567, count)


def test_durations_out_of_range_are_counted_at_its_ends() -> None:
    histogram = Histogram()
    for seconds in (-1.0, 0.0, 1e9):
        histogram.record(seconds)
    figures = histogram.percentiles()
    assert figures is not None
    assert (len(histogram), figures.p50, figures.max) == (3, 0, 3_600_000)


def test_a_long_delay_counts_for_all_it_held_up() -> None:
    histogram, expected = Histogram(), Histogram()
    histogram.record_delay(0.1, 0.02)
    for delay in (0.1, 0.08, 0.06, 0.04, 0.02):
        expected.record(delay)
    assert histogram.encode() == expected.encode()


def test_a_histogram_is_read_back_whole() -> None:
    histogram = Histogram()
    for seconds in (0.000001, 0.5, 1.0, 30.0):
        histogram.record(seconds)
    again = Histogram.decode(histogram.encode())
    assert again.encode() == histogram.encode()
    assert [share for share, _ in again.curve()][-1] == 1.0
    for (share, value), (_, original) in zip(again.curve(), histogram.curve(), strict=True):
        assert value == pytest.approx(original, rel=0.001), share


def test_the_curve_rises_to_the_slowest() -> None:
    histogram = Histogram()
    for milliseconds in range(1, 1001):
        histogram.record(milliseconds / 1000)
    shares, values = zip(*histogram.curve(), strict=True)
    assert list(shares) == sorted(shares)
    assert list(values) == sorted(values)
    assert (shares[-1], values[-1]) == (1.0, 1000.0)


# ---------------------------------------------------------------------------------------------- over real HTTP


async def test_over_http_a_stall_of_a_second_shows_in_more_than_one_latency() -> None:
    async with Sandbox() as sandbox, sandbox.client(max_concurrency=1) as client:
        sandbox.script(Fault.slow(1.0))
        report = await Benchmark(client, made_up_messages(), plan(rate=100, count=120), target="sandbox").run()
    assert (report.accepted, report.target) == (120, "sandbox")
    assert report.latency is not None
    assert report.latency.max >= 1000
    assert report.latency.p999 >= 990
    assert report.latency.p90 >= 800  # arrival i waits for 1 - i / 100 s at the least
    assert report.latency.p50 >= 350
    assert report.cpu_per_send is not None
    assert report.cpu_per_send > 0


async def test_over_http_a_closed_loop_loads_the_sandbox_with_all_its_permits() -> None:
    async with Sandbox(latency=0.01) as sandbox, sandbox.client(max_concurrency=8) as client:
        report = await Benchmark(client, made_up_messages(), plan(count=80)).run()
        assert sandbox.max_in_flight == 8
        assert sandbox.counts["messages"] == report.accepted == 80
    assert report.latency is not None
    assert report.latency.p50 >= 10
    assert report.throughput <= 800
