"""``nxotp demo``."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Start, finish, full_device, invoke, posix, read_until, without_styles
from rich.table import Table

from nxotp_async.cli.output import print_tables

pytest_plugins = ["command_fixtures"]


def test_a_demo_as_json_is_a_report_and_nothing_else(start: Start) -> None:
    exit_code, out, err = finish(start("demo", "--count", "50", "--json"))
    report = json.loads(out)
    assert (exit_code, err) == (0, "")
    summary = report.pop("summary")
    assert summary["total"] == summary["accepted"] + summary["rejected"] == 50
    assert report.keys() == {"failures", "seconds", "p50", "p99", "pairs", "problems", "throughput"}
    assert report["problems"] == []
    assert report["throughput"] == pytest.approx(50 / report["seconds"], abs=0.1)


@pytest.fixture
def people(tmp_path: Path) -> Callable[..., str]:
    def write(*numbers: str) -> str:
        file = tmp_path / "people.csv"
        file.write_text("to,content\n" + "".join(f"{number},482913\n" for number in numbers), "utf-8")
        return str(file)

    return write


def test_a_demo_prints_a_report(people: Callable[..., str]) -> None:
    recipients = people("+999 555 0100", "999000009005")
    result = invoke("demo", "--count", "5", "--fault-rate", "0", "--recipients", recipients)
    figures = dict(re.findall(r"│ (\S.*?) +│ +(\S+)", result.stdout))
    assert result.exit_code == 0
    assert "5 OTPs in" in result.stdout
    assert {name: re.fullmatch(r"\d+\.\d{4}", figures[f"latency {name}"]) is None for name in ("p50", "p99")} == {
        "p50": False,
        "p99": False,
    }
    assert {name: figures[name] for name in ("accepted", "rejected", "requests made", "failed with 9005")} == {
        "accepted": "3",
        "rejected": "2",
        "requests made": "5",
        "failed with 9005": "2",
    }
    assert len(re.findall(r"│ [0-9a-f]{32} │ wamid\.\S+ │", result.stdout)) == 3


@pytest.mark.parametrize("is_installed", [True, False], ids=["installed", "under make"])
def test_a_demo_ends_with_what_was_on_purpose_and_what_to_try_next(
    is_installed: bool, people: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}" if is_installed else "")
    result = invoke("demo", "--count", "50", "--recipients", people("+999 555 0100"))
    assert result.stderr.startswith("10% of the sandbox's answers were faults on purpose")
    commands = [line.split("  #")[0] for line in result.stderr.splitlines() if line.startswith("  ")]
    assert len(commands) == 3
    assert all(command.startswith("  nxotp ") is is_installed for command in commands)
    for command in commands:  # --help runs none of them, but refuses what is no command and no option
        subprocess.run(f"{command} --help", shell=True, check=True, capture_output=True, timeout=60)


def test_a_demo_is_not_slowed_by_the_settings_of_a_real_account(people: Callable[..., str]) -> None:
    real = {"NXOTP_PROXY": "http://127.0.0.1:1", "NXOTP_DEADLINE": "0.001", "NXOTP_RATE_LIMIT": "1"}
    arguments = ("--count", "5", "--fault-rate", "0", "--json", "--recipients", people("+999 555 0100"))
    result = invoke("demo", *arguments, env=real)
    assert json.loads(result.stdout)["summary"]["accepted"] == 5


def test_a_narrow_terminal_cuts_nothing_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    one, another = "a1" * 16, "b2" * 20
    table = Table("first", "second", box=None)
    table.add_row(one, another)
    assert print_tables(table)
    shown = capsys.readouterr().out
    assert all(len(line) <= 40 for line in without_styles(shown).splitlines())
    assert (shown.count("a1"), "\u2026" in shown) == (16, False)


def test_a_demo_without_faults_says_so(people: Callable[..., str]) -> None:
    result = invoke("demo", "--count", "1", "--fault-rate", "0", "--recipients", people("+999 555 0100"))
    assert result.stderr.startswith("0% of the sandbox's answers")


def test_a_demo_with_a_problem_fails(people: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nxotp_async.demo.find_problems", lambda *_: ["1 messages have no outcome"])
    result = invoke("demo", "--count", "1", "--fault-rate", "0", "--json", "--recipients", people("+999 555 0100"))
    assert result.exit_code == 1
    assert json.loads(result.stdout)["problems"] == ["1 messages have no outcome"]
    assert result.stderr == "nxotp: 1 messages have no outcome\n"


def test_a_demo_whose_answer_is_lost_is_no_problem(people: Callable[..., str]) -> None:
    # The sandbox counts the message, and its outcome is truthfully unknown.
    result = invoke("demo", "--count", "1", "--fault-rate", "0", "--json", "--recipients", people("999300000002"))
    assert result.exit_code == 0
    assert json.loads(result.stdout)["summary"]["unknown"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--count", "0"),
        ("--count", "1000001"),
        ("--count", "many"),
        ("--concurrency", "0"),
        ("--fault-rate", "-0.1"),
        ("--fault-rate", "1.1"),
        ("--fault-rate", "nan"),
        ("--seed", "x"),
        ("--recipients", "no-such-file.csv"),
        ("--recipients", "."),
        ("extra",),
    ],
    ids=" ".join,
)
def test_a_demo_refuses_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = invoke("demo", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: nxotp demo ")


@full_device
def test_a_demo_whose_report_cannot_be_printed_says_so(start: Start) -> None:
    with Path("/dev/full").open("w") as full:
        code, _, err = finish(start("demo", "--count", "1", stdout=full))
    assert (code, err) == (0, "nxotp: cannot write to standard output: No space left on device\n")


def test_a_demo_with_bad_recipients_names_the_line(people: Callable[..., str]) -> None:
    result = invoke("demo", "--recipients", people("+999 555 0100", "0555 0100"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Invalid value for '--recipients': people.csv, line 3: to starts with 0" in result.stderr


@posix
def test_a_demo_whose_sandbox_does_not_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    result = invoke("demo", "--count", "1")
    assert (result.exit_code != 0, result.stdout) == (True, "")
    assert re.fullmatch("nxotp: the sandbox process did not start.*\n", result.stderr)


def a_demo_at_work(start: Start) -> "subprocess.Popen[str]":
    """Start a long demo, and return when it has had answers. Its progress is shown as at a terminal."""
    process = start("demo", "--count", "1000000", "--fault-rate", "0", env={"FORCE_COLOR": "1", "COLUMNS": "100"})
    read_until(process.stderr, "accepted [1-9]")
    return process


@posix
@pytest.mark.parametrize("interrupt", [os.kill, os.killpg], ids=["itself", "its group, as a terminal does"])
def test_ctrl_c_ends_a_demo_and_its_sandbox(start: Start, interrupt: Callable[[int, int], None]) -> None:
    process = a_demo_at_work(start)
    interrupt(process.pid, signal.SIGINT)
    exit_code, out, err = finish(process)
    assert (exit_code, out) == (130, "")
    assert "nxotp: interrupted" in err
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):  # its group is empty
        os.killpg(process.pid, 0)


@posix
def test_a_demo_that_is_killed_takes_its_sandbox_along(start: Start) -> None:
    process = a_demo_at_work(start)
    process.kill()
    # The sandbox has the same stderr, which ends when the last of the two has.
    exit_code, _, err = finish(process)
    assert exit_code == -signal.SIGKILL
    assert "Traceback" not in err
