"""What the vendor answers: status, headers and body."""

from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

import attrs
import orjson

from ..codes import MetaCode, ResponseCode
from ..protocol import OTP_PATH
from .faults import Fault, FaultKind
from .requests import ReceivedRequest
from .sms import sms_answer

__all__ = ["Reply", "answer", "failure", "meta_failure", "success"]


@attrs.frozen
class Reply:
    """What the sandbox does with a request.

    Attributes:
        request: The request; its ``fault`` says what happens to the connection.
        delay: Seconds before anything else.
        answer: Status, headers and body of the HTTP response, if one is sent.
    """

    request: ReceivedRequest
    delay: float = 0.0
    answer: tuple[int, Mapping[str, str], bytes] = (0, {}, b"")


def answer(request: ReceivedRequest, fault: Fault, why: str, now: float) -> tuple[int, Mapping[str, str], bytes]:
    """Return status, headers and body of the answer to a request.

    Args:
        request: The request.
        fault: The fault that is applied to it.
        why: What is wrong with the request; empty where nothing is.
        now: Seconds since the epoch.
    """
    headers = {"Date": formatdate(now, usegmt=True)}
    if fault.kind is not FaultKind.HTTP:
        return 200, {**headers, "Content-Type": "application/json"}, _json(request, fault, why)
    if fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    if 300 <= fault.code < 400:
        headers["Location"] = OTP_PATH
    headers["Content-Type"] = "text/html; charset=utf-8"
    title = f"<html><head><title>{fault.code}</title></head>"
    return fault.code, headers, f"{title}<body><center><h1>{fault.code}</h1></center><hr></body></html>".encode()


def _json(request: ReceivedRequest, fault: Fault, why: str) -> bytes:
    if request.is_sms:
        return sms_answer(request.code, request.message_id, fault, why)
    if request.code == ResponseCode.WHATSAPP_ERROR:
        return meta_failure(fault.code or MetaCode.INVALID_PARAMETER, why)
    if request.code != ResponseCode.SUCCESS:
        return failure(request.code, why)
    message_id = request.message_id or ""
    match fault.kind:
        case FaultKind.TRUNCATED:
            whole = success(message_id)
            return whole[: len(whole) // 2]
        case FaultKind.WRONG_TYPES:  # a careless reader takes it for a success
            return orjson.dumps({"code": "0", "data": {"messages": {"id": len(message_id)}}, "message": None})
        case FaultKind.WITHOUT_ID:
            return _envelope(0, "Request successful", {"messaging_product": "whatsapp", "messages": []})
        case FaultKind.HUGE:
            return success("x" * fault.size)
    return success(message_id)


def success(message_id: str) -> bytes:
    """Return the body for an accepted message."""
    return _envelope(0, "Request successful", {"messaging_product": "whatsapp", "messages": [{"id": message_id}]})


def failure(code: int, why: str = "") -> bytes:
    """Return the body of a refusal with one of the vendor's codes."""
    known = ResponseCode.find(code)
    meaning = known.meaning[0].upper() + known.meaning[1:] if known else "Unknown error"
    return _envelope(code, f"{meaning}: {why}" if why else meaning, None)


def meta_failure(code: int, details: str = "") -> bytes:
    """Return the body of a refusal by WhatsApp: 9099 with Meta's error inside."""
    known = MetaCode.find(code)
    text = f"(#{code}) {known.meaning if known else 'Unknown error'}"
    error = {
        "code": code,
        "message": text,
        "type": "OAuthException",
        "fbtrace_id": "AmCuD7sOjcEDetBNhlT2cJm",
        "error_data": {"messaging_product": "whatsapp", "details": details or text},
    }
    return _envelope(ResponseCode.WHATSAPP_ERROR, "WhatsApp error", {"error": error})


def _envelope(code: int, message: str, data: object) -> bytes:
    envelope: dict[str, Any] = {"code": code, "data": data, "message": message}
    return orjson.dumps(envelope)
