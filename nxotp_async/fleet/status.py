"""How a fleet is doing: what is queued, what became of the rest, who is paused, and who works."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, LiteralString

import attrs

from ..bulk import MessageState
from ..stores import Store
from .entries import OutboxCount
from .outbox import Outbox
from .queues import Queue
from .senders import read_sender

__all__ = ["FleetStatus", "SenderStatus", "fleet_status"]

_WAITING: Final = (MessageState.QUEUED, MessageState.SENDING)
_SPAN: Final = 10.0  # seconds over which the rate is measured
_RATES: Final[LiteralString] = """
SELECT sender, count(*) FROM nxotp_outbox
WHERE finished_at > clock_timestamp() - make_interval(secs => %(span)s) AND sent_at IS NOT NULL GROUP BY sender
"""
_WORKERS: Final[LiteralString] = """
SELECT count(*) FROM procrastinate_workers
WHERE last_heartbeat > clock_timestamp() - make_interval(secs => %(stalled_after)s)
"""


@attrs.frozen
class SenderStatus:
    """How a sender is doing.

    Attributes:
        sender: Its name.
        states: How many messages are in which state.
        queued: How many are queued, in each queue.
        outcomes: How many have which outcome and why: what is queued or being sent is left out.
        oldest_queued: Seconds since the first one that is queued was enqueued, or ``None``.
        rate: Messages a second that got their outcome in the last ten seconds.
        limit: The lowered rate, in messages a second, once the vendor has throttled; ``None`` before.
        paused: Why nothing goes, or ``None``.
        paused_at: Since when, in seconds since the epoch, or ``None``.
    """

    sender: str
    states: Counter[MessageState]
    queued: dict[Queue, int]
    outcomes: list[OutboxCount]
    oldest_queued: float | None
    rate: float
    limit: float | None
    paused: str | None
    paused_at: float | None


@attrs.frozen
class FleetStatus:
    """How a fleet is doing.

    Attributes:
        senders: Each of its senders, by name.
        workers: How many of procrastinate's workers are alive; each process of the fleet has one for each queue.
    """

    senders: list[SenderStatus]
    workers: int


async def fleet_status(outbox: Outbox, store: Store, *, now: float, stalled_after: float = 30.0) -> FleetStatus:
    """Return how all senders of an outbox are doing.

    Args:
        outbox: The outbox.
        store: The store in the same database, where the workers keep what they share.
        now: Seconds since the epoch.
        stalled_after: Seconds without a sign of life after which a worker has gone.

    Raises:
        ConfigurationError: The outbox cannot be used as it is.
        StoreError: PostgreSQL failed, or did not answer in time.
    """
    counts = await outbox.counts()
    rates = dict(await outbox.rows(_RATES, {"span": _SPAN}))
    ((workers,),) = await outbox.rows(_WORKERS, {"stalled_after": stalled_after})
    names = sorted({outbox.sender, *(count.sender for count in counts)})
    senders = []
    for name in names:
        state = await read_sender(store, name)
        senders.append(
            _sender_status(
                name,
                [count for count in counts if count.sender == name],
                rate=rates.get(name, 0) / _SPAN,
                limit=None if state.pace is None else state.pace.present(now),
                paused=state.paused,
                paused_at=None if state.paused is None else state.paused_at,
            )
        )
    return FleetStatus(senders, workers)


def _sender_status(name: str, counts: Iterable[OutboxCount], **others: Any) -> SenderStatus:  # noqa: ANN401 - those of the status
    states: Counter[MessageState] = Counter()
    queued: Counter[Queue] = Counter()
    outcomes = []
    oldest = None
    for count in counts:
        states[count.state] += count.count
        if count.state not in _WAITING:
            outcomes.append(count)
        elif count.state is MessageState.QUEUED:
            queued[count.queue] += count.count
            oldest = max(oldest or 0.0, count.oldest)
    outcomes.sort(key=lambda each: (each.state, -each.count))
    return SenderStatus(
        name, states, {queue: queued[queue] for queue in Queue}, outcomes, oldest_queued=oldest, **others
    )
