"""Two reports side by side."""

import attrs

from .figures import Figure, figures
from .report import Report

__all__ = ["Comparison", "compare"]


@attrs.frozen
class Comparison:
    """One figure of two runs.

    Attributes:
        first: The figure of the first run.
        second: The same of the second.
    """

    first: Figure
    second: Figure

    @property
    def ratio(self) -> float | None:
        """How many times the first the second is; ``None`` where there is nothing to divide."""
        return self.second.value / self.first.value if self.first.value and self.second.value is not None else None

    @property
    def change(self) -> str:
        """The same in words: percents up to twice as much, else times."""
        if self.ratio is None:
            return ""
        return (
            f"{(self.ratio - 1) * 100:+.1f} %"
            if self.ratio < 2
            else f"x {self.ratio:,.{1 if self.ratio < 100 else 0}f}"
        )


def compare(first: Report, second: Report) -> tuple[list[Comparison], list[str]]:
    """Return every figure of both runs, and what makes them hard to compare."""
    ours = {figure.name: figure for figure in figures(first)}
    theirs = {figure.name: figure for figure in figures(second)}
    rows = []
    for name, figure in (ours | theirs).items():
        absent = Figure(name, None, figure.unit)
        rows.append(Comparison(ours.get(name, absent), theirs.get(name, absent)))
    return rows, _differences(first, second)


def _differences(first: Report, second: Report) -> list[str]:
    ours, theirs = _circumstances(first), _circumstances(second)
    return [
        f"{name}: {ours[name]} in the first, {theirs[name]} in the second"
        for name in ours
        if ours[name] != theirs[name]
    ]


def _circumstances(report: Report) -> dict[str, str]:
    """Tell everything but the library's own versions, which are what comparing is for."""
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
        "target": report.target or "not told",
        "platform": machine.platform,
        "processors": str(machine.cpus),
        "Python": machine.python,
        "event loop": machine.event_loop,
        "interrupted": "yes" if report.interrupted else "no",
        "dropped arrivals": "some" if dropped else "none",
    }
