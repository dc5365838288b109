import contextlib
import os
import re
import sys
from collections import Counter
from pathlib import Path

import attrs
import pytest

from nxotp_async import ApiError, Category, Language, OtpMessage, ResultCollector, SendResult, SendStatus, Summary
from nxotp_async.demo import DemoError, DemoReport, _problems, default_recipients, read_recipients, run_demo
from nxotp_async.sandbox import MAGIC_RECIPIENTS

HEADER = "to,content,language_code,category\n"
GOOD_ROW = "+999 555 0100,Your code is 482913,en,UTILITY\n"
ORDINARY = "+999 555 0100"
NO_BALANCE = "999000009005"
NO_CODE = "999000009015"

# Numbers that national regulators keep free for films and examples, and a country code that is nobody's.
FICTIONAL = re.compile(
    r"999\d{9}"
    r"|1\d{3}55501\d{2}"  # North America
    r"|447700900\d{3}"  # United Kingdom
    r"|3363998\d{4}"  # France
    r"|49176040690\d{2}"  # Germany
    r"|467017406(0[5-9]|[1-9]\d)"  # Sweden
    r"|3532091\d{5}"  # Ireland
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "people.csv"


# ---------------------------------------------------------------------------------------------- recipients


def test_a_row_becomes_a_message(file: Path) -> None:
    file.write_text(HEADER + GOOD_ROW, "utf-8")
    assert read_recipients(file) == [
        OtpMessage("9995550100", "Your code is 482913", language_code=Language.EN, category=Category.UTILITY)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "content,category,to,language_code\nYour code is 482913,UTILITY,+999 555 0100,en\n",
        "to,content,language_code,category,remark\n+999 555 0100,Your code is 482913,en,UTILITY,a friend\n",
        HEADER + "\n" + GOOD_ROW + "\n\n",
        (HEADER + GOOD_ROW).replace("\n", "\r\n"),
        HEADER + '"+999 555 0100","Your code is 482913","en","UTILITY"',
    ],
    ids=["other order", "a further column", "blank lines", "CRLF", "quoted, without a last newline"],
)
def test_a_csv_file_may_be_written_in_many_ways(file: Path, text: str) -> None:
    file.write_bytes(text.encode())
    assert read_recipients(file) == [
        OtpMessage("9995550100", "Your code is 482913", language_code="en", category="UTILITY")
    ]


def test_a_byte_order_mark_is_skipped(file: Path) -> None:
    file.write_text(HEADER + GOOD_ROW, "utf-8-sig")
    assert [message.to for message in read_recipients(file)] == ["9995550100"]


@pytest.mark.parametrize("text", ["to,content\n+999 555 0100,482913\n", HEADER + "+999 555 0100,482913,,\n"])
def test_language_and_category_may_be_left_out(file: Path, text: str) -> None:
    file.write_text(text, "utf-8")
    assert read_recipients(file) == [OtpMessage("9995550100", "482913")]


def test_a_content_may_have_commas_quotes_and_lines(file: Path) -> None:
    file.write_text('to,content\n+999 555 0100,"Your ""code"", for today:\n482913"\n', "utf-8")
    assert [message.content for message in read_recipients(file)] == ['Your "code", for today:\n482913']


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("content\n482913\n", "to"),
        ("to\n+999 555 0100\n", "content"),
        ("number,text\n+999 555 0100,482913\n", "content and to"),
        (HEADER.replace(",", ";") + GOOD_ROW.replace(",", ";"), "content and to"),
        ("", "content and to"),
    ],
    ids=["to", "content", "both", "semicolons", "empty file"],
)
def test_a_missing_column_is_named(file: Path, text: str, missing: str) -> None:
    file.write_text(text, "utf-8")
    with pytest.raises(DemoError, match=f"people.csv lacks the column {missing} in its first line"):
        read_recipients(file)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("0555 0100,482913,en,", "to starts with 0"),
        (",482913,en,", "to is empty"),
        ("+999 555 0100,no code,en,", "content holds no code"),
        ("+999 555 0100", "content must be a str"),
        ("+999 555 0100,482913,tlh,", "tlh"),
        ("+999 555 0100,482913,en,MARKETING", "category must be"),
    ],
)
def test_a_bad_row_is_named_by_its_line(file: Path, row: str, problem: str) -> None:
    file.write_text(HEADER + GOOD_ROW + row + "\n" + GOOD_ROW, "utf-8")
    with pytest.raises(DemoError) as caught:
        read_recipients(file)
    assert "people.csv, line 3: " in str(caught.value)
    assert problem in str(caught.value)


def test_a_bad_row_is_told_without_its_number_and_code(file: Path) -> None:
    file.write_text(HEADER + "+999 555 0100,482913 or 482914,en,\n+999 555 0100 555 0100,482913,en,\n", "utf-8")
    with pytest.raises(DemoError) as caught:
        read_recipients(file)
    assert not re.search(r"4829|555", str(caught.value))


def test_a_file_of_a_header_only_holds_no_recipients(file: Path) -> None:
    file.write_text(HEADER, "utf-8")
    with pytest.raises(DemoError, match=r"people\.csv holds no recipients"):
        read_recipients(file)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_file_that_is_not_utf_8_is_refused(file: Path, encoding: str) -> None:
    file.write_text(HEADER + GOOD_ROW.replace("Your code is", "Votre code, gardé secret:"), encoding)
    with pytest.raises(DemoError, match=r"people\.csv cannot be read: 'utf-8' codec"):
        read_recipients(file)


def test_a_field_without_end_is_refused(file: Path) -> None:
    file.write_text(HEADER + "+999 555 0100," + "x" * 200_000, "utf-8")
    with pytest.raises(DemoError, match=r"people\.csv cannot be read: field larger"):
        read_recipients(file)


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(DemoError, match=r"people\.csv cannot be read: .*No such file"):
        read_recipients(file)


# ---------------------------------------------------------------------------------------------- the made-up recipients


@pytest.fixture(scope="module")
def made_up() -> list[OtpMessage]:
    return read_recipients(default_recipients())


def test_there_are_five_made_up_recipients_for_every_language(made_up: list[OtpMessage]) -> None:
    assert len(made_up) == 325
    assert Counter(message.language_code for message in made_up) == dict.fromkeys(Language, 5)


def test_no_made_up_number_can_be_anybodys(made_up: list[OtpMessage]) -> None:
    assert [message.to for message in made_up if not FICTIONAL.fullmatch(message.to)] == []


def test_the_made_up_numbers_differ_and_none_is_magic(made_up: list[OtpMessage]) -> None:
    numbers = {message.to for message in made_up}
    assert len(numbers) == len(made_up)
    assert not numbers & MAGIC_RECIPIENTS.keys()


def test_the_made_up_messages_vary(made_up: list[OtpMessage]) -> None:
    assert {message.category for message in made_up} == {None, *Category}
    assert {len(message.code) for message in made_up} >= {4, 6, 8}
    assert any(message.code.startswith("0") for message in made_up)
    assert any(message.content == message.code for message in made_up)


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
    with pytest.raises(DemoError, match="sandbox process did not start"):
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
    assert _problems(collector, count, counted) == problems


def test_a_run_that_took_no_time_has_no_throughput() -> None:
    summary = Summary(total=0, accepted=0, rejected=0, not_sent=0, unknown=0, retried=0, attempts=0)
    report = DemoReport(summary, {}, 0.0, 0.0, 0.0, {}, [])
    assert report.throughput == 0.0
    assert attrs.evolve(report, seconds=1.0).throughput == 0.0
