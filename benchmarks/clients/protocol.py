"""The least work that makes a valid request, and reads its answer; for the contenders that only bring HTTP."""

from collections.abc import Iterator
from hashlib import md5
from itertools import count
from secrets import token_hex
from time import time

import orjson

from nxotp_async.sandbox import SANDBOX_BUSINESS_PHONE
from nxotp_async.sandbox import SANDBOX_CREDENTIALS as KEYS

_SIGNED_HEAD = f"accessKey={KEYS.access_key}&action=mt&bizType=2&ts="
_SIGNED_TAIL = f"&accessSecret={KEYS.access_secret}".encode()

PATH = "/api/wa/otp"
FIXED_HEADERS = {
    "accessKey": KEYS.access_key,
    "bizType": "2",
    "action": "mt",
    "Content-Type": "application/json",
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "benchmark",
}

TIMEOUT = 10.0  # seconds for one request

_ids: Iterator[str] = map(f"{token_hex(4)}-{{:023}}".format, count())  # as long as nxotp_async's


def signed(to: str, content: str) -> tuple[bytes, dict[str, str]]:
    """Return the body, and the headers that change with it."""
    body = orjson.dumps(
        {
            "appkey": KEYS.appkey,
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": to,
            "content": content,
            "language_code": "en",
            "cus_message_id": next(_ids),
            "business_phone": SANDBOX_BUSINESS_PHONE,
        }
    )
    ts = str(int(time() * 1000))
    sign = md5(f"{_SIGNED_HEAD}{ts}&body=".encode() + body + _SIGNED_TAIL, usedforsecurity=False).hexdigest()
    return body, {"ts": ts, "sign": sign}


def message_id(status: int, answer: bytes | memoryview) -> str:
    """Return the id the vendor gave the message, or fail."""
    reply = orjson.loads(answer)
    if status != 200 or reply["code"] != 0:
        raise RuntimeError(f"HTTP {status}: {reply}")
    return str(reply["data"]["messages"][0]["id"])
