import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from bulk_inputs import (
    CSV,
    GOOD,
    GOOD_JSON,
    HEADER,
    NDJSON,
    SHORT_NUMBER,
    assert_empty,
    no_file_longer_than,
    only_row,
    refusal,
    rows_of,
    take_bytes,
    take_with_rejects,
)

from nxotp_async.bulk import (
    FileFormat,
    Ledger,
    Loaded,
)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(None) as ledger:
        yield ledger


# ---------------------------------------------------------------------------------------------- the rejects file


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
