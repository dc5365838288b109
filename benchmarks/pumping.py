"""What an attack on a `Verifier` costs, and whom it hits: over a day, or over an hour, with and without limits.

An attacker has codes sent to numbers that earn him money, and 1 % of them checked, so as not to be noticed. Beside him,
2,000 people log in, of whom 85 % give their code back. Both have numbers of the same country. A third of the people
share 50 addresses (carrier-grade NAT), the others have their own. The verifier is the real one; the transport accepts
everything at once, the store is in memory, and the clock is simulated.

    python benchmarks/pumping.py                 # all of it: some minutes
    python benchmarks/pumping.py --attacks 4     # the fourth one alone
"""

import argparse
import asyncio
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import attrs
import orjson

from nxotp_async import VerificationRefusedError
from nxotp_async.sandbox import answers, sandbox_client
from nxotp_async.stores import MemoryStore
from nxotp_async.testing import FakeClock
from nxotp_async.transports import Answer
from nxotp_async.verification import Limits, Verifier

HOUR: Final = 3600.0
DAY: Final = 86_400.0
BEGINNING: Final = 1_800_000_000.0
PEOPLE: Final = 2_000
OFF: Final = dict.fromkeys(
    [
        *("number_per_hour", "number_per_day", "ip_per_hour", "prefix_per_hour", "country_per_hour"),
        *("messages_per_day", "min_prefix_conversion", "min_country_conversion"),
    ]
)
LIMITS: Final[Mapping[str, Limits]] = {
    "off": Limits(**OFF),  # type: ignore[arg-type] # all of them are None
    "defaults": Limits(),
    "country_per_hour=5000": Limits(country_per_hour=5_000),
    "ip_per_hour=5": Limits(ip_per_hour=5),
}


class Instant:
    """A transport that accepts every message at once, and knows the code that a number got last."""

    def __init__(self) -> None:
        self.codes: dict[str, str] = {}

    async def post(self, _: str, body: bytes, __: Mapping[str, str], ___: float) -> Answer:
        fields = orjson.loads(body)
        self.codes[fields["to"]] = fields["content"]
        return Answer(200, {}, answers.success(fields["cus_message_id"]))

    async def aclose(self) -> None:
        pass


@attrs.frozen
class Attack:
    """An attack.

    Attributes:
        prefixes: Over how many prefixes its numbers are spread.
        addresses: From how many IP addresses it comes.
        seconds: How long it takes.
    """

    prefixes: int
    addresses: int
    seconds: float

    def __str__(self) -> str:
        prefixes = "one prefix" if self.prefixes == 1 else f"{self.prefixes} prefixes"
        return f"{prefixes}, {self.addresses} addresses, in {'an hour' if self.seconds == HOUR else 'a day'}"


ATTACKS: Final = (
    Attack(1, 200, DAY),
    Attack(1, 200, HOUR),
    Attack(200, 200, DAY),
    Attack(200, 200, HOUR),
    Attack(2_000, 2_000, DAY),
)


@attrs.frozen(order=True)
class Login:
    """One login, of the attacker or of a person."""

    at: float
    index: int
    is_attack: bool = attrs.field(order=False)
    number: str = attrs.field(order=False)
    address: str = attrs.field(order=False)
    answers: bool = attrs.field(order=False)


def logins(attack: Attack, starts: int, chance: random.Random) -> list[Login]:
    index = itertools.count()
    begins = chance.uniform(0, DAY - attack.seconds)
    prefixes = chance.sample(range(10**5), attack.prefixes)
    attackers = [
        Login(
            BEGINNING + begins + chance.uniform(0, attack.seconds),
            next(index),
            True,
            f"62857{chance.choice(prefixes):05}{chance.randrange(10**4):04}",
            f"198.18.{(each := chance.randrange(attack.addresses)) >> 8}.{each & 255}",
            chance.random() < 0.01,
        )
        for _ in range(starts)
    ]
    people = [
        Login(
            BEGINNING + chance.uniform(0, DAY),
            next(index),
            False,
            f"62812{chance.randrange(10**8):08}",
            f"192.0.2.{chance.randrange(50)}" if chance.random() < 1 / 3 else f"10.0.{number >> 8}.{number & 255}",
            chance.random() < 0.85,
        )
        for number in range(PEOPLE)
    ]
    return attackers + people


async def simulate(limits: Limits, attack: Attack, starts: int) -> tuple[Counter[Any], float]:
    """Return how many logins of each kind had which outcome, and the share of people who were refused in the attack."""
    clock, transport = FakeClock(BEGINNING), Instant()
    client = sandbox_client("https://otp.example", transport=transport, clock=clock)
    store = MemoryStore(clock=clock)
    verifier = Verifier(client, store=store, key="k" * 32, countries={"ID"}, limits=limits, clock=clock)
    outcomes: Counter[Any] = Counter()
    coming = logins(attack, starts, random.Random(7))
    began = min(login.at for login in coming if login.is_attack)
    meanwhile = [login for login in coming if not login.is_attack and began <= login.at < began + attack.seconds]
    refused = 0
    heapq.heapify(coming)
    checks: list[tuple[float, int, str, str]] = []
    while coming or checks:
        if checks and (not coming or checks[0][0] <= coming[0].at):
            at, _, id_, code = heapq.heappop(checks)
            clock.advance(max(0.0, at - clock.time()))
            outcomes["approved"] += (await verifier.check(id_, code)).approved
            continue
        login = heapq.heappop(coming)
        clock.advance(max(0.0, login.at - clock.time()))
        who = "attacker" if login.is_attack else "people"
        try:
            started = await verifier.start(f"+{login.number}", ip=login.address)
        except VerificationRefusedError as error:
            outcomes[who, str(error.reason)] += 1
            refused += not login.is_attack and began <= login.at < began + attack.seconds
            continue
        outcomes[who, "sent"] += 1
        if login.answers:
            heapq.heappush(checks, (login.at + 20, login.index, started.id, transport.codes[login.number]))
    return outcomes, refused / max(1, len(meanwhile))


async def main(starts: int, attacks: list[int]) -> None:
    print(f"An attacker's {starts:,} starts beside {PEOPLE:,} logins of people in a day, in the same country")
    for attack in (ATTACKS[number - 1] for number in attacks):
        print(f"\n{attack}")
        print(f"  {'limits':<24}{'to the attacker':>16}{'people refused':>16}{'in the attack':>15}  because of")
        for name, limits in LIMITS.items():
            outcomes, share = await simulate(limits, attack, starts)
            reasons = {key[1]: count for key, count in outcomes.items() if key[0] == "people" and key[1] != "sent"}
            print(
                f"  {name:<24}{outcomes['attacker', 'sent']:>16,}{sum(reasons.values()):>16,}{share:>14.0%}"
                f"   {', '.join(f'{reason} {count}' for reason, count in reasons.items())}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=20_000, help="the starts of the attacker")
    every = range(1, len(ATTACKS) + 1)
    parser.add_argument("--attacks", type=int, nargs="+", choices=every, default=[*every], help="which attacks")
    options = parser.parse_args()
    asyncio.run(main(options.starts, options.attacks))
