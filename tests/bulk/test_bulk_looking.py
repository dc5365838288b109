"""Looking at a ledger that cannot be written."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
from bulk_inputs import no_file_longer_than
from bulk_ledgers import ACCEPTED, QUEUED, UNKNOWN, begin, claim, entries, states, take

from nxotp_async import LedgerError
from nxotp_async.bulk import Ledger, MessageState
from nxotp_async.bulk.looking import look
from nxotp_async.bulk.schema import Transition

posix = pytest.mark.skipif(sys.platform == "win32", reason="rights as POSIX has them")
NOBODY = 65_534


@pytest.fixture
def crashed() -> Iterator[Path]:
    """A ledger of three messages, one in flight and one accepted when its process ended, with its log beside it."""
    with TemporaryDirectory() as name:
        path, copy = Path(name, "run.ledger"), Path(name, "crashed")
        copy.mkdir()
        with Ledger(path) as ledger:
            take(ledger, *entries(3))
            begin(ledger)
            claim(ledger, 2)
            claim(ledger, 0, Transition(1, MessageState.ACCEPTED, 1, message_id="wamid"))
            for file in (path, path.with_name("run.ledger-wal")):
                (copy / file.name).write_bytes(file.read_bytes())
        if os.getuid() == 0:
            for owned in (Path(name), copy, *copy.iterdir()):
                os.chown(owned, NOBODY, NOBODY)
        yield copy / "run.ledger"


def full_disk() -> AbstractContextManager[Any]:
    return no_file_longer_than(0)


@contextmanager
def no_right_to_write(path: Path) -> Iterator[None]:
    """Take away all rights to write, from the superuser too, who is somebody else for a while."""
    was_root = os.getuid() == 0
    for file in path.parent.iterdir():
        file.chmod(0o400)
    path.parent.chmod(0o500)
    if was_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)
        path.parent.chmod(0o700)


@contextmanager
def no_right_at_all_to_the_file(path: Path) -> Iterator[None]:
    """The same, as access(2) tells it."""
    access = os.access
    with no_right_to_write(path), mock.patch("os.access", lambda file, mode: access(file, mode) and file != path):
        yield


@posix
@pytest.mark.parametrize("trouble", [no_right_to_write, no_right_at_all_to_the_file])
def test_a_ledger_that_cannot_be_written_can_be_looked_at(
    crashed: Path, trouble: Callable[[Path], AbstractContextManager[Any]]
) -> None:
    before = {path.name: path.read_bytes() for path in crashed.parent.iterdir()}
    with trouble(crashed), look(crashed) as ledger:
        assert ledger.path == crashed
        assert states(ledger) == [ACCEPTED, UNKNOWN, QUEUED]
    assert {path.name: path.read_bytes() for path in crashed.parent.iterdir()} == before


def test_one_that_can_be_written_is_opened_itself(crashed: Path) -> None:
    with look(crashed) as ledger:
        assert states(ledger) == [ACCEPTED, UNKNOWN, QUEUED]
        assert crashed.with_name("run.ledger-wal").exists()
    assert not crashed.with_name("run.ledger-wal").exists()


def test_a_full_disk_is_looked_at_in_memory(crashed: Path) -> None:
    """A limit of what files may hold stands for the disk; what is in memory has none, which is told by a mock."""
    original = Ledger.__init__

    def full(self: Ledger, path: Path, *, create: bool = True) -> None:
        if path == crashed:
            raise LedgerError(f"{path} cannot be written: the disk is full")
        original(self, path, create=create)

    with mock.patch.object(Ledger, "__init__", full), look(crashed) as ledger:
        assert states(ledger) == [ACCEPTED, UNKNOWN, QUEUED]


def test_where_there_is_no_room_for_a_copy_either_the_first_error_is_told(crashed: Path) -> None:
    failure = pytest.raises(LedgerError, match=r"run\.ledger cannot be (written|used)")
    with full_disk(), no_right_to_write(crashed), failure, look(crashed):
        pass


@posix
def test_one_that_a_process_has_open_is_not_copied(crashed: Path) -> None:
    code = f"from nxotp_async.bulk import Ledger; ledger = Ledger({str(crashed)!r}); print(flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        for trouble in (no_right_to_write(crashed), no_right_at_all_to_the_file(crashed), nullcontext()):
            with trouble, pytest.raises(LedgerError, match="in use by another process") as caught, look(crashed):
                pass
            assert caught.value.in_use
        holder.communicate(b"\n")


@pytest.mark.parametrize("content", [b"no ledger", None])
def test_what_is_no_ledger_is_refused_as_ever(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "run.ledger"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"there is no ledger|is no ledger"), look(path):
        pass


@posix
def test_nothing_of_a_copy_remains(crashed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = crashed.parent.parent / "copies"
    copies.mkdir()
    copies.chmod(0o777)
    monkeypatch.setattr("nxotp_async.bulk.looking._MEMORY", copies)
    with no_right_to_write(crashed), look(crashed):
        (directory,) = copies.iterdir()
        assert directory.stat().st_mode & 0o777 == 0o700
    assert not list(copies.iterdir())
