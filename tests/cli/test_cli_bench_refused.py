"""``nxotp bench``: what is refused before anything starts, and what fails at the end."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from bench_commands import ACCOUNT, NUMBERS, bench, load
from commands import OTP, full_device

from nxotp_async.sandbox import Sandbox

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")


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
        (("--base-url", "http://127.0.0.1/a b"), "--base-url must be a plain URL"),
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
