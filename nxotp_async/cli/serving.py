"""Listening on an address, receiving status callbacks there, and printing what comes as it comes."""

import asyncio
import os
import select
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import click
from aiohttp import web

from ..errors import ConfigurationError
from ..receivers import EventSink, aiohttp_receiver
from ..settings import CALLBACK_TOKEN
from ..signing import Credentials
from ..urls import host_and_port, listening_url
from .output import print_note
from .parameters import Seconds, options

__all__ = ["SHUTDOWN_TIMEOUT", "callback_options", "listening_on", "receiving", "write_stdout"]

_PIECE: Final[int] = getattr(select, "PIPE_BUF", 512)  # bytes that a pipe takes without blocking where select says so
SHUTDOWN_TIMEOUT: Final = 1.0  # seconds that what has come is given to be taken in and answered, in the end

callback_options = options(
    click.option(
        "--token",
        envvar=CALLBACK_TOKEN.variable,
        help="Unguessable last part of the callbacks' path, 16 characters at least. nxotp listen --unsigned makes one.",
    ),
    click.option(
        "--unsigned",
        is_flag=True,
        help="Accept callbacks without a signature too, for accounts that have no signed ones; needs a token.",
    ),
    click.option(
        "--window",
        type=Seconds(0, min_open=True),
        default=300.0,
        help="How far a callback's ts may be from this machine's time.",
    ),
)
"""The options that say which callbacks are accepted."""


@contextmanager
def listening_on(host: str, port: int) -> Iterator[None]:
    """Turn an error of the block into the ConfigurationError that this address cannot be listened on."""
    try:
        yield
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such host"
        raise ConfigurationError(f"cannot listen on {host_and_port(host, port)}: {reason}") from None


@asynccontextmanager
async def receiving(
    sink: EventSink,
    credentials: Credentials | None,
    address: tuple[str, int],
    *,
    token: str | None,
    unsigned: bool,
    window: float,
) -> AsyncIterator[None]:
    """Receive status callbacks for as long as the block runs, and print the URL to push them to.

    When the block ends, no connection is accepted any more; what has come is taken in and answered before it returns.
    """
    try:
        receiver = aiohttp_receiver(sink, credentials, token=token, allow_unsigned=unsigned, window=window)
    except ConfigurationError as error:
        problem = str(error).removeprefix("token ")
        raise ConfigurationError(f"--token (or {CALLBACK_TOKEN.variable}) {problem}") from None
    runner = web.AppRunner(receiver, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_TIMEOUT)
    await runner.setup()
    try:
        with listening_on(*address):
            await web.TCPSite(runner, *address).start()
        print_note(f"receiving callbacks on {listening_url(*runner.addresses[0][:2])}/{token or ''}")
        yield
    finally:
        await runner.cleanup()


async def write_stdout(data: bytes) -> None:
    """Write to standard output, past its buffer. A slow reader holds up the writer, and not the event loop."""
    number = sys.stdout.fileno()
    while data:
        if os.name != "nt":  # Windows can ask sockets only
            await _until_writable(number)
        data = data[os.write(number, data[:_PIECE]) :]


async def _until_writable(number: int) -> None:
    if select.select([], [number], [], 0)[1]:  # a file always is; the loop could not wait for it
        return
    loop, writable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_writer(number, writable.set)
    try:
        await writable.wait()
    finally:
        loop.remove_writer(number)
