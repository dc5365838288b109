"""The state that the sends of a client share: one for the client, and one for each event loop."""

import asyncio
import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from .clock_skew import ClockSkew
from .clocks import Clock
from .errors import NotSentError
from .hooks import Hooks
from .phone_numbers import load_numbering_plans
from .rates import RateLimiter
from .retry import RetryQuota
from .streaming import Stream
from .transports import Transport

if TYPE_CHECKING:
    from .pacing import SharedRate
    from .tracking import DeliveryTracker

__all__ = ["AcceptedIds", "ClientState", "LoopState"]


class AcceptedIds:
    """The message ids of the latest accepted messages, each with the message that it belongs to."""

    CAPACITY: Final = 10_000

    def __init__(self) -> None:
        self._owners: OrderedDict[str, str] = OrderedDict()

    def owner(self, message_id: str, cus_message_id: str) -> str:
        """Return the ``cus_message_id`` of the first message with this message id."""
        owner = self._owners.setdefault(message_id, cus_message_id)
        if len(self._owners) > self.CAPACITY:
            self._owners.popitem(last=False)
        return owner


class LoopState:
    """The state that the sends of one event loop share.

    Attributes:
        permits: The semaphore that limits the requests in flight.
        limiter: The rate limit, if there is one of this event loop alone.
        backing_off: The number of sends that wait for a retry.
        streams: The open `send_many` and `send_batch`.
    """

    def __init__(self, max_concurrency: int, rate_limit: float | None, clock: Clock) -> None:
        self.permits: asyncio.Semaphore = asyncio.Semaphore(max_concurrency)
        self.limiter = None if rate_limit is None else RateLimiter(rate_limit, clock)
        self.backing_off = 0
        self.streams: set[Stream[Any, Any]] = set()


class ClientState:
    """The state that all sends of a client and of its views share.

    Attributes:
        transport: Makes the POSTs.
        clock: The sources of time and randomness.
        quota: Limits the retries.
        skew: The correction of timestamps.
        in_flight: The ``cus_message_id`` of every message in flight, each with an object that identifies its send.
        accepted_ids: The message ids of the latest accepted messages.
        shared_rate: The rate limit, if other processes share it.
        hooks: The hooks for attempts and results.
        tracker: Gets every result, if there is one.
        refusal: Returns why nothing may be sent at present, or ``None``.
    """

    def __init__(
        self, transport: Transport, clock: Clock, max_concurrency: int, rate_limit: "float | SharedRate | None"
    ) -> None:
        _import_dependencies()
        self.transport = transport
        self.clock = clock
        self.quota = RetryQuota()
        self.skew = ClockSkew()
        self.in_flight: dict[str, object] = {}
        self.accepted_ids = AcceptedIds()
        self.hooks = Hooks()
        self.tracker: DeliveryTracker | None = None
        self.refusal: Callable[[], NotSentError | None] = lambda: None
        self.set_limits(max_concurrency, rate_limit)

    def set_limits(self, max_concurrency: int, rate_limit: "float | SharedRate | None") -> None:
        """Begin anew with these limits for each event loop."""
        self.shared_rate = None if isinstance(rate_limit, int | float) else rate_limit
        self._rate_limit = rate_limit if isinstance(rate_limit, int | float) else None
        self._max_concurrency = max_concurrency
        self._loops: dict[asyncio.AbstractEventLoop, LoopState] = {}

    def with_limits(self, max_concurrency: int, rate_limit: "float | SharedRate") -> "ClientState":
        """Return a state with permits and a rate of its own, which shares everything else with this one."""
        state = copy.copy(self)
        state.set_limits(max_concurrency, rate_limit)
        return state

    def of_running_loop(self) -> LoopState:
        """Return the state of the running event loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "nxotp_async needs a running asyncio event loop: asyncio.run(...), or trio-asyncio under trio"
            ) from None
        state = self._loops.get(loop)
        if state is None:
            for other in [other for other in list(self._loops) if other.is_closed()]:
                self._loops.pop(other, None)
            state = self._loops[loop] = LoopState(self._max_concurrency, self._rate_limit, self.clock)
        return state


def _import_dependencies() -> None:
    # Importing these takes too long for ``import nxotp_async``. The first retry would be too late: a program without
    # free file descriptors cannot import anything, but its messages must still get the correct status.
    import tenacity  # noqa: F401, PLC0415

    load_numbering_plans()
