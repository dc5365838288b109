"""Status callbacks on the command line: ``nxotp listen``, ``nxotp bulk --listen``, and the ledger they are noted in."""

import asyncio
import contextlib
import csv
import errno
import hashlib
import http.client
import importlib
import io
import itertools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from nxotp_async.bulk import Dispatcher, Ledger, MessageState, ReceiptRecorder, load, open_messages
from nxotp_async.callbacks import StatusEvent
from nxotp_async.cli import common, nxotp
from nxotp_async.cli.bulk import sending
from nxotp_async.errors import LedgerError
from nxotp_async.receivers import aiohttp_receiver
from nxotp_async.sandbox import SANDBOX_CREDENTIALS, CallbackPlan, Fault, Sandbox, sandbox_client
from nxotp_async.signing import signed_text
from nxotp_async.testing import serve_in_thread

CONTENT = "Your code is 73915508"
KEYS = {
    "NXOTP_ACCESS_KEY": "sandbox-access-key",
    "NXOTP_ACCESS_SECRET": "sandbox-access-secret",
    "NXOTP_APPKEY": "sandbox-appkey",
}
GOOD = tuple(f"9995550{number}" for number in range(100, 400))
LOST = "999300000002"  # accepted, but the answer never comes
TOKEN = "an-unguessable-path"
DELIVERED = CallbackPlan(statuses=("sent", "delivered"))

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
Env = Mapping[str, str]


# ---------------------------------------------------------------------------------------------- what the tests share


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sending, "_CALLBACKS_INTERVAL", 0.01)


def invoke(*arguments: str, env: Env | None = None) -> Result:
    result = CliRunner().invoke(nxotp, arguments, input=b"", env=env, prog_name="nxotp")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command as a process of its own, and leave none behind."""
    with contextlib.ExitStack() as stack:
        # A shell has its background jobs ignore Ctrl-C, and what they start would ignore it too.
        stack.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))

        def start(
            *arguments: str,
            env: Env = KEYS,
            program: tuple[str, ...] = ("-m", "nxotp_async"),
            stdout: IO[bytes] | int = subprocess.PIPE,
        ) -> Any:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *program, *arguments],
                    env={**os.environ, "TZ": "UTC", **env},
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=subprocess.PIPE,
                    encoding="utf-8",
                )
            )
            watchdog = threading.Timer(60, process.kill)
            watchdog.start()
            stack.callback(watchdog.cancel)
            stack.callback(process.kill)
            return process

        yield start


def read_until(stream: IO[str] | None, pattern: str) -> re.Match[str]:
    """Read no further than to the first match."""
    assert stream is not None
    text = ""
    while not (match := re.search(pattern, text)):
        char = stream.read(1)
        assert char, f"it ended, having said {text!r}"
        text += char
    return match


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def url_of(process: "subprocess.Popen[str]") -> str:
    return read_until(process.stderr, r"listening on (\S+)\n")[1]


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def callback(message_id: str, status: str, **fields: object) -> bytes:
    event = {"id": message_id, "status": status, "timestamp": "1800000000", "recipient_id": GOOD[0], **fields}
    return json.dumps({"statuses": [event]}, ensure_ascii=False).encode()


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


# ---------------------------------------------------------------------------------------------- nxotp listen


@posix
def test_callbacks_are_lines_of_a_table_each_once_and_only_as_far_as_they_are_news(start: Start) -> None:
    process = start("listen", "--port", "0")
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
def test_callbacks_as_json_are_one_object_a_line_and_a_token_is_their_path(start: Start) -> None:
    process = start("listen", "--port", "0", "--json", env={**KEYS, "NXOTP_CALLBACK_TOKEN": TOKEN})
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
def test_what_is_not_the_vendors_is_refused_and_not_shown(start: Start) -> None:
    process = start("listen", "--port", "0")
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
def test_a_sandbox_that_repeats_and_forges_its_callbacks_is_listened_to(start: Start) -> None:
    process = start("listen", "--port", "0", "--json")
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
def test_unsigned_callbacks_need_a_token_which_is_made_up(start: Start, env: Env) -> None:
    process = start("listen", "--port", "0", "--unsigned", env=env)
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
        ((), ("NXOTP_ACCESS_KEY",), "are missing: set NXOTP_ACCESS_KEY"),
        ((), ("NXOTP_ACCESS_SECRET",), "are missing: set NXOTP_ACCESS_KEY"),
        (("--token", TOKEN), ("NXOTP_ACCESS_KEY", "NXOTP_ACCESS_SECRET"), "are missing: set NXOTP_ACCESS_KEY"),
        (("--token", "too-short"), (), "token must be 16 or more of the characters"),
        (("--token", ""), (), "token must be 16 or more of the characters"),
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
def test_how_far_a_callback_may_be_away_can_be_chosen(start: Start) -> None:
    process = start("listen", "--port", "0", "--window", "1000")
    url, now = url_of(process), time.time()
    body = callback("id-1", "sent")
    assert [push(url, body, signature(body, ts=now + off)) for off in (-1100, 1100, -800, 800)] == [401, 401, 200, 200]
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == 0
    assert err.count("the callback's ts differs from this machine's clock by more than 1000 s") == 2


AT_ONCE = """
import os, signal
from importlib import import_module
module = import_module("nxotp_async.cli.listen")
show = module.stderr.print
def show_and_stop(text, **options):
    show(text, **options)
    if text.startswith("listening"):
        os.kill(os.getpid(), signal.SIGTERM)
module.stderr.print = show_and_stop
import_module("nxotp_async.__main__").main()
"""


@posix
def test_a_signal_that_comes_as_soon_as_it_listens_ends_it_cleanly(start: Start) -> None:
    code, out, err = finish(start("listen", "--port", "0", program=("-c", AT_ONCE)))
    assert (code, out) == (0, "")
    assert re.fullmatch(r"listening on \S+\nstopped\n", err)


@posix
@pytest.mark.parametrize(
    ("stdout", "why"), [(None, "Broken pipe"), ("/dev/full", "No space left on device")], ids=["reader gone", "full"]
)
def test_a_callback_that_cannot_be_printed_is_not_taken_and_ends_it(start: Start, stdout: str | None, why: str) -> None:
    with open(stdout or os.devnull, "wb") as file:  # noqa: PTH123 - a device
        process = start("listen", "--port", "0", **({"stdout": file} if stdout else {}))
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
    assert finish(process) == (2, "", "nxotp: standard output is closed: callbacks could be printed nowhere\n")


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
def test_a_slow_reader_holds_up_its_callbacks_and_nobody_else(start: Start) -> None:
    pipe = SlowReader()
    process = start("listen", "--port", "0", "--json", stdout=pipe.writing)
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
from importlib import import_module
import_module("nxotp_async.cli.listen")._SHUTDOWN_TIMEOUT = 0.01
import_module("nxotp_async.__main__").main()
"""


@posix
def test_it_ends_where_its_reader_never_reads_and_what_was_not_printed_has_no_answer(start: Start) -> None:
    pipe = SlowReader()
    process = start("listen", "--port", "0", stdout=pipe.writing, program=("-c", IMPATIENT))
    pushed = [begin_push(url, callback(f"id-{number}", "sent")) for url in [url_of(process)] for number in range(5)]
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert (code, err) == (0, "stopped\n")
    assert [answer(connection) for connection in pushed] == [b""] * 5
    assert pipe.read() == ""


@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_what_is_answered_200_is_printed_however_it_ends(start: Start, name: str) -> None:
    process = start("listen", "--port", "0", "--json")
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
    module = importlib.import_module("nxotp_async.cli.listen")
    printer = module._Printer(as_json=True)
    for _ in range(2):
        with pytest.raises(web.HTTPServiceUnavailable):
            await printer.record(StatusEvent("id-1", "sent"))
    assert printer.stop.is_set()
    assert written == [b""]


@posix
def test_nothing_that_a_callback_says_makes_a_line_or_steers_the_terminal(start: Start) -> None:
    process = start("listen", "--port", "0")
    url = url_of(process)
    errors = [{"code": 1, "title": "a\nb\x1b[2J"}]
    assert push(url, callback("id-1\r\n", "failed", errors=errors)) == 200
    process.send_signal(signal.SIGINT)
    _, out, _ = finish(process)
    assert out.split() == ["08:00:00", "failed", "id-1\\r\\n", "99******00", "1", "a\\nb\\x1b[2J"]
    assert out.count("\n") == 1


@posix
def test_a_text_that_the_output_cannot_show_does_not_end_it(start: Start) -> None:
    process = start("listen", "--port", "0", env={**KEYS, "PYTHONIOENCODING": "latin-1"})
    url = url_of(process)
    assert push(url, callback("id-1", "failed", errors=[{"code": 131026, "title": "未送达"}])) == 200
    assert push(url, callback("id-2", "sent")) == 200
    assert [line_of(process).split()[1:3] for _ in range(2)] == [["failed", "id-1"], ["sent", "id-2"]]
    process.send_signal(signal.SIGINT)
    assert finish(process) == (0, "", "stopped\n")


# ---------------------------------------------------------------------------------------------- nxotp bulk --listen


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def listening(*, path: str = "", wait: float = 30) -> tuple[str, ...]:
    port = free_port()
    return "--listen", port, "--dr-webhook", f"http://127.0.0.1:{port}/{path}", "--listen-for", str(wait)


def account_of(sandbox: Sandbox) -> Env:
    return {**KEYS, "NXOTP_BASE_URL": sandbox.url}


def otps(*numbers: str) -> str:
    rows = [f"{number},{CONTENT},id-{place}" for place, number in enumerate(numbers)]
    Path("otps.csv").write_text("\n".join(["to,content,cus_message_id", *rows, ""]), encoding="utf-8")
    return "otps.csv"


def results_of(ledger: str = "otps.csv.ledger") -> list[dict[str, Any]]:
    with Ledger(ledger, create=False) as opened:
        return list(opened.results())


def counts_of(ledger: str = "otps.csv.ledger") -> dict[str, int]:
    return dict(Counter(row["status"] for row in results_of(ledger)))


def exported() -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(invoke("bulk", "export", "otps.csv.ledger").stdout)))


@pytest.mark.parametrize(
    ("count", "plan", "form"),
    [
        pytest.param(300, DELIVERED, (), id="in order"),
        pytest.param(150, CallbackPlan(statuses=("sent", "delivered"), early=1.0), ("--json",), id="before the answer"),
        pytest.param(
            150,
            CallbackPlan(statuses=("sent", "delivered"), shuffle=True, copies=2, forged=0.2, algorithm="md5"),
            ("--json",),
            id="shuffled, repeated and forged",
        ),
    ],
)
def test_a_run_with_lost_answers_knows_of_every_message_in_the_end(
    count: int, plan: CallbackPlan, form: tuple[str, ...]
) -> None:
    lost = (Fault.disconnect_after_reading(),)
    with serve_in_thread(Sandbox(callbacks=plan, fault_rate=0.2, faults=lost, seed=7)) as sandbox:
        result = invoke("bulk", "run", otps(*GOOD[:count]), *listening(), *form, env=account_of(sandbox))
        assert sandbox.counts["fault disconnect_after_reading"] > count / 10
        assert sorted(message.to for message in sandbox.messages) == list(GOOD[:count])
    assert result.exit_code == 0, result.stderr
    if form:
        shown = json.loads(result.stdout)
        assert (shown["accepted"], shown["unknown"], shown["reasons"]) == (count, 0, [])
        assert shown["receipts"] == {"sent": count, "delivered": count, "read": 0, "failed": 0}
    else:
        assert re.search(rf"^accepted +{count}$.*^unknown +0 *$", result.stdout, re.MULTILINE | re.DOTALL)
        assert result.stdout.endswith(f"\ncallbacks: sent {count}, delivered {count}, read 0, failed 0\n")
    rows = exported()
    assert {(row["status"], row["receipt"], row["attempts"]) for row in rows} == {("accepted", "delivered", "1")}
    assert CONTENT.encode() not in Path("otps.csv.ledger").read_bytes()


def test_no_trace_of_a_code_is_left_when_callbacks_settle_messages_after_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unknown_when_forgetting = []
    forget_codes = Ledger.forget_codes

    def forget(ledger: Ledger) -> None:
        unknown_when_forgetting.append(ledger.counts()[MessageState.UNKNOWN])
        forget_codes(ledger)

    monkeypatch.setattr(Ledger, "forget_codes", forget)
    lost = (Fault.disconnect_after_reading(),)
    with serve_in_thread(Sandbox(callbacks=DELIVERED, fault_rate=1.0, faults=lost)) as sandbox:
        result = invoke("bulk", "run", otps(*GOOD[:5]), *listening(), env=account_of(sandbox))
    assert result.exit_code == 0, result.stderr
    at_the_end_of_the_run, after_the_last_callback = unknown_when_forgetting
    assert at_the_end_of_the_run >= after_the_last_callback == 0


@pytest.mark.parametrize("number", [GOOD[0], LOST], ids=["answered", "lost"])
@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [("delivered", None, None), ("failed", "DeliveryFailed", "its delivery has failed")],
)
def test_a_row_is_the_same_whether_the_callback_or_the_answer_comes_first(
    number: str, status: str, error: str | None, reason: str | None
) -> None:
    rows = []
    for early in (0.0, 1.0):
        Path("otps.csv.ledger").unlink(missing_ok=True)
        with serve_in_thread(Sandbox(callbacks=CallbackPlan(statuses=(status,), early=early))) as sandbox:
            invoke("bulk", "run", otps(number, GOOD[1]), *listening(), env=account_of(sandbox))
        rows.append(results_of()[0])
    state = "accepted"
    for row in rows:
        assert (row["status"], row["receipt"], row["error"], row["reason"]) == (state, status, error, reason)
        assert row["message_id"] == "id-0"


def test_deliveries_that_fail_are_told() -> None:
    with serve_in_thread(Sandbox(callbacks=CallbackPlan(statuses=("failed",)))) as sandbox:
        result = invoke("bulk", "run", otps(*GOOD[:3], LOST), *listening(), env=account_of(sandbox))
    assert result.exit_code == 0  # the vendor has accepted them
    assert "\ncallbacks: sent 4, delivered 0, read 0, failed 4\n" in result.stdout
    rows = [(row["status"], row["receipt"], row["error"]) for row in results_of()]
    assert rows == [("accepted", "failed", "DeliveryFailed")] * 4


@pytest.mark.parametrize("wait", [0, 0.05])
@pytest.mark.parametrize(("numbers", "code"), [(GOOD[:2], 0), ((GOOD[0], LOST), 6)], ids=["accepted", "unknown"])
def test_callbacks_that_never_come_are_waited_for_no_longer_than_told(
    wait: float, numbers: tuple[str, ...], code: int
) -> None:
    with serve_in_thread(Sandbox(callbacks=CallbackPlan(loss=1.0))) as sandbox:
        result = invoke("bulk", "run", otps(*numbers), *listening(wait=wait), env=account_of(sandbox))
    assert result.exit_code == code
    assert f"waiting for the callbacks of 2 messages, {wait:g} s at the most; Ctrl-C ends that\n" in result.stderr
    assert "callbacks: " not in result.stdout
    assert counts_of() == ({"accepted": 2} if code == 0 else {"accepted": 1, "unknown": 1})


def test_callbacks_that_tell_only_that_it_was_sent_settle_what_is_unknown_and_are_no_delivery() -> None:
    with serve_in_thread(Sandbox(callbacks=CallbackPlan(statuses=("sent",), early=1.0))) as sandbox:
        result = invoke("bulk", "run", otps(GOOD[0], LOST), *listening(wait=0.05), env=account_of(sandbox))
    assert (result.exit_code, counts_of()) == (0, {"accepted": 2})
    assert "waiting for the callbacks of 2 messages" in result.stderr
    assert "\ncallbacks: sent 2, delivered 0, read 0, failed 0\n" in result.stdout


@pytest.mark.parametrize("again", ["queued again", "left unknown"])
def test_resume_listens_too(again: str) -> None:
    silent = CallbackPlan(loss=1.0)
    with serve_in_thread(Sandbox(callbacks=silent)) as sandbox:
        assert invoke("bulk", "run", otps(LOST), env=account_of(sandbox)).exit_code == 6
    plan = CallbackPlan(statuses=("read",)) if again == "queued again" else silent
    with Ledger("otps.csv.ledger") as ledger:
        assert ledger.requeue(["id-0"] if again == "queued again" else []) == (again == "queued again")
    with serve_in_thread(Sandbox(callbacks=plan)) as sandbox:
        options = listening(wait=30 if again == "queued again" else 0)
        result = invoke("bulk", "resume", "otps.csv.ledger", *options, "--json", env=account_of(sandbox))
    heard = int(again == "queued again")
    assert result.exit_code == (0 if heard else 6)
    assert json.loads(result.stdout)["receipts"] == {"sent": heard, "delivered": heard, "read": heard, "failed": 0}
    assert ("waiting for the callbacks of 1 messages, 0 s" in result.stderr) is not bool(heard)
    assert counts_of() == {"accepted" if heard else "unknown": 1}


def test_without_listening_nothing_is_waited_for() -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        result = invoke("bulk", "run", otps(GOOD[0]), env=account_of(sandbox))
    assert (result.exit_code, "callbacks" in result.stderr + result.stdout) == (0, False)


@posix
@pytest.mark.parametrize(("number", "code", "signals"), [(LOST, 6, ["SIGINT", "SIGINT"]), (GOOD[0], 0, ["SIGTERM"])])
def test_ctrl_c_ends_the_wait_with_the_runs_own_exit_code(
    start: Start, number: str, code: int, signals: list[str]
) -> None:
    with serve_in_thread(Sandbox(callbacks=CallbackPlan(loss=1.0))) as sandbox:
        process = start("bulk", "run", otps(number), *listening(wait=600), "--json", env=account_of(sandbox))
        read_until(process.stderr, r"waiting for the callbacks of 1 messages, 600 s at the most; Ctrl-C ends that\n")
        for name in signals:
            process.send_signal(getattr(signal, name))
        exit_code, out, err = finish(process)
    shown = json.loads(out)
    assert (exit_code, shown["total"], shown["stopped"], shown["paused"]) == (code, 1, False, None)
    assert "Traceback" not in err
    assert "left at once" not in err


@pytest.mark.parametrize("command", ["run", "resume"])
def test_an_address_that_is_taken_stops_everything(command: str) -> None:
    subject = otps(GOOD[0])
    with serve_in_thread(Sandbox()) as sandbox, socket.create_server(("127.0.0.1", 0)) as taken:
        if command == "resume":
            subject = "otps.csv.ledger"
            with Ledger(subject) as ledger, open_messages("otps.csv") as file:
                load(ledger, file)
        port = taken.getsockname()[1]
        result = invoke("bulk", command, subject, "--listen", str(port), env=account_of(sandbox))
        assert len(sandbox.requests) == 0
    assert (result.exit_code, result.stdout, counts_of()) == (3, "", {"queued": 1})
    said = rf"^nxotp: cannot listen on 127\.0\.0\.1:{port}: .*in use.*; nothing was sent$"
    assert re.search(said, result.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("8090", ("127.0.0.1", 8090)),
        (":8090", ("127.0.0.1", 8090)),
        ("0.0.0.0:8090", ("0.0.0.0", 8090)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_an_address_is_a_port_or_a_host_and_a_port(written: str, address: tuple[str, int]) -> None:
    assert sending._Address().convert(written, None, None) == address


@pytest.mark.parametrize(
    "options",
    [
        *[
            ("--listen", address)
            for address in ("", "x", "host:", "host:http", "65536", "-1", "1.5", "\u00b2", "0.0.0.0:99999", "8090:")
        ],
        ("--listen", "9" * 5000),
        *[("--listen-for", seconds) for seconds in ("-1", "nan", "inf", "86401", "soon")],
    ],
    ids=lambda options: f"{options[0]} {options[1][:20]}",
)
@pytest.mark.parametrize("command", ["run", "resume"])
def test_a_wrong_address_or_time_is_told_before_anything_is_done(command: str, options: tuple[str, ...]) -> None:
    result = invoke("bulk", command, otps(GOOD[0]), *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Invalid value for '{options[0]}'" in result.stderr
    assert not Path("otps.csv.ledger").exists()


@pytest.mark.parametrize(
    ("options", "env"),
    [
        (("--token", TOKEN), {}),
        ((), {"NXOTP_CALLBACK_TOKEN": TOKEN}),
        (("--token", TOKEN, "--unsigned"), {}),
    ],
    ids=["option", "variable", "unsigned"],
)
def test_callbacks_come_to_the_path_that_the_token_says(options: tuple[str, ...], env: Env) -> None:
    plan = CallbackPlan(statuses=("delivered",), signed="--unsigned" not in options)
    with serve_in_thread(Sandbox(callbacks=plan)) as sandbox:
        arguments = ("run", otps(GOOD[0], LOST), *listening(path=TOKEN), *options)
        result = invoke("bulk", *arguments, env={**account_of(sandbox), **env})
    assert (result.exit_code, counts_of()) == (0, {"accepted": 2})
    assert re.search(rf"^receiving callbacks on http://127\.0\.0\.1:\d+/{TOKEN}$", result.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("path", "options", "signed"),
    [
        ("", ("--token", TOKEN), True),
        (TOKEN, ("--token", TOKEN), False),
        ("", (), False),
        ("another-unguessable-path", ("--token", TOKEN, "--unsigned"), False),
    ],
    ids=["no path", "unsigned with a token", "unsigned", "another token"],
)
def test_callbacks_that_cannot_be_believed_settle_nothing(path: str, options: tuple[str, ...], signed: bool) -> None:
    plan = CallbackPlan(statuses=("delivered",), signed=signed, early=1.0)
    with serve_in_thread(Sandbox(callbacks=plan)) as sandbox:
        arguments = ("run", otps(GOOD[0], LOST), *listening(path=path, wait=0), *options)
        result = invoke("bulk", *arguments, env=account_of(sandbox))
        assert sandbox.counts["callbacks pushed"] >= 2
    assert (result.exit_code, counts_of()) == (6, {"accepted": 1, "unknown": 1})


@pytest.mark.parametrize(("options", "heard"), [((), 0), (("--window", "1000"), 1)], ids=["default", "longer"])
def test_a_run_takes_callbacks_whose_time_is_within_the_window(options: tuple[str, ...], heard: int) -> None:
    plan = CallbackPlan(statuses=("delivered",), early=1.0)
    with serve_in_thread(Sandbox(callbacks=plan, clock_offset=800.0)) as sandbox:
        arguments = ("run", otps(GOOD[0]), *listening(wait=0), *options, "--json")
        result = invoke("bulk", *arguments, env=account_of(sandbox))
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["receipts"]["delivered"] == heard


@pytest.mark.parametrize("token", ["short", "with/a-slash-in-the-midst"])
def test_a_token_that_is_none_stops_everything(token: str) -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        result = invoke("bulk", "run", otps(GOOD[0]), "--listen", "0", "--token", token, env=account_of(sandbox))
        assert len(sandbox.requests) == 0
    assert (result.exit_code, result.stdout, counts_of()) == (3, "", {"queued": 1})
    assert (
        "nxotp: token must be 16 or more of the characters A-Z, a-z, 0-9, '-', '_', '.' and '~'; nothing was sent\n"
        in result.stderr
    )


def test_at_a_terminal_each_key_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def prompt(label: str) -> str:
        asked.append(label)
        return KEYS[f"NXOTP_{label.upper().replace(' ', '_')}"]

    monkeypatch.setattr(common, "_at_terminal", lambda: True)
    monkeypatch.setattr(common, "_prompt", prompt)
    with serve_in_thread(Sandbox(callbacks=DELIVERED)) as sandbox:
        result = invoke("bulk", "run", otps(GOOD[0]), *listening(), "--base-url", sandbox.url)
    assert (result.exit_code, asked) == (0, ["Access key", "Access secret", "Appkey"])


def test_listen_stays_apart_from_the_command_of_its_name() -> None:
    module = importlib.import_module("nxotp_async.cli.listen")
    assert sorted(module.__all__) == ["callback_options", "listen", "receiving"]
    assert nxotp.commands["listen"] is module.listen


# ---------------------------------------------------------------------------------------------- into the ledger


class WatchedLedger(Ledger):
    """A ledger that counts its transactions, and may be told to make none."""

    transactions = 0
    is_writable = True

    def transaction(self) -> AbstractContextManager[None]:
        if not self.is_writable:
            raise LedgerError("run.db cannot be written")
        self.transactions += 1
        return super().transaction()


def ledger_of(count: int) -> WatchedLedger:
    """Make run.db of so many messages that are unknown."""
    with Ledger("run.db") as ledger, open_messages(otps(*GOOD[:count])) as file:
        load(ledger, file)
        with ledger.transaction():
            ledger.claim([stored.key for stored in ledger.fresh(count, 0.0, after=0)], 0.0)
    return WatchedLedger("run.db")


READ_A_COPY = """
import shutil, sqlite3, sys
for name in ("run.db", "run.db-wal"):
    shutil.copy(name, "copy-of-" + name)
print(sqlite3.connect("copy-of-run.db").execute("SELECT state, receipt FROM messages").fetchall())
"""


async def test_an_event_is_in_the_file_when_recording_it_returns() -> None:
    with ledger_of(1) as ledger:
        await ReceiptRecorder(ledger).record(StatusEvent("id-0", "delivered"))
        # In another process, because closing a file would give up the locks that this one has on it.
        reading = await asyncio.create_subprocess_exec(
            sys.executable, "-c", READ_A_COPY, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await reading.communicate()
    assert out == b"[('accepted', 'delivered')]\n"


async def test_many_events_at_once_cost_one_commit() -> None:
    with ledger_of(300) as ledger:
        recorder, before = ReceiptRecorder(ledger), ledger.transactions
        statuses = ("sent", "delivered", "sent", "delivered")
        await asyncio.gather(
            *(recorder.record(StatusEvent(f"id-{place}", status)) for status in statuses for place in range(300))
        )
        assert ledger.transactions - before == 1
        assert ledger.receipts() == {"delivered": 300}
        assert ledger.counts() == {MessageState.ACCEPTED: 300}


@pytest.mark.parametrize(
    ("statuses", "receipt"),
    [
        (("sent", "delivered", "read"), "read"),
        (("read", "delivered", "sent"), "read"),
        (("delivered", "failed"), "delivered"),
        (("sent", "failed", "delivered"), "failed"),
        (("failed", "sent"), "failed"),
        (("failed", "deleted"), "failed"),
        (("read", "deleted"), "deleted"),
        (("delivered", "seen by the moon"), "delivered"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
async def test_the_order_of_the_events_does_not_matter_more_than_to_a_tracker(
    statuses: tuple[str, ...], receipt: str, at_once: bool
) -> None:
    with ledger_of(1) as ledger:
        recorder = ReceiptRecorder(ledger)
        events = [StatusEvent("id-0", status) for status in statuses]
        if at_once:
            await asyncio.gather(*map(recorder.record, events))
        else:
            for event in events:
                await recorder.record(event)
        assert ledger.receipts() == {receipt: 1}


async def test_what_became_of_an_unknown_message_does_not_depend_on_how_fast_its_events_come() -> None:
    with ledger_of(2) as ledger:
        recorder = ReceiptRecorder(ledger)
        await asyncio.gather(*(recorder.record(StatusEvent("id-0", status)) for status in ("sent", "failed")))
        for status in ("sent", "failed"):
            await recorder.record(StatusEvent("id-1", status))
        first, second = ({**row, "cus_message_id": "", "message_id": "", "to": ""} for row in ledger.results())
        ignored = ("line", "finished_at")
        assert {name: value for name, value in first.items() if name not in ignored} == {
            name: value for name, value in second.items() if name not in ignored
        }


async def test_what_says_nothing_costs_nothing() -> None:
    with ledger_of(1) as ledger:
        recorder, before = ReceiptRecorder(ledger), ledger.transactions
        for status in ("queued", "seen by the moon", ""):
            await recorder.record(StatusEvent("id-0", status))
        assert ledger.transactions == before
        assert (ledger.receipts(), ledger.counts()) == ({}, {MessageState.UNKNOWN: 1})


async def test_old_news_waits_until_the_news_are_durable() -> None:
    with ledger_of(1) as ledger:
        recorder = ReceiptRecorder(ledger)
        news = asyncio.create_task(recorder.record(StatusEvent("id-0", "read")))
        await asyncio.sleep(0)
        await recorder.record(StatusEvent("id-0", "sent"))
        assert ledger.receipts() == {"read": 1}
        await news


async def test_an_event_of_a_message_that_is_not_in_the_ledger_changes_nothing() -> None:
    with ledger_of(1) as ledger:
        await ReceiptRecorder(ledger).record(StatusEvent("another", "delivered"))
        assert (ledger.receipts(), ledger.counts()) == ({}, {MessageState.UNKNOWN: 1})


async def test_a_ledger_that_cannot_be_written_is_told_to_everybody_and_a_later_event_is_noted() -> None:
    with ledger_of(3) as ledger:
        recorder = ReceiptRecorder(ledger)
        ledger.is_writable = False
        failures = await asyncio.gather(
            *(recorder.record(StatusEvent(f"id-{place}", "sent")) for place in range(3)), return_exceptions=True
        )
        assert [type(failure) for failure in failures] == [LedgerError] * 3
        assert "cannot be written" in str(failures[0])
        ledger.is_writable = True
        assert ledger.receipts() == {}
        for place in range(3):
            await recorder.record(StatusEvent(f"id-{place}", "sent"))
        assert ledger.receipts() == {"sent": 3}


async def test_somebody_who_gives_up_does_not_stop_the_writing() -> None:
    with ledger_of(2) as ledger:
        recorder = ReceiptRecorder(ledger)
        gone = asyncio.create_task(recorder.record(StatusEvent("id-0", "sent")))
        stays = asyncio.create_task(recorder.record(StatusEvent("id-1", "sent")))
        await asyncio.sleep(0)
        gone.cancel()
        await stays
        assert gone.cancelled()
        assert ledger.receipts() == {"sent": 2}


async def test_a_callback_that_could_not_be_noted_is_pushed_again_and_noted_then() -> None:
    with ledger_of(1) as ledger:

        class Recorder(ReceiptRecorder):
            tries = 0

            async def record(self, event: StatusEvent) -> None:
                ledger.is_writable = self.tries > 0
                self.tries += 1
                await super().record(event)

        recorder = Recorder(ledger)
        async with _received(recorder) as webhook, Sandbox(callbacks=DELIVERED_ONLY) as sandbox:
            async with sandbox.client(dr_webhook=webhook) as client:
                await client.send_otp(GOOD[0], CONTENT, cus_message_id="id-0")
            await sandbox.callbacks_settled()
        assert (recorder.tries, ledger.receipts()) == (2, {"delivered": 1})
        assert sandbox.counts["callbacks pushed"] == 2


DELIVERED_ONLY = CallbackPlan(statuses=("delivered",))


@contextlib.asynccontextmanager
async def _received(recorder: ReceiptRecorder) -> Any:
    runner = web.AppRunner(aiohttp_receiver(recorder, SANDBOX_CREDENTIALS), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def test_a_run_that_is_sending_meanwhile_loses_no_outcome_and_no_event() -> None:
    plan = CallbackPlan(statuses=("sent", "delivered"), early=0.5, copies=2, failed=0.1)
    faults = (Fault.disconnect_after_reading(), Fault.answer(9015))
    with Ledger("run.db") as ledger, open_messages(otps(*GOOD[:150])) as file:
        load(ledger, file)
        async with (
            _received(ReceiptRecorder(ledger)) as webhook,
            Sandbox(callbacks=plan, fault_rate=0.2, faults=faults, seed=7) as sandbox,
            sandbox.client(dr_webhook=webhook) as client,
        ):
            report = await Dispatcher(ledger, client).run()
            await sandbox.callbacks_settled()
        assert report.paused is None
        assert sandbox.counts["callbacks taken"] == 4 * sandbox.counts["messages"]
        refused = {request.cus_message_id for request in sandbox.requests if request.code == 9015}
        lost = {request.cus_message_id for request in sandbox.messages if request.fault == "disconnect_after_reading"}
        assert (len(refused) > 2, len(lost) > 2) == (True, True)
        for row in ledger.results():
            name, receipt = row["cus_message_id"], row["receipt"]
            if name in refused:
                assert (row["status"], row["code"], receipt) == ("rejected", 9015, None)
            else:
                assert receipt in ("delivered", "failed")
                assert row["status"] in (
                    {"accepted", "rejected"} if receipt == "failed" and name in lost else ["accepted"]
                )
            assert row["attempts"] == 1
        assert ledger.receipts()["failed"] > 2
