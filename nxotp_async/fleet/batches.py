"""Messages on their way into the outbox."""

from collections.abc import Iterable
from secrets import token_hex
from typing import Any

from ..errors import ConfigurationError, InvalidMessageError, InvalidReason, OutboxFullError, sensitive_variables
from ..messages import OtpMessage
from .entries import Enqueued
from .queues import Queue
from .sealing import Keys

__all__ = ["Batch", "only_id"]


class Batch:
    """Messages that are enqueued together, and what became of them.

    Args:
        messages: The messages.
        keys: What encrypts them.
        sender: Who sends them.
        queue: In which queue they go.
        max_queued: How many may be queued there.
        expires_after: Seconds after which those without ``expires_at`` expire.

    Attributes:
        arguments: Those of the statement that enqueues them.
        enqueued: What became of them.

    Raises:
        TypeError: One is no message.
    """

    @sensitive_variables
    def __init__(
        self,
        messages: Iterable[OtpMessage],
        keys: Keys,
        sender: str,
        queue: Queue,
        max_queued: int,
        expires_after: float,
    ) -> None:
        self.queue = Queue(queue)
        by_id: dict[str, OtpMessage] = {}
        for message in messages:
            if not isinstance(message, OtpMessage):
                raise TypeError(f"expected an OtpMessage, not {type(message).__name__}")
            by_id.setdefault(message.cus_message_id or token_hex(16), message)
        self.arguments: dict[str, Any] = {
            "sender": sender,
            "queue": self.queue,
            "max_queued": max_queued,
            "fingerprint": keys.fingerprints[0],
            "expires_after": expires_after,
            "ids": list(by_id),
            "sealed": [keys.seal(message, id_) for id_, message in by_id.items()],
            "recipients": [keys.digests(message.to)[0] for message in by_id.values()],
            "expires": [message.expires_at for message in by_id.values()],
        }
        self.enqueued = Enqueued([], [])

    def take(self, row: tuple[Any, ...] | None) -> list[int]:
        """Take in what the statement returned, and return the rows that have no job yet.

        Raises:
            ConfigurationError: The workers have none of the keys.
            OutboxFullError: Too many messages are queued.
        """
        waiting, is_key_known, rows, added = row or (0, True, None, None)
        if not is_key_known:
            raise ConfigurationError(
                "no worker of this outbox has the first key of NXOTP_OUTBOX_KEYS, and none could read the message",
                hint="give the same keys to all; of new keys, the workers' first",
            )
        ids, new = self.arguments["ids"], set(added or ())
        if waiting + len(ids) > self.arguments["max_queued"]:
            raise OutboxFullError(
                f"{waiting} messages are queued in {self.queue} for sender {self.arguments['sender']}, and more than "
                f"{self.arguments['max_queued']} may not be",
                hint="are enough workers running? nxotp fleet status tells",
            )
        self.enqueued = Enqueued([id_ for id_ in ids if id_ in new], [id_ for id_ in ids if id_ not in new])
        return rows or []


def only_id(enqueued: Enqueued) -> str:
    """Return the id of the only message.

    Raises:
        InvalidMessageError: The outbox held it before.
    """
    if enqueued.known:
        raise InvalidMessageError(
            "cus_message_id is that of another message of the outbox",
            field="cus_message_id",
            reason=InvalidReason.DUPLICATE,
            hint="give each message its own, or none",
            cus_message_id=enqueued.known[0],
        )
    return enqueued.queued[0]
