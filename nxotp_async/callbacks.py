"""The vendor's status callbacks, without I/O: is it the vendor's, what does it say, and does that say anything new."""

import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import attrs
import orjson

from .errors import CallbackVerificationError
from .phone_numbers import mask_number
from .signing import Credentials, signed_text

__all__ = [
    "MAX_CALLBACK_BYTES",
    "TERMINAL_STATUSES",
    "StatusEvent",
    "advances",
    "parse_callback",
    "reaches",
    "verify_callback",
]

MAX_CALLBACK_BYTES: Final = 256 * 1024
"""A callback has a kilobyte or two."""

_SIGNED_HEADERS: Final = ("accesskey", "action", "biztype", "ts", "algorithm", "sign")


def verify_callback(
    headers: Mapping[str, str],
    body: bytes,
    credentials: Credentials,
    now: float | None = None,
    *,
    window: float = 300.0,
    require_sha256: bool = False,
) -> None:
    """Check that a callback is the vendor's ("whatsapp callback verify").

    Args:
        headers: The request's headers, in any letter case.
        body: Its raw body, byte for byte.
        credentials: The account's keys.
        now: Seconds since the epoch; by default the time.
        window: Seconds that ``ts`` may be away from ``now``, to either side.
        require_sha256: Whether to refuse MD5, which the vendor uses unless ``algorithm`` says ``sha256``.

    Raises:
        CallbackVerificationError: It is not, or cannot be told to be: a header is missing, the signature or the access
            key is another one, ``ts`` is out of the window, or the body is longer than `MAX_CALLBACK_BYTES`.
    """
    if len(body) > MAX_CALLBACK_BYTES:
        raise CallbackVerificationError(f"the body is longer than {MAX_CALLBACK_BYTES} bytes")
    given = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in _SIGNED_HEADERS if not given.get(name)]
    if len(missing) == len(_SIGNED_HEADERS):
        raise CallbackVerificationError("the callback is not signed")
    if missing:
        raise CallbackVerificationError(f"the header {missing[0]} is missing or empty")
    if not all(given[name].isascii() for name in _SIGNED_HEADERS):
        raise CallbackVerificationError("a header is not ASCII")
    ts = given["ts"]
    if not (ts.isdigit() and len(ts) <= 15):
        raise CallbackVerificationError("the header ts is no number of milliseconds")
    is_sha256 = given["algorithm"].lower() == "sha256"
    if require_sha256 and not is_sha256:
        raise CallbackVerificationError("the callback is not signed with SHA-256")
    if not _same(given["accesskey"], credentials.access_key):
        raise CallbackVerificationError("the access key is another one")
    text = signed_text(body, ts=ts, credentials=credentials, action=given["action"], biz_type=given["biztype"])
    digest = hashlib.sha256(text) if is_sha256 else hashlib.md5(text, usedforsecurity=False)
    if not _same(given["sign"].lower(), digest.hexdigest()):
        raise CallbackVerificationError("the signature is wrong")
    # Last, so that only the vendor learns how far this machine's clock is off.
    if not abs(int(ts) / 1000 - (time.time() if now is None else now)) <= window:
        raise CallbackVerificationError(f"the callback's ts is more than {window:g} s away", hint="set the clock (NTP)")


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


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
        conversation: WhatsApp's conversation, as the vendor tells it, or ``None``: ``id``, ``origin``...
        cost: What it costs, as the vendor tells it, or ``None``: ``currency``, ``foreign_price``...
        raw: All of the status, as it came.
    """

    message_id: str
    status: str
    timestamp: datetime | None = None
    recipient: str = attrs.field(default="", repr=lambda value: repr(value and mask_number(value)))
    errors: tuple[Mapping[str, Any], ...] = ()
    conversation: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    cost: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
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
    return [event for status in statuses if (event := _event(status, fields)) is not None]


def _event(status: object, body: Mapping[str, Any]) -> StatusEvent | None:
    if not isinstance(status, dict):
        return None
    message_id, name = status.get("id"), status.get("status")
    if not (isinstance(message_id, str) and message_id and isinstance(name, str)):
        return None
    recipient, errors, message = status.get("recipient_id"), status.get("errors"), status.get("message")
    # The vendor does not say where in the body the cost stands.
    conversation, cost = status.get("conversation"), status.get("cost", body.get("cost"))
    if recipient is None and isinstance(message, dict):  # as it is with ``deleted``
        recipient = message.get("recipient_id")
    return StatusEvent(
        message_id,
        name.lower(),
        _moment(status.get("timestamp")),
        recipient if isinstance(recipient, str) else "",
        tuple(error for error in errors if isinstance(error, dict)) if isinstance(errors, list) else (),
        conversation if isinstance(conversation, dict) else None,
        cost if isinstance(cost, dict) else None,
        status,
    )


def _moment(seconds: object) -> datetime | None:
    """Read epoch seconds, which the vendor writes as a string."""
    if not isinstance(seconds, str | int | float) or isinstance(seconds, bool):
        return None
    try:
        return datetime.fromtimestamp(float(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None


_PROGRESS: Final = {"queued": 0, "sent": 1, "delivered": 2, "read": 3}
TERMINAL_STATUSES: Final = frozenset({"failed", "deleted"})
"""Statuses that no other follows."""


def advances(status: str, to: str) -> bool:
    """Return whether a message's status goes on to another one, as WhatsApp means them.

    The vendor promises no order and may repeat itself, so that a status may be old news when it comes. ``failed`` does
    not follow ``delivered``; nothing follows ``failed`` and ``deleted``. One that is not known changes nothing.
    """
    if status in TERMINAL_STATUSES:
        return False
    if to == "deleted":
        return True
    if to == "failed":
        return _PROGRESS.get(status, 0) < _PROGRESS["delivered"]
    return _PROGRESS.get(to, -1) > _PROGRESS.get(status, -1)


def reaches(status: str, wanted: str) -> bool:
    """Return whether a message in this status has come as far as wanted, or will come no further."""
    return status in TERMINAL_STATUSES or status == wanted or _PROGRESS.get(status, -1) >= _PROGRESS.get(wanted, 4)
