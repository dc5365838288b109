"""``nxotp listen``."""

import asyncio
import contextlib
import errno
import hashlib
import http.client
import itertools
import json
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from bulk_commands import GOOD, callback, otps
from commands import (
    CONTENT,
    KEYS,
    Env,
    Start,
    finish,
    invoke,
    posix,
    read_until,
)

from nxotp_async.callbacks import StatusEvent
from nxotp_async.cli.listen import CallbackPrinter
from nxotp_async.sandbox import (
    SANDBOX_CREDENTIALS,
    CallbackPlan,
    Sandbox,
    sandbox_client,
)
from nxotp_async.signing import signed_text
from nxotp_async.testing import serve_in_thread

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")


TOKEN = "an-unguessable-path"


@pytest.fixture
def listen(start: Start) -> Start:
    """Start ``nxotp listen`` with these options."""

    def listen(*options: str, env: Env = KEYS, **how: Any) -> Any:
        return start("listen", "--port", "0", *options, env=env, **how)

    return listen


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def url_of(process: "subprocess.Popen[str]") -> str:
    return read_until(process.stderr, r"listening on \S+\n").split()[-1]


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


@posix
def test_callbacks_are_lines_of_a_table_each_once_and_only_as_far_as_they_are_news(listen: Start) -> None:
    process = listen()
    url = url_of(process)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
    for status in ("sent", "sent", "delivered", "sent", "delivered", "read", "delivered"):
        assert push(url, callback("id-1", status)) == 200
    errors = [{"code": 131026, "title": "Message undeliverable"}, {"title": "[red]no[/red]"}]
    assert push(url, callback("id-2", "failed", errors=errors)) == 200
    assert push(url, callback("id-3", "sent", timestamp=None, recipient_id=None)) == 200
    shown = [line_of(process) for _ in range(5)]
    assert shown == [
        f"08:00:00  sent       {'id-1':<40} 99******00\n",
        f"08:00:00  delivered  {'id-1':<40} 99******00\n",
        f"08:00:00  read       {'id-1':<40} 99******00\n",
        f"08:00:00  failed     {'id-2':<40} 99******00  131026 Message undeliverable; [red]no[/red]\n",
        "--:--:--  sent       id-3\n",
    ]
    process.send_signal(signal.SIGINT)
    assert finish(process) == (0, "", "stopped\n")


@posix
def test_callbacks_as_json_are_one_object_a_line_and_a_token_is_their_path(listen: Start) -> None:
    process = listen("--json", env={**KEYS, "NXOTP_CALLBACK_TOKEN": TOKEN})
    url = url_of(process)
    assert urlsplit(url).path == f"/{TOKEN}"
    assert push(url.removesuffix(TOKEN), callback("id-1", "deleted")) == 404
    errors = [{"code": 131026, "title": "Message undeliverable"}]
    for body in (
        callback("id-1", "sent"),
        callback("id-1", "sent"),
        callback("id-2", "failed", errors=errors, recipient_id=None, timestamp=None),
        b'{"button": "clicked"}',
    ):
        assert push(url, body) == 200
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)
    assert (code, err) == (0, "stopped\n")
    assert [json.loads(line) for line in out.splitlines()] == [
        {
            "message_id": "id-1",
            "status": "sent",
            "timestamp": "2027-01-15T08:00:00+00:00",
            "recipient": "99******00",
            "errors": [],
        },
        {"message_id": "id-2", "status": "failed", "timestamp": None, "recipient": "", "errors": errors},
    ]


@posix
def test_what_is_not_the_vendors_is_refused_and_not_shown(listen: Start) -> None:
    process = listen()
    url = url_of(process)
    body = callback("id-1", "deleted")
    good = signature(body)
    for headers, status in (
        ({}, 401),
        ({**good, "sign": "0" * 64}, 401),
        ({**good, "accessKey": "another"}, 401),
        (signature(callback("id-1", "read")), 401),
        (signature(body, ts=time.time() - 301), 401),
        ({name: value for name, value in good.items() if name != "sign"}, 401),
    ):
        assert push(url, body, headers) == status
    assert push(f"{url}{TOKEN}", body) == 404
    assert push(url, b"no JSON") == 400
    assert push(url, callback("id-1", "sent")) == 200
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert (code, out.split()) == (0, ["08:00:00", "sent", "id-1", "99******00"])
    assert "Traceback" not in err
    assert KEYS["NXOTP_ACCESS_SECRET"] not in err


@posix
def test_a_sandbox_that_repeats_and_forges_its_callbacks_is_listened_to(listen: Start) -> None:
    process = listen("--json")
    url = url_of(process)
    with serve_in_thread(Sandbox(callbacks=CallbackPlan(copies=3, shuffle=True, forged=1.0))) as sandbox:

        async def send() -> None:
            async with sandbox_client(sandbox.url, dr_webhook=url) as client:
                for place, number in enumerate(GOOD[:5]):
                    await client.send_otp(number, CONTENT, cus_message_id=f"id-{place}")

        asyncio.run(send())
        until(lambda: sandbox.counts["callbacks taken"] == sandbox.counts["forged callbacks refused"] == 45)
    process.send_signal(signal.SIGTERM)
    code, out, _ = finish(process)
    shown = [json.loads(line) for line in out.splitlines()]
    for place in range(5):
        statuses = [event["status"] for event in shown if event["message_id"] == f"id-{place}"]
        assert statuses[-1] == "read"
        assert statuses == [status for status in ("sent", "delivered", "read") if status in statuses]
    assert {event["recipient"] for event in shown} == {f"99******0{place}" for place in range(5)}
    assert code == 0


@posix
@pytest.mark.parametrize("env", [KEYS, {}], ids=["with keys", "without"])
def test_unsigned_callbacks_need_a_token_which_is_made_up(listen: Start, env: Env) -> None:
    process = listen("--unsigned", env=env)
    url = url_of(process)
    address = urlsplit(url)
    assert re.fullmatch(r"/[\w-]{32}", address.path)
    body = callback("id-1", "sent")
    root = f"http://{address.netloc}/"
    assert [push(root, body, {}), push(f"{root}{TOKEN}", body, {}), push(url, body, {})] == [404, 404, 200]
    signed = callback("id-1", "delivered")
    # Without keys nobody can tell whose a signature is: the token has to do.
    assert push(url, signed, {**signature(signed), "sign": "0" * 64}) == (401 if env else 200)
    assert push(url, signed) == 200
    process.send_signal(signal.SIGINT)
    code, out, _ = finish(process)
    assert (code, [line.split()[1] for line in out.splitlines()]) == (0, ["sent", "delivered"])


def test_a_taken_port_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = invoke("listen", "--port", str(port), env=KEYS)
    assert (result.exit_code, result.stdout) == (3, "")
    assert re.fullmatch(rf"nxotp: cannot listen on 127\.0\.0\.1:{port}: .*in use.*\n", result.stderr)


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b", "x" * 70], ids=["not ours", "no name", "too long"])
def test_a_host_that_cannot_be_listened_on_is_told_in_one_line(host: str) -> None:
    result = invoke("listen", "--host", host, "--port", "0", env=KEYS)
    assert (result.exit_code, result.stdout) == (3, "")
    assert re.fullmatch(rf"nxotp: cannot listen on {re.escape(host)}:0: .+\n", result.stderr)


@pytest.mark.parametrize(
    ("options", "missing", "said"),
    [
        ((), ("NXOTP_ACCESS_KEY",), "are missing: set NXOTP_ACCESS_KEY ("),
        ((), ("NXOTP_ACCESS_SECRET",), "are missing: set NXOTP_ACCESS_SECRET ("),
        (("--token", TOKEN), ("NXOTP_ACCESS_KEY", "NXOTP_ACCESS_SECRET"), "NXOTP_ACCESS_KEY and NXOTP_ACCESS_SECRET ("),
        (("--token", "too-short"), (), "--token (or NXOTP_CALLBACK_TOKEN) must be 16 or more of the characters"),
        (("--token", ""), (), "--token (or NXOTP_CALLBACK_TOKEN) must be 16 or more of the characters"),
        (("--unsigned", "--token", "with/a-slash-in-the-midst"), (), "16 or more of the characters"),
    ],
)
def test_what_would_not_verify_callbacks_is_told(options: tuple[str, ...], missing: tuple[str, ...], said: str) -> None:
    env = {name: value for name, value in KEYS.items() if name not in missing}
    result = invoke("listen", "--port", "0", *options, env=env)
    assert (result.exit_code, result.stdout) == (3, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("options", [("--port", "-1"), ("--port", "65536"), ("--port", "x"), ("extra",), ("--no",)])
def test_listen_refuses_wrong_usage(options: tuple[str, ...]) -> None:
    assert invoke("listen", *options, env=KEYS).exit_code == 2


@pytest.mark.parametrize("window", ["0", "-1", "nan", "inf", "soon", "0.0"])
@pytest.mark.parametrize("command", [("listen",), ("bulk", "run", "otps.csv"), ("bulk", "resume", "run.db")])
def test_a_window_that_is_none_is_wrong_usage(command: tuple[str, ...], window: str) -> None:
    otps(GOOD[0])
    result = invoke(*command, "--window", window, env=KEYS)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Invalid value for '--window'" in result.stderr


@posix
def test_how_far_a_callback_may_be_away_can_be_chosen(listen: Start) -> None:
    process = listen("--window", "1000")
    url, now = url_of(process), time.time()
    body = callback("id-1", "sent")
    assert [push(url, body, signature(body, ts=now + off)) for off in (-1100, 1100, -800, 800)] == [401, 401, 200, 200]
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == 0
    assert err.count("the callback's ts differs from this machine's clock by more than 1000 s") == 2


AT_ONCE = """
import os, signal
from nxotp_async.__main__ import main
from nxotp_async.cli import listen
show = listen.print_note
def show_and_stop(text):
    show(text)
    if text.startswith("listening"):
        os.kill(os.getpid(), signal.SIGTERM)
listen.print_note = show_and_stop
main()
"""


@posix
def test_a_signal_that_comes_as_soon_as_it_listens_ends_it_cleanly(listen: Start) -> None:
    code, out, err = finish(listen(program=("-c", AT_ONCE)))
    assert (code, out) == (0, "")
    assert re.fullmatch(r"listening on \S+\nstopped\n", err)


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
    assert {answer(connection) for connection in pushed} <= {b"", b"503"}
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
