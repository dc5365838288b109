"""The interface between the client and an HTTP library."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

__all__ = ["Answer", "Transport"]


def _do_nothing(reuse: bool) -> None:
    """Do nothing: for transports that do not reuse connections."""


class Answer(NamedTuple):
    """The HTTP response to a request, with its whole body.

    Attributes:
        status: The HTTP status.
        headers: The headers; names in any letter case.
        body: The body, or its beginning if it is too long.
        release: Releases the connection. The client calls it after it has decoded the answer, with whether the
            connection may be reused. A connection that is never released is not reused.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    release: Callable[[bool], None] = _do_nothing


class Transport(Protocol):
    """The interface between the client and an HTTP library. `SessionPool` and `WireTransport` implement it."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        """POST exactly these bytes, once, and return the answer.

        It must not follow redirects, nor read much more than 64 KiB of the answer's body. The client treats any other
        exception than these two, except a cancellation, as `OutcomeUnknownError`.

        Args:
            url: The URL.
            body: The body, to be sent unchanged.
            headers: The headers to send. The client tells those apart that never change: ``headers.fixed``.
            timeout: Seconds for everything, connecting included.

        Raises:
            NotSentError: No byte of the request has left this machine.
            OutcomeUnknownError: Bytes may have left.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        ...
