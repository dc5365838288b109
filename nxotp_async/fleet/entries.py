"""What is told of the messages of an outbox."""

from datetime import datetime

import attrs

from ..bulk import MessageState
from .queues import Queue
from .states import FINAL

__all__ = ["Enqueued", "OutboxCount", "OutboxMessage"]


@attrs.frozen
class OutboxMessage:
    """What is known of a message of the outbox. Its number and its content are not a part of it.

    Attributes:
        cus_message_id: Its id.
        sender: Who sends it.
        queue: In which queue it is, or was.
        state: How far it has come.
        message_id: The vendor's id.
        attempts: How often it was tried.
        code: The vendor's code of the last refusal.
        meta_code: Meta's.
        error: The name of the error's class.
        reason: Its text.
        receipt: The status of its furthest callback.
        queued_at: When it was enqueued.
        expires_at: When its code expires. It is not sent after that.
        sent_at: When the last attempt began.
        finished_at: Since when its state is final, or unknown.
    """

    cus_message_id: str
    sender: str
    queue: Queue = attrs.field(converter=Queue)
    state: MessageState = attrs.field(converter=MessageState)
    message_id: str | None
    attempts: int
    code: int | None
    meta_code: int | None
    error: str | None
    reason: str | None
    receipt: str | None
    queued_at: datetime
    expires_at: datetime
    sent_at: datetime | None
    finished_at: datetime | None

    @property
    def is_settled(self) -> bool:
        """Whether no worker will do anything about it any more: its state is final, or unknown."""
        return self.state in FINAL or self.state is MessageState.UNKNOWN


@attrs.frozen
class OutboxCount:
    """How many messages have come how far.

    Attributes:
        sender: Who sends them.
        queue: In which queue they are, or were.
        state: How far they have come.
        code: The vendor's code, of a refusal.
        error: The name of the error's class.
        count: How many they are.
        oldest: Seconds since the first of them was enqueued.
    """

    sender: str
    queue: Queue = attrs.field(converter=Queue)
    state: MessageState = attrs.field(converter=MessageState)
    code: int | None
    error: str | None
    count: int
    oldest: float


@attrs.frozen
class Enqueued:
    """What became of many messages.

    Attributes:
        queued: The ids of those that are queued now.
        known: The ids of those that the outbox held before; they were not taken in again.
    """

    queued: list[str]
    known: list[str]
