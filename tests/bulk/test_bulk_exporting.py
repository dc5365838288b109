import csv
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from bulk_ledgers import (
    ACCEPTED,
    CODE,
    NOW,
    REJECTED,
    TO,
    UNKNOWN,
    ProbedLedger,
    bad_entry,
    begin,
    claim,
    entry,
    record,
    states,
    take,
)

from nxotp_async import InputFileError
from nxotp_async.bulk import FileFormat, Ledger, export, load, open_messages
from nxotp_async.bulk.schema import Transition
from nxotp_async.phone_numbers import mask_number


@pytest.fixture
def ledger() -> Iterator[ProbedLedger]:
    with ProbedLedger(None) as ledger:
        yield ledger


# ---------------------------------------------------------------------------------------------- export


def exported(ledger: ProbedLedger, file_format: FileFormat, **options: Any) -> str:
    output = io.StringIO(newline="")
    count = export(ledger, output, file_format, **options)
    assert count == len(states(ledger))
    return output.getvalue()


def ended(ledger: ProbedLedger) -> None:
    """Bring three rows to their ends, and leave a fourth in the queue."""
    take(
        ledger,
        entry(1, extra={"name": "Bo", "line": "A-7"}),
        entry(2, to="9995550102", extra={"name": "", "line": "A-8"}),
        entry(3, to="9995550103", extra={"name": "Al, the 2nd", "line": "A-9"}),
        columns=["name", "line"],
    )
    take(ledger, entry(4, to="9995550104", extra={"shop": "S"}), columns=["shop"])
    begin(ledger)
    claim(ledger, 3, now=NOW + 0.25)
    record(
        ledger,
        Transition(3, UNKNOWN, 1, error="OutcomeUnknownError", reason="reset"),
        Transition(1, ACCEPTED, 1, message_id="wamid.1"),
        Transition(2, REJECTED, 2, code=9099, meta_code=131026, error="MetaError", reason='"no", it said'),
        now=NOW + 1.0625,
    )


def test_an_export_to_csv_has_one_row_for_each_of_the_input(ledger: ProbedLedger) -> None:
    ended(ledger)
    assert exported(ledger, FileFormat.CSV) == (
        "line,cus_message_id,to,status,message_id,code,meta_code,error,reason,attempts,receipt,sent_at,finished_at,"
        "price,foreign_price,currency,name,input_line,shop\n"
        "2,id-1,9995550100,accepted,wamid.1,,,,,1,,"
        "2001-09-09T01:46:40.250+00:00,2001-09-09T01:46:41.062+00:00,,,,Bo,A-7,\n"
        '3,id-2,9995550102,rejected,,9099,131026,MetaError,"""no"", it said",2,,'
        "2001-09-09T01:46:40.250+00:00,2001-09-09T01:46:41.062+00:00,,,,,A-8,\n"
        "4,id-3,9995550103,unknown,,,,OutcomeUnknownError,reset,1,,"
        '2001-09-09T01:46:40.250+00:00,2001-09-09T01:46:41.062+00:00,,,,"Al, the 2nd",A-9,\n'
        "5,id-4,9995550104,queued,,,,,,0,,,,,,,,,S\n"
    )


UNPRICED: dict[str, Any] = dict.fromkeys(("price", "foreign_price", "currency"))


def test_an_export_to_ndjson_has_one_object_for_each_row_of_the_input(ledger: ProbedLedger) -> None:
    ended(ledger)
    ledger.resolve({"id-1": "read"}, by_callback=True)
    lines = exported(ledger, FileFormat.NDJSON).splitlines()
    first, second, _, fourth = [orjson.loads(line) for line in lines]
    assert first.pop("finished_at") > "2001-09-09"
    assert first == {
        "line": 2, "cus_message_id": "id-1", "to": "9995550100", "status": "accepted", "message_id": "wamid.1",
        "code": None, "meta_code": None, "error": None, "reason": None, "attempts": 1, "receipt": "read",
        "sent_at": "2001-09-09T01:46:40.250+00:00", **UNPRICED, "name": "Bo", "input_line": "A-7",
    }  # fmt: skip
    assert (second["code"], second["meta_code"], second["attempts"]) == (9099, 131026, 2)
    assert fourth == {
        "line": 5, "cus_message_id": "id-4", "to": "9995550104", "status": "queued", "message_id": None, "code": None,
        "meta_code": None, "error": None, "reason": None, "attempts": 0, "receipt": None, "sent_at": None,
        "finished_at": None, **UNPRICED, "shop": "S",
    }  # fmt: skip


def test_rows_that_are_no_messages_are_exported_in_their_places(ledger: ProbedLedger) -> None:
    take(ledger, bad_entry(1, extra={"name": "Bo"}), entry(2), bad_entry(3, "content is missing"), columns=["name"])
    rows = list(csv.DictReader(io.StringIO(exported(ledger, FileFormat.CSV))))
    assert [(row["line"], row["to"], row["status"], row["reason"], row["name"]) for row in rows] == [
        ("2", "", "not_sent", "to is missing", "Bo"),
        ("3", TO, "queued", "", ""),
        ("4", "", "not_sent", "content is missing", ""),
    ]


@pytest.mark.parametrize("file_format", FileFormat)
def test_numbers_are_shown_as_asked_for(ledger: ProbedLedger, file_format: FileFormat) -> None:
    take(ledger, entry(1), bad_entry(2))
    text = exported(ledger, file_format, show_number=mask_number)
    assert TO not in text
    assert "99******00" in text


@pytest.mark.parametrize("file_format", FileFormat)
def test_no_row_holds_a_code(ledger: ProbedLedger, file_format: FileFormat) -> None:
    ended(ledger)
    assert CODE not in exported(ledger, file_format)


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (["status"], ["input_status"]),
        (["status", "input_status"], ["input_status", "input_input_status"]),
        (["input_status", "status"], ["input_status", "input_input_status"]),
        (["to", "Status", "extra", "content_"], ["input_to", "Status", "extra", "content_"]),
        (["code", "input_code", "input_input_code"], ["input_code", "input_input_code", "input_input_input_code"]),
    ],
)
@pytest.mark.parametrize("file_format", FileFormat)
def test_a_column_that_is_called_like_a_result_gets_another_name(
    ledger: ProbedLedger, file_format: FileFormat, columns: list[str], names: list[str]
) -> None:
    take(ledger, entry(1, extra={name: f"of {name}" for name in columns}), columns=columns)
    text = exported(ledger, file_format)
    if file_format is FileFormat.CSV:
        assert text.splitlines()[0].split(",")[16:] == names
        (exported_row,) = csv.DictReader(io.StringIO(text))
    else:
        exported_row = orjson.loads(text)
        assert list(exported_row)[16:] == names
    assert [exported_row[name] for name in names] == [f"of {name}" for name in columns]
    assert exported_row["status"] == "queued"


_NESTED: dict[str, Any] = {
    "object": {"a": [1, {"b": None}], "ö": "牛"}, "list": [], "integer": 5, "float": 0.25, "true": True, "null": None,
    "text": "true", "zeros": "007",
}  # fmt: skip


def test_extra_values_of_any_kind_survive_an_export_to_ndjson(ledger: ProbedLedger) -> None:
    take(ledger, entry(1, extra=_NESTED), columns=list(_NESTED))
    result = orjson.loads(exported(ledger, FileFormat.NDJSON))
    assert {name: result[name] for name in _NESTED} == _NESTED


def test_extra_values_that_are_no_texts_are_json_in_an_export_to_csv(ledger: ProbedLedger) -> None:
    take(ledger, entry(1, extra=_NESTED), columns=list(_NESTED))
    (result,) = csv.DictReader(io.StringIO(exported(ledger, FileFormat.CSV)))
    assert {name: result[name] for name in _NESTED} == {
        "object": '{"a":[1,{"b":null}],"ö":"牛"}', "list": "[]", "integer": "5", "float": "0.25", "true": "true",
        "null": "", "text": "true", "zeros": "007",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["a,b", 'say "no"', "a\nb", "a\r\nb", "a\rb", " a ", "牛 😀", "", "a;b\tc"], ids=repr)
@pytest.mark.parametrize("file_format", FileFormat)
def test_any_text_of_the_input_can_be_read_back(ledger: ProbedLedger, file_format: FileFormat, text: str) -> None:
    take(ledger, entry(1, extra={"name": text, "last": "z"}), entry(2), columns=["name", "last"])
    output = exported(ledger, file_format)
    if file_format is FileFormat.CSV:
        rows: list[Mapping[str, Any]] = list(csv.DictReader(io.StringIO(output, newline="")))
    else:
        rows = [orjson.loads(line) for line in output.split("\n")[:-1]]
    assert len(rows) == 2
    assert (rows[0]["name"], rows[0]["last"]) == (text, "z")
    assert rows[1]["cus_message_id"] == "id-2"


def test_an_empty_ledger_is_exported_as_its_header(ledger: ProbedLedger) -> None:
    assert exported(ledger, FileFormat.CSV).count("\n") == 1
    assert exported(ledger, FileFormat.NDJSON) == ""


# ---------------------------------------------------------------------------------------------- an export as input


def refusal_of(text: str, path: Path) -> str:
    """Return why a file is refused; nothing of it is taken in."""
    path.write_text(text, encoding="utf-8")
    with Ledger(None) as ledger:
        with pytest.raises(InputFileError) as caught, open_messages(str(path)) as file:
            load(ledger, file)
        assert ledger.counts() == {}
    return str(caught.value)


def rearranged(text: str, names: list[str] | None = None, delimiter: str = ",") -> str:
    """Return a CSV export as a spreadsheet may save it."""
    rows = list(csv.DictReader(io.StringIO(text)))
    output = io.StringIO()
    writer = csv.DictWriter(output, names or sorted(rows[0]), extrasaction="ignore", delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return output.getvalue()


_TRIMMED = ["to", "status", "code", "meta_code"]


@pytest.mark.parametrize(
    "dress",
    [
        pytest.param(lambda text: text, id="as it was written"),
        pytest.param(lambda text: "\n" + text, id="after a blank line"),
        pytest.param(lambda text: "\ufeff" + text, id="byte order mark"),
        pytest.param(rearranged, id="columns in another order"),
        pytest.param(lambda text: rearranged(text, delimiter=";"), id="semicolons"),
        pytest.param(lambda text: rearranged(text, _TRIMMED), id="few columns"),
        pytest.param(lambda text: rearranged(text, _TRIMMED).replace("meta_code", "Meta Code"), id="another spelling"),
    ],
)
def test_an_export_to_csv_is_refused_as_input_before_a_vendors_code_is_sent_as_an_otp(
    ledger: ProbedLedger, tmp_path: Path, dress: Callable[[str], str]
) -> None:
    ended(ledger)
    text = dress(exported(ledger, FileFormat.CSV))
    assert refusal_of(text, tmp_path / "results.csv") == (
        f"results.csv, line {text.startswith(chr(10)) + 1}: is a file of results: its codes are the vendor's, no OTPs "
        "(run the file of messages, or resume its ledger)"
    )


@pytest.mark.parametrize(
    "before", ["", '{"to": "9995550100", "content": "482913"}\n'], ids=["alone", "behind messages"]
)
def test_an_export_to_ndjson_is_refused_as_input_too(ledger: ProbedLedger, tmp_path: Path, before: str) -> None:
    ended(ledger)
    text = before + exported(ledger, FileFormat.NDJSON)
    assert refusal_of(text, tmp_path / "results.ndjson") == (
        f"results.ndjson, line {before.count(chr(10)) + 1}: is a file of results: its codes are the vendor's, no OTPs "
        "(run the file of messages, or resume its ledger)"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("otps.csv", "line,phone,status,code,error,reason\n7,9995550100,new,482913,,\n"),
        ("otps.ndjson", '{"line": 7, "phone": "9995550100", "status": "new", "code": "482913", "error": null}\n'),
    ],
)
def test_messages_with_columns_that_results_have_too_are_taken(
    ledger: ProbedLedger, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    with open_messages(str(tmp_path / name)) as file:
        assert load(ledger, file).queued == 1
