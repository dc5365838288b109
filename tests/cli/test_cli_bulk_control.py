"""``nxotp bulk`` while a run is at work: watched and steered from another terminal."""

import itertools
import json
import os
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bulk_commands import GOOD, STEERING, a_run_that_hangs, bulk, counts_in, counts_of, mode_of, otps, received, write
from commands import CONTENT, DueClock, Env, Start, account_of, finish, posix, read_until

from nxotp_async import Clock
from nxotp_async.sandbox import ReceivedRequest, Sandbox
from nxotp_async.testing import serve_in_thread

pytest_plugins = ["command_fixtures"]
pytestmark = [pytest.mark.usefixtures("own_directory"), posix]

LEDGER = "otps.csv.ledger"
SOCKET = f"{LEDGER}.sock"


@contextmanager
def at_work(start: Start) -> Iterator[tuple["subprocess.Popen[str]", Sandbox]]:
    """A run of eight messages, three of which hang in flight for as long as the others wait."""
    arrived = threading.Event()
    with serve_in_thread(Sandbox(clock=Clock(time=DueClock(3, arrived.set)))) as sandbox:
        yield a_run_that_hangs(start, sandbox, arrived), sandbox


@contextmanager
def going_on(start: Start, *options: str, count: int = 100) -> Iterator[tuple["subprocess.Popen[str]", Sandbox]]:
    """A run that is as slow as it is said to be, and has sent something."""
    arrived = threading.Event()
    requests = itertools.count(1)

    def see(_: ReceivedRequest) -> None:
        if next(requests) == 2:
            arrived.set()

    with serve_in_thread(Sandbox(on_request=see)) as sandbox:
        process = start("bulk", "run", otps(*GOOD[:count]), *options, env=account_of(sandbox))
        assert arrived.wait(30)
        yield process, sandbox


# ---------------------------------------------------------------------------------------------- watching


def test_a_run_at_work_tells_its_status(start: Start) -> None:
    with at_work(start) as (process, _):
        shown = bulk("status", LEDGER)
        assert (shown.exit_code, shown.stderr) == (0, "")
        assert counts_in(shown.stdout)["queued"] == 8
        assert shown.stdout.splitlines()[-1].startswith(f"at work, process {process.pid}: 0/s  accepted 0")

        fields = json.loads(bulk("status", LEDGER, "--json").stdout)
        assert {
            name: fields["run"][name] for name in ("process", "in_flight", "concurrency", "limit", "is_paused")
        } == {
            "process": process.pid,
            "in_flight": 3,
            "concurrency": 3,
            "limit": None,
            "is_paused": False,
        }
        assert (fields["total"], fields["queued"], fields["stopped"]) == (8, 8, False)
        assert process.poll() is None


def test_the_socket_is_its_owners_alone_and_goes_with_the_run(start: Start) -> None:
    before = os.umask(0)
    try:
        with going_on(start, "--rate", "50", count=20) as (process, _):
            assert mode_of(SOCKET) == 0o600
            assert finish(process)[0] == 0
    finally:
        os.umask(before)
    assert not Path(SOCKET).exists()


def test_a_run_is_watched_to_its_end(start: Start) -> None:
    with going_on(start, "--rate", "100") as (process, _):
        watched = bulk("status", LEDGER, "--watch", "--interval", "0.1")
        assert watched.exit_code == 0
        assert "/100 (" in watched.stdout.splitlines()[0]
        assert counts_in(watched.stdout)["accepted"] == 100
        assert finish(process)[0] == 0


def test_watching_as_json_is_a_line_for_each_look(start: Start) -> None:
    with going_on(start, "--rate", "100") as (process, _):
        watched = bulk("status", LEDGER, "--watch", "--interval", "0.1", "--json").stdout
        lines = watched[: watched.index('{\n  "ledger"')].splitlines()
        looks = [json.loads(line) for line in lines]
        assert [look["accepted"] for look in looks] == sorted(look["accepted"] for look in looks)
        assert {look["process"] for look in looks} == {process.pid}
        assert json.loads(watched[watched.index('{\n  "ledger"') :])["accepted"] == 100


@pytest.mark.parametrize("file_format", ["csv", "ndjson"])
def test_what_is_settled_is_exported_while_the_run_goes_on(start: Start, file_format: str) -> None:
    with at_work(start) as (process, sandbox):
        result = bulk("export", LEDGER, "-o", f"results.{file_format}", "--format", file_format)
        assert result.exit_code == 0
        assert result.stderr == (
            f"the rows of a run at work, 8 of them without an outcome yet, written to results.{file_format}\n"
        )
        assert mode_of(f"results.{file_format}") == 0o600
        text = Path(f"results.{file_format}").read_text()
        assert text.count("\n") == 8 + (file_format == "csv")
        assert text.count("sending") == 3
        assert text.count("queued") == 5
        assert CONTENT not in text
        assert bulk("export", LEDGER, "--format", file_format).stdout == text
        assert (len(sandbox.requests), process.poll()) == (3, None)


# ---------------------------------------------------------------------------------------------- steering


def test_a_run_is_paused_and_resumed(start: Start) -> None:
    with going_on(start, "--rate", "200", "--concurrency", "4", count=300) as (process, sandbox):
        paused = bulk("pause", LEDGER)
        assert paused.exit_code == 0
        assert paused.stderr.startswith(f"paused: process {process.pid}, ")
        while (fields := json.loads(bulk("status", LEDGER, "--json").stdout))["run"]["in_flight"]:
            pass
        assert fields["run"]["is_paused"]
        sent = len(sandbox.messages)
        assert 0 < sent < 300
        assert fields["accepted"] == sent
        assert bulk("status", LEDGER).stdout.splitlines()[-1].startswith(f"at work, process {process.pid}: paused  ")
        assert len(sandbox.messages) == sent

        resumed = bulk("resume", LEDGER)
        assert (resumed.exit_code, resumed.stderr[:9]) == (0, "resumed: ")
        assert finish(process)[0] == 0
        assert received(sandbox) == list(GOOD[:300])


def test_resume_is_refused_where_nothing_is_paused_or_with_other_options(start: Start) -> None:
    with at_work(start) as (_, sandbox):
        env = account_of(sandbox)
        in_use = f"nxotp: {LEDGER} is in use by another process (wait until it has ended, or stop it)\n"
        refused = bulk("resume", LEDGER, env=env)
        assert (refused.exit_code, refused.stderr) == (3, in_use)
        assert bulk("pause", LEDGER).exit_code == 0
        refused = bulk("resume", LEDGER, "--rate", "5", env=env)
        assert (refused.exit_code, refused.stderr) == (3, in_use)
        assert json.loads(bulk("status", LEDGER, "--json").stdout)["run"]["is_paused"]


def test_the_rate_and_the_concurrency_are_changed(start: Start) -> None:
    with going_on(start, "--rate", "1", "--concurrency", "4", count=200) as (process, sandbox):
        changed = bulk("set", LEDGER, "--rate", "5.5", "--concurrency", "2", "--json")
        fields = json.loads(changed.stdout)
        assert (changed.exit_code, fields["limit"], fields["concurrency"]) == (0, 5.5, 2)
        changed = bulk("set", LEDGER, "--no-rate")
        assert changed.stderr.startswith("changed: process ")
        assert "limit" not in changed.stderr
        assert finish(process)[0] == 0
        assert received(sandbox) == list(GOOD[:200])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "say what to change: --rate, --no-rate or --concurrency"),
        (("--rate", "5", "--no-rate"), "--rate and --no-rate exclude one another"),
        (("--rate", "0"), "Invalid value for '--rate'"),
        (("--concurrency", "4"), "--concurrency must be at most 3, the client's max_concurrency"),
    ],
)
def test_a_change_that_cannot_be_is_refused(start: Start, options: tuple[str, ...], said: str) -> None:
    with at_work(start):
        refused = bulk("set", LEDGER, *options)
        assert refused.exit_code == 2
        assert said in refused.stderr


def test_a_run_is_stopped_and_at_the_second_time_left(start: Start) -> None:
    with at_work(start) as (process, sandbox):
        stopped = bulk("stop", LEDGER)
        assert stopped.exit_code == 0
        assert stopped.stderr == f"stopping: process {process.pid}, 3 in flight; stopping  accepted 0\n"
        read_until(process.stderr, r"stopping: waiting for 3 in flight")
        assert bulk("stop", LEDGER).exit_code == 0
        assert finish(process)[0] == 130
        assert counts_of() == {"queued": 5, "unknown": 3}
        assert bulk("resume", LEDGER, env=account_of(sandbox)).exit_code == 6
        assert Counter(received(sandbox)) == {"999300000008": 3, **dict.fromkeys(GOOD[:5], 1)}


@pytest.mark.parametrize("command", STEERING)
def test_where_no_run_is_at_work_there_is_nothing_to_steer(live: Sandbox, account: Env, command: str) -> None:
    assert bulk("run", otps(GOOD[0]), env=account).exit_code == 0
    refused = bulk(command, LEDGER, *(("--no-rate",) if command == "set" else ()))
    assert (refused.exit_code, refused.stdout) == (3, "")
    assert refused.stderr == f"nxotp: no run of {LEDGER} is at work (nxotp bulk status {LEDGER})\n"


# ---------------------------------------------------------------------------------------------- sockets


def test_a_socket_that_a_killed_run_left_behind_is_in_nobodys_way(start: Start) -> None:
    with at_work(start) as (process, sandbox):
        process.send_signal(signal.SIGKILL)
        finish(process)
        assert Path(SOCKET).is_socket()
        assert counts_in(bulk("status", LEDGER).stdout)["unknown"] == 3
        assert bulk("export", LEDGER).exit_code == 0
        assert bulk("pause", LEDGER).exit_code == 3
        assert bulk("resume", LEDGER, env=account_of(sandbox)).exit_code == 6
        assert not Path(SOCKET).exists()


def test_a_long_path_is_no_obstacle(start: Start, tmp_path: Path) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    ledger = str(deep / "run.ledger")
    with serve_in_thread(Sandbox()) as sandbox:
        process = start("bulk", "run", otps(*GOOD[:20]), "--ledger", ledger, "--rate", "1", env=account_of(sandbox))
        while bulk("pause", ledger).exit_code:
            assert process.poll() is None
        assert bulk("set", ledger, "--no-rate").exit_code == 0
        assert bulk("resume", ledger).exit_code == 0
        assert finish(process)[0] == 0
    assert [path.name for path in deep.iterdir()] == ["run.ledger"]


def test_a_run_whose_socket_cannot_be_made_says_so_and_goes_on(live: Sandbox, account: Env) -> None:
    Path(SOCKET).mkdir()
    result = bulk("run", otps(*GOOD[:3]), env=account)
    assert result.exit_code == 0
    assert "this run cannot be watched from another terminal: Address already in use\n" in result.stderr
    assert received(live) == list(GOOD[:3])


def test_a_socket_that_never_answers_is_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nxotp_async.cli.bulk.remote._TIMEOUT", 0.01)
    write("x")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(SOCKET)
        silent.listen()
        result = bulk("status", LEDGER)
    assert result.exit_code == 3
    assert result.stderr == f"nxotp: the run of {LEDGER} cannot be asked: it does not answer\n"
