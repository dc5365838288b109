"""The vendor's SMS service: its checks of a request, and its answers. Pure functions."""

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from ..codes import ResponseCode, SmsCode
from ..signing import Credentials
from .checks import NUMBER
from .faults import Fault, FaultKind

__all__ = ["check_sms_body", "sms_answer"]

_REQUIRED: Final = ("appKey", "phone", "content")
_OPTIONAL: Final = ("sysMessageId", "drUrl", "sourceAddress")
_MESSAGE_ID: Final = re.compile(r"[0-9a-zA-Z-]{10,50}")
_MAX_CONTENT: Final = 1000


def check_sms_body(fields: Mapping[str, Any] | None, credentials: Credentials) -> tuple[int, str]:
    """Return the code for this body, 0 if it is valid, and the reason.

    The page does not say with which code it refuses a body; like other services, with 1002.
    """
    fields = fields or {}
    wrong = [name for name in _REQUIRED if not isinstance(fields.get(name), str) or not fields[name]]
    wrong += [name for name in _OPTIONAL if not isinstance(fields.get(name, ""), str)]
    if wrong:
        return ResponseCode.PARAMETER_ERROR, f"missing, or not strings: {', '.join(wrong)}"
    if len(fields["content"]) > _MAX_CONTENT:
        return ResponseCode.PARAMETER_ERROR, f"content is longer than {_MAX_CONTENT} characters"
    if "sysMessageId" in fields and not _MESSAGE_ID.fullmatch(fields["sysMessageId"]):
        return ResponseCode.PARAMETER_ERROR, "sysMessageId must be 10 to 50 of 0-9a-zA-Z-"
    if fields["appKey"] != credentials.appkey:
        return ResponseCode.PARAMETER_ERROR, "unknown appKey"
    if not NUMBER.fullmatch(fields["phone"]):
        return SmsCode.WRONG_NUMBER, "phone is not an E.164 number"
    return ResponseCode.SUCCESS, ""


def sms_answer(code: int, message_id: str | None, fault: Fault, why: str) -> bytes:
    """Return the body of an answer."""
    if code != ResponseCode.SUCCESS:
        known = SmsCode.find(code) or ResponseCode.find(code)
        meaning = known.meaning if known else "unknown error"
        return orjson.dumps({"result": f"{meaning}: {why}" if why else meaning, "code": str(int(code))})
    success: dict[str, object] = {"result": "Request succeeded", "code": "0", "messageid": message_id}
    match fault.kind:
        case FaultKind.TRUNCATED:
            whole = orjson.dumps(success)
            return whole[: len(whole) // 2]
        case FaultKind.WRONG_TYPES:
            success |= {"code": "zero", "messageid": 1}
        case FaultKind.WITHOUT_ID:
            del success["messageid"]
        case FaultKind.HUGE:
            success["messageid"] = "x" * fault.size
    return orjson.dumps(success)
