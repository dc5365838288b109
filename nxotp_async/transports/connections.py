"""Which connections may carry a request: none that the server has closed, or on which it said what nobody asked for."""

import asyncio
import math
import select
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from aiohttp.client_proto import ResponseHandler

__all__ = ["Connections", "KeepAlive"]


class KeepAlive:
    """How long a connection may have idled when it carries another request.

    A request that is written while the server closes the connection has an unknown outcome. So what the server says
    of it, or does, shortens the time.

    Args:
        seconds: The longest time.
        monotonic: A clock that never jumps, in seconds.
    """

    MEMORY: Final = 60.0  # seconds for which a connection that the server closed shortens the time of the others

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self._seconds = seconds
        self._longest = seconds
        self._learnt = math.inf
        self._learnt_until = -math.inf

    def limit(self, now: float) -> float:
        """Return the seconds at present."""
        return min(self._longest, self._learnt) if now < self._learnt_until else self._longest

    def heed(self, header: str) -> None:
        """Heed a ``Keep-Alive`` header, such as ``timeout=5, max=100``."""
        for parameter in header.split(","):
            name, _, value = parameter.partition("=")
            value = value.strip(' "')
            if name.strip().lower() == "timeout" and value.isascii() and value.isdigit():
                told = float(value[:9])
                # The server counts from when it has sent its answer, and its FIN takes its time, too.
                self._longest = min(self._seconds, max(told - 1, told / 2))

    def closed(self, idle: float) -> None:
        """Learn that the server has closed a connection, without notice, that had idled for these seconds."""
        now = self.monotonic()
        if idle < self._longest:
            self._learnt = min(self.limit(now), idle / 2)
            self._learnt_until = now + self.MEMORY


class Connections:
    """The connections of a session that have carried a request.

    A connection carries another one only after the answer to the one before was settled as that request's own, and
    nothing has come on it since.

    Args:
        keep_alive: How long they may idle.
    """

    def __init__(self, keep_alive: KeepAlive) -> None:
        self._keep_alive = keep_alive
        # Since when each idles; None while its answer is not settled.
        self._idle_since: dict[ResponseHandler, float | None] = {}

    def carries_requests(self, connection: ResponseHandler) -> bool:
        """Return whether it has carried a request before."""
        return connection in self._idle_since

    def idle(self, connection: ResponseHandler) -> float | None:
        """Return the seconds for which it has idled, or ``None`` where it has carried no request."""
        since = self._idle_since.get(connection)
        return None if since is None else self._keep_alive.monotonic() - since

    def may_carry(self, connection: ResponseHandler) -> bool:
        """Return whether a request may be written to it now. If not, it must be closed."""
        if connection.should_close:
            return False
        if connection not in self._idle_since:
            return True  # new: a server may have sent TLS session tickets, which are bytes to be read as well
        since = self._idle_since[connection]
        if since is None:
            return False
        now = self._keep_alive.monotonic()
        if now - since > self._keep_alive.limit(now):
            del self._idle_since[connection]
            return False
        if _is_readable(connection.transport):
            del self._idle_since[connection]
            self._keep_alive.closed(now - since)
            return False
        return True

    def begin(self, connection: ResponseHandler) -> None:
        """Note that a request is written to it."""
        if connection not in self._idle_since and (closed := connection.closed) is not None:
            closed.add_done_callback(partial(self._lost, connection))
        self._idle_since[connection] = None

    def settle(self, connection: ResponseHandler, reuse: bool) -> None:
        """Note whether it may carry another request. It is closed if not."""
        if not reuse:
            connection.close()
        elif connection in self._idle_since and connection.is_connected() and not connection.should_close:
            self._idle_since[connection] = self._keep_alive.monotonic()

    def forget(self) -> None:
        """Learn nothing from what happens to the connections from now on: they are being closed from this side."""
        self._idle_since.clear()

    def _lost(self, connection: ResponseHandler, closed: "asyncio.Future[None]") -> None:
        if not closed.cancelled():
            closed.exception()  # retrieved, or asyncio would log it
        since = self._idle_since.pop(connection, None)
        if since is not None:
            self._keep_alive.closed(self._keep_alive.monotonic() - since)


def _is_readable(transport: asyncio.Transport | None) -> bool:
    """Return whether the kernel has something to read for it, were it but its end."""
    if transport is None or (sock := transport.get_extra_info("socket")) is None or sock.fileno() < 0:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
