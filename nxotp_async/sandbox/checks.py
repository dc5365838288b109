"""The vendor's checks of a request, and the codes they answer with. Pure functions."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import orjson

from ..codes import ResponseCode
from ..languages import Language
from ..messages import Category
from ..signing import Credentials, sign, signed_text, verify

__all__ = ["NUMBER", "check_body", "check_headers", "otp_code", "parse_body"]

_REQUIRED_HEADERS: Final = ("accessKey", "ts", "bizType", "action", "sign")
_WINDOW_MS: Final = 60_000
_REQUIRED_FIELDS: Final = ("appkey", "messaging_product", "recipient_type", "to", "content", "language_code")
_OPTIONAL_TEXTS: Final = ("business_phone", "category", "cus_message_id", "dr_webhook")
NUMBER: Final = re.compile(r"[1-9][0-9]{6,14}")
"""E.164 digits."""
_CODE: Final = re.compile(r"(?<![0-9])[0-9]{4,8}(?![0-9])")


def check_headers(
    headers: Mapping[str, str],
    body: bytes,
    credentials: Credentials,
    *,
    now_ms: int,
    action: str = "mt",
    biz_type: str = "2",
) -> tuple[ResponseCode, str]:
    """Return the code for these headers, `ResponseCode.SUCCESS` if they are valid, and the reason.

    Args:
        headers: The request's headers, with names in any letter case.
        body: The raw bytes that were signed.
        credentials: The keys of the one account there is.
        now_ms: The server's clock, in milliseconds since the epoch.
        action: What the header ``action`` must be.
        biz_type: What the header ``bizType`` must be.
    """
    missing = [name for name in _REQUIRED_HEADERS if not headers.get(name)]
    if missing:
        return ResponseCode.MISSING_PARAMETERS, f"missing headers: {', '.join(missing)}"
    if headers["accessKey"] != credentials.access_key:
        return ResponseCode.INSUFFICIENT_PERMISSIONS, "unknown accessKey"
    if headers["bizType"] != biz_type or headers["action"] != action:
        return ResponseCode.PARAMETER_ERROR, f"bizType must be {biz_type}, and action {action}"
    ts = headers["ts"]
    if not (ts.isascii() and ts.isdigit() and len(ts) <= 16) or abs(int(ts) - now_ms) > _WINDOW_MS:
        return ResponseCode.TIMESTAMP_EXPIRED, "ts must be milliseconds within 60000 of the server's clock"
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        return ResponseCode.INVALID_SIGNATURE, "Content-Type must be application/json"
    if not verify(headers["sign"], body, ts=int(ts), credentials=credentials, action=action, biz_type=biz_type):
        return ResponseCode.INVALID_SIGNATURE, _wrong_sign(headers["sign"], body, int(ts), credentials)
    return ResponseCode.SUCCESS, ""


def _wrong_sign(given: str, body: bytes, ts: int, credentials: Credentials) -> str:
    """Return what is wrong with a signature, as far as a usual mistake explains it."""
    whole = signed_text(body, ts=ts, credentials=credentials)
    mistakes = {
        "must be in lowercase": {sign(body, ts=ts, credentials=credentials).upper()},
        "is SHA-256: MD5 is expected": {hashlib.sha256(whole).hexdigest()},
        "was made without the body": {sign(b"", ts=ts, credentials=credentials)},
        "is of other JSON than was sent: sign exactly the bytes that you send": {
            sign(other, ts=ts, credentials=credentials) for other in _other_spellings(body)
        },
    }
    known = next((mistake for mistake, signs in mistakes.items() if given in signs), None)
    return (
        f"the sign {known or 'does not match: the access secret is wrong, or the body is not the one that was signed'}"
    )


def _other_spellings(body: bytes) -> list[bytes]:
    """Return the same JSON as other programs write it."""
    fields = parse_body(body)
    try:
        return [
            json.dumps(fields, separators=separators, ensure_ascii=ascii_only).encode()
            for separators in ((", ", ": "), (",", ":"))
            for ascii_only in (True, False)
        ]
    except RecursionError:  # orjson reads JSON that is nested deeper than json writes it
        return []


def parse_body(body: bytes) -> dict[str, Any] | None:
    """Return the fields of the body, or ``None`` if it is not a JSON object."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return fields if isinstance(fields, dict) else None


def check_body(
    fields: Mapping[str, Any] | None, credentials: Credentials, business_phones: Collection[str]
) -> tuple[ResponseCode, str]:
    """Return the code for this body, `ResponseCode.SUCCESS` if it is valid, and the reason.

    Args:
        fields: The parsed body.
        credentials: The keys of the one account there is.
        business_phones: The numbers bound to its application.
    """
    if fields is None:
        return ResponseCode.PARAMETER_ERROR, "the body is not a JSON object"
    missing = [name for name in _REQUIRED_FIELDS if fields.get(name) in (None, "")]
    if missing:
        return ResponseCode.PARAMETER_EXCEPTION, f"missing fields: {', '.join(missing)}"
    wrong = [name for name in (*_REQUIRED_FIELDS, *_OPTIONAL_TEXTS) if not isinstance(fields.get(name, ""), str)]
    if wrong:
        return ResponseCode.PARAMETER_ERROR, f"not strings: {', '.join(wrong)}"
    if type(fields.get("api_type", 0)) is not int or fields.get("api_type", 0) not in (0, 1):
        return ResponseCode.PARAMETER_ERROR, "api_type must be 0 or 1"
    if fields["messaging_product"] != "whatsapp" or fields["recipient_type"] != "individual":
        return ResponseCode.PARAMETER_ERROR, "messaging_product must be whatsapp, and recipient_type individual"
    webhook = fields.get("dr_webhook")
    if webhook is not None and not webhook.startswith(("http://", "https://")):
        return ResponseCode.PARAMETER_ERROR, "dr_webhook must be a URL"
    return _check_values(fields, credentials, business_phones)


def _check_values(
    fields: Mapping[str, Any], credentials: Credentials, business_phones: Collection[str]
) -> tuple[ResponseCode, str]:
    if fields["appkey"] != credentials.appkey:
        return ResponseCode.APPLICATION_UNAVAILABLE, "unknown appkey"
    if fields.get("business_phone", "") not in {"", *business_phones}:
        return ResponseCode.BUSINESS_PHONE_NOT_BOUND, "unknown business_phone"
    if fields.get("category", "") not in {"", *Category}:
        return ResponseCode.CATEGORY_MISSING, "unknown category"
    if fields["language_code"] not in set(Language):
        return ResponseCode.TEMPLATE_MISSING, "no template in this language"
    if otp_code(fields["content"]) is None:
        return ResponseCode.NO_OTP_CODE, "content must contain exactly one run of 4 to 8 digits"
    if not NUMBER.fullmatch(fields["to"]):
        return ResponseCode.WHATSAPP_ERROR, "to is not an E.164 number"
    return ResponseCode.SUCCESS, ""


def otp_code(content: str) -> str | None:
    """Return the one run of 4 to 8 digits in the content, or ``None`` if there is not exactly one."""
    codes = _CODE.findall(content)
    return codes[0] if len(codes) == 1 else None
