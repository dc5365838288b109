"""How exactly a pool of senders keeps their rates, judged by the sandbox in a process of its own.

The sandbox notes when each message arrives, and refuses what is more than 80 from one number in any second, as WhatsApp
does. The figures, each with its aim:

  rate      What two senders send in a second together (158 to 162), and the most of one in any second (80).
  unbound   The same where one is unbound in the middle: what it was tried with after that, and the other's rate.
  bulk      The rate of a bulk run over the same two senders.

    python benchmarks/senders.py                 # all of them, 30 seconds each
    python benchmarks/senders.py --figures rate --seconds 60
"""

import argparse
import asyncio
import itertools
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson
from answering import write_messages

from nxotp_async import OtpMessage
from nxotp_async.bulk import Dispatcher, Ledger, load, open_messages
from nxotp_async.sandbox import ReceivedRequest, Sandbox, sandbox_client
from nxotp_async.senders import Sender, SenderPool

NUMBERS: Final = ("99955500001", "99955500002")
LIMIT: Final = 80
FIGURES: Final = ("rate", "unbound", "bulk")


async def serve(unbind_after: float) -> None:
    """Run the sandbox until standard input ends, and print what has arrived: sender, code and time of each."""
    arrived: list[tuple[str, int, float]] = []

    def note(request: ReceivedRequest) -> None:
        arrived.append((request.fields["business_phone"], int(request.code), time.monotonic()))

    async with Sandbox(business_phones=NUMBERS, sender_limit=LIMIT, on_request=note) as sandbox:
        print(sandbox.url, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        if unbind_after:
            asyncio.get_running_loop().call_later(unbind_after, sandbox.business_phones.pop, 0)
        await asyncio.to_thread(sys.stdin.read)
        print(orjson.dumps(arrived).decode(), flush=True)


@asynccontextmanager
async def server(unbind_after: float, arrived: list[Any]) -> AsyncIterator[str]:
    process = subprocess.Popen(  # noqa: ASYNC220 - it does not block for long
        [sys.executable, __file__, "--server", str(unbind_after)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = (await asyncio.to_thread(process.stdout.readline)).decode().strip()
        process.stdin.write(b"begin\n")
        process.stdin.flush()
        yield url
        process.stdin.close()
        arrived += orjson.loads(await asyncio.to_thread(process.stdout.read))
    finally:
        process.kill()
        process.wait()


async def send(url: str, seconds: float) -> Counter[str]:
    """Send as fast as the senders may, and return how many messages had which status."""
    until = time.monotonic() + seconds
    numbers = itertools.takewhile(lambda _: time.monotonic() < until, itertools.count(10_000_000))
    counts: Counter[str] = Counter()
    async with sandbox_client(url) as client:
        pool = SenderPool(client, map(Sender, NUMBERS))
        async for result in pool.send_many(OtpMessage(f"9995{number}", "482913") for number in numbers):
            counts[result.status] += 1
    return counts


async def run_file(url: str, seconds: float) -> Counter[str]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "otps.csv"
        write_messages(path, int(2 * LIMIT * seconds))
        with Ledger(Path(directory) / "otps.ledger") as ledger:
            with open_messages(str(path)) as file:
                load(ledger, file)
            async with sandbox_client(url) as client:
                report = await Dispatcher(ledger, SenderPool(client, map(Sender, NUMBERS))).run()
    return Counter({str(state): count for state, count in report.counts.items()})


def most_in_a_second(times: list[float]) -> int:
    return max((bisect_left(times, at + 1.0) - index for index, at in enumerate(times)), default=0)


async def measure(figure: str, seconds: float) -> None:
    arrived: list[tuple[str, int, float]] = []
    async with server(seconds / 2 if figure == "unbound" else 0.0, arrived) as url:
        counts = await (run_file if figure == "bulk" else send)(url, seconds)
    first = arrived[0][2]
    told = ", ".join(f"{count:,} {status}" for status, count in counts.items() if count)
    # Without the seconds in which it begins and ends.
    inner = [at for _, code, at in arrived if first + 1 <= at < first + seconds - 1 and not code]
    print(f"{figure}: {len(inner) / (seconds - 2):.1f}/s together; {told}")
    for number in NUMBERS:
        times = [at for sender, code, at in arrived if sender == number and code != 10003]
        refused = Counter(code for sender, code, _ in arrived if sender == number and code)
        rate = len(times) / (times[-1] - times[0])
        most = most_in_a_second([at for sender, code, at in arrived if sender == number and not code])
        print(f"  sender {number[-1]}: {rate:.1f}/s, {most} accepted in a second at most; refused: {dict(refused)}")


def main() -> None:
    if sys.argv[1:2] == ["--server"]:
        asyncio.run(serve(float(sys.argv[2])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=[*FIGURES], help="what to measure (all)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each takes (30)")
    arguments = parser.parse_args()
    for figure in arguments.figures:
        asyncio.run(measure(figure, arguments.seconds))


if __name__ == "__main__":
    main()
