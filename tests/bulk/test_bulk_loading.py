from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from bulk_inputs import (
    CELLS,
    GOOD,
    GOOD_JSON,
    HEADER,
    NDJSON,
    SHORT_NUMBER,
    assert_empty,
    claimable,
    refusal,
    take,
    take_bytes,
)

from nxotp_async import InputFileError
from nxotp_async.bulk import (
    Ledger,
    Loaded,
    MessageState,
)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(None) as ledger:
        yield ledger


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
    ("ids", "duplicates"),
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
    ledger: Ledger, ids: list[str], duplicates: dict[int, int]
) -> None:
    problems: dict[int, str] = {}
    loaded = take_bytes(ledger, with_ids(ids), on_reject=lambda row, problem: problems.update({row.line: problem}))
    assert problems == {line: f"cus_message_id is that of line {first}" for line, first in duplicates.items()}
    assert loaded == Loaded(rows=len(ids), queued=len(ids) - len(duplicates), known=0, rejected=len(duplicates))
    not_sent = {row["line"]: row["reason"] for row in ledger.results() if row["status"] == "not_sent"}
    assert not_sent == problems
    assert ledger.counts() == {MessageState.QUEUED: len(ids) - len(duplicates), MessageState.NOT_SENT: len(duplicates)}


def test_a_file_with_duplicates_taken_twice_is_known(ledger: Ledger) -> None:
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
    assert str(error) == "a file: 2 of 1103 rows are invalid (nothing was loaded or sent)"
    assert error.line is None
    assert problems == [(1102, SHORT_NUMBER), (1104, "content is missing")]
    assert_empty(ledger)
    assert take_bytes(ledger, HEADER + GOOD, strict=True).queued == 1


def test_a_strict_load_refuses_duplicates(ledger: Ledger) -> None:
    error = refusal(lambda: take_bytes(ledger, with_ids(["a", "a"]), strict=True))
    assert str(error) == "a file: 1 of 2 rows are invalid (nothing was loaded or sent)"
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
    (message,) = claimable(ledger)
    assert {name: getattr(message, name) for name in names} == {name: value for name, (_, value) in CELLS.items()}
