"""Host name resolution that does not delay the end of the program."""

import asyncio
import socket
import threading
from contextlib import suppress

from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = ["Resolver"]


class Resolver(AbstractResolver):
    """Calls the system's resolver, each time in a new daemon thread.

    asyncio and Python wait for the threads of the default executor when the event loop closes, and at exit. If a DNS
    server does not answer, that takes many seconds after the deadline, or after Ctrl-C.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host.

        Raises:
            OSError: There are none, or the resolver cannot be called.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def set_result(addresses: list[ResolveResult] | None, error: OSError | None) -> None:
            if found.done():  # it was cancelled
                return
            if error is None:
                found.set_result(addresses or [])
            else:
                found.set_exception(error)

        def look_up() -> None:
            addresses, error = None, None
            try:
                addresses = _addresses(host, port, family)
            except OSError as failure:
                error = failure
            except Exception as failure:  # a name that IDNA cannot encode
                error = OSError(None, f"{type(failure).__name__}: {failure}")
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(set_result, addresses, error)

        try:
            threading.Thread(target=look_up, name=f"nxotp_async: look up {host}", daemon=True).start()
        except RuntimeError as error:
            raise OSError(None, str(error)) from None  # no thread can be started
        return await found

    async def close(self) -> None:
        """Do nothing: threads that still wait are daemons, and end automatically."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    return [
        ResolveResult(
            hostname=host,
            host=socket.getnameinfo(address, numeric)[0],  # with the scope of a link-local IPv6 address
            port=address[1],
            family=family,
            proto=proto,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for family, _, proto, _, address in found
        if isinstance(address[1], int) and family in (socket.AF_INET, socket.AF_INET6)
    ]
