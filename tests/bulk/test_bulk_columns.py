import csv
import io
from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from bulk_inputs import CELLS, COMPUTED, MESSAGE, NDJSON, message_of, only_row

from nxotp_async import OtpMessage
from nxotp_async.bulk import (
    Row,
)

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
        ("+999.555.0100", "9995550100"),
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
