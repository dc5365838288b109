"""Any input at all: in bounded memory, loaded or refused, and without a leak."""

import gzip
import io
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from bulk_inputs import (
    CSV,
    GOOD,
    GOOD_JSON,
    HEADER,
    INCOMPRESSIBLE,
    MESSAGE,
    NDJSON,
    NUMBERS,
    assert_empty,
    no_file_longer_than,
    refusal,
    take,
    take_bytes,
    take_with_rejects,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_canary import _Canary, assert_clean, inspect_error

from nxotp_async import InputFileError
from nxotp_async.bulk import (
    FileFormat,
    Ledger,
    Loaded,
    MessageState,
    load,
    open_messages,
    read_messages,
)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(None) as ledger:
        yield ledger


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
    for number, row in enumerate(read_messages(io.BufferedReader(source), "a file", CSV), start=1):
        assert row.message is not None
        if number % 5000 == 0:
            assert source.given <= len(HEADER) + number * len(GOOD) + io.DEFAULT_BUFFER_SIZE
            blocks.append(sys.getallocatedblocks())
    assert number == 40_000
    assert max(blocks) - blocks[0] < 2000


def test_loading_keeps_no_row(ledger: Ledger) -> None:
    blocks: list[int] = []
    source = io.BufferedReader(Lazy([GOOD_JSON * 1000] * 20))
    load(ledger, read_messages(source, "a file", NDJSON), on_progress=lambda _: blocks.append(sys.getallocatedblocks()))
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
    messages = read_messages(io.BufferedReader(Lazy(row for _ in range(100))), "a file", NDJSON)
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
