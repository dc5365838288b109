"""Progress on standard error: a bar on a terminal, otherwise a line every ten seconds, of text or JSON."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, NamedTuple

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column

from ..clocks import Clock
from . import output

__all__ = ["BAR_INTERVAL", "LINE_INTERVAL", "Snapshot", "reading_progress", "run_progress"]

BAR_INTERVAL: Final = 0.25  # seconds
LINE_INTERVAL: Final = 10.0  # seconds


class Snapshot(NamedTuple):
    """How far a run is: what is completed, of which total, and its figures, for people and for programs."""

    completed: float
    total: float
    text: str
    fields: dict[str, Any] = {}  # noqa: RUF012 - of a NamedTuple, and nobody changes it


@contextmanager
def reading_progress() -> Iterator[Callable[[int], None]]:
    """Yield a function that shows, on a terminal, how many rows of a file have been read."""
    console, columns = output.stderr, (SpinnerColumn(), TextColumn("reading: {task.completed:,} rows"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda rows: bar.update(task, completed=rows)


@asynccontextmanager
async def run_progress(
    look: Callable[[], Snapshot | None],
    *,
    interval: float | None = None,
    as_json: bool = False,
    console: Console | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[None]:
    """Look how far a run in the event loop is every ``interval`` seconds, and show it, until the block ends.

    With ``as_json`` there is no bar, but the first and the last look are lines, too.
    """
    console, clock = console or output.stderr, clock or Clock()
    columns = BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.fields[text]}", table_column=Column())
    # Without a thread that refreshes it, which would compete with the run for the interpreter lock.
    bar = Progress(
        *columns, console=console, transient=True, auto_refresh=False, disable=as_json or not console.is_terminal
    )
    task = bar.add_task("", total=None, text="")

    def print_line(snapshot: Snapshot) -> None:
        completed, total, text, fields = snapshot
        line = f"{completed:,.0f}/{total:,.0f} ({completed / total:.0%})  {text}"
        console.print(orjson.dumps(fields).decode() if as_json else line, markup=False, soft_wrap=True)

    async def follow() -> None:
        last_line = -math.inf if as_json else clock.monotonic()
        while True:
            await clock.sleep(BAR_INTERVAL if interval is None else interval)
            if (snapshot := look()) is None:
                continue
            bar.update(task, completed=snapshot.completed, total=snapshot.total, text=snapshot.text, refresh=True)
            if bar.disable and clock.monotonic() - last_line >= LINE_INTERVAL:
                last_line = clock.monotonic()
                print_line(snapshot)

    with bar:
        following = asyncio.create_task(follow())
        try:
            yield
        finally:
            following.cancel()
            if as_json and (snapshot := look()) is not None:
                print_line(snapshot)
