"""``nxotp fleet load``."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...bulk import FileFormat, Ledger, open_messages
from ...errors import NxOtpError
from ..bulk.loading import rejects_file, take_in
from ..event_loop import run
from ..exit_codes import ExitCode
from ..output import fail, print_note
from ..parameters import COUNT, FILE, FILE_FORMAT, Seconds, default_region_option
from .outboxes import outbox_of, sender_option

if TYPE_CHECKING:
    from ...fleet import Outbox
    from ...fleet.loading import Moved

__all__ = ["command"]


@click.command("load")
@click.argument("file", type=click.Path(allow_dash=True))
@sender_option
@click.option("--format", "file_format", type=FILE_FORMAT, help="Default: by the suffix of FILE.")
@click.option("--rejects", type=FILE, help="File to write invalid rows to. Default: FILE.rejects...")
@click.option("--strict", is_flag=True, help="Enqueue nothing if any row is invalid.")
@click.option(
    "--expires-after",
    type=Seconds(0, min_open=True),
    default=86_400.0,
    help="After so long a row without expires_at is not sent any more.",
)
@click.option(
    "--max-queued",
    type=COUNT,
    default=100_000,
    help="Wait for the workers while so many of the sender's messages are queued in bulk.",
)
@default_region_option
def command(
    file: str,
    sender: str,
    file_format: FileFormat | None,
    rejects: Path | None,
    strict: bool,
    expires_after: float,
    max_queued: int,
    default_region: str | None,
) -> None:
    """Enqueue the messages of FILE, behind all logins: CSV or NDJSON, also compressed with gzip; - is standard input.

    The file is read and checked whole before the first message is enqueued, as by `nxotp bulk run`; invalid rows are
    written to the rejects file. Rows that the outbox holds are not enqueued again: after a crash, repeat the command.
    """
    outbox = outbox_of(sender, expires_after=expires_after, max_queued=max_queued)
    with Ledger(None, digest_key=outbox.keys.row_key) as ledger:
        with open_messages(file, file_format, default_region=default_region) as messages:
            rejected = rejects_file(rejects, "standard-input" if file == "-" else file, messages)
            take_in(ledger, messages, rejected, strict=strict, where="valid")
        run(_enqueue(ledger, outbox))


async def _enqueue(ledger: Ledger, outbox: "Outbox") -> None:
    from ...fleet.loading import Moved, move  # noqa: PLC0415 - an extra

    moved = Moved()
    try:
        async with outbox:
            async for moved in move(ledger, outbox, on_full=lambda error: print_note(f"waiting: {error}")):  # noqa: B007 - the last one is told
                pass
    except asyncio.CancelledError:
        print_note(f"{_told(moved)}; repeat the command for the rest")
        raise
    except NxOtpError as error:
        print_note(f"{_told(moved)}; repeat the command for the rest")
        fail(error, ExitCode.of(error))
    print_note(_told(moved))


def _told(moved: "Moved") -> str:
    parts = [f"{moved.queued:,} messages enqueued"]
    if moved.known:
        parts.append(f"{moved.known:,} were there already")
    if moved.expired:
        parts.append(f"{moved.expired:,} had expired")
    return ", ".join(parts)
