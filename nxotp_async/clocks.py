"""Where time and chance come from, so that tests can bring their own."""

import asyncio
import random as _random
import time as _time
from collections.abc import Awaitable, Callable

import attrs

__all__ = ["Clock"]


@attrs.frozen
class Clock:
    """The sources of time and chance of a client.

    Attributes:
        time: Seconds since the epoch; signs requests and judges ``expires_at``.
        monotonic: Seconds of a clock that never jumps; measures deadlines.
        sleep: Waits the given seconds between two attempts.
        random: A number from 0.0 up to 1.0; the jitter of the backoff.
    """

    time: Callable[[], float] = _time.time
    monotonic: Callable[[], float] = _time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = _random.random
