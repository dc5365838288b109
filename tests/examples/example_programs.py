"""The programs in ``examples``, run as their docstrings say."""

import ast
import contextlib
import http.client
import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.cookies import SimpleCookie
from pathlib import Path
from types import ModuleType
from urllib.parse import urlencode, urlsplit

import attrs

from nxotp_async.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
KEY = "the key of the tests and of nothing else"

ACCEPTED = "+999 555 0100"
ACCEPTED_DIGITS = "9995550100"
INVALID = "12"
REFUSED = "999000009003"
LOST = "999300000002"  # accepted, but the answer never comes


def docstring(name: str) -> str:
    return ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))) or ""


def command(name: str) -> str:
    """Return the line of the docstring that runs the program."""
    (line,) = re.findall(r"^    ((?:uvicorn|python) .*)$", docstring(name), re.MULTILINE)
    return str(line)


def arguments(name: str) -> list[str]:
    """Return how to run the program here: on a free port, and with every warning an error."""
    program, *rest = shlex.split(command(name))
    python = [sys.executable, "-X", "dev", "-W", "error"]
    return [*python, "-m", "uvicorn", "--port", "0", *rest] if program == "uvicorn" else [*python, *rest]


def environment(sandbox: Sandbox, **variables: str) -> dict[str, str]:
    keys = dict.fromkeys(["NXOTP_VERIFICATION_KEY", "SESSION_KEY", "DJANGO_SECRET_KEY"], KEY)
    return {**os.environ, **sandbox.environ, **keys, "PORT": "0", "PYTHONUNBUFFERED": "1", **variables}


@attrs.frozen
class Answer:
    status: int
    text: str
    headers: Mapping[str, str]
    cookies: Mapping[str, str]


@attrs.frozen
class Program:
    """A program that serves.

    Attributes:
        url: Where it does.
        process: Its process.
    """

    url: str
    process: "subprocess.Popen[str]"

    def request(self, method: str, path: str, body: str | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            cookies = SimpleCookie(" ; ".join(response.headers.get_all("Set-Cookie", [])))
            values = {name: cookie.value for name, cookie in cookies.items()}
            return Answer(response.status, response.read().decode(), dict(response.getheaders()), values)

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(self, path: str, fields: dict[str, str]) -> Answer:
        content_type = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.request("POST", path, urlencode(fields), **content_type)

    def stop(self) -> tuple[int, str]:
        """Ask it to stop, and return its exit status and what it has printed since it began to serve."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=30)
        return self.process.returncode, output


def running(name: str, sandbox: Sandbox, **variables: str) -> contextlib.AbstractContextManager[Program]:
    """Run a program until it is told to stop, or the block ends."""
    return serving(arguments(name), sandbox, **variables)


@contextlib.contextmanager
def serving(command: list[str], sandbox: Sandbox, **variables: str) -> Iterator[Program]:
    """Run a command that serves until it is told to stop, or the block ends."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(sandbox, **variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            said = ""
            while not (match := re.search(r"(?i)running on (http://[0-9.:]+)", said)):
                line = process.stdout.readline()
                assert line, f"it ended, having said {said!r}"
                said += line
            yield Program(match[1], process)
        finally:
            watchdog.cancel()
            process.kill()


def assert_clean(output: str, sandbox: Sandbox) -> None:
    """Check that a program ended in order, and that nothing it printed is secret."""
    for trouble in ("Traceback", "Warning:", "Unclosed", "never retrieved", "never awaited", "appears unsupported"):
        assert trouble not in output
    for request in sandbox.requests:
        assert request.to not in output
        assert request.otp is not None
        assert request.otp not in output
    assert sandbox.credentials.access_secret not in output


def load(name: str) -> ModuleType:
    """Import a program, as often as asked, into this process."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
