"""What the sends of a client share: all of them, and those of one event loop."""

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from .clock_skew import ClockSkew
from .clocks import Clock
from .hooks import Hooks
from .retry import RetryQuota
from .streaming import Stream
from .transports import Transport

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

__all__ = ["AcceptedIds", "ClientState", "LoopState"]


class AcceptedIds:
    """The message ids of the latest messages that were accepted, and whose they are.

    An answer with another message's id was not meant for this one.
    """

    CAPACITY: Final = 10_000

    def __init__(self) -> None:
        self._owners: OrderedDict[str, str] = OrderedDict()

    def owner(self, message_id: str, cus_message_id: str) -> str:
        """Return the ``cus_message_id`` of the message that this id was given to first."""
        owner = self._owners.setdefault(message_id, cus_message_id)
        if len(self._owners) > self.CAPACITY:
            self._owners.popitem(last=False)
        return owner


class LoopState:
    """What the sends of one event loop share.

    Attributes:
        permits: One for each request in flight.
        limiter: The rate limit, if there is one.
        backing_off: How many sends are between two attempts.
        streams: The open `send_many` and `send_batch`.
    """

    def __init__(self, max_concurrency: int, rate_limit: float | None) -> None:
        self.permits: asyncio.Semaphore = asyncio.Semaphore(max_concurrency)
        self.limiter: AsyncLimiter | None = None if rate_limit is None else _smooth_limiter(rate_limit)
        self.backing_off = 0
        self.streams: set[Stream[Any, Any]] = set()


class ClientState:
    """What all sends of a client and of its views share.

    Attributes:
        transport: Makes the POSTs.
        clock: The sources of time and chance.
        quota: Limits the retries.
        skew: The vendor's clock.
        in_flight: The ``cus_message_id`` of every message on its way, with a mark of whose it is.
        accepted_ids: The message ids of the latest accepted messages.
        hooks: Who is told of attempts and results.
    """

    def __init__(self, transport: Transport, clock: Clock, max_concurrency: int, rate_limit: float | None) -> None:
        _import_what_sending_needs(rate_limit)
        self.transport = transport
        self.clock = clock
        self.quota = RetryQuota()
        self.skew = ClockSkew()
        self.in_flight: dict[str, object] = {}
        self.accepted_ids = AcceptedIds()
        self.hooks = Hooks()
        self._max_concurrency = max_concurrency
        self._rate_limit = rate_limit
        self._loops: dict[asyncio.AbstractEventLoop, LoopState] = {}

    def of_running_loop(self) -> LoopState:
        """Return what the running event loop's sends share."""
        loop = asyncio.get_running_loop()
        state = self._loops.get(loop)
        if state is None:
            for other in [other for other in list(self._loops) if other.is_closed()]:
                self._loops.pop(other, None)
            state = self._loops[loop] = LoopState(self._max_concurrency, self._rate_limit)
        return state


def _import_what_sending_needs(rate_limit: float | None) -> None:
    # These take too long for ``import nxotp_async``. But a program that has no file descriptors left cannot import
    # anything, and must still be told what became of its messages: so it is not left to the first retry, either.
    import tenacity  # noqa: F401, PLC0415

    if rate_limit is not None:
        import aiolimiter  # noqa: F401, PLC0415


def _smooth_limiter(rate: float) -> "AsyncLimiter":
    from aiolimiter import AsyncLimiter  # noqa: PLC0415 - see above

    # The bucket starts full, and all of it may go out at once: a hundredth of a second's worth keeps the first
    # second smooth, and is still enough to make up for timers that fire late.
    burst = max(1.0, rate / 100)
    return AsyncLimiter(burst, burst / rate)
