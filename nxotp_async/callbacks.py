"""The vendor's status callbacks, without I/O: verify one, parse it, and decide whether its status is new."""

import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import IntEnum
from typing import Any, Final

import attrs
import orjson

from .errors import CallbackVerificationError
from .phone_numbers import mask_number
from .signing import Credentials, signed_text

__all__ = [
    "MAX_CALLBACK_BYTES",
    "TERMINAL_STATUSES",
    "CdrType",
    "Cost",
    "StatusEvent",
    "advances",
    "parse_callback",
    "reaches",
    "verify_callback",
]

MAX_CALLBACK_BYTES: Final = 256 * 1024
"""A usual callback has one or two kilobytes."""

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
    """Check that a status callback was signed by the vendor ("whatsapp callback verify").

    Args:
        headers: The request's headers; names in any letter case.
        body: Its raw body, byte for byte.
        credentials: The account's keys.
        now: Seconds since the epoch. Default: the current time.
        window: Seconds that ``ts`` may be before or after ``now``.
        require_sha256: Whether to refuse MD5, which the vendor uses unless ``algorithm`` is ``sha256``.

    Raises:
        CallbackVerificationError: A header is missing, the access key or the signature is wrong, ``ts`` is outside the
            window, or the body is longer than `MAX_CALLBACK_BYTES`.
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
        raise CallbackVerificationError("the header ts is not a number of milliseconds")
    is_sha256 = given["algorithm"].lower() == "sha256"
    if require_sha256 and not is_sha256:
        raise CallbackVerificationError("the callback is not signed with SHA-256")
    if not _are_equal(given["accesskey"], credentials.access_key):
        raise CallbackVerificationError("the access key is that of another account")
    text = signed_text(body, ts=ts, credentials=credentials, action=given["action"], biz_type=given["biztype"])
    digest = hashlib.sha256(text) if is_sha256 else hashlib.md5(text, usedforsecurity=False)
    if not _are_equal(given["sign"].lower(), digest.hexdigest()):
        raise CallbackVerificationError("the signature is wrong")
    # Last, so that only the vendor learns whether this machine's clock is wrong.
    if not abs(int(ts) / 1000 - (time.time() if now is None else now)) <= window:
        raise CallbackVerificationError(
            f"the callback's ts differs from this machine's clock by more than {window:g} s", hint="set the clock (NTP)"
        )


def _are_equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


class CdrType(IntEnum):
    """What a message is charged as ("WhatsApp API webhook")."""

    MARKETING = 4
    NOTIFICATION = 5
    AUTHENTICATION = 6
    SERVICE = 7
    FREE = 8
    INTERNATIONAL_AUTHENTICATION = 9
    MM_LITE = 10


@attrs.frozen
class Cost:
    """What a message costs ("WhatsApp API webhook").

    Attributes:
        currency: The currency of ``foreign_price``, ``USD`` for example, or an empty str.
        foreign_price: The price in that currency, or ``None`` if the vendor does not say.
        price: The price in CNY, or ``None`` if the vendor does not say.
        cdr_type: What it is charged as: a `CdrType`, another int where this library does not know it, or ``None``.
        message_id: The vendor's id of the message that is charged, or an empty str.
        direction: The direction, as the vendor sends it: no page says what its numbers mean.
    """

    currency: str = ""
    foreign_price: Decimal | None = None
    price: Decimal | None = None
    cdr_type: CdrType | int | None = None
    message_id: str = ""
    direction: int | None = None


@attrs.frozen
class StatusEvent:
    """One status of one message ("WhatsApp API webhook").

    Attributes:
        message_id: The vendor's id of the message, which is its ``cus_message_id`` if it was sent with one.
        status: ``sent``, ``delivered``, ``read``, ``failed``, ``deleted``, or one that this library does not know.
        timestamp: When the message got this status, by the vendor's clock, or ``None`` if the vendor does not say.
        recipient: The recipient's number, or an empty str.
        errors: The vendor's errors, with ``code`` and ``title``, if the message failed.
        conversation: WhatsApp's conversation, as the vendor sends it (``id``, ``origin``...), or ``None``.
        costs: What the message costs; empty if the vendor does not say. The vendor sends one or several. What stands
            beside the statuses of a callback, and not inside one, is in each of its events.
        raw: The whole status, as the vendor sends it.
    """

    message_id: str
    status: str
    timestamp: datetime | None = None
    recipient: str = attrs.field(default="", repr=lambda value: repr(value and mask_number(value)))
    errors: tuple[Mapping[str, Any], ...] = ()
    conversation: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    costs: tuple[Cost, ...] = attrs.field(default=(), repr=False)
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False)


def parse_callback(body: bytes) -> list[StatusEvent]:
    """Return the events of a callback's body. A body without statuses, for example a button click, has none.

    Raises:
        CallbackVerificationError: The body is not a JSON object.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        raise CallbackVerificationError("the callback's body is not a JSON object")
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
    conversation = status.get("conversation")
    if recipient is None and isinstance(message, dict):  # in a status ``deleted``
        recipient = message.get("recipient_id")
    return StatusEvent(
        message_id,
        name.lower(),
        _timestamp(status.get("timestamp")),
        recipient if isinstance(recipient, str) else "",
        tuple(error for error in errors if isinstance(error, dict)) if isinstance(errors, list) else (),
        conversation if isinstance(conversation, dict) else None,
        _costs(status) or _costs(body),  # the vendor does not document where in the body they are
        status,
    )


def _costs(fields: Mapping[str, Any]) -> tuple[Cost, ...]:
    """Return what a message costs: the vendor sends an array ``costs``, or an object ``cost``."""
    several = fields.get("costs")
    costs = several if isinstance(several, list) and several else [fields.get("cost")]
    return tuple(_cost(cost) for cost in costs if isinstance(cost, dict))


def _cost(cost: Mapping[str, Any]) -> Cost:
    currency, message_id, kind = cost.get("currency"), cost.get("message_id"), _integer(cost.get("cdr_type"))
    return Cost(
        currency if isinstance(currency, str) else "",
        _decimal(cost.get("foreign_price")),
        _decimal(cost.get("price")),
        CdrType(kind) if kind in set(CdrType) else kind,
        message_id if isinstance(message_id, str) else "",
        _integer(cost.get("direction")),
    )


def _decimal(value: object) -> Decimal | None:
    """Parse a number, which may be written as a string."""
    try:
        number = Decimal(str(value)) if isinstance(value, str | float | int) and not isinstance(value, bool) else None
    except InvalidOperation:
        return None
    return number if number is not None and number.is_finite() else None


def _integer(value: object) -> int | None:
    number = _decimal(value)
    return int(number) if number is not None and -(2**63) < number < 2**63 and number == int(number) else None


def _timestamp(seconds: object) -> datetime | None:
    """Parse seconds since the epoch, which the vendor sends as a string."""
    if not isinstance(seconds, str | int | float) or isinstance(seconds, bool):
        return None
    try:
        return datetime.fromtimestamp(float(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None


_PROGRESS: Final = {"queued": 0, "sent": 1, "delivered": 2, "read": 3}
TERMINAL_STATUSES: Final = frozenset({"failed", "deleted"})
"""Statuses that no other status follows."""


def advances(status: str, to: str) -> bool:
    """Return whether a message that has one status can change to the other.

    The vendor's callbacks are unordered and may be repeated, so a status may be older than the known one. ``failed``
    does not follow ``delivered``; nothing follows ``failed`` and ``deleted``. An unknown status follows none.
    """
    if status in TERMINAL_STATUSES:
        return False
    if to == "deleted":
        return True
    if to == "failed":
        return _PROGRESS.get(status, 0) < _PROGRESS["delivered"]
    return _PROGRESS.get(to, -1) > _PROGRESS.get(status, -1)


def reaches(status: str, wanted: str) -> bool:
    """Return whether a message with this status has reached the wanted one, or can no longer reach it."""
    return status in TERMINAL_STATUSES or status == wanted or _PROGRESS.get(status, -1) >= _PROGRESS.get(wanted, 4)
