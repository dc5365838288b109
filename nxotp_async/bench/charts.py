"""The charts of a report, as SVG to embed in a page."""

import io
import math
from collections.abc import Callable, Sequence
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from .recorder import Second
from .report import BenchmarkReport

__all__ = ["latency_chart", "outcome_chart", "timeline_chart"]

# Colours that are visible on light and on dark backgrounds. The ink is replaced by the page's text colour.
_INK: Final = "#010203"
_BLUE: Final = "#3b82f6"
_ORANGE: Final = "#ea8c0c"
_GREEN: Final = "#22a06b"
_RED: Final = "#e5484d"
_PLAIN: Final = "{x:,g}"  # numbers on an axis
_MOST_MARKERS: Final = 120
_WIDTH: Final = 9.0  # inches; the page scales it


def latency_chart(report: BenchmarkReport) -> str:
    """Draw latency by percentile, on a logarithmic axis: 90 %, 99 %, 99.9 % are equally far apart."""
    figure, (axes,) = _figure(3.6, 1)
    curve = report.latencies().curve()
    tail = 1 / max(report.completed, 10)  # there is no data on what is rarer than one in all messages
    heights = [max(latency, 0.001) for _, latency in curve]  # a logarithmic axis cannot show 0
    axes.plot([1 / max(1 - share, tail) for share, _ in curve], heights, color=_BLUE)
    axes.set_xscale("log")
    axes.set_yscale("log")
    marks = [mark for mark in (0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999) if 1 - mark >= tail * 0.999]
    axes.set_xticks([1 / (1 - mark) for mark in marks], [f"{mark * 100:.6g} %" for mark in marks])
    wide = heights[-1] >= 10 * heights[0]
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=30) if wide else MaxNLocator(nbins=8))
    axes.yaxis.set_major_formatter(_PLAIN)
    axes.minorticks_off()
    axes.set_xlabel("share of messages with at most this latency")
    axes.set_ylabel("latency, ms")
    return _svg(figure)


def timeline_chart(report: BenchmarkReport) -> str:
    """Draw throughput, and the median and p99 of the latency, second by second."""
    figure, (upper, lower) = _figure(4.8, 2)
    rows, end = report.timeline, report.seconds + report.drain_seconds
    # The rate of a part of a second would be wrong.
    whole = [row for row in rows if row.second + 1 <= report.seconds] or rows
    lines: list[tuple[Axes, Sequence[Second], Callable[[Second], float | None], str, str]] = [
        (upper, whole, lambda row: row.completed, _BLUE, "completed"),
        (upper, whole, lambda row: row.failed, _RED, "of them not accepted"),
        (lower, rows, lambda row: row.p99, _ORANGE, "p99"),
        (lower, rows, lambda row: row.p50, _BLUE, "p50"),
    ]
    for axes, seconds, value, color, label in lines:
        middles = [(row.second + min(row.second + 1, end)) / 2 for row in seconds]
        heights = [math.nan if (height := value(row)) is None else height for row in seconds]
        marker = "." if len(seconds) <= _MOST_MARKERS else None
        axes.plot(middles, heights, color=color, label=label, marker=marker, markersize=4)
    upper.set_ylabel("messages/s")
    lower.set_ylabel("latency, ms")
    lower.set_xlabel("seconds since the start")
    for axes in (upper, lower):
        axes.set_xlim(0, end)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(_PLAIN)
        if report.drain_seconds > 0.02 * end:  # otherwise it is too narrow to see
            axes.axvspan(report.seconds, end, color=_INK, alpha=0.06, label="draining", linewidth=0)
        axes.legend(frameon=False, labelcolor=_INK, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderpad=0)
    return _svg(figure)


def outcome_chart(report: BenchmarkReport) -> str:
    """Draw how many messages were accepted, and how many failed by reason."""
    bars = {"accepted": report.accepted, **report.failures}
    figure, (axes,) = _figure(0.15 + 0.35 * len(bars), 1)
    drawn = axes.barh(list(bars), list(bars.values()), color=[_GREEN] + [_RED] * len(report.failures), height=0.6)
    labels = [f"{number:,} ({number / max(report.completed, 1):.2%})" for number in bars.values()]
    axes.bar_label(drawn, labels, padding=4, color=_INK)
    axes.invert_yaxis()
    axes.set_xlim(0, max(*bars.values(), 1) * 1.18)  # room for the longest bar's label
    axes.grid(visible=False)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    return _svg(figure)


def _figure(height: float, rows: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    every = [figure.add_subplot(rows, 1, row + 1) for row in range(rows)]
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["bottom", "left"]].set_color(_INK)
        axes.tick_params(which="both", colors=_INK)
        axes.xaxis.label.set_color(_INK)
        axes.yaxis.label.set_color(_INK)
        axes.grid(visible=True, color=_INK, alpha=0.15)
        axes.set_axisbelow(True)
    return figure, every


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):  # text stays text
        figure.savefig(
            file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = file.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")
