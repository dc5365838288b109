"""What the logins of a web application do while the vendor takes requests and answers none.

Logins arrive at a constant rate, whether or not earlier ones have ended. First the vendor answers, then it hangs, then
it answers again; a request that came while it hung never gets an answer. Two processes: this one is the application,
and the other is a sandbox. A line for each second says what became of the logins that arrived in that second, and how
many logins were pending at its end. The whole takes as long as the three phases and one deadline.

    python benchmarks/hanging_vendor.py
    python benchmarks/hanging_vendor.py --latency 0.3 --concurrency 256
"""

import argparse
import asyncio
import multiprocessing
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median
from time import monotonic

import attrs
from answering import CLIENT_CORE, SERVER_CORE, pin

from nxotp_async import NxOtpError, OtpClient, SendStatus
from nxotp_async.sandbox import Reply, Sandbox, sandbox_client

# ------------------------------------------------------------------------------------------------ the vendor


class _Vendor(Sandbox):
    """A sandbox that leaves requests without an answer while an event is set."""

    def __init__(self, hangs: Event, latency: float) -> None:
        super().__init__(latency=latency)
        self._hangs = hangs

    @asynccontextmanager
    async def receive(
        self, headers: Mapping[str, str], read: Callable[[], Awaitable[bytes]], *, path: str | None = None
    ) -> AsyncIterator[Reply]:
        if self._hangs.is_set():
            await asyncio.Event().wait()  # until the client closes the connection
        async with super().receive(headers, read, path=path) as reply:
            yield reply


def run_vendor(pipe: Connection, hangs: Event, latency: float) -> None:
    async def serve() -> None:
        async with _Vendor(hangs, latency) as sandbox:
            pipe.send(sandbox.url)
            await asyncio.to_thread(pipe.recv)

    pin(SERVER_CORE)
    asyncio.run(serve())


# ------------------------------------------------------------------------------------------------ the application


@attrs.define
class Second:
    """The logins that arrived in one second."""

    waits: list[float] = attrs.Factory(list)
    outcomes: Counter[SendStatus] = attrs.Factory(Counter)
    pending: int = 0
    rss_mib: float = 0.0

    def line(self, number: int, phase: str) -> str:
        counts = "".join(f"{self.outcomes[status]:>10}" for status in SendStatus if status is not SendStatus.REJECTED)
        return (
            f"{number:>4}  {phase:<10}{counts}{median(self.waits):>10.2f}{max(self.waits):>9.2f}"
            f"{self.pending:>9}{self.rss_mib:>9.1f}"
        )


def rss_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


async def log_in(client: OtpClient, number: int, second: Second) -> None:
    began = monotonic()
    try:
        result = await client.send_otp(f"9995{number:07}", f"Your code is {number % 1_000_000:06}")
        status = result.status
    except NxOtpError as error:
        status = SendStatus.of(error)
    second.waits.append(monotonic() - began)
    second.outcomes[status] += 1


async def arrive(client: OtpClient, arguments: argparse.Namespace, hangs: Event) -> list[Second]:
    """Start the logins at their times, and return the seconds when all logins have ended."""
    recovers_at = arguments.before + arguments.hang
    seconds = [Second() for _ in range(recovers_at + arguments.after)]
    pending: set[asyncio.Task[None]] = set()
    began = monotonic()
    for place, second in enumerate(seconds):
        if place == arguments.before:
            hangs.set()
        elif place == recovers_at:
            hangs.clear()
        for login in range(arguments.rate):
            await asyncio.sleep(began + place + login / arguments.rate - monotonic())
            pending.add(task := asyncio.create_task(log_in(client, place * arguments.rate + login, second)))
            task.add_done_callback(pending.discard)
        second.pending, second.rss_mib = len(pending), rss_mib()
    await asyncio.gather(*pending)
    return seconds


def report(seconds: list[Second], arguments: argparse.Namespace) -> None:
    recovers_at = arguments.before + arguments.hang
    print("   s  vendor      accepted  not sent   unknown  wait p50      max  pending  RSS MiB")
    for number, second in enumerate(seconds):
        phase = "hangs" if arguments.before <= number < recovers_at else "answers"
        print(second.line(number, phase))
    slow = [number for number, second in enumerate(seconds) if max(second.waits) > arguments.latency + 1]
    recovery = max(slow, default=0) + 1 - recovers_at
    longest = max(max(second.waits) for second in seconds)
    print(f"longest wait: {longest:.2f} s (deadline: {arguments.deadline:g} s)")
    print(f"most pending: {max(second.pending for second in seconds)} logins")
    recovered = f"after {max(recovery, 0)} s" if recovery < arguments.after else f"not within {arguments.after} s"
    print(f"no login waits a second longer than the vendor takes: {recovered}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=200, help="logins a second (200)")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds that the vendor takes to answer (0.1)")
    parser.add_argument("--deadline", type=float, default=8.0, help="the client's deadline, in seconds (8)")
    parser.add_argument("--timeout", type=float, default=10.0, help="the client's timeout, in seconds (10)")
    parser.add_argument("--concurrency", type=int, default=64, help="the client's max_concurrency (64)")
    for phase, default in (("before", 5), ("hang", 20), ("after", 20)):
        parser.add_argument(f"--{phase}", type=int, default=default, help=f"seconds of that phase ({default})")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    hangs = context.Event()
    here, there = context.Pipe()
    vendor = context.Process(target=run_vendor, args=(there, hangs, arguments.latency))
    vendor.start()
    pin(CLIENT_CORE)

    async def run() -> list[Second]:
        options = {name: getattr(arguments, name) for name in ("deadline", "timeout")}
        async with sandbox_client(here.recv(), max_concurrency=arguments.concurrency, **options) as client:
            return await arrive(client, arguments, hangs)

    try:
        report(asyncio.run(run()), arguments)
    finally:
        here.send(None)
        vendor.join()


if __name__ == "__main__":
    main()
