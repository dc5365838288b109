"""The contenders of compare_clients.py, one small module each, and the job that all of them are given."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import perf_counter, process_time
from typing import Final

import attrs

__all__ = ["CONTENDERS", "Contender", "Job"]


@attrs.frozen
class Contender:
    """One way to send OTPs.

    Attributes:
        label: What it is, for the tables.
        run: Its module here, and the function in it that does the job.
        package: The distribution it stands for.
        share: How much of the sends it makes; the slow ones make fewer.
        loops: Which event loops it can run in; threads need none, and are measured once.
    """

    label: str
    run: str
    package: str
    share: float = 1.0
    loops: tuple[str, ...] = ("asyncio", "uvloop")


# In the order they run: those that are compared most closely stand next to one another.
CONTENDERS: Final = {
    "floor": Contender("aiohttp, bare and tuned (the floor)", "floor:run", "aiohttp"),
    "send_otp": Contender("nxotp_async: send_otp", "ours:send_otp", "nxotp_async"),
    "send_many": Contender("nxotp_async: send_many", "ours:send_many", "nxotp_async"),
    "bulk": Contender("nxotp_async: bulk, with its ledger", "ours:bulk", "nxotp_async"),
    "send_otp, wire": Contender("nxotp_async: send_otp, wire", "ours:send_otp_wire", "nxotp_async"),
    "send_many, wire": Contender("nxotp_async: send_many, wire", "ours:send_many_wire", "nxotp_async"),
    "bulk, wire": Contender("nxotp_async: bulk, wire", "ours:bulk_wire", "nxotp_async"),
    "by hand": Contender("aiohttp and tenacity, by hand", "by_hand:run", "aiohttp"),
    "aiosonic": Contender("aiosonic", "with_aiosonic:run", "aiosonic"),
    "pyreqwest": Contender("pyreqwest (HTTP in Rust)", "with_pyreqwest:run", "pyreqwest"),
    "niquests": Contender("niquests.AsyncSession", "with_niquests:run", "niquests", share=0.2),
    "requests": Contender("requests, in threads", "with_requests:run", "requests", share=0.2, loops=("asyncio",)),
    "httpx": Contender("httpx.AsyncClient", "with_httpx:run", "httpx", share=0.05),
}


@attrs.define
class Job:
    """So many messages to send to a server, so many at a time; and what that took.

    Attributes:
        url: The server's.
        sends: How many messages.
        concurrency: How many requests in flight.
        accepted: How many messages got an id.
        wall: Seconds it took.
        cpu: Seconds of processor time it took, of all threads.
        latencies: Seconds from a message's start to its id; empty where they would not be comparable.
    """

    url: str
    sends: int
    concurrency: int
    accepted: int = 0
    wall: float = 0.0
    cpu: float = 0.0
    latencies: list[float] = attrs.Factory(list)

    def messages(self) -> Iterator[tuple[str, str]]:
        """Yield the number and the content of each message."""
        for number in range(self.sends):
            yield f"9995{number:07}", f"Your code is {number % 1_000_000:06}"

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Measure what happens inside. Clients are made and closed outside; their connections open inside."""
        gc.collect()
        wall, cpu = perf_counter(), process_time()
        yield
        self.wall, self.cpu = perf_counter() - wall, process_time() - cpu

    def done(self, message_id: str | None, seconds: float) -> None:
        """Take down what became of a message."""
        self.accepted += bool(message_id)
        self.latencies.append(seconds)

    async def share_out(self, send: Callable[[str, str], Awaitable[str | None]]) -> None:
        """Let as many workers as may be in flight send the messages, each of them one after the other."""
        messages = self.messages()

        async def work() -> None:
            for to, content in messages:
                began = perf_counter()
                self.done(await send(to, content), perf_counter() - began)

        with self.clock():
            async with asyncio.TaskGroup() as group:
                for _ in range(self.concurrency):
                    group.create_task(work())
