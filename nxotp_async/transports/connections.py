"""Which connections may be reused: none that the server has closed, or on which it has sent unrequested data."""

import asyncio
import math
import select
from functools import partial
from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

from .keep_alive import KeepAlive

__all__ = ["Connections", "UnusableConnectionError"]


_NEW: Final = math.inf  # in place of the time since which a connection is idle


class UnusableConnectionError(aiohttp.ClientConnectionError):
    """No request may be written to a connection. It must be closed.

    Attributes:
        was_used: Whether a request was written to it before.
    """

    def __init__(self, was_used: bool) -> None:
        super().__init__("the connection cannot be used")
        self.was_used = was_used


class Connections:
    """The used connections of a session: those to which a request was written.

    A used connection is reused only if it was released for that after its last answer, and nothing has arrived on it
    since then.

    Args:
        keep_alive: The maximum idle time.
    """

    def __init__(self, keep_alive: KeepAlive) -> None:
        self._keep_alive = keep_alive
        # The time since which each connection is idle; None until it is released.
        self._idle_since: dict[ResponseHandler, float | None] = {}

    def is_used(self, connection: ResponseHandler) -> bool:
        """Return whether a request was written to it before."""
        return connection in self._idle_since

    def acquire(self, connection: ResponseHandler) -> float | None:
        """Take it for a request that is written now. Return its idle time in seconds, or ``None`` if it is new.

        Raises:
            UnusableConnectionError: It may not be used.
        """
        since = self._idle_since.get(connection, _NEW)
        if connection.should_close or since is None:
            raise UnusableConnectionError(since != _NEW)
        if since == _NEW:
            # It may be readable, because a server may have sent TLS session tickets.
            if (closed := connection.closed) is not None:
                closed.add_done_callback(partial(self._closed, connection))
            self._idle_since[connection] = None
            return None
        now = self._keep_alive.monotonic()
        idle = now - since
        is_over = idle > self._keep_alive.limit(now)
        if is_over or _is_readable(connection.transport):
            del self._idle_since[connection]
            if not is_over:
                self._keep_alive.record_close(idle)
            raise UnusableConnectionError(was_used=True)
        self._idle_since[connection] = None
        return idle

    def release(self, connection: ResponseHandler, reuse: bool) -> None:
        """Record whether it may be reused. If not, it is closed."""
        if not reuse:
            connection.close()
        elif connection in self._idle_since and connection.is_connected() and not connection.should_close:
            self._idle_since[connection] = self._keep_alive.monotonic()

    def clear(self) -> None:
        """Ignore all connections from now on, because this side closes them."""
        self._idle_since.clear()

    def _closed(self, connection: ResponseHandler, closed: "asyncio.Future[None]") -> None:
        if not closed.cancelled():
            closed.exception()  # retrieve it, or asyncio would log it
        since = self._idle_since.pop(connection, None)
        if since is not None:
            self._keep_alive.record_close(self._keep_alive.monotonic() - since)


def _is_readable(transport: asyncio.Transport | None) -> bool:
    """Return whether the kernel has data for it, or knows that it is closed."""
    if transport is None or (sock := transport.get_extra_info("socket")) is None or sock.fileno() < 0:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
