"""``nxotp listen``."""

import asyncio
import os
import sys
from contextlib import AbstractAsyncContextManager
from secrets import token_urlsafe

import attrs
import click
import orjson
from aiohttp import web

from ..callbacks import StatusEvent
from ..phone_numbers import mask_number
from ..signing import Credentials
from ..tracking import DeliveryTracker
from .account import ask_credentials
from .event_loop import on_stop_signal, run
from .exit_codes import ExitCode
from .output import fail, print_note, printable
from .parameters import json_option, listening_options
from .serving import callback_options, receiving, write_stdout

__all__ = ["CallbackPrinter", "command"]


@click.command("listen")
@listening_options(port=8090)
@callback_options
@json_option(help="Print one JSON object a line.")
def command(host: str, port: int, token: str | None, unsigned: bool, window: float, as_json: bool) -> None:
    """Show status callbacks as they come: which message was sent, delivered, read, or failed.

    They are verified with the account's keys. The vendor must be able to reach this address: put it behind your
    reverse proxy with TLS, and give its public URL as dr_webhook.

    A callback is answered after it has been printed. If standard output cannot be written, the vendor is asked to
    push it again, and the exit code is 2. A callback that tells nothing new of its message is not printed.
    """
    if sys.__stdout__ is None:  # sys.stdout is the null device then
        fail("standard output is closed: callbacks cannot be printed", ExitCode.USAGE)
    if unsigned and token is None:
        token = token_urlsafe(24)
    credentials = _credentials(unsigned)
    printer = CallbackPrinter(as_json)
    callbacks = receiving(printer, credentials, (host, port), token=token, unsigned=unsigned, window=window)
    run(_print_callbacks(callbacks, printer), interrupted="stopped")
    if printer.failure is not None:
        fail(f"cannot write to standard output: {printer.failure.strerror}", ExitCode.USAGE)
    print_note("stopped")


def _credentials(unsigned: bool) -> Credentials | None:
    """Return the account's keys. With --unsigned they are used if they are set, and not asked for."""
    if unsigned and not (os.environ.get("NXOTP_ACCESS_KEY") and os.environ.get("NXOTP_ACCESS_SECRET")):
        return None
    return ask_credentials(appkey=False, hint="or use --unsigned for an account whose callbacks are not signed")


async def _print_callbacks(callbacks: AbstractAsyncContextManager[None], printer: "CallbackPrinter") -> None:
    on_stop_signal(printer.stop.set)
    async with callbacks:
        await printer.stop.wait()


class CallbackPrinter:
    """An `EventSink` that takes an event in by printing it, if it is news.

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
                    await write_stdout(self._line(event))
                except OSError as error:
                    self.failure = error
                    self.stop.set()
                    raise web.HTTPServiceUnavailable from None
            self._is_sound = True

    def _line(self, event: StatusEvent) -> bytes:
        if self._as_json:
            return orjson.dumps(_fields(event), str, option=orjson.OPT_APPEND_NEWLINE)  # a price is a Decimal
        return f"{printable(_text(event))}\n".encode(sys.stdout.encoding, "replace")


def _fields(event: StatusEvent) -> dict[str, object]:
    return {
        "message_id": event.message_id,
        "status": event.status,
        "timestamp": event.timestamp,
        "recipient": event.recipient and mask_number(event.recipient),
        "errors": event.errors,
        "costs": [attrs.asdict(cost) for cost in event.costs],
    }


def _text(event: StatusEvent) -> str:
    at = event.timestamp.astimezone().strftime("%H:%M:%S") if event.timestamp else "--:--:--"
    why = "; ".join(f"{error.get('code', '')} {error.get('title', '')}".strip() for error in event.errors)
    recipient = mask_number(event.recipient) if event.recipient else ""
    return f"{at}  {event.status:<10} {event.message_id:<40} {recipient}  {why}".rstrip()
