"""The limits of WhatsApp behind the vendor: messages a second from a number, and the time between two to a number."""

from collections import deque
from typing import Final

from ..checks import integer, number, optional, validate
from ..codes import MetaCode
from .faults import Fault

__all__ = ["WhatsAppLimits"]

_SECOND: Final = 1.0


class WhatsAppLimits:
    """Refuses what is sent too fast, with Meta's codes. What is refused does not count.

    Args:
        sender_limit: Messages from one number in any second. Default: no limit.
        recipient_interval: Seconds between two messages to one number. Default: no limit.

    Raises:
        ValueError: A limit is no number, or too small.
    """

    def __init__(self, sender_limit: int | None, recipient_interval: float | None) -> None:
        self._sender_limit = validate("sender_limit", optional(integer(at_least=1)), sender_limit)
        self._recipient_interval = validate("recipient_interval", optional(number(above=0)), recipient_interval)
        self._sent: dict[str, deque[float]] = {}
        self._last_to: dict[str, float] = {}  # in the order of time

    def take(self, sender: str, recipient: str, now: float) -> Fault | None:
        """Count a message, or return what it is refused with.

        Args:
            sender: The sending number.
            recipient: The recipient's number.
            now: Seconds of a clock that never jumps.
        """
        sent = self._sent.setdefault(sender, deque(maxlen=self._sender_limit or 0))
        if self._sender_limit and len(sent) == self._sender_limit and now - sent[0] < _SECOND:
            return Fault.meta(MetaCode.THROUGHPUT_LIMIT)
        if self._recipient_interval:
            while self._last_to and now - (oldest := next(iter(self._last_to.items())))[1] >= self._recipient_interval:
                del self._last_to[oldest[0]]
            if recipient in self._last_to:
                return Fault.meta(MetaCode.PAIR_RATE_LIMIT)
            self._last_to[recipient] = now
        sent.append(now)
        return None
