"""What the sandbox knows of requests, callbacks and faults, as JSON. Secrets are masked."""

import hashlib
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any, Final

from ..signing import Credentials, signed_text
from .faults import Fault, FaultKind, FaultRule
from .inbox import Entry
from .pusher import Callback
from .requests import ReceivedRequest

__all__ = ["callback_json", "request_json", "rule_json", "summary_json"]

_MASK: Final = "***"
_SECRET_HEADERS: Final = {"authorization", "cookie", "proxy-authorization"}
_SHOWN: Final = 4096  # bytes of an answer's body
_SHOWN_IN_LISTS: Final = 500  # characters of a text


def summary_json(entry: Entry) -> dict[str, Any]:
    """Return a request as it stands in a list."""
    request = entry.request
    return {
        "number": entry.number,
        "arrived_at": request.arrived_at,
        "expires_at": entry.expires_at,
        "to": request.to[:_SHOWN_IN_LISTS],
        "otp": request.otp,
        "content": request.content[:_SHOWN_IN_LISTS],
        "language_code": _text(request.fields.get("language_code")),
        "cus_message_id": _text(request.cus_message_id),
        "message_id": _text(request.message_id),
        "attempt": entry.attempt,
        "code": int(request.code),
        "fault": request.fault.value,
        "why": request.why,
    }


def request_json(
    entry: Entry, attempts: list[Entry], callbacks: list[Callback], credentials: Credentials
) -> dict[str, Any]:
    """Return all that is known of a request.

    Args:
        entry: The request.
        attempts: The requests of the same message.
        callbacks: The callbacks of the message.
        credentials: The account's keys.
    """
    request = entry.request
    return {
        **summary_json(entry),
        "headers": _headers(request.headers, credentials),
        "body": _shown_body(request, credentials),
        "ts_age": None if not request.ts else round(request.arrived_at - request.ts / 1000, 3),
        "signature": _signature(request, credentials),
        "answer": _answer(entry),
        "attempts": [
            {"number": each.number, "arrived_at": each.request.arrived_at, "code": int(each.request.code)}
            for each in attempts
        ],
        "callbacks": [callback_json(callback) for callback in callbacks],
    }


def callback_json(callback: Callback) -> dict[str, Any]:
    """Return a callback, and what has become of it."""
    return {
        "number": callback.number,
        "message_id": callback.message_id,
        "status": callback.status,
        "url": callback.url,
        "made_at": callback.made_at,
        "forged": callback.is_forged,
        "state": callback.state.value,
        "tries": callback.tries,
        "answer": callback.answer or None,
    }


def rule_json(rule: FaultRule) -> dict[str, Any]:
    """Return a fault that is switched on."""
    fault = rule.fault
    return {
        "number": rule.number,
        "kind": fault.kind.value,
        "code": fault.code if fault.kind in (FaultKind.CODE, FaultKind.META, FaultKind.HTTP) else None,
        "latency": fault.latency,
        "retry_after": fault.retry_after,
        "probability": rule.probability,
        "to": rule.to,
        "description": describe(fault),
    }


def describe(fault: Fault) -> str:
    """Return a fault in words."""
    words = {
        FaultKind.NONE: "answered",
        FaultKind.CODE: f"code {fault.code}",
        FaultKind.META: f"9099 with Meta's {fault.code}",
        FaultKind.HTTP: f"HTTP {fault.code}",
        FaultKind.HUGE: f"an answer of {fault.size:,} bytes",
    }.get(fault.kind, fault.kind.replace("disconnect", "cut").replace("_", " "))
    return f"{words}, {fault.latency:g} s late" if fault.latency else words


def _text(value: object) -> str | None:
    return value[:_SHOWN_IN_LISTS] if isinstance(value, str) else None


def _readable(text: str) -> str:
    """Return a header's text with a question mark for each byte that is not UTF-8."""
    return text.encode(errors="replace").decode()


def _headers(headers: Mapping[str, str], credentials: Credentials) -> list[dict[str, str]]:
    def shown(name: str, value: str) -> str:
        name = name.lower()
        foreign_key = name == "accesskey" and value != credentials.access_key
        return _masked(value) if foreign_key or name in _SECRET_HEADERS else _readable(value)

    return [{"name": _readable(name), "value": shown(name, value)} for name, value in headers.items()]


def _masked(key: str) -> str:
    """Return a key of another account so that its owner knows it again."""
    return f"{key[:3]}{_MASK}" if len(key) > 8 else _MASK


def _shown_body(request: ReceivedRequest, credentials: Credentials) -> str:
    body = request.body.decode(errors="replace")
    appkey = request.fields.get("appKey" if request.is_sms else "appkey")
    if not isinstance(appkey, str) or appkey in ("", credentials.appkey):
        return body
    return body.replace(appkey, _masked(appkey))


def _signature(request: ReceivedRequest, credentials: Credentials) -> dict[str, Any]:
    """Return the text that the vendor signs for such a request, both signatures, and where they first differ."""
    given = _readable(request.headers.get("sign", ""))
    access_key, action, biz_type, ts = (
        _readable(request.headers.get(name, "")) for name in ("accessKey", "action", "bizType", "ts")
    )

    def text(body: bytes, key: str, secret: str) -> bytes:
        return signed_text(body, ts=ts, credentials=Credentials(key, secret), action=action, biz_type=biz_type)

    shown_key = access_key if access_key == credentials.access_key else _masked(access_key)
    whole = text(request.body, access_key, credentials.access_secret)
    expected = hashlib.md5(whole, usedforsecurity=False).hexdigest()
    pairs = enumerate(zip_longest(expected, given))
    return {
        "text": text(_shown_body(request, credentials).encode(), shown_key, _MASK).decode(),
        "expected": expected,
        "given": given,
        "first_difference": next((index for index, (ours, theirs) in pairs if ours != theirs), None),
    }


def _answer(entry: Entry) -> dict[str, Any] | None:
    """Return what was answered, or ``None`` if the connection was reset, or no answer was given."""
    status, headers, body = entry.reply.answer
    silent = (FaultKind.DISCONNECT_BEFORE_READING, FaultKind.DISCONNECT_AFTER_READING, FaultKind.HANG, FaultKind.DRIP)
    if entry.request.fault in silent:
        return None
    text = body[:_SHOWN].decode(errors="replace")
    return {
        "status": status,
        "headers": [{"name": name, "value": value} for name, value in headers.items()],
        "body": text,
        "bytes": len(body),
        "delay": entry.reply.delay,
    }
