"""Looking at a ledger, also where it cannot be written."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from ..errors import LedgerError
from .database import log_of
from .ledger import Ledger

__all__ = ["look"]

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a private directory in it; what is there is never on a disk


@contextmanager
def look(path: Path) -> Iterator[Ledger]:
    """Open a ledger to look at it only: itself, or else a copy of it, where its disk is full or cannot be written.

    A copy is private, in memory where the system can do that, and goes away in the end; its changes do, too.

    Raises:
        LedgerError: Another process has it, or it is no ledger.
    """
    try:
        ledger = Ledger(path, create=False)
    except LedgerError as error:
        if error.in_use or not path.is_file():
            raise
        failure = error
    else:
        with ledger:
            yield ledger
        return
    with TemporaryDirectory(prefix="nxotp-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None) as directory:
        _check_unused(path)
        try:
            copy = _copied(path, Path(directory))
        except (LedgerError, OSError):
            raise failure from None
        with copy:
            yield copy


def _copied(path: Path, directory: Path) -> Ledger:
    target = directory / path.name
    for source, copy in ((path, target), (log_of(path), log_of(target))):
        if source.exists():
            shutil.copyfile(source, copy)
    ledger = Ledger(target, create=False)
    ledger.path = path
    return ledger


def _check_unused(path: Path) -> None:
    """Raise if a process has the ledger open. That needs no right to write it."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=0)) as database:
        try:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
                hint = "wait until it has ended, or stop it"
                raise LedgerError(f"{path} is in use by another process", hint=hint, in_use=True) from None
