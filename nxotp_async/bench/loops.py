"""The closed loop, the open loop, and the event loop's lag meanwhile."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from itertools import islice
from typing import Final

from ..client import OtpClient
from ..clocks import Clock
from ..errors import NxOtpError
from ..messages import OtpMessage
from .histogram import Histogram
from .plan import Plan
from .recorder import Recorder

__all__ = ["closed_loop", "loop_lag", "open_loop"]

_TIMER: Final = 0.001  # seconds; event loops round timers to this, and uvloop would busy-wait through shorter ones
_LAG_INTERVAL: Final = 0.020  # seconds


async def closed_loop(client: OtpClient, messages: Iterator[OtpMessage], plan: Plan, recorder: Recorder) -> None:
    """Keep as many messages in flight as the client has permits, for the plan's duration or count.

    It returns when all that were begun have an outcome. The latency is that of the result, from call to outcome.
    """

    def begin() -> Iterator[OtpMessage]:
        for message in islice(messages, plan.arrivals):
            if not recorder.time_left:
                return
            recorder.begun += 1
            yield message

    async with aclosing(client.send_many(begin())) as results:
        async for result in results:
            recorder.add(result.elapsed, result.attempts, result.error)


async def open_loop(
    client: OtpClient, messages: Iterator[OtpMessage], plan: Plan, recorder: Recorder, clock: Clock
) -> None:
    """Begin messages on the plan's schedule, and return when all have an outcome.

    A message's latency is measured from when it was due, even if it begins later: neither slow answers nor a busy event
    loop delay the schedule. Messages that became due meanwhile begin at once.
    """

    async def arrive(message: OtpMessage, due: float) -> None:
        recorder.arrived(clock.monotonic() - due)
        try:
            result = await client.send(message)
        except NxOtpError as error:
            recorder.add(clock.monotonic() - due, error.attempts, error)
        else:
            recorder.add(clock.monotonic() - due, result.attempts, None)

    now = -math.inf
    async with asyncio.TaskGroup() as tasks:
        for place, message in enumerate(islice(messages, plan.arrivals)):
            due = recorder.started_at + plan.due(place)
            if due > now:
                await _until(due, clock)
                now = clock.monotonic()
            if recorder.pending >= plan.max_pending:
                recorder.dropped += 1
            else:
                recorder.begun += 1
                tasks.create_task(arrive(message, due))
        await _until(recorder.started_at + plan.window, clock)


async def _until(due: float, clock: Clock) -> None:
    """Wait until a time, never returning early. If it has passed, let other tasks run once."""
    early = due - clock.monotonic()
    if early <= 0:
        await clock.sleep(0)
    while early > 0:
        await clock.sleep(max(early, _TIMER))
        early = due - clock.monotonic()


@asynccontextmanager
async def loop_lag(clock: Clock) -> AsyncIterator[Histogram]:
    """Measure the event loop's lag until the block ends: how late a timer fires that is set fifty times a second.

    A long lag counts for every timer that it delayed, not as a single sample.
    """
    lag = Histogram()

    async def tick() -> None:
        while True:
            set_at = clock.monotonic()
            await clock.sleep(_LAG_INTERVAL)
            lag.record_delay(clock.monotonic() - set_at - _LAG_INTERVAL, _LAG_INTERVAL)

    ticker = asyncio.create_task(tick())
    try:
        yield lag
    finally:
        ticker.cancel()
        await asyncio.wait([ticker])
