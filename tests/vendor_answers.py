"""Answers of the vendor, and what decoding makes of them."""

import json
from collections.abc import Mapping
from typing import Any, Final

from nxotp_async import (
    ApiError,
    NxOtpError,
)
from nxotp_async.protocol import decode

ID = "gBGHhhdgYFCBnwIJ6QRYvhwQk7Nc"
ACCEPTED: Final = (
    b'{"code":0,"data":{"messaging_product":"whatsapp","messages":[{"id":"gBGHhhdgYFCBnwIJ6QRYvhwQk7Nc"}]},'
    b'"message":"Request successful"}'
)
FAILED: Final = b'{"code":-1,"message":"Request failed","data":null}'
META: Final = (
    b'{"code":9099,"message":"WhatsApp error","data":{"error":{"code":100,"message":"(#100) Invalid parameter",'
    b'"type":"OAuthException","fbtrace_id":"AmCuD7sOjcEDetBNhlT2cJm",'
    b'"error_data":{"messaging_product":"whatsapp","details":"Invalid parameter"}}}}'
)
HTML: Final = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


def accepted(code: str = "0", message_id: str = '"m-1"', more: str = "") -> bytes:
    """Return the answer to an accepted message, with the given pieces of JSON in it."""
    return f'{{"code":{code},"data":{{"messages":[{{"id":{message_id}}}]}},"message":"ok"{more}}}'.encode()


def refused(code: int, **more: Any) -> bytes:
    return json.dumps({"code": code, "message": "no", "data": None, **more}).encode()


def refusal(
    body: bytes, status: int = 200, headers: Mapping[str, str] | None = None, hide: tuple[str, ...] = ()
) -> ApiError:
    """Decode an answer that is a refusal."""
    outcome = decode(status, headers or {}, body, hide=hide)
    assert isinstance(outcome, ApiError)
    return outcome


def outcome_of(status: int, body: bytes) -> type[NxOtpError] | str:
    """Return the message id, or the exact class of the error."""
    outcome = decode(status, {}, body)
    return outcome if isinstance(outcome, str) else type(outcome)


NUMBER = "9995550100"
CODE = "004213"


def every_text(error: NxOtpError) -> list[str]:
    """Return all that can be read from an error."""
    texts = [value for value in (*vars(error).values(), *error.args) if isinstance(value, str)]
    return [str(error), *texts]
