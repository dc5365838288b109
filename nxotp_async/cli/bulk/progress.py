"""The progress of a bulk run."""

import math
import os
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

from ...bulk import Dispatcher, MessageState
from ...clocks import Clock
from ..progress import BAR_INTERVAL, LINE_INTERVAL, Snapshot

__all__ = ["SendingProgress", "progress_text"]

_OUTCOMES = (MessageState.ACCEPTED, MessageState.REJECTED, MessageState.NOT_SENT, MessageState.UNKNOWN)


class SendingProgress:
    """How many messages have an outcome, how fast that goes, and how long it will take."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock | None = None) -> None:
        self._dispatcher = dispatcher
        self._clock = clock or Clock()
        self._samples: deque[tuple[float, int]] = deque(maxlen=round(LINE_INTERVAL / BAR_INTERVAL))

    def look(self) -> Snapshot | None:
        """Take a sample of how far the run is, and return that; nothing before it has begun."""
        counts = self._dispatcher.counts
        total = counts.total()
        if not total:
            return None
        done = total - counts[MessageState.QUEUED]
        self._samples.append((self._clock.monotonic(), done))
        fields = self.fields()
        return Snapshot(done, total, progress_text(fields), fields)

    def fields(self) -> dict[str, Any]:
        """Return how far the run is, for programs. What is in flight counts as queued, too."""
        run, counts = self._dispatcher, self._dispatcher.counts
        per_second = self._per_second()
        limit = run.rate if math.isfinite(run.rate) else None
        return {
            "time": datetime.fromtimestamp(self._clock.time(), UTC).isoformat("T", "milliseconds"),
            "process": os.getpid(),
            "total": counts.total(),
            "queued": counts[MessageState.QUEUED],
            **{str(state): counts[state] for state in _OUTCOMES},
            "in_flight": run.in_flight,
            "per_second": round(per_second, 1),
            "limit": limit and round(limit, 2),
            "concurrency": run.concurrency,
            "seconds_left": round(counts[MessageState.QUEUED] / per_second) if per_second else None,
            "is_paused": run.is_paused,
            "is_stopping": run.is_stopping,
        }

    def _per_second(self) -> float:
        if not self._samples:
            return 0.0
        seconds, grown = (last - first for first, last in zip(self._samples[0], self._samples[-1], strict=True))
        return grown / seconds if seconds else 0.0


def progress_text(fields: dict[str, Any]) -> str:
    """Return the progress as people read it."""
    parts = [f"{fields['per_second']:,.0f}/s"]
    if fields["is_stopping"]:
        parts = ["stopping"]
    elif fields["is_paused"]:
        parts = ["paused"]
    elif fields["seconds_left"] is not None:
        parts.append(f"ETA {timedelta(seconds=fields['seconds_left'])}")
    shown = [state for state in _OUTCOMES if fields[state] or state is MessageState.ACCEPTED]
    parts += [f"{state.replace('_', ' ')} {fields[state]:,}" for state in shown]
    if (limit := fields["limit"]) is not None:
        parts.append(f"limit {limit:,.0f}/s" if limit >= 10 else f"limit {limit:.2g}/s")
    return "  ".join(parts)
