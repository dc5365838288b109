"""The progress of a benchmark: a bar on a terminal, otherwise a line every ten seconds."""

import asyncio
import math
from time import monotonic
from types import TracebackType
from typing import Final, Self

from rich.progress import BarColumn, Progress, TextColumn

from ...bench import Benchmark
from ...bench.recorder import Recorder
from ..common import stderr

__all__ = ["BenchView"]

_BAR_INTERVAL: Final = 1.0  # seconds; drawing delays the event loop, which is measured
_LINE_INTERVAL: Final = 10.0  # seconds


class BenchView:
    """Shows the figures of the last second until the block ends."""

    def __init__(self, benchmark: Benchmark) -> None:
        self._benchmark = benchmark
        # Without a thread, which would compete for the interpreter lock with what is measured.
        self._progress = Progress(
            BarColumn(bar_width=30),
            TextColumn("{task.fields[text]}"),
            console=stderr,
            transient=True,
            auto_refresh=False,
            disable=not stderr.is_terminal,
        )
        window, count = benchmark.plan.window, benchmark.plan.count
        self._task = self._progress.add_task("", total=count if math.isinf(window) else window, text="warming up")

    def __enter__(self) -> Self:
        self._progress.start()
        self._progress.refresh()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    async def follow(self) -> None:
        """Show them until cancelled."""
        last_line = monotonic()
        while True:
            await asyncio.sleep(_BAR_INTERVAL)
            if (recorder := self._benchmark.recorder) is None:
                continue
            if stderr.is_terminal:
                done = recorder.completed if math.isinf(self._benchmark.plan.window) else recorder.seconds
                self._progress.update(self._task, completed=done, text=_text(recorder), refresh=True)
            elif monotonic() - last_line >= _LINE_INTERVAL:
                last_line = monotonic()
                stderr.print(f"{recorder.elapsed:,.0f} s: {_text(recorder)}", soft_wrap=True)


def _text(recorder: Recorder) -> str:
    last = recorder.last_second()
    parts = [f"{last.completed if last else 0:,}/s"]
    if last is not None and last.p50 is not None:
        parts.append(f"p50 {last.p50:,.1f} ms  p99 {last.p99:,.1f} ms")
    parts.append(f"pending {recorder.pending:,}")
    if failed := recorder.failed.total():
        parts.append(f"failed {failed:,}")
    if recorder.dropped:
        parts.append(f"dropped {recorder.dropped:,}")
    return "  ".join(parts)
