"""How a message is written into the ledger's columns, and read back."""

import time
from datetime import UTC, datetime
from typing import Final

import orjson

from ..messages import OtpMessage
from .records import Entry, MessageState

__all__ = ["as_columns", "as_json", "as_message"]


def as_json(value: object) -> str:
    """Return the value as JSON text, which SQLite takes many rows from in one step."""
    return orjson.dumps(value).decode()


_LATEST: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
_OPTIONS: Final = ("language_code", "category", "dr_webhook", "api_type", "business_phone")


def as_columns(source: int, entry: Entry) -> tuple[object, ...]:
    """Return the values of the row, in the order of the INSERT statement."""
    message = entry.message
    extra = as_json(entry.extra) if entry.extra else None
    if message is None:
        not_sent = (MessageState.NOT_SENT, "InvalidMessageError", entry.problem, time.time())
        return (source, entry.line, entry.identity, None, None, None, None, extra, *not_sent)
    options = {name: value for name in _OPTIONS if (value := getattr(message, name)) is not None}
    return (
        source,
        entry.line,
        entry.identity,
        message.to,
        message.content,
        as_json(options) if options else None,
        message.expires_at and min(message.expires_at.timestamp(), _LATEST),
        extra,
        MessageState.QUEUED,
        None,
        None,
        None,
    )


def as_message(
    cus_message_id: str, recipient: str, content: str, options: str | None, expires_at: float | None
) -> OtpMessage:
    """Make the message of its columns."""
    return OtpMessage(
        recipient,
        content,
        cus_message_id=cus_message_id,
        expires_at=None if expires_at is None else datetime.fromtimestamp(expires_at, UTC),
        **(orjson.loads(options) if options else {}),
    )
