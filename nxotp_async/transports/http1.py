"""HTTP/1.1 on one connection: a request is written, its answer is read, nothing is pipelined."""

import asyncio
import math
import select
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from ..protocol import MAX_ANSWER_BYTES
from .base import Answer
from .failures import reason
from .timeouts import GRACE, LATE

if TYPE_CHECKING:
    from .wire import LoopPool

__all__ = ["BrokenAnswerError", "Connection", "Request"]

_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_RECEIVED_BYTES: Final = 1024 * 1024  # of an answer with all its chunks, which may be one byte each


class BrokenAnswerError(Exception):
    """A request has been written, and no answer to it can be had any more; the text says why."""


class Request:
    """A whole request, which the repr does not show."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class _Headers(Mapping[str, str]):
    """The headers of an answer, decoded when somebody reads them."""

    __slots__ = ("_decoded", "_raw")

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._raw = raw
        self._decoded: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._decoded is None:
            # Of a name that comes twice, the first value counts, as with aiohttp's headers.
            self._decoded = {_text(name).lower(): _text(value) for name, value in reversed(self._raw)}
        return self._decoded

    def __getitem__(self, name: str) -> str:
        return self._all()[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


class Connection(asyncio.Protocol):
    """A connection of a `LoopPool`, for one request after the other.

    One timer serves all its requests: it is not set anew for each of them, but when it fires.

    Attributes:
        opened_at: When it was opened, by the pool's clock.
        idle_since: Since when it has been idle, by the same clock.
        idle_before: For how many seconds it was idle before its latest request; ``None`` if that is its first one.
        spoke_first: Whether the server has sent something before a request.
    """

    __slots__ = (
        "_body",
        "_due",
        "_has_extra",
        "_head_is_complete",
        "_headers",
        "_is_complete",
        "_is_reusable",
        "_loop",
        "_parser",
        "_poll",
        "_pool",
        "_received",
        "_status",
        "_timer",
        "_timer_at",
        "_transport",
        "_waiter",
        "idle_before",
        "idle_since",
        "opened_at",
        "spoke_first",
    )

    def __init__(self, pool: "LoopPool") -> None:
        self._pool = pool
        self._loop = pool.loop
        self._parser = HttpResponseParser(self)
        # As lenient as aiohttp: both transports take the same answers.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._transport: asyncio.Transport | None = None  # once it is connected, and until it is lost
        self._poll: Callable[[], bool] | None = None
        self._waiter: asyncio.Future[Answer] | None = None  # while a request has no answer
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._due = math.inf
        self._is_reusable = False
        self.opened_at = self.idle_since = pool.keep_alive.monotonic()
        self.idle_before: float | None = None
        self.spoke_first = False

    # ------------------------------------------------------------------------------------------ requests

    @property
    def is_open(self) -> bool:
        """Whether it is connected, and the server has neither closed it nor sent what nobody asked for."""
        return self._transport is not None and not self._transport.is_closing()

    def is_readable(self) -> bool:
        """Return whether the kernel has data for it, or knows that it is closed."""
        if self._poll is None:
            self._poll = _readable_check(self._transport)
        return self._poll()

    def send(self, request: Request, due: float) -> "asyncio.Future[Answer]":
        """Write a request, and return the future of its answer.

        Args:
            request: The request.
            due: When the answer has to be there, by the clock of the event loop.
        """
        self._is_complete = self._has_extra = self._head_is_complete = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = b""
        self._received = 0
        self._waiter = waiter = self._loop.create_future()
        self._due = due
        if due < self._timer_at:
            self._set_timer(due)
        cast("asyncio.Transport", self._transport).write(request.data)
        return waiter

    def release(self, reuse: bool) -> None:
        """Let the next request have the connection, or close it."""
        if reuse and self._is_reusable and self.is_open:
            self._is_reusable = False  # until its next answer
            self._pool.add_idle(self)
        elif self not in self._pool.idle and self._waiter is None:
            self.abort()

    def abort(self) -> None:
        """Close it at once."""
        self._waiter = None
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------------------------------ asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._pool.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse a part of an answer. What nobody asked for closes the connection."""
        if self._waiter is None:
            self.spoke_first = True
            self._end_idling()
            self.abort()
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            # Also where that comes after a whole answer: what is wrong with it may be the answer's length.
            self._fail(BrokenAnswerError(f"an answer that is not HTTP ({type(error).__name__})"))
            return
        if self._is_complete:
            self._succeed()
        elif self._received > (_MAX_RECEIVED_BYTES if self._head_is_complete else _MAX_HEAD_BYTES):
            self._fail(BrokenAnswerError("an answer without an end"))

    def eof_received(self) -> None:
        """Complete an answer that lasts until the connection is closed; without a request, close it at once."""
        if self._waiter is not None and self._lasts_until_closed():
            self._is_reusable = False
            self._succeed()
        else:
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for an answer."""
        self._transport = None
        self._pool.remove(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._end(exc)

    # ------------------------------------------------------------------------------------------ the parser's callbacks

    def on_message_begin(self) -> None:
        """Notice what follows a complete answer."""
        self._has_extra = self._is_complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; those after the body are ignored."""
        if not self._head_is_complete:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Keep what the parser knows at this time only."""
        if not self._is_complete:
            self._status = self._parser.get_status_code()
            self._is_reusable = self._parser.should_keep_alive()
            self._head_is_complete = True

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, up to the first one beyond the bound."""
        if self._is_complete:
            return
        self._body = self._body + body if self._body else body
        if len(self._body) > MAX_ANSWER_BYTES:
            self._is_reusable, self._is_complete = False, True

    def on_message_complete(self) -> None:
        """Take note, unless another answer follows."""
        if 100 <= self._status < 200 and self._status != 101 and not self._is_complete:
            self._headers, self._head_is_complete = [], False
        else:
            self._is_complete = True

    # ------------------------------------------------------------------------------------------ outcomes

    def _succeed(self) -> None:
        transport = self._transport
        if self._has_extra or transport is None or transport.get_write_buffer_size():
            self._is_reusable = False
        waiter, self._waiter = self._waiter, None
        for name, value in self._headers:
            if len(name) == 10 and name.lower() == b"keep-alive":
                self._pool.keep_alive.apply_header(_text(value))
        if waiter is not None and not waiter.done():
            waiter.set_result(Answer(self._status, _Headers(self._headers), self._body, self.release))
        if not self._is_reusable:
            self.abort()

    def _fail(self, error: Exception) -> None:
        waiter = self._waiter
        self.abort()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _lasts_until_closed(self) -> bool:
        if not self._head_is_complete or self._status in (204, 304):
            return False
        names = {name.lower(): value.lower() for name, value in self._headers}
        coding = names.get(b"transfer-encoding")
        return b"content-length" not in names if coding is None else not coding.endswith(b"chunked")

    def _end(self, error: Exception | None) -> None:
        """Take note that the server has ended the connection."""
        if self._waiter is None:
            self._end_idling()
            self.abort()
            return
        if self.idle_before is not None:
            self._pool.keep_alive.record_close(self.idle_before)
        self._fail(BrokenAnswerError("the server closed the connection" if error is None else reason(error)))

    def _end_idling(self) -> None:
        if self in self._pool.idle:
            del self._pool.idle[self]
            self._pool.keep_alive.record_close(self._pool.keep_alive.monotonic() - self.idle_since)

    # ------------------------------------------------------------------------------------------ time

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._look_at_time, LATE)

    def _look_at_time(self, tolerated: float) -> None:
        self._timer, self._timer_at = None, math.inf
        now = self._loop.time()
        if self._waiter is None:
            self._close_if_idle_too_long(now)
        elif now < self._due:
            self._set_timer(self._due)
        elif now - self._due > tolerated:
            # The process was suspended: what it waits for may be in the socket's buffer already.
            self._timer_at = now + GRACE
            self._timer = self._loop.call_at(self._timer_at, self._look_at_time, math.inf)
        else:
            self._fail(TimeoutError())

    def _close_if_idle_too_long(self, now: float) -> None:
        keep_alive, idle = self._pool.keep_alive, self._pool.idle
        clock = keep_alive.monotonic()
        left = self.idle_since + keep_alive.limit(clock) - clock
        if self in idle and left > 0:
            self._set_timer(now + left + LATE)
        else:
            idle.pop(self, None)
            self.abort()


def _readable_check(transport: asyncio.Transport | None) -> Callable[[], bool]:
    try:
        sock = None if transport is None else transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return lambda: True
        if not hasattr(select, "poll"):
            return lambda: bool(select.select([sock], [], [], 0)[0])
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
    except OSError:
        return lambda: True
    return lambda: bool(poll.poll(0))
