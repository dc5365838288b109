"""``nxotp bulk export``."""

import csv
import io
import json
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bulk_commands import GOOD, LOST, NO_COUNTRY, REJECTED, bulk, counts_of, ledger_of, mode_of, write
from click.testing import CliRunner
from commands import CONTENT, OTP, Env, Start, assert_clean, finish, posix

from nxotp_async.cli import nxotp

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")


COLUMNS = (
    "line",
    "cus_message_id",
    "to",
    "status",
    "message_id",
    "code",
    "meta_code",
    "error",
    "reason",
    "attempts",
    "receipt",
    "sent_at",
    "finished_at",
    "price",
    "foreign_price",
    "currency",
)


def exported(*arguments: str) -> list[dict[str, str]]:
    result = bulk("export", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return list(csv.DictReader(io.StringIO(result.stdout)))


@pytest.fixture
def sent(account: Env) -> str:
    """The ledger of a run with one outcome of each kind, and columns of its own."""
    rows = [
        f"{GOOD[0]},{CONTENT},id-1,A-1,gold",
        f"{REJECTED},{CONTENT},id-2,A-2,",
        f"0555,{CONTENT},id-3,A-3,tin",
        f"{LOST},{CONTENT},id-4,A-4,",
        f"999100131026,{CONTENT},id-5,A-5,",
    ]
    file = write(*rows, header="to,content,cus_message_id,order,status")
    assert bulk("run", file, env=account).exit_code == 6
    return "otps.csv.ledger"


def test_an_export_has_a_row_for_each_of_the_input_in_its_order(sent: str) -> None:
    before = datetime.now(UTC)
    rows = exported(sent)
    assert tuple(rows[0]) == (*COLUMNS, "order", "input_status")
    assert [row["line"] for row in rows] == ["2", "3", "4", "5", "6"]
    assert [row["order"] for row in rows] == ["A-1", "A-2", "A-3", "A-4", "A-5"]
    assert [row["input_status"] for row in rows] == ["gold", "", "tin", "", ""]
    assert [row["status"] for row in rows] == ["accepted", "rejected", "not_sent", "unknown", "rejected"]
    assert [row["to"] for row in rows] == [GOOD[0], REJECTED, "", LOST, "999100131026"]
    assert [row["message_id"] for row in rows] == ["id-1", "", "", "", ""]
    assert [(row["code"], row["meta_code"]) for row in rows] == [
        ("", ""),
        ("9015", ""),
        ("", ""),
        ("", ""),
        ("9099", "131026"),
    ]
    assert [row["attempts"] for row in rows] == ["1", "1", "0", "1", "1"]
    assert [row["error"] for row in rows] == [
        "",
        "OtpContentError",
        "InvalidMessageError",
        "OutcomeUnknownError",
        "MetaError",
    ]
    assert (rows[0]["reason"], rows[2]["reason"]) == ("", NO_COUNTRY)
    assert [bool(row["sent_at"]) for row in rows] == [True, True, False, True, True]
    for row in rows:
        finished = datetime.fromisoformat(row["finished_at"])
        assert finished.utcoffset() is not None
        assert abs((before - finished).total_seconds()) < 60


def test_an_export_as_ndjson_has_the_same_rows(sent: str) -> None:
    result = bulk("export", sent, "--format", "ndjson")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.exit_code, len(rows)) == (0, 5)
    assert tuple(rows[0]) == (*COLUMNS, "order", "input_status")
    assert {name: rows[4][name] for name in ("line", "code", "meta_code", "attempts", "message_id", "receipt")} == {
        "line": 6,
        "code": 9099,
        "meta_code": 131026,
        "attempts": 1,
        "message_id": None,
        "receipt": None,
    }
    for row, text in zip(rows, exported(sent), strict=True):
        assert {name: "" if value is None else str(value) for name, value in row.items()} == text


@posix
@pytest.mark.parametrize(
    ("name", "options", "is_json"),
    [
        ("results.csv", (), False),
        ("results", (), False),
        ("results.ndjson", (), True),
        ("results.jsonl", (), True),
        ("results.csv", ("--format", "ndjson"), True),
        ("results.ndjson", ("--format", "csv"), False),
    ],
)
def test_an_export_to_a_file_is_in_the_format_of_its_name_and_private(
    sent: str, name: str, options: tuple[str, ...], is_json: bool
) -> None:
    before = os.umask(0)
    try:
        result = bulk("export", sent, "-o", name, *options)
    finally:
        os.umask(before)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"5 rows written to {name}\n")
    assert mode_of(name) == 0o600
    assert Path(name).read_text().startswith('{"line":2,' if is_json else "line,cus_message_id,to,")
    assert OTP not in Path(name).read_text()
    assert len(Path(name).read_text().splitlines()) == 5 + (not is_json)


@pytest.mark.parametrize("name", ["results.csv", "results.ndjson"])
@pytest.mark.parametrize("before", ["longer", "without further columns", "empty"])
def test_an_export_takes_the_place_of_the_one_before(sent: str, name: str, before: str) -> None:
    others = {
        "longer": (*(f"{GOOD[0]},{CONTENT},x-{number},gold,1" for number in range(50)),),
        "without further columns": (f"{GOOD[0]},{CONTENT},x",),
    }
    if before == "empty":
        Path(name).touch()
    else:
        header = "to,content,cus_message_id" + (",order,status" if before == "longer" else "")
        other = ledger_of(*others[before], header=header)
        assert bulk("export", other, "-o", name).exit_code == 0
    assert bulk("export", sent, "--output", name).exit_code == 0
    assert Path(name).read_text() == bulk("export", sent, "--format", Path(name).suffix[1:]).stdout


RESULT_LINE = ",".join(COLUMNS)
RESULT_ROW = json.dumps(dict.fromkeys(COLUMNS))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("otps.csv", None, id="the input"),
        pytest.param("otps.rejects.csv", None, id="its rejects"),
        pytest.param("notes.txt", "something\n", id="a text"),
        pytest.param("notes.csv", "\n", id="an empty line"),
        pytest.param("notes.csv", "line,cus_message_id,to\n", id="a few of the columns"),
        pytest.param("notes.csv", f"{RESULT_LINE}x\n", id="a column whose name is longer"),
        pytest.param("results.csv", RESULT_ROW + "\n", id="NDJSON where CSV is asked for"),
        pytest.param("results.ndjson", f"{RESULT_LINE}\n", id="CSV where NDJSON is asked for"),
        pytest.param("notes.ndjson", '{"line": 1}\n', id="another object"),
        pytest.param("notes.ndjson", "[]\n", id="no object"),
        pytest.param("notes.csv", "\x00\ufffd" * 1000, id="no text"),
        pytest.param("notes.csv", '"' + "x" * 200_000, id="a cell without end"),
    ],
)
def test_an_export_replaces_nothing_that_is_no_export_unless_forced(sent: str, name: str, text: str | None) -> None:
    if text is not None:
        Path(name).write_text(text)
    before = Path(name).read_bytes()
    result = bulk("export", sent, "-o", name)
    assert (result.exit_code, result.stdout) == (2, "")
    file_format = "NDJSON" if name.endswith("ndjson") else "CSV"
    assert result.stderr == (
        f"nxotp: {name} exists, and is not an earlier export in {file_format}: choose another name, or use --force\n"
    )
    assert Path(name).read_bytes() == before
    assert bulk("export", sent, "-o", name, "--force").exit_code == 0
    assert len(Path(name).read_text().splitlines()) == 5 + (file_format == "CSV")


@posix
@pytest.mark.parametrize("options", [(), ("--force",)])
def test_an_export_replaces_no_device_and_no_pipe(sent: str, options: tuple[str, ...]) -> None:
    os.mkfifo("pipe")
    result = bulk("export", sent, "-o", "pipe", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        result.stderr
        == "nxotp: cannot write pipe: it is not a regular file; redirect standard output instead of --output\n"
    )
    assert Path("pipe").is_fifo()


@posix
def test_an_export_leaves_its_neighbours_and_a_link_to_its_output_as_they_are(sent: str) -> None:
    Path("kept").mkdir()
    Path("results.csv").symlink_to("kept/results.csv")
    neighbours = ["results.csv.part", "kept/results.csv.part"]
    for name in neighbours:
        Path(name).write_text("mine")
    for _ in range(2):
        assert bulk("export", sent, "-o", "results.csv").exit_code == 0
    assert [Path(name).read_text() for name in neighbours] == ["mine", "mine"]
    assert Path("results.csv").is_symlink()
    assert sorted(path.name for path in Path("kept").iterdir()) == ["results.csv", "results.csv.part"]


@pytest.mark.parametrize("path", ["no-such/results.csv", "folder", "x" * 300, "loop"])
def test_an_export_that_cannot_be_written_says_so(path: str) -> None:
    Path("folder").mkdir()
    Path("loop").symlink_to("loop/loop")
    result = bulk("export", ledger_of(f"{GOOD[0]},{CONTENT},a"), "-o", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(rf"nxotp: cannot write {path}: .+\n", result.stderr)


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_an_export_does_not_take_the_place_of_its_ledger(options: tuple[str, ...]) -> None:
    ledger = ledger_of(f"{GOOD[0]},{CONTENT},a")
    result = bulk("export", ledger, "-o", f"./{ledger}", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert counts_of(ledger) == {"queued": 1}


def test_an_export_to_an_output_of_few_letters_is_no_crash() -> None:
    ledger = ledger_of(f"{GOOD[0]},{CONTENT},a,Ünal", header="to,content,cus_message_id,name")
    result = CliRunner(charset="ascii").invoke(nxotp, ["bulk", "export", ledger], prog_name="nxotp")
    assert isinstance(result.exception, SystemExit | None)
    assert result.exit_code in (0, 2)


@posix
def test_at_a_terminal_an_export_masks_the_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal, its_side = os.openpty()
    with os.fdopen(its_side, "w") as stdout, os.fdopen(terminal, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stdout", stdout)
        nxotp.main(["bulk", "export", ledger_of(f"{GOOD[0]},{CONTENT},a")], "nxotp", standalone_mode=False)
        shown = screen.read(10_000).decode()
    assert ",a,99******00,queued," in shown
    assert_clean(shown + capsys.readouterr().err)


@posix
def test_an_export_whose_reader_has_had_enough_ends_in_silence(start: Start) -> None:
    process = start("bulk", "export", ledger_of(*(f"{GOOD[0]},{CONTENT},row-{number}" for number in range(2000))))
    assert process.stdout is not None
    assert process.stdout.readline().startswith("line,")
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


@posix
def test_what_cannot_be_printed_is_told(start: Start) -> None:
    Path(ledger_of(f"{GOOD[0]},{CONTENT},a")).rename("other.db")
    with Path("/dev/full").open("w") as full:
        status = start("bulk", "status", "other.db", stdout=full, env={"PYTHONUNBUFFERED": "1"})
        export = start("bulk", "export", ledger_of(f"{GOOD[0]},{CONTENT},a"), stdout=full)
        results = [finish(process) for process in (status, export)]
    said = "nxotp: cannot write to standard output: No space left on device\n"
    assert [(code, err.partition("continue with")[0]) for code, _, err in results] == [(0, said), (2, said)]
