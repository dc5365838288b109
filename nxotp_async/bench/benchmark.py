"""A run of the benchmark, from the warm-up to the report."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import cycle

import attrs

from ..client import OtpClient
from ..clocks import Clock
from ..messages import OtpMessage
from ..results import SendStatus
from .histogram import Histogram
from .loops import closed_loop, loop_lag, open_loop
from .plan import Plan
from .recorder import LATE_AFTER, Recorder
from .report import Arrivals, BenchmarkReport, Machine

__all__ = ["Benchmark", "made_up_messages"]


class Benchmark:
    """Loads the server that a client sends to, and measures.

        report = await Benchmark(client, made_up_messages(), Plan(rate=200, duration=5)).run()
        print(report.latency.p99, report.throughput)

    Args:
        client: The client. Its ``max_concurrency`` limits the requests in flight, in the open loop too, where waiting
            for a permit is a part of the latency. Its ``rate_limit``, if it has one, applies and is measured.
        messages: The messages to send, in a cycle. They should have no ``cus_message_id``: two messages with the same
            id are not sent at the same time.
        plan: How to load, and for how long.
        target: A description of the server, for the report.
        clock: Sources of time for tests.

    Raises:
        ValueError: There are no messages.

    Attributes:
        recorder: The measurements so far; ``None`` before and during the warm-up.
    """

    def __init__(
        self,
        client: OtpClient,
        messages: Sequence[OtpMessage],
        plan: Plan | None = None,
        *,
        target: str = "",
        clock: Clock | None = None,
    ) -> None:
        if not messages:
            raise ValueError("messages is empty: there is nothing to send")
        self.recorder: Recorder | None = None
        self.plan = plan or Plan()
        self._client = client
        self._messages = cycle(messages)
        self._target = target
        self._clock = clock or Clock()
        self._lag = Histogram()
        self._started_at = self._clock.time()
        self._finished = False

    async def run(self) -> BenchmarkReport:
        """Warm up, measure, and return the report. After a cancellation, `report` returns what was measured."""
        plan, clock = self.plan, self._clock
        if plan.warm_up:
            warm_up = attrs.evolve(plan, count=None, duration=plan.warm_up)
            await self._load(warm_up, Recorder(clock, warm_up.window))
        self._started_at = clock.time()
        async with loop_lag(clock) as self._lag:
            self.recorder = Recorder(clock, plan.window)
            try:
                await self._load(plan, self.recorder)
            finally:
                self.recorder.finish()
        self._finished = True
        return self.report()

    async def _load(self, plan: Plan, recorder: Recorder) -> None:
        if plan.rate is None:
            await closed_loop(self._client, self._messages, plan, recorder)
        else:
            await open_loop(self._client, self._messages, plan, recorder, self._clock)

    def report(self) -> BenchmarkReport:
        """Return the report so far. It is marked as interrupted unless the run has completed."""
        recorder = self.recorder or Recorder(self._clock, self.plan.window)
        elapsed = 0.0 if self.recorder is None else recorder.elapsed
        seconds = min(elapsed, self.plan.window)
        latencies, failed, completed = recorder.latencies(), recorder.failed, recorder.completed
        arrivals = Arrivals(
            due=recorder.begun + recorder.dropped,
            late=recorder.late,
            late_after=LATE_AFTER * 1000,
            worst_lateness=recorder.worst_lateness * 1000,
            dropped=recorder.dropped,
        )
        return BenchmarkReport(
            started=datetime.fromtimestamp(self._started_at, UTC),
            target=self._target,
            transport=self._client.transport,
            concurrency=self._client.max_concurrency,
            plan=self.plan,
            interrupted=not self._finished,
            in_flight=recorder.pending,
            seconds=seconds,
            drain_seconds=elapsed - seconds,
            completed=completed,
            throughput=recorder.on_time / seconds if seconds else 0.0,
            accepted=completed - failed.total(),
            rejected=failed[SendStatus.REJECTED],
            not_sent=failed[SendStatus.NOT_SENT],
            unknown=failed[SendStatus.UNKNOWN],
            failures=dict(recorder.failures.most_common()),
            examples=dict(recorder.examples),
            retries=recorder.retries,
            latency=latencies.percentiles(),
            histogram=latencies.encode(),
            loop_lag=self._lag.percentiles(),
            arrivals=None if self.plan.rate is None else arrivals,
            cpu_per_send=recorder.cpu_seconds / completed * 1e6 if completed else None,
            cpu_share=recorder.cpu_seconds / elapsed if elapsed else 0.0,
            timeline=recorder.timeline,
            machine=Machine.here(),
        )


def made_up_messages(number: int = 1000) -> list[OtpMessage]:
    """Return messages to numbers with a country code that is not assigned. The sandbox accepts all of them."""
    return [OtpMessage(f"999555{index:07}", f"Your code is {index:06}") for index in range(number)]
