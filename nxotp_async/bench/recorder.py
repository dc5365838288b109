"""The measurements of a run."""

import time
from collections import Counter
from typing import Final

import attrs

from ..clocks import Clock
from ..errors import NxOtpError
from ..results import SendStatus, reason_of
from .histogram import Histogram

__all__ = ["LATE_AFTER", "Recorder", "Second"]

LATE_AFTER: Final = 0.010
"""Seconds of delay from which an arrival counts as late: well above the millisecond to which timers are rounded."""


@attrs.frozen
class Second:
    """The outcomes in one second of a run.

    Attributes:
        second: Its number, from 0. The last one may be shorter.
        completed: Messages that had their outcome in it, accepted or not.
        failed: Those of them that were not accepted.
        p50: Their median latency in milliseconds, or ``None`` if there were none.
        p99: The 99th percentile of their latency in milliseconds, or ``None``.
    """

    second: int
    completed: int
    failed: int
    p50: float | None
    p99: float | None


class Recorder:
    """Records the outcome of every message. Its memory grows by one row a second, not by the message."""

    def __init__(self, clock: Clock, window: float) -> None:
        self.begun = 0  # messages whose sending has begun
        self.completed = 0  # those that have their outcome
        self.on_time = 0  # those that had it within the window
        self.failed: Counter[SendStatus] = Counter()  # those that were not accepted
        self.failures: Counter[str] = Counter()  # the same by reason: the vendor's code, or the error's class name
        self.examples: dict[str, str] = {}  # the text of the first error of each reason
        self.retries = 0  # attempts beyond the first
        self.late = 0  # arrivals that began more than LATE_AFTER after they were due
        self.worst_lateness = 0.0  # the longest delay of an arrival, in seconds
        self.dropped = 0  # arrivals that were not sent, because too many were pending
        self.timeline: list[Second] = []  # the seconds that have passed and were closed
        self.started_at = clock.monotonic()  # the window is open from then on
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
        """Seconds from the start to the end, or until now."""
        return self._ended[0] if self._ended else self._clock.monotonic() - self.started_at

    @property
    def seconds(self) -> float:
        """Seconds of the window that have passed."""
        return min(self.elapsed, self._window)

    @property
    def time_left(self) -> float:
        """Seconds of the window that are left."""
        return max(self._window - self.elapsed, 0.0)

    @property
    def cpu_seconds(self) -> float:
        """CPU time of this process from the start to the end, or until now."""
        return self._ended[1] if self._ended else time.process_time() - self._cpu_at_start

    def arrived(self, lateness: float) -> None:
        """Record by how many seconds an arrival is late."""
        self.late += lateness > LATE_AFTER
        self.worst_lateness = max(self.worst_lateness, lateness)

    def add(self, latency: float, attempts: int, error: NxOtpError | None) -> None:
        """Record the outcome of a message, which it has now, this many seconds after it was due."""
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
            self.failures[reason := str(reason_of(error))] += 1
            if reason not in self.examples:
                self.examples[reason] = str(error)

    def last_second(self) -> Second | None:
        """Return the last second that has passed, if any."""
        self._turn_over(int(self.elapsed))
        return self.timeline[-1] if self.timeline else None

    def finish(self) -> None:
        """End the measurement; the last second may be shorter."""
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
        """Close every second before the given one, including those without outcomes."""
        while len(self.timeline) < second:
            figures = self._current.percentiles()
            p50, p99 = (figures.p50, figures.p99) if figures else (None, None)
            self.timeline.append(Second(len(self.timeline), len(self._current), self._failed_now, p50, p99))
            if figures:
                self._past.add(self._current)
                self._current = Histogram()
                self._failed_now = 0
