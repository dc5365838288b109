"""How fast a fleet is, how even its rate, and how long a login takes while a bulk load is queued.

    python benchmarks/fleet.py [--part rate|throughput|login]

It runs a PostgreSQL of its own, a sandbox in a process of its own and three workers, all on this machine.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import psycopg
from cryptography.fernet import Fernet

from nxotp_async import OtpMessage
from nxotp_async.fleet import MessageState, Outbox, Queue

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from store_servers import PostgresServer

KEY: Final = Fernet.generate_key().decode()
WORKERS: Final = 3
# What each request costs the server is a part of what is measured, so it answers from memory and remembers only times.
VENDOR: Final = """
import asyncio, itertools, sys, time
times, ids = [], itertools.count()

async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            if head.startswith(b"GET"):
                body = ",".join(map(repr, times)).encode()
                times.clear()
            else:
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\\r\\n")[0])
                await reader.readexactly(length)
                times.append(time.time())
                body = b'{"code":0,"data":{"messages":[{"id":"v%d"}]}}' % next(ids)
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@contextmanager
def vendor() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", VENDOR], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


async def arrivals(port: int) -> list[float]:
    """Return when requests came since the last call."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(int(head.partition(b"Length:")[2].partition(b"\r\n")[0]))
    writer.close()
    return [float(each) for each in body.decode().split(",") if each]


@contextmanager
def workers(url: str, port: int, rate: float) -> Iterator[None]:
    environment = {
        **os.environ,
        "NXOTP_DATABASE_URL": url,
        "NXOTP_OUTBOX_KEYS": KEY,
        "NXOTP_BASE_URL": f"http://127.0.0.1:{port}",
        **{f"NXOTP_{name}": "x" for name in ("ACCESS_KEY", "ACCESS_SECRET", "APPKEY")},
    }
    command = [sys.executable, "-m", "nxotp_async", "fleet", "work", "--rate", str(rate)]
    with tempfile.TemporaryFile() as log:
        running = [subprocess.Popen(command, env=environment, stderr=log) for _ in range(WORKERS)]
        try:
            while log.seek(0) or log.read().count(b"working for") < WORKERS:
                time.sleep(0.1)
            yield
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


def message(number: int) -> OtpMessage:
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    return OtpMessage(f"9995{number:07}", f"Your code is {number % 1_000_000:06}", expires_at=expires_at)


async def load(outbox: Outbox, count: int) -> float:
    began = time.perf_counter()
    for start in range(0, count, 500):
        await outbox.enqueue_many([message(start + number) for number in range(min(500, count - start))])
    return time.perf_counter() - began


async def until_sent(outbox: Outbox) -> None:
    while (states := await outbox.states())[MessageState.QUEUED] or states[MessageState.SENDING]:  # noqa: ASYNC110
        await asyncio.sleep(0.5)


async def measure_rate(url: str, port: int, rate: float, seconds: float) -> None:
    """Send a bulk load at a rate, and say how many came in any second of it."""
    async with Outbox(url, keys=[KEY]) as outbox:
        with workers(url, port, rate):
            await asyncio.sleep(2)
            await arrivals(port)
            await load(outbox, int(rate * seconds))
            await until_sent(outbox)
        times = sorted(await arrivals(port))
    # Without the first second, in which the workers begin, and the last one.
    inner = [at for at in times if times[0] + 1 <= at <= times[-1] - 1]
    mean = (len(inner) - 1) / (inner[-1] - inner[0])
    most = begin = 0
    for end, at in enumerate(times):
        while times[begin] <= at - 1.0:
            begin += 1
        most = max(most, end - begin + 1)
    print(f"{rate:g}/s over {WORKERS} workers: {len(times)} messages, {mean:.1f}/s ({mean / rate - 1:+.1%}), "
          f"at most {most} in any second ({most / rate - 1:+.1%})")  # fmt: skip


async def measure_throughput(url: str, port: int, count: int) -> None:
    """Send a bulk load as fast as it goes."""
    async with Outbox(url, keys=[KEY]) as outbox:
        took = await load(outbox, count)
        print(f"enqueued {count / took:.0f} messages a second, 500 in a transaction")
        before = os.times()
        with workers(url, port, 1_000_000):
            await until_sent(outbox)
        times = sorted(await arrivals(port))
        cpu = os.times().children_user + os.times().children_system - before.children_user - before.children_system
    third = len(times) // 3
    inner = times[third : 2 * third]
    print(f"sent {len(times)} messages, {len(inner) / (inner[-1] - inner[0]):.0f}/s in the middle third; "
          f"the workers' CPU: {1000 * cpu / len(times):.2f} ms a message, their start included")  # fmt: skip


async def measure_login(url: str, port: int, queued: int, logins: int) -> None:
    """Log people in while a bulk load is queued and is sent at 80 messages a second."""
    enqueues, waits = [], []
    async with Outbox(url, keys=[KEY]) as outbox:
        await load(outbox, queued)
        with workers(url, port, 80):
            await asyncio.sleep(3)
            async with await psycopg.AsyncConnection.connect(url) as connection:
                for number in range(logins):
                    began = time.perf_counter()
                    async with connection.transaction():
                        await connection.execute("SELECT 1")
                        begin_enqueue = time.perf_counter()
                        id_ = await outbox.enqueue(message(number), connection=connection, queue=Queue.LOGIN)
                        enqueues.append(time.perf_counter() - begin_enqueue)
                    state = await outbox.wait(id_, timeout=60)
                    assert state.sent_at is not None
                    waits.append((state.sent_at - state.queued_at).total_seconds())
                    await asyncio.sleep(max(0.0, 0.1 - (time.perf_counter() - began)))
        left = (await outbox.states())[MessageState.QUEUED]
    for name, values in (("a login's enqueue", enqueues), ("its wait to be sent", waits)):
        cut = statistics.quantiles(values, n=100)
        figures = f"median {1000 * cut[49]:.1f} ms, p99 {1000 * cut[98]:.1f} ms, max {1000 * max(values):.1f} ms"
        print(f"{name}, {queued} bulk messages queued, {left} in the end: {figures}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["rate", "throughput", "login"])
    parser.add_argument("--messages", type=int, default=20_000, help="of the throughput")
    parser.add_argument("--queued", type=int, default=50_000, help="bulk messages while people log in")
    parser.add_argument("--seconds", type=float, default=20, help="of each rate")
    arguments = parser.parse_args()
    with vendor() as port:
        for part, *parts in (
            ("rate", measure_rate, 400.0, arguments.seconds),
            ("rate", measure_rate, 80.0, arguments.seconds),
            ("throughput", measure_throughput, arguments.messages),
            ("login", measure_login, arguments.queued, 200),
        ):
            if arguments.part in (None, part):
                with PostgresServer() as server:
                    asyncio.run(Outbox(server.url, keys=[KEY]).migrate())
                    measure, *rest = parts
                    asyncio.run(measure(server.url, port, *rest))


if __name__ == "__main__":
    main()
