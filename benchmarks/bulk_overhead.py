"""What the ledger costs: throughput of a bulk run against that of a plain send_many, alternating, and its commits.

python benchmarks/bulk_overhead.py --server nginx
"""

import argparse
import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from time import perf_counter

from answering import add_server_option, server, write_messages

from nxotp_async import OtpMessage
from nxotp_async.bulk import Dispatcher, Ledger, MessageState, load, open_messages
from nxotp_async.sandbox import sandbox_client

CONCURRENCY = 100


class CountingLedger(Ledger):
    """A ledger that counts its transactions, each of which is one commit."""

    transactions = 0

    def transaction(self) -> AbstractContextManager[None]:
        self.transactions += 1
        return super().transaction()


def messages(count: int) -> Iterator[OtpMessage]:
    for number in range(count):
        yield OtpMessage(f"9995{number:07}", f"Your code is {number % 1_000_000:06}")


async def plain(url: str, count: int) -> float:
    """Return the messages a second of send_many."""
    async with sandbox_client(url, max_concurrency=CONCURRENCY) as client:
        began = perf_counter()
        accepted = [result async for result in client.send_many(messages(count)) if result.message_id]
        assert len(accepted) == count
        return count / (perf_counter() - began)


async def bulk(url: str, directory: Path, count: int) -> tuple[float, float, float]:
    """Return the messages a second of a bulk run, without and with reading the file, and the messages a commit."""
    path = directory / "run.ledger"
    path.unlink(missing_ok=True)
    async with sandbox_client(url, max_concurrency=CONCURRENCY) as client:
        began = perf_counter()
        with CountingLedger(path) as ledger, open_messages(str(directory / "otps.csv")) as file:
            load(ledger, file)
            loaded, commits = perf_counter(), ledger.transactions
            report = await Dispatcher(ledger, client).run()
            ended = perf_counter()
            assert report.counts[MessageState.ACCEPTED] == count
            return count / (ended - loaded), count / (ended - began), count / (ledger.transactions - commits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_server_option(parser)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    ratios, with_loading, per_commit = [], [], []
    with server(arguments.server) as url, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_messages(directory / "otps.csv", arguments.messages)
        for _ in range(arguments.rounds):
            without = asyncio.run(plain(url, arguments.messages))
            sending, all_of_it, a_commit = asyncio.run(bulk(url, directory, arguments.messages))
            ratios.append(sending / without)
            with_loading.append(all_of_it / without)
            per_commit.append(a_commit)
            print(f"send_many {without:,.0f}/s, bulk {sending:,.0f}/s, with reading the file {all_of_it:,.0f}/s")
    print(
        f"median of {arguments.rounds}, against {arguments.server}: bulk at {median(ratios):.2f} of send_many, "
        f"{median(with_loading):.2f} with reading the file, {median(per_commit):.0f} messages a commit"
    )


if __name__ == "__main__":
    main()
