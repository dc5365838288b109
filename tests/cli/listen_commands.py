"""Pushing callbacks to ``nxotp listen`` in tests."""

import contextlib
import hashlib
import http.client
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from commands import read_until

from nxotp_async.sandbox import SANDBOX_CREDENTIALS
from nxotp_async.signing import signed_text


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def url_of(process: "subprocess.Popen[str]") -> str:
    return read_until(process.stderr, r"receiving callbacks on \S+\n").split()[-1]


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def signature(body: bytes, *, ts: float | None = None) -> dict[str, str]:
    milliseconds = int((time.time() if ts is None else ts) * 1000)
    text = signed_text(body, ts=milliseconds, credentials=SANDBOX_CREDENTIALS, action="callback", biz_type="2")
    return {
        "accessKey": SANDBOX_CREDENTIALS.access_key,
        "action": "callback",
        "bizType": "2",
        "ts": str(milliseconds),
        "algorithm": "sha256",
        "sign": hashlib.sha256(text).hexdigest(),
    }


def push(url: str, body: bytes, headers: Mapping[str, str] | None = None) -> int:
    """Push a callback, well signed unless there are other headers, and return the status of the answer."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST", address.path, body, dict(signature(body) if headers is None else headers))
        return connection.getresponse().status
