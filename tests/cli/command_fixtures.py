"""The fixtures of the command's tests; a test file has them by ``pytest_plugins``."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from commands import KEYS, Env, Start, account_of, end_group

from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import serve_in_thread


@pytest.fixture
def live() -> Iterator[Sandbox]:
    """A sandbox beside the test, for commands that run a loop of their own."""
    with serve_in_thread(Sandbox()) as sandbox:
        yield sandbox


@pytest.fixture
def account(live: Sandbox) -> dict[str, str]:
    """The variables that lead to the live sandbox."""
    return account_of(live)


@pytest.fixture
def short_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run in this process find out at once whether a refusal lasts."""
    monkeypatch.setattr("nxotp_async.bulk.flow._SHORTEST_HOLD", 0.001)
    monkeypatch.setattr("nxotp_async.bulk.flow._LONGEST_BACKOFF", 0.001)


@pytest.fixture
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command as a process of its own, in a process group of its own, and leave none of it behind."""
    with contextlib.ExitStack() as stack:
        # A shell has its background jobs ignore Ctrl-C, nohup has them ignore SIGHUP, and so would what they start.
        for number in (signal.SIGINT, signal.SIGHUP):
            stack.callback(signal.signal, number, signal.signal(number, signal.default_int_handler))

        def start(
            *arguments: str,
            env: Env | None = None,
            stdin: int = subprocess.DEVNULL,
            stdout: int | IO[Any] = subprocess.PIPE,
            program: tuple[str, ...] = ("-m", "nxotp_async"),
        ) -> Any:
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *program, *arguments],
                    env={**environment, "TZ": "UTC", **(env or {})},
                    stdin=stdin,
                    stdout=stdout,
                    stderr=subprocess.PIPE,
                    encoding="utf-8",
                    errors="replace",
                    start_new_session=True,
                )
            )
            watchdog = threading.Timer(60, end_group, [process.pid])
            watchdog.start()
            stack.callback(watchdog.cancel)
            stack.callback(end_group, process.pid)
            return process

        yield start


@pytest.fixture
def listen(start: Start) -> Start:
    """Start ``nxotp listen`` with these options."""

    def listen(*options: str, env: Env = KEYS, **how: Any) -> Any:
        return start("listen", "--port", "0", *options, env=env, **how)

    return listen
