"""The vendor's status callbacks, without I/O: bytes in, events out."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs
import orjson

from .errors import CallbackVerificationError
from .messages import mask_number

__all__ = ["StatusEvent", "parse_callback"]


@attrs.frozen
class StatusEvent:
    """One status of one message ("WhatsApp API webhook").

    Attributes:
        message_id: The vendor's id of the message, which is its ``cus_message_id`` where it was sent with one.
        status: ``sent``, ``delivered``, ``read``, ``failed``, ``deleted``, or one that was not known when this was
            written.
        timestamp: When it came to be, by the vendor's clock, or ``None`` where the vendor does not say.
        recipient: The recipient's number, or an empty text.
        errors: What went wrong, as the vendor tells it: ``code`` and ``title``.
        raw: All of the status, as it came.
    """

    message_id: str
    status: str
    timestamp: datetime | None = None
    recipient: str = attrs.field(default="", repr=lambda value: repr(value and mask_number(value)))
    errors: tuple[Mapping[str, Any], ...] = ()
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False)


def parse_callback(body: bytes) -> list[StatusEvent]:
    """Read the body of a callback. One that holds no statuses, a button click for example, has no events.

    Raises:
        CallbackVerificationError: It is no JSON object.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        raise CallbackVerificationError("the callback's body is no JSON object")
    statuses = fields.get("statuses")
    if not isinstance(statuses, list):
        return []
    return [event for status in statuses if (event := _event(status)) is not None]


def _event(status: object) -> StatusEvent | None:
    if not isinstance(status, dict):
        return None
    message_id, name = status.get("id"), status.get("status")
    if not (isinstance(message_id, str) and message_id and isinstance(name, str)):
        return None
    recipient, errors = status.get("recipient_id"), status.get("errors")
    return StatusEvent(
        message_id,
        name.lower(),
        _moment(status.get("timestamp")),
        recipient if isinstance(recipient, str) else "",
        tuple(error for error in errors if isinstance(error, dict)) if isinstance(errors, list) else (),
        status,
    )


def _moment(seconds: object) -> datetime | None:
    """Read epoch seconds, which the vendor writes as a string."""
    if not isinstance(seconds, str | int | float):
        return None
    try:
        return datetime.fromtimestamp(float(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None
