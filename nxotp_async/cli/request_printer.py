"""The lines of ``nxotp sandbox``: one for each request."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from ..clocks import Clock
from ..codes import ResponseCode
from ..phone_numbers import mask_number
from ..sandbox import CallbackPlan, FaultKind, ReceivedRequest
from .output import print_error, printable
from .serving import write_stdout

__all__ = ["RequestPrinter"]

_LINES_A_SECOND: Final = 50
_LONGEST: Final = 200  # characters of a line
_MAX_PENDING: Final = 64 * 1024  # bytes that wait for a slow reader


class RequestPrinter:
    """Prints a line for each request, with its code, and does not hold up a load test.

    In a second it prints 50 lines at most. What comes beyond that, or faster than it is read, is counted, and the count
    is printed when the second is over.

    Args:
        plan: The callbacks that are pushed, if any.
        write: Where to print.
        clock: The source of time.
    """

    def __init__(
        self,
        plan: CallbackPlan | None,
        write: Callable[[bytes], Awaitable[None]] = write_stdout,
        clock: Clock | None = None,
    ) -> None:
        self._plan = plan
        self._write = write
        self._clock = clock or Clock()
        self._news = asyncio.Event()
        self._pending = b""
        self._second = float("-inf")  # when it began
        self._lines = 0
        self._left_out = 0

    def add(self, request: ReceivedRequest) -> None:
        """Have a request printed."""
        now = self._clock.monotonic()
        if now - self._second >= 1.0:
            self._sum_up()
            self._second, self._lines = now, 0
        if self._lines < _LINES_A_SECOND and len(self._pending) < _MAX_PENDING:
            self._lines += 1
            self._pending += self._line(request)
        else:
            self._left_out += 1
        self._news.set()

    async def run(self) -> None:
        """Print what comes, until it is cancelled or nothing can be printed any more."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                await self._print()
                if self._left_out:
                    await self._clock.sleep(max(0.0, self._second + 1.0 - self._clock.monotonic()))
                    await self.finish()
        except OSError as error:
            self._lines, self._second = _LINES_A_SECOND, float("inf")
            print_error(f"cannot write to standard output: {error.strerror}; requests are not printed any more")

    async def finish(self) -> None:
        """Print what is left.

        Raises:
            OSError: It cannot be printed.
        """
        await self._print()
        self._sum_up()
        await self._print()

    async def _print(self) -> None:
        pending, self._pending = self._pending, b""
        await self._write(pending)

    def _sum_up(self) -> None:
        if self._left_out and len(self._pending) < _MAX_PENDING:
            self._pending += b"          %d more, not printed\n" % self._left_out
            self._left_out = 0

    def _line(self, request: ReceivedRequest) -> bytes:
        at = datetime.fromtimestamp(request.arrived_at, UTC).astimezone().strftime("%H:%M:%S")
        to = mask_number(request.to[:15]) if request.to else "-"
        text = f"{at}  {to:<15}  {request.otp or '-':<8}  {_outcome(request)}{self._without_callbacks(request)}"
        return f"{printable(text)[:_LONGEST]}\n".encode()

    def _without_callbacks(self, request: ReceivedRequest) -> str:
        webhook = request.fields.get("dr_webhook")
        if self._plan is None or request.message_id is None or self._plan.url_for(webhook) is not None:
            return ""
        if webhook:
            return "; no callbacks, because its dr_webhook is not loopback: --callback-host allows its host"
        return "; no callbacks, because it has no dr_webhook, and there is no --webhook"


def _outcome(request: ReceivedRequest) -> str:
    if request.message_id is not None:
        return f"accepted as {request.message_id}{request.why and f', but {request.why}'}"
    if request.code == ResponseCode.SUCCESS or request.fault is FaultKind.DISCONNECT_BEFORE_READING:
        return f"not accepted: {request.why}"
    known = ResponseCode.find(request.code)
    return f"refused with {request.code:d}, {known.meaning if known else 'unknown code'}: {request.why}"
