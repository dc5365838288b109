"""The figures of a report, its caveats, and the comparison of two reports."""

from collections.abc import Iterator
from typing import Final

import attrs

from ..results import SendStatus
from .histogram import Percentiles
from .report import Arrivals, BenchmarkReport

__all__ = ["Comparison", "Figure", "caveats", "compare", "described", "figures"]

_SHORTFALL: Final = 0.05  # of the outcomes missing, and of latency growth per second, above which the queue grew
_FEWEST_SECONDS: Final = 3  # needed to distinguish a growing queue from noise


@attrs.frozen
class Figure:
    """A number with its name and its unit, which is empty for a count. ``None`` where there is no number."""

    name: str
    value: float | None
    unit: str = ""

    @property
    def text(self) -> str:
        """The number with its unit, to at least three digits."""
        if self.value is None:
            return "-"
        decimals = 0 if not self.unit or abs(self.value) >= 100 else 1 if abs(self.value) >= 10 else 2
        return f"{self.value:,.{decimals}f} {self.unit}".rstrip()


def figures(report: BenchmarkReport) -> list[Figure]:
    """Return every figure of a report, the most important first."""
    return [
        *_percentiles("latency", report.latency, "p50", "p90", "p99", "p999", "max"),
        # There is none if messages were due for less time than the first one took.
        Figure("throughput", report.throughput or None, "messages/s"),
        Figure("completed", report.completed),
        *(Figure(status.label, getattr(report, status)) for status in SendStatus),
        *(Figure(f"failed with {reason}", number) for reason, number in report.failures.items()),
        Figure("retries", report.retries),
        *([] if report.arrivals is None else _arrivals(report.arrivals)),
        Figure("CPU per send", report.cpu_per_send, "µs"),
        Figure("CPU, of one processor", report.cpu_share * 100, "%"),
        *_percentiles("event-loop lag", report.loop_lag, "p50", "p99", "max"),
    ]


def _percentiles(name: str, values: Percentiles | None, *shares: str) -> Iterator[Figure]:
    for share in shares:
        label = "p99.9" if share == "p999" else share
        yield Figure(f"{name} {label}", None if values is None else getattr(values, share), "ms")


def _arrivals(arrivals: Arrivals) -> Iterator[Figure]:
    yield Figure("arrivals due", arrivals.due)
    yield Figure("arrivals dropped", arrivals.dropped)
    yield Figure(f"arrivals late by more than {arrivals.late_after:g} ms", arrivals.late)
    yield Figure("worst lateness", arrivals.worst_lateness, "ms")


def described(report: BenchmarkReport) -> str:
    """Return a sentence that describes the run."""
    plan, most = report.plan, f"{report.concurrency:,} in flight"
    load = (
        f"closed loop, {most}" if plan.rate is None else f"open loop, {plan.rate:,g} arrivals a second, {most} at most"
    )
    extent = f"{plan.count:,} messages" if plan.duration is None else f"{plan.duration:,g} s"
    target = f" against {report.target}" if report.target else ""
    return f"{load}, {extent} after a warm-up of {plan.warm_up:g} s{target}, transport {report.transport}"


def caveats(report: BenchmarkReport) -> list[str]:
    """Return what limits the meaning of the figures."""
    return [*_of_the_run(report), *_of_the_load(report)]


def _of_the_run(report: BenchmarkReport) -> Iterator[str]:
    if report.interrupted and not report.seconds:
        yield "interrupted in the warm-up: nothing was measured"
        return
    if report.interrupted:
        passed = f"{report.seconds:.1f} s"
        if report.drain_seconds:
            passed += f" and {report.drain_seconds:.1f} s of waiting for the last outcomes"
        yield f"interrupted after {passed}; {report.in_flight:,} messages in flight are not counted"
    if not report.completed:
        yield "no message was completed"
    elif failed := report.completed - report.accepted:
        yield f"{failed:,} of {report.completed:,} messages were not accepted; the latencies include theirs"
    for reason, text in report.examples.items():
        yield f"{reason}, first error: {text}"


def _of_the_load(report: BenchmarkReport) -> Iterator[str]:
    arrivals, rate = report.arrivals, report.plan.rate
    if arrivals is None or rate is None:
        return
    if arrivals.late:
        yield (
            f"{arrivals.late:,} of {arrivals.due:,} arrivals began more than {arrivals.late_after:g} ms late: "
            "this process was busy; the latencies include that delay"
        )
    if arrivals.dropped:
        yield (
            f"{arrivals.dropped:,} of {arrivals.due:,} arrivals were dropped, because {report.plan.max_pending:,} were "
            "pending (max_pending); the latencies are those of the others, and too low"
        )
    elif _queue_grew(report, rate):
        yield (
            f"{report.throughput:,.0f} of {rate:,g} messages a second were completed: the queue grew until the last "
            "arrival, and in a longer run the latencies would be higher"
        )


def _queue_grew(report: BenchmarkReport, rate: float) -> bool:
    """Return whether outcomes are missing, and the median latency still grew in the second half of the run.

    Missing outcomes alone may be those of messages that wait for a retry. In a queue that keeps growing, the latency
    grows each second by the share of arrivals that are not served in it.
    """
    medians = [
        (row.second, row.p50 / 1000)
        for row in report.timeline
        if row.p50 is not None and row.second + 1 <= report.seconds
    ]
    if len(medians) < _FEWEST_SECONDS:
        return False
    (_, first), (middle, before), (last, after) = medians[0], medians[len(medians) // 2], medians[-1]
    # If the server keeps up, there are as many outcomes as arrivals, after the latency of the first one.
    missing = report.throughput * report.seconds < (1 - _SHORTFALL) * rate * (report.seconds - first)
    return missing and after - before > _SHORTFALL * (last - middle)


# ---------------------------------------------------------------------------------------------- two reports


@attrs.frozen
class Comparison:
    """One figure of two runs."""

    first: Figure
    second: Figure

    @property
    def ratio(self) -> float | None:
        """The second divided by the first, or ``None`` if one is missing or 0."""
        return self.second.value / self.first.value if self.first.value and self.second.value is not None else None

    @property
    def change(self) -> str:
        """The ratio as text: a percentage below 2, otherwise a factor."""
        if self.ratio is None:
            return ""
        if self.ratio < 2:
            return f"{(self.ratio - 1) * 100:+.1f} %"
        return f"x {self.ratio:,.{1 if self.ratio < 100 else 0}f}"


def compare(first: BenchmarkReport, second: BenchmarkReport) -> tuple[list[Comparison], list[str]]:
    """Return every figure of both runs, and the differences in their conditions."""
    ours = {figure.name: figure for figure in figures(first)}
    theirs = {figure.name: figure for figure in figures(second)}
    rows = []
    for name, figure in (ours | theirs).items():
        absent = Figure(name, None, figure.unit)
        rows.append(Comparison(ours.get(name, absent), theirs.get(name, absent)))
    here, there = _conditions(first), _conditions(second)
    return rows, [
        f"{name}: {here[name]} in the first, {there[name]} in the second" for name in here if here[name] != there[name]
    ]


def _conditions(report: BenchmarkReport) -> dict[str, str]:
    """Return the conditions of a run, but for the versions of the libraries, which are what is compared."""
    plan, machine = report.plan, report.machine
    dropped = report.arrivals.dropped if report.arrivals else 0
    return {
        "loop": "closed" if plan.rate is None else "open",
        "rate": "none" if plan.rate is None else f"{plan.rate:g}/s",
        "concurrency": str(report.concurrency),
        "duration": "by count" if plan.duration is None else f"{plan.duration:g} s",
        "count": "by duration" if plan.count is None else str(plan.count),
        "warm-up": f"{plan.warm_up:g} s",
        "max_pending": str(plan.max_pending),
        "target": report.target or "not given",
        "transport": report.transport,
        "platform": machine.platform,
        "processors": str(machine.cpus),
        "Python": machine.python,
        "event loop": machine.event_loop,
        "interrupted": "yes" if report.interrupted else "no",
        "dropped arrivals": "some" if dropped else "none",
    }
