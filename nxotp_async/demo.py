"""The demonstration: a thousand OTPs through a sandbox in its own process."""

from collections.abc import Callable
from itertools import cycle, islice
from time import monotonic

import aiohttp
import attrs

from .messages import OtpMessage
from .results import ResultCollector, SendResult, Summary
from .sandbox import sandbox_client
from .sandbox.process import sandbox_process

__all__ = ["DemoReport", "run_demo"]


@attrs.frozen
class DemoReport:
    """What the demonstration did.

    Attributes:
        summary: How many messages had which outcome.
        failures: How many failed for which reason: the vendor's code, or the error's class name.
        seconds: How long the sending took.
        p50: The median time from call to outcome, in seconds.
        p99: The same for 99 of 100 messages.
        pairs: A few cus_message_ids with the message ids that came back.
        problems: What is wrong with the run; empty where every message has an outcome, every accepted one is
            paired, and the sandbox has counted as many.
    """

    summary: Summary
    failures: dict[str, int]
    seconds: float
    p50: float
    p99: float
    pairs: dict[str, str]
    problems: list[str]

    @property
    def throughput(self) -> float:
        """Messages a second."""
        return self.summary.total / self.seconds if self.seconds else 0.0


async def run_demo(
    recipients: list[OtpMessage],
    *,
    count: int,
    concurrency: int,
    fault_rate: float,
    seed: int,
    on_result: Callable[[SendResult], None],
) -> DemoReport:
    """Send messages to the recipients, again and again until there are enough, and report.

    Args:
        recipients: Whom to send to.
        count: How many messages to send.
        concurrency: How many requests may be in flight.
        fault_rate: The share of requests the sandbox answers with -1 or 9001.
        seed: Makes the sandbox's draws repeatable.
        on_result: Called with every result as it comes.

    Raises:
        ChildProcessError: The sandbox did not start, or ended early.
    """
    options = ("--made-up-ids", "--fault-rate", str(fault_rate), "--seed", str(seed))
    async with sandbox_process(*options) as url:
        return await _run_against(url, recipients, count, concurrency, on_result)


async def _run_against(
    url: str, recipients: list[OtpMessage], count: int, concurrency: int, on_result: Callable[[SendResult], None]
) -> DemoReport:
    collector = ResultCollector()
    elapsed: list[float] = []
    async with sandbox_client(url, max_concurrency=concurrency) as client:
        started = monotonic()
        async for result in client.send_many(islice(cycle(recipients), count)):
            collector.add(result)
            elapsed.append(result.elapsed)
            on_result(result)
        seconds = monotonic() - started
    counted = await _count_accepted(url)
    elapsed.sort()
    return DemoReport(
        collector.summary(),
        {str(reason): number for reason, number in collector.failures.most_common()},
        seconds,
        _percentile(elapsed, 0.5),
        _percentile(elapsed, 0.99),
        dict(islice(collector.pairs.items(), 3)),
        _problems(collector, count, counted),
    )


async def _count_accepted(url: str) -> int:
    """Ask the sandbox how many messages it has accepted."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/sandbox/counts") as response:
            return int((await response.json()).get("messages", 0))
    except aiohttp.ClientError as error:
        raise ChildProcessError(f"the sandbox process has ended: {type(error).__name__}") from None


def _problems(collector: ResultCollector, count: int, counted: int) -> list[str]:
    problems = []
    if len(collector) != count:
        problems.append(f"{count - len(collector)} messages have no outcome")
    if len(collector.pairs) != len(collector.accepted):
        problems.append(f"{len(collector.accepted) - len(collector.pairs)} accepted messages are not paired")
    if not len(collector.accepted) <= counted <= len(collector.accepted) + len(collector.unknown):
        problems.append(f"{len(collector.accepted)} were reported as accepted, but the sandbox accepted {counted}")
    return problems


def _percentile(ascending: list[float], share: float) -> float:
    return ascending[min(int(len(ascending) * share), len(ascending) - 1)] if ascending else 0.0
