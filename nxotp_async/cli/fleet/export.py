"""``nxotp fleet export``."""

from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Final

import click
import orjson

from ...bulk import FileFormat
from ...bulk.formats import csv_line
from ..event_loop import run
from ..results_file import export_options, write_results
from .outboxes import outbox_of

if TYPE_CHECKING:
    from ...fleet import Outbox

__all__ = ["command"]

# Those of nxotp bulk export where they exist, each with the attribute of OutboxMessage.
_COLUMNS: Final = {
    "cus_message_id": "cus_message_id",
    "sender": "sender",
    "queue": "queue",
    "status": "state",
    "message_id": "message_id",
    "code": "code",
    "meta_code": "meta_code",
    "error": "error",
    "reason": "reason",
    "attempts": "attempts",
    "receipt": "receipt",
    "queued_at": "queued_at",
    "expires_at": "expires_at",
    "sent_at": "sent_at",
    "finished_at": "finished_at",
}


@click.command("export")
@export_options
def command(**options: Any) -> None:  # noqa: ANN401 - those of write_results
    """Write one row of results for each message of the outbox, of all senders, in the order of enqueuing.

    No row holds a code or a number, which are erased with the outcome. An existing output is replaced if it is an
    earlier export in the same format, or empty. If the output cannot be written, the exit code is 2.
    """
    outbox = outbox_of()
    write_results(lambda file, file_format: run(_export(outbox, file, file_format)), _COLUMNS, **options)


async def _export(outbox: "Outbox", output: IO[str], file_format: FileFormat) -> str:
    count = 0
    async with outbox:
        if file_format is FileFormat.CSV:
            output.write(csv_line(_COLUMNS))
        async for message in outbox.results():
            values = [_cell(getattr(message, name)) for name in _COLUMNS.values()]
            if file_format is FileFormat.CSV:
                output.write(csv_line(values))
            else:
                output.write(orjson.dumps(dict(zip(_COLUMNS, values, strict=True))).decode() + "\n")
            count += 1
    return f"{count:,} rows"


def _cell(value: object) -> object:
    return value.isoformat("T", "milliseconds") if isinstance(value, datetime) else value
