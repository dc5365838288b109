"""What a verification costs: microseconds over `send_otp`, and round trips to the store.

The microseconds are CPU time of this process with a store in memory, whose clock is real, and a transport that answers
at once. The round trips are counted over a store that answers after a second of virtual time: how many seconds a call
takes is how many round trips follow one another.

    python benchmarks/verification.py
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson

from nxotp_async import OtpClient
from nxotp_async.clocks import Clock
from nxotp_async.sandbox import answers, sandbox_client
from nxotp_async.stores import MemoryStore
from nxotp_async.transports import Answer
from nxotp_async.verification import Limits, Verifier

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support import VirtualTimeLoop

KEY: Final = "k" * 32
# As many limits as there are, none of which is reached here.
LIMITS: Final = Limits(prefix_per_hour=10**6, country_per_hour=10**6, messages_per_day=10**6)


class Instant:
    """A transport that accepts every message at once, and knows the last code."""

    def __init__(self) -> None:
        self.code = ""

    async def post(self, _: str, body: bytes, __: Mapping[str, str], ___: float) -> Answer:
        fields = orjson.loads(body)
        self.code = fields["content"]
        return Answer(200, {}, answers.success(fields["cus_message_id"]))

    async def aclose(self) -> None:
        pass


class Distant(MemoryStore):
    """A store a second away, which counts its round trips."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.trips = 0
        self._timeout = 1000.0

    async def _trip(self) -> None:
        self.trips += 1
        await asyncio.sleep(1)

    async def _read(self, key: str) -> bytes | None:
        await self._trip()
        return await super()._read(key)

    async def _replace(self, key: str, seen: bytes | None, value: bytes | None, ttl: float) -> bool:
        await self._trip()
        return await super()._replace(key, seen, value, ttl)


def new_client(clock: Clock | None = None) -> tuple[OtpClient, Instant]:
    transport = Instant()
    return sandbox_client("https://otp.example", transport=transport, clock=clock), transport


async def count_trips() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    store = Distant(loop.clock)
    client, transport = new_client(loop.clock)
    verifier = Verifier(client, store=store, key=KEY, countries={"ID"}, limits=LIMITS, clock=loop.clock)

    async def show(name: str, call: Awaitable[Any]) -> Any:  # noqa: ANN401 - that of the call
        store.trips, began = 0, loop.time()
        result = await call
        print(f"  {name:<28}{round(loop.time() - began):>15}{store.trips:>9}")
        return result

    print(f"Round trips to the store\n  {'':<28}{'one by another':>15}{'in all':>9}")
    started = await show("start", verifier.start("+6281234567890", ip="192.0.2.1"))
    await show("check, wrong", verifier.check(started.id, "000000"))
    await asyncio.sleep(30)
    await show("resend", verifier.resend(started.id))
    await show("check, approved", verifier.check(started.id, transport.code))
    await show("check, unknown", verifier.check("no such id", transport.code))


async def measure(count: int) -> dict[str, float]:
    """Return the microseconds of each call."""
    client, transport = new_client()
    verifier = Verifier(client, store=MemoryStore(), key=KEY, countries={"ID"}, limits=LIMITS)
    numbers = [f"+62812{index:08}" for index in range(count)]
    started: list[tuple[str, str]] = []

    async def start(number: str) -> None:
        verification = await verifier.start(number)
        started.append((verification.id, transport.code))

    async def timed(call: Callable[[Any], Awaitable[object]], arguments: list[Any]) -> float:
        began = time.process_time()
        for argument in arguments:
            await call(argument)
        return (time.process_time() - began) / count * 1e6

    took = {"send_otp": await timed(lambda number: client.send_otp(number, "482913"), numbers)}
    took["start"] = await timed(start, numbers)
    took["check, wrong"] = await timed(lambda each: verifier.check(each[0], "000000"), started)
    took["check, approved"] = await timed(lambda each: verifier.check(*each), started)
    return took


async def main(count: int, rounds: int) -> None:
    results = [await measure(count) for _ in range(rounds)]
    print(f"CPU time a call, the median of {rounds} rounds of {count:,}")
    for name in results[0]:
        print(f"  {name:<28}{median(result[name] for result in results):>12.0f} µs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    asyncio.run(main(options.count, options.rounds))
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(count_trips())
