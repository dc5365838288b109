import errno
import gzip
import io
import os
import stat
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import orjson
import pytest
from bulk_inputs import (
    CELLS,
    COMPRESSED,
    COMPUTED,
    CSV,
    DAMAGED,
    EXAMPLE,
    GOES_ON,
    GOOD,
    GOOD_JSON,
    HEADER,
    JSON_EXAMPLE,
    LINE_FEED,
    MESSAGE,
    NDJSON,
    NO_COLUMNS,
    NO_END,
    NO_OBJECT,
    SHORT_NUMBER,
    TOO_LONG,
    TWO_ROWS,
    UTF8,
    UTF16,
    WRITE_NUMBERS,
    assert_empty,
    claimable,
    message_of,
    only_row,
    refusal,
    rows_of,
    take,
    take_bytes,
    take_with_rejects,
)

from nxotp_async import InputFileError
from nxotp_async.bulk import (
    FileFormat,
    Ledger,
    Loaded,
    load,
    open_messages,
    read_messages,
)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(None) as ledger:
        yield ledger


# ---------------------------------------------------------------------------------------------- refused as a whole


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("xl/worksheets/sheet1.xml", "<worksheet/>")
    return buffer.getvalue()


def pretty(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


WRONG_CRC = COMPRESSED[:-8] + bytes(byte ^ 0xFF for byte in COMPRESSED[-8:-4]) + COMPRESSED[-4:]
WRONG_SIZE = COMPRESSED[:-4] + b"\1\0\0\0"

_Data = bytes | Callable[[], bytes]

# Name: the file's name, its bytes, what the error says, its line.
REFUSED: dict[str, tuple[str, _Data, str, int | None]] = {
    "an opening quote without a closing one": ("a.csv", HEADER + GOOD + b'9995550101,"482914\n', NO_END, 3),
    "a quote opened in the header": ("a.csv", b'to,"content\n' + GOOD, NO_END, 1),
    "an unbalanced quote late in a long file": ("a.csv", HEADER + GOOD * 1500 + b'9,"\n' + GOOD, NO_END, 1502),
    "text after a closing quote": ("a.csv", HEADER + GOOD + b'9995550101,"482914" x\n' + GOOD, GOES_ON, 3),
    "a quote inside a quoted cell": ("a.csv", HEADER + b'9995550101,"the "new" 482914"\n', GOES_ON, 2),
    "text after a quoted cell of two lines": ("a.csv", HEADER + GOOD + b'9995550101,"48\n2914" x\n', GOES_ON, 3),
    "a NUL byte in the header": ("a.csv", b"to,con\0tent\n" + GOOD, f"holds a NUL byte {UTF16}", 1),
    "a NUL byte in a row": ("a.csv", HEADER + GOOD + b"9995550101,482\0914\n", f"holds a NUL byte {UTF16}", 3),
    "a NUL byte in a quoted cell": ("a.csv", HEADER + b'9995550101,"4\n8\0"\n', f"holds a NUL byte {UTF16}", 3),
    "a NUL byte in NDJSON": ("a.ndjson", GOOD_JSON + b"\0\n", f"holds a NUL byte {UTF16}", 2),
    "UTF-16 LE with BOM": ("a.csv", b"\xff\xfe" + TWO_ROWS.encode("utf-16-le"), f"is UTF-16 {UTF8}", 1),
    "UTF-16 BE with BOM": ("a.csv", b"\xfe\xff" + TWO_ROWS.encode("utf-16-be"), f"is UTF-16 {UTF8}", 1),
    "UTF-16 LE without BOM": ("a.csv", TWO_ROWS.encode("utf-16-le"), f"holds a NUL byte {UTF16}", 1),
    "UTF-16 BE without BOM": ("a.csv", TWO_ROWS.encode("utf-16-be"), f"holds a NUL byte {UTF16}", 1),
    "UTF-16 NDJSON": ("a.ndjson", GOOD_JSON.decode().encode("utf-16"), f"is UTF-16 {UTF8}", 1),
    "UTF-32 LE": ("a.csv", TWO_ROWS.encode("utf-32-le"), f"holds a NUL byte {UTF16}", 1),
    "UTF-32 BE with BOM": (
        "a.csv",
        b"\0\0\xfe\xff" + TWO_ROWS.encode("utf-32-be"),
        f"holds a NUL byte {UTF16}",
        1,
    ),
    "UTF-16 compressed": (
        "a.csv.gz",
        gzip.compress(TWO_ROWS.encode("utf-16")),
        f"holds a NUL byte {UTF16}",
        1,
    ),
    "Latin-1 in a row": ("a.csv", HEADER + GOOD + b"9995550101,Ihr Schl\xfcssel 482914\n", f"is not UTF-8 {UTF8}", 3),
    "Latin-1 in the header": ("a.csv", b"to,content,stra\xdfe\n" + GOOD, f"is not UTF-8 {UTF8}", 1),
    "Latin-1 in NDJSON": ("a.ndjson", GOOD_JSON + b'{"to": "\xfc"}\n', f"is not UTF-8 {UTF8}", 2),
    "half a surrogate pair in UTF-8": (
        "a.csv",
        HEADER + b"9995550101,482914 \xed\xa0\x80\n",
        f"is not UTF-8 {UTF8}",
        2,
    ),
    "a line of 10 MB": ("a.csv", lambda: HEADER + GOOD + b"9" * 10_000_000, TOO_LONG, 3),
    "a header of 10 MB": ("a.csv", lambda: b"to,content," * 1_000_000, TOO_LONG, 1),
    "a line of 10 MB in NDJSON": ("a.ndjson", lambda: GOOD_JSON + b'{"to": "' + b"9" * 10_000_000, TOO_LONG, 2),
    "a quoted cell of 10 MB": (
        "a.csv",
        lambda: HEADER + GOOD + b'9995550101,"' + (b"x" * 99 + b"\n") * 100_000,
        NO_END,
        3,
    ),
    "gzip cut in its trailer": ("a.csv.gz", COMPRESSED[:-4], DAMAGED, 5),
    "gzip cut before its trailer": ("a.csv.gz", COMPRESSED[:-8], DAMAGED, 5),
    "gzip cut in its rows": ("a.csv.gz", gzip.compress(HEADER + GOOD * 2000) + COMPRESSED[:20], DAMAGED, 2002),
    "gzip cut in its header": ("a.csv.gz", COMPRESSED[:3], DAMAGED, 1),
    "gzip with a wrong checksum": ("a.csv.gz", WRONG_CRC, DAMAGED, 5),
    "gzip with a wrong size": ("a.csv.gz", WRONG_SIZE, DAMAGED, 5),
    "gzip with garbage after it": ("a.csv.gz", COMPRESSED + b"garbage", DAMAGED, 5),
    "gzip with a method of its own": ("a.csv.gz", b"\x1f\x8b\x07" + COMPRESSED[3:], DAMAGED, 1),
    "gzip of rubbish": ("a.csv.gz", COMPRESSED[:10] + b"\xff" * 64, DAMAGED, 1),
    "gzip of NDJSON cut": ("a.ndjson.gz", gzip.compress(GOOD_JSON)[:-8], DAMAGED, 2),
    "gzip in gzip": ("a.csv.gz", gzip.compress(b"\x1f\x8b\x08\xff\n"), f"is not UTF-8 {UTF8}", 1),
    "a spreadsheet compressed": ("a.csv.gz", gzip.compress(zipped()), f"holds a NUL byte {UTF16}", 1),
    "no column to": ("a.csv", b"name,content\n" + GOOD, f"names no column to {EXAMPLE}", 1),
    "no column content": ("a.csv", b"to,name\n" + GOOD, f"names no column content {EXAMPLE}", 1),
    "data in place of a header": ("a.csv", GOOD * 2, NO_COLUMNS, 1),
    "a header after blank lines that is none": ("a.csv", b"\n \n" + GOOD, NO_COLUMNS, 3),
    "a column twice": ("a.csv", b"to,content,note,note\n", "names a column twice (rename one of them)", 1),
    "to twice": ("a.csv", b"to,content,to\n", "two columns are the message's 'to'; rename one of them", 1),
    "two columns for to": (
        "a.csv",
        b"Phone,content,Mobile\n",
        "two columns are the message's 'to'; rename one of them",
        1,
    ),
    "two columns for content": (
        "a.csv",
        b"to,code,message\n",
        "two columns are the message's 'content'; rename one of them",
        1,
    ),
    "line endings of old Macs": (
        "a.csv",
        (HEADER + GOOD).replace(b"\n", b"\r"),
        f"holds a carriage return outside of quotes {LINE_FEED}",
        1,
    ),
    "a carriage return in a row": (
        "a.csv",
        HEADER + GOOD + b"9995550101,482\r914\n",
        f"holds a carriage return outside of quotes {LINE_FEED}",
        3,
    ),
    "line endings of old Macs in NDJSON": ("a.ndjson", GOOD_JSON.replace(b"\n", b"\r") * 2, NO_OBJECT, 1),
    "a JSON list in .ndjson": ("a.ndjson", orjson.dumps([MESSAGE, MESSAGE]), NO_OBJECT, 1),
    "a JSON list over many lines": ("a.ndjson", b"[\n" + GOOD_JSON + b"]\n", NO_OBJECT, 1),
    "an indented JSON list": ("a.jsonl", pretty([MESSAGE]), NO_OBJECT, 1),
    "an indented JSON object": ("a.jsonl", pretty(MESSAGE), NO_OBJECT, 1),
    "CSV in .ndjson": ("a.ndjson", HEADER + GOOD, NO_OBJECT, 1),
    "NDJSON in .csv": ("a.csv", GOOD_JSON * 2, NO_COLUMNS, 1),
    "a JSON list in .csv": ("a.csv", pretty([MESSAGE]), NO_COLUMNS, 1),
    "one NDJSON line cut short": ("a.ndjson", b"\n" + GOOD_JSON[:-10], NO_OBJECT, 2),
    "NDJSON nested too deeply to be read": ("a.ndjson", b"[" * 100_000, NO_OBJECT, 1),
    "half a surrogate pair in NDJSON": ("a.ndjson", b'{"to": "\\ud83d"}\n', NO_OBJECT, 1),
    "HTML": ("a.csv", b"<!DOCTYPE html>\n<title>Sign in</title>\n", NO_COLUMNS, 1),
    "a picture": ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", f"is not UTF-8 {UTF8}", 1),
    "a binary": ("a.csv", b"\x7fELF\2\1\1\0\0\0\n", f"holds a NUL byte {UTF16}", 1),
    "random bytes": ("a.csv", Random(7).randbytes(4096), f"holds a NUL byte {UTF16}", 1),
    "random bytes in .ndjson": ("a.ndjson", Random(7).randbytes(4096), f"holds a NUL byte {UTF16}", 1),
}

# Name: the file's name, its bytes, the whole text of the error. They have no line.
REFUSED_WITHOUT_LINE: dict[str, tuple[str, bytes, str]] = {
    "an empty file": ("a.csv", b"", f"a.csv is empty {EXAMPLE}"),
    "an empty .ndjson": ("a.ndjson", b"", f"a.ndjson is empty {JSON_EXAMPLE}"),
    "an empty .gz": ("a.csv.gz", b"", f"a.csv.gz is empty {EXAMPLE}"),
    "nothing, compressed": ("a.csv.gz", gzip.compress(b""), f"a.csv.gz is empty {EXAMPLE}"),
    "a BOM and nothing else": ("a.csv", b"\xef\xbb\xbf", f"a.csv is empty {EXAMPLE}"),
    "a BOM and nothing else in .ndjson": ("a.ndjson", b"\xef\xbb\xbf", f"a.ndjson is empty {JSON_EXAMPLE}"),
    "blank lines only": ("a.csv", b"\n\r\n  \n\t\n", f"a.csv is empty {EXAMPLE}"),
    "a BOM and blank lines": ("a.csv", b"\xef\xbb\xbf\n\n", f"a.csv is empty {EXAMPLE}"),
    "blank lines only in .ndjson": ("a.ndjson", b"\n\r\n  \n", f"a.ndjson is empty {JSON_EXAMPLE}"),
    "empty cells only": ("a.csv", b",\n,\n", f"a.csv is empty {EXAMPLE}"),
    "an empty quoted cell only": ("a.csv", b'""', f"a.csv is empty {EXAMPLE}"),
    "a header only": ("a.csv", HEADER, "a.csv holds no rows"),
    "a header without its line feed": ("a.csv", b"to,content", "a.csv holds no rows"),
    "blank lines after a header": ("a.csv", HEADER + b"\n\r\n\n", "a.csv holds no rows"),
    "empty cells after a header": ("a.csv", HEADER + b",\n,\n", "a.csv holds no rows"),
    ".gz that is not compressed": (
        "a.csv.gz",
        HEADER + GOOD,
        "a.csv.gz is not compressed with gzip (remove .gz from its name)",
    ),
    "one byte in .gz": ("a.csv.gz", b"\x1f", "a.csv.gz is not compressed with gzip (remove .gz from its name)"),
    "a spreadsheet called .csv": (
        "a.csv",
        zipped(),
        "a.csv is a spreadsheet or a zip archive (save it as CSV in UTF-8)",
    ),
    "a spreadsheet called .ndjson": (
        "a.ndjson",
        zipped(),
        "a.ndjson is a spreadsheet or a zip archive (save it as CSV in UTF-8)",
    ),
    "a spreadsheet called .xlsx": (
        "a.xlsx",
        zipped(),
        "the format of a.xlsx cannot be told from its name (say --format csv or ndjson)",
    ),
    "an unknown suffix": (
        "a.json",
        GOOD_JSON,
        "the format of a.json cannot be told from its name (say --format csv or ndjson)",
    ),
    "no suffix": ("a", HEADER + GOOD, "the format of a cannot be told from its name (say --format csv or ndjson)"),
    ".gz and no other suffix": (
        "a.gz",
        COMPRESSED,
        "the format of a.gz cannot be told from its name (say --format csv or ndjson)",
    ),
    "1001 columns more": (
        "a.csv",
        b"to,content," + b",".join(b"c%d" % number for number in range(1001)) + b"\n9995550100,482913" + b"," * 1001,
        "a.csv has more than 1000 different columns",
    ),
    "1001 members more": (
        "a.ndjson",
        b"".join(b'{"to": "9995550100", "content": "482913", "c%d": 0}\n' % number for number in range(1001)),
        "a.ndjson has more than 1000 different columns",
    ),
}


@pytest.mark.parametrize(("name", "data", "problem", "line"), REFUSED.values(), ids=REFUSED.keys())
def test_a_broken_file_is_refused_as_a_whole(
    ledger: Ledger, tmp_path: Path, name: str, data: _Data, problem: str, line: int
) -> None:
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data())
    error = refusal(lambda: take(ledger, tmp_path / name))
    assert str(error) == f"{name}, line {line}: {problem}"
    assert error.line == line
    assert_empty(ledger)


@pytest.mark.parametrize(("name", "data", "text"), REFUSED_WITHOUT_LINE.values(), ids=REFUSED_WITHOUT_LINE.keys())
def test_a_file_without_rows_or_of_another_kind_is_refused(
    ledger: Ledger, tmp_path: Path, name: str, data: bytes, text: str
) -> None:
    (tmp_path / name).write_bytes(data)
    error = refusal(lambda: take(ledger, tmp_path / name))
    assert str(error) == text
    assert error.line is None
    assert_empty(ledger)


def test_a_missing_file_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    error = refusal(lambda: take(ledger, tmp_path / "a.csv"))
    assert (str(error), error.line) == ("a.csv cannot be opened: No such file or directory", None)


def test_a_directory_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    error = refusal(lambda: take(ledger, tmp_path / "a.csv"))
    assert (str(error), error.line) == ("a.csv cannot be opened: Is a directory", None)


def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(HEADER + GOOD)
    (tmp_path / "a.csv").chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        error = refusal(lambda: open_messages(str(tmp_path / "a.csv")).__enter__())
    finally:
        if is_root:
            os.seteuid(0)
    assert (str(error), error.line) == ("a.csv cannot be opened: Permission denied", None)


@pytest.mark.skipif(sys.platform != "linux", reason="a file that opens and cannot be read")
def test_a_file_that_cannot_be_read_from_its_start_is_refused(ledger: Ledger) -> None:
    error = refusal(lambda: take(ledger, "/proc/self/mem", CSV))
    assert (str(error), error.line) == ("mem cannot be read: Input/output error", None)


@pytest.mark.parametrize(("file_format", "line"), [(CSV, 3), (NDJSON, 3)])
def test_a_file_that_cannot_be_read_to_its_end_is_refused(ledger: Ledger, file_format: FileFormat, line: int) -> None:
    class Failing(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            if text := super().readline(size):
                return text
            raise OSError(errno.EIO, "Input/output error")

    data = HEADER + GOOD if file_format is CSV else GOOD_JSON * 2
    error = refusal(lambda: load(ledger, read_messages(Failing(data), "a file", file_format)))
    assert (str(error), error.line) == (f"a file, line {line}: cannot be read: Input/output error", line)
    assert_empty(ledger)


def test_a_cell_that_is_too_long_and_not_quoted_is_not_said_to_be_quoted(ledger: Ledger) -> None:
    data = b"to,content,note\n9995550100,482913," + b"x" * 200_000 + b"\n"
    error = refusal(lambda: take_bytes(ledger, data))
    assert "quoted cell" not in str(error)
    assert error.line == 2
    assert_empty(ledger)


@pytest.mark.parametrize("number", ["9995550100", "12"])
def test_a_value_nested_too_deeply_to_be_written_again_is_set_aside_or_refused(
    ledger: Ledger, tmp_path: Path, number: str
) -> None:
    deep = b'{"to": "%s", "content": "482914", "note": %s}\n' % (number.encode(), b"[" * 400 + b"]" * 400)
    try:
        loaded, _ = take_with_rejects(ledger, GOOD_JSON + deep, tmp_path / "rejects.ndjson", NDJSON)
    except InputFileError as error:
        refused_at = error.line
        assert_empty(ledger)
    else:
        refused_at = 2
        assert loaded == Loaded(rows=2, queued=1, known=0, rejected=1)
    assert refused_at == 2


# ---------------------------------------------------------------------------------------------- set aside, row by row

ASIDE: dict[str, tuple[str, bytes, list[tuple[int, str]]]] = {
    "a row with a cell too few": ("a.csv", b"12345\n", [(3, "has 1 cells, not 2")]),
    "a row with a cell too many": ("a.csv", b"9995550101,482914,\n", [(3, "has 3 cells, not 2")]),
    "a decimal comma": ("a.csv", b"9995550101,Pay 3,50 with 482914\n", [(3, "has 3 cells, not 2")]),
    "a last row cut short": ("a.csv", b"999555", [(3, "has 1 cells, not 2")]),
    "a quote after a blank": ("a.csv", b'9995550101, "Hello, 482914"\n', [(3, "has 3 cells, not 2")]),
    "semicolons below a header of commas": ("a.csv", b"9995550101;482914\n", [(3, "has 1 cells, not 2")]),
    "no recipient": ("a.csv", b",482914\n", [(3, "to is missing")]),
    "a blank recipient": ("a.csv", b"  ,482914\n", [(3, "to is missing")]),
    "no content": ("a.csv", b"9995550101,\n", [(3, "content is missing")]),
    "a number that is too short": ("a.csv", b"12,482914\n", [(3, SHORT_NUMBER)]),
    "the header once more": (
        "a.csv",
        HEADER,
        [
            (
                3,
                f"to holds something other than the ASCII digits 0-9 and number punctuation {WRITE_NUMBERS}",
            )
        ],
    ),
    "no code": (
        "a.csv",
        b"9995550101,hello\n",
        [(3, "content holds no code (it must hold exactly one run of 4 to 8 digits)")],
    ),
    "a number in scientific notation": (
        "a.csv",
        b"9.99556E+11,482914\n",
        [(3, COMPUTED)],
    ),
    "a last NDJSON line cut short": ("a.ndjson", GOOD_JSON[:-10], [(3, "is no JSON object")]),
    "a list among NDJSON rows": ("a.ndjson", b"[1, 2]\n", [(3, "is no JSON object")]),
    "a text among NDJSON rows": ("a.ndjson", b'"482914"\n', [(3, "is no JSON object")]),
    "null among NDJSON rows": ("a.ndjson", b"null\n", [(3, "is no JSON object")]),
    "NaN among NDJSON rows": ("a.ndjson", b'{"to": NaN}\n', [(3, "is no JSON object")]),
    "two objects on a line": ("a.ndjson", GOOD_JSON.strip() * 2, [(3, "is no JSON object")]),
    "an empty object": ("a.ndjson", b"{}\n", [(3, "to is missing")]),
    "null for a recipient": ("a.ndjson", b'{"to": null, "content": "482914"}\n', [(3, "to is missing")]),
    "two members for one field": (
        "a.ndjson",
        b'{"to": "9995550101", "Phone": "9995550102", "content": "482914"}\n',
        [(3, "two columns are the message's 'to'; rename one of them")],
    ),
    "content as an integer": (
        "a.ndjson",
        b'{"to": "9995550101", "content": 4213}\n',
        [(3, 'content must be a str, not int, which has lost its leading zeros (write "004213", not 4213)')],
    ),
    "content as an object": (
        "a.ndjson",
        b'{"to": "9995550101", "content": {"code": "482914"}}\n',
        [(3, 'content must be a str, not dict (write "004213", not 4213)')],
    ),
    "to as a decimal": (
        "a.ndjson",
        b'{"to": 9995550101.0, "content": "482914"}\n',
        [(3, "to must be a str, not float")],
    ),
    "to as true": ("a.ndjson", b'{"to": true, "content": "482914"}\n', [(3, "to must be a str, not bool")]),
    "to as a list": ("a.ndjson", b'{"to": ["9995550101"], "content": "482914"}\n', [(3, "to must be a str, not list")]),
    "a huge integer": (
        "a.ndjson",
        b'{"to": 123456789012345678, "content": "482914"}\n',
        [
            (
                3,
                f"to has 18 digits; an E.164 number has 7 to 15 {WRITE_NUMBERS}",
            )
        ],
    ),
    "a list for a category": (
        "a.ndjson",
        b'{"to": "9995550101", "content": "482914", "category": ["UTILITY"]}\n',
        [(3, "category must be AUTHENTICATION or UTILITY")],
    ),
}


@pytest.mark.parametrize(("name", "bad", "rejected"), ASIDE.values(), ids=ASIDE.keys())
def test_a_row_that_is_no_message_is_set_aside_and_the_others_are_taken(
    ledger: Ledger, tmp_path: Path, name: str, bad: bytes, rejected: list[tuple[int, str]]
) -> None:
    (tmp_path / name).write_bytes((HEADER + GOOD if name == "a.csv" else GOOD_JSON * 2) + bad)
    problems: list[tuple[int, str]] = []
    loaded = take(ledger, tmp_path / name, on_reject=lambda row, problem: problems.append((row.line, problem)))
    assert problems == rejected
    good = 1 if name == "a.csv" else 2
    assert loaded == Loaded(rows=good + 1, queued=good, known=0, rejected=1)
    kept = [
        (row["line"], row["reason"], row["error"], row["to"]) for row in ledger.results() if row["status"] == "not_sent"
    ]
    assert kept == [(line, problem, "InvalidMessageError", None) for line, problem in rejected]


def test_a_number_that_a_program_made_a_decimal_of_is_set_aside() -> None:
    # Dots may stand between the digits of a number: without a look at it first, it would be a stranger's number.
    row = only_row(b"to,content\n9995550100.0,482913\n")
    assert row.message is None
    assert row.problem.startswith("to ")


def test_an_expiry_at_the_end_of_time_does_not_break_the_run(ledger: Ledger) -> None:
    data = b"to,content,expires_at\n9995550100,482913,9999-12-31T23:59:59-05:00\n9995550101,482914,\n"
    loaded = take_bytes(ledger, data)
    claimed = claimable(ledger)
    assert len(claimed) == loaded.queued
    assert "482914" in [message.content for message in claimed]


# ---------------------------------------------------------------------------------------------- read as it should be

SPELLINGS = [
    *((name, "to") for name in ("to", "TO", " To ", "phone", "Phone Number", "phone-number", "PhoneNumber", "number")),
    *((name, "to") for name in ("Mobile", "MSISDN", "recipient", '"to"')),
    *((name, "content") for name in ("content", "Code", "OTP", "message", "TEXT")),
    *((name, "language_code") for name in ("language_code", "Language Code", "languageCode", "language", "lang")),
    *((name, "expires_at") for name in ("expires_at", "Expires At", "ExpiresAt", "expires", "Expiry")),
    *((name, "cus_message_id") for name in ("cus_message_id", "cusMessageId", "Cus-Message-ID", "CUS MESSAGE ID")),
    *((name, "dr_webhook") for name in ("dr_webhook", "drWebhook", "DR Webhook")),
    *((name, "business_phone") for name in ("business_phone", "businessPhone", "Business Phone")),
    *((name, "category") for name in ("category", "Category")),
    *((name, "api_type") for name in ("api_type", "apiType", "API type")),
]


@pytest.mark.parametrize(("spelling", "field"), SPELLINGS)
def test_a_column_is_known_by_any_of_its_spellings(spelling: str, field: str) -> None:
    names = {"to": "to", "content": "content", field: spelling}
    header = ",".join(names.values())
    row = only_row(f"{header}\n{','.join(CELLS[name][0] for name in names)}\n")
    assert getattr(message_of(row), field) == CELLS[field][1]
    assert row.extra == {}
    if '"' not in spelling:
        member = {written: CELLS[name][0] for name, written in names.items()}
        row = only_row(orjson.dumps(member), NDJSON)
        assert getattr(message_of(row), field) == CELLS[field][1]
        assert row.extra == {}


@pytest.mark.parametrize("name", ["from", "name", "country code", "id", "message_id", "phones", "-", "to2"])
def test_a_column_of_another_name_is_kept_as_it_is(ledger: Ledger, name: str) -> None:
    assert take_bytes(ledger, f"{name},to,content\n x ,9995550100,482913\n".encode()).queued == 1
    assert [row["extra"] for row in ledger.results()] == [{name: " x "}]
    assert ledger.extra_columns() == [name]


def test_unknown_columns_keep_their_order_and_the_types_that_json_has(ledger: Ledger) -> None:
    rows = [{**MESSAGE, "z": 1, "a": [None, {"b": 1.5}]}, {**MESSAGE, "m": True, "a": "x"}]
    assert take_bytes(ledger, b"\n".join(map(orjson.dumps, rows)), NDJSON).queued == 2
    assert ledger.extra_columns() == ["z", "a", "m"]
    assert [row["extra"] for row in ledger.results()] == [{"z": 1, "a": [None, {"b": 1.5}]}, {"m": True, "a": "x"}]


def test_a_column_without_a_name_is_called_by_its_place() -> None:
    messages = read_messages(io.BytesIO(b"to,content,, ,\n9995550100,482913,x,y,\n"), "a file", CSV)
    (row,) = messages
    assert messages.columns == ["to", "content", "column_3", "column_4", "column_5"]
    assert row.extra == {"column_3": "x", "column_4": "y", "column_5": ""}


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfto,content\n9995550100,482913\n",
        b'\xef\xbb\xbf"to","content"\n"9995550100","482913"\n',
        b"to,content\r\n9995550100,482913\r\n",
        b"to,content\n9995550100,482913",
        b"\n  \nto,content\n\n9995550100,482913\n\n\n",
        b"to;content\n9995550100;482913\n",
        b"to\tcontent\n9995550100\t482913\n",
        b"to|content\n9995550100|482913\n",
        b",\n,\nto,content\n9995550100,482913\n",
        b"content,to\n482913,9995550100\n",
        b'to,content\n 9995550100 ,"482913"\n',
        b'to;content;a,b\n"9995550100";482913;3,50\n',
        gzip.compress(HEADER + GOOD),
        gzip.compress(HEADER) + gzip.compress(GOOD),
        gzip.compress(HEADER + GOOD) + bytes(512),
        gzip.compress(b"\xef\xbb\xbf" + HEADER + GOOD),
    ],
    ids=[
        "BOM",
        "BOM and quotes",
        "CRLF",
        "no last line feed",
        "blank lines",
        "semicolons",
        "tabs",
        "pipes",
        "empty cells above the header",
        "the other order",
        "blanks around a number",
        "decimal commas",
        "gzip without .gz",
        "gzip of two parts",
        "gzip padded with zeros",
        "gzip and BOM",
    ],
)
def test_a_sound_file_is_read_whatever_its_dress(ledger: Ledger, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    assert take(ledger, tmp_path / "a.csv") == Loaded(rows=1, queued=1, known=0, rejected=0)
    assert [row["to"] for row in ledger.results()] == ["9995550100"]


@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "a.tsv", "a.txt", "a.csv.gz", "a.b.CSV.GZ", "-.csv"])
def test_a_name_tells_that_a_file_is_csv(ledger: Ledger, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(COMPRESSED)
    assert take(ledger, tmp_path / name).queued == 3


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl", "A.NDJSON", "a.jsonl.gz"])
def test_a_name_tells_that_a_file_is_ndjson(ledger: Ledger, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"\xef\xbb\xbf\n" + GOOD_JSON + b"\r\n \n" + GOOD_JSON.strip()))
    assert take(ledger, tmp_path / name).queued == 2


def test_a_format_that_is_said_wins_over_the_name(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(GOOD_JSON.replace(b"0100", b"0101"))
    (tmp_path / "a").write_bytes(COMPRESSED)
    assert take(ledger, tmp_path / "a.csv", NDJSON).queued == 1
    assert take(ledger, tmp_path / "a", CSV).queued == 3


def test_a_file_whose_name_is_not_utf8_is_read(ledger: Ledger, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.csv")
    Path(path).write_bytes(HEADER + GOOD)
    assert take(ledger, path).queued == 1


def test_quotes_in_the_middle_of_a_cell_are_text() -> None:
    row = only_row(b'to,content\n9995550100,Your "new" code: 482913\n')
    assert message_of(row).content == 'Your "new" code: 482913'
    assert row.raw == ["9995550100", 'Your "new" code: 482913']


def test_a_quoted_cell_may_hold_delimiters_quotes_and_line_endings() -> None:
    row = only_row(b'to,content\n9995550100,"Hello, ""you"":\r\n482913\r."\n')
    assert message_of(row).content == 'Hello, "you":\r\n482913\r.'


def test_content_keeps_the_blanks_around_it() -> None:
    assert message_of(only_row(b"to,content\n9995550100, 482913 \n")).content == " 482913 "


def test_a_row_begins_on_the_line_of_its_first_cell() -> None:
    data = (
        b'\xef\xbb\xbf\n"to","con\ntent",note\r\n'  # 2 and 3
        b"9995550100,482913,\n"  # 4
        b"\n,,\n\n"  # 5 to 7
        b'9995550101,482914,"a\n\nb\n"\n'  # 8 to 11
        b'12,482915,"c\r\nd"\r\n'  # 12 and 13
        b"9995550102,482916"  # 14
    )
    rows = rows_of(data)
    assert [(row.line, bool(row.message), row.problem) for row in rows] == [
        (4, True, ""),
        (8, True, ""),
        (12, False, SHORT_NUMBER),
        (14, False, "has 2 cells, not 3"),
    ]
    assert [row.extra for row in rows] == [{"note": ""}, {"note": "a\n\nb\n"}, {"note": "c\r\nd"}, {}]


def test_the_lines_of_ndjson_are_counted_with_the_blank_ones() -> None:
    rows = rows_of(b"\n" + GOOD_JSON + b" \r\n[]\n" + GOOD_JSON, NDJSON)
    assert [(row.line, row.problem) for row in rows] == [(2, ""), (4, "is no JSON object"), (5, "")]


def test_a_line_may_be_as_long_as_the_limit_and_no_longer() -> None:
    def row(length: int) -> bytes:
        head, tail = b'{"to": "9995550100", "content": "482913", "note": "', b'"}\n'
        return head + b"x" * (length - len(head) - len(tail)) + tail

    assert len(row(1 << 20)) == 1 << 20
    assert [each.problem for each in rows_of(GOOD_JSON + row(1 << 20), NDJSON)] == ["", ""]
    assert refusal(lambda: rows_of(GOOD_JSON + row((1 << 20) + 1), NDJSON)).line == 2


def test_a_file_may_have_a_thousand_columns_more(ledger: Ledger) -> None:
    data = b"to,content," + b",".join(b"c%d" % number for number in range(1000)) + b"\n9995550100,482913" + b"," * 1000
    assert take_bytes(ledger, data).queued == 1


# ---------------------------------------------------------------------------------------------- standard input


@contextmanager
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Make a pipe standard input."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as file:
        monkeypatch.setattr(sys, "stdin", file)
        yield reading, writing


def write_and_close(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


@pytest.mark.parametrize("data", [HEADER + GOOD * 3, COMPRESSED], ids=["plain", "gzip"])
def test_standard_input_is_read_and_left_open(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    with piped(monkeypatch) as (reading, writing):
        write_and_close(writing, data)
        assert take(ledger, "-", CSV).queued == 3
        assert stat.S_ISFIFO(os.fstat(reading).st_mode)


def test_standard_input_has_no_name_that_tells_its_format(ledger: Ledger) -> None:
    error = refusal(lambda: take(ledger, "-"))
    assert str(error) == "the format of standard input cannot be told from its name (say --format csv or ndjson)"


def test_what_is_wrong_in_standard_input_is_said_of_standard_input(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with piped(monkeypatch) as (_, writing):
        write_and_close(writing, HEADER + b'9995550100,"482913\n')
        error = refusal(lambda: take(ledger, "-", CSV))
    assert str(error) == f"standard input, line 2: {NO_END}"


def test_closed_standard_input_is_refused(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open() as file:
        monkeypatch.setattr(sys, "stdin", file)
    error = refusal(lambda: take(ledger, "-", CSV))
    assert str(error) == "standard input cannot be opened: it is closed"


def test_standard_input_that_the_program_was_started_without_is_refused(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    error = refusal(lambda: take(ledger, "-", CSV))
    assert str(error) == "standard input cannot be opened: it is closed"


def test_standard_input_that_is_no_file_is_refused_with_a_reason(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(TWO_ROWS))
    error = refusal(lambda: take(ledger, "-", CSV))
    assert str(error).startswith("standard input cannot be opened: ")
    assert "None" not in str(error)


def unread(descriptor: int) -> int:
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("data", [HEADER + GOOD * 3, COMPRESSED], ids=["plain", "gzip"])
def test_a_pipe_whose_first_byte_comes_alone_is_recognised_all_the_same(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    with piped(monkeypatch) as (reading, writing):
        os.write(writing, data[:1])

        def write_the_rest() -> None:
            while unread(reading):
                os.sched_yield()
            write_and_close(writing, data[1:])

        thread = threading.Thread(target=write_the_rest)
        thread.start()
        try:
            assert take(ledger, "-", CSV).queued == 3
        finally:
            while unread(reading):
                os.read(reading, 1)
            thread.join()


def test_a_pipe_that_does_not_wait_is_not_taken_to_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with piped(monkeypatch) as (reading, writing):
        os.set_blocking(reading, False)
        os.write(writing, HEADER + GOOD + b"9995550")
        with open_messages("-", CSV) as messages:
            rows = iter(messages)
            assert next(rows).line == 2
            if os.get_blocking(reading):
                write_and_close(writing, b"101,482914\n")
                assert message_of(next(rows)).to == "9995550101"
            else:
                refusal(lambda: next(rows))
                os.close(writing)
