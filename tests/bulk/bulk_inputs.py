"""Files of messages, and what is read from them."""

import gzip
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from nxotp_async import InputFileError, OtpMessage
from nxotp_async.bulk import (
    FileFormat,
    Ledger,
    Loaded,
    RejectsFile,
    Row,
    load,
    open_messages,
    read_messages,
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
    return load(ledger, read_messages(io.BytesIO(data), "a file", file_format), **options)


def rows_of(data: bytes | str, file_format: FileFormat = CSV) -> list[Row]:
    text = data.encode() if isinstance(data, str) else data
    return list(read_messages(io.BytesIO(text), "a file", file_format))


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


COMPRESSED = gzip.compress(HEADER + GOOD * 3, mtime=0)


NUMBERS = Random(7).sample(range(10**6), 99)


INCOMPRESSIBLE = gzip.compress(HEADER + b"".join(b"9995550100,%06d\n" % number for number in NUMBERS), mtime=0)


MESSAGE = {"to": "9995550100", "content": "482913"}


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


def take_with_rejects(
    ledger: Ledger, data: bytes, path: Path, file_format: FileFormat = CSV, **options: Any
) -> tuple[Loaded, Path | None]:
    """Load a file as a program does that keeps the rows which are no messages."""
    messages = read_messages(io.BytesIO(data), "a file", file_format)
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


def claimable(ledger: Ledger) -> list[OtpMessage]:
    """Return the messages that may be sent at any time."""
    return [stored.message for stored in ledger.fresh(10, NOW, after=0)]
