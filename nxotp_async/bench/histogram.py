"""Durations in an HDR histogram: microseconds, three significant digits, constant memory."""

import warnings
from typing import Final

import attrs

try:
    with warnings.catch_warnings():
        # Python 3.14 and newer deprecate how it declares two packed structures; their layout is right.
        warnings.filterwarnings("ignore", "Due to '_pack_', the '(External|Payload)Header' ", DeprecationWarning)
        from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped] # it has no type annotations
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "hdrhistogram is not installed: the benchmark needs  pip install 'nxotp_async[bench]'", name=error.name
    ) from None

__all__ = ["Histogram", "Percentiles"]

_LONGEST: Final = 3_600_000_000  # microseconds; longer durations are recorded as this
_DIGITS: Final = 3
_CURVE_STEPS: Final = 10  # points of the curve each time the remaining share is halved


@attrs.frozen
class Percentiles:
    """Percentiles of durations, in milliseconds and exact to three digits, and the longest duration, exactly."""

    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Histogram:
    """Counts durations.

    Attributes:
        hdr: The histogram of the library HdrHistogram.
    """

    def __init__(self) -> None:
        self.hdr = HdrHistogram(1, _LONGEST, _DIGITS)

    def __len__(self) -> int:
        return int(self.hdr.total_count)

    def record(self, seconds: float) -> None:
        """Count a duration."""
        self.hdr.record_value(_microseconds(seconds))

    def record_delay(self, seconds: float, interval: float) -> None:
        """Count the delay of a periodic event, and the delays of the events that were due meanwhile."""
        self.hdr.record_corrected_value(_microseconds(seconds), _microseconds(interval))

    def add(self, other: "Histogram") -> None:
        """Add the counts of another histogram."""
        slowest = max(self.hdr.max_value, other.hdr.max_value)
        self.hdr.add(other.hdr)
        self.hdr.max_value = slowest  # `add` has rounded it up to three digits

    def percentiles(self) -> Percentiles | None:
        """Return the percentiles, or ``None`` if nothing was counted."""
        if not len(self):
            return None
        values = self.hdr.get_percentile_to_value_dict([50, 90, 99, 99.9])
        slowest = self.hdr.max_value
        p50, p90, p99, p999 = (min(values[share], slowest) / 1000 for share in (50, 90, 99, 99.9))
        return Percentiles(p50, p90, p99, p999, slowest / 1000)

    def curve(self) -> list[tuple[float, float]]:
        """Return the cumulative distribution, as pairs of share and milliseconds, in finer steps towards 1.0."""
        slowest = self.hdr.max_value
        return [
            (point.percentile_level_iterated_to / 100, min(point.value_iterated_to, slowest) / 1000)
            for point in self.hdr.get_percentile_iterator(_CURVE_STEPS)
        ]

    def encode(self) -> str:
        """Return the histogram in the compressed V2 format that every HdrHistogram library reads, as base64."""
        return str(self.hdr.encode().decode())

    @classmethod
    def decode(cls, text: str) -> "Histogram":
        """Return the histogram that `encode` has encoded."""
        histogram = cls()
        histogram.hdr.decode_and_add(text.encode())
        return histogram


def _microseconds(seconds: float) -> int:
    return min(max(int(seconds * 1e6 + 0.5), 0), _LONGEST)
