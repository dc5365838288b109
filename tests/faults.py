"""Send to servers that misbehave on their connections, and judge what the client says of every message.

    python tests/faults.py --messages 2000 --concurrency 1,8,64 --loop both --python python3.13

Server and client are processes of their own. The judge compares the server's record with the client's outcomes. Exits
with 1 where the client has told an untruth, or has sent again what was accepted.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import attrs
from faulty_server import SCENARIOS

HERE = Path(__file__).parent
STATUSES = ("accepted", "rejected", "not_sent", "unknown")


@attrs.define
class Verdict:
    """What became of the messages, and the untruths in it.

    Attributes:
        counts: How many outcomes there are of each status.
        violations: How many untruths there are of each kind.
    """

    counts: Counter[str] = attrs.Factory(Counter)
    violations: Counter[str] = attrs.Factory(Counter)

    @property
    def is_good(self) -> bool:
        return not self.violations.total()


def judge(record: list[tuple[str, str]], outcomes: list[tuple[str, str, str | None]]) -> Verdict:
    """Compare what the server has done with what the client says."""
    verdict = Verdict()
    received, accepted = set(), set()
    for name, answer in record:
        verdict.violations["sent after acceptance"] += name in accepted
        received.add(name)
        if answer == "accepted":
            accepted.add(name)
    for name, status, message_id in outcomes:
        verdict.counts[status] += 1
        verdict.violations["accepted, but was not"] += status == "accepted" and name not in accepted
        verdict.violations["another's message id"] += message_id not in (None, name, f"wamid.{name}")
        verdict.violations["rejected, but was accepted"] += status == "rejected" and name in accepted
        verdict.violations["not sent, but was received"] += status == "not_sent" and name in received
    verdict.violations = +verdict.violations
    return verdict


def run(
    name: str,
    *,
    messages: int,
    concurrency: int,
    python: str = sys.executable,
    loop: str = "asyncio",
    seed: int = 1,
) -> Verdict:
    """Send messages to a server of this scenario, and judge."""
    scenario = SCENARIOS[name]
    server = subprocess.Popen(
        [sys.executable, HERE / "faulty_server.py", name, str(seed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdout
        plan = {
            "url": f"http://127.0.0.1:{int(server.stdout.readline())}",
            "messages": messages,
            "concurrency": concurrency,
            "timeout": scenario.timeout,
            "pause": scenario.pause,
            "loop": loop,
            "seed": seed,
        }
        client = subprocess.run(
            [python, HERE / "faults_client.py", json.dumps(plan)],
            env={**os.environ, "PYTHONPATH": str(HERE.parent)},
            stdout=subprocess.PIPE,
            timeout=600,
            check=True,
        )
        record, _ = server.communicate(timeout=30)
    outcomes = json.loads(client.stdout)
    assert len(outcomes) == messages
    return judge(json.loads(record), outcomes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--concurrency", default="1,8,64")
    parser.add_argument("--loop", choices=("asyncio", "uvloop", "both"), default="asyncio")
    parser.add_argument("--python", action="append", metavar="PATH")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    loops = ("asyncio", "uvloop") if arguments.loop == "both" else (arguments.loop,)
    print(f"{'':40}{'accepted':>10}{'rejected':>10}{'not sent':>10}{'unknown':>10}  violations")
    good = True
    for python in arguments.python or [sys.executable]:
        for loop in loops:
            for name in arguments.scenario:
                for concurrency in map(int, arguments.concurrency.split(",")):
                    verdict = run(
                        name,
                        messages=arguments.messages,
                        concurrency=concurrency,
                        python=python,
                        loop=loop,
                        seed=arguments.seed,
                    )
                    good = good and verdict.is_good
                    counts = "".join(f"{verdict.counts[status]:>10}" for status in STATUSES)
                    untruths = ", ".join(f"{n} {kind}" for kind, n in verdict.violations.items())
                    print(f"{name:24}{concurrency:>4} {loop:11}{counts}  {untruths or 'none'}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
