"""How the rows of a file are taken in, and the invalid ones told and set aside."""

from pathlib import Path
from typing import Final

from ...bulk import Ledger, MessageFile, RejectsFile, Row, load
from ..exit_codes import ExitCode
from ..output import fail, print_note
from ..progress import reading_progress

__all__ = ["rejects_file", "take_in"]

_SHOWN_REJECTS: Final = 20


def rejects_file(given: Path | None, name: str, messages: MessageFile) -> RejectsFile:
    """Return the file for the invalid rows: the one that is given, or one beside the file of this name."""
    base = Path(name.removesuffix(".gz"))
    return RejectsFile(given or base.with_name(f"{base.stem}.rejects.{messages.format}"), messages)


def take_in(ledger: Ledger, messages: MessageFile, rejects: RejectsFile, *, strict: bool, where: str) -> None:
    """Take a file into a ledger, or exit; tell which rows are invalid, and how many are now where."""
    rejected = 0
    kept: Path | None = None

    def reject(row: Row, problem: str) -> None:
        nonlocal rejected
        rejected += 1
        if rejected <= _SHOWN_REJECTS:
            print_note(f"line {row.line}: {problem}")
        if not strict:
            rejects.add(row, problem)

    def keep() -> None:
        nonlocal kept
        kept = rejects.keep()

    try:
        with reading_progress() as show:
            loaded = load(ledger, messages, strict=strict, on_reject=reject, on_progress=show, before_commit=keep)
    except KeyboardInterrupt:
        fail("interrupted; nothing was sent", ExitCode.INTERRUPTED)
    finally:
        rejects.discard()
        if rejected > _SHOWN_REJECTS:
            print_note(f"... and {rejected - _SHOWN_REJECTS} more invalid rows")
    parts = [f"{loaded.rows} rows: {loaded.queued} {where}"]
    if loaded.known:
        parts.append(f"{loaded.known} already there")
    if loaded.rejected:
        parts.append(f"{loaded.rejected} invalid, written to {kept}")
    print_note(", ".join(parts))
