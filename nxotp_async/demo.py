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

__all__ = ["DemoReport", "find_problems", "run_demo"]


@attrs.frozen
class DemoReport:
    """The result of a demonstration.

    Attributes:
        summary: How many messages had which outcome.
        failures: How many failed by reason: the vendor's code, or the error's class name.
        seconds: How long the sending took.
        p50: The median time from call to outcome, in seconds.
        p99: The 99th percentile of the same.
        pairs: A few cus_message_ids with their message ids.
        problems: What is wrong with the run; see `find_problems`.
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
    """Send messages to a sandbox, and return a report.

    Args:
        recipients: The messages to send, repeatedly if there are fewer than ``count``.
        count: How many messages to send.
        concurrency: How many requests may be in flight.
        fault_rate: The share of requests that the sandbox answers with -1 or 9001.
        seed: Makes the sandbox's draws repeatable.
        on_result: Called with every result.

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
    async with sandbox_client(url, max_concurrency=concurrency) as client:
        started = monotonic()
        async for result in client.send_many(islice(cycle(recipients), count)):
            collector.add(result)
            on_result(result)
        seconds = monotonic() - started
    counted = await _count_accepted(url)
    elapsed = sorted(result.elapsed for result in collector)
    return DemoReport(
        collector.summary(),
        {str(reason): number for reason, number in collector.failures.most_common()},
        seconds,
        _percentile(elapsed, 0.5),
        _percentile(elapsed, 0.99),
        dict(islice(collector.pairs.items(), 3)),
        find_problems(collector, count, counted),
    )


async def _count_accepted(url: str) -> int:
    """Ask the sandbox how many messages it has accepted."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/sandbox/counts") as response:
            return int((await response.json()).get("messages", 0))
    except aiohttp.ClientError as error:
        raise ChildProcessError(f"the sandbox process has ended: {type(error).__name__}") from None


def find_problems(collector: ResultCollector, count: int, counted: int) -> list[str]:
    """Return what is wrong with a run.

    Every message must have an outcome, every accepted one its message id, and the sandbox must have accepted as many.

    Args:
        collector: The results.
        count: How many messages were to be sent.
        counted: How many the sandbox has accepted.
    """
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
