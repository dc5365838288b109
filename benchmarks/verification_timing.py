"""Whether the time that a `Verifier` takes tells a stranger something, by a Kolmogorov-Smirnov test of two samples.

The samples are taken in turns, over a store in memory, a real Valkey and a real PostgreSQL, with a transport that
answers at once, as an attacker would who sits next to the process. Each pair has a control, which are two samples of
the same: the machine's noise, which anything is to be compared with.

    python benchmarks/verification_timing.py
    python benchmarks/verification_timing.py --samples 1000 --stores memory
"""

import argparse
import asyncio
import math
import sys
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson

from nxotp_async import VerificationRefusedError
from nxotp_async.sandbox import answers, sandbox_client
from nxotp_async.stores import Store, store_from_url
from nxotp_async.transports import Answer
from nxotp_async.verification import Limits, Verifier

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from store_servers import PostgresServer, ValkeyServer  # the tests start the same servers

SERVERS: Final[Mapping[str, Callable[[], AbstractContextManager[Any]] | None]] = {
    "memory": None,
    "valkey": ValkeyServer,
    "postgresql": PostgresServer,
}
LIMITS: Final = Limits(
    checks=10**9, number_per_hour=None, number_per_day=None, prefix_per_hour=None, country_per_hour=None,
    messages_per_day=None, min_prefix_conversion=None, lifetime=600,
)  # fmt: skip
_UNDELIVERABLE: Final = "9"  # what the numbers end with that are not on WhatsApp


class Instant:
    """A transport that answers at once: numbers that end with 9 are not on WhatsApp."""

    async def post(self, _: str, body: bytes, __: Mapping[str, str], ___: float) -> Answer:
        fields = orjson.loads(body)
        if fields["to"].endswith(_UNDELIVERABLE):
            return Answer(200, {}, answers.meta_failure(131026))
        return Answer(200, {}, answers.success(fields["cus_message_id"]))

    async def aclose(self) -> None:
        pass


def kolmogorov_smirnov(one: list[float], other: list[float]) -> tuple[float, float]:
    """Return the greatest distance of the distributions, and the probability of one as great by chance."""
    one, other = sorted(one), sorted(other)
    distance = max(abs(bisect_right(one, at) / len(one) - bisect_right(other, at) / len(other)) for at in one + other)
    size = math.sqrt(len(one) * len(other) / (len(one) + len(other)))
    scaled = (size + 0.12 + 0.11 / size) * distance
    if scaled < 0.2:
        return distance, 1.0
    tail = sum((-1) ** (k - 1) * math.exp(-2 * k * k * scaled * scaled) for k in range(1, 101))
    return distance, min(1.0, max(0.0, 2 * tail))


async def sample(calls: list[Callable[[int], Awaitable[object]]], samples: int) -> list[list[float]]:
    """Return the seconds of each call, in turns."""
    took: list[list[float]] = [[] for _ in calls]
    for index in range(samples):
        for number, call in enumerate(calls[index % 2 :] + calls[: index % 2]):
            began = time.perf_counter()
            with suppress(VerificationRefusedError):
                await call(index)
            took[(number + index % 2) % len(calls)].append(time.perf_counter() - began)
    return took


async def compare(store: Store, samples: int) -> None:
    client = sandbox_client("https://otp.example", transport=Instant())
    verifier = Verifier(client, store=store, key="k" * 32, countries={"ID"}, limits=LIMITS)
    strict = Verifier(client, store=store, key="k" * 32, countries={"ID"}, limits=Limits(number_per_hour=1))
    started = [await verifier.start(f"+62812{index:08}") for index in (10, 20)]
    await strict.start("+6281300000001")
    ids = [verification.id for verification in started]
    pairs: dict[str, list[Callable[[int], Awaitable[object]]]] = {
        "check: a known id, another known id (control)": [
            lambda _: verifier.check(ids[0], "000000"),
            lambda _: verifier.check(ids[1], "000000"),
        ],
        "check: a known id, an unknown one": [
            lambda _: verifier.check(ids[0], "000000"),
            lambda index: verifier.check(f"{index:032}", "000000"),
        ],
        "check: a wrong code, one of wrong length": [
            lambda _: verifier.check(ids[0], "000000"),
            lambda _: verifier.check(ids[0], "00000a"),
        ],
        "start: a new number, another new one (control)": [
            lambda index: verifier.start(f"+62815{index:07}0"),
            lambda index: verifier.start(f"+62816{index:07}0"),
        ],
        "start: a new number, one verified before": [
            lambda index: verifier.start(f"+62817{index:07}0"),
            lambda _: verifier.start("+6281200000010"),
        ],
        "start: on WhatsApp, not on WhatsApp": [
            lambda index: verifier.start(f"+62818{index:07}0"),
            lambda index: verifier.start(f"+62819{index:07}9"),
        ],
        "start: allowed, refused by a limit": [
            lambda index: verifier.start(f"+62821{index:07}0"),
            lambda _: strict.start("+6281300000001"),
        ],
    }
    print(f"  {'':<48}{'medians, µs':>16}{'distance':>10}{'p':>8}")
    for name, calls in pairs.items():
        one, other = await sample(calls, samples)
        distance, chance = kolmogorov_smirnov(one, other)
        medians = f"{median(one) * 1e6:.0f}, {median(other) * 1e6:.0f}"
        print(f"  {name:<48}{medians:>16}{distance:>10.3f}{chance:>8.3f}", flush=True)


async def main(stores: list[str], samples: int) -> None:
    for name in stores:
        print(f"{name}, {samples:,} samples of each")
        with ExitStack() as stack:
            server = SERVERS[name]
            url = "memory://" if server is None else stack.enter_context(server()).url
            async with store_from_url(url) as store:
                await compare(store, samples)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=5_000)
    parser.add_argument("--stores", nargs="+", choices=SERVERS, default=list(SERVERS))
    options = parser.parse_args()
    asyncio.run(main(options.stores, options.samples))
