"""How exactly processes keep a rate that they share, and what a permit costs: over a real Valkey and a real PostgreSQL.

Each process sends through a client of its own, whose transport answers at once, and notes when a message is posted; all
of them read one clock. The figures, each with its aim:

  rate      What all of them send in a second together, and the most in any tenth of a second.
  fast      The same at 1,000 a second.
  bulk      The same of one bulk run in the background, alone: at 80 a second, and at 1,000.
  permit    What a permit costs when nobody waits: microseconds, and round trips as the server counts them.
  login     How long a message waits for its permit while bulk loads in the other processes take all that is left.

    python benchmarks/shared_rate.py                      # all of them: about six minutes
    python benchmarks/shared_rate.py --figures login --stores valkey --seconds 10
"""

import argparse
import asyncio
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, cast

import orjson
import psycopg
import redis.asyncio
from answering import write_messages

from nxotp_async import OtpMessage
from nxotp_async.bulk import Dispatcher, Ledger, MessageState, load, open_messages
from nxotp_async.pacing import SharedRate
from nxotp_async.sandbox import answers, sandbox_client
from nxotp_async.stores import Store, store_from_url
from nxotp_async.transports import Answer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from store_servers import PostgresServer, ValkeyServer  # the tests start the same servers

SERVERS: Final[Mapping[str, Callable[[], ValkeyServer | PostgresServer]]] = {
    "valkey": lambda: ValkeyServer("--appendonly", "yes", "--appendfsync", "everysec"),  # the usual setting
    "postgresql": PostgresServer,
}
PERMITS: Final = 5_000


class Instant:
    """A transport that accepts every message at once, and notes when."""

    def __init__(self) -> None:
        self.times: list[float] = []

    async def post(self, *_: object, **__: object) -> Answer:
        self.times.append(time.monotonic())
        return Answer(200, {}, answers.success(f"{os.getpid()}-{len(self.times)}"))

    async def aclose(self) -> None:
        pass


# ---------------------------------------------------------------------------------------------- one process


async def send(rate: SharedRate, until: float) -> list[float]:
    """Send as fast as the rate allows, and return when messages were posted."""
    transport = Instant()
    client = sandbox_client("https://otp.example", transport=transport, rate_limit=rate)
    messages = itertools.takewhile(
        lambda _: time.monotonic() < until, (OtpMessage("+999 555 0100", "482913") for _ in itertools.count())
    )
    async for result in client.send_many(messages):
        assert result.error is None, result.error
    return transport.times


class Noted:
    """A store that notes how long its callers have to wait for a permit."""

    def __init__(self, store: Store) -> None:
        self.waits: list[float] = []
        self._store = store

    async def reserve(self, key: str, count: int, *, rate: float, burst: float, patience: float) -> float | None:
        wait = await self._store.reserve(key, count, rate=rate, burst=burst, patience=patience)
        self.waits.append(wait or 0.0)
        return wait


async def log_in(store: Store, name: str, per_second: float, until: float) -> list[list[float]]:
    """Ask for a permit now and then, about 16 times a second. Return how long each took, and its wait by the store."""
    noted, took = Noted(store), []
    rate = SharedRate(cast("Store", noted), name, per_second)
    while time.monotonic() < until:
        await asyncio.sleep(random.uniform(0.02, 0.1))
        began = time.monotonic()
        assert await rate.acquire(10)
        took.append(time.monotonic() - began)
    return [took, noted.waits]


async def send_file(ledger: Ledger, rate: SharedRate, until: float) -> list[float]:
    """Send what the ledger has queued, as `nxotp bulk run` does, and return when messages were posted."""
    transport = Instant()
    dispatcher = Dispatcher(ledger, sandbox_client("https://otp.example", transport=transport), rate=rate)
    asyncio.get_running_loop().call_later(until - time.monotonic(), dispatcher.stop)
    report = await dispatcher.run()
    assert report.counts[MessageState.ACCEPTED] == len(transport.times), report
    return transport.times


def load_messages(directory: Path, count: int) -> Ledger:
    write_messages(directory / "otps.csv", count)
    ledger = Ledger(directory / "otps.ledger")
    with open_messages(str(directory / "otps.csv")) as file:
        load(ledger, file)
    return ledger


async def process(store_url: str, name: str, per_second: str, role: str, seconds: str) -> list[Any]:
    with tempfile.TemporaryDirectory() as directory:
        count = int(float(per_second) * float(seconds)) if role == "bulk" else 1
        async with store_from_url(store_url) as store:
            with load_messages(Path(directory), count) as ledger:
                return await play(role, ledger, store, name, float(per_second), float(seconds))


async def play(role: str, ledger: Ledger, store: Store, name: str, per_second: float, seconds: float) -> list[Any]:
    """Play a role as soon as the parent process says when."""
    print("ready", flush=True)
    start = float(sys.stdin.readline())
    await asyncio.sleep(start - time.monotonic())
    until = start + seconds
    match role:
        case "login":
            return await log_in(store, name, per_second, until)
        case "bulk":
            return await send_file(ledger, SharedRate(store, name, per_second, background=True), until)
    return await send(SharedRate(store, name, per_second), until)


def run_processes(url: str, per_second: float, seconds: float, roles: list[str]) -> tuple[float, list[list[Any]]]:
    """Run a process for each role, and return when they began, and what each of them returned."""
    arguments = [sys.executable, __file__, "--process", url, uuid.uuid4().hex, str(per_second)]
    running = [
        subprocess.Popen([*arguments, role, str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for role in roles
    ]
    try:
        for one in running:
            assert one.stdout is not None
            assert one.stdout.readline() == b"ready\n"
        start = time.monotonic() + 0.5
        for one in running:
            assert one.stdin is not None
            one.stdin.write(f"{start}\n".encode())
            one.stdin.flush()
        return start, [orjson.loads(one.communicate(timeout=seconds + 60)[0]) for one in running]
    finally:
        for one in running:
            one.kill()
            one.wait()


# ---------------------------------------------------------------------------------------------- the figures


def kept_rate(url: str, per_second: float, seconds: float, roles: list[str]) -> tuple[float, int]:
    """Return how many messages a second were sent, and the most within any tenth of a second."""
    start, outputs = run_processes(url, per_second, seconds, roles)
    times = sorted(at for output in outputs for at in output if start <= at < start + seconds)
    most = max(bisect_left(times, at + 0.1) - index for index, at in enumerate(times))
    return len(times) / seconds, most


def login_waits(url: str, seconds: float, processes: int) -> tuple[list[float], list[float], float]:
    """Return how long logins took for their permits and waited by the store, and what went out in a second in all."""
    start, ((took, waits), *bulk) = run_processes(url, 80, seconds, ["login"] + ["bulk"] * (processes - 1))
    sent = len(took) + sum(start <= at < start + seconds for output in bulk for at in output)
    return took, waits, sent / seconds


async def permit_cost(url: str, *, background: bool) -> tuple[float, float, float]:
    """Return what a permit that is free costs: round trips, and microseconds of time and of this process's CPU."""
    async with store_from_url(url) as store:
        rate = SharedRate(store, uuid.uuid4().hex, 1e6, background=background)
        before = await commands(url)
        took = []
        cpu = time.process_time()
        for _ in range(PERMITS):
            began = time.perf_counter()
            assert await rate.acquire(1)
            took.append(time.perf_counter() - began)
        cpu = time.process_time() - cpu
    return (await commands(url) - before) / PERMITS, median(took) * 1e6, cpu / PERMITS * 1e6


async def commands(url: str) -> int:
    """Return how many commands, or statements, the server has done, as it counts them itself."""
    if url.startswith("redis"):
        async with redis.asyncio.Redis.from_url(url) as client:
            statistics: dict[str, Any] = await client.info("commandstats")
            return int(statistics.get("cmdstat_evalsha", {}).get("calls", 0))
    await asyncio.sleep(1.5)  # PostgreSQL's own counters lag so much
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(
            "SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relname = 'nxotp_rates'"
        )
        row = await cursor.fetchone()
        return int(row[0]) if row else 0


def measure(store: str, url: str, arguments: argparse.Namespace) -> None:
    seconds, processes = arguments.seconds, arguments.processes
    sends, run, aims = ["send"] * processes, ["bulk"], {80: "79 to 81/s, at most 12", 1000: "950/s at least"}
    for figure, per_second, roles in (
        ("rate", 80, sends),
        ("fast", 1000, sends),
        ("bulk", 80, run),
        ("bulk", 1000, run),
    ):
        if figure in arguments.figures:
            sent, most = kept_rate(url, per_second, seconds, roles)
            told = f"{sent:,.1f}/s, at most {most} in 100 ms (aim: {aims[per_second]})"
            print(f"{store}: {per_second:,}/s by {len(roles)} processes ({roles[0]}), {seconds:g} s: {told}")
    if "permit" in arguments.figures:
        for kind, background in (("a permit", False), ("a permit in the background", True)):
            trips, wall, cpu = asyncio.run(permit_cost(url, background=background))
            print(f"{store}: {kind}: {trips:.2f} round trips, {wall:.0f} µs, {cpu:.0f} µs of them this process's CPU")
    if "login" in arguments.figures:
        took, waits, sent = login_waits(url, seconds, processes)
        beside = f"{len(took)} logins beside {processes - 1} bulk loads, {sent:.1f}/s together"
        print(f"{store}: {beside}: {spread(took)} (aim: p99 below {1500 / 80:.1f} ms)")
        print(f"{store}: of that, what the store had them wait: {spread(waits)}")


def spread(seconds: list[float]) -> str:
    p50, p99 = median(seconds), quantiles(seconds, n=100)[98]
    return f"p50 {1000 * p50:.1f} ms, p99 {1000 * p99:.1f} ms, at most {1000 * max(seconds):.1f} ms"


def main() -> None:
    if sys.argv[1:2] == ["--process"]:
        sys.stdout.buffer.write(orjson.dumps(asyncio.run(process(*sys.argv[2:]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="+", choices=SERVERS, default=[*SERVERS], help="over which (both)")
    figures = ["rate", "fast", "bulk", "permit", "login"]
    parser.add_argument("--figures", nargs="+", choices=figures, default=figures, help="what to measure (all)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each run sends (30)")
    parser.add_argument("--processes", type=int, default=4, help="how many send at the same time (4)")
    arguments = parser.parse_args()
    for store in arguments.stores:
        with SERVERS[store]() as server:
            measure(store, server.url, arguments)


if __name__ == "__main__":
    main()
