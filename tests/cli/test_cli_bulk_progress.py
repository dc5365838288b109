"""What ``nxotp bulk run`` shows while it reads and sends."""

import asyncio
import io
import json
import math
import re
from collections import Counter
from typing import cast

import pytest
from bulk_commands import GOOD, LOST, PAGE, bulk, counts_in, counts_of, otps
from commands import Env, Start, account_of, assert_clean, posix, without_styles
from rich.console import Console

from nxotp_async import Clock
from nxotp_async.bulk import Dispatcher, MessageState
from nxotp_async.cli import output
from nxotp_async.cli.bulk.progress import SendingProgress
from nxotp_async.cli.progress import Snapshot, reading_progress, run_progress
from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import NO_PAUSES

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")


class FakeRun:
    """A dispatcher, and time that passes in `sleep` only: at each of its steps something has been done."""

    def __init__(self, rate: float, steps: list[tuple[float, dict[str, int]]]) -> None:
        self.counts: Counter[MessageState] = Counter()
        self.rate = rate
        self.concurrency, self.in_flight = 64, 0
        self.is_paused = self.is_stopping = False
        self.clock = Clock(monotonic=lambda: self._now, sleep=self._sleep)
        self.over = asyncio.Event()
        self._now = 1000.0
        self._steps = iter(steps)

    async def _sleep(self, _: float) -> None:
        step = next(self._steps, None)
        if step is None:
            self.over.set()
            await asyncio.Event().wait()
        else:
            self._now += step[0]
            self.counts = Counter({MessageState(state): count for state, count in step[1].items()})


async def progress_of(
    monkeypatch: pytest.MonkeyPatch,
    steps: list[tuple[float, dict[str, int]]],
    *,
    rate: float = math.inf,
    terminal: bool = False,
) -> list[str]:
    run = FakeRun(rate, steps)
    monkeypatch.setenv("TERM", "xterm")
    console = Console(file=io.StringIO(), width=150, force_terminal=terminal, highlight=False)
    look = SendingProgress(cast("Dispatcher", run), run.clock).look
    async with run_progress(look, console=console, clock=run.clock):
        await run.over.wait()
    return cast("io.StringIO", console.file).getvalue().splitlines()


def steadily(seconds: float) -> list[tuple[float, dict[str, int]]]:
    """A run of 5,001 messages that has 93 accepted every half second."""
    return [
        (0.5, {"queued": 5000 - 93 * step, "accepted": 93 * step, "not_sent": 1})
        for step in range(1, 1 + int(2 * seconds))
    ]


LINE = "1,861/5,001 (37%)  186/s  ETA 0:00:17  accepted 1,860  not sent 1  limit 200/s"


async def test_off_a_terminal_progress_is_the_line_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await progress_of(monkeypatch, steadily(10), rate=200.0) == [LINE]
    shape = re.sub(r"\d", "0", LINE)
    assert shape in re.sub(r"\d", "0", PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("seconds", "count"), [(9.5, 0), (10, 1), (19.5, 1), (26, 2)])
async def test_off_a_terminal_progress_is_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, seconds: float, count: int
) -> None:
    shown = await progress_of(monkeypatch, steadily(seconds))
    assert [line.split()[0] for line in shown] == ["1,861/5,001", "3,721/5,001"][:count]
    assert all("limit" not in line for line in shown)


@pytest.mark.parametrize(
    ("steps", "rate", "line"),
    [
        ([(11.0, {})], math.inf, None),
        ([(11.0, {"queued": 3})], math.inf, "0/3 (0%)  0/s  accepted 0"),
        (
            [(5.0, {"queued": 7210}), (5.0, {"queued": 7200, "rejected": 4, "unknown": 6})],
            20.0,
            "10/7,210 (0%)  2/s  ETA 1:00:00  accepted 0  rejected 4  unknown 6  limit 20/s",
        ),
        ([(11.0, {"accepted": 1234})], math.inf, "1,234/1,234 (100%)  0/s  accepted 1,234"),
    ],
    ids=["not begun", "nothing done", "hours to go", "all done"],
)
async def test_progress_says_what_there_is_to_say(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[float, dict[str, int]]], rate: float, line: str | None
) -> None:
    assert await progress_of(monkeypatch, steps, rate=rate) == ([] if line is None else [line])


async def test_a_limit_of_less_than_one_a_second_is_not_called_none(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = await progress_of(monkeypatch, [(11.0, {"queued": 3})], rate=0.5)
    assert "limit" in line
    assert "limit 0/s" not in line


async def test_at_a_terminal_progress_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "".join(await progress_of(monkeypatch, steadily(10), rate=200.0, terminal=True))
    plain = without_styles(shown)
    assert "━━" in plain
    assert f"1861/5001 {LINE.partition('  ')[2]}" in plain


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "elsewhere"])
def test_rows_are_counted_at_a_terminal_while_the_file_is_read(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    shown = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(output, "stderr", Console(file=shown, width=80, force_terminal=terminal))
    with reading_progress() as show:
        show(12_000)
    assert ("reading: 12,000 rows" in shown.getvalue()) is terminal


def test_a_run_at_a_terminal_shows_its_bar_and_nothing_of_its_messages(
    live: Sandbox, account: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("nxotp_async.cli.progress.BAR_INTERVAL", 0.001)
    monkeypatch.setattr(output, "stderr", Console(file=shown, width=120, force_terminal=True, highlight=False))
    result = bulk("run", otps(*GOOD[:30], LOST, "0555"), "--rate", "1000", env=account)
    assert (result.exit_code, result.stderr) == (6, "")
    assert counts_in(result.stdout)["accepted"] == len(live.messages) - 1 == 30
    text = without_styles(shown.getvalue())
    assert "/32" in text
    assert "━" in text
    assert "32 rows: 31 queued in otps.csv.ledger, 1 invalid, written to otps.rejects.csv\n" in text
    assert_clean(text)


def test_a_run_elsewhere_tells_its_progress_on_stderr(account: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nxotp_async.cli.progress.BAR_INTERVAL", 0.001)
    monkeypatch.setattr("nxotp_async.cli.progress.LINE_INTERVAL", 1e-9)
    result = bulk("run", otps(*GOOD[:30]), "--rate", "1000", "--json", env=account)
    assert json.loads(result.stdout)["accepted"] == 30
    assert re.search(r"^\d+/30 \(\d+%\)  [\d,]+/s  .*accepted \d+  limit 1,000/s$", result.stderr, re.MULTILINE)


IMPATIENT = """
from nxotp_async.__main__ import main
from nxotp_async.cli import progress
progress.BAR_INTERVAL, progress.LINE_INTERVAL = 0.001, 1e-9
main()
"""


@posix
def test_a_reader_of_the_progress_that_has_gone_does_not_stop_the_run(start: Start, live: Sandbox) -> None:
    options = ("--rate", "200", "--json")
    process = start("bulk", "run", otps(*GOOD[:30]), *options, env=account_of(live), program=("-c", IMPATIENT))
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    assert process.stdout is not None
    shown = process.stdout.read()
    assert (process.wait(30), counts_of()) == (0, {"accepted": 30})
    assert json.loads(shown)["accepted"] == len(live.messages) == 30


async def test_no_figure_of_the_progress_is_cut_off_at_80_columns() -> None:
    figures = "1,234/s  ETA 0:01:40  accepted 96,000  rejected 1,234  not sent 200  unknown 15  limit 80/s"
    console, looked = Console(file=io.StringIO(), width=80, force_terminal=True), asyncio.Event()

    def look() -> Snapshot:
        looked.set()
        return Snapshot(1000, 200_000, figures)

    async with run_progress(look, console=console, clock=NO_PAUSES):
        await looked.wait()
    shown = without_styles(cast("io.StringIO", console.file).getvalue())
    assert set(figures.split()) <= set(shown.split())
