"""The life of a row of the outbox, pure: the statements in ``statements.py`` do the same to many rows at once.

enqueued -> queued
queued -> sending                             claim: durable before the first byte leaves
queued -> not_sent, rejected                  expire: with the outcome of the last attempt, if there was one
queued -> accepted                            receive: a callback that came after a refusal that was none
sending -> accepted, rejected, not_sent       settle
sending -> unknown, accepted                  settle, interrupt: accepted where a callback has come already
sending -> queued, not before a time          settle: it is sent again
unknown -> accepted, rejected, not_sent       settle: a worker that was only cut off reports late
unknown -> accepted                           receive
unknown -> accepted, rejected                 resolve: by hand
"""

import attrs

from ..bulk import MessageState
from ..callbacks import advances

__all__ = ["FINAL", "OutboxRow", "Report"]

FINAL = frozenset({MessageState.ACCEPTED, MessageState.REJECTED, MessageState.NOT_SENT})
"""The states in which nothing happens to a message any more."""


@attrs.frozen
class Report:
    """What a worker has to say of a row that it had claimed.

    Attributes:
        id: The row.
        claim: Which claim it was: a row that was claimed again belongs to somebody else.
        state: Where it goes: ``queued`` where it is sent again.
        outcome: What the attempt ended with: a final state, or ``unknown``.
        delay: Seconds before which it is not sent again.
        refusals: How many attempts to count against the retry policy.
        message_id: The vendor's id.
        code: The vendor's code.
        meta_code: Meta's.
        error: The name of the error's class.
        reason: Its text.
    """

    id: int
    claim: int
    state: MessageState
    outcome: MessageState
    delay: float = 0.0
    refusals: int = 0
    message_id: str | None = None
    code: int | None = None
    meta_code: int | None = None
    error: str | None = None
    reason: str | None = None


@attrs.frozen
class OutboxRow:
    """What decides about a row.

    Attributes:
        expires_at: When its code expires, by the database's clock, as everything here.
        state: How far it has come.
        claims: How often it was claimed.
        not_before: When it may be claimed.
        outcome: What the last attempt ended with, where it is sent again.
        receipt: The status of the furthest callback.
    """

    expires_at: float
    state: MessageState = MessageState.QUEUED
    claims: int = 0
    not_before: float = 0.0
    outcome: MessageState | None = None
    receipt: str | None = None

    def claim(self, now: float) -> "OutboxRow | None":
        """Return the row as one that is being sent, or ``None`` if it must not be sent now."""
        if self.state is not MessageState.QUEUED or not self.not_before <= now < self.expires_at:
            return None
        return attrs.evolve(self, state=MessageState.SENDING, claims=self.claims + 1)

    def settle(self, report: Report, now: float) -> "OutboxRow":
        """Return the row after a report of a worker; the same one if the report comes too late."""
        if report.claim != self.claims:
            return self
        if self.state is MessageState.UNKNOWN:
            if report.outcome is MessageState.UNKNOWN:
                return self
            return attrs.evolve(self, state=report.outcome)
        if self.state is not MessageState.SENDING:
            return self
        if report.state is MessageState.QUEUED:
            if self.receipt is not None:  # it went out, whatever was answered
                return attrs.evolve(self, state=MessageState.ACCEPTED)
            return attrs.evolve(self, state=MessageState.QUEUED, outcome=report.outcome, not_before=now + report.delay)
        if report.state is MessageState.UNKNOWN and self.receipt is not None:
            return attrs.evolve(self, state=MessageState.ACCEPTED)
        return attrs.evolve(self, state=report.state)

    def interrupt(self) -> "OutboxRow":
        """Return the row after the worker that was sending it has gone."""
        if self.state is not MessageState.SENDING:
            return self
        known = MessageState.UNKNOWN if self.receipt is None else MessageState.ACCEPTED
        return attrs.evolve(self, state=known)

    def expire(self, now: float) -> "OutboxRow":
        """Return the row as one that is not sent any more, if its time is over."""
        if self.state is not MessageState.QUEUED or now < self.expires_at:
            return self
        return attrs.evolve(self, state=self.outcome or MessageState.NOT_SENT)

    def receive(self, status: str) -> "OutboxRow":
        """Return the row after a callback: what it speaks of was accepted, even where its delivery has failed."""
        is_possible = self.state in (MessageState.SENDING, MessageState.UNKNOWN, MessageState.ACCEPTED) or (
            self.state is MessageState.QUEUED and self.claims > 0
        )
        if not is_possible or not advances(self.receipt or "queued", status):
            return self
        state = self.state if self.state is MessageState.SENDING else MessageState.ACCEPTED
        return attrs.evolve(self, state=state, receipt=status)
