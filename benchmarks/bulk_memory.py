"""How much memory a bulk run of a million messages takes, and how many tasks.

python benchmarks/bulk_memory.py --messages 1000000
"""

import argparse
import asyncio
import tempfile
from pathlib import Path
from time import perf_counter

from answering import add_server_option, server, write_messages

from nxotp_async.bulk import Dispatcher, Ledger, MessageState, load, open_messages
from nxotp_async.sandbox import sandbox_client

CONCURRENCY = 100
MIB = 1 << 20


def resident() -> int:
    """Return the bytes of memory this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def run(url: str, directory: Path, count: int) -> None:
    async with sandbox_client(url, max_concurrency=CONCURRENCY) as client:
        with Ledger(directory / "run.ledger") as ledger:
            began = perf_counter()
            with open_messages(str(directory / "otps.csv")) as file:
                load(ledger, file)
            print(f"read {count:,} rows in {perf_counter() - began:.0f} s: {resident() / MIB:.0f} MiB", flush=True)
            dispatcher = Dispatcher(ledger, client)
            watching = asyncio.create_task(watch(dispatcher, count))
            began = perf_counter()
            report = await dispatcher.run()
            watching.cancel()
            assert report.counts[MessageState.ACCEPTED] == count
            print(f"sent in {perf_counter() - began:.0f} s: {resident() / MIB:.0f} MiB")


async def watch(dispatcher: Dispatcher, count: int) -> None:
    """Print memory and tasks at every tenth of the way."""
    most_tasks, next_step = 0, count // 10
    while True:
        await asyncio.sleep(0.05)
        most_tasks = max(most_tasks, len(asyncio.all_tasks()))
        sent = dispatcher.counts[MessageState.ACCEPTED]
        if sent >= next_step:
            print(f"{sent:>9,} sent: {resident() / MIB:.0f} MiB, {most_tasks} tasks at most", flush=True)
            next_step += count // 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_server_option(parser)
    parser.add_argument("--messages", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with server(arguments.server) as url, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_messages(directory / "otps.csv", arguments.messages)
        asyncio.run(run(url, directory, arguments.messages))


if __name__ == "__main__":
    main()
