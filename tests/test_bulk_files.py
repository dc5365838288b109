import csv
import errno
import gzip
import io
import os
import stat
import sys
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_canary import _Canary, assert_clean, inspect_error

from nxotp_async import InputFileError, OtpMessage
from nxotp_async.bulk import (
    FileFormat,
    Ledger,
    Loaded,
    MessageFile,
    MessageState,
    RejectsFile,
    Row,
    load,
    open_messages,
)
from nxotp_async.languages import Language
from nxotp_async.messages import ApiType, Category

CSV, NDJSON = FileFormat.CSV, FileFormat.NDJSON
HEADER = b"to,content\n"
GOOD = b"9995550100,482913\n"
GOOD_JSON = b'{"to": "9995550100", "content": "482913"}\n'
TWO_ROWS = "to,content\n9995550100,482913\n9995550101,482914\n"
NOW = 1_800_000_000.0

EXAMPLE = "(the first line must name the columns: to,content and any others)"
TWICE = '(write a quote inside a quoted cell twice: "")'
LINE_FEED = "(end each row with a line feed)"
UTF8 = "(save the file as UTF-8)"
UTF16 = "(save the file as UTF-8; UTF-16 looks like this)"
DAMAGED = "the compressed file ends early, or is damaged (transfer it again)"
NO_OBJECT = "is no JSON object (NDJSON has one object a line, and no list around them)"
JSON_EXAMPLE = '(a row is {"to": "...", "content": "..."})'
NO_COLUMNS = f"names no column to and no column content {EXAMPLE}"
TOO_LONG = f"longer than 1,048,576 bytes {LINE_FEED}"
COMPUTED = (
    "to was taken for a decimal number by the program that wrote it, and may have lost digits "
    "(let that program treat the column as text)"
)
NO_END = f"a quoted cell that begins in this row has no end {TWICE}"
GOES_ON = f"a quoted cell goes on after its closing quote {TWICE}"
WRITE_NUMBERS = "(write it with its country code, +86 139 1234 5678 for example)"
SHORT_NUMBER = f"to has 2 digits; an E.164 number has 7 to 15 {WRITE_NUMBERS}"


def take(ledger: Ledger, path: str | Path, file_format: FileFormat | None = None, **options: Any) -> Loaded:
    with open_messages(str(path), file_format) as messages:
        return load(ledger, messages, **options)


def take_bytes(ledger: Ledger, data: bytes, file_format: FileFormat = CSV, **options: Any) -> Loaded:
    return load(ledger, MessageFile(io.BytesIO(data), "a file", file_format), **options)


def rows_of(data: bytes | str, file_format: FileFormat = CSV) -> list[Row]:
    text = data.encode() if isinstance(data, str) else data
    return list(MessageFile(io.BytesIO(text), "a file", file_format))


def message_of(row: Row) -> OtpMessage:
    assert row.message is not None, row.problem
    return row.message


def only_row(data: bytes | str, file_format: FileFormat = CSV) -> Row:
    (row,) = rows_of(data, file_format)
    return row


def refusal(taking: Callable[[], object]) -> InputFileError:
    with pytest.raises(InputFileError) as caught:
        taking()
    return caught.value


def assert_empty(ledger: Ledger) -> None:
    assert list(ledger.results()) == []
    assert ledger.counts() == {}
    assert ledger.extra_columns() == []


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


COMPRESSED = gzip.compress(HEADER + GOOD * 3, mtime=0)
WRONG_CRC = COMPRESSED[:-8] + bytes(byte ^ 0xFF for byte in COMPRESSED[-8:-4]) + COMPRESSED[-4:]
WRONG_SIZE = COMPRESSED[:-4] + b"\1\0\0\0"
NUMBERS = Random(7).sample(range(10**6), 99)
INCOMPRESSIBLE = gzip.compress(HEADER + b"".join(b"9995550100,%06d\n" % number for number in NUMBERS), mtime=0)
MESSAGE = {"to": "9995550100", "content": "482913"}

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
    error = refusal(lambda: load(ledger, MessageFile(Failing(data), "a file", file_format)))
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
    ledger.begin_run(NOW)
    claimed = ledger.exchange([], 10, NOW, 0.0, lambda has_waited, recipient: 0.0).messages
    assert len(claimed) == loaded.queued
    assert "482914" in [claim.message.content for claim in claimed]


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
CELLS: dict[str, tuple[str, object]] = {
    "to": ("+999 555 0100", "9995550100"),
    "content": ("Your code is 482913", "Your code is 482913"),
    "language_code": ("pt_BR", Language.parse("pt_BR")),
    "expires_at": ("2030-12-31T23:59:00Z", datetime(2030, 12, 31, 23, 59, tzinfo=UTC)),
    "cus_message_id": ("order-17", "order-17"),
    "dr_webhook": ("https://example.com/a", "https://example.com/a"),
    "business_phone": ("+999 555 0199", "9995550199"),
    "category": ("utility", Category.UTILITY),
    "api_type": ("1", ApiType.MM_LITE),
}


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
    messages = MessageFile(io.BytesIO(b"to,content,, ,\n9995550100,482913,x,y,\n"), "a file", CSV)
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


# ---------------------------------------------------------------------------------------------- cells

INSTANTS: list[tuple[object, datetime]] = [
    ("2030-12-31T23:59:00+02:00", datetime(2030, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=2)))),
    ("2030-12-31 23:59:00-05:30", datetime(2030, 12, 31, 23, 59, tzinfo=timezone(-timedelta(hours=5, minutes=30)))),
    ("2030-12-31T23:59:00Z", datetime(2030, 12, 31, 23, 59, tzinfo=UTC)),
    ("2030-12-31T23:59:00.250Z", datetime(2030, 12, 31, 23, 59, 0, 250_000, tzinfo=UTC)),
    ("20301231T235900Z", datetime(2030, 12, 31, 23, 59, tzinfo=UTC)),
    (" 1900000000 ", datetime.fromtimestamp(1_900_000_000, UTC)),
    ("1900000000.5", datetime.fromtimestamp(1_900_000_000.5, UTC)),
    ("1900000000500", datetime.fromtimestamp(1_900_000_000.5, UTC)),
    (1_900_000_000, datetime.fromtimestamp(1_900_000_000, UTC)),
    (1_900_000_000.5, datetime.fromtimestamp(1_900_000_000.5, UTC)),
    (1_900_000_000_500, datetime.fromtimestamp(1_900_000_000.5, UTC)),
    (99_999_999_999, datetime.fromtimestamp(99_999_999_999, UTC)),
    (100_000_000_000, datetime.fromtimestamp(100_000_000, UTC)),
]


def with_cell(name: str, cell: object) -> list[Row]:
    """Return a row that has this cell, read from NDJSON, and from CSV where the cell is a text."""
    values = {**MESSAGE, name: cell}
    rows = [only_row(orjson.dumps(values), NDJSON)]
    if isinstance(cell, str):
        text = io.StringIO()
        csv.writer(text).writerows([values.keys(), values.values()])
        rows.append(only_row(text.getvalue()))
    return rows


@pytest.mark.parametrize(("cell", "instant"), INSTANTS)
def test_an_expiry_may_be_iso_8601_or_seconds_or_milliseconds(cell: object, instant: datetime) -> None:
    for row in with_cell("expires_at", cell):
        expires_at = message_of(row).expires_at
        assert expires_at == instant
        assert expires_at is not None
        assert expires_at.utcoffset() == instant.utcoffset()


@pytest.mark.parametrize(
    "cell", ["2030-12-31T23:59:00", "2030-12-31", "2030-12-31 23:59", "2030-W01-1", "2030-12-31T23:59:00.5"]
)
def test_an_expiry_without_a_time_zone_is_refused(cell: str) -> None:
    for row in with_cell("expires_at", cell):
        assert row.message is None
        assert row.problem.startswith("expires_at has no time zone (")


@pytest.mark.parametrize(
    "cell",
    [
        *(
            "tomorrow",
            "31.12.2030 23:59",
            "2030-13-01T00:00:00Z",
            "2030-12-31T25:00:00Z",
            "-1",
            "1e400",
            "1_900_000_000",
        ),
        *("²", "1.9.0", "9" * 400, "9" * 17, "2030-12-31T23:59:00Z 482913", ".", "inf", "nan", "1,9"),
        *(10**18, -(10**15), 1e300, -1e300, 2**63),
    ],
)
def test_an_expiry_that_is_no_time_is_refused_without_repeating_it(cell: object) -> None:
    for row in with_cell("expires_at", cell):
        assert row.message is None
        assert row.problem == "expires_at is no time (2030-12-31T23:59:00+02:00, or seconds since the epoch)"


@pytest.mark.parametrize(("cell", "kind"), [(True, "bool"), ([1], "list"), ({}, "dict")])
def test_an_expiry_of_another_type_is_refused(cell: object, kind: str) -> None:
    for row in with_cell("expires_at", cell):
        assert (row.message, row.problem) == (None, f"expires_at must be a datetime, not {kind}")


@pytest.mark.parametrize(("cell", "value"), [("0", 0), ("1", 1), (" 1 ", 1), (0, 0), (1, 1), ("", None), ("  ", None)])
def test_an_api_type_is_a_digit(cell: object, value: int | None) -> None:
    for row in with_cell("api_type", cell):
        assert message_of(row).api_type == value


@pytest.mark.parametrize("cell", ["2", "-1", "01", "1.0", "MM_LITE", "true", "\u0661", 2, 1.0, True, [1]])
def test_another_api_type_is_refused(cell: object) -> None:
    for row in with_cell("api_type", cell):
        assert (row.message, row.problem) == (None, "api_type must be 0 (Cloud API) or 1 (MM Lite API)")


@pytest.mark.parametrize("cell", ["9.99556E+11", "9,99556E+11", "9.99556e11", "9E+11", "1e12", " 8.61391E+12 "])
def test_a_number_in_scientific_notation_has_lost_digits(cell: str) -> None:
    for row in with_cell("to", cell):
        assert row.message is None
        assert row.problem == COMPUTED


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        (9995550100, "9995550100"),
        ("+999 555-01 00", "9995550100"),
        ("999.555.0100", "9995550100"),
        ("\t9995550100", "9995550100"),
    ],
)
def test_a_number_may_be_written_as_people_do_or_be_an_integer(cell: object, number: str) -> None:
    for row in with_cell("to", cell):
        assert message_of(row).to == number


@pytest.mark.parametrize("cell", [482913, 4213, 0])
def test_content_must_not_be_an_integer(cell: int) -> None:
    (row,) = with_cell("content", cell)
    assert row.message is None
    assert row.problem == 'content must be a str, not int, which has lost its leading zeros (write "004213", not 4213)'


def test_empty_cells_are_absent() -> None:
    names = [name for name in CELLS if name not in ("to", "content")]
    row = only_row(f"to,content,{','.join(names)}\n9995550100,482913{', ' * len(names)}\n")
    assert message_of(row) == OtpMessage("9995550100", "482913")
    assert message_of(only_row(orjson.dumps({**MESSAGE, **dict.fromkeys(names)}), NDJSON)) == message_of(row)


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


# ---------------------------------------------------------------------------------------------- loading


def test_the_same_file_taken_twice_is_known(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"to,content,cus_message_id\n9995550100,482913,a\n9995550101,482914,\n9995550100,482913,\n12,482915,b\n"
    )
    assert take(ledger, path) == Loaded(rows=4, queued=3, known=0, rejected=1)
    before = list(ledger.results())
    rejected: list[int] = []
    again = take(ledger, path, on_reject=lambda row, _: rejected.append(row.line))
    assert again == Loaded(rows=4, queued=0, known=4, rejected=0)
    assert rejected == []
    assert list(ledger.results()) == before


def test_the_same_file_is_known_to_a_ledger_that_was_closed_in_between(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(GOOD_JSON * 2500)
    with Ledger(tmp_path / "run.db") as ledger:
        assert take(ledger, tmp_path / "a.ndjson") == Loaded(rows=2500, queued=2500, known=0, rejected=0)
    with Ledger(tmp_path / "run.db") as ledger:
        assert take(ledger, tmp_path / "a.ndjson") == Loaded(rows=2500, queued=0, known=2500, rejected=0)
        assert ledger.counts() == {MessageState.QUEUED: 2500}


def test_a_longer_version_of_a_file_adds_its_new_rows_only(ledger: Ledger) -> None:
    assert take_bytes(ledger, HEADER + GOOD * 1200).queued == 1200
    assert take_bytes(ledger, HEADER + GOOD * 1300) == Loaded(rows=1300, queued=100, known=1200, rejected=0)


def test_an_id_is_known_whatever_file_it_came_with(ledger: Ledger) -> None:
    assert take_bytes(ledger, b"to,content,cus_message_id\n9995550100,482913,a\n").queued == 1
    data = b'{"content": "482999", "cusMessageId": "a", "to": "9995550199"}\n' + GOOD_JSON
    assert take_bytes(ledger, data, NDJSON) == Loaded(rows=2, queued=1, known=1, rejected=0)
    assert [row["to"] for row in ledger.results()] == ["9995550100", "9995550100"]


def with_ids(ids: Iterable[str]) -> bytes:
    return b"to,content,cus_message_id\n" + b"".join(b"9995550100,482913,%s\n" % name.encode() for name in ids)


@pytest.mark.parametrize(
    ("ids", "twins"),
    [
        (["a", "b", "a"], {4: 2}),
        (["a", "a", "a", "b", "b"], {3: 2, 4: 2, 6: 5}),
        (["", "a", "", "a", ""], {5: 3}),
        ([*map(str, range(1500)), "7"], {1502: 9}),
        ([*map(str, range(999)), "0", "0", "1000"], {1001: 2, 1002: 2}),
        ([*map(str, range(1000)), "x", "x", "0", "999"], {1003: 1002, 1004: 2, 1005: 1001}),
    ],
    ids=["apart", "many", "among rows without", "in another batch", "around the edge of a batch", "both"],
)
def test_a_row_with_the_id_of_a_row_before_it_is_set_aside(
    ledger: Ledger, ids: list[str], twins: dict[int, int]
) -> None:
    problems: dict[int, str] = {}
    loaded = take_bytes(ledger, with_ids(ids), on_reject=lambda row, problem: problems.update({row.line: problem}))
    assert problems == {line: f"cus_message_id is that of line {first}" for line, first in twins.items()}
    assert loaded == Loaded(rows=len(ids), queued=len(ids) - len(twins), known=0, rejected=len(twins))
    not_sent = {row["line"]: row["reason"] for row in ledger.results() if row["status"] == "not_sent"}
    assert not_sent == problems
    assert ledger.counts() == {MessageState.QUEUED: len(ids) - len(twins), MessageState.NOT_SENT: len(twins)}


def test_a_file_with_twins_taken_twice_is_known(ledger: Ledger) -> None:
    take_bytes(ledger, with_ids(["a", "b", "a"]))
    before = list(ledger.results())
    assert take_bytes(ledger, with_ids(["a", "b", "a"])) == Loaded(rows=3, queued=0, known=3, rejected=0)
    assert list(ledger.results()) == before


@pytest.mark.parametrize("count", [2, 1001, 2100])
def test_rows_without_ids_that_are_alike_are_all_taken(ledger: Ledger, count: int) -> None:
    assert take_bytes(ledger, HEADER + GOOD * count) == Loaded(rows=count, queued=count, known=0, rejected=0)
    assert len({row["cus_message_id"] for row in ledger.results()}) == count


def test_an_id_of_a_row_that_is_no_message_stays_free(ledger: Ledger) -> None:
    bad = b"to,content,cus_message_id\n12,482913,a\n9995550101,482914,b\n"
    assert take_bytes(ledger, bad) == Loaded(rows=2, queued=1, known=0, rejected=1)
    assert take_bytes(ledger, bad.replace(b"12,", b"9995550100,")) == Loaded(rows=2, queued=1, known=1, rejected=0)
    assert [(row["cus_message_id"], row["status"]) for row in ledger.results() if row["to"]] == [
        ("b", "queued"),
        ("a", "queued"),
    ]


def test_an_id_of_a_row_that_is_no_message_is_free_for_a_later_row_of_the_file(ledger: Ledger) -> None:
    data = b"to,content,cus_message_id\n12,482913,a\n9995550101,482914,a\n"
    assert take_bytes(ledger, data) == Loaded(rows=2, queued=1, known=0, rejected=1)


def test_a_corrected_row_without_an_id_is_taken(ledger: Ledger) -> None:
    take_bytes(ledger, HEADER + GOOD + b"12,482914\n" + GOOD)
    corrected = HEADER + GOOD + b"9995550112,482914\n" + GOOD
    assert take_bytes(ledger, corrected) == Loaded(rows=3, queued=1, known=2, rejected=0)


def test_a_strict_load_refuses_a_file_with_a_bad_row_and_leaves_nothing(ledger: Ledger) -> None:
    problems: list[tuple[int, str]] = []
    data = HEADER + GOOD * 1100 + b"12,482914\n" + GOOD + b"9995550101,\n"
    error = refusal(
        lambda: take_bytes(ledger, data, strict=True, on_reject=lambda row, text: problems.append((row.line, text)))
    )
    assert str(error) == "a file: 2 of 1103 rows are no messages (nothing was loaded or sent)"
    assert error.line is None
    assert problems == [(1102, SHORT_NUMBER), (1104, "content is missing")]
    assert_empty(ledger)
    assert take_bytes(ledger, HEADER + GOOD, strict=True).queued == 1


def test_a_strict_load_refuses_twins(ledger: Ledger) -> None:
    error = refusal(lambda: take_bytes(ledger, with_ids(["a", "a"]), strict=True))
    assert str(error) == "a file: 1 of 2 rows are no messages (nothing was loaded or sent)"
    assert_empty(ledger)


def test_a_refused_file_leaves_what_was_there_before(ledger: Ledger) -> None:
    take_bytes(ledger, with_ids(["a"]))
    before = list(ledger.results())
    refusal(lambda: take_bytes(ledger, with_ids([*"abc", '"'])))
    assert list(ledger.results()) == before
    assert take_bytes(ledger, with_ids("abc")) == Loaded(rows=3, queued=2, known=1, rejected=0)


def test_a_refused_file_leaves_no_byte_on_the_disk(tmp_path: Path) -> None:
    with Ledger(tmp_path / "run.db") as ledger:
        refusal(lambda: take_bytes(ledger, HEADER + b"9995550142,73915508\n" * 3000 + b'"'))
        found = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for part in (b"9995550142", b"73915508"):
        assert part not in found


def test_what_fails_before_the_commit_undoes_everything(ledger: Ledger) -> None:
    def fail() -> None:
        raise InputFileError("no room for the rejects file")

    assert str(refusal(lambda: take_bytes(ledger, HEADER + GOOD, before_commit=fail))) == "no room for the rejects file"
    assert_empty(ledger)
    assert take_bytes(ledger, HEADER + GOOD).queued == 1


def test_the_rows_are_there_before_the_commit_and_it_is_asked_for_once(ledger: Ledger) -> None:
    seen: list[int] = []
    take_bytes(ledger, HEADER + GOOD * 1500, before_commit=lambda: seen.append(ledger.counts()[MessageState.QUEUED]))
    assert seen == [1500]


@pytest.mark.parametrize(
    ("count", "progress"), [(1, [1]), (1000, [1000]), (1001, [1000, 1001]), (2500, [1000, 2000, 2500])]
)
def test_progress_is_told_batch_by_batch(ledger: Ledger, count: int, progress: list[int]) -> None:
    told: list[int] = []
    take_bytes(ledger, GOOD_JSON * count, NDJSON, on_progress=told.append)
    assert told == progress


def test_what_is_queued_is_what_the_rows_say(ledger: Ledger) -> None:
    names = list(CELLS)
    row = ",".join(CELLS[name][0] for name in names)
    take_bytes(ledger, f"{','.join(names)},note\n{row},x\n".encode())
    ledger.begin_run(NOW)
    (claimed,) = ledger.exchange([], 10, NOW, 0.0, lambda has_waited, recipient: 0.0).messages
    assert {name: getattr(claimed.message, name) for name in names} == {
        name: value for name, (_, value) in CELLS.items()
    }


# ---------------------------------------------------------------------------------------------- the rejects file


def take_with_rejects(
    ledger: Ledger, data: bytes, path: Path, file_format: FileFormat = CSV, **options: Any
) -> tuple[Loaded, Path | None]:
    """Load a file as a program does that keeps the rows which are no messages."""
    messages = MessageFile(io.BytesIO(data), "a file", file_format)
    rejects = RejectsFile(path, messages)
    kept: list[Path | None] = []
    try:
        loaded = load(
            ledger, messages, on_reject=rejects.add, before_commit=lambda: kept.append(rejects.keep()), **options
        )
    finally:
        rejects.discard()
    (path_kept,) = kept
    return loaded, path_kept


def rejects_of(ledger: Ledger, data: bytes, path: Path, file_format: FileFormat = CSV) -> bytes:
    _, kept = take_with_rejects(ledger, data, path, file_format)
    assert kept is not None
    return kept.read_bytes()


def test_rejected_csv_rows_are_written_as_they_were_with_their_line_and_reason(ledger: Ledger, tmp_path: Path) -> None:
    data = (
        b"Phone;code;note;\r\n9995550100;482913;fine;\r\n"
        b' 12 ;482914;"a, ""b"";\nc";x\r\n'
        b"9995550101\n9995550102;482915;;;;\r\n"
    )
    assert rejects_of(ledger, data, tmp_path / "rejects.csv").decode() == (
        "rejected_line,rejected_reason,Phone,code,note,column_4\n"
        f'3,"{SHORT_NUMBER}", 12 ,482914,"a, ""b"";\nc",x\n'
        '5,"has 1 cells, not 4",9995550101\n'
        '6,"has 6 cells, not 4",9995550102,482915,,,,\n'
    )


def test_rejected_ndjson_rows_are_written_as_they_were_with_their_line_and_reason(
    ledger: Ledger, tmp_path: Path
) -> None:
    data = GOOD_JSON + b'\n{"to": "12", "content": "482914", "note": [1, {"b": null}]}\n ["482915"] \n{"to": "99\n'
    written = rejects_of(ledger, data, tmp_path / "rejects.ndjson", NDJSON)
    assert [orjson.loads(line) for line in written.splitlines()] == [
        {
            "rejected_line": 3,
            "rejected_reason": SHORT_NUMBER,
            "to": "12",
            "content": "482914",
            "note": [1, {"b": None}],
        },
        {"rejected_line": 4, "rejected_reason": "is no JSON object", "rejected_text": '["482915"]'},
        {"rejected_line": 5, "rejected_reason": "is no JSON object", "rejected_text": '{"to": "99'},
    ]


@pytest.mark.parametrize("file_format", FileFormat)
def test_a_rejects_file_can_be_loaded_once_it_is_corrected(
    ledger: Ledger, tmp_path: Path, file_format: FileFormat
) -> None:
    if file_format is CSV:
        data = b'to;content;cus_message_id;note\n12;482913;a;"x;\ny"\n9995550101;482914;b;\n12;482915;;z\n'
    else:
        data = (
            b'{"to": "12", "content": "482913", "cus_message_id": "a", "note": "x;\\ny"}\n'
            b'{"to": "9995550101", "content": "482914", "cus_message_id": "b"}\n'
            b'{"to": "12", "content": "482915", "note": "z"}\n'
        )
        data = GOOD_JSON.replace(b"482913", b"482910") + data
    path = tmp_path / f"rejects.{file_format}"
    written = rejects_of(ledger, data, path, file_format)
    corrected = written.replace(b",12,", b",9995550112,").replace(b'"12"', b'"9995550112"')
    loaded, kept = take_with_rejects(ledger, corrected, path, file_format)
    assert (loaded, kept) == (Loaded(rows=2, queued=2, known=0, rejected=0), None)
    queued = [row for row in ledger.results() if row["to"] == "9995550112"]
    assert [row["extra"]["note"] for row in queued] == ["x;\ny", "z"]
    assert queued[0]["cus_message_id"] == "a"


@pytest.mark.parametrize("file_format", FileFormat)
def test_the_rejects_of_a_rejects_file_say_what_is_wrong_now_and_can_be_loaded_again(
    ledger: Ledger, tmp_path: Path, file_format: FileFormat
) -> None:
    row = b"12,482913\n" if file_format is CSV else b'{"to": "12", "content": "482913"}\n'
    good = HEADER + GOOD if file_format is CSV else GOOD_JSON
    written = rejects_of(ledger, good + b"\n" + row, tmp_path / "first", file_format)
    half_corrected = (
        written.replace(b",12,", b",9995550112,").replace(b'"12"', b'"9995550112"').replace(b"482913", b"48")
    )
    again = rejects_of(ledger, half_corrected, tmp_path / "second", file_format)
    assert again.count(b"rejected_line") == again.count(b"rejected_reason") == 1
    assert b"E.164" not in again
    assert b"content holds no code" in again
    (rejected,) = rows_of(again, file_format)
    assert str(rejected.extra["rejected_line"]) == ("2" if file_format is CSV else "1")
    corrected = again.replace(b",48\n", b",482913\n").replace(b'"48"', b'"482913"')
    assert take_bytes(ledger, corrected, file_format) == Loaded(rows=1, queued=1, known=0, rejected=0)


@pytest.mark.parametrize("cell", ["a\rb", "\r", "a\r\nb", "a\nb", '"', ",", " ", "\ufeff", "\u2028", "\x85", "\x1a"])
def test_any_cell_survives_the_way_through_a_rejects_file(ledger: Ledger, tmp_path: Path, cell: str) -> None:
    data = b'to,content,note\n12,482913,"%s"\n' % cell.replace('"', '""').encode()
    written = rejects_of(ledger, data, tmp_path / "rejects.csv")
    assert only_row(written).extra["note"] == cell


def test_a_rejects_file_is_for_its_owner_only(ledger: Ledger, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        _, kept = take_with_rejects(ledger, HEADER + b"12,482913\n", tmp_path / "rejects.csv")
    finally:
        os.umask(before)
    assert kept == tmp_path / "rejects.csv"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_rejects_file_is_for_its_owner_only_whatever_a_crash_has_left(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "rejects.csv.part").write_bytes(b"left over" * 1000)
    (tmp_path / "rejects.csv.part").chmod(0o644)
    _, kept = take_with_rejects(ledger, HEADER + b"12,482913\n", tmp_path / "rejects.csv")
    assert kept is not None
    assert kept.read_bytes().endswith(b",12,482913\n")
    assert b"left over" not in kept.read_bytes()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_rejects_file_that_is_there_already_is_left_alone(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "a.rejects.csv"
    path.write_bytes(b"worked on")
    names = []
    for number in range(3):
        data = HEADER + b"%d,482913\n" % number
        _, kept = take_with_rejects(ledger, data, path)
        assert kept is not None
        assert kept.read_bytes().endswith(b",%d,482913\n" % number)
        names.append(kept.name)
    assert names == ["a.rejects-2.csv", "a.rejects-3.csv", "a.rejects-4.csv"]
    assert path.read_bytes() == b"worked on"
    assert sorted(each.name for each in tmp_path.iterdir()) == [*names, "a.rejects.csv"]


def test_without_rejected_rows_there_is_no_rejects_file(ledger: Ledger, tmp_path: Path) -> None:
    loaded, kept = take_with_rejects(ledger, HEADER + GOOD, tmp_path / "rejects.csv")
    assert (loaded.queued, kept) == (1, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "options"),
    [(HEADER + b"12,482913\n" + GOOD + b'"', {}), (HEADER + b"12,482913\n" + GOOD, {"strict": True})],
    ids=["broken", "strict"],
)
def test_a_refused_file_leaves_no_rejects_file(
    ledger: Ledger, tmp_path: Path, data: bytes, options: dict[str, Any]
) -> None:
    refusal(lambda: take_with_rejects(ledger, data, tmp_path / "rejects.csv", **options))
    assert list(tmp_path.iterdir()) == []
    assert_empty(ledger)


def test_a_rejects_file_that_cannot_be_made_refuses_the_file(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "rejects.csv"
    error = refusal(lambda: take_with_rejects(ledger, HEADER + GOOD + b"12,482913\n", path))
    assert str(error) == (
        f"the rejects file {path} cannot be written: No such file or directory (nothing was loaded or sent)"
    )
    assert_empty(ledger)


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Let what is written past this size fail, as it does on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("count", [1, 5000], ids=["while it is kept", "while rows are added"])
def test_a_rejects_file_that_cannot_be_written_refuses_the_file_and_goes_away(
    ledger: Ledger, tmp_path: Path, count: int
) -> None:
    data = HEADER + GOOD + b"12,482913\n" * count
    with no_file_longer_than(64):
        error = refusal(lambda: take_with_rejects(ledger, data, tmp_path / "rejects.csv"))
    assert str(error) == (
        f"the rejects file {tmp_path / 'rejects.csv'} cannot be written: File too large (nothing was loaded or sent)"
    )
    assert list(tmp_path.iterdir()) == []
    assert_empty(ledger)


# ---------------------------------------------------------------------------------------------- memory


class Lazy(io.RawIOBase):
    """A file that is made while it is read."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        super().__init__()
        self._blocks = iter(blocks)
        self._rest = b""
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._blocks, b"")
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self.given += count
        return count


def peak_of(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_reading_keeps_no_row_and_reads_no_further_than_it_must() -> None:
    source = Lazy([HEADER, *[GOOD * 1000] * 40])
    blocks = []
    for number, row in enumerate(MessageFile(io.BufferedReader(source), "a file", CSV), start=1):
        assert row.message is not None
        if number % 5000 == 0:
            assert source.given <= len(HEADER) + number * len(GOOD) + io.DEFAULT_BUFFER_SIZE
            blocks.append(sys.getallocatedblocks())
    assert number == 40_000
    assert max(blocks) - blocks[0] < 2000


def test_loading_keeps_no_row(ledger: Ledger) -> None:
    blocks: list[int] = []
    source = io.BufferedReader(Lazy([GOOD_JSON * 1000] * 20))
    load(ledger, MessageFile(source, "a file", NDJSON), on_progress=lambda _: blocks.append(sys.getallocatedblocks()))
    assert len(blocks) == 20
    assert max(blocks[1:]) - blocks[1] < 2000


def test_a_compressed_file_of_4_mb_is_read_in_less_memory(ledger: Ledger, tmp_path: Path) -> None:
    block = gzip.compress(b"9995550100,482913," + b"x" * 20_000 + b"\n")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"to,content,note\n") + block * 200)
    with open_messages(str(tmp_path / "a.csv.gz")) as messages:
        assert peak_of(lambda: [row.problem for row in messages]) < 1_000_000
    assert take(ledger, tmp_path / "a.csv.gz").queued == 200


def test_many_long_rows_are_loaded_in_less_memory(ledger: Ledger) -> None:
    row = orjson.dumps({**MESSAGE, "note": "x" * 1_000_000}) + b"\n"
    messages = MessageFile(io.BufferedReader(Lazy(row for _ in range(100))), "a file", NDJSON)
    assert peak_of(lambda: load(ledger, messages)) < 64_000_000
    assert ledger.counts() == {MessageState.QUEUED: 100}


BOMBS: dict[str, tuple[bytes, bytes, int]] = {
    "one line": (HEADER, b"x" * (1 << 20), 2),
    "a header": (b"", b"to,content," * 100_000, 1),
    "a line of NULs": (HEADER, bytes(1 << 20), 2),
    "a quoted cell": (HEADER + GOOD + b'"', (b"x" * 1023 + b"\n") * 1024, 3),
    "a row without end": (HEADER + GOOD + b'"', (b"x" * 99 + b'","\n' + (b"x" * 99 + b",") * 100) * 100, 3),
}


@pytest.mark.parametrize(("start", "block", "line"), BOMBS.values(), ids=BOMBS.keys())
def test_a_file_that_swells_when_it_is_read_is_refused_before_it_does(
    ledger: Ledger, tmp_path: Path, start: bytes, block: bytes, line: int
) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(start) + gzip.compress(block, 1) * 60)
    errors: list[InputFileError] = []
    peak = peak_of(lambda: errors.append(refusal(lambda: take(ledger, tmp_path / "a.csv.gz"))))
    assert errors[0].line == line
    assert peak < 16_000_000
    assert_empty(ledger)


# ---------------------------------------------------------------------------------------------- anything at all

TOKENS = [
    *(
        b'"',
        b'""',
        b",",
        b";",
        b"\t",
        b"\n",
        b"\r\n",
        b"\r",
        b" ",
        b"\0",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\xc3",
        b"\xe2\x80\xa8",
    ),
    *(
        HEADER,
        GOOD,
        b"to",
        b"content",
        b"note",
        b"9995550100",
        b"482913",
        b"1e12",
        b"expires_at",
        b"2030-12-31T23:59:00Z",
    ),
    *(GOOD_JSON, b'{"to": ', b'"content": ', b"{", b"}", b"[", b"]", b":", b"null", b"-1e5", b"9" * 30, b'"\\ud800"'),
    *(b"cus_message_id", b"api_type", b"x" * 200, b"\x1a", b"\xf0\x9f\x98\x80"),
]
anything = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from(TOKENS), max_size=30).map(b"".join),
    st.tuples(
        st.sampled_from([b"", HEADER, b"to;content;note;expires_at;api_type\n", GOOD_JSON]),
        st.lists(st.sampled_from(TOKENS), max_size=30).map(b"".join),
    ).map(b"".join),
)


@settings(max_examples=300, deadline=None)
@given(data=anything, file_format=st.sampled_from(FileFormat))
def test_whatever_a_file_holds_it_is_loaded_or_refused(data: bytes, file_format: FileFormat) -> None:
    with Ledger(None) as ledger:
        rejected: list[int] = []
        try:
            loaded = take_bytes(ledger, data, file_format, on_reject=lambda row, _: rejected.append(row.line))
        except InputFileError:
            assert_empty(ledger)
        else:
            assert loaded.rejected == len(rejected)
            assert loaded.rows == loaded.queued + loaded.rejected == len(list(ledger.results()))
            assert rejected == sorted(set(rejected))
            assert take_bytes(ledger, data, file_format) == Loaded(loaded.rows, 0, loaded.rows, 0)


@settings(max_examples=100, deadline=None)
@given(data=anything, file_format=st.sampled_from(FileFormat))
def test_the_rejects_of_any_file_can_be_read_again(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, file_format: FileFormat
) -> None:
    directory = tmp_path_factory.mktemp("rejects")
    with Ledger(None) as ledger:
        try:
            loaded, kept = take_with_rejects(ledger, data, directory / "rejects", file_format)
        except InputFileError:
            assert list(directory.iterdir()) == []
            return
    if kept is not None:
        with open_messages(str(kept), file_format) as messages:
            assert len(list(messages)) == loaded.rejected


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, len(INCOMPRESSIBLE) - 1), new=st.integers(0, 255), kept=st.floats(0, 1))
def test_a_compressed_file_with_any_damage_is_loaded_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, new: int, kept: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.csv"
    data = bytearray(INCOMPRESSIBLE)
    data[place] = new
    path.write_bytes(data[: max(place + 1, round(len(data) * kept))])
    with Ledger(None) as ledger:
        try:
            assert take(ledger, path).rows == 99
        except InputFileError:
            assert_empty(ledger)


# ---------------------------------------------------------------------------------------------- canaries

_LEAKS: dict[str, tuple[str, str]] = {
    "a quote without end": ("a.csv", 'to,content\n{row}\n"{row}\n'),
    "text after a quote": ("a.csv", 'to,content\n{row}\n"{row}"{row}\n'),
    "a carriage return": ("a.csv", "to,content\n{row}\n{row}\r{row}\n"),
    "data as a header": ("a.csv", "{row}\n{row}\n"),
    "data as a column twice": ("a.csv", "to,content,{number},{number}\n{row}\n"),
    "two columns for to": ("a.csv", "to,phone,content,{number},{otp}\n{row}\n"),
    "a NUL": ("a.csv", "to,content\n{row}\n{row}\0\n"),
    "a line too long": ("a.csv", "to,content\n{row}\n{row}{long}\n"),
    "a cell too long": ("a.csv", "to,content\n{row}\n{number},{long_cell}\n"),
    "Latin-1": ("a.csv", "to,content\n{row}\n{row}\udcfc\n"),
    "no JSON": ("a.ndjson", "{row}\n"),
    "NDJSON cut short": ("a.ndjson", '{{"to": "{number}", "content": "{otp}"\n'),
    "a list of JSON": ("a.ndjson", '[{{"to": "{number}", "content": "{otp}"}}]\n'),
    "Latin-1 in NDJSON": ("a.ndjson", '{{"to": "{number}", "content": "{otp}"}}\n{row}\udcfc\n'),
    "a NUL in NDJSON": ("a.ndjson", '{{"to": "{number}", "content": "{otp}"}}\n{row}\0\n'),
    "another kind of file": ("a.csv", "PK\x03\x04{row}\n"),
    "UTF-16": ("a.csv", "\udcff\udcfe{row}\n"),
    "no gzip": ("a.csv.gz", "{row}\n"),
    "bad rows": ("a.csv", "to,content\n{row}\n0{row}\n{row}{row}\n{number},{number}\n0{otp},{content}\n{row},\n"),
    "bad NDJSON rows": (
        "a.ndjson",
        """{{"to": "{number}", "content": "{otp}"}}
{row}
{{"to": {otp}, "content": {otp}}}
{{"to": "{number}", "content": "{otp}", "expires_at": "{number}{number}", "x": "{number}"}}
{{"to": "{number}", "content": "{otp}", "api_type": "{otp}"}}
{{"to": "{number}", "content": "{otp}", "language": "{otp}"}}
{{"to": "{number}", "content": "{otp}", "category": "{otp}"}}
""",
    ),
}


def _canary_file(text: str) -> bytes:
    filled = text.format(
        row=f"{_Canary.number},{_Canary.content}",
        number=_Canary.number,
        otp=_Canary.otp,
        content=_Canary.content,
        long=_Canary.otp * 200_000,
        long_cell=_Canary.otp * 20_000,
    )
    return filled.encode(errors="surrogateescape")


@pytest.mark.parametrize(("name", "text"), _LEAKS.values(), ids=_LEAKS.keys())
def test_a_refused_file_leaks_nothing(ledger: Ledger, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(_canary_file(text))
    inspect_error(refusal(lambda: take(ledger, tmp_path / name, strict=True)))


@pytest.mark.parametrize("cut", [40, 8])
def test_a_damaged_file_leaks_nothing(ledger: Ledger, tmp_path: Path, cut: int) -> None:
    rows = "".join(f"{_Canary.number},{_Canary.content},{number}\n" for number in NUMBERS)
    (tmp_path / "a.csv").write_bytes(gzip.compress(f"to,content,note\n{rows}".encode())[:-cut])
    inspect_error(refusal(lambda: take(ledger, tmp_path / "a.csv")))


def test_a_rejects_file_that_cannot_be_written_leaks_nothing(ledger: Ledger, tmp_path: Path) -> None:
    data = _canary_file("to,content\n{row}\n{row},{otp}\n")
    inspect_error(refusal(lambda: take_with_rejects(ledger, data, tmp_path / "missing" / "rejects.csv")))
    with no_file_longer_than(64):
        inspect_error(refusal(lambda: take_with_rejects(ledger, data, tmp_path / "rejects.csv")))


@pytest.mark.parametrize("name", ["bad rows", "bad NDJSON rows"])
def test_rows_and_problems_can_be_printed(ledger: Ledger, tmp_path: Path, name: str) -> None:
    file, text = _LEAKS[name]
    (tmp_path / file).write_bytes(_canary_file(text))
    shown: list[str] = []
    with open_messages(str(tmp_path / file)) as messages:
        loaded = load(ledger, messages, on_reject=lambda row, problem: shown.append(f"{row!r} {problem}"))
        shown.append(f"{loaded!r} {messages!r} {messages.columns}")
    with open_messages(str(tmp_path / file)) as messages:
        shown.extend(map(repr, messages))
    assert loaded.rejected >= 4
    assert loaded.queued == 1
    assert_clean("\n".join(shown), "what is printed of rows")
    kept = [row["reason"] or "" for row in ledger.results()]
    assert_clean("\n".join(kept), "the ledger's reasons")
