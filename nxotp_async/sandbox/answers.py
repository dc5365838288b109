"""The bodies of the vendor's answers."""

from collections.abc import Mapping
from typing import Any

import orjson

from ..codes import ResponseCode

__all__ = ["failure", "gateway_page", "huge", "meta_failure", "success", "without_id", "wrong_types"]

_META_TEXTS: Mapping[int, str] = {
    4: "(#4) Application request limit reached",
    100: "(#100) Invalid parameter",
    80007: "(#80007) Rate limit issues",
    130429: "(#130429) Rate limit hit",
    131016: "(#131016) Service unavailable",
    131026: "(#131026) Message undeliverable",
    131056: "(#131056) Pair rate limit hit",
    131057: "(#131057) Business account is in maintenance mode",
    133004: "(#133004) Server temporarily unavailable",
}


def success(message_id: str) -> bytes:
    """Return the answer to an accepted message."""
    return _envelope(0, "Request successful", {"messaging_product": "whatsapp", "messages": [{"id": message_id}]})


def failure(code: int, why: str = "") -> bytes:
    """Return a refusal with one of the vendor's codes."""
    known = ResponseCode.find(code)
    meaning = known.meaning[0].upper() + known.meaning[1:] if known else "Unknown error"
    return _envelope(code, f"{meaning}: {why}" if why else meaning, None)


def meta_failure(code: int, details: str = "") -> bytes:
    """Return a refusal by WhatsApp itself: 9099 with Meta's error inside."""
    text = _META_TEXTS.get(code, f"(#{code}) Unknown error")
    error = {
        "code": code,
        "message": text,
        "type": "OAuthException",
        "fbtrace_id": "AmCuD7sOjcEDetBNhlT2cJm",
        "error_data": {"messaging_product": "whatsapp", "details": details or text},
    }
    return _envelope(ResponseCode.WHATSAPP_ERROR, "WhatsApp error", {"error": error})


def wrong_types(message_id: str) -> bytes:
    """Return an answer that looks like a success to a careless reader."""
    return orjson.dumps({"code": "0", "data": {"messages": {"id": len(message_id)}}, "message": None})


def without_id() -> bytes:
    """Return a success that names no message."""
    return _envelope(0, "Request successful", {"messaging_product": "whatsapp", "messages": []})


def huge(size: int) -> bytes:
    """Return a valid success of at least so many bytes."""
    return success("x" * size)


def gateway_page(status: int) -> str:
    """Return the page of HTML that a gateway shows."""
    return f"<html><head><title>{status}</title></head><body><center><h1>{status}</h1></center><hr></body></html>"


def _envelope(code: int, message: str, data: object) -> bytes:
    envelope: dict[str, Any] = {"code": code, "data": data, "message": message}
    return orjson.dumps(envelope)
