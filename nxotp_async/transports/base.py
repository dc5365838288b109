"""What the client needs of an HTTP library."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

__all__ = ["Answer", "Transport"]


def _has_no_connection(reuse: bool) -> None:
    """Do nothing: the default of a transport whose connections are not kept."""


class Answer(NamedTuple):
    """An HTTP answer, read whole.

    Attributes:
        status: The HTTP status.
        headers: The headers; names in any letter case.
        body: The body, or what was read of one that is too long.
        settle: To be called once the answer is understood, with whether its connection may carry another request. A
            connection that was never settled is not used again.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    settle: Callable[[bool], None] = _has_no_connection


class Transport(Protocol):
    """What the client needs of an HTTP library. `SessionPool` is the one for aiohttp."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        """POST exactly these bytes, once, and return the answer.

        Redirects must not be followed, and of the body not much more than 64 KiB may be read. Whatever escapes but
        the two errors below, and cancellation, counts as `OutcomeUnknownError`.

        Args:
            url: Where to.
            body: The bytes to send, unaltered.
            headers: The headers to send.
            timeout: Seconds for all of it, connecting included.

        Raises:
            NotSentError: Provably no byte of the request left.
            OutcomeUnknownError: It may have left.
        """
        ...

    async def aclose(self) -> None:
        """Close what the running event loop has open."""
        ...
