"""Host name resolution for aiohttp that does not delay the end of the program."""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from .threads import in_daemon_thread

__all__ = ["Resolver"]


class Resolver(AbstractResolver):
    """Calls the system's resolver, each time in a new daemon thread."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host.

        Raises:
            OSError: There are none, or the resolver cannot be called.
        """
        return await in_daemon_thread(f"look up {host}", lambda: _addresses(host, port, family))

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
