"""What a bulk run inside a web application does to the application's own requests.

Three processes: an aiohttp.web application with an OtpClient, on a core of its own; the OTP server; and this one, which
makes the application's own requests. They come at random times, 50 a second on average, whether or not the earlier ones
have been answered; each one's latency counts from when it was made. Phases alternate:

  idle       nothing but these requests
  reading    the application reads the file into a new ledger, in a thread
  sending    the application sends what the ledger has, in its event loop

The aim is a 99th percentile while sending of less than three times that when idle.

    python benchmarks/bulk_in_web_app.py                      as fast as it goes
    python benchmarks/bulk_in_web_app.py --rate 80            at the rate that Meta grants a sending number
"""

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import aiohttp
from aiohttp import web
from answering import CLIENT_CORE, SERVER_CORE, add_server_option, pin, server, write_messages

from nxotp_async.bulk import Dispatcher, Ledger, MessageState, load, open_messages
from nxotp_async.sandbox import sandbox_client

ARRIVALS = 50.0  # a second


# ------------------------------------------------------------------------------------------------ the application


def application(arguments: argparse.Namespace) -> web.Application:
    ledger = Ledger(Path(arguments.directory, "ledger"))

    def read() -> None:
        with open_messages(str(Path(arguments.directory, "otps.csv"))) as file:
            load(ledger, file)

    async def own(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def reading(_request: web.Request) -> web.Response:
        await asyncio.to_thread(read)
        return web.Response()

    async def sending(_request: web.Request) -> web.Response:
        async with sandbox_client(arguments.app, max_concurrency=arguments.concurrency) as client:
            report = await Dispatcher(ledger, client, rate=arguments.rate).run()
        return web.Response(text=str(report.counts[MessageState.ACCEPTED]))

    app = web.Application()
    app.router.add_get("/own", own)
    app.router.add_post("/reading", reading)
    app.router.add_post("/sending", sending)
    return app


async def serve(arguments: argparse.Namespace) -> None:
    """Run the application on some port, say which, and end with standard input."""
    pin(CLIENT_CORE)
    runner = web.AppRunner(application(arguments), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


# ------------------------------------------------------------------------------------------------ who asks it


@contextmanager
def running(url: str, directory: str, arguments: argparse.Namespace) -> Iterator[str]:
    """Run the application in a process of its own, and yield its URL."""
    command = [sys.executable, __file__, "--app", url, "--directory", directory]
    command += ["--concurrency", str(arguments.concurrency)]
    command += ["--rate", str(arguments.rate)] if arguments.rate else []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"


async def ask_during(
    work: Coroutine[Any, Any, object], session: aiohttp.ClientSession, draw: random.Random
) -> list[float]:
    """Make the application's own requests until the work is done, and return their latencies in milliseconds."""
    latencies: list[float] = []

    async def ask() -> None:
        began = perf_counter()
        async with session.get("/own") as response:
            await response.read()
        latencies.append((perf_counter() - began) * 1e3)

    async with asyncio.TaskGroup() as group:
        working = group.create_task(work)
        while not working.done():
            group.create_task(ask())
            await asyncio.sleep(draw.expovariate(ARRIVALS))
    return latencies


async def phases(app_url: str, arguments: argparse.Namespace, draw: random.Random) -> dict[str, list[float]]:
    async with aiohttp.ClientSession(app_url, timeout=aiohttp.ClientTimeout(total=None)) as session:

        async def post(path: str) -> None:
            async with session.post(path) as response:
                response.raise_for_status()
                assert await response.text() in ("", str(arguments.messages))

        return {
            "idle": await ask_during(asyncio.sleep(arguments.idle), session, draw),
            "reading": await ask_during(post("/reading"), session, draw),
            "sending": await ask_during(post("/sending"), session, draw),
        }


def percentile(latencies: list[float], share: float) -> float:
    return sorted(latencies)[int(len(latencies) * share)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_option(parser)
    parser.add_argument("--messages", type=int, default=50_000, help="how long the file is (50000)")
    parser.add_argument("--rounds", type=int, default=5, help="how often the phases alternate (5)")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds of each idle phase (10)")
    parser.add_argument("--concurrency", type=int, default=64, help="the client's max_concurrency (64)")
    parser.add_argument("--rate", type=float, help="messages a second at the most (no limit)")
    parser.add_argument("--app", help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.app:
        asyncio.run(serve(arguments))
        return
    found: dict[str, list[list[float]]] = {"idle": [], "reading": [], "sending": []}
    draw = random.Random(1)
    pin(SERVER_CORE)
    with server(arguments.server) as url:
        for _ in range(arguments.rounds):
            with tempfile.TemporaryDirectory() as directory:
                write_messages(Path(directory, "otps.csv"), arguments.messages)
                with running(url, directory, arguments) as app_url:
                    for phase, latencies in asyncio.run(phases(app_url, arguments, draw)).items():
                        found[phase].append(latencies)
    for phase, samples in found.items():
        p50, p99 = (median(percentile(latencies, share) for latencies in samples) for share in (0.5, 0.99))
        print(f"{phase:8} p50 {p50:6.2f} ms, p99 {p99:6.2f} ms, {sum(map(len, samples))} requests")
    rounds = zip(found["sending"], found["idle"], strict=True)
    times = median(percentile(sending, 0.99) / percentile(idle, 0.99) for sending, idle in rounds)
    print(f"p99 while sending: {times:.1f} times that when idle (aim: less than 3)")


if __name__ == "__main__":
    main()
