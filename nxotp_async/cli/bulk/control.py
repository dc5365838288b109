"""A run that can be watched and steered by other commands: HTTP on a UNIX socket beside its ledger.

The socket is made by the process that has the ledger open, which only one can have. So one that is left behind by a
process that was killed belongs to nobody, and is replaced. It can be used by its owner alone, as the ledger can.
"""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

import attrs
import orjson
from aiohttp import web

from ...bulk import Dispatcher, FileFormat, Ledger
from ...bulk.exporting import export_lines
from ...errors import ConfigurationError
from ...phone_numbers import mask_number
from ..output import print_note
from .progress import SendingProgress

__all__ = ["Control", "address_of", "controllable"]

_LONGEST: Final = 100  # bytes of a socket's path that every system takes
_ROWS: Final = 500  # of an export that are sent at once
_SHUTDOWN_TIMEOUT: Final = 1.0  # seconds that what is being answered is given in the end


@contextmanager
def address_of(ledger: Path) -> Iterator[str]:
    """Yield the path of the socket beside a ledger, in a form that is short enough for one.

    Raises:
        OSError: The path is too long, and this system cannot shorten it; or the directory does not exist.
    """
    target = ledger.resolve()
    path = target.with_name(f"{target.name}.sock")
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        short = f"/proc/self/fd/{directory}/{path.name}"
        if not Path("/proc/self/fd").is_dir() or len(os.fsencode(short)) > _LONGEST:
            raise OSError(0, "its path is too long for a socket's")
        yield short
    finally:
        os.close(directory)


@attrs.frozen
class Control:
    """What other commands may ask of a run."""

    ledger: Ledger
    dispatcher: Dispatcher
    progress: SendingProgress
    summary: Callable[[], dict[str, Any]]  # in a thread
    stop: Callable[[], object]

    def app(self) -> web.Application:
        """Return the application that answers."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/progress", self._progress),
                web.get("/status", self._status),
                web.get("/export", self._export),
                web.post("/pause", self._pause),
                web.post("/resume", self._resume),
                web.post("/stop", self._stop),
                web.post("/set", self._set),
            ]
        )
        return app

    async def _progress(self, _: web.Request) -> web.Response:
        return _json(self.progress.fields())

    async def _status(self, _: web.Request) -> web.Response:
        return _json({**await asyncio.to_thread(self.summary), "run": self.progress.fields()})

    async def _export(self, request: web.Request) -> web.StreamResponse:
        """Send the rows as they are now. What is cut short has no end for HTTP, either."""
        show_number = mask_number if "masked" in request.query else str
        lines = export_lines(self.ledger, FileFormat(request.query["format"]), show_number=show_number)
        response = web.StreamResponse()
        await response.prepare(request)
        while rows := await asyncio.to_thread(lambda: "".join(islice(lines, _ROWS))):
            await response.write(rows.encode())
        return response

    async def _pause(self, _: web.Request) -> web.Response:
        self.dispatcher.pause()
        return _json(self.progress.fields())

    async def _resume(self, _: web.Request) -> web.Response:
        self.dispatcher.resume()
        return _json(self.progress.fields())

    async def _stop(self, _: web.Request) -> web.Response:
        self.stop()
        return _json(self.progress.fields())

    async def _set(self, request: web.Request) -> web.Response:
        wanted = orjson.loads(await request.read())
        try:
            if "concurrency" in wanted:
                self.dispatcher.set_concurrency(wanted["concurrency"])
            if "rate" in wanted:
                self.dispatcher.set_rate(wanted["rate"])
        except ConfigurationError as error:
            return _json({"error": f"--{error}"}, status=400)
        return _json(self.progress.fields())


def _json(value: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


@asynccontextmanager
async def controllable(control: Control) -> AsyncIterator[None]:
    """Answer other commands for as long as the block runs. Where that cannot be, say so, and run all the same."""
    path = control.ledger.path
    if path is None or not hasattr(socket, "AF_UNIX"):
        yield
        return
    runner = web.AppRunner(control.app(), access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_TIMEOUT)
    await runner.setup()
    try:
        with address_of(path) as address:
            factory = cast("Callable[[], asyncio.Protocol]", runner.server)
            server = await asyncio.get_running_loop().create_unix_server(factory, sock=_bound(address))
    except OSError as error:
        print_note(f"this run cannot be watched from another terminal: {error.strerror}")
        await runner.cleanup()
        yield
        return
    try:
        yield
    finally:
        _remove(path)
        server.close()
        await runner.cleanup()


def _remove(ledger: Path) -> None:
    with suppress(OSError), address_of(ledger) as address:
        Path(address).unlink()


def _bound(address: str) -> socket.socket:
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(Path(address).lstat().st_mode):
            Path(address).unlink()  # of a process that was killed
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(address)
        Path(address).chmod(0o600)  # before anybody can connect: nobody listens yet
    except BaseException:
        bound.close()
        raise
    return bound
