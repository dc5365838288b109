"""``nxotp listen``."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from secrets import token_urlsafe

import click
import orjson
from aiohttp import web

from ..callbacks import StatusEvent
from ..errors import ConfigurationError
from ..messages import mask_number
from ..receivers import EventSink, aiohttp_receiver
from ..signing import Credentials
from ..tracking import DeliveryTracker
from .common import EXIT_CONFIGURATION, ask_key, fail, print_data, run, stderr

__all__ = ["callback_options", "listen", "receiving"]


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
)
"""The options that say whose callbacks are believed."""


@asynccontextmanager
async def receiving(
    sink: EventSink, address: tuple[str, int], credentials: Credentials | None, token: str | None, unsigned: bool
) -> AsyncIterator[str]:
    """Receive callbacks for as long as the block runs, and yield the URL.

    Raises:
        ConfigurationError: The callbacks could not be verified, or the address cannot be listened on.
    """
    runner = web.AppRunner(
        aiohttp_receiver(sink, credentials, token=token, allow_unsigned=unsigned),
        access_log=None,
        handle_signals=False,
        shutdown_timeout=1.0,
    )
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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def listen(host: str, port: int, token: str | None, unsigned: bool, as_json: bool) -> None:
    """Show status callbacks as they come: which message was sent, delivered, read, or failed.

    They are verified with the account's keys. The vendor must be able to reach this address: put it behind your
    reverse proxy with TLS, and give its public URL as dr_webhook.
    """
    if unsigned and token is None:
        token = token_urlsafe(24)
    credentials = _credentials(unsigned)
    if credentials is None and not unsigned:
        fail(
            "the keys that verify the callbacks are missing: set NXOTP_ACCESS_KEY and NXOTP_ACCESS_SECRET, "
            "or say --unsigned for an account whose callbacks are not signed",
            EXIT_CONFIGURATION,
        )
    try:
        run(_listen((host, port), credentials, token, unsigned, as_json), interrupted="stopped")
    except ConfigurationError as error:
        fail(error, EXIT_CONFIGURATION)


def _credentials(unsigned: bool) -> Credentials | None:
    """Return the account's keys, where they are known. They are asked for where nothing is believed without them."""
    if unsigned and not (os.environ.get("NXOTP_ACCESS_KEY") and os.environ.get("NXOTP_ACCESS_SECRET")):
        return None
    access_key, access_secret = ask_key("access_key"), ask_key("access_secret")
    return Credentials(access_key, access_secret) if access_key and access_secret else None


async def _listen(
    address: tuple[str, int], credentials: Credentials | None, token: str | None, unsigned: bool, as_json: bool
) -> None:
    tracker = DeliveryTracker()
    events = tracker.events()
    async with receiving(tracker, address, credentials, token, unsigned) as url:
        printing = asyncio.create_task(_print_events(events, as_json))
        for name in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # Windows has no signal handlers in the loop
                asyncio.get_running_loop().add_signal_handler(name, printing.cancel)
        stderr.print(f"listening on {url}", markup=False, soft_wrap=True)
        with suppress(asyncio.CancelledError):
            await printing
    stderr.print("stopped")


async def _print_events(events: AsyncIterator[StatusEvent], as_json: bool) -> None:
    async for event in events:
        if not print_data(orjson.dumps(_fields(event)) if as_json else _line(event)):
            return  # whoever reads has gone: to go on answering the vendor would lose what it tells


def _fields(event: StatusEvent) -> dict[str, object]:
    return {
        "message_id": event.message_id,
        "status": event.status,
        "timestamp": event.timestamp,
        "recipient": event.recipient and mask_number(event.recipient),
        "errors": event.errors,
    }


def _line(event: StatusEvent) -> str:
    at = event.timestamp.astimezone().strftime("%H:%M:%S") if event.timestamp else "--:--:--"
    why = "; ".join(f"{error.get('code', '')} {error.get('title', '')}".strip() for error in event.errors)
    recipient = mask_number(event.recipient) if event.recipient else ""
    return f"{at}  {event.status:<10} {event.message_id:<40} {recipient}  {why}".rstrip()
