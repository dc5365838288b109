"""``nxotp bench``: runs, their reports, and comparing these."""

import json
import re
from functools import partial
from pathlib import Path

import click
import pytest
from bench_commands import ACCOUNT, NUMBERS, REAL, assert_clean_file, bench, load, write_recipients
from commands import OTP

from nxotp_async import RetryPolicy
from nxotp_async.bench import BenchmarkReport, Plan
from nxotp_async.cli.bench import command as group
from nxotp_async.sandbox import Sandbox, sandbox_client

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")


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


def test_a_closed_loop_prints_its_figures(live: Sandbox) -> None:
    result = load(live, "--count", "40", "--concurrency", "4")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = result.stdout.splitlines()
    heading = f"closed loop, 4 in flight, 40 messages after a warm-up of 0 s against {live.url}, transport wire"
    assert " ".join(" ".join(rows).split()).startswith(heading)
    shown = dict(parts for row in rows if len(parts := re.split(r"\s{2,}", row)) == 2)
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


def test_a_server_that_is_not_there_is_reported_as_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = partial(sandbox_client, retry=RetryPolicy(max_attempts=1))
    monkeypatch.setattr("nxotp_async.cli.bench.target.sandbox_client", impatient)
    result = bench("--base-url", "http://127.0.0.1:1", "--count", "1", "--warm-up", "0")
    assert result.exit_code == 1
    assert re.search(r"^failed with NotSentError +1$", result.stdout, re.MULTILINE)
    assert "nxotp: NotSentError, first error: " in result.stderr
    assert "nxotp: nothing was accepted: try  nxotp doctor\n" in result.stderr


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
