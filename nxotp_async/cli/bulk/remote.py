"""Asking the process that has a ledger open."""

import codecs
import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import click
import orjson

from ...bulk import Ledger
from ...errors import LedgerError
from .control import address_of

__all__ = ["ask_run", "opened", "run_export", "steer"]

_LOOK: Final = 5.0  # seconds that looking at a ledger takes at the most
_TIMEOUT: Final = 30.0  # seconds for an answer, or for the next part of one


class _Connection(http.client.HTTPConnection):
    """An HTTP connection to the socket beside a ledger."""

    def __init__(self, ledger: Path) -> None:
        super().__init__("run", timeout=_TIMEOUT)
        self._ledger = ledger

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with address_of(self._ledger) as address:
            self.sock.connect(address)


@contextmanager
def _answer(ledger: Path, method: str, path: str, body: bytes | None = None) -> Iterator[http.client.HTTPResponse]:
    with closing(_Connection(ledger)) as connection:
        connection.request(method, path, body)
        yield connection.getresponse()


def ask_run(ledger: Path, path: str, method: str = "GET", body: object = None) -> dict[str, Any] | None:
    """Return what the run of a ledger answers, or nothing where no run is at work.

    Raises:
        LedgerError: It has not answered.
        click.UsageError: It refuses.
    """
    if not hasattr(socket, "AF_UNIX"):
        return None
    try:
        with _answer(ledger, method, path, None if body is None else orjson.dumps(body)) as response:
            fields: dict[str, Any] = orjson.loads(response.read())
    except (FileNotFoundError, ConnectionError, http.client.RemoteDisconnected, http.client.IncompleteRead):
        return None  # there is none, one was killed, or it has just ended
    except (OSError, http.client.HTTPException, orjson.JSONDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it does not answer"
        raise LedgerError(f"the run of {ledger} cannot be asked: {reason}", in_use=True) from None
    if response.status != http.HTTPStatus.OK:
        raise click.UsageError(str(fields["error"]))
    return fields


def opened(ledger: Path, *, create: bool = True) -> Ledger:
    """Open a ledger to change it. A command that only looks at it at this moment is waited for, a run is not.

    Raises:
        LedgerError: It is in use, or cannot be used.
    """
    deadline = time.monotonic() + _LOOK
    while True:
        try:
            return Ledger(ledger, create=create)
        except LedgerError as error:
            if not error.in_use or time.monotonic() > deadline or ask_run(ledger, "/progress") is not None:
                raise
        time.sleep(0.05)


def steer(ledger: Path, path: str, body: object = None) -> dict[str, Any]:
    """Have the run of a ledger do something, and return its progress.

    Raises:
        LedgerError: No run is at work.
        click.UsageError: It refuses.
    """
    fields = ask_run(ledger, path, "POST", body)
    if fields is None and not ledger.exists():
        raise LedgerError(f"there is no ledger {ledger}", hint="nxotp bulk run makes one")
    if fields is None:
        raise LedgerError(f"no run of {ledger} is at work", hint=f"nxotp bulk status {ledger}")
    return fields


@contextmanager
def run_export(ledger: Path, query: str) -> Iterator[Iterator[str]]:
    """Yield the export that the run of a ledger writes, in pieces.

    Raises:
        LedgerError: It has ended meanwhile. So does reading the pieces.
    """
    failure = LedgerError(f"the run of {ledger} ended before the export was complete", hint="export again")
    with closing(_Connection(ledger)) as connection:
        try:
            connection.request("GET", f"/export?{query}")
            response = connection.getresponse()
        except (OSError, http.client.HTTPException):
            raise failure from None
        yield _texts(response, failure)


def _texts(response: http.client.HTTPResponse, failure: LedgerError) -> Iterator[str]:
    try:
        yield from codecs.iterdecode(iter(lambda: response.read1(1 << 16), b""), "utf-8")
        return
    except (OSError, http.client.HTTPException):
        pass
    raise failure
