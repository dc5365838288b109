"""What a run does with its ledger, in the ledger's thread. What crosses between it and the event loop are plain values.

The loop hands over transitions and times, and takes in the messages and counts that are returned. Nothing here knows
of the loop, and whatever is kept here is of this thread alone, the pacing of the recipients included.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import attrs

from ..errors import sensitive_variables
from .ledger import Ledger
from .money import Budget
from .pacing import RecipientPacing
from .schema import MessageState, StoredMessage, Transition

__all__ = ["Batch", "LedgerExchange"]

_MAX_ROUNDS: Final = 20  # of looking for messages in one exchange, so that none takes long


@attrs.frozen
class Batch:
    """What an exchange has brought."""

    recorded: int  # so many transitions are durable now
    messages: list[StoredMessage]  # what to send now
    next_due: float | None  # by the run's clock that never jumps; None where no message waits
    exhausted: bool | None  # whether nothing is left in the queue but what waits; None where nothing was wanted
    is_budget_spent: bool = False  # so that nothing was claimed, although it was wanted


class LedgerExchange:
    """The transactions of one run. One thread calls them, one after the other.

    ``now`` is in seconds since the epoch, and judges ``expires_at``; ``monotonic`` is in seconds of the run's clock
    that never jumps, and judges what waits.
    """

    def __init__(
        self,
        ledger: Ledger,
        per_recipient: float = 0.0,
        max_per_recipient: int | None = None,
        *,
        keep_codes: bool = False,
        budget: Budget | None = None,
    ) -> None:
        self._ledger = ledger
        self._keep_codes = keep_codes
        self._budget = budget
        self._room = 0  # so many more messages it allows, at the least
        self._per_recipient = per_recipient
        self._max_per_recipient = max_per_recipient
        self._pacing = RecipientPacing(per_recipient)
        self._position = 0  # the queue has been looked through up to this key

    def begin(self, now: float, monotonic: float) -> Counter[MessageState]:
        """Begin the run, and return how many messages are in which state."""
        self._ledger.begin_run(now, max_per_recipient=self._max_per_recipient, keep_codes=self._keep_codes)
        sent = self._ledger.sent_since(now - self._per_recipient) if self._per_recipient else {}
        # What seems to have been sent in the future was sent before the clock was set back.
        sent = {recipient: monotonic - max(0.0, now - at) for recipient, at in sent.items()}
        self._pacing = RecipientPacing(self._per_recipient, sent)
        return self._ledger.counts()

    @sensitive_variables
    def exchange(self, transitions: Iterable[Transition], wanted: int, now: float, monotonic: float) -> Batch:
        """Record transitions, and claim as many messages as wanted at the most, in one durable transaction."""
        recorded = [self._paced(transition, monotonic) for transition in transitions]
        messages: list[StoredMessage] = []
        position = self._position
        with self._ledger.transaction():
            self._ledger.record(recorded, now)
            affordable = self._affordable(wanted)
            is_budget_spent, wanted = wanted > affordable == 0, affordable
            exhausted = False if wanted else None
            for _ in range(_MAX_ROUNDS):
                if not (missing := wanted - len(messages)):
                    break
                due = self._ledger.due(missing, now, monotonic)
                rows = due or self._ledger.fresh(missing, now, after=position)
                if exhausted := not rows:
                    break
                if not due:
                    position = rows[-1].key
                ready, later = self._pacing.split(rows, monotonic, waited=bool(due))
                self._ledger.claim([row.key for row in ready], now)
                self._ledger.defer(later)
                messages += ready
            next_due = self._ledger.next_due(now, monotonic)
        self._position = position
        self._room -= len(messages)
        return Batch(len(recorded), messages, next_due, exhausted, is_budget_spent)

    def _affordable(self, wanted: int) -> int:
        if self._budget is None:
            return wanted
        if self._room < wanted:
            self._room = self._budget.room(*self._ledger.spent(self._budget.currency))
        return min(wanted, self._room)

    def _paced(self, transition: Transition, monotonic: float) -> Transition:
        if transition.throttled is None:
            return transition
        slot = self._pacing.throttled(transition.throttled, transition.not_before, monotonic)
        return attrs.evolve(transition, not_before=slot)

    def expire(self, now: float) -> Counter[MessageState]:
        """Take out of the queue what has expired, and return how many are in which state now."""
        return self._ledger.expire(now)

    def look_again(self, now: float, monotonic: float) -> Counter[MessageState]:
        """Look through the queue from its start from now on, less what expires before it is due; return the counts."""
        self._position = 0
        self._ledger.expire(now, monotonic=monotonic)
        return self._ledger.counts()

    def finish(self, transitions: Iterable[Transition], now: float, monotonic: float) -> Counter[MessageState]:
        """Record the last transitions, let nothing of erased codes remain, and return the final counts."""
        self.exchange(transitions, 0, now, monotonic)
        self._ledger.expire(now)
        self._ledger.forget_codes()
        return self._ledger.counts()
