"""How a ledger's messages are sent, by the options that ``nxotp bulk run`` and ``nxotp bulk resume`` share."""

import asyncio
import math
import re
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import cached_property
from typing import Any, Final, NoReturn

import attrs
import click

from ...bulk import Dispatcher, Ledger, ReceiptRecorder, Report
from ...client import OtpClient
from ...errors import ConfigurationError
from ...receivers import aiohttp_receiver
from ...retry import RetryPolicy
from ...signing import Credentials
from ..common import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_USAGE, ask_key, fail, print_json, run, stderr
from ..listen import callback_options, receiving
from .progress import SendingProgress
from .summary import exit_code, print_summary, summary_fields

__all__ = ["Sending", "sending_options"]

_CALLBACKS_INTERVAL: Final = 0.5  # seconds


class _Address(click.ParamType[tuple[str, int]]):
    """A port to listen on, or a host and a port."""

    name = "[HOST:]PORT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        is_port = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535
        if not is_port or (":" in host and not (host.startswith("[") and host.endswith("]"))):
            self.fail("expected a port, or a host and a port: 8090 or 0.0.0.0:8090", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


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


class _Number(click.FloatRange):
    """A number in a range; "nan" is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - as in FloatRange
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail("nan is no number", param, ctx)
        return number


def sending_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how a ledger's messages are sent, those of `Sending`."""
    options = [
        click.option("--concurrency", type=click.IntRange(1, 10_000), help="Requests in flight. Default: 64."),
        click.option(
            "--rate",
            type=_Number(0.001, 1_000_000),
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
        click.option(
            "--listen",
            type=_Address(),
            metavar="[HOST:]PORT",
            help="Receive status callbacks here while it runs, and after; see nxotp listen.",
        ),
        click.option(
            "--listen-for",
            type=_Number(0, 86_400),
            default=60.0,
            show_default=True,
            help="Seconds to wait in the end for callbacks that are missing.",
        ),
        click.option("--dr-webhook", help="The public URL of --listen, for messages that name none of their own."),
        *callback_options,
        click.option("--base-url", help="The API's base URL. Default: NXOTP_BASE_URL, or NXCloud's."),
        click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@attrs.frozen
class Sending:
    """How to send, as the options say."""

    concurrency: int | None
    rate: float | None
    per_recipient: float | None
    max_per_recipient: int | None
    max_attempts: int
    reject_on: tuple[int, ...]
    listen: tuple[str, int] | None
    listen_for: float
    dr_webhook: str | None
    token: str | None = attrs.field(repr=False)
    unsigned: bool
    window: float
    base_url: str | None
    as_json: bool

    @cached_property
    def _keys(self) -> tuple[str | None, ...]:
        return tuple(map(ask_key, ("access_key", "access_secret", "appkey")))

    def client(self) -> OtpClient:
        """Return a client of the account. Exits where the options or the configuration are wrong."""
        if self.unsigned and self.token is None:
            fail("--unsigned needs a --token, the one at the end of --dr-webhook", EXIT_USAGE)
        access_key, access_secret, appkey = self._keys
        try:
            return OtpClient(
                access_key=access_key,
                access_secret=access_secret,
                appkey=appkey,
                base_url=self.base_url,
                dr_webhook=self.dr_webhook,
                max_concurrency=self.concurrency,
            )
        except ConfigurationError as error:
            fail(error, EXIT_CONFIGURATION)

    def dispatch(self, ledger: Ledger, client: OtpClient) -> NoReturn:
        """Send what the ledger has queued, print the summary, and exit."""
        dispatcher = Dispatcher(
            ledger,
            client,
            rate=self.rate,
            per_recipient=self.per_recipient,
            max_per_recipient=self.max_per_recipient,
            retry=RetryPolicy(max_attempts=self.max_attempts),
            reject_on=self.reject_on,
        )
        try:
            report = run(self._run_until_told(dispatcher, client, ledger))
        except ConfigurationError as error:
            fail(f"{error}; nothing was sent", EXIT_CONFIGURATION)
        if report is None:
            fail(f"left at once; go on with: nxotp bulk resume {ledger.path}", EXIT_INTERRUPTED)
        try:
            if self.as_json:
                print_json(summary_fields(ledger, report))
            else:
                print_summary(ledger, report)
        except KeyboardInterrupt:
            fail(f"interrupted; what became of it: nxotp bulk status {ledger.path}", EXIT_INTERRUPTED)
        sys.exit(exit_code(report))

    async def _run_until_told(self, dispatcher: Dispatcher, client: OtpClient, ledger: Ledger) -> Report | None:
        """Run; drain at the first SIGINT or SIGTERM; at the second leave, and return nothing."""
        interruption = _Interruption(dispatcher)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(client)
            if self.listen is not None:
                access_key, access_secret, _ = self._keys
                keys = Credentials(access_key or "", access_secret or "")
                receiver = aiohttp_receiver(
                    ReceiptRecorder(ledger), keys, token=self.token, allow_unsigned=self.unsigned, window=self.window
                )
                url = await stack.enter_async_context(receiving(receiver, self.listen, self.token))
                stderr.print(f"receiving callbacks on {url}", markup=False, soft_wrap=True)
            running = interruption.watch(asyncio.create_task(dispatcher.run()))
            with SendingProgress(dispatcher) as progress:
                following = asyncio.create_task(progress.follow())
                try:
                    report = await running
                except asyncio.CancelledError:
                    return None
                finally:
                    following.cancel()
            if self.listen is None or report.stopped:
                return report
            await self._wait_for_callbacks(ledger, interruption.told)
        # Callbacks have settled messages, and erased their codes, since the run ended.
        await asyncio.to_thread(ledger.forget_codes)
        return attrs.evolve(report, counts=ledger.counts())

    async def _wait_for_callbacks(self, ledger: Ledger, told: asyncio.Event) -> None:
        """Wait until callbacks have told of every message, or for as long as it was asked, or until Ctrl-C."""
        if missing := await asyncio.to_thread(ledger.count_awaited):
            stderr.print(
                f"waiting for the callbacks of {missing:,} messages, "
                f"{self.listen_for:g} s at the most; Ctrl-C ends that",
                soft_wrap=True,
            )
        with suppress(TimeoutError):
            async with asyncio.timeout(self.listen_for):
                while await asyncio.to_thread(ledger.count_awaited) and not told.is_set():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_CALLBACKS_INTERVAL):
                            await told.wait()


class _Interruption:
    """Ctrl-C and its like: the first drains, the second leaves."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.told = asyncio.Event()
        self._dispatcher = dispatcher

    def watch(self, running: "asyncio.Task[Report]") -> "asyncio.Task[Report]":
        """Take the signals for this run from now on."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            # Windows has no SIGHUP, and no signal handlers in the loop: Ctrl-C leaves at once there.
            with suppress(NotImplementedError, AttributeError):
                asyncio.get_running_loop().add_signal_handler(getattr(signal, name), self._interrupt, running)
        return running

    def _interrupt(self, running: "asyncio.Task[Report]") -> None:
        if self.told.is_set() or running.done():
            running.cancel()
            self.told.set()
            return
        self.told.set()
        self._dispatcher.stop()
        stderr.print(
            f"stopping: waiting for {self._dispatcher.in_flight} in flight, 30 s at the most; "
            "Ctrl-C once more leaves at once",
            soft_wrap=True,
        )
