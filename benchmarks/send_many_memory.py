"""Whether the memory of send_many grows with the number of messages: peak memory for few and for many.

Each number of messages comes from a generator and goes through send_many in a fresh process, whose peak resident
memory counts. The aim is a difference of less than 20 MB.

    python benchmarks/send_many_memory.py
"""

import argparse
import asyncio
import subprocess
import sys
from time import perf_counter

from answering import CLIENT_CORE, SERVER_CORE, add_server_option, peak_kib, pin, server

from nxotp_async import OtpMessage
from nxotp_async.sandbox import sandbox_client


async def send(url: str, count: int) -> None:
    async with sandbox_client(url, max_concurrency=64) as client:
        messages = (OtpMessage(f"9995{number:07}", f"Your code is {number % 1_000_000:06}") for number in range(count))
        accepted = 0
        async for result in client.send_many(messages):
            accepted += result.message_id is not None
    assert accepted == count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_option(parser)
    parser.add_argument("--few", type=int, default=10_000, help="messages (10000)")
    parser.add_argument("--many", type=int, default=1_000_000, help="messages (1000000); takes minutes")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        pin(CLIENT_CORE)
        url, count = arguments.child
        asyncio.run(send(url, int(count)))
        print(peak_kib())
        return
    peaks = []
    pin(SERVER_CORE)
    with server(arguments.server) as url:
        for count in (arguments.few, arguments.many):
            began = perf_counter()
            kib = int(subprocess.check_output([sys.executable, __file__, "--child", url, str(count)]))
            peaks.append(kib * 1024 / 1e6)
            print(f"{count:>9,} messages: peak {peaks[-1]:.1f} MB, in {perf_counter() - began:.0f} s", flush=True)
    print(f"difference: {peaks[1] - peaks[0]:.1f} MB (aim: less than 20)")


if __name__ == "__main__":
    main()
