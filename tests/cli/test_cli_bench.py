"""``nxotp bench``: runs, signals, comparisons, and what is refused."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from bench_commands import ACCOUNT, NUMBERS, REAL, assert_clean_file, bench, load, write_recipients
from commands import (
    OTP,
    Start,
    assert_clean,
    full_device,
    posix,
)

from nxotp_async import Clock
from nxotp_async.bench import BenchmarkReport, Plan
from nxotp_async.cli.bench import command as group
from nxotp_async.sandbox import (
    Sandbox,
)
from nxotp_async.testing import serve_in_thread

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")


# ---------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", [(), ("compare",)])
def test_help_is_to_be_had_everywhere(command: tuple[str, ...]) -> None:
    result = bench(*command, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: {' '.join(('nxotp', 'bench', *command))} ")


def test_every_option_explains_itself() -> None:
    for command in (group, *group.commands.values()):
        assert command.help
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


# ---------------------------------------------------------------------------------------------- a run


def test_a_closed_loop_prints_its_figures(live: Sandbox) -> None:
    result = load(live, "--count", "40", "--concurrency", "4")
    assert (result.exit_code, result.stderr) == (0, "")
    heading, *rows = result.stdout.splitlines()
    assert heading == f"closed loop, 4 in flight, 40 messages after a warm-up of 0 s against {live.url}"
    shown = dict(re.split(r"\s{2,}", row) for row in rows)
    assert (shown["completed"], shown["accepted"], shown["unknown"]) == ("40", "40", "0")
    assert shown["throughput"].endswith(" messages/s")
    assert shown["latency p99.9"].endswith(" ms")
    assert live.counts["messages"] == 40
    assert live.max_in_flight <= 4


def test_an_open_loop_writes_both_files_and_prints_its_arrivals(live: Sandbox) -> None:
    result = load(live, "--count", "20", "--rate", "1000", "--json", "a.json", "--html", "a.html")
    assert result.exit_code == 0
    assert re.search(r"^arrivals dropped +0$", result.stdout, re.MULTILINE)
    report = BenchmarkReport.from_json(Path("a.json").read_bytes())
    assert (report.accepted, report.interrupted, report.concurrency) == (20, False, 64)
    assert report.plan == Plan(rate=1000, count=20, warm_up=0)
    assert "open loop, 1,000 arrivals a second" in assert_clean_file("a.html")
    assert_clean_file("a.json")


def test_the_warm_up_and_the_duration_are_those_asked_for(live: Sandbox) -> None:
    result = bench("--base-url", live.url, "--warm-up", "0.1", "--duration", "0.2", "--rate", "100", "--json", "-")
    report = BenchmarkReport.from_json(result.stdout_bytes)
    assert report.accepted == 20
    assert live.counts["messages"] == 30
    assert (report.plan.warm_up, report.plan.duration, report.plan.count) == (0.1, 0.2, None)


def test_json_on_standard_output_takes_the_tables_place(live: Sandbox) -> None:
    result = load(live, "--count", "5", "--json", "-")
    assert json.loads(result.stdout)["accepted"] == 5


def test_the_sandbox_of_its_own_gets_its_options() -> None:
    result = bench(
        *("--count", "20", "--warm-up", "0", "--fault-rate", "1", "--seed", "-3", "--latency", "0.02"),
        *("--json", "a.json"),
        env={"NXOTP_DEADLINE": "0.001", "NXOTP_BASE_URL": REAL},
    )
    report = BenchmarkReport.from_json(Path("a.json").read_bytes())
    assert report.target == "sandbox (fault rate 1.0, latency 0.02, seed -3)"
    assert report.failures.keys() <= {"-1", "9001"}
    assert (report.completed, report.rejected) == (20, 20)
    assert report.latency is not None
    assert report.latency.p50 >= 20
    assert result.exit_code == 1  # no message was accepted
    assert "nxotp: 20 of 20 messages were not accepted" in result.stderr


def test_loopback_gets_nothing_of_a_real_account_and_its_settings_are_not_measured(live: Sandbox) -> None:
    env = {**ACCOUNT, "NXOTP_RATE_LIMIT": "0.001", "NXOTP_PROXY": "http://127.0.0.1:1", "NXOTP_TIMEOUT": "0.0001"}
    result = load(live, "--count", "10", env=env)
    assert result.exit_code == 0
    assert live.counts["messages"] == 10
    assert not any(
        ACCOUNT["NXOTP_ACCESS_SECRET"] in str(request.headers) + request.body.decode() for request in live.requests
    )


def test_recipients_of_ones_own_are_sent_to_and_shown_nowhere(live: Sandbox) -> None:
    files = ("--json", "a.json", "--html", "a.html")
    result = load(live, "--count", "5", "--recipients", write_recipients(), *files)
    assert result.exit_code == 0
    assert [message.to for message in live.messages].count(NUMBERS[0]) == 3
    assert {message.otp for message in live.messages} == {OTP}
    for file in ("a.json", "a.html"):
        assert_clean_file(file)


def test_dropped_arrivals_are_told_loudly(live: Sandbox) -> None:
    result = load(live, "--count", "50", "--rate", "100000", "--max-pending", "1")
    assert result.exit_code == 0
    due, dropped = (
        int(re.search(rf"^arrivals {which} +(\d+)$", result.stdout, re.MULTILINE)[1])  # type: ignore[index] # it stands there
        for which in ("due", "dropped")
    )
    assert due == 50
    assert dropped > 0
    assert f"nxotp: {dropped} of 50 arrivals were dropped, because 1 were pending" in result.stderr


def test_a_server_that_is_not_there_is_reported_as_not_sent() -> None:
    result = bench("--base-url", "http://127.0.0.1:1", "--count", "1", "--warm-up", "0")
    assert result.exit_code == 1
    assert re.search(r"^failed with NotSentError +1$", result.stdout, re.MULTILINE)
    assert "nxotp: NotSentError, first error: " in result.stderr
    assert "nxotp: nothing was accepted: try  nxotp doctor\n" in result.stderr


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--count", "5", "--duration", "5"), "--count and --duration cannot be used together"),
        (("--count", "0"), "'--count'"),
        (("--duration", "0"), "'--duration'"),
        (("--duration", "nan"), "'--duration': nan is not a finite number"),
        (("--rate", "0"), "'--rate'"),
        (("--rate", "nan"), "'--rate': nan is not a finite number"),
        (("--rate", "fast"), "'--rate'"),
        (("--concurrency", "0"), "'--concurrency'"),
        (("--warm-up", "-1"), "'--warm-up'"),
        (("--warm-up", "nan"), "'--warm-up': nan is not a finite number"),
        (("--count", "1" * 20), "'--count'"),
        (("--max-pending", "0"), "'--max-pending'"),
        (("--max-pending", "5"), "--max-pending requires --rate"),
        (("--fault-rate", "2"), "'--fault-rate'"),
        (("--fault-rate", "nan"), "'--fault-rate': nan is not a finite number"),
        (("--latency", "nan"), "'--latency': nan is not a finite number"),
        (("--latency", "inf"), "'--latency'"),
        (("--html", "-"), "--html requires the name of a file"),
        (("--json", "x", "--html", "./x"), "--json and --html name the same file"),
        (("--json", "no/such/a.json"), "--json: no/such/a.json cannot be written: No such file or directory"),
        (("--json", "."), "--json: . cannot be written: Is a directory"),
        (("--json", "x" * 300), "cannot be written: File name too long"),
        (("--html", "no/such/a.html"), "--html: no/such/a.html cannot be written: No such file or directory"),
        (("--recipients", "nobody.csv"), "'--recipients': nobody.csv cannot be opened"),
        (("--base-url", "nonsense"), "--base-url must be a plain URL"),
        (("--base-url", ""), "--base-url must be a plain URL"),
        (("--base-url", "http://[::1"), "--base-url must be a plain URL"),
        (("--base-url", f"http://me:{ACCOUNT['NXOTP_ACCESS_SECRET']}@127.0.0.1"), "http://127.0.0.1:8099 for example"),
        (
            ("--base-url", f"http://127.0.0.1/?key={ACCOUNT['NXOTP_ACCESS_SECRET']}"),
            "http://127.0.0.1:8099 for example",
        ),
        (("--base-url", "ftp://127.0.0.1"), "--base-url must be a plain URL"),
        (("--base-url", "http://127.0.0.1/a b"), "--base-url must be a plain https URL"),
        (
            ("--base-url", "http://127.0.0.1", "--latency", "1"),
            "--latency is an option of the sandbox, which --base-url replaces",
        ),
        (("--base-url", "http://127.0.0.1", "--fault-rate", "0"), "--fault-rate is an option of the sandbox"),
        (("--yes-send-real-messages",), "requires a --base-url that is not loopback"),
        (("--base-url", "http://[::1]:80", "--yes-send-real-messages"), "not loopback, unlike ::1"),
        (("--rate", "5", "compare", "a", "b"), "--rate: not an option of compare"),
        (("--json", "a.json", "compare", "a", "b"), "--json: not an option of compare"),
        (("--nonsense",), "No such option"),
        (("compare", "a"), "Missing argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], problem: str
) -> None:
    monkeypatch.setattr("nxotp_async.cli.bench.run.run", None)
    Path("a").touch()
    Path("b").touch()
    result = bench(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert problem in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["a", "b"]


def test_checking_a_file_leaves_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nxotp_async.cli.bench.run.run", None)
    Path("a.json").write_text("an earlier run", encoding="utf-8")
    assert bench("--json", "a.json", "--base-url", "nonsense").exit_code == 2
    assert Path("a.json").read_text(encoding="utf-8") == "an earlier run"


@full_device
def test_a_file_that_fails_in_the_end_is_named(live: Sandbox) -> None:
    result = load(live, "--count", "5", "--json", "/dev/full")
    assert result.exit_code == 3
    assert "nxotp: /dev/full cannot be written: No space left on device" in result.stderr
    assert "accepted" in result.stdout


@full_device
@pytest.mark.parametrize("arguments", [("--json", "-"), ("--html", "a.html")], ids=" ".join)
def test_a_standard_output_that_is_full_fails_the_run(live: Sandbox, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "nxotp_async", "bench", "--base-url", live.url, "--warm-up", "0", "--count", "5"]
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run([*command, *arguments], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60)
    assert process.returncode == 3
    assert b"cannot write to standard output: No space left on device" in process.stderr
    assert Path("a.html").exists() is ("a.html" in arguments)


def test_recipients_that_are_no_messages_are_refused() -> None:
    Path("people.csv").write_text(f"to,content\n{NUMBERS[0]},{OTP}9\n", encoding="utf-8")
    result = bench("--recipients", "people.csv")
    assert result.exit_code == 2
    assert "'--recipients': people.csv, line 2: content holds a run of more than 8 digits" in result.stderr


@pytest.mark.parametrize(("module", "name"), [("hdrh", "hdrhistogram"), ("matplotlib", "matplotlib")])
def test_without_the_extra_it_says_what_to_install(module: str, name: str) -> None:
    program = (
        f"import sys, importlib.util; sys.modules[{module!r}] = None\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name: None if name == {module!r} else find(name)\n"
        "from nxotp_async.__main__ import main; main()"
    )
    arguments = ["bench", "--count", "1", "--html", "a.html"]
    process = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert (process.returncode, process.stdout) == (3, "")
    assert re.fullmatch(rf"nxotp: {name} is not installed: .* pip install 'nxotp_async\[bench\]'\n", process.stderr)
    assert not Path("a.html").exists()


def test_another_missing_module_is_not_taken_for_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise ModuleNotFoundError("No module named 'nonsense'", name="nonsense")

    monkeypatch.setattr("nxotp_async.cli.bench.run.run_bench", fail)
    with pytest.raises(ModuleNotFoundError, match="nonsense"):
        bench("--count", "1")


def test_no_warning_is_shown() -> None:
    """Where Python shows each of them, too."""
    command = [sys.executable, "-W", "always", "-m", "nxotp_async", "bench", "--count", "1", "--html", "a.html"]
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "Warning" not in process.stdout + process.stderr
    assert Path("a.html").exists()


def test_a_sandbox_that_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    result = bench("--count", "1")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "nxotp: the sandbox process did not start" in result.stderr


def test_the_command_line_loads_nothing_of_the_benchmark_before_it_is_used() -> None:
    probe = "import sys, nxotp_async.cli; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    assert not {"hdrh", "matplotlib", "nxotp_async.bench"} & set(loaded)


# ---------------------------------------------------------------------------------------------- comparing


def write_report(name: str, sandbox: Sandbox, *arguments: str) -> None:
    assert load(sandbox, "--count", "10", "--json", name, *arguments).exit_code == 0


def test_two_runs_are_compared_and_what_differs_is_said(live: Sandbox) -> None:
    write_report("a.json", live)
    write_report("b.json", live, "--concurrency", "2")
    result = bench("compare", "a.json", "b.json")
    assert result.exit_code == 0
    heading, *rows = result.stdout.splitlines()
    assert heading.split() == ["first", "second", "change"]
    assert re.fullmatch(r"latency p50 +[\d.,]+ ms +[\d.,]+ ms +([+-][\d.]+ %|x [\d.,]+)", rows[0])
    assert [re.split(r"\s{2,}", row)[1:] for row in rows if row.startswith("accepted ")] == [["10", "10", "+0.0 %"]]
    assert result.stderr == "nxotp: different conditions: concurrency: 64 in the first, 2 in the second\n"
    assert bench("compare", "a.json", "a.json").stderr == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "other.json cannot be read: it is not JSON"),
        ('{"schema": 99}', "other.json cannot be read: it is of version 99"),
        ('{"schema": 1}', "other.json cannot be read: required field missing"),
    ],
)
def test_what_is_no_report_is_not_compared(live: Sandbox, text: str, problem: str) -> None:
    write_report("a.json", live)
    Path("other.json").write_text(text, encoding="utf-8")
    for order in (("a.json", "other.json"), ("other.json", "a.json")):
        result = bench("compare", *order)
        assert (result.exit_code, result.stdout) == (2, "")
        assert problem in result.stderr


# ---------------------------------------------------------------------------------------------- being interrupted


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
