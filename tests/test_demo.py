import contextlib
import os
import sys
from pathlib import Path

import attrs
import pytest

from nxotp_async import (
    ApiError,
    OtpMessage,
    ResultCollector,
    SendResult,
    SendStatus,
    Summary,
)
from nxotp_async.demo import DemoReport, find_problems, run_demo
from nxotp_async.recipients import default_recipients, read_recipients

ORDINARY = "+999 555 0100"
NO_BALANCE = "999000009005"
NO_CODE = "999000009015"


@pytest.fixture(scope="module")
def made_up() -> list[OtpMessage]:
    return read_recipients(default_recipients())


# ---------------------------------------------------------------------------------------------- the run


async def run(
    recipients: list[OtpMessage], count: int, *, fault_rate: float = 0.0
) -> tuple[DemoReport, list[SendResult]]:
    results: list[SendResult] = []
    report = await run_demo(
        recipients, count=count, concurrency=32, fault_rate=fault_rate, seed=1, on_result=results.append
    )
    return report, results


async def test_every_message_of_a_run_has_an_outcome(made_up: list[OtpMessage]) -> None:
    report, results = await run(made_up, 400, fault_rate=0.05)
    summary = report.summary
    assert report.problems == []
    assert summary.total == summary.accepted + summary.rejected == len(results) == 400
    assert sum(report.failures.values()) == summary.rejected < 10
    assert summary.retried == sum(result.attempts > 1 for result in results) > 0
    assert summary.attempts == sum(result.attempts for result in results) > 400
    assert {result.message.to for result in results} == {message.to for message in made_up}


async def test_the_figures_of_a_report_agree(made_up: list[OtpMessage]) -> None:
    report, results = await run(made_up, 50)
    assert len(results) == 50
    assert 0 < report.p50 <= report.p99 <= report.seconds
    assert report.p50 in {result.elapsed for result in results}
    assert report.throughput == 50 / report.seconds
    pairs = {result.message.cus_message_id: result.message_id for result in results}
    assert len(report.pairs) == 3
    assert report.pairs.items() <= pairs.items()
    # The sandbox makes ids up, so that pairing them is not comparing a thing with itself.
    assert not report.pairs.keys() & set(report.pairs.values())


async def test_failures_are_counted_by_their_reason() -> None:
    recipients = [OtpMessage(number, "482913") for number in (ORDINARY, NO_BALANCE, NO_CODE, NO_BALANCE)]
    report, _ = await run(recipients, 10)
    assert report.summary == Summary(total=10, accepted=3, rejected=7, not_sent=0, unknown=0, retried=0, attempts=10)
    assert report.failures == {"9005": 5, "9015": 2}
    assert list(report.failures) == ["9005", "9015"]
    assert report.problems == []


async def test_a_run_of_one_message_has_a_report() -> None:
    report, (result,) = await run([OtpMessage(ORDINARY, "482913")], 1)
    assert report.summary.total == 1
    assert report.p50 == report.p99 == result.elapsed
    assert report.pairs == {result.message.cus_message_id: result.message_id}


async def test_a_run_does_not_use_the_developers_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NXOTP_ACCESS_KEY", "a-real-key")
    monkeypatch.setenv("NXOTP_BASE_URL", "https://example.invalid")
    monkeypatch.setenv("NXOTP_BUSINESS_PHONE", "99955500099")
    report, (result,) = await run([OtpMessage(ORDINARY, "482913")], 1)
    assert report.failures == {}
    assert result.message.business_phone != "99955500099"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
async def test_an_error_of_the_callers_ends_the_run_and_the_sandbox(made_up: list[OtpMessage]) -> None:
    before, during = children(), set()

    def fail(_: SendResult) -> None:
        during.update(children())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run_demo(made_up, count=50, concurrency=8, fault_rate=0.0, seed=1, on_result=fail)
    assert len(during - before) == 1
    assert children() == before


def children() -> set[str]:
    """The ids of the processes this one has started."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            _, _, after_name = stat.read_text().rpartition(") ")
            if after_name.split()[1] == str(os.getpid()):
                found.add(stat.parent.name)
    return found


@pytest.mark.parametrize("program", ["#!/bin/sh\nexit 1\n", None], ids=["fails", "is not there"])
async def test_a_sandbox_that_does_not_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None
) -> None:
    python = tmp_path / "python"
    if program:
        python.write_text(program)
        python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ChildProcessError, match="sandbox process did not start"):
        await run([OtpMessage(ORDINARY, "482913")], 1)


# ---------------------------------------------------------------------------------------------- problems


def accepted(cus_message_id: str, message_id: str) -> SendResult:
    message = OtpMessage(ORDINARY, "482913", cus_message_id=cus_message_id)
    return SendResult(message, SendStatus.ACCEPTED, message_id, 1)


def rejected(cus_message_id: str) -> SendResult:
    message = OtpMessage(ORDINARY, "482913", cus_message_id=cus_message_id)
    return SendResult(message, SendStatus.REJECTED, None, 1, error=ApiError(code=9007))


@pytest.mark.parametrize(
    ("results", "count", "counted", "problems"),
    [
        ([accepted("a", "1"), accepted("b", "2"), rejected("c")], 3, 2, []),
        ([], 0, 0, []),
        ([accepted("a", "1")], 3, 1, ["2 messages have no outcome"]),
        ([accepted("a", "1"), accepted("b", "1")], 2, 2, ["1 accepted messages are not paired"]),
        ([accepted("a", "1"), accepted("a", "2")], 2, 2, ["1 accepted messages are not paired"]),
        ([accepted("a", "1")], 1, 0, ["1 were reported as accepted, but the sandbox accepted 0"]),
        ([rejected("a")], 1, 1, ["0 were reported as accepted, but the sandbox accepted 1"]),
        (
            [accepted("a", "1"), accepted("b", "1")],
            3,
            3,
            [
                "1 messages have no outcome",
                "1 accepted messages are not paired",
                "2 were reported as accepted, but the sandbox accepted 3",
            ],
        ),
    ],
    ids=["none", "nothing sent", "lost", "one id for two", "two ids for one", "made up", "kept quiet", "all of them"],
)
def test_what_is_wrong_with_a_run_is_reported(
    results: list[SendResult], count: int, counted: int, problems: list[str]
) -> None:
    collector = ResultCollector()
    for result in results:
        collector.add(result)
    assert find_problems(collector, count, counted) == problems


def test_a_run_that_took_no_time_has_no_throughput() -> None:
    summary = Summary(total=0, accepted=0, rejected=0, not_sent=0, unknown=0, retried=0, attempts=0)
    report = DemoReport(summary, {}, 0.0, 0.0, 0.0, {}, [])
    assert report.throughput == 0.0
    assert attrs.evolve(report, seconds=1.0).throughput == 0.0
