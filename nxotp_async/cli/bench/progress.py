"""The progress of a benchmark."""

import math
from typing import Final

from ...bench import Benchmark
from ..progress import Snapshot

__all__ = ["INTERVAL", "look_at"]

INTERVAL: Final = 1.0  # seconds; drawing delays the event loop, which is measured


def look_at(benchmark: Benchmark) -> Snapshot:
    """Return how far a benchmark is, in seconds or messages, and the figures of the last second."""
    recorder, plan = benchmark.recorder, benchmark.plan
    in_seconds = math.isfinite(plan.window)
    total = plan.window if in_seconds else plan.count or math.inf
    if recorder is None:
        return Snapshot(0, total, "warming up")
    last = recorder.last_second()
    parts = [f"{last.completed if last else 0:,}/s"]
    if last is not None and last.p50 is not None:
        parts.append(f"p50 {last.p50:,.1f} ms  p99 {last.p99:,.1f} ms")
    parts.append(f"pending {recorder.pending:,}")
    if failed := recorder.failed.total():
        parts.append(f"failed {failed:,}")
    if recorder.dropped:
        parts.append(f"dropped {recorder.dropped:,}")
    return Snapshot(recorder.seconds if in_seconds else recorder.completed, total, "  ".join(parts))
