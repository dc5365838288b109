"""The result of a send, its status, and all results paired with their ids."""

from collections import Counter
from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType

import attrs

from .errors import InvalidMessageError, NotSentError, NxOtpError, OutcomeUnknownError
from .messages import OtpMessage

__all__ = ["Outcome", "ResultCollector", "SendResult", "SendStatus", "Summary", "reason_of"]

Outcome = str | NxOtpError
"""What an attempt ends with: the vendor's message id, or an error."""


class SendStatus(StrEnum):
    """What is known of a message after its last attempt."""

    ACCEPTED = "accepted"
    """The vendor accepted it and named its message id."""
    REJECTED = "rejected"
    """The vendor answered no."""
    NOT_SENT = "not_sent"
    """It provably never left this machine."""
    UNKNOWN = "unknown"
    """It may have been accepted: sending it again may deliver it twice."""

    @property
    def label(self) -> str:
        """The status as people read it: "not sent", where the value for machines is "not_sent"."""
        return self.value.replace("_", " ")

    @property
    def precedence(self) -> int:
        """Which of several failed attempts says what became of a message: the one with the highest."""
        return (SendStatus.NOT_SENT, SendStatus.REJECTED, SendStatus.UNKNOWN, SendStatus.ACCEPTED).index(self)

    @classmethod
    def of(cls, error: NxOtpError) -> "SendStatus":
        """Return what an error says of the message it was raised for."""
        match error:
            case OutcomeUnknownError():
                return cls.UNKNOWN
            case NotSentError() | InvalidMessageError():
                return cls.NOT_SENT
        return cls.REJECTED


@attrs.frozen
class SendResult:
    """What became of one message.

    Attributes:
        message: The message as it was sent: with its ``cus_message_id`` and the client's defaults filled in.
        status: What is known of it.
        message_id: The vendor's id for it, or ``None`` unless accepted.
        attempts: How many POSTs were begun for it, those of ``history`` included.
        elapsed: Seconds from the call to the outcome, waiting included.
        error: Why it was not accepted, or ``None``.
        history: What became of it with the other senders of a `SenderPool` that were tried, in the order of time; each
            is rejected or not sent, and its message names that sender.
    """

    message: OtpMessage
    status: SendStatus
    message_id: str | None = None
    attempts: int = 0
    elapsed: float = 0.0
    error: NxOtpError | None = None
    history: tuple["SendResult", ...] = ()


@attrs.frozen
class Summary:
    """How many messages had which outcome.

    Attributes:
        total: Messages with an outcome.
        accepted: The vendor accepted them.
        rejected: The vendor said no.
        not_sent: They provably never left.
        unknown: They may have been accepted.
        retried: Those that took more than one attempt.
        attempts: POSTs of all of them together.
    """

    total: int
    accepted: int
    rejected: int
    not_sent: int
    unknown: int
    retried: int
    attempts: int


class ResultCollector:
    """Collects results in any order of arrival, and pairs ``cus_message_id`` with message id, both ways.

    An id seen twice is kept in `duplicates`; what was paired first stays paired.
    """

    def __init__(self) -> None:
        self._results: list[SendResult] = []
        self._message_ids: dict[str, str] = {}
        self._cus_message_ids: dict[str, str] = {}
        self._duplicates: list[SendResult] = []

    def add(self, result: SendResult) -> None:
        """Take a result in."""
        self._results.append(result)
        cus_message_id, message_id = result.message.cus_message_id, result.message_id
        if message_id is None or cus_message_id is None:
            return
        if cus_message_id in self._message_ids or message_id in self._cus_message_ids:
            self._duplicates.append(result)
            return
        self._message_ids[cus_message_id] = message_id
        self._cus_message_ids[message_id] = cus_message_id

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[SendResult]:
        """Iterate over the results in the order of their arrival."""
        return iter(self._results)

    @property
    def pairs(self) -> Mapping[str, str]:
        """Message id by cus_message_id, for every accepted message. A live, read-only view."""
        return MappingProxyType(self._message_ids)

    def message_id(self, cus_message_id: str) -> str | None:
        """Return the vendor's id of an accepted message, or ``None``."""
        return self._message_ids.get(cus_message_id)

    def cus_message_id(self, message_id: str) -> str | None:
        """Return your own id of the message the vendor calls by this id, or ``None``."""
        return self._cus_message_ids.get(message_id)

    def _with(self, status: SendStatus) -> list[SendResult]:
        return [result for result in self._results if result.status is status]

    @property
    def accepted(self) -> list[SendResult]:
        """The messages the vendor accepted."""
        return self._with(SendStatus.ACCEPTED)

    @property
    def rejected(self) -> list[SendResult]:
        """The messages the vendor refused."""
        return self._with(SendStatus.REJECTED)

    @property
    def not_sent(self) -> list[SendResult]:
        """The messages that provably never left."""
        return self._with(SendStatus.NOT_SENT)

    @property
    def unknown(self) -> list[SendResult]:
        """The messages that may have been accepted."""
        return self._with(SendStatus.UNKNOWN)

    @property
    def duplicates(self) -> list[SendResult]:
        """Accepted results with a cus_message_id or message id that was paired before."""
        return list(self._duplicates)

    @property
    def failures(self) -> Counter[int | str]:
        """How many messages failed for which reason: the vendor's code, or the error's class name without one."""
        return Counter(reason_of(result.error) for result in self._results if result.error is not None)

    def summary(self) -> Summary:
        """Count the outcomes."""
        counts = Counter(result.status for result in self._results)
        return Summary(
            total=len(self._results),
            retried=sum(result.attempts > 1 for result in self._results),
            attempts=sum(result.attempts for result in self._results),
            **{status.value: counts[status] for status in SendStatus},
        )


def reason_of(error: NxOtpError) -> int | str:
    """Return why a message failed, to count by: the vendor's code, or the error's class name without one."""
    return type(error).__name__ if error.code is None else error.code
