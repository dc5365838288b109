"""``nxotp bulk run`` and ``nxotp bulk resume``."""

import asyncio
import math
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import click

from ...bulk import Dispatcher, FileFormat, Ledger, Loaded, MessageFile, RejectsFile, Report, Row, load, open_messages
from ...client import OtpClient
from ...errors import ConfigurationError, InputFileError, LedgerError
from ...retry import RetryPolicy
from ..common import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_REJECTED, EXIT_USAGE, ask_key, fail, print_json, stderr
from ..common import run as run_async
from .progress import LoadingProgress, SendingProgress
from .summary import exit_code, print_summary, summary_fields

__all__ = ["resume", "run"]

_SHOWN_REJECTS = 20


class _Interval(click.ParamType[float]):
    """Messages per time, such as 1/6s, as the seconds between two of them."""

    name = "N/TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6}(?:\.\d{1,6})?|\.\d{1,6})?([smh])", str(value).replace(" ", ""))
        count, span = (int(match[1]), float(match[2] or 1)) if match else (0, 0.0)
        if match is None or not count or not span:
            self.fail("expected messages per time: 1/6s, 10/m or 1/h", param, ctx)
        return span * {"s": 1.0, "m": 60.0, "h": 3600.0}[match[3]] / count


class _Rate(click.FloatRange):
    """Messages a second; "nan" is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - as in FloatRange
        rate = float(super().convert(value, param, ctx))
        if math.isnan(rate):
            self.fail("nan is no number of messages", param, ctx)
        return rate


def _sending_options(command: Callable[..., None]) -> Callable[..., None]:
    options = [
        click.option("--concurrency", type=click.IntRange(1, 10_000), help="Requests in flight. Default: 64."),
        click.option(
            "--rate",
            type=_Rate(0.001, 1_000_000),
            help="Messages a second at the most. Meta's default is 80 for a sending number. It halves when the vendor "
            "throttles, and grows back.",
        ),
        click.option(
            "--per-recipient", type=_Interval(), help="Messages to one recipient at the most; Meta's limit is 1/6s."
        ),
        click.option(
            "--max-per-recipient", type=click.IntRange(1), help="Send no recipient more than so many of the ledger."
        ),
        click.option(
            "--max-attempts",
            type=click.IntRange(1, 100),
            default=5,
            show_default=True,
            help="Attempts for a message that the vendor refuses for a while.",
        ),
        click.option(
            "--reject-on",
            type=int,
            multiple=True,
            metavar="CODE",
            help="Reject the message alone at this code of the vendor's, and do not pause the run (9004, for example, "
            "where the account has no price for some countries). Repeatable.",
        ),
        click.option("--base-url", help="The API's base URL. Default: NXOTP_BASE_URL, or NXCloud's."),
        click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@attrs.frozen
class _Sending:
    """What the options shared by both commands say."""

    concurrency: int | None
    rate: float | None
    per_recipient: float | None
    max_per_recipient: int | None
    max_attempts: int
    reject_on: tuple[int, ...]
    base_url: str | None
    as_json: bool

    def client(self) -> OtpClient:
        access_key, access_secret, appkey = map(ask_key, ("access_key", "access_secret", "appkey"))
        try:
            return OtpClient(
                access_key=access_key,
                access_secret=access_secret,
                appkey=appkey,
                base_url=self.base_url,
                max_concurrency=self.concurrency,
            )
        except ConfigurationError as error:
            fail(error, EXIT_CONFIGURATION)


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--ledger", type=click.Path(path_type=Path), help="Where to keep track. Default: FILE.ledger")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(FileFormat, case_sensitive=False),
    help="Default: as the file's name says.",
)
@click.option(
    "--rejects", type=click.Path(path_type=Path), help="Where to set bad rows aside. Default: FILE.rejects..."
)
@click.option("--strict", is_flag=True, help="Send nothing where any row is bad.")
@click.option("--dry-run", is_flag=True, help="Check every row, report the bad ones, and send nothing.")
@_sending_options
def run(
    file: str,
    ledger: Path | None,
    file_format: FileFormat | None,
    rejects: Path | None,
    strict: bool,
    dry_run: bool,
    **options: Any,  # noqa: ANN401 - options of several types, each checked by click
) -> None:
    """Send the messages of FILE: CSV or NDJSON, also compressed with gzip; - is standard input.

    The file is read and checked whole before the first message is sent; bad rows are set aside with their line and
    what is wrong with them. After a crash give the same command once more, or `nxotp bulk resume`: rows that are in
    the ledger are neither taken in nor sent again.
    """
    try:
        if dry_run:
            _check(file, file_format, as_json=options["as_json"])
        else:
            _run(file, file_format, ledger, rejects, strict=strict, sending=_Sending(**options))
    except InputFileError as error:
        fail(error, EXIT_USAGE)
    except LedgerError as error:
        fail(error, EXIT_CONFIGURATION)


def _check(file: str, file_format: FileFormat | None, *, as_json: bool) -> None:
    rejected: list[dict[str, object]] = []

    def report(row: Row, problem: str) -> None:
        if as_json:
            rejected.append({"line": row.line, "problem": problem})
        else:
            click.echo(f"line {row.line}: {problem}")

    with open_messages(file, file_format) as messages, Ledger(None) as ledger, LoadingProgress() as progress:
        loaded = load(ledger, messages, on_reject=report, on_progress=progress.show)
    if as_json:
        print_json({"rows": loaded.rows, "good": loaded.queued, "bad": loaded.rejected, "rejects": rejected})
    else:
        stderr.print(f"{loaded.rows} rows: {loaded.queued} good, {loaded.rejected} bad; nothing was sent")
    sys.exit(EXIT_REJECTED if loaded.rejected else 0)


def _run(
    file: str,
    file_format: FileFormat | None,
    ledger_path: Path | None,
    rejects_path: Path | None,
    *,
    strict: bool,
    sending: _Sending,
) -> None:
    if ledger_path is None:
        if file == "-":
            fail("standard input has no name to call a ledger after: say --ledger run.db", EXIT_USAGE)
        ledger_path = Path(f"{file}.ledger")
    with open_messages(file, file_format) as messages:
        client = sending.client()
        base = Path(ledger_path if file == "-" else file.removesuffix(".gz"))
        rejects = RejectsFile(rejects_path or base.with_name(f"{base.stem}.rejects.{messages.format}"), messages)
        with Ledger(ledger_path) as ledger:
            try:
                loaded, kept = _load(ledger, messages, rejects, strict=strict)
            except KeyboardInterrupt:
                fail("interrupted; nothing was sent", EXIT_INTERRUPTED)
            _announce(loaded, ledger_path, kept)
            _dispatch(ledger, client, sending)


def _load(ledger: Ledger, messages: MessageFile, rejects: RejectsFile, *, strict: bool) -> tuple[Loaded, Path | None]:
    shown = 0
    kept: Path | None = None

    def set_aside(row: Row, problem: str) -> None:
        nonlocal shown
        shown += 1
        if shown <= _SHOWN_REJECTS:
            stderr.print(f"line {row.line}: {problem}", markup=False, soft_wrap=True)
        if not strict:
            rejects.add(row, problem)

    def keep() -> None:
        nonlocal kept
        kept = rejects.keep()

    try:
        with LoadingProgress() as progress:
            loaded = load(
                ledger, messages, strict=strict, on_reject=set_aside, on_progress=progress.show, before_commit=keep
            )
    finally:
        rejects.discard()
        if shown > _SHOWN_REJECTS:
            stderr.print(f"... and {shown - _SHOWN_REJECTS} bad rows more")
    return loaded, kept


def _announce(loaded: Loaded, ledger: Path, rejects: Path | None) -> None:
    parts = [f"{loaded.rows} rows: {loaded.queued} queued in {ledger}"]
    if loaded.known:
        parts.append(f"{loaded.known} were there before")
    if loaded.rejected:
        parts.append(f"{loaded.rejected} set aside in {rejects}")
    stderr.print(", ".join(parts), markup=False, soft_wrap=True)


@click.command()
@click.argument("ledger", type=click.Path(path_type=Path))
@_sending_options
def resume(ledger: Path, **options: Any) -> None:  # noqa: ANN401 - options of several types, each checked by click
    """Send what is still queued in LEDGER, after a crash, a kill, a pause or Ctrl-C.

    What was in flight at a crash is unknown, and is not sent again by itself; see `nxotp bulk resolve`.
    """
    sending = _Sending(**options)
    try:
        client = sending.client()
        with Ledger(ledger, create=False) as opened:
            _dispatch(opened, client, sending)
    except LedgerError as error:
        fail(error, EXIT_CONFIGURATION)


def _dispatch(ledger: Ledger, client: OtpClient, sending: _Sending) -> None:
    dispatcher = Dispatcher(
        ledger,
        client,
        rate=sending.rate,
        per_recipient=sending.per_recipient,
        max_per_recipient=sending.max_per_recipient,
        retry=RetryPolicy(max_attempts=sending.max_attempts),
        reject_on=sending.reject_on,
    )
    report = run_async(_run_until_told(dispatcher, client))
    if report is None:
        fail(f"left at once; go on with: nxotp bulk resume {ledger.path}", EXIT_INTERRUPTED)
    try:
        if sending.as_json:
            print_json(summary_fields(ledger, report))
        else:
            print_summary(ledger, report)
    except KeyboardInterrupt:
        fail(f"interrupted; what became of it: nxotp bulk status {ledger.path}", EXIT_INTERRUPTED)
    sys.exit(exit_code(report))


async def _run_until_told(dispatcher: Dispatcher, client: OtpClient) -> Report | None:
    """Run; drain at the first SIGINT or SIGTERM; at the second leave, and return nothing."""
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(dispatcher.run())
    is_told = asyncio.Event()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        # Windows has no SIGHUP, and no signal handlers in the loop: Ctrl-C leaves at once there.
        with suppress(NotImplementedError, AttributeError):
            loop.add_signal_handler(getattr(signal, name), _interrupt, dispatcher, running, is_told)
    async with client:
        with SendingProgress(dispatcher) as progress:
            following = asyncio.create_task(progress.follow())
            try:
                return await running
            except asyncio.CancelledError:
                return None
            finally:
                following.cancel()


def _interrupt(dispatcher: Dispatcher, running: "asyncio.Task[Report]", is_told: asyncio.Event) -> None:
    if is_told.is_set():
        running.cancel()
        return
    is_told.set()
    dispatcher.stop()
    stderr.print(
        f"stopping: waiting for {dispatcher.in_flight} in flight, 30 s at the most; Ctrl-C once more leaves at once",
        soft_wrap=True,
    )
