"""``nxotp bench``: being interrupted."""

import contextlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import Start, assert_clean, posix

from nxotp_async import Clock
from nxotp_async.bench import BenchmarkReport
from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import serve_in_thread

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")


@posix
@pytest.mark.parametrize(("name", "load"), [("SIGINT", ("--rate", "200")), ("SIGTERM", ("--concurrency", "4"))])
def test_a_signal_ends_the_run_and_reports_it(start: Start, name: str, load: tuple[str, ...]) -> None:
    processes: list[subprocess.Popen[str]] = []
    requests = 0

    def due() -> float:
        nonlocal requests
        requests += 1
        if requests == 60:
            processes[0].send_signal(signal.Signals[name])
        return time.time()

    with serve_in_thread(Sandbox(clock=Clock(time=due))) as sandbox:
        files = ("--json", "a.json", "--html", "a.html")
        processes.append(
            start("bench", "--base-url", sandbox.url, "--warm-up", "0", "--duration", "3600", *load, *files)
        )
        out, err = processes[0].communicate(timeout=60)
    assert processes[0].returncode == 130
    report = BenchmarkReport.from_json(Path("a.json").read_bytes())
    assert report.interrupted
    assert 0 < report.completed <= sandbox.counts["messages"]
    assert re.search(rf"^completed +{report.completed:,}$", out, re.MULTILINE)
    assert re.match(r"nxotp: interrupted after \d+\.\d s; \d+ messages in flight are not counted\n", err)
    assert "interrupted after" in Path("a.html").read_text(encoding="utf-8")
    for text in (out, err):
        assert "Traceback" not in text
        assert_clean(text)


@posix
def test_a_signal_in_the_warm_up_says_that_nothing_was_measured(start: Start) -> None:
    processes: list[subprocess.Popen[str]] = []
    requests = 0

    def due() -> float:
        nonlocal requests
        requests += 1
        if requests == 20:
            processes[0].send_signal(signal.SIGINT)
        return time.time()

    with serve_in_thread(Sandbox(clock=Clock(time=due))) as sandbox:
        processes.append(
            start("bench", "--base-url", sandbox.url, "--warm-up", "3600", "--rate", "100", "--json", "a.json")
        )
        out, err = processes[0].communicate(timeout=60)
    assert (processes[0].returncode, out) == (130, "")
    assert err == "nxotp: interrupted in the warm-up: nothing was measured\n"
    report = BenchmarkReport.from_json(Path("a.json").read_bytes())
    assert (report.interrupted, report.seconds, report.drain_seconds) == (True, 0.0, 0.0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_signal_leaves_no_sandbox_behind(start: Start) -> None:
    process = start("bench", "--duration", "3600")
    while not (sandboxes := children(process.pid)):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert not any(Path("/proc", pid).exists() for pid in sandboxes)


def children(parent: int) -> set[str]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            _, _, after_name = stat.read_text().rpartition(") ")
            if after_name.split()[1] == str(parent):
                found.add(stat.parent.name)
    return found
