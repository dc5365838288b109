"""Lists of recipients: the made-up one, and files of one's own."""

import re
from collections import Counter
from pathlib import Path

import pytest

from nxotp_async import Category, InputFileError, Language, OtpMessage
from nxotp_async.recipients import default_recipients, read_recipients
from nxotp_async.sandbox import MAGIC_RECIPIENTS

HEADER = "to,content,language_code,category\n"
GOOD_ROW = "+999 555 0100,Your code is 482913,en,UTILITY\n"
MESSAGE = OtpMessage("9995550100", "Your code is 482913", language_code=Language.EN, category=Category.UTILITY)

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


# ---------------------------------------------------------------------------------------------- a file


def test_a_row_becomes_a_message(file: Path) -> None:
    file.write_text(HEADER + GOOD_ROW + "+999 555 0101,482914,,\n", "utf-8")
    assert read_recipients(file) == [MESSAGE, OtpMessage("9995550101", "482914")]


def test_other_columns_are_ignored(file: Path) -> None:
    file.write_text(
        "remark,cus_message_id,dr_webhook," + HEADER + "a friend,order-1,https://example.com/," + GOOD_ROW, "utf-8"
    )
    assert read_recipients(file) == [MESSAGE]


def test_the_name_of_the_file_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "people").write_text(HEADER + GOOD_ROW, "utf-8")
    assert read_recipients(tmp_path / "people") == [MESSAGE]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("0555 0100,482913,en,", "to starts with 0"),
        (",482913,en,", "to is missing"),
        ("+999 555 0100,no code,en,", "content holds no code"),
        ("+999 555 0100", "has 1 cells, not 4"),
        ("+999 555 0100,482913,tlh,", "tlh"),
        ("+999 555 0100,482913,en,MARKETING", "category must be"),
    ],
)
def test_a_bad_row_is_named_by_its_line(file: Path, row: str, problem: str) -> None:
    file.write_text(HEADER + GOOD_ROW + row + "\n" + GOOD_ROW, "utf-8")
    with pytest.raises(InputFileError) as caught:
        read_recipients(file)
    assert str(caught.value).startswith("people.csv, line 3: ")
    assert problem in str(caught.value)
    assert caught.value.line == 3


@pytest.mark.parametrize("row", ["+999 555 0100,482913 or 482914,en,\n", "+999 555 0100 555 0100,482913,en,\n"])
def test_a_bad_row_is_named_without_its_number_and_code(file: Path, row: str) -> None:
    file.write_text(HEADER + row, "utf-8")
    with pytest.raises(InputFileError) as caught:
        read_recipients(file)
    assert not re.search(r"4829|555", str(caught.value))


@pytest.mark.parametrize(
    ("text", "problem"), [("", "is empty"), (HEADER, "holds no recipients"), ("to\n+999 555 0100\n", "content")]
)
def test_a_file_without_recipients_is_refused(file: Path, text: str, problem: str) -> None:
    file.write_text(text, "utf-8")
    with pytest.raises(InputFileError, match=rf"people\.csv.* {problem}"):
        read_recipients(file)


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(InputFileError, match=r"people\.csv cannot be opened: .*No such file"):
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
