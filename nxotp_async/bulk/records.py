"""What goes into a run's ledger and what comes out: states, claims, outcomes, reasons; how the run ended."""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs

from ..errors import NxOtpError
from ..messages import OtpMessage

__all__ = ["Claim", "ClaimedMessage", "Entry", "MessageState", "Outcome", "Reason", "Report"]


class MessageState(StrEnum):
    """How far a message of a ledger has come."""

    QUEUED = "queued"
    """It waits to be sent."""
    SENDING = "sending"
    """It is in flight."""
    ACCEPTED = "accepted"
    """The vendor accepted it."""
    REJECTED = "rejected"
    """The vendor said no."""
    NOT_SENT = "not_sent"
    """It will not be sent: its row is no message, its code has expired, or its recipient has had enough."""
    UNKNOWN = "unknown"
    """It may have been accepted. It is not sent again, unless somebody says so."""


@attrs.frozen
class Entry:
    """A row on its way into the ledger.

    Attributes:
        line: The line of its file.
        identity: Its ``cus_message_id``, or what stands for it.
        message: The message, or ``None`` where the row is none.
        extra: The columns that are no field of a message.
        problem: Why it is no message.
    """

    line: int
    identity: str
    message: OtpMessage | None
    extra: Mapping[str, Any] = attrs.field(repr=False)
    problem: str


@attrs.frozen
class ClaimedMessage:
    """A message that the ledger has marked as in flight.

    Attributes:
        key: Its place in the ledger.
        message: The message.
        refusals: How many attempts have counted against the retry policy's ``max_attempts``.
    """

    key: int
    message: OtpMessage
    refusals: int


@attrs.frozen
class Outcome:
    """What became of a claimed message.

    Attributes:
        key: Its place in the ledger.
        state: Its new state.
        attempts: POSTs begun for it since it was claimed.
        refusals: How many of them count against ``max_attempts``.
        not_before: When it may be sent again, in seconds of the run's clock that never jumps; 0.0 for any time.
        message_id: The vendor's id, where it was accepted.
        code: The vendor's code.
        meta_code: Meta's code.
        error: The name of the error's class.
        reason: The error's text.
    """

    key: int
    state: MessageState
    attempts: int = 0
    refusals: int = 0
    not_before: float = 0.0
    message_id: str | None = None
    code: int | None = None
    meta_code: int | None = None
    error: str | None = None
    reason: str | None = None


@attrs.frozen
class Claim:
    """What an exchange with the ledger brought.

    Attributes:
        messages: What to send now.
        next_due: When the first message that waits may be sent, in seconds of the run's clock that never jumps;
            ``None`` where none waits.
        exhausted: Whether nothing is left in the queue but what waits.
    """

    messages: list[ClaimedMessage]
    next_due: float | None
    exhausted: bool


@attrs.frozen
class Reason:
    """Why messages are in a state, and how many are.

    Attributes:
        state: The state.
        error: The name of the error's class, or ``None`` without one.
        code: The vendor's code, or ``None`` without one.
        meta_code: Meta's code, or ``None`` without one.
        count: How many messages.
        reason: The text of one of their errors.
    """

    state: MessageState
    error: str | None
    code: int | None
    meta_code: int | None
    count: int
    reason: str | None


@attrs.frozen
class Report:
    """How a run ended.

    Attributes:
        counts: How many messages of the ledger are in which state.
        paused: What has to be mended before it can go on, or ``None``.
        stopped: Whether it was stopped before its end.
    """

    counts: Counter[MessageState]
    paused: NxOtpError | None
    stopped: bool
