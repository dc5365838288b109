"""What a run has measured so far."""

import time
from collections import Counter
from typing import Final

import attrs

from ..clocks import Clock
from ..errors import ApiError, NxOtpError
from ..results import SendStatus
from .histogram import Histogram

__all__ = ["LATE_AFTER", "Recorder", "Second"]

LATE_AFTER: Final = 0.010
"""Seconds after its time from which an arrival counts as late: well above the millisecond that timers round to."""


@attrs.frozen
class Second:
    """What ended in one second of a run.

    Attributes:
        second: Its place, from 0. The last one may be cut short.
        completed: Messages that got their outcome, good or bad.
        failed: Those of them that were not accepted.
        p50: Their median latency in milliseconds, or ``None`` where there were none.
        p99: The latency that all but one in a hundred kept below, in milliseconds, or ``None``.
    """

    second: int
    completed: int
    failed: int
    p50: float | None
    p99: float | None


class Recorder:
    """Takes in what becomes of every message. It grows by one row a second, not by the message.

    Attributes:
        started_at: When it began, by the monotonic clock; the window is open from then on.
        begun: Messages whose sending has begun.
        completed: Those that have their outcome.
        on_time: Those that had it within the window.
        failed: How many of them were not accepted, by their status.
        failures: The same by reason: the vendor's code, or the error's class name.
        examples: What the first error of each reason says.
        retries: Attempts beyond the first.
        late: Arrivals that began more than `LATE_AFTER` after their time.
        worst_lateness: Seconds the latest of all began after its time.
        dropped: Arrivals that were not sent at all, because too many were pending.
        timeline: The seconds that have passed, as far as they were looked at.
    """

    def __init__(self, clock: Clock, window: float) -> None:
        self.begun = 0
        self.completed = 0
        self.on_time = 0
        self.failed: Counter[SendStatus] = Counter()
        self.failures: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.retries = 0
        self.late = 0
        self.worst_lateness = 0.0
        self.dropped = 0
        self.timeline: list[Second] = []
        self.started_at = clock.monotonic()
        self._clock = clock
        self._window = window
        self._cpu_at_start = time.process_time()
        self._ended: tuple[float, float] | None = None  # seconds, and seconds of CPU
        self._past = Histogram()  # all seconds but the current one
        self._current = Histogram()
        self._failed_now = 0  # in the current second

    @property
    def pending(self) -> int:
        """How many messages are without an outcome."""
        return self.begun - self.completed

    @property
    def elapsed(self) -> float:
        """Seconds from the start to the end, or so far."""
        return self._ended[0] if self._ended else self._clock.monotonic() - self.started_at

    @property
    def seconds(self) -> float:
        """Seconds of the window, as far as it has passed."""
        return min(self.elapsed, self._window)

    @property
    def time_left(self) -> float:
        """Seconds of the window that are left."""
        return max(self._window - self.elapsed, 0.0)

    @property
    def cpu_seconds(self) -> float:
        """CPU time of this process from the start to the end, or so far."""
        return self._ended[1] if self._ended else time.process_time() - self._cpu_at_start

    def arrived(self, lateness: float) -> None:
        """Note how many seconds after its time an arrival begins."""
        self.late += lateness > LATE_AFTER
        self.worst_lateness = max(self.worst_lateness, lateness)

    def add(self, latency: float, attempts: int, error: NxOtpError | None) -> None:
        """Take in that a message has got its outcome just now, so many seconds after it was due."""
        elapsed = self._clock.monotonic() - self.started_at
        if elapsed >= len(self.timeline) + 1:
            self._turn_over(int(elapsed))
        self._current.record(latency)
        self.completed += 1
        self.on_time += elapsed <= self._window
        if attempts > 1:
            self.retries += attempts - 1
        if error is not None:
            self._failed_now += 1
            self.failed[SendStatus.of(error)] += 1
            self.failures[reason := _reason(error)] += 1
            if reason not in self.examples:
                self.examples[reason] = str(error)

    def last_second(self) -> Second | None:
        """Return the second that has passed last, if one has."""
        self._turn_over(int(self.elapsed))
        return self.timeline[-1] if self.timeline else None

    def finish(self) -> None:
        """End here, also where the last second is not over."""
        self._ended = self.elapsed, self.cpu_seconds
        whole = int(self.elapsed)
        self._turn_over(whole)
        if self.elapsed > whole or len(self._current):
            self._turn_over(whole + 1)

    def latencies(self) -> Histogram:
        """Return the latencies of all messages that have their outcome."""
        every = Histogram()
        every.add(self._past)
        every.add(self._current)
        return every

    def _turn_over(self, second: int) -> None:
        """Close the current second, and those after it in which nothing happened, before the given one begins."""
        while len(self.timeline) < second:
            figures = self._current.percentiles()
            p50, p99 = (figures.p50, figures.p99) if figures else (None, None)
            self.timeline.append(Second(len(self.timeline), len(self._current), self._failed_now, p50, p99))
            if figures:
                self._past.add(self._current)
                self._current = Histogram()
                self._failed_now = 0


def _reason(error: NxOtpError) -> str:
    return str(error.code) if isinstance(error, ApiError) and error.code is not None else type(error).__name__
