"""Counting the messages of the last 24 hours. Pure: times are seconds of one clock that never jumps."""

from collections import deque
from typing import Final

__all__ = ["DailyCount"]

_DAY: Final = 86_400.0
_SPAN: Final = 60.0  # seconds of messages that are counted together, and forgotten together, never too early


class DailyCount:
    """How many messages were sent in the last 24 hours, as far as this process has sent them.

    Args:
        limit: The most there may be; ``None`` for no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._spans: deque[tuple[float, int]] = deque()  # the end of each span of time, and how many there were
        self._total = 0

    def count(self, now: float) -> int:
        """Return how many there were."""
        while self._spans and self._spans[0][0] + _DAY <= now:
            self._total -= self._spans.popleft()[1]
        return self._total

    def has_room(self, now: float) -> bool:
        """Return whether there may be one more."""
        return self._limit is None or self.count(now) < self._limit

    def has_room_at(self, now: float) -> float:
        """Return when there may be one more."""
        return now if self.has_room(now) else self._spans[0][0] + _DAY

    def add(self, now: float, number: int = 1) -> None:
        """Count a message; or, with -1, one less, because it did not go out."""
        self._total = self.count(now) + number
        end = (now // _SPAN + 1) * _SPAN
        if self._spans and self._spans[-1][0] == end:
            number += self._spans.pop()[1]
        self._spans.append((end, number))
