"""The ledger's SQLite file: opened safely, by one process at a time, and durable at the end of each transaction."""

import os
import sqlite3
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_bytes
from typing import Any, Final

from ..callbacks import advances
from ..errors import LedgerError
from .schema import TABLES

__all__ = ["Database", "log_of"]

_APPLICATION_ID: Final = 0x6E786F74  # "nxot"
_VERSION: Final = 1
_OLDEST_SQLITE: Final = (3, 33, 0)  # UPDATE ... FROM
_COMMITS_IN_LOG: Final = 100  # before the write-ahead log, some megabytes then, is put into the file

# A ledger that was parted from its write-ahead log would take what was sent last for queued. So as long as a process
# has it open, the file itself says IN_FILE, and the log says IN_LOG as soon as it holds anything. Where another
# program has put the log into the file, the file says IN_LOG, too.
_CLOSED: Final = 0
_IN_FILE: Final = 1
_IN_LOG: Final = 2


class Database:
    """An SQLite file of this process alone. Threads may share it, and wait for one another.

    Without a path it is temporary, and goes away when it is closed. The constructor and the methods raise `LedgerError`
    where it cannot be used; the text says why, and what to do.
    """

    def __init__(self, path: Path | None, *, create: bool) -> None:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise LedgerError(f"this Python's SQLite is {sqlite3.sqlite_version}; a ledger needs 3.33 or newer")
        if path is not None:
            _prepare_file(path, create=create)
        has_log = path is None or log_of(path).exists()
        self._name = "the temporary ledger" if path is None else str(path)
        self._lock = threading.RLock()
        self._commits_in_log = 0
        with self._explaining():
            # One connection only: before 3.51.3 two of them could damage a database in WAL mode between them. The path
            # is absolute because SQLite has names of its own, such as :memory:.
            self._connection = sqlite3.connect(
                "" if path is None else path.absolute(), timeout=0, isolation_level=None, check_same_thread=False
            )
            try:
                self._open(has_log=has_log)
                if path is not None:
                    _keep_private(path)
            except BaseException:
                self._connection.close()
                raise

    def _open(self, *, has_log: bool) -> None:
        execute = self._connection.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        is_new = self._is_new()
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA secure_delete = ON")
        execute("PRAGMA cache_size = -16384")  # KiB
        execute("PRAGMA wal_autocheckpoint = 0")  # that is done by `checkpoint`
        self._connection.create_function("advances", 2, advances, deterministic=True)
        with self._atomically():
            if is_new:
                for statement in TABLES.split(";"):
                    execute(statement)
                execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                execute(f"PRAGMA user_version = {_VERSION}")
                execute("INSERT INTO metadata VALUES (?, ?)", (token_bytes(32), _CLOSED))
            ((log_state,),) = execute("SELECT log_state FROM metadata")
            if log_state == _IN_FILE and not has_log:
                raise LedgerError(
                    f"{self._name} was in use when its process ended, and its write-ahead log is missing",
                    hint="put the file that ends in -wal back beside it: it holds what was sent last",
                )
        self.checkpoint()

    def _is_new(self) -> bool:
        """Return whether there is nothing in the database yet, and check that it is a ledger else."""
        ((application_id,),) = self._connection.execute("PRAGMA application_id")
        ((version,),) = self._connection.execute("PRAGMA user_version")
        ((tables,),) = self._connection.execute("SELECT count(*) FROM sqlite_master")
        if tables and application_id != _APPLICATION_ID:
            raise LedgerError(f"{self._name} is another program's database, not a ledger")
        if tables and version != _VERSION:
            raise LedgerError(f"{self._name} was made by another version of nxotp_async", hint="use that version")
        return not tables

    def close(self) -> None:
        """Write everything into the one file, and close it."""
        with self._lock, self._explaining():
            with suppress(sqlite3.Error):  # the mark stays, and does no harm as long as the log does, too
                self._mark(_CLOSED)
            self._connection.close()

    # ------------------------------------------------------------------------------------------ statements

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all changes within it together, durably, or none of them. It costs one fsync."""
        with self._lock:
            with self._explaining(), self._atomically():
                if not self._commits_in_log:
                    self._mark(_IN_LOG)
                yield
            self._commits_in_log += 1
            if self._commits_in_log >= _COMMITS_IN_LOG:
                with suppress(LedgerError):  # what was committed is durable all the same
                    self.checkpoint()

    @contextmanager
    def _atomically(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def query(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Return the rows that a statement finds."""
        with self._lock, self._explaining():
            return self._connection.execute(statement, parameters).fetchall()

    def change(self, statement: str, parameters: Sequence[object] = ()) -> int:
        """Execute a statement within a transaction, and return how many rows it has changed."""
        with self._explaining():
            return self._connection.execute(statement, parameters).rowcount

    def insert(self, statement: str, rows: Iterable[Sequence[object]]) -> int:
        """Execute a statement for each of the rows, within a transaction, and return how many it has inserted."""
        with self._explaining():
            return self._connection.executemany(statement, rows).rowcount

    def checkpoint(self, *, rebuild: bool = False) -> None:
        """Put the log into the file, which may be written anew before."""
        with self._lock, self._explaining():
            if rebuild:
                # Erased text is overwritten, but not in the gaps that remain where SQLite has divided a page.
                self._connection.execute("VACUUM")
            self._commits_in_log = 0
            self._mark(_IN_FILE)
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _mark(self, log_state: int) -> None:
        """Note where the latest outcomes are."""
        self._connection.execute("UPDATE metadata SET log_state = ?", (log_state,))

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Turn what SQLite raises into a `LedgerError` that says what to do."""
        try:
            yield
            return
        except sqlite3.Error as error:
            failure = _explained(error, self._name)
        raise failure


def _explained(error: sqlite3.Error, name: str) -> LedgerError:
    match getattr(error, "sqlite_errorname", "").split("_")[:2]:
        case ["SQLITE", "BUSY"]:
            hint = "wait until it has ended, or stop it"
            return LedgerError(f"{name} is in use by another process", hint=hint, in_use=True)
        case ["SQLITE", "NOTADB" | "CORRUPT"]:
            return LedgerError(f"{name} is no ledger, or is damaged")
        case ["SQLITE", "FULL"]:
            return LedgerError(f"{name} cannot be written: the disk is full", hint="make room, then resume")
        case ["SQLITE", "READONLY" | "PERM" | "CANTOPEN"]:
            return LedgerError(f"{name} cannot be written", hint="check its permissions and those of its directory")
    return LedgerError(f"{name} cannot be used: {error}")


# ---------------------------------------------------------------------------------------------- files


def _prepare_file(path: Path, *, create: bool) -> None:
    # A file that is there must not be opened: closing it would give up the locks that this process has on it already.
    try:
        if create and not path.exists():
            if log_of(path).exists():
                raise LedgerError(
                    f"there is a write-ahead log {log_of(path)}, but not its ledger",
                    hint="put the ledger back beside it",
                )
            # SQLite gives its write-ahead log the mode of the database.
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if not stat.S_ISREG(path.stat().st_mode):
            raise LedgerError(f"{path} is not a file")
    except FileNotFoundError:
        what = f"the directory {path.parent} does not exist" if create else f"there is no ledger {path}"
        raise LedgerError(what, hint=None if create else "nxotp bulk run makes one") from None
    except OSError as error:
        raise LedgerError(f"{path} cannot be opened: {error.strerror}") from None
    if not os.access(path, os.R_OK | os.W_OK):
        raise LedgerError(f"{path} cannot be written", hint="check its permissions and those of its directory")


def log_of(path: Path) -> Path:
    """Return the path of the write-ahead log, which SQLite has beside the database itself."""
    target = path.resolve()
    return target.with_name(f"{target.name}-wal")


def _keep_private(path: Path) -> None:
    """Take others' permissions away, where somebody has given them."""
    for file in (path.resolve(), log_of(path)):
        if file.exists() and stat.S_IMODE(file.stat().st_mode) & 0o077:
            file.chmod(0o600)
