"""The ledger's SQLite file: made and opened safely, by one process at a time."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_bytes
from typing import Final

from ..errors import LedgerError

__all__ = ["IN_LOG", "checkpoint", "close_database", "guarded", "mark", "open_database", "transaction"]

_APPLICATION_ID: Final = 0x6E786F74  # "nxot"
_VERSION: Final = 1
_OLDEST_SQLITE: Final = (3, 33, 0)  # UPDATE ... FROM

_SCHEMA: Final = """
CREATE TABLE identity (key BLOB NOT NULL, is_open INTEGER NOT NULL);
CREATE TABLE sources (id INTEGER PRIMARY KEY, name TEXT NOT NULL, columns TEXT NOT NULL, loaded_at REAL NOT NULL);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    line INTEGER NOT NULL,
    cus_message_id TEXT NOT NULL UNIQUE,
    recipient TEXT,
    content TEXT,
    options TEXT,
    expires_at REAL,
    extra TEXT,
    state TEXT NOT NULL,
    not_before REAL NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    message_id TEXT,
    code INTEGER,
    meta_code INTEGER,
    error TEXT,
    reason TEXT,
    may_have_arrived INTEGER NOT NULL DEFAULT 0,
    receipt TEXT,
    sent_at REAL,
    finished_at REAL
);
CREATE INDEX vendors_ids ON messages (message_id) WHERE message_id != cus_message_id;
CREATE INDEX deferred ON messages (not_before) WHERE state = 'queued' AND not_before > 0;
"""


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """Turn what SQLite raises into a `LedgerError` that says what to do."""
    try:
        yield
        return
    except sqlite3.Error as error:
        failure = _explained(error, name)
    raise failure


def _explained(error: sqlite3.Error, name: str) -> LedgerError:
    match getattr(error, "sqlite_errorname", "").split("_")[:2]:
        case ["SQLITE", "BUSY"]:
            return LedgerError(f"{name} is in use by another process", hint="wait until it has ended, or stop it")
        case ["SQLITE", "NOTADB" | "CORRUPT"]:
            return LedgerError(f"{name} is no ledger, or is damaged")
        case ["SQLITE", "FULL"]:
            return LedgerError(f"{name} cannot be written: the disk is full", hint="make room, then resume")
        case ["SQLITE", "READONLY" | "PERM" | "CANTOPEN"]:
            return LedgerError(f"{name} cannot be written", hint="check its permissions and those of its directory")
    return LedgerError(f"{name} cannot be used: {error}")


@contextmanager
def transaction(database: sqlite3.Connection, name: str) -> Iterator[None]:
    """Make all changes within it together, durably, or none of them."""
    with guarded(name):
        database.execute("BEGIN IMMEDIATE")
        try:
            yield
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise


def open_database(path: Path | None, *, create: bool) -> sqlite3.Connection:
    """Open a ledger's file, and keep every other process out until it is closed.

    Args:
        path: The file; ``None`` makes a temporary one that goes away when it is closed.
        create: Whether to make it where it does not exist.

    Raises:
        LedgerError: It cannot be used; the text says why.
    """
    name = str(path)
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise LedgerError(f"this Python's SQLite is {sqlite3.sqlite_version}; a ledger needs 3.33 or newer")
    if path is not None:
        _prepare_file(path, create=create)
    with guarded(name):
        # One connection only: before 3.51.3 two of them could damage a database in WAL mode between them. The path is
        # absolute because SQLite has names of its own, such as :memory:.
        place = "" if path is None else str(path.absolute())
        has_log = path is None or _log_of(path).exists()
        database = sqlite3.connect(place, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            is_new = _is_new(database, name)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("PRAGMA secure_delete = ON")
            database.execute("PRAGMA cache_size = -16384")  # KiB
            database.execute("PRAGMA wal_autocheckpoint = 0")  # that is done by `checkpoint`
            with transaction(database, name):
                if is_new:
                    _create_schema(database)
                _check_log(database, name, has_log=has_log)
            checkpoint(database)
            if path is not None:
                _keep_private(path)
        except BaseException:
            database.close()
            raise
    return database


def _prepare_file(path: Path, *, create: bool) -> None:
    # A file that is there must not be opened: closing it would give up the locks that this process has on it already.
    try:
        if create and not path.exists():
            if _log_of(path).exists():
                raise LedgerError(
                    f"there is a write-ahead log {_log_of(path)}, but not its ledger",
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


def _log_of(path: Path) -> Path:
    """Return the path of the write-ahead log, which SQLite has beside the database itself."""
    target = path.resolve()
    return target.with_name(f"{target.name}-wal")


# What tells a ledger that was parted from its write-ahead log, without which what was sent last would seem to be
# queued: as long as a process has it open, the file itself says IN_FILE, and the log, as soon as it holds anything,
# IN_LOG. Where another program has put the log into the file, the file says so, too.
CLOSED: Final = 0
IN_FILE: Final = 1
IN_LOG: Final = 2


def mark(database: sqlite3.Connection, where: int) -> None:
    """Note where the latest outcomes are."""
    database.execute("UPDATE identity SET is_open = ?", (where,))


def checkpoint(database: sqlite3.Connection) -> None:
    """Put the log into the file."""
    mark(database, IN_FILE)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _check_log(database: sqlite3.Connection, name: str, *, has_log: bool) -> None:
    (is_open,) = database.execute("SELECT is_open FROM identity").fetchone()
    if is_open == IN_FILE and not has_log:
        raise LedgerError(
            f"{name} was in use when its process ended, and its write-ahead log is missing",
            hint="put the file that ends in -wal back beside it: it holds what was sent last",
        )


def close_database(database: sqlite3.Connection, name: str) -> None:
    """Write everything into the one file, and close it."""
    with guarded(name):
        with suppress(sqlite3.Error):  # the mark stays, and does no harm as long as the log does, too
            mark(database, CLOSED)
        database.close()


def _keep_private(path: Path) -> None:
    """Take others' permissions away, where somebody has given them."""
    for file in (path.resolve(), _log_of(path)):
        if file.exists() and stat.S_IMODE(file.stat().st_mode) & 0o077:
            file.chmod(0o600)


def _is_new(database: sqlite3.Connection, name: str) -> bool:
    """Return whether there is nothing in the database yet, and check that it is a ledger else."""
    (application_id,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application_id != _APPLICATION_ID:
        raise LedgerError(f"{name} is another program's database, not a ledger")
    if tables and version != _VERSION:
        raise LedgerError(f"{name} was made by another version of nxotp_async", hint="use that version")
    return not tables


def _create_schema(database: sqlite3.Connection) -> None:
    for statement in _SCHEMA.split(";"):
        database.execute(statement)
    database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {_VERSION}")
    database.execute("INSERT INTO identity VALUES (?, 0)", (token_bytes(32),))
