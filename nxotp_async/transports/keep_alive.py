"""How long a connection may idle before it is not used again."""

import math
import time
from collections.abc import Callable
from typing import Final

__all__ = ["KeepAlive"]


class KeepAlive:
    """The maximum idle time of a connection that is reused.

    If a request is written while the server closes the connection, its outcome is unknown. So the time becomes shorter
    when the server announces a shorter one, or closes idle connections earlier.

    Args:
        seconds: The configured maximum.
        monotonic: A clock that never jumps, in seconds.
    """

    MEMORY: Final = 60.0  # seconds for which a connection that the server has closed shortens the time

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self._configured = seconds
        self._announced = seconds  # at most the configured maximum
        self._observed = math.inf
        self._observed_until = -math.inf

    def limit(self, now: float) -> float:
        """Return the current maximum, in seconds."""
        return min(self._announced, self._observed) if now < self._observed_until else self._announced

    def apply_header(self, header: str) -> None:
        """Apply a ``Keep-Alive`` header, such as ``timeout=5, max=100``."""
        for parameter in header.split(","):
            name, _, value = parameter.partition("=")
            value = value.strip(' "')
            if name.strip().lower() == "timeout" and value.isascii() and value.isdigit():
                timeout = float(value[:9])
                # The server counts from the end of its answer, and its FIN needs time, too.
                self._announced = min(self._configured, max(timeout - 1, timeout / 2))

    def record_close(self, idle: float) -> None:
        """Record that the server has closed a connection that was idle for this many seconds."""
        now = self.monotonic()
        if idle < self._announced:
            self._observed = min(self.limit(now), idle / 2)
            self._observed_until = now + self.MEMORY
