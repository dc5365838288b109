"""``nxotp bulk run``: the file that it reads, and the rows that are rejected."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from bulk_commands import GOOD, NO_COUNTRY, bulk, counts_of, lines, mode_of, otps, packed, piped, received, write
from commands import CONTENT, OTP, Env, posix

from nxotp_async.sandbox import Sandbox

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")


# ---------------------------------------------------------------------------------------------- files in


CSV = f"Phone,Code,order\n+999 555 0100,{OTP},A-1\n+999 555 0101,{OTP},A-2\n"
NDJSON = "".join(f'{{"to": "{number}", "content": "{CONTENT}", "order": 1}}\n' for number in GOOD[:2])
FILES = {
    "otps.csv": CSV.encode(),
    "with-a-mark.csv": b"\xef\xbb\xbf" + CSV.encode(),
    "semicolons.csv": CSV.replace(",", ";").encode(),
    "tabs.tsv": CSV.replace(",", "\t").encode(),
    "bars.txt": CSV.replace(",", "|").encode(),
    "carriage-returns.csv": CSV.replace("\n", "\r\n").encode(),
    "otps.ndjson": NDJSON.encode(),
    "otps.jsonl": NDJSON.encode(),
    "otps.csv.gz": packed(CSV),
    "otps.ndjson.gz": packed(NDJSON),
    "packed-all-the-same.csv": packed(CSV),
}


@pytest.mark.parametrize(("name", "content"), FILES.items(), ids=FILES)
def test_a_file_of_any_kind_is_sent(live: Sandbox, account: Env, name: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    result = bulk("run", name, env=account)
    assert result.exit_code == 0
    assert received(live) == list(GOOD[:2])
    assert {message.otp for message in live.messages} == {OTP}
    assert sorted(path.name for path in Path().iterdir()) == sorted((name, f"{name}.ledger"))


def test_every_field_of_a_message_reaches_the_vendor(live: Sandbox, account: Env) -> None:
    row = {
        "Phone": "+999 555 0100",
        "text": CONTENT,
        "Language Code": "pt-BR",
        "category": "utility",
        "cusMessageId": "order-1",
        "DR webhook": "https://example.com/status",
        "api_type": "0",
        "business-phone": "99955500000",
        "expires_at": "4102444800000",
    }
    result = bulk("run", write(",".join(row.values()), header=",".join(row)), env=account)
    assert result.exit_code == 0
    (message,) = live.messages
    assert (message.to, message.content, message.cus_message_id) == (GOOD[0], CONTENT, "order-1")
    names = ("language_code", "category", "dr_webhook", "business_phone", "api_type")
    assert [message.fields[name] for name in names] == [
        "pt_BR",
        "UTILITY",
        "https://example.com/status",
        "99955500000",
        0,
    ]


@pytest.mark.parametrize(("content", "kind"), [(CSV, "csv"), (NDJSON, "ndjson"), (CSV, "CSV")])
@pytest.mark.parametrize("pack", [str.encode, packed], ids=["plain", "gzip"])
def test_standard_input_is_sent(
    live: Sandbox, account: Env, content: str, kind: str, pack: Callable[[str], bytes]
) -> None:
    with piped(pack(content)) as stdin:
        result = bulk("run", "-", "--format", kind, "--ledger", "run.db", env=account, stdin=stdin)
    assert result.exit_code == 0
    assert result.stderr.startswith("2 rows: 2 queued in run.db\n")
    assert received(live) == list(GOOD[:2])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--ledger run.db"),
        (("--format", "csv"), "--ledger run.db"),
        (("--ledger", "run.db"), "--format csv or ndjson"),
    ],
    ids=" ".join,
)
def test_standard_input_needs_a_ledger_and_a_format(
    live: Sandbox, account: Env, options: tuple[str, ...], said: str
) -> None:
    with piped(CSV.encode()) as stdin:
        result = bulk("run", "-", *options, env=account, stdin=stdin)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert not live.requests
    assert not list(Path().iterdir())


def test_a_format_wins_over_the_name(live: Sandbox, account: Env) -> None:
    Path("otps.csv").write_text(NDJSON)
    assert bulk("run", "otps.csv", "--format", "ndjson", env=account).exit_code == 0
    assert received(live) == list(GOOD[:2])


REFUSED: dict[str, tuple[str, bytes, int | None]] = {
    "a quote that never closes": ("otps.csv", f'{CSV}{GOOD[2]},{OTP},A-3\n{GOOD[3]},{OTP},"A\n{CSV}'.encode(), 5),
    "half a gzip": ("otps.csv.gz", packed(CSV)[:-12], None),
    "another encoding": ("otps.csv", f"{CSV}{GOOD[2]},{OTP},Müller\n".encode("latin-1"), 4),
    "UTF-16": ("otps.csv", CSV.encode("utf-16"), 1),
    "a NUL byte": ("otps.csv", f"{CSV}\0\n".encode(), 4),
    "no column names": ("otps.csv", "".join(f"{line}\n" for line in lines(*GOOD[:2])).encode(), 1),
    "two columns of one field": ("otps.csv", f"to,content,phone\n{GOOD[0]},{OTP},{GOOD[0]}\n".encode(), 1),
    "a list of objects": ("otps.ndjson", f'[{{"to": "{GOOD[0]}", "content": "{OTP}"}}]'.encode(), 1),
    "nothing at all": ("otps.csv", b"", None),
    "no rows": ("otps.csv", b"to,content\n", None),
    "a spreadsheet": ("otps.csv", b"PK\x03\x04rest of it", None),
    "no gzip": ("otps.csv.gz", CSV.encode(), None),
    "a name that tells nothing": ("otps.xlsx", CSV.encode(), None),
}


@pytest.mark.parametrize(("name", "content", "line"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_a_file_that_cannot_be_read_to_its_end_is_refused_as_a_whole(
    live: Sandbox, account: Env, name: str, content: bytes, line: int | None, options: tuple[str, ...]
) -> None:
    Path(name).write_bytes(content)
    result = bulk("run", name, *options, env=account)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("nxotp: ")
    assert result.stderr.count("\n") == 1
    assert name in result.stderr
    if line is not None:
        assert f"{name}, line {line}: " in result.stderr
    assert not live.requests
    assert not list(Path().glob("*.ledger*"))
    assert not list(Path().glob("*rejects*"))


@pytest.mark.parametrize("name", ["no-such.csv", "folder", "folder/"])
def test_a_file_that_is_none_is_refused_by_its_name(account: Env, name: str) -> None:
    Path("folder").mkdir()
    result = bulk("run", name, "--format", "csv", env=account)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.match(rf"nxotp: {name.removesuffix('/')} cannot be (opened|read): ", result.stderr)


def test_the_same_command_once_more_sends_nothing_twice(live: Sandbox, account: Env) -> None:
    file = otps(*GOOD[:20], "0555")
    first = bulk("run", file, env=account)
    second = bulk("run", file, env=account)
    assert (first.exit_code, second.exit_code) == (1, 1)
    assert (
        first.stderr.splitlines()[1] == "21 rows: 20 queued in otps.csv.ledger, 1 invalid, written to otps.rejects.csv"
    )
    assert second.stderr.splitlines()[0] == "21 rows: 0 queued in otps.csv.ledger, 21 already there"
    assert first.stdout == second.stdout
    assert len(live.requests) == 20
    assert received(live) == list(GOOD[:20])
    assert [path.name for path in Path().glob("*rejects*")] == ["otps.rejects.csv"]


def test_rows_that_were_added_meanwhile_are_all_that_is_sent(live: Sandbox, account: Env) -> None:
    bulk("run", otps(*GOOD[:2]), env=account)
    result = bulk("run", otps(*GOOD[:3]), env=account)
    assert result.stderr.startswith("3 rows: 1 queued in otps.csv.ledger, 2 already there\n")
    assert received(live) == list(GOOD[:3])


def test_rows_with_ids_are_known_by_them_wherever_they_stand(live: Sandbox, account: Env) -> None:
    rows = [f"{number},{CONTENT},id-{number}" for number in GOOD[:3]]
    header = "to,content,cus_message_id"
    bulk("run", write(*rows, header=header), env=account)
    bulk("run", write(*reversed(rows), header=header), env=account)
    assert received(live) == list(GOOD[:3])


# ---------------------------------------------------------------------------------------------- bad rows


def test_a_dry_run_reports_every_bad_row_and_sends_nothing(live: Sandbox, account: Env) -> None:
    rows = [*lines(GOOD[0], "0555 0100"), f"{GOOD[1]},no code", f"{GOOD[2]},{CONTENT},more"]
    result = bulk("run", write(*rows), "--dry-run", env=account)
    assert result.exit_code == 1
    assert result.stdout == (
        f"line 3: {NO_COUNTRY}\n"
        "line 4: content holds no code (it must hold exactly one run of 4 to 8 digits)\n"
        "line 5: has 3 cells, not 2\n"
    )
    assert result.stderr == "4 rows: 1 valid, 3 invalid; nothing was sent\n"
    assert not live.requests
    assert [path.name for path in Path().iterdir()] == ["otps.csv"]


def test_a_dry_run_as_json_is_alone_on_stdout() -> None:
    result = bulk("run", otps(GOOD[0], "0555"), "--dry-run", "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    assert json.loads(result.stdout) == {
        "rows": 2,
        "good": 1,
        "bad": 1,
        "rejects": [{"line": 3, "problem": NO_COUNTRY}],
    }


def test_a_dry_run_needs_no_account_and_a_good_file_passes_it() -> None:
    result = bulk("run", otps(*GOOD[:2]), "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "2 rows: 2 valid, 0 invalid; nothing was sent\n"
    as_json = bulk("run", otps(*GOOD[:2]), "--dry-run", "--json")
    assert json.loads(as_json.stdout) == {"rows": 2, "good": 2, "bad": 0, "rejects": []}


def test_a_dry_run_of_standard_input_needs_no_ledger() -> None:
    with piped(CSV.encode()) as stdin:
        result = bulk("run", "-", "--format", "csv", "--dry-run", stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, "2 rows: 2 valid, 0 invalid; nothing was sent\n")


def test_with_strict_a_bad_row_stops_everything(live: Sandbox, account: Env) -> None:
    result = bulk("run", otps(GOOD[0], "0555"), "--strict", env=account)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"line 3: {NO_COUNTRY}\nnxotp: otps.csv: 1 of 2 rows are invalid (nothing was loaded or sent)\n"
    )
    assert (list(Path().glob("*.ledger*")), len(live.requests)) == ([], 0)
    assert not list(Path().glob("*rejects*"))


def test_a_good_file_passes_strict(live: Sandbox, account: Env) -> None:
    assert bulk("run", otps(GOOD[0]), "--strict", env=account).exit_code == 0
    assert received(live) == [GOOD[0]]


def test_no_more_than_twenty_bad_rows_are_shown(account: Env) -> None:
    result = bulk("run", otps(GOOD[0], *["0555"] * 25), env=account)
    shown = result.stderr.splitlines()
    assert sum(line.startswith("line ") for line in shown) == 20
    assert shown[20] == "... and 5 more invalid rows"
    assert len(Path("otps.rejects.csv").read_text().splitlines()) == 26


@posix
def test_bad_rows_are_set_aside_as_they_were_with_what_is_wrong(account: Env) -> None:
    file = write(f"{GOOD[0]},{CONTENT},A", f'0555,{CONTENT},"B, C"', header="to,content,order")
    bulk("run", file, env=account)
    with Path("otps.rejects.csv").open(newline="") as rejects:
        assert list(csv.reader(rejects)) == [
            ["rejected_line", "rejected_reason", "to", "content", "order"],
            ["3", NO_COUNTRY, "0555", CONTENT, "B, C"],
        ]
    assert mode_of("otps.rejects.csv") == 0o600


def test_bad_lines_of_ndjson_are_set_aside_as_ndjson(account: Env) -> None:
    Path("otps.ndjson").write_text(f'{NDJSON}{{"to": "0555", "content": "{CONTENT}"}}\nnot JSON\n')
    result = bulk("run", "otps.ndjson", env=account)
    assert result.exit_code == 1
    rejected = [json.loads(line) for line in Path("otps.rejects.ndjson").read_text().splitlines()]
    assert rejected == [
        {"rejected_line": 3, "rejected_reason": NO_COUNTRY, "to": "0555", "content": CONTENT},
        {"rejected_line": 4, "rejected_reason": "is no JSON object", "rejected_text": "not JSON"},
    ]


@pytest.mark.parametrize(
    ("file", "options", "rejects"),
    [
        ("otps.csv", (), "otps.rejects.csv"),
        ("otps.csv.gz", (), "otps.rejects.csv"),
        ("otps.2026.txt", (), "otps.2026.rejects.csv"),
        ("otps", ("--format", "csv"), "otps.rejects.csv"),
        ("folder/otps.csv", (), "folder/otps.rejects.csv"),
        ("otps.csv", ("--ledger", "folder/run.db"), "otps.rejects.csv"),
        ("otps.csv", ("--rejects", "folder/bad.csv"), "folder/bad.csv"),
        ("-", ("--format", "csv", "--ledger", "run.db"), "run.rejects.csv"),
        ("-", ("--format", "csv", "--ledger", "folder/run.db"), "folder/run.rejects.csv"),
        ("-", ("--format", "csv", "--ledger", "run.db", "--rejects", "bad.csv"), "bad.csv"),
    ],
)
def test_the_rejects_have_a_name_of_their_own(account: Env, file: str, options: tuple[str, ...], rejects: str) -> None:
    Path("folder").mkdir()
    text = "".join(f"{line}\n" for line in ("to,content", *lines(GOOD[0], "0555")))
    content = packed(text) if file.endswith(".gz") else text.encode()
    if file != "-":
        Path(file).write_bytes(content)
    with piped(content) as stdin:
        result = bulk("run", file, *options, env=account, stdin=stdin)
    assert result.exit_code == 1
    assert f", 1 invalid, written to {rejects}\n" in result.stderr
    assert Path(rejects).read_text().splitlines()[1].startswith("3,")
    assert len(list(Path().glob("**/*rejects*"))) == ("rejects" in rejects)


def test_corrected_rejects_go_into_the_same_ledger(live: Sandbox, account: Env) -> None:
    bulk("run", otps(GOOD[0], "0999 555 0101"), env=account)
    rejects = Path("otps.rejects.csv")
    rejects.write_text(rejects.read_text().replace("0999", "+999"))
    result = bulk("run", "otps.rejects.csv", "--ledger", "otps.csv.ledger", env=account)
    assert result.stderr.startswith("1 rows: 1 queued in otps.csv.ledger\n")
    assert received(live) == list(GOOD[:2])
    assert counts_of() == {"accepted": 2}


def test_rejects_that_were_worked_on_are_left_alone(account: Env) -> None:
    bulk("run", otps("0555"), env=account)
    Path("otps.rejects.csv").write_text("worked on\n")
    result = bulk("run", otps("0555", "0556"), env=account)
    assert "1 already there, 1 invalid, written to otps.rejects-2.csv" in result.stderr
    assert Path("otps.rejects.csv").read_text() == "worked on\n"
    assert "0556" in Path("otps.rejects-2.csv").read_text()


def test_rejects_that_cannot_be_written_stop_everything(live: Sandbox, account: Env) -> None:
    result = bulk("run", otps(GOOD[0], "0555"), "--rejects", "no-such/bad.csv", env=account)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "nxotp: the rejects file no-such/bad.csv cannot be written: " in result.stderr
    assert "nothing was loaded or sent" in result.stderr
    assert (len(live.requests), list(Path().glob("*.ledger*"))) == (0, [])
