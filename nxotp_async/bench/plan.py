"""The parameters of a benchmark run."""

import math
from typing import Final

import attrs

from ..checks import integer, number, optional, validate

__all__ = ["Plan"]

_LONGEST_RUN: Final = 86_400.0  # seconds
_DEFAULT_DURATION: Final = 10.0  # seconds
_CHECKS: Final = {
    "rate": optional(number(at_least=0.001, at_most=100_000)),
    "count": optional(integer(at_least=1)),
    "duration": optional(number(above=0, at_most=_LONGEST_RUN)),
    "warm_up": number(at_least=0, at_most=_LONGEST_RUN),
    "max_pending": integer(at_least=1),
}


@attrs.frozen(kw_only=True)
class Plan:
    """How to load, and for how long.

    Without a rate the loop is closed: as many messages are in flight as the client has permits, and the next one
    begins when one has its outcome. With a rate it is open: messages begin on a schedule, independent of the others.

    Attributes:
        rate: Arrivals a second, or ``None`` for the closed loop.
        count: Messages to measure, or ``None`` to measure for the duration.
        duration: Seconds to measure; 10 if neither it nor a count is given.
        warm_up: Seconds of the same load before, which are not measured.
        max_pending: Arrivals of the open loop that may be without an outcome; more are dropped, and counted.

    Raises:
        ValueError: A value is out of range; the text names it.
    """

    rate: float | None = attrs.field(default=None)
    count: int | None = attrs.field(default=None)
    duration: float | None = attrs.field()
    warm_up: float = attrs.field(default=2.0)
    max_pending: int = attrs.field(default=10_000)

    @duration.default
    def _default_duration(self) -> float | None:
        return _DEFAULT_DURATION if self.count is None else None

    def __attrs_post_init__(self) -> None:
        for name, check in _CHECKS.items():
            validate(name, check, getattr(self, name))
        if (self.count is None) == (self.duration is None):
            raise ValueError("either count or duration must be given, and not both")

    @property
    def arrivals(self) -> int | None:
        """How many messages begin, or ``None`` if that depends on the answers."""
        if self.rate is None or self.duration is None:
            return self.count
        return math.ceil(round(self.duration * self.rate, 6))  # 0.1 s at 30/s: 3 arrivals, not 3.0000000000000004

    @property
    def window(self) -> float:
        """Seconds in which messages begin; infinite if that depends on the answers."""
        if self.duration is not None:
            return self.duration
        return math.inf if self.rate is None or self.count is None else self.count / self.rate

    def due(self, place: int) -> float:
        """Return when a message is due, in seconds after the start; in the closed loop, 0.0."""
        return 0.0 if self.rate is None else place / self.rate
