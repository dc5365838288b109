"""Showing how far a bulk run has come: a bar on a terminal, a line now and then elsewhere."""

import asyncio
import math
from time import monotonic
from types import TracebackType
from typing import Final, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn

from ...bulk import Dispatcher, MessageState
from ..common import stderr

__all__ = ["LoadingProgress", "SendingProgress"]

_BAR_INTERVAL: Final = 0.25  # seconds
_LINE_INTERVAL: Final = 10.0  # seconds


class _Shown:
    """Progress that is shown on standard error for as long as a block runs, where that is a terminal."""

    def __init__(self, *columns: ProgressColumn) -> None:
        self._progress = Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)
        self._task = self._progress.add_task("", total=None, text="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()


class LoadingProgress(_Shown):
    """Shows how many rows were read."""

    def __init__(self) -> None:
        super().__init__(SpinnerColumn(), TextColumn("reading: {task.completed:,} rows"))

    def show(self, rows: int) -> None:
        """Show that so many rows were read."""
        self._progress.update(self._task, completed=rows)


class SendingProgress(_Shown):
    """Shows how many messages have an outcome, how fast that goes, and when it will be over."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__(BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
        self._dispatcher = dispatcher
        self._meter = _Meter()

    async def follow(self) -> None:
        """Show it again and again, until cancelled."""
        last_line = monotonic()
        while True:
            await asyncio.sleep(_BAR_INTERVAL)
            counts = self._dispatcher.counts
            total, left = counts.total(), counts[MessageState.QUEUED]
            if not total:
                continue  # it has not begun yet
            text = self._text(left, self._meter.rate(total - left))
            if stderr.is_terminal:
                self._progress.update(self._task, total=total, completed=total - left, text=text)
            elif monotonic() - last_line >= _LINE_INTERVAL:
                last_line = monotonic()
                stderr.print(f"{total - left:,}/{total:,} ({(total - left) / total:.0%})  {text}", soft_wrap=True)

    def _text(self, left: int, rate: float) -> str:
        counts = self._dispatcher.counts
        parts = [f"{rate:,.0f}/s"]
        if rate:
            parts.append(f"ETA {_clock_face(left / rate)}")
        parts += [
            f"{state.replace('_', ' ')} {counts[state]:,}"
            for state in (MessageState.ACCEPTED, MessageState.REJECTED, MessageState.NOT_SENT, MessageState.UNKNOWN)
            if counts[state] or state is MessageState.ACCEPTED
        ]
        limit = self._dispatcher.rate
        if math.isfinite(limit):
            parts.append(f"limit {limit:,.0f}/s" if limit >= 10 else f"limit {limit:.2g}/s")
        return "  ".join(parts)


class _Meter:
    """How fast a number has grown of late."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []

    def rate(self, done: int) -> float:
        """Take a sample in, and return the growth a second over the last ten seconds or so."""
        now = monotonic()
        self._samples.append((now, done))
        self._samples = [sample for sample in self._samples if sample[0] > now - _LINE_INTERVAL]
        (first_at, first), (last_at, last) = self._samples[0], self._samples[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else 0.0


def _clock_face(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
