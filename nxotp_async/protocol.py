"""The API without I/O: a message becomes body and headers; an answer becomes a message id or a classified error."""

import json
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

import attrs
import orjson
from multidict import istr

from ._version import __version__
from .codes import AUTHENTICATION_CODES, ResponseCode, VendorCode
from .errors import ApiError, AuthenticationError, MetaError, NxOtpError, OutcomeUnknownError, TransientApiError
from .messages import OtpMessage
from .results import Outcome
from .signing import Credentials, sign

__all__ = [
    "MAX_ANSWER_BYTES",
    "NO_CODE",
    "OTP_PATH",
    "Reply",
    "RequestHeaders",
    "decode",
    "encode",
    "fixed_headers",
    "outcome_of",
    "read_object",
    "redact",
    "request_headers",
    "server_time",
    "usable_id",
]

OTP_PATH: Final = "/api/wa/otp"
MAX_ANSWER_BYTES: Final = 64 * 1024
"""No answer of the vendor comes near this; what is longer is no answer of the vendor's."""

_MAX_RAW_CHARS = 4096
_MAX_CODE = 999_999  # the vendor's have five digits at the most; from seven on, a number could be the recipient's
NO_CODE: Final = "the answer has no code that could be the vendor's"

# ---------------------------------------------------------------------------------------------- message → request

_OPTIONAL_FIELDS: Final = ("category", "cus_message_id", "dr_webhook", "api_type", "business_phone")


def encode(message: OtpMessage, appkey: str) -> bytes:
    """Return the JSON body. These very bytes are signed and sent, on every attempt."""
    body = {
        "appkey": appkey,
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": message.to,
        "content": message.content,
        "language_code": message.language_code,
    }
    for name in _OPTIONAL_FIELDS:
        if (value := getattr(message, name)) is not None:
            body[name] = value
    return orjson.dumps(body)


class RequestHeaders(dict[str, str]):
    """The headers of one attempt, and which of them are the same in every attempt.

    Args:
        fixed: Those that never change: for each account one and the same object, so that a transport can keep what it
            makes of them.
        changing: Those of this attempt alone.
    """

    __slots__ = ("changing", "fixed")

    def __init__(self, fixed: Mapping[str, str], changing: Mapping[str, str]) -> None:
        super().__init__(fixed)
        self.update(changing)
        self.fixed = fixed
        self.changing = changing


def fixed_headers(credentials: Credentials) -> Mapping[str, str]:
    """Return the headers that are the same in all requests of an account."""
    return {
        istr("accessKey"): credentials.access_key,
        istr("bizType"): "2",
        istr("action"): "mt",
        istr("Content-Type"): "application/json",
        istr("Accept"): "application/json",
        # A compressed answer could be a bomb, and there is nothing to gain on a hundred bytes.
        istr("Accept-Encoding"): "identity",
        istr("User-Agent"): f"nxotp_async/{__version__}",
    }


def request_headers(body: bytes, *, ts: int, credentials: Credentials, fixed: Mapping[str, str]) -> RequestHeaders:
    """Return the headers of one attempt, freshly signed.

    Args:
        body: The bytes that will be sent.
        ts: Milliseconds since the epoch; the vendor refuses more than 60 000 of difference.
        credentials: The account's keys.
        fixed: The account's `fixed_headers`.
    """
    return RequestHeaders(fixed, {_TS: str(ts), _SIGN: sign(body, ts=ts, credentials=credentials)})


# aiohttp compares names of this type without changing their letter case first.
_TS, _SIGN = istr("ts"), istr("sign")


# ---------------------------------------------------------------------------------------------- answer → outcome


# The documented answer to an accepted message, byte by byte: by far the most frequent one, and beyond doubt. Every
# other one is parsed, and looked at with care.
_DOCUMENTED_SUCCESS = re.compile(
    rb'\{"code":0,"data":\{"messaging_product":"whatsapp","messages":\[\{"id":"([!#-\[\]-~]{1,256})"\}\]\}'
    rb',"message":"[ !#-\[\]-~]{0,256}"\}'
)


def decode(status: int, headers: Mapping[str, str], body: bytes, *, hide: tuple[str, ...] = ()) -> Outcome:
    """Turn an answer into the vendor's message id, or into the error it stands for. Never raises.

    Args:
        status: The HTTP status.
        headers: The answer's headers; names in any letter case.
        body: The body as received. One of more than `MAX_ANSWER_BYTES` is not looked into.
        hide: Texts that must not appear in the error, such as the message's code.

    Returns:
        The message id of an accepted message; an `ApiError` where the vendor said no; an `OutcomeUnknownError`
        where the answer proves neither.
    """
    if 200 <= status < 300 and (accepted := _DOCUMENTED_SUCCESS.fullmatch(body)):
        return accepted[1].decode()
    return outcome_of(status, headers, body, _read_reply(body), hide)


def outcome_of(status: int, headers: Mapping[str, str], body: bytes, reply: "Reply", hide: tuple[str, ...]) -> Outcome:
    """Return what a reply stands for. The arguments, and what is returned, are those of `decode`."""
    if reply.code is not None and _is_private(reply.code, hide):
        reply = attrs.evolve(reply, code=None, problem=NO_CODE)
    failure = _classify(status, reply)
    if failure is None:
        return reply.message_id
    if issubclass(failure, ApiError):
        return _api_error(failure, status, headers, body, reply, hide)
    return OutcomeUnknownError(f"HTTP {status}: {reply.problem or _contradiction(reply)}")


def _contradiction(reply: "Reply") -> str:
    if reply.code == 0:
        return "code 0, which means accepted"
    return f"code {reply.code}, and a message id" if reply.message_id else f"code {reply.code}, perhaps a gateway's"


@attrs.define
class Reply:
    """What an answer's body says, and only what is beyond doubt in it.

    Attributes:
        code: The vendor's code.
        message_id: The id of the message; empty if it was not accepted.
        text: The vendor's text.
        meta: Meta's error.
        problem: Why there is no code, or no id.
        contradictory: Whether two readers may take it for different answers.
        known: What is known of the code.
    """

    code: int | None = None
    message_id: str = ""
    text: str = ""
    meta: Mapping[str, Any] = {}
    problem: str = ""
    contradictory: bool = False
    known: VendorCode | None = attrs.field()

    @known.default
    def _known(self) -> VendorCode | None:
        return ResponseCode.find(self.code)


def _classify(status: int, reply: Reply) -> type[NxOtpError] | None:
    """Name the error an answer stands for; ``None`` means accepted. The whole table, in the order it is read."""
    if reply.code == 0 and reply.message_id and 200 <= status < 300:
        return None
    if reply.contradictory or reply.message_id or reply.code == 0:
        return OutcomeUnknownError
    if reply.known is not None:
        return reply.known.error_class
    if status == 429:
        return TransientApiError
    if status == 408:
        # What a server says on a connection that idles too long for it: it may have crossed the request on its way.
        return OutcomeUnknownError
    if reply.code is not None and status < 500:
        return AuthenticationError if reply.code in AUTHENTICATION_CODES else ApiError
    if 300 <= status < 500:
        return ApiError
    return OutcomeUnknownError


def _read_reply(body: bytes) -> Reply:
    answer = read_object(body)
    if isinstance(answer, Reply):
        return answer
    data = answer.get("data")
    message_id = _first_id(data)
    code = answer.get("code")
    if type(code) is not int or abs(code) > _MAX_CODE:  # a bool is an int too
        return Reply(None, message_id, problem=NO_CODE)
    text = _text(answer.get("message")) or _text(answer.get("msg"))
    meta = data.get("error") if isinstance(data, dict) else None
    return Reply(
        code,
        message_id,
        text,
        meta if isinstance(meta, dict) else {},
        problem="" if code or message_id else "code 0, but without a message id",
    )


def read_object(body: bytes) -> dict[str, Any] | Reply:
    """Return the JSON object of an answer, or the reply that it is if there is none to be read."""
    if len(body) > MAX_ANSWER_BYTES:
        return Reply(problem=f"the answer is longer than {MAX_ANSWER_BYTES // 1024} KiB")
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Reply(problem="the answer is not JSON, or only a part of it" if body else "the answer is empty")
    if not isinstance(answer, dict):
        return Reply(problem="the answer is not a JSON object")
    if not _names_are_unique(body):
        return Reply(problem="the answer names something twice", contradictory=True)
    return answer


def _first_id(data: object) -> str:
    """Return ``data.messages[0].id`` where that is a usable text, else an empty one."""
    # A match statement reads better here, and takes six times as long.
    messages = data.get("messages") if isinstance(data, dict) else None
    first = messages[0] if isinstance(messages, list) and messages else None
    found = first.get("id") if isinstance(first, dict) else None
    return usable_id(found)


def usable_id(found: object) -> str:
    """Return a message id where it is a usable text, else an empty one."""
    return found if isinstance(found, str) and found.strip() and found.isprintable() else ""


def _names_are_unique(body: bytes) -> bool:
    """Whether no object has one of the names that are read twice: readers disagree on which of the two counts."""
    if (
        body.count(b'"code"') == 1
        and body.count(b'"data"') == 1
        and body.count(b'"messages"') == 1
        and body.count(b'"id"') == 1
        and b"\\" not in body
    ):
        return True
    try:
        json.loads(body, object_pairs_hook=_refuse_duplicates)
    except (ValueError, RecursionError):
        return False
    return True


_NAMES_READ = frozenset({"code", "data", "messages", "id", "error", "messageid"})


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs if name in _NAMES_READ]
    if len(set(names)) < len(names):
        raise ValueError


def _api_error(
    failure: type[ApiError], status: int, headers: Mapping[str, str], body: bytes, reply: Reply, hide: tuple[str, ...]
) -> ApiError:
    vendor_message, known = redact(reply.text, hide)[:500], reply.known
    meta = _meta_facts(reply.meta, hide) if issubclass(failure, MetaError) else {}
    hint = known.advice if known else None
    if reply.code is None:
        text, hint = f"HTTP {status} without a vendor code", _status_advice(status)
    elif known is None:
        text = f"code {reply.code}, which the vendor has not documented: {vendor_message}"
    else:
        text = f"code {known.value}, {known.meaning}"
        if meta:
            text += f": Meta {meta['meta_code']}, {redact(_text(reply.meta.get('message')), hide)[:500]}"
        elif vendor_message.lower() not in text.lower():  # it often only repeats the meaning
            text += f": {vendor_message}"
    return failure(
        text,
        hint=hint,
        code=reply.code,
        vendor_message=vendor_message,
        http_status=status,
        raw=redact(body.decode(errors="replace"), hide)[:_MAX_RAW_CHARS],
        retry_after=_retry_after(headers),
        **meta,
    )


def _meta_facts(error: Mapping[str, Any], hide: tuple[str, ...]) -> dict[str, Any]:
    """Return what Meta says, as attributes of `MetaError`."""
    code, data = _integer(error.get("code")), error.get("error_data")
    return {
        "meta_code": None if code is None or _is_private(code, hide) else code,
        "meta_type": redact(_text(error.get("type")), hide)[:100],
        "fbtrace_id": redact(_text(error.get("fbtrace_id")), hide)[:100],
        "details": redact(_text(data.get("details") if isinstance(data, dict) else None), hide)[:500],
    }


def _status_advice(status: int) -> str:
    if status == 429:
        return "the vendor throttles; set or lower rate_limit"
    if status < 400:
        return "redirects are never followed, they would hand the code to another host; check base_url"
    return "something before the vendor's API refused the request; check base_url and any proxy"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _integer(value: object) -> int | None:
    if type(value) is int:
        return value if abs(value) <= _MAX_CODE else None
    if isinstance(value, str) and len(value) <= 6 and value.isascii() and value.isdigit():
        return int(value)
    return None


def _header(headers: Mapping[str, str], name: str) -> str:
    return next((value.strip() for key, value in headers.items() if key.lower() == name), "")


def server_time(headers: Mapping[str, str]) -> float | None:
    """Return the ``Date`` header as seconds since the epoch (whole seconds), or ``None`` without a usable one."""
    return _http_date(_header(headers, "date"))


def _http_date(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: given as such, or as a date to be read by the server's own clock."""
    text = _header(headers, "retry-after")
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), 86_400))
    at, now = _http_date(text), server_time(headers)
    return None if at is None or now is None else min(max(at - now, 0.0), 86_400.0)


# ---------------------------------------------------------------------------------------------- redaction

_CODE = re.compile(r"[0-9]{4,}")
# A phone number, with or without the punctuation people put between its digits.
_NUMBER = re.compile(r"\d(?:\W{0,3}\d){6,}")


def _is_private(number: int, hide: tuple[str, ...]) -> bool:
    """Whether a number is the message's own code, and none of the vendor's."""
    runs = (run for text in hide for run in _CODE.findall(text))
    return ResponseCode.find(number) is None and any(run.lstrip("0") == str(abs(number)) for run in runs)


def redact(text: str, hide: tuple[str, ...] = ()) -> str:
    """Star the given texts, the codes inside them, and every phone number, and drop what could drive a terminal."""
    hidden = {*hide}
    for secret in hide:
        hidden |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], *_CODE.findall(secret)}
    for secret in sorted(filter(None, hidden), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _NUMBER.sub("***", text)
    return "".join(char if char.isprintable() else " " for char in text)
