"""How a ledger's messages are sent, by the options that ``nxotp bulk run`` and ``nxotp bulk resume`` share."""

import asyncio
import os
import re
import sys
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs
import click

from ...bulk import Budget, Dispatcher, Ledger, ReceiptRecorder, Report
from ...bulk.money import CNY
from ...client import OtpClient
from ...errors import ConfigurationError
from ...pacing import SharedRate
from ...retry import RetryPolicy
from ...senders import SenderPool, read_senders
from ...signing import Credentials
from ...stores import MemoryStore, store_from_url
from ..account import account_client, ask_credentials, quick_transport
from ..event_loop import on_stop_signal, run
from ..exit_codes import ExitCode
from ..output import fail, print_note
from ..parameters import (
    ADDRESS,
    CONCURRENCY,
    COUNT,
    EXISTING_FILE,
    INTERVAL,
    RATE,
    ParsedText,
    Seconds,
    base_url_option,
    json_option,
    options,
    time_limit_options,
)
from ..progress import run_progress
from ..serving import callback_options, receiving
from .control import Control, controllable
from .forecast import Forecast, forecast
from .metrics import measured
from .progress import SendingProgress
from .summary import exit_code, print_summary, summary_of

__all__ = ["CALLBACKS_INTERVAL", "Sending", "sending_options"]

CALLBACKS_INTERVAL: Final = 0.5  # seconds between two looks whether callbacks are missing


def _name(text: str) -> str:
    if not text:
        raise ValueError("the name is empty")
    return text


def _amount(text: str) -> tuple[Decimal, str]:
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) ?([A-Za-z]{3})?", text)
    if match is None:
        raise ValueError("expected an amount, with its currency unless that is CNY: 350, or 50USD")
    return Decimal(match[1]), (match[2] or CNY).upper()


def _price(text: str) -> Decimal:
    if not text[-1:].isdigit() or not (price := _amount(text)[0]):
        raise ValueError("expected an amount above 0, without a currency: 0.05")
    return price


sending_options = options(
    click.option("--concurrency", type=CONCURRENCY, help="Requests in flight at most. Default: 64."),
    click.option(
        "--rate",
        type=RATE,
        help="Messages a second at most. Meta's default is 80 for a sending number. It halves when the vendor "
        "throttles, and grows back.",
    ),
    click.option(
        "--shared-rate",
        type=ParsedText("name", _name),
        help="Share --rate, under this name, with all processes that use the store of NXOTP_STORE, and take what the "
        "others leave of it.",
    ),
    click.option("--per-recipient", type=INTERVAL, help="Messages to one recipient at most; Meta's limit is 1/6s."),
    click.option("--max-per-recipient", type=COUNT, help="Messages of the ledger to one recipient at most."),
    click.option(
        "--max-attempts",
        type=click.IntRange(1, 100),
        default=5,
        help="Attempts for a message that the vendor refuses temporarily.",
    ),
    click.option(
        "--patience",
        type=Seconds(0, 604_800),
        default=900.0,
        help="How long to wait for the vendor while it is away. Then the run ends, with the exit code 4.",
    ),
    click.option(
        "--reject-on",
        type=int,
        multiple=True,
        metavar="CODE",
        help="Reject the message at once at this code of the vendor's, which may concern the whole account (9004, for "
        "example, where it has no price for some countries). May be repeated.",
    ),
    click.option(
        "--budget",
        type=ParsedText("amount", _amount),
        help="What all messages of the ledger may cost, 350 (CNY) or 50USD: the run ends before that is passed.",
    ),
    click.option(
        "--price",
        type=ParsedText("amount", _price),
        help="What one message costs at the most, in the currency of --budget, until callbacks tell. Without "
        "--budget, in that of the account: whether its balance lasts is said beforehand.",
    ),
    click.option(
        "--keep-codes",
        is_flag=True,
        help="Keep the codes of rejected messages in the ledger until they expire, for nxotp bulk requeue. The next "
        "run without it erases them.",
    ),
    click.option(
        "--listen",
        type=ADDRESS,
        metavar="[HOST:]PORT",
        help="Receive status callbacks here during the run and after it; see nxotp listen.",
    ),
    click.option(
        "--listen-for",
        type=Seconds(0, 86_400),
        default=60.0,
        help="How long to wait after the run for missing callbacks.",
    ),
    click.option("--dr-webhook", help="The public URL of --listen, for messages without one of their own."),
    click.option(
        "--senders",
        type=EXISTING_FILE,
        envvar="NXOTP_SENDERS",
        help="A TOML file of numbers to send by, each at a rate of its own. Default: NXOTP_SENDERS.",
    ),
    click.option("--yes", is_flag=True, help="Send although the account has no balance left."),
    callback_options,
    base_url_option,
    time_limit_options,
    click.option(
        "--progress",
        type=click.Choice(["text", "json"]),
        default="text",
        help="Of what the progress on standard error is: json writes one object a line, every ten seconds.",
    ),
    click.option(
        "--metrics",
        type=ADDRESS,
        metavar="[HOST:]PORT",
        help="Serve metrics for Prometheus at /metrics here, for as long as the run lasts.",
    ),
    click.option(
        "--otel", is_flag=True, help="Give metrics and traces to OpenTelemetry, as opentelemetry-instrument sets it up."
    ),
    json_option(help="Print the summary as JSON."),
)
"""The options that say how a ledger's messages are sent, those of `Sending`."""


@attrs.frozen
class Sending:
    """How to send, as the options say."""

    concurrency: int | None
    rate: float | None
    shared_rate: str | None
    per_recipient: float | None
    max_per_recipient: int | None
    max_attempts: int
    patience: float
    reject_on: tuple[int, ...]
    budget: tuple[Decimal, str] | None
    price: Decimal | None
    keep_codes: bool
    listen: tuple[str, int] | None
    listen_for: float
    dr_webhook: str | None
    senders: Path | None
    yes: bool
    token: str | None = attrs.field(repr=False)
    unsigned: bool
    window: float
    base_url: str | None
    timeout: float | None
    deadline: float | None
    progress: str
    metrics: tuple[str, int] | None
    otel: bool
    as_json: bool

    @cached_property
    def _credentials(self) -> Credentials:
        return ask_credentials()

    def __attrs_post_init__(self) -> None:
        if self.shared_rate is not None and self.rate is None:
            raise click.UsageError("--shared-rate requires a --rate, the same in all processes")
        if self.budget is not None and self.price is None:
            raise click.UsageError("--budget requires --price, what one message costs at the most: --price 0.05")

    @cached_property
    def _budget(self) -> Budget | None:
        if self.budget is None or self.price is None:
            return None
        amount, currency = self.budget
        return Budget(amount, self.price, currency)

    @cached_property
    def _send_rate(self) -> float | SharedRate | None:
        if self.shared_rate is None or self.rate is None:
            return self.rate
        try:
            store = store_from_url(os.environ.get("NXOTP_STORE") or "memory://")
        except ConfigurationError as error:
            raise ConfigurationError(f"NXOTP_STORE: {error}") from None
        if isinstance(store, MemoryStore):
            raise ConfigurationError(
                "--shared-rate needs a store that processes share: set NXOTP_STORE",
                hint="postgresql://user:password@host/database, or redis://host:6379/0",
            )
        return SharedRate(store, self.shared_rate, self.rate, background=True)

    def client(self) -> OtpClient:
        """Return a client of the account, when the options are known to be right."""
        _ = self._send_rate, self._budget
        if self.unsigned and self.token is None:
            raise click.UsageError("--unsigned requires a --token, the one at the end of --dr-webhook")
        client = account_client(
            self._credentials,
            base_url=self.base_url,
            dr_webhook=self.dr_webhook,
            max_concurrency=self.concurrency,
            timeout=self.timeout,
            deadline=self.deadline,
            transport=quick_transport(),
        )
        return client if self.senders is None else SenderPool(client, read_senders(self.senders))

    def dispatch(self, ledger: Ledger, client: OtpClient) -> NoReturn:
        """Send what the ledger has queued, print the summary, and exit."""
        self._look_ahead(ledger, client)
        dispatcher = Dispatcher(
            ledger,
            client,
            rate=self._send_rate,
            per_recipient=self.per_recipient,
            max_per_recipient=self.max_per_recipient,
            retry=RetryPolicy(max_attempts=self.max_attempts),
            reject_on=self.reject_on,
            budget=self._budget,
            keep_codes=self.keep_codes,
            patience=self.patience,
        )
        try:
            report = run(self._run(dispatcher, client, ledger))
        except ConfigurationError as error:
            fail(f"{error}; nothing was sent", ExitCode.CONFIGURATION)
        if report is None:
            fail(f"stopped at once; continue with: nxotp bulk resume {ledger.path}", ExitCode.INTERRUPTED)
        try:
            print_summary(summary_of(ledger, report) | {"transport": client.transport}, as_json=self.as_json)
        except KeyboardInterrupt:
            fail(f"interrupted; for the outcomes: nxotp bulk status {ledger.path}", ExitCode.INTERRUPTED)
        sys.exit(exit_code(report))

    def _look_ahead(self, ledger: Ledger, client: OtpClient) -> None:
        """Say what the run will meet, and exit if no message could pass."""

        async def look() -> Forecast:
            async with client:
                return await forecast(ledger, client, self.price, self.budget[1] if self.budget else None)

        foreseen = run(look(), interrupted=f"interrupted; continue with: nxotp bulk resume {ledger.path}")
        for warning in foreseen.warnings:
            print_note(f"beforehand: {warning}")
        if foreseen.refusal is not None and not self.yes:
            print_note(
                f"recharge it, then continue with: nxotp bulk resume {ledger.path}; or send all the same with --yes"
            )
            fail(f"{foreseen.refusal}; nothing was sent", ExitCode.CONFIGURATION)

    async def _run(self, dispatcher: Dispatcher, client: OtpClient, ledger: Ledger) -> Report | None:
        running = _Running(dispatcher)
        progress = SendingProgress(dispatcher)

        def summary() -> dict[str, Any]:
            return summary_of(ledger, Report(dispatcher.counts, paused=None, stopped=False))

        control = Control(ledger, dispatcher, progress, summary, running.stop)
        metrics = measured(client, progress, self.metrics, otel=self.otel)
        async with client, metrics, self._receiving(ledger), controllable(control):
            async with run_progress(progress.look, as_json=self.progress == "json"):
                report = await running.report()
            if report is None or report.stopped or self.listen is None:
                return report
            await self._wait_for_callbacks(ledger, running.stopped)
        # Callbacks have resolved messages since the run ended, whose codes are no longer needed.
        await asyncio.to_thread(ledger.forget_codes)
        return attrs.evolve(report, counts=ledger.counts())

    def _receiving(self, ledger: Ledger) -> AbstractAsyncContextManager[None]:
        if self.listen is None:
            return nullcontext()
        sink = ReceiptRecorder(ledger)
        return receiving(
            sink, self._credentials, self.listen, token=self.token, unsigned=self.unsigned, window=self.window
        )

    async def _wait_for_callbacks(self, ledger: Ledger, stopped: asyncio.Event) -> None:
        """Wait until every message has had its callbacks, or for as long as the option says, or until Ctrl-C."""
        if missing := await asyncio.to_thread(ledger.count_awaited):
            print_note(f"waiting for callbacks of {missing:,} messages, {self.listen_for:g} s at most; Ctrl-C ends it")
        with suppress(TimeoutError):
            async with asyncio.timeout(self.listen_for):
                while await asyncio.to_thread(ledger.count_awaited) and not stopped.is_set():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(CALLBACKS_INTERVAL):
                            await stopped.wait()


class _Running:
    """A run that drains at the first request to stop, and is left at the second.

    Attributes:
        stopped: Set at the first.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.stopped = asyncio.Event()
        self._dispatcher = dispatcher
        self._run: asyncio.Task[Report] | None = None

    async def report(self) -> Report | None:
        """Run, and return how that ended; nothing where it was left."""
        self._run = asyncio.create_task(self._dispatcher.run())
        on_stop_signal(self.stop)
        try:
            return await self._run
        except asyncio.CancelledError:
            return None

    def stop(self) -> None:
        """Stop at once, if it is stopping already or over."""
        if self._run is not None and (self.stopped.is_set() or self._run.done()):
            self._run.cancel()
        else:
            self._dispatcher.stop()
            print_note(
                f"stopping: waiting for {self._dispatcher.in_flight} in flight, 30 s at most; "
                "press Ctrl-C again to stop at once"
            )
        self.stopped.set()
