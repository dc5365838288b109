"""What one send costs when nothing else goes on: the latency of send_otp beside that of bare aiohttp.

Blocks of sends, one after the other, alternate between the two in one process on one core; the server has the other.
Each block counts with its median, and each pair of blocks with the ratio of the two. The aim is a ratio within 1.15.

    python benchmarks/one_at_a_time.py
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter

import uvloop
from answering import CLIENT_CORE, SERVER_CORE, add_server_option, pin, server
from clients.floor import sender

from nxotp_async.sandbox import sandbox_client


async def block(send: Callable[[str, str], Awaitable[object]], count: int) -> float:
    """Return the median latency of some sends in microseconds."""
    latencies = []
    for number in range(count):
        began = perf_counter()
        await send(f"9995{number:07}", f"Your code is {number:06}")
        latencies.append(perf_counter() - began)
    return median(latencies) * 1e6


async def compare(url: str, pairs: int, count: int) -> list[tuple[float, float]]:
    """Return the medians of the blocks, pair by pair: bare aiohttp's, and send_otp's."""
    async with sender(url, 64) as bare, sandbox_client(url, max_concurrency=64) as client:
        await block(bare, count), await block(client.send_otp, count)  # open the connections
        found = []
        for number in range(pairs):
            if number % 2:
                found.append((await block(bare, count), await block(client.send_otp, count)))
            else:
                ours = await block(client.send_otp, count)
                found.append((await block(bare, count), ours))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_option(parser)
    parser.add_argument("--pairs", type=int, default=40, help="pairs of blocks (40)")
    parser.add_argument("--sends", type=int, default=250, help="sends in a block (250)")
    arguments = parser.parse_args()
    pin(SERVER_CORE)
    with server(arguments.server) as url:
        pin(CLIENT_CORE)
        for name, new_loop in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
            with asyncio.Runner(loop_factory=new_loop) as runner:
                found = runner.run(compare(url, arguments.pairs, arguments.sends))
            bare, ours = (median(column) for column in zip(*found, strict=True))
            ratio = median(own / its for its, own in found)
            print(f"{name}: send_otp {ours:.0f} µs, bare aiohttp {bare:.0f} µs, ratio {ratio:.3f} (aim: 1.15)")


if __name__ == "__main__":
    main()
