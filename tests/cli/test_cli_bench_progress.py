"""What ``nxotp bench`` shows while it runs."""

import asyncio
import io
from functools import partial
from typing import cast

import pytest
from commands import without_styles
from rich.console import Console

from nxotp_async import Clock, NotSentError
from nxotp_async.bench import Benchmark, Plan
from nxotp_async.bench.recorder import Recorder
from nxotp_async.cli.bench.progress import look_at
from nxotp_async.cli.progress import run_progress

pytest_plugins = ["command_fixtures"]


class FakeRun:
    """A benchmark whose seconds pass as the view sleeps. Each step: messages, their latency, failures, drops."""

    def __init__(self, plan: Plan, steps: list[tuple[int, float, int, int]]) -> None:
        self.plan = plan
        self.recorder: Recorder | None = None
        self.clock = Clock(monotonic=lambda: self._now, sleep=self._sleep)
        self.over = asyncio.Event()
        self._now = 1000.0
        self._steps = iter(steps)

    async def _sleep(self, seconds: float) -> None:
        if self.recorder is None and self._now > 1000:  # one second of warming up
            self.recorder = Recorder(self.clock, self.plan.window)
        if self.recorder is not None:
            if (step := next(self._steps, None)) is None:
                self.over.set()
                await asyncio.Event().wait()
                return
            completed, latency, failed, self.recorder.dropped = step
            self.recorder.begun += completed + 1
            for place in range(completed):
                self.recorder.add(latency, 1, NotSentError() if place < failed else None)
        self._now += seconds


async def shown_by(monkeypatch: pytest.MonkeyPatch, run: FakeRun, *, terminal: bool) -> str:
    shown = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    console = Console(file=shown, width=150, force_terminal=terminal, highlight=False)
    look = partial(look_at, cast("Benchmark", run))
    async with run_progress(look, interval=1.0, console=console, clock=run.clock):
        await run.over.wait()
    return shown.getvalue()


async def test_off_a_terminal_a_line_is_shown_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun(Plan(rate=50, duration=60), [(50, 0.25, 0, 0)] * 22)
    lines = (await shown_by(monkeypatch, run, terminal=False)).splitlines()
    assert lines == [
        "9/60 (15%)  50/s  p50 250.0 ms  p99 250.0 ms  pending 9",
        "19/60 (32%)  50/s  p50 250.0 ms  p99 250.0 ms  pending 19",
    ]


async def test_a_short_run_says_nothing_off_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun(Plan(rate=50, duration=5), [(50, 0.25, 0, 0)] * 5)
    assert await shown_by(monkeypatch, run, terminal=False) == ""


@pytest.mark.parametrize("plan", [Plan(rate=50, duration=4), Plan(count=150)], ids=["open", "closed"])
async def test_on_a_terminal_the_last_second_is_shown(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    run = FakeRun(plan, [(50, 0.25, 0, 0), (0, 0.0, 0, 0), (100, 0.5, 7, 3)])
    shown = without_styles(await shown_by(monkeypatch, run, terminal=True))
    for text in (
        "warming up",
        "50/s  p50 250.0 ms  p99 250.0 ms  pending 1",
        "0/s  pending 2",
        "100/s  p50 500.0 ms  p99 500.0 ms  pending 3  failed 7  dropped 3",
    ):
        assert text in shown
