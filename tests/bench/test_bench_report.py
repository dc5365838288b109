"""Reports of the benchmark: as JSON, as figures, side by side, and as a page."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import attrs
import orjson
import pytest

from nxotp_async.bench import Arrivals, BenchmarkReport, Machine, Plan, compare
from nxotp_async.bench.figures import Figure, caveats, described, figures
from nxotp_async.bench.histogram import Histogram
from nxotp_async.bench.page import html_page
from nxotp_async.bench.recorder import Second

MACHINE = Machine("Linux-6.1-x86_64", 2, "CPython 3.11.7", "uvloop 0.22.1", "3.14.5", "1.0.0")


def report_of(*milliseconds: float, **fields: Any) -> BenchmarkReport:
    histogram = Histogram()
    for value in milliseconds:
        histogram.record(value / 1000)
    completed = len(milliseconds)
    defaults = {
        "started": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "target": "sandbox",
        "concurrency": 64,
        "plan": Plan(rate=500.0, duration=2.0),
        "interrupted": False,
        "in_flight": 0,
        "seconds": 2.0,
        "drain_seconds": 0.25,
        "completed": completed,
        "throughput": 500.0,
        "accepted": completed,
        "rejected": 0,
        "not_sent": 0,
        "unknown": 0,
        "failures": {},
        "retries": 0,
        "latency": histogram.percentiles(),
        "histogram": histogram.encode(),
        "loop_lag": None,
        "arrivals": Arrivals(due=completed, late=0, late_after=10.0, worst_lateness=1.5, dropped=0),
        "cpu_per_send": 250.0,
        "cpu_share": 0.125,
        "timeline": [Second(0, completed, 0, 2.0, 3.0), Second(1, 0, 0, None, None)],
        "machine": MACHINE,
        "transport": "aiohttp",
    }
    return BenchmarkReport(**{**defaults, **fields})


def usual(**fields: Any) -> BenchmarkReport:
    return report_of(*range(1, 101), **fields)


def failing(**fields: Any) -> BenchmarkReport:
    failures = {"9001": 30, "NotSentError": 4}
    return usual(accepted=66, rejected=30, not_sent=4, failures=failures, **fields)


def overloaded(*medians: float, **fields: Any) -> BenchmarkReport:
    """Return a run of so many seconds with these median latencies."""
    timeline = [Second(place, 100, 0, median, median) for place, median in enumerate(medians)]
    plan = Plan(rate=500.0, duration=len(medians))
    return usual(**{"timeline": timeline, "seconds": float(len(medians)), "plan": plan, **fields})


def empty() -> BenchmarkReport:
    return report_of(throughput=0.0, timeline=[], arrivals=None, cpu_per_send=None, interrupted=True)


every_kind = pytest.mark.parametrize(
    "report",
    [
        pytest.param(usual(), id="open"),
        pytest.param(usual(plan=Plan(count=100), arrivals=None), id="closed"),
        pytest.param(failing(), id="failures"),
        pytest.param(empty(), id="nothing measured"),
        pytest.param(report_of(7.0), id="one message"),
        pytest.param(report_of(0.0, 0.0), id="no time at all"),
        pytest.param(report_of(0.5, 1000.0, 3_600_000), id="a wide range"),
    ],
)


# ---------------------------------------------------------------------------------------------- JSON


@every_kind
def test_a_report_is_read_back_as_it_was_written(report: BenchmarkReport) -> None:
    again = BenchmarkReport.from_json(report.to_json())
    assert again == report
    assert again.to_json() == report.to_json()


def test_the_json_has_a_version_and_says_what_it_is() -> None:
    data = orjson.loads(usual().to_json())
    assert data["schema"] == 1
    assert data["started"] == "2026-01-02T03:04:05+00:00"
    assert data["latency"] == {"p50": 50.015, "p90": 90.047, "p99": 99.007, "p999": 100.0, "max": 100.0}
    assert data["plan"]["rate"] == 500
    assert data["timeline"][1] == {"second": 1, "completed": 0, "failed": 0, "p50": None, "p99": None}


def changed(**changes: Any) -> bytes:
    data = orjson.loads(usual().to_json())
    for name, value in changes.items():
        if value is ...:
            del data[name]
        else:
            data[name] = value
    return orjson.dumps(data)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b"[]", "it is not a report of nxotp bench"),
        (b'{"total": 5}', "it is not a report of nxotp bench"),
        (changed(schema="1"), "it is not a report of nxotp bench"),
        (changed(schema=2), "it is of version 2; this release reads version 1"),
        (changed(latency=...), "required field missing @ report.latency"),
        (changed(completed="many"), "invalid value for type, expected int @ report.completed"),
        (changed(machine={}), "required field missing @ report.machine.platform"),
        (changed(more=1), "extra fields found"),
        (changed(plan={"rate": -1}), "report.plan"),
        (changed(started="yesterday"), "report.started"),
        (changed(started=5), "report.started"),
        (changed(histogram="xyz"), "its histogram cannot be decoded"),
        (changed(histogram=""), "its histogram cannot be decoded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_report_is_refused_with_the_reason(text: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        BenchmarkReport.from_json(text)


async def test_a_machine_is_described_without_its_name() -> None:
    import platform

    machine = Machine.here()
    assert machine.cpus >= 1
    assert machine.event_loop == "asyncio"
    assert machine.python.endswith(platform.python_version())
    assert platform.node() not in attrs.astuple(machine)


# ---------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "ms", "-"),
        (0, "", "0"),
        (12345, "", "12,345"),
        (0.1234, "ms", "0.12 ms"),
        (1.006, "ms", "1.01 ms"),
        (12.34, "ms", "12.3 ms"),
        (1234.5, "ms", "1,234 ms"),
        (499.7, "messages/s", "500 messages/s"),
    ],
)
def test_a_figure_is_shown_to_three_digits(value: float | None, unit: str, text: str) -> None:
    assert Figure("it", value, unit).text == text


def test_the_figures_of_an_open_loop() -> None:
    assert [(figure.name, figure.text) for figure in figures(failing())] == [
        ("latency p50", "50.0 ms"),
        ("latency p90", "90.0 ms"),
        ("latency p99", "99.0 ms"),
        ("latency p99.9", "100 ms"),
        ("latency max", "100 ms"),
        ("throughput", "500 messages/s"),
        ("completed", "100"),
        ("accepted", "66"),
        ("rejected", "30"),
        ("not sent", "4"),
        ("unknown", "0"),
        ("failed with 9001", "30"),
        ("failed with NotSentError", "4"),
        ("retries", "0"),
        ("arrivals due", "100"),
        ("arrivals dropped", "0"),
        ("arrivals late by more than 10 ms", "0"),
        ("worst lateness", "1.50 ms"),
        ("CPU per send", "250 µs"),
        ("CPU, of one processor", "12.5 %"),
        ("event-loop lag p50", "-"),
        ("event-loop lag p99", "-"),
        ("event-loop lag max", "-"),
    ]


def test_a_closed_loop_has_no_arrivals_to_tell_of() -> None:
    assert not any("arrival" in figure.name or "lateness" in figure.name for figure in figures(empty()))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {},
            (
                "open loop, 500 arrivals a second, 64 in flight at most, 2 s after a warm-up of 2 s against sandbox, "
                "transport aiohttp"
            ),
        ),
        (
            {"plan": Plan(count=12000, warm_up=0), "target": ""},
            "closed loop, 64 in flight, 12,000 messages after a warm-up of 0 s, transport aiohttp",
        ),
    ],
)
def test_a_run_is_told_in_a_sentence(fields: dict[str, Any], text: str) -> None:
    assert described(usual(**fields)) == text


def test_a_good_run_has_no_caveats() -> None:
    assert caveats(usual()) == []
    assert caveats(usual(throughput=10.0, plan=Plan(count=100), arrivals=None)) == []
    # Outcomes are missing, but the latency does not grow: the last messages wait for another attempt.
    assert caveats(overloaded(300.0, 300.0, 300.0, 300.0, throughput=400.0)) == []
    assert caveats(overloaded(100.0, 400.0, 400.0, 400.0, throughput=400.0)) == []
    # The latency grows, but no outcome is missing.
    assert caveats(overloaded(300.0, 300.0, 300.0, 600.0, throughput=475.0)) == []
    # Two seconds are too few to tell.
    assert caveats(overloaded(100.0, 400.0, throughput=300.0)) == []
    # Answers that take 300 ms: in 2 s come those of 1.7 s.
    assert caveats(usual(throughput=425.0, timeline=[Second(0, 100, 0, 300.0, 310.0)])) == []


@pytest.mark.parametrize(
    ("report", "start"),
    [
        (
            usual(interrupted=True, in_flight=1234, drain_seconds=0.0),
            "interrupted after 2.0 s; 1,234 messages in flight are not counted",
        ),
        (
            usual(interrupted=True, in_flight=5),
            "interrupted after 2.0 s and 0.2 s of waiting for the last outcomes; 5 messages in flight are not counted",
        ),
        (
            failing(examples={"9001": "busy (wait)"}),
            "9001, first error: busy (wait)",
        ),
        (report_of(), "no message was completed"),
        (failing(), "34 of 100 messages were not accepted"),
        (
            usual(arrivals=Arrivals(150, 0, 10.0, 0.0, 50)),
            "50 of 150 arrivals were dropped, because 10,000 were pending",
        ),
        (usual(arrivals=Arrivals(100, 7, 10.0, 0.0, 0)), "7 of 100 arrivals began more than 10 ms late"),
        (
            overloaded(100.0, 200.0, 300.0, 400.0, throughput=440.0),
            "440 of 500 messages a second were completed: the queue grew",
        ),
    ],
    ids=[
        "interrupted",
        "interrupted while draining",
        "an example",
        "nothing",
        "failures",
        "dropped",
        "late",
        "too slow",
    ],
)
def test_what_a_reader_has_to_know_is_said(report: BenchmarkReport, start: str) -> None:
    (caveat,) = [text for text in caveats(report) if text.startswith(start)]
    assert caveat in caveats(report)


def test_an_interrupted_warm_up_has_one_caveat() -> None:
    report = report_of(seconds=0.0, drain_seconds=0.0, throughput=0.0, timeline=[], interrupted=True)
    assert caveats(report) == ["interrupted in the warm-up: nothing was measured"]


def test_a_queue_is_not_told_of_together_with_drops() -> None:
    arrivals = Arrivals(150, 0, 10.0, 0.0, 50)
    (caveat,) = caveats(overloaded(100.0, 200.0, 300.0, 400.0, throughput=440.0, arrivals=arrivals))
    assert "dropped" in caveat


def test_without_an_outcome_in_the_window_there_is_no_throughput() -> None:
    shown = {figure.name: figure.text for figure in figures(usual(throughput=0.0))}
    assert shown["throughput"] == "-"


def test_a_report_without_examples_is_read() -> None:
    assert BenchmarkReport.from_json(changed(examples=...)) == usual()


# ---------------------------------------------------------------------------------------------- comparing


def test_two_runs_are_compared_figure_by_figure() -> None:
    slower = report_of(*(2 * value for value in range(1, 101)), throughput=400.0, failures={"9015": 1})
    rows, differences = compare(failing(), slower)
    shown = {row.first.name: (row.first.text, row.second.text, row.change) for row in rows}
    assert differences == []
    assert shown["latency max"] == ("100 ms", "200 ms", "x 2.0")
    assert shown["throughput"] == ("500 messages/s", "400 messages/s", "-20.0 %")
    assert shown["accepted"] == ("66", "100", "+51.5 %")
    assert shown["failed with 9001"] == ("30", "-", "")
    assert shown["failed with 9015"] == ("-", "1", "")
    assert shown["unknown"] == ("0", "0", "")
    assert shown["CPU per send"] == ("250 µs", "250 µs", "+0.0 %")


def test_a_great_change_is_told_as_times() -> None:
    (throughput,) = [row for row in compare(usual(), usual(throughput=600_000.0))[0] if row.first.name == "throughput"]
    assert (throughput.ratio, throughput.change) == (1200.0, "x 1,200")


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        ({"concurrency": 8}, "concurrency: 64 in the first, 8 in the second"),
        ({"plan": Plan(rate=400.0, duration=2.0)}, "rate: 500/s in the first, 400/s in the second"),
        ({"plan": Plan(rate=500.0, duration=3.0)}, "duration: 2 s in the first, 3 s in the second"),
        ({"plan": Plan(rate=500.0, duration=2.0, warm_up=0)}, "warm-up: 2 s in the first, 0 s in the second"),
        ({"plan": Plan(rate=500.0, duration=2.0, max_pending=9)}, "max_pending: 10000 in the first, 9 in the second"),
        ({"target": "http://127.0.0.1:80"}, "target: sandbox in the first, http://127.0.0.1:80 in the second"),
        ({"interrupted": True}, "interrupted: no in the first, yes in the second"),
        ({"arrivals": Arrivals(9, 0, 10.0, 0.0, 1)}, "dropped arrivals: none in the first, some in the second"),
        (
            {"machine": attrs.evolve(MACHINE, platform="macOS")},
            "platform: Linux-6.1-x86_64 in the first, macOS in the second",
        ),
        ({"transport": "wire"}, "transport: aiohttp in the first, wire in the second"),
        ({"machine": attrs.evolve(MACHINE, cpus=8)}, "processors: 2 in the first, 8 in the second"),
        ({"machine": attrs.evolve(MACHINE, python="3.13")}, "Python: CPython 3.11.7 in the first, 3.13 in the second"),
        (
            {"machine": attrs.evolve(MACHINE, event_loop="asyncio")},
            "event loop: uvloop 0.22.1 in the first, asyncio in the second",
        ),
    ],
    ids=str,
)
def test_what_makes_two_runs_hard_to_compare_is_said(fields: dict[str, Any], difference: str) -> None:
    assert compare(usual(), usual(**fields))[1] == [difference]


def test_the_two_loops_are_not_comparable() -> None:
    differences = compare(usual(), usual(plan=Plan(count=100), arrivals=None))[1]
    assert [text.partition(":")[0] for text in differences] == ["loop", "rate", "duration", "count"]


def test_two_releases_on_one_machine_are_comparable() -> None:
    newer = usual(machine=attrs.evolve(MACHINE, nxotp_async="2.0.0", aiohttp="4.0.0"))
    assert compare(usual(), newer)[1] == []


# ---------------------------------------------------------------------------------------------- the page


class _Page(HTMLParser):
    """Notes what a page refers to, and what it says."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.said: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self._open.append(tag)
        for name, value in attributes:
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data.strip())


@every_kind
def test_a_page_is_complete_and_says_every_figure_and_caveat(report: BenchmarkReport) -> None:
    text = html_page(report)
    page = _Page(text)
    assert page.tags & {"script", "link", "img", "iframe", "object", "embed", "base"} == set()
    assert [reference for reference in page.references if not reference.startswith("#")] == []
    namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert not re.search(r"https?://|@import|//\w", namespaces)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "default-src 'none'" in text
    expected = [text for figure in figures(report) for text in (figure.name, figure.text)]
    expected += [*caveats(report), *map(str, attrs.astuple(report.machine))]
    assert [text for text in expected if text not in page.said] == []


def test_the_charts_are_text_that_takes_the_pages_colour() -> None:
    text = html_page(failing(seconds=1.5))
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == 3
    assert "#010203" not in text
    assert all("currentColor" in chart and "<text" in chart for chart in charts)
    words = " ".join(_Page(text).said)
    for label in ("99 %", "p99", "latency, ms", "messages/s", "draining", "66 (66.00%)", "9001", "4 (4.00%)"):
        assert label in words


def test_the_percentile_axis_ends_where_nothing_is_known() -> None:
    said = _Page(html_page(report_of(*range(1, 1001)))).said
    assert "99.9 %" in said
    assert "99.99 %" not in said
    assert "99 %" not in _Page(html_page(report_of(*range(1, 51)))).said


def test_without_a_measurement_there_is_no_chart() -> None:
    assert "<svg" not in html_page(empty())


def test_everything_on_a_page_is_escaped() -> None:
    evil = "<script>alert('&')</script>"
    report = usual(
        target=evil,
        accepted=90,
        failures={evil: 10},
        machine=attrs.evolve(MACHINE, platform=evil),
    )
    page = _Page(html_page(report))
    assert "script" not in page.tags
    assert evil in page.said


def test_making_a_page_leaves_matplotlib_as_it_was() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    html_page(usual())
    assert dict(mpl.rcParams) == before
