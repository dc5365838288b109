"""The difference between the vendor's clock and this machine's."""

import logging
from collections.abc import Mapping
from typing import Final

import attrs

from .protocol import server_time

__all__ = ["TIMESTAMP_WINDOW", "ClockOffset", "ClockSkew"]

TIMESTAMP_WINDOW: Final = 60.0
"""Seconds that a timestamp may differ from the vendor's clock ("API Interface Invocation Convention")."""

_log = logging.getLogger("nxotp_async")


@attrs.frozen
class ClockOffset:
    """The difference of the two clocks, according to the ``Date`` of an answer.

    Attributes:
        seconds: How many seconds the server's clock is ahead of this machine's.
        uncertainty: How many seconds the true value may differ from this.
    """

    seconds: float
    uncertainty: float

    @classmethod
    def measure(cls, headers: Mapping[str, str], *, sent: float, elapsed: float) -> "ClockOffset | None":
        """Compare the clocks; return ``None`` without a valid ``Date``.

        Args:
            headers: The answer's headers.
            sent: This machine's clock when the request was sent, in seconds since the epoch.
            elapsed: Seconds from then to the answer.
        """
        date = server_time(headers)
        if date is None:
            return None
        # The header is truncated to a whole second, and was written at some time between request and answer.
        return cls(date + 0.5 - (sent + elapsed / 2), 0.5 + elapsed / 2)


class ClockSkew:
    """The correction of a client's timestamps, measured when the vendor rejects one.

    Attributes:
        offset: Seconds to add to this machine's clock.
    """

    def __init__(self) -> None:
        self.offset: float = 0.0

    def explains_rejection(self, *, timestamp: float, sent: float, elapsed: float, headers: Mapping[str, str]) -> bool:
        """Return whether the difference of the clocks explains why a timestamp was rejected. If so, set `offset`.

        Args:
            timestamp: The rejected timestamp, in seconds since the epoch.
            sent: This machine's clock when the request was sent, in seconds since the epoch.
            elapsed: Seconds from then to the answer.
            headers: The answer's headers; without a valid ``Date``, the result is ``False``.
        """
        measured = ClockOffset.measure(headers, sent=sent, elapsed=elapsed)
        if measured is None:
            return False
        server_now = sent + elapsed / 2 + measured.seconds
        if abs(timestamp - server_now) + measured.uncertainty <= TIMESTAMP_WINDOW:
            return False
        if abs(measured.seconds - self.offset) > 2 * measured.uncertainty:
            _log.warning(
                "this machine's clock differs from the vendor's by %.1f s; timestamps are corrected", measured.seconds
            )
        self.offset = measured.seconds
        return True
