"""Connecting to a host: its name looked up in a thread, TCP to the first address that answers, TLS."""

import asyncio
import math
import socket
import ssl
from collections.abc import Callable
from functools import cache
from typing import Final, Generic, TypeVar

import aiohappyeyeballs
from aiohappyeyeballs import AddrInfoType

from . import failures
from .threads import in_daemon_thread

__all__ = ["Connector"]

_T = TypeVar("_T")
_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)

_HEAD_START: Final = 0.25  # seconds that an address has before the next one is tried, too; RFC 8305
_ADDRESSES_LIFE: Final = 10.0  # seconds for which the addresses of a name are kept


class Connector:
    """Opens the connections of one event loop to one host.

    Args:
        host: Its name or address.
        port: Its port.
        peer: Host and port as errors name them.
        tls: Whether to use TLS.
        context: The TLS context; ``None`` for one that verifies certificates with the system's authorities.
    """

    def __init__(self, host: str, port: int, peer: str, *, tls: bool, context: ssl.SSLContext | None) -> None:
        self.peer = peer
        self.uses_tls = tls
        self._host = host
        self._port = port
        self._lookup = _SharedCall(f"look up {host}", self._look_up, _ADDRESSES_LIFE)
        self._tls_context = _SharedCall("load certificates", lambda: context or _default_context(), math.inf)

    async def connect(self, new_protocol: Callable[[], _Protocol]) -> _Protocol:
        """Open a connection, and return its protocol.

        Raises:
            NotSentError: It cannot be opened.
        """
        try:
            addresses = await self._addresses()
        except OSError:
            failure = failures.name_not_found(self._host)
        else:
            try:
                return await self._open(addresses, new_protocol)
            except ssl.SSLCertVerificationError as error:
                failure = failures.certificate_refused(self.peer, failures.reason(error))
            except ssl.SSLError as error:
                failure = failures.no_tls(self.peer, failures.reason(error))
            except OSError as error:
                failure = failures.no_connection(self.peer, failures.reason(error))
        raise failure

    async def _open(self, addresses: list[AddrInfoType], new_protocol: Callable[[], _Protocol]) -> _Protocol:
        context = await self._tls_context.result() if self.uses_tls else None
        connected = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=_HEAD_START, interleave=1)
        _, protocol = await asyncio.get_running_loop().create_connection(
            new_protocol, sock=connected, ssl=context, server_hostname=self._host.rstrip(".") if context else None
        )
        return protocol

    async def _addresses(self) -> list[AddrInfoType]:
        try:
            return self._look_up(socket.AI_NUMERICHOST)
        except OSError:  # it is a name
            return await self._lookup.result()

    def _look_up(self, flags: int = socket.AI_ADDRCONFIG) -> list[AddrInfoType]:
        return list(socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=flags))


@cache
def _default_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(("http/1.1",))
    return context


class _SharedCall(Generic[_T]):
    """A call in a thread, whose result all get who ask while it lasts, or for some seconds after it."""

    def __init__(self, name: str, function: Callable[[], _T], life: float) -> None:
        self._name = name
        self._function = function
        self._life = life
        self._future: asyncio.Future[_T] | None = None
        self._over_at = math.inf

    async def result(self) -> _T:
        """Return the result.

        Raises:
            OSError: The function raised it, or no thread can be started.
        """
        future, loop = self._future, asyncio.get_running_loop()
        if future is None or loop.time() > self._over_at:
            self._over_at = math.inf
            future = self._future = in_daemon_thread(self._name, self._function)
            future.add_done_callback(self._end)
        return await asyncio.shield(future)

    def _end(self, future: "asyncio.Future[_T]") -> None:
        # Retrieved, or asyncio would log it where nobody waits for it any more.
        failed = future.cancelled() or future.exception() is not None
        self._over_at = asyncio.get_running_loop().time() + (0 if failed else self._life)
