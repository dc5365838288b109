"""Files of messages into the outbox, through a temporary ledger, so that the rules of a bulk run hold for them too."""

from collections.abc import AsyncIterator, Callable
from typing import Final

import attrs

from ..bulk import Ledger
from ..clocks import Clock
from ..errors import OutboxFullError
from .outbox import Outbox

__all__ = ["Moved", "move"]

_BATCH: Final = 500
_LOOK_AGAIN: Final = 1.0  # seconds until a full outbox is asked once more


@attrs.define
class Moved:
    """How many messages have come from a ledger into the outbox.

    Attributes:
        queued: They are queued now.
        known: The outbox held them before; they were not taken in again.
        expired: Their codes had expired; they were left out.
    """

    queued: int = 0
    known: int = 0
    expired: int = 0


async def move(
    ledger: Ledger, outbox: Outbox, *, on_full: Callable[[OutboxFullError], object], clock: Clock | None = None
) -> AsyncIterator[Moved]:
    """Enqueue what a ledger has queued, some hundreds in a transaction; yield how far it is, at first and after each.

    A full outbox is waited for. What was yielded is durable: after an error or a cancellation, doing it all again
    enqueues the rest.

    Args:
        ledger: Where from. It is not changed but for what has expired.
        outbox: Where to.
        on_full: Called with the error when the outbox is full, once until there is room again.
        clock: Sources of time and chance for tests.

    Raises:
        ConfigurationError: The outbox cannot be used as it is.
        StoreError: PostgreSQL failed, or did not answer in time.
    """
    clock = clock or Clock()
    moved = Moved(expired=ledger.expire(clock.time()).total())
    yield moved
    position = 0
    size = min(_BATCH, outbox.max_queued)
    while rows := ledger.fresh(size, clock.time(), after=position):
        enqueued = None
        is_full = False
        while enqueued is None:
            try:
                enqueued = await outbox.enqueue_many([row.message for row in rows])
            except OutboxFullError as error:
                if not is_full:
                    on_full(error)
                is_full = True
                await clock.sleep(_LOOK_AGAIN)
        moved.queued += len(enqueued.queued)
        moved.known += len(enqueued.known)
        position = rows[-1].key
        yield moved
