"""The progress of a bulk run."""

import math
from collections import deque
from collections.abc import Callable
from datetime import timedelta

from ...bulk import Dispatcher, MessageState
from ...clocks import Clock
from ..progress import BAR_INTERVAL, LINE_INTERVAL, Snapshot

__all__ = ["watch_sending"]

_SHOWN = (MessageState.ACCEPTED, MessageState.REJECTED, MessageState.NOT_SENT, MessageState.UNKNOWN)


def watch_sending(dispatcher: Dispatcher, clock: Clock | None = None) -> Callable[[], Snapshot | None]:
    """Return a function that tells how many messages have an outcome, how fast that goes, and how long it will take."""
    monotonic = (clock or Clock()).monotonic
    samples: deque[tuple[float, int]] = deque(maxlen=round(LINE_INTERVAL / BAR_INTERVAL))

    def look() -> Snapshot | None:
        counts = dispatcher.counts
        total, left = counts.total(), counts[MessageState.QUEUED]
        if not total:
            return None
        samples.append((monotonic(), total - left))
        seconds, grown = (last - first for first, last in zip(samples[0], samples[-1], strict=True))
        rate = grown / seconds if seconds else 0.0
        parts = [f"{rate:,.0f}/s"]
        if rate:
            parts.append(f"ETA {timedelta(seconds=round(left / rate))}")
        shown = [state for state in _SHOWN if counts[state] or state is MessageState.ACCEPTED]
        parts += [f"{state.replace('_', ' ')} {counts[state]:,}" for state in shown]
        limit = dispatcher.rate
        if math.isfinite(limit):
            parts.append(f"limit {limit:,.0f}/s" if limit >= 10 else f"limit {limit:.2g}/s")
        return total - left, total, "  ".join(parts)

    return look
