"""Running ``nxotp bulk`` in tests: files of messages, ledgers, and what became of them."""

import contextlib
import gzip
import json
import os
import re
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from click.testing import Result
from commands import CONTENT, Env, Start, account_of, invoke

from nxotp_async.bulk import Ledger, load, open_messages
from nxotp_async.sandbox import Sandbox

COMMANDS = ("run", "resume", "status", "export", "resolve", "pause", "set", "stop")
STEERING = ("pause", "set", "stop")
PAGE = Path(__file__).parent.parent.parent / "docs" / "bulk.md"
GOOD = tuple(f"9995550{number}" for number in range(100, 400))
REJECTED, LOST, NO_BALANCE, NO_PRICE = "999000009015", "999300000002", "999000009005", "999000009004"
NO_COUNTRY = (
    "to starts with 0: the country code is missing (write it with its country code, +86 139 1234 5678 for example)"
)


def bulk(*arguments: str, env: Env | None = None, stdin: bytes | BinaryIO = b"") -> Result:
    return invoke("bulk", *arguments, env=env, stdin=stdin)


def lines(*numbers: str) -> list[str]:
    return [f"{number},{CONTENT}" for number in numbers]


def write(*rows: str, header: str = "to,content", name: str = "otps.csv") -> str:
    Path(name).write_text("".join(f"{row}\n" for row in (header, *rows)), encoding="utf-8")
    return name


def otps(*numbers: str, name: str = "otps.csv") -> str:
    return write(*lines(*numbers), name=name)


def packed(text: str) -> bytes:
    return gzip.compress(text.encode())


@contextlib.contextmanager
def piped(content: bytes) -> Iterator[BinaryIO]:
    """A standard input that is a pipe."""
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        yield file


def ledger_of(*rows: str, header: str = "to,content,cus_message_id", unknown: tuple[str, ...] = ()) -> str:
    """Make run.db of rows that nobody has sent yet, some of them in flight when a run was killed."""
    with Ledger("run.db") as ledger, open_messages(write(*rows, header=header, name="input.csv")) as file:
        load(ledger, file)
    if unknown:
        with Ledger("run.db") as ledger, ledger.transaction():
            waiting = ledger.fresh(1000, 0.0, after=0)
            ledger.claim([stored.key for stored in waiting if stored.message.cus_message_id in unknown], 0.0)
    return "run.db"


def counts_of(ledger: str = "otps.csv.ledger") -> dict[str, int]:
    with Ledger(ledger, create=False) as opened:
        return {str(state): count for state, count in sorted(opened.counts().items())}


def results_of(ledger: str = "otps.csv.ledger") -> list[dict[str, Any]]:
    with Ledger(ledger, create=False) as opened:
        return list(opened.results())


def received(sandbox: Sandbox) -> list[str]:
    """The recipients of what the sandbox has accepted, in order."""
    return sorted(message.to for message in sandbox.messages)


def counts_in(table: str) -> dict[str, int]:
    found = re.findall(r"^(queued|accepted|rejected|not sent|unknown|total) +([\d,]+) *$", table, re.MULTILINE)
    return {name.replace(" ", "_"): int(count.replace(",", "")) for name, count in found}


def callback(message_id: str, status: str, **fields: object) -> bytes:
    """The body of a status callback, as a line."""
    event = {"id": message_id, "status": status, "timestamp": "1800000000", "recipient_id": GOOD[0], **fields}
    return json.dumps({"statuses": [event]}, ensure_ascii=False).encode() + b"\n"


def mode_of(path: str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def a_run_that_hangs(start: Start, sandbox: Sandbox, arrived: threading.Event) -> "subprocess.Popen[str]":
    """Start a run, and return when its first three messages, which are never answered, are in flight."""
    rows = [f"999300000008,{CONTENT},hung-{place}" for place in range(3)]
    rows += [f"{number},{CONTENT},good-{number}" for number in GOOD[:5]]
    file = write(*rows, header="to,content,cus_message_id")
    process = start("bulk", "run", file, "--concurrency", "3", env=account_of(sandbox))
    assert arrived.wait(30)
    while len(sandbox.messages) < 3:
        assert process.poll() is None
    return process
