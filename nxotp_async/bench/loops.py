"""The closed loop and the open one, and how much the event loop lags meanwhile."""

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

_TIMER: Final = 0.001  # seconds, to which event loops round; uvloop would spin through what is shorter, and burn CPU
_LAG_INTERVAL: Final = 0.020  # seconds


async def closed_loop(client: OtpClient, messages: Iterator[OtpMessage], plan: Plan, recorder: Recorder) -> None:
    """Keep as many messages in flight as the client has permits, until time is up or enough have begun.

    What has begun is seen through to its outcome. The latency is that of the result: from the call to the outcome.
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
    """Let messages arrive on the plan's schedule, and see each through to its outcome.

    A message's latency counts from the moment it was due, whenever it begins: neither a slow answer nor a busy event
    loop can move the schedule. What has come due in the meantime begins at once.
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
    """Wait for a moment, never too short; where it has passed, let the others have their turn all the same."""
    early = due - clock.monotonic()
    if early <= 0:
        await clock.sleep(0)
    while early > 0:
        await clock.sleep(max(early, _TIMER))
        early = due - clock.monotonic()


@asynccontextmanager
async def loop_lag(clock: Clock) -> AsyncIterator[Histogram]:
    """Measure the event loop's lag for as long as the block runs.

    A timer is set fifty times a second; the lag is how much later than asked it fires. One long lag stands for all
    timers it held up, so that it cannot hide as a single sample.
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
