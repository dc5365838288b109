"""A rate that gives way when the vendor throttles."""

import math
from typing import ClassVar

import attrs

__all__ = ["AdaptiveRate"]


@attrs.frozen
class AdaptiveRate:
    """A rate that halves when the vendor throttles, and grows back by itself up to its limit.

    All times are seconds of one clock.

    Attributes:
        limit: The highest rate, in messages a second.
        rate: What it was at a time.
        at: That time.
        lowered_at: When it was lowered last.
    """

    FLOOR: ClassVar[float] = 1.0  # messages a second: as slow as it gets, so that it notices when the vendor recovers
    GROWTH: ClassVar[float] = 1.05  # a second

    limit: float
    rate: float
    at: float
    lowered_at: float = -math.inf

    def present(self, now: float) -> float:
        """Return what the rate is now."""
        if math.isinf(self.rate) or self.rate >= self.limit:
            return self.rate
        return min(self.limit, self.rate * math.pow(self.GROWTH, min(now - self.at, 1000.0)))

    def limited_to(self, limit: float, now: float) -> "AdaptiveRate":
        """Return it with another limit. One that is lower because the vendor throttles stays lower, and grows to it."""
        present = self.present(now)
        return attrs.evolve(self, limit=limit, rate=limit if present >= self.limit else min(present, limit), at=now)

    def throttled(self, sent_at: float, now: float, *, measured: float | None = None) -> "AdaptiveRate":
        """Return half the rate, or the same one where it was lowered after the throttled message was sent.

        Args:
            sent_at: When the throttled message was sent.
            now: The time.
            measured: How fast it really went. Default: as fast as the rate allowed.
        """
        if sent_at <= self.lowered_at:
            return self
        present = self.present(now) if measured is None else measured
        return attrs.evolve(self, rate=min(self.limit, max(self.FLOOR, present / 2)), at=now, lowered_at=now)
