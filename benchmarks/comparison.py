"""What came of a comparison: its figures, and as a table, as Markdown, as JSON and as a chart."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TypedDict

import attrs
import matplotlib as mpl
import orjson
from clients import CONTENDERS
from matplotlib.figure import Figure
from rich.table import Table

_COLUMNS = ("sends/s", "of the floor", "CPU µs a send", "of the floor's", "p50 ms", "p99 ms", "sends")


class Sample(TypedDict):
    """What ``python -m clients`` prints.

    Attributes:
        sends: How many messages were sent.
        rate: Sends a second.
        cpu: Microseconds of processor time a send.
        p50: Median latency in milliseconds; ``None`` where it would not be comparable.
        p99: The same of the 99th percentile.
    """

    sends: int
    rate: float
    cpu: float
    p50: float | None
    p99: float | None


@attrs.frozen
class Figures:
    """One contender in one event loop, round by round, and the floor in the same rounds where that ran."""

    name: str
    loop: str
    rounds: list[Sample]
    floor: list[Sample]

    @property
    def rate(self) -> float:
        return median(sample["rate"] for sample in self.rounds)

    def row(self) -> list[str]:
        """Return the cells of the table; every figure is the median of the rounds."""
        cpu = median(sample["cpu"] for sample in self.rounds)
        rates = [own["rate"] / bare["rate"] for own, bare in zip(self.rounds, self.floor, strict=False)]
        cpus = [own["cpu"] / bare["cpu"] for own, bare in zip(self.rounds, self.floor, strict=False)]
        return [
            CONTENDERS[self.name].label,
            f"{self.rate:,.0f}",
            f"{median(rates):.2f} ({min(rates):.2f}-{max(rates):.2f})" if rates else "",
            f"{cpu:,.0f}",
            f"{median(cpus):.2f}" if cpus else "",
            _middle([sample["p50"] for sample in self.rounds]),
            _middle([sample["p99"] for sample in self.rounds]),
            f"{self.rounds[0]['sends']:,}",
        ]


def _middle(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):,.1f}" if known else ""


def machine() -> str:
    """Say what this was measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = " ".join(names[0].split()) if names else model
    return (
        f"{os.cpu_count()} cores of {model}, {platform.system()} {platform.release().partition('-')[0]}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def versions(figures: list[Figures]) -> dict[str, str]:
    """Return the versions of what was compared, and of what it stands on."""
    packages = {CONTENDERS[one.name].package for one in figures} | {"orjson", "uvloop"}
    return {package: version(package) for package in sorted(packages)}


def tables(figures: list[Figures]) -> list[Table]:
    """Return a table for each event loop."""
    found = []
    for loop in dict.fromkeys(one.loop for one in figures):
        table = Table(title=loop)
        table.add_column("client", no_wrap=True)
        for column in _COLUMNS:
            table.add_column(column, justify="right")
        for one in figures:
            if one.loop == loop:
                table.add_row(*one.row())
        found.append(table)
    return found


def markdown(figures: list[Figures], conditions: str, chart: Path | None) -> str:
    """Return chart, tables and circumstances for a page."""
    lines = [f"![Sends a second, by client and event loop]({chart.name})", ""] if chart else []
    for loop in dict.fromkeys(one.loop for one in figures):
        lines += [f"| {' | '.join((f'in {loop}', *_COLUMNS))} |", "|---|" + "--:|" * len(_COLUMNS)]
        lines += [f"| {' | '.join(one.row())} |" for one in figures if one.loop == loop]
        lines += [""]
    names = ", ".join(f"{package} {number}" for package, number in versions(figures).items())
    return "\n".join([*lines, f"{conditions} Measured on {machine()}, with {names}."])


def as_json(figures: list[Figures], conditions: str) -> bytes:
    """Return everything for a program."""
    facts = {"conditions": conditions, "machine": machine(), "versions": versions(figures)}
    document = facts | {"figures": [attrs.asdict(one) for one in figures]}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


_INK = "#777777"  # stands out from white as well as from black
_COLOURS = {"nxotp_async": "#2a9d8f", "floor": "#e09f3e"}


def draw(figures: list[Figures], path: Path) -> None:
    """Draw the sends a second as bars, one panel for each event loop."""
    loops = list(dict.fromkeys(one.loop for one in figures))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nxotp_async", "font.size": 11}):
        height = 0.9 + 0.36 * max(sum(one.loop == loop for one in figures) for loop in loops)
        figure = Figure(figsize=(10, height * len(loops)), layout="constrained")
        for loop, axes in zip(loops, figure.subplots(len(loops), 1, sharex=True, squeeze=False)[:, 0], strict=True):
            shown = sorted((one for one in figures if one.loop == loop), key=lambda one: one.rate)
            colours = [_COLOURS.get(one.name) or _COLOURS.get(CONTENDERS[one.name].package, "#8d99ae") for one in shown]
            bars = axes.barh([CONTENDERS[one.name].label for one in shown], [one.rate for one in shown], color=colours)
            axes.bar_label(bars, [f"{one.rate:,.0f}" for one in shown], padding=4, color=_INK)
            axes.set_title(f"sends a second, {loop}", loc="left", color=_INK)
            axes.tick_params(colors=_INK, length=0)
            axes.xaxis.set_visible(False)
            axes.spines[:].set_visible(False)
            axes.margins(x=0.1)
        figure.savefig(path, transparent=True, metadata={"Date": None})
