"""``nxotp listen``: a callback is answered when it is printed, however that goes, and however it ends."""

import contextlib
import errno
import http.client
import itertools
import json
import os
import re
import select
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from bulk_commands import callback
from commands import KEYS, Start, finish, posix
from listen_commands import line_of, push, signature, url_of

from nxotp_async.callbacks import StatusEvent
from nxotp_async.cli.listen import CallbackPrinter

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")


AT_ONCE = """
import os, signal
from nxotp_async.__main__ import main
from nxotp_async.cli import serving
show = serving.print_note
def show_and_stop(text):
    show(text)
    os.kill(os.getpid(), signal.SIGTERM)
serving.print_note = show_and_stop
main()
"""


@posix
def test_a_signal_that_comes_as_soon_as_it_listens_ends_it_cleanly(listen: Start) -> None:
    code, out, err = finish(listen(program=("-c", AT_ONCE)))
    assert (code, out) == (0, "")
    assert re.fullmatch(r"receiving callbacks on \S+\nstopped\n", err)


@posix
@pytest.mark.parametrize(
    ("stdout", "why"), [(None, "Broken pipe"), ("/dev/full", "No space left on device")], ids=["reader gone", "full"]
)
def test_a_callback_that_cannot_be_printed_is_not_taken_and_ends_it(
    listen: Start, stdout: str | None, why: str
) -> None:
    with open(stdout or os.devnull, "wb") as file:  # noqa: PTH123 - a device
        process = listen(**({"stdout": file} if stdout else {}))
    url = url_of(process)
    if process.stdout is not None:
        process.stdout.close()
    assert push(url, callback("id-1", "sent")) == 503
    assert process.stderr is not None
    assert process.stderr.read() == f"nxotp: cannot write to standard output: {why}\n"
    assert process.wait(30) == 2


@posix
def test_without_a_standard_output_it_does_not_begin(start: Start) -> None:
    process = start("-m", "nxotp_async", "listen", "--port", "0", program=("-c", CLOSE_STDOUT))
    assert finish(process) == (2, "", "nxotp: standard output is closed: callbacks cannot be printed\n")


CLOSE_STDOUT = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"


class SlowReader:
    """A pipe that is full until it is read from."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.writing, b"x" * 4096)
        os.set_blocking(self.writing, True)

    def read(self) -> str:
        """Read to the end, without what it was filled with."""
        os.close(self.writing)
        with os.fdopen(self.reading, encoding="utf-8") as file:
            return file.read().lstrip("x")


def begin_push(url: str, body: bytes) -> socket.socket:
    """Push a callback without waiting for the answer."""
    address = urlsplit(url)
    lines = [f"POST {address.path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in signature(body).items()]
    connection = socket.create_connection((address.hostname, address.port), timeout=20)
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return connection


def has_answer(connection: socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def answer(connection: socket.socket) -> bytes:
    """Return the status of the answer, or nothing where there is none."""
    with connection, contextlib.suppress(ConnectionError):
        return connection.recv(100)[9:12]
    return b""


@posix
def test_a_slow_reader_holds_up_its_callbacks_and_nobody_else(listen: Start) -> None:
    pipe = SlowReader()
    process = listen("--json", stdout=pipe.writing)
    url = url_of(process)
    bodies = [
        callback("id-1", "sent"),
        callback("id-1", "sent"),
        callback("id-2", "sent", errors=[{"title": "x" * 9000}]),
    ]
    pushed = [begin_push(url, body) for body in bodies]
    for _ in range(5):
        assert push(url, b"no JSON") == 400  # while nothing can be printed
        assert not any(map(has_answer, pushed))
    reading = ThreadPoolExecutor(1).submit(pipe.read)
    assert [answer(connection) for connection in pushed] == [b"200"] * 3
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 0
    assert sorted(json.loads(line)["message_id"] for line in reading.result().splitlines()) == ["id-1", "id-2"]


IMPATIENT = """
from nxotp_async.__main__ import main
from nxotp_async.cli import serving
serving.SHUTDOWN_TIMEOUT = 0.01
main()
"""


@posix
def test_it_ends_where_its_reader_never_reads_and_what_was_not_printed_is_not_answered_200(listen: Start) -> None:
    pipe = SlowReader()
    process = listen(stdout=pipe.writing, program=("-c", IMPATIENT))
    pushed = [begin_push(url, callback(f"id-{number}", "sent")) for url in [url_of(process)] for number in range(5)]
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert (code, err) == (0, "stopped\n")
    # No answer, or 503 for a request that was still being read when the first could not be printed.
    assert b"200" not in [answer(connection) for connection in pushed]
    assert pipe.read() == ""


@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_what_is_answered_200_is_printed_however_it_ends(listen: Start, name: str) -> None:
    process = listen("--json")
    url = url_of(process)
    answered: list[str] = []

    def push_until_it_ends(pusher: int) -> None:
        for number in itertools.count():
            message_id = f"{pusher}-{number}"
            try:
                status = push(url, callback(message_id, "sent"))
            except (ConnectionError, http.client.HTTPException):
                return
            if status != 200:  # it has no time left to print
                return
            answered.append(message_id)
            if len(answered) == 100:
                process.send_signal(getattr(signal, name))

    with ThreadPoolExecutor(8) as pool:
        pushing = [pool.submit(push_until_it_ends, pusher) for pusher in range(8)]
        _, out, err = finish(process)
    for future in pushing:
        future.result()
    assert len(answered) >= 100
    assert set(answered) <= {json.loads(line)["message_id"] for line in out.splitlines()}
    assert err == ("" if name == "SIGKILL" else "stopped\n")


async def test_what_could_not_be_printed_is_not_taken_for_old_news(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    def write(_: int, data: bytes) -> int:
        if not written:
            written.append(b"")
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(data)
        return len(data)

    monkeypatch.setattr(os, "write", write)
    printer = CallbackPrinter(as_json=True)
    for _ in range(2):
        with pytest.raises(web.HTTPServiceUnavailable):
            await printer.record(StatusEvent("id-1", "sent"))
    assert printer.stop.is_set()
    assert written == [b""]


@posix
def test_nothing_that_a_callback_says_makes_a_line_or_steers_the_terminal(listen: Start) -> None:
    process = listen()
    url = url_of(process)
    errors = [{"code": 1, "title": "a\nb\x1b[2J"}]
    assert push(url, callback("id-1\r\n", "failed", errors=errors)) == 200
    process.send_signal(signal.SIGINT)
    _, out, _ = finish(process)
    assert out.split() == ["08:00:00", "failed", "id-1\\r\\n", "99******00", "1", "a\\nb\\x1b[2J"]
    assert out.count("\n") == 1


@posix
def test_a_text_that_the_output_cannot_show_does_not_end_it(listen: Start) -> None:
    process = listen(env={**KEYS, "PYTHONIOENCODING": "latin-1"})
    url = url_of(process)
    assert push(url, callback("id-1", "failed", errors=[{"code": 131026, "title": "未送达"}])) == 200
    assert push(url, callback("id-2", "sent")) == 200
    assert [line_of(process).split()[1:3] for _ in range(2)] == [["failed", "id-1"], ["sent", "id-2"]]
    process.send_signal(signal.SIGINT)
    assert finish(process) == (0, "", "stopped\n")
