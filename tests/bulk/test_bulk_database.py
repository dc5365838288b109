import errno
import io
import os
import sqlite3
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from bulk_ledgers import (
    ACCEPTED,
    CODE,
    NOW,
    QUEUED,
    REJECTED,
    SENDING,
    UPTIME,
    ProbedLedger,
    begin,
    claim,
    contents,
    entries,
    entry,
    keys,
    record,
    row,
    states,
    take,
)

from nxotp_async.bulk import FileFormat, Ledger, load, read_messages, settle
from nxotp_async.bulk.exchange import Batch
from nxotp_async.bulk.schema import Transition
from nxotp_async.errors import LedgerError


@pytest.fixture
def ledger() -> Iterator[ProbedLedger]:
    with ProbedLedger(None) as ledger:
        yield ledger


# ---------------------------------------------------------------------------------------------- opening


def fill(path: Path, count: int = 3) -> None:
    """Make a ledger of queued messages."""
    with ProbedLedger(path) as ledger:
        take(ledger, *entries(count))


def test_a_ledger_is_as_it_was_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "run.ledger"
    fill(path)
    with ProbedLedger(path) as ledger:
        begin(ledger)
        claim(ledger)
        record(
            ledger,
            Transition(1, ACCEPTED, 1, message_id="wamid.1"),
            Transition(2, REJECTED, 1, code=9015, error="OtpContentError", reason="no code"),
            Transition(3, QUEUED, 1, 1, UPTIME + 5),
        )
        before = list(ledger.results())
    with Ledger(str(path), create=False) as ledger:
        assert list(ledger.results()) == before
        begin(ledger)
        assert keys(claim(ledger)) == [3]


def test_what_was_in_flight_when_the_ledger_was_closed_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "run.ledger"
    fill(path)
    with ProbedLedger(path) as ledger:
        begin(ledger)
        claim(ledger, 2)
        refused = Transition(1, QUEUED, 1, 1, UPTIME + 5, code=-1, error="TransientApiError", reason="no")
        claim(ledger, 2, refused, now=NOW + 5)
    with ProbedLedger(path) as ledger:
        results = list(ledger.results())
        assert [result["status"] for result in results] == ["unknown"] * 3
        assert {result["error"] for result in results} == {"Interrupted"}
        assert {result["reason"] for result in results} == {"the process ended while the message was in flight"}
        assert {result["code"] for result in results} == {None}
        assert all(result["finished_at"] > NOW for result in results)
        assert ledger.unknown_ids() == ["id-1", "id-2", "id-3"]
        assert contents(ledger) == [CODE] * 3
        begin(ledger, NOW + 9)
        assert claim(ledger, now=NOW + 9) == Batch(0, [], None, exhausted=True)


@pytest.mark.parametrize("name", [":memory:", "file:run?mode=memory", "a b%20c#d?.ledger", "-run"])
def test_a_ledger_of_any_name_is_a_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path(name))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with Ledger(name) as ledger:
        assert len(states(ledger)) == 3


def test_a_temporary_ledger_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Ledger(None) as one, Ledger(None) as other:
        take(one, *entries(3))
        assert one.path is None
        assert states(other) == []
        assert list(tmp_path.iterdir()) == []


# What a child does with the ledger in argv[1] before the parent goes on.
_HOLD = ""
_SEND_HALF = """
exchange = LedgerExchange(ledger)
exchange.begin(1e9, 0.0)
claimed = exchange.exchange([], 2, 1e9, 0.0)
first = Transition(claimed.messages[0].key, MessageState.ACCEPTED, 1, message_id="wamid.1")
exchange.exchange([first], 0, 1e9, 0.0)
"""
_STOP_IN_AN_EXCHANGE = """
def next_due(now, monotonic):
    print("ready", flush=True)
    sys.stdin.read()
ledger.next_due = next_due
LedgerExchange(ledger).exchange([], 2, 1e9, 0.0)
"""
_CHILD = """
import sys
from nxotp_async.bulk import Ledger, MessageState
from nxotp_async.bulk.exchange import LedgerExchange
from nxotp_async.bulk.schema import Transition
with Ledger(sys.argv[1]) as ledger:
    {}
    print("ready", flush=True)
    sys.stdin.read()
"""


_OPEN = """
import sys
from nxotp_async.bulk import Ledger
Ledger(sys.argv[1])
"""


@contextmanager
def child(path: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that opens the ledger, does something, and then waits until its standard input is closed."""
    script = _CHILD.format(what.strip().replace("\n", "\n    "))
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        except BaseException:
            process.kill()
            raise


def test_a_second_process_is_refused_at_once_and_told_why(tmp_path: Path) -> None:
    path = tmp_path / "run.ledger"
    fill(path)
    with child(path, _HOLD) as process:
        for _ in range(2):
            with pytest.raises(LedgerError, match=r"run\.ledger is in use by another process") as caught:
                Ledger(path)
            assert caught.value.hint == "wait until it has ended, or stop it"
        process.communicate()
    assert process.returncode == 0
    with ProbedLedger(path) as ledger:
        assert states(ledger) == ["queued"] * 3


def test_the_same_process_is_refused_too_and_still_keeps_others_out(tmp_path: Path) -> None:
    path = tmp_path / "run.ledger"
    with ProbedLedger(path) as ledger:
        take(ledger, entry(1))
        begin(ledger)
        claim(ledger)
        for create in (True, False):
            with pytest.raises(LedgerError, match="is in use"):
                Ledger(path, create=create)
        # Closing any handle of the file would give up the locks that this process has on it.
        other = subprocess.run([sys.executable, "-c", _OPEN, str(path)], capture_output=True, text=True, check=False)
        assert "is in use by another process" in other.stderr
        record(ledger, Transition(1, ACCEPTED, 1))
        assert states(ledger) == ["accepted"]


@pytest.mark.parametrize(
    ("what", "after"),
    [
        pytest.param(_SEND_HALF, ["accepted", "unknown", "queued"], id="between the exchange and the outcome"),
        pytest.param(_STOP_IN_AN_EXCHANGE, ["queued", "queued", "queued"], id="before the exchange is durable"),
    ],
)
def test_what_a_killed_process_leaves(tmp_path: Path, what: str, after: list[str]) -> None:
    path = tmp_path / "run.ledger"
    fill(path)
    with child(path, what) as process:
        process.kill()
        process.communicate()
    assert process.returncode < 0
    with ProbedLedger(path, create=False) as ledger:
        assert states(ledger) == after
        assert [result["error"] == "Interrupted" for result in ledger.results()] == [
            state == "unknown" for state in after
        ]
        begin(ledger)
        assert keys(claim(ledger)) == [key for key, state in enumerate(after, start=1) if state == "queued"]


def foreign_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, state TEXT)")
        database.execute("INSERT INTO messages (state) VALUES ('sending')")
        database.commit()


def other_version(path: Path) -> None:
    fill(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(
            lambda path: path.write_bytes(b"to,content\n9995550100,482913\n" * 100),
            "{path} is no ledger, or is damaged",
            id="no database",
        ),
        pytest.param(foreign_database, "{path} is another program's database, not a ledger", id="foreign database"),
        pytest.param(
            other_version, "{path} was made by another version of nxotp_async (use that version)", id="other version"
        ),
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_no_ledger_of_this_version_is_refused_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], object], problem: str, create: bool
) -> None:
    path = tmp_path / "run.ledger"
    make(path)
    path.chmod(0o644)
    before = path.read_bytes()
    with pytest.raises(LedgerError) as caught:
        Ledger(path, create=create)
    assert str(caught.value) == problem.format(path=path)
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.ledger"
    fill(path, 200)
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    with pytest.raises(LedgerError, match="is no ledger, or is damaged"):
        Ledger(path)


@pytest.mark.parametrize(
    ("name", "create", "problem"),
    [
        pytest.param("no/run.ledger", True, "the directory {tmp}/no does not exist", id="no directory"),
        pytest.param("no/run.ledger", False, "there is no ledger {path} (nxotp bulk run makes one)", id="nothing"),
        pytest.param("run.ledger", False, "there is no ledger {path} (nxotp bulk run makes one)", id="no file"),
        pytest.param("folder", True, "{path} is not a file", id="a directory"),
        pytest.param("folder", False, "{path} is not a file", id="a directory, not made"),
        pytest.param("pipe", True, "{path} is not a file", id="a pipe"),
        pytest.param("file/run.ledger", True, "{path} cannot be opened: Not a directory", id="below a file"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_and_nothing_is_made(
    tmp_path: Path, name: str, create: bool, problem: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LedgerError) as caught:
        Ledger(tmp_path / name, create=create)
    assert str(caught.value) == problem.format(path=tmp_path / name, tmp=tmp_path)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def generous_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def modes(directory: Path) -> dict[str, str]:
    """Return the permissions of every regular file in it."""
    return {
        path.name: f"{stat.S_IMODE(path.stat().st_mode):o}" for path in directory.iterdir() if not path.is_symlink()
    }


_PRIVATE = {"run.ledger": "600", "run.ledger-wal": "600"}


@pytest.mark.usefixtures("generous_umask")
def test_a_ledger_is_its_owners_alone(tmp_path: Path) -> None:
    with ProbedLedger(tmp_path / "run.ledger") as ledger:
        assert modes(tmp_path) == _PRIVATE
        take(ledger, *entries(3))
        begin(ledger)
        claim(ledger)
        assert modes(tmp_path) == _PRIVATE
        ledger.forget_codes()
        assert modes(tmp_path) == _PRIVATE
    assert modes(tmp_path) == {"run.ledger": "600"}


@pytest.mark.usefixtures("generous_umask")
@pytest.mark.parametrize("mode", [0o644, 0o666, 0o640])
@pytest.mark.parametrize("name", ["run.ledger", "link"])
def test_a_ledger_that_others_could_read_is_its_owners_alone_again(tmp_path: Path, mode: int, name: str) -> None:
    path = tmp_path / "run.ledger"
    (tmp_path / "link").symlink_to(path)
    fill(path)
    path.chmod(mode)
    with ProbedLedger(tmp_path / name) as ledger:
        assert modes(tmp_path) == _PRIVATE
        begin(ledger)
        claim(ledger)
        assert modes(tmp_path) == _PRIVATE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize(
    ("file_mode", "directory_mode", "create", "problem"),
    [
        pytest.param(0o400, 0o700, True, "cannot be written", id="read-only file"),
        pytest.param(0o400, 0o700, False, "cannot be written", id="read-only file, not made"),
        pytest.param(0o600, 0o500, True, "cannot be written", id="read-only directory"),
        pytest.param(0o600, 0o500, False, "cannot be written", id="read-only directory, not made"),
        pytest.param(None, 0o500, True, f"cannot be opened: {os.strerror(errno.EACCES)}", id="no file yet"),
        pytest.param(0o600, 0o000, True, f"cannot be opened: {os.strerror(errno.EACCES)}", id="hidden directory"),
    ],
)
def test_a_ledger_that_cannot_be_written_says_so(
    tmp_path: Path, file_mode: int | None, directory_mode: int, create: bool, problem: str
) -> None:
    directory = tmp_path / "folder"
    directory.mkdir()
    path = directory / "run.ledger"
    if file_mode is not None:
        fill(path)
        path.chmod(file_mode)
    directory.chmod(directory_mode)
    try:
        with pytest.raises(LedgerError, match=f"run.ledger {problem}"):
            Ledger(path, create=create)
    finally:
        directory.chmod(0o700)


def test_a_ledger_that_can_no_longer_be_written_says_so(ledger: ProbedLedger) -> None:
    ledger.connection.execute("PRAGMA query_only = ON")
    with pytest.raises(LedgerError) as caught:
        take(ledger, entry(1))
    problem = "the temporary ledger cannot be written (check its permissions and those of its directory)"
    assert str(caught.value) == problem


def test_an_sqlite_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 32, 3))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.32.3")
    with pytest.raises(LedgerError, match=r"SQLite is 3\.32\.3; a ledger needs 3\.33 or newer"):
        Ledger(tmp_path / "run.ledger")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------- the disk is full


_FULL = r"run\.ledger cannot be written: the disk is full \(make room, then resume\)"


def test_a_full_disk_leaves_outcomes_to_be_written_later(tmp_path: Path) -> None:
    with ProbedLedger(tmp_path / "run.ledger") as ledger:
        take(ledger, *entries(3))
        begin(ledger)
        claim(ledger)
        outcomes = [Transition(key, REJECTED, 1, error="Error", reason="no " * 3000) for key in (1, 2, 3)]
        with ledger.full_disk():
            with pytest.raises(LedgerError, match=_FULL):
                record(ledger, *outcomes)
            assert ledger.counts() == {SENDING: 3}
        record(ledger, *outcomes)
        assert ledger.counts() == {REJECTED: 3}
        assert row(ledger)["reason"] == "no " * 3000


def test_a_full_disk_leaves_messages_to_be_claimed_later(tmp_path: Path) -> None:
    with ProbedLedger(tmp_path / "run.ledger") as ledger:
        take(ledger, *entries(200))
        begin(ledger)
        with ledger.full_disk():
            with pytest.raises(LedgerError, match=_FULL):
                claim(ledger, 200)
            assert ledger.counts() == {QUEUED: 200}
        assert keys(claim(ledger, 200)) == list(range(1, 201))


def test_a_full_disk_leaves_nothing_of_a_file(tmp_path: Path) -> None:
    with ProbedLedger(tmp_path / "run.ledger") as ledger:
        take(ledger, entry(1))
        more = [entry(number, "x" * 2000 + CODE) for number in range(2, 50)]
        with ledger.full_disk():
            with pytest.raises(LedgerError, match=_FULL):
                take(ledger, *more, columns=["name"])
            assert ledger.counts() == {QUEUED: 1}
        assert ledger.extra_columns() == []
        assert take(ledger, *more, columns=["name"]) == {}
        assert ledger.counts() == {QUEUED: 49}


def test_a_disk_that_was_full_does_no_harm_to_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "run.ledger"
    with ProbedLedger(path) as ledger:
        take(ledger, *entries(3))
        begin(ledger)
        claim(ledger, 2)
        with ledger.full_disk(), pytest.raises(LedgerError, match=_FULL):
            record(ledger, Transition(1, ACCEPTED, 1, message_id="wamid.1" * 5000))
    with ProbedLedger(path) as ledger:
        assert states(ledger) == ["unknown", "unknown", "queued"]
        assert ledger.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


class _Canary:
    """Values that are only ever read from here, so that no frame of a test holds them as a local variable."""

    code = "73915508"
    number = "999555017342"


def test_an_error_shows_no_code_to_those_who_print_its_frames(tmp_path: Path) -> None:
    with ProbedLedger(tmp_path / "run.ledger") as ledger:
        take(ledger, *[entry(number, _Canary.code, to=_Canary.number) for number in range(1, 201)])
        begin(ledger)
        with ledger.full_disk(), pytest.raises(LedgerError, match=_FULL) as caught:
            claim(ledger, 200)
    assert_no_frame_shows_a_code(caught.value)


def test_a_file_that_cannot_be_taken_in_shows_no_code_to_those_who_print_the_errors_frames(tmp_path: Path) -> None:
    rows = f"{_Canary.number},{_Canary.code}\n" * 2000
    file = read_messages(io.BytesIO(f"to,content\n{rows}".encode()), "a file", FileFormat.CSV)
    with (
        ProbedLedger(tmp_path / "run.ledger") as ledger,
        ledger.full_disk(),
        pytest.raises(LedgerError, match=_FULL) as caught,
    ):
        load(ledger, file)
    assert_no_frame_shows_a_code(caught.value)


def test_callbacks_that_cannot_be_noted_show_no_number_to_those_who_print_the_errors_frames(
    ledger: ProbedLedger,
) -> None:
    body = f'{{"statuses": [{{"id": "id-1", "status": "read", "recipient_id": "{_Canary.number}"}}]}}'
    ledger.close()
    with pytest.raises(LedgerError) as caught:
        settle(ledger, [body.encode()])
    assert_no_frame_shows_a_code(caught.value)


def assert_no_frame_shows_a_code(error: BaseException) -> None:
    chained: BaseException | None = error
    while chained is not None:
        report = traceback.TracebackException.from_exception(chained, capture_locals=True)
        report.stack[:] = [frame for frame in report.stack if frame.filename != __file__]
        printed = "".join(report.format(chain=False))
        assert not any(value in printed for value in (_Canary.code, _Canary.number))
        chained = chained.__cause__ or chained.__context__


# ---------------------------------------------------------------------------------------------- parted from its log


def crashed(tmp_path: Path) -> Path:
    """Return a ledger as a killed process leaves it: one message was sent, and only the log knows."""
    path = tmp_path / "run.db"
    ledger = Ledger(path)
    take(ledger, *entries(2))
    begin(ledger)
    claim(ledger, 1)
    record(ledger, Transition(1, ACCEPTED, 1, message_id="id-1"))
    (tmp_path / "copy").mkdir()
    for file in (path, Path(f"{path}-wal")):
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    ledger.close()
    return tmp_path / "copy" / "run.db"


def test_a_ledger_and_its_log_may_be_moved_together(tmp_path: Path) -> None:
    with Ledger(crashed(tmp_path), create=False) as ledger:
        assert states(ledger) == ["accepted", "queued"]


def test_a_ledger_that_was_parted_from_its_log_is_refused(tmp_path: Path) -> None:
    path = crashed(tmp_path)
    log = Path(f"{path}-wal")
    log.rename(tmp_path / "kept")
    for create in (True, False):
        with pytest.raises(LedgerError, match="its write-ahead log is missing") as caught:
            Ledger(path, create=create)
        assert "-wal" in str(caught.value.hint)
    log.unlink(missing_ok=True)
    (tmp_path / "kept").rename(log)
    with ProbedLedger(path) as ledger:
        assert states(ledger) == ["accepted", "queued"]


def test_a_long_run_is_parted_from_its_log_as_noticeably(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with ProbedLedger(path) as ledger:
        take(ledger, *entries(250))
        begin(ledger)
        for key in range(1, 221):  # the log is put into the file in between
            claim(ledger, 1)
            record(ledger, Transition(key, ACCEPTED, 1))
        (tmp_path / "copy.db").write_bytes(path.read_bytes())
        assert Path(f"{path}-wal").stat().st_size < 4_000_000
    with pytest.raises(LedgerError, match="its write-ahead log is missing"):
        Ledger(tmp_path / "copy.db")


def test_another_program_may_put_the_log_into_the_file(tmp_path: Path) -> None:
    path = crashed(tmp_path)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM messages WHERE state = 'accepted'").fetchone() == (1,)
    assert not Path(f"{path}-wal").exists()
    with ProbedLedger(path) as ledger:
        assert states(ledger) == ["accepted", "queued"]


def test_no_new_ledger_takes_the_place_of_one_that_was_moved_away_from_its_log(tmp_path: Path) -> None:
    path = crashed(tmp_path)
    moved = path.rename(tmp_path / "moved.db")
    with pytest.raises(LedgerError, match="but not its ledger"):
        Ledger(path)
    moved.rename(path)
    with ProbedLedger(path) as ledger:
        assert states(ledger) == ["accepted", "queued"]


def test_a_ledger_that_was_closed_needs_no_log(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with ProbedLedger(path) as ledger:
        take(ledger, entry(1))
    assert [file.name for file in tmp_path.iterdir()] == ["run.db"]
    with Ledger(path.rename(tmp_path / "other.db"), create=False) as ledger:
        assert states(ledger) == ["queued"]


def test_results_that_are_being_read_keep_nothing_locked(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with ProbedLedger(path) as ledger:
        take(ledger, *entries(2500))
        results = ledger.results()
        assert next(results)["cus_message_id"] == "id-1"
        assert sum(1 for _ in results) == 2499
        half_read = ledger.results()
        next(half_read)
    with ProbedLedger(path) as ledger:
        assert len(states(ledger)) == 2500
