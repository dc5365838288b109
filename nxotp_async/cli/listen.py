"""``nxotp listen``."""

import asyncio
import os
import select
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from secrets import token_urlsafe
from typing import Final

import click
import orjson
from aiohttp import web

from ..callbacks import StatusEvent
from ..errors import ConfigurationError
from ..phone_numbers import mask_number
from ..receivers import aiohttp_receiver
from ..signing import Credentials
from ..tracking import DeliveryTracker
from .common import EXIT_CONFIGURATION, EXIT_USAGE, ask_key, fail, printable, run, stderr
from .sandbox import FiniteRange

__all__ = ["callback_options", "listen", "receiving"]

_SHUTDOWN_TIMEOUT: Final = 1.0  # seconds that what has come is given to be taken in and answered, in the end
_PIECE: Final[int] = getattr(select, "PIPE_BUF", 512)  # bytes that a pipe takes without blocking where select says so

callback_options = (
    click.option(
        "--token",
        envvar="NXOTP_CALLBACK_TOKEN",
        help="An unguessable last part of the callbacks' path, 16 characters at least. Made up for --unsigned.",
    ),
    click.option(
        "--unsigned",
        is_flag=True,
        help="Take callbacks without a signature too, for accounts that have no signed ones; needs a token.",
    ),
    click.option(
        "--window",
        type=FiniteRange(0, min_open=True),
        default=300.0,
        show_default=True,
        help="Seconds that a callback's ts may be away from this machine's time.",
    ),
)
"""The options that say whose callbacks are believed."""


@asynccontextmanager
async def receiving(receiver: web.Application, address: tuple[str, int], token: str | None) -> AsyncIterator[str]:
    """Serve a receiver for as long as the block runs, and yield its URL.

    When the block ends, no connection is accepted any more; what has come is taken in and answered before it returns.

    Raises:
        ConfigurationError: The address cannot be listened on.
    """
    runner = web.AppRunner(receiver, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_TIMEOUT)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, *address).start()
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no such host"
            raise ConfigurationError(f"cannot listen on {address[0]}:{address[1]}: {reason}") from None
        host, port = runner.addresses[0][:2]
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/{token or ''}"
    finally:
        await runner.cleanup()


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="0 takes a free one.")
@callback_options[0]
@callback_options[1]
@callback_options[2]
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def listen(host: str, port: int, token: str | None, unsigned: bool, window: float, as_json: bool) -> None:
    """Show status callbacks as they come: which message was sent, delivered, read, or failed.

    They are verified with the account's keys. The vendor must be able to reach this address: put it behind your
    reverse proxy with TLS, and give its public URL as dr_webhook.

    A callback is answered when it is printed, so that the vendor pushes again what could not be. One that tells
    nothing new of its message has no line.
    """
    if sys.__stdout__ is None:  # sys.stdout is the null device then
        fail("standard output is closed: callbacks could be printed nowhere", EXIT_USAGE)
    if unsigned and token is None:
        token = token_urlsafe(24)
    credentials = _credentials(unsigned)
    if credentials is None and not unsigned:
        fail(
            "the keys that verify the callbacks are missing: set NXOTP_ACCESS_KEY and NXOTP_ACCESS_SECRET, "
            "or say --unsigned for an account whose callbacks are not signed",
            EXIT_CONFIGURATION,
        )
    printer = _Printer(as_json)
    try:
        receiver = aiohttp_receiver(printer, credentials, token=token, allow_unsigned=unsigned, window=window)
        run(_listen(printer, receiver, (host, port), token), interrupted="stopped")
    except ConfigurationError as error:
        fail(error, EXIT_CONFIGURATION)
    if printer.failure is not None:
        fail(f"cannot write to standard output: {printer.failure.strerror}", EXIT_USAGE)
    stderr.print("stopped")


def _credentials(unsigned: bool) -> Credentials | None:
    """Return the account's keys, where they are known. They are asked for where nothing is believed without them."""
    if unsigned and not (os.environ.get("NXOTP_ACCESS_KEY") and os.environ.get("NXOTP_ACCESS_SECRET")):
        return None
    access_key, access_secret = ask_key("access_key"), ask_key("access_secret")
    return Credentials(access_key, access_secret) if access_key and access_secret else None


async def _listen(printer: "_Printer", receiver: web.Application, address: tuple[str, int], token: str | None) -> None:
    async with receiving(receiver, address, token) as url:
        for name in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # Windows has no signal handlers in the loop
                asyncio.get_running_loop().add_signal_handler(name, printer.stop.set)
        stderr.print(f"listening on {url}", markup=False, soft_wrap=True)
        await printer.stop.wait()


class _Printer:
    """An `EventSink` that takes an event in by printing it, where it is news.

    Attributes:
        stop: Set when nothing more can be printed, or from outside.
        failure: Why nothing more can be printed.
    """

    def __init__(self, as_json: bool) -> None:
        self.stop = asyncio.Event()
        self.failure: OSError | None = None
        self._as_json = as_json
        self._tracker = DeliveryTracker()
        self._turn = asyncio.Lock()
        self._is_sound = True

    async def record(self, event: StatusEvent) -> None:
        """Print an event, or have the callback answered 503: the vendor pushes it again, perhaps when we are back."""
        async with self._turn:  # a repetition waits until the first one is printed
            if not self._is_sound:
                raise web.HTTPServiceUnavailable
            # Until it is printed. What is known to the tracker and was not printed must not be taken for old news.
            self._is_sound = False
            if await self._tracker.record(event):
                try:
                    await _write(self._line(event))
                except OSError as error:
                    self.failure = error
                    self.stop.set()
                    raise web.HTTPServiceUnavailable from None
            self._is_sound = True

    def _line(self, event: StatusEvent) -> bytes:
        if self._as_json:
            return orjson.dumps(_fields(event), option=orjson.OPT_APPEND_NEWLINE)
        return f"{printable(_text(event))}\n".encode(sys.stdout.encoding, "replace")


async def _write(data: bytes) -> None:
    """Write to standard output, past its buffer. A reader who is slow holds up the writer, and not the event loop."""
    number = sys.stdout.fileno()
    while data:
        if os.name != "nt":  # Windows can ask sockets only
            await _until_writable(number)
        data = data[os.write(number, data[:_PIECE]) :]


async def _until_writable(number: int) -> None:
    if select.select([], [number], [], 0)[1]:  # a file is so always; the loop could not wait for it
        return
    loop, writable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_writer(number, writable.set)
    try:
        await writable.wait()
    finally:
        loop.remove_writer(number)


def _fields(event: StatusEvent) -> dict[str, object]:
    return {
        "message_id": event.message_id,
        "status": event.status,
        "timestamp": event.timestamp,
        "recipient": event.recipient and mask_number(event.recipient),
        "errors": event.errors,
    }


def _text(event: StatusEvent) -> str:
    at = event.timestamp.astimezone().strftime("%H:%M:%S") if event.timestamp else "--:--:--"
    why = "; ".join(f"{error.get('code', '')} {error.get('title', '')}".strip() for error in event.errors)
    recipient = mask_number(event.recipient) if event.recipient else ""
    return f"{at}  {event.status:<10} {event.message_id:<40} {recipient}  {why}".rstrip()
