"""Send to servers that misbehave on their connections, and judge what the client says became of every message.

    python tests/faults.py --messages 2000 --concurrency 1,8,64 --loop both --python .venv/bin/python

Server and client are processes of their own. The judge compares the server's record with the client's outcomes. Exits
with 1 where the client has said what is not so, has sent again what was accepted, or has left too much unknown.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import attrs
import trustme
from faulty_server import MAX_SECONDS, SCENARIOS

HERE: Final = Path(__file__).parent
STATUSES: Final = ("accepted", "rejected", "not_sent", "unknown")
Process = subprocess.Popen[str]


@attrs.frozen
class Verdict:
    """What became of the messages.

    Attributes:
        counts: How many outcomes there are of each status.
        violations: How many of them are not so, by kind.
        target: The share of unknown outcomes that is put up with, or ``None`` where any is.
    """

    counts: Counter[str]
    violations: Counter[str]
    target: float | None = None

    @property
    def unknown(self) -> float:
        """The share of unknown outcomes."""
        return self.counts["unknown"] / self.counts.total()

    @property
    def is_good(self) -> bool:
        return not self.violations and (self.target is None or self.unknown <= self.target)

    def __str__(self) -> str:
        notes = [f"{number} {kind}" for kind, number in self.violations.items()] or ["none"]
        if self.target is not None:
            word = "at most" if self.unknown <= self.target else "MORE THAN"
            notes.append(f"{self.unknown:.1%} unknown, {word} {self.target:.0%}")
        return "".join(f"{self.counts[status]:>10}" for status in STATUSES) + "  " + ", ".join(notes)


def judge(
    record: list[tuple[str, str]], outcomes: list[tuple[str, str, str | None]], target: float | None = None
) -> Verdict:
    """Compare what the server has done with what the client says.

    Args:
        record: The requests that the server has read whole, in order: cus_message_id and answer.
        outcomes: Of each message its cus_message_id, status and message id.
        target: The share of unknown outcomes that is put up with.
    """
    violations: Counter[str] = Counter()
    read, accepted = set(), set()
    for name, answer in record:
        violations["sent after acceptance"] += name in accepted
        read.add(name)
        if answer == "accepted":
            accepted.add(name)
    for name, status, message_id in outcomes:
        violations["accepted, but was not"] += status == "accepted" and name not in accepted
        violations["another's message id"] += message_id not in (None, name, f"wamid.{name}")
        violations["rejected, but was accepted"] += status == "rejected" and name in accepted
        violations["rejected, but never read"] += status == "rejected" and name not in read
        violations["not sent, but was read"] += status == "not_sent" and name in read
    return Verdict(Counter(status for _, status, _ in outcomes), +violations, target)


def run(
    name: str,
    *,
    messages: int,
    concurrency: int,
    python: str = sys.executable,
    loop: str = "asyncio",
    seed: int = 1,
) -> Verdict:
    """Let a client send to a server of this scenario, and judge.

    Args:
        name: The scenario.
        messages: How many to send; some scenarios have fewer.
        concurrency: How many may be in flight.
        python: The interpreter that the client runs in.
        loop: ``asyncio`` or ``uvloop``.
        seed: Makes what is left to chance repeatable, as far as processes are.
    """
    scenario = SCENARIOS[name]
    if scenario.bursts is not None:
        messages = min(messages, scenario.bursts * concurrency)
    with ExitStack() as stack:
        command: list[str | Path] = [sys.executable, HERE / "faulty_server.py", name, str(seed)]
        environment = {"PYTHONPATH": str(HERE.parent)}
        if scenario.tls:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            certify(directory)
            command.append(directory / "certificate.pem")
            environment["SSL_CERT_FILE"] = str(directory / "authority.pem")
        server = stack.enter_context(running(*command))
        plan = {
            "url": f"{'https' if scenario.tls else 'http'}://127.0.0.1:{read_line(server)}",
            "messages": messages,
            "concurrency": concurrency,
            "timeout": scenario.timeout,
            "pause": scenario.pause,
            "senders": scenario.senders,
            "loop": loop,
            "seed": seed,
        }
        client = stack.enter_context(running(python, HERE / "faults_client.py", json.dumps(plan), **environment))
        if scenario.target is not None:
            part(server, client)
        if scenario.holds:
            freeze(client, server, scenario.timeout + 0.2)
        outcomes = json.loads(client.communicate(timeout=MAX_SECONDS)[0])
        record = json.loads(server.communicate(timeout=MAX_SECONDS)[0])
    assert len(outcomes) == messages
    return judge(record, outcomes, scenario.target)


@contextmanager
def running(*command: str | Path, **environment: str) -> Iterator[Process]:
    """Run a program, and kill it in the end, if it is still there."""
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: Process) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def part(server: Process, client: Process) -> None:
    """Give each a processor of its own, where there are two.

    On a shared one the client's answer often interrupts the server before it can close the connection, and nobody
    could know of that. A real server is another machine.
    """
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(server.pid, processors[:1])
    os.sched_setaffinity(client.pid, processors[-1:])


def certify(directory: Path) -> None:
    """Write a certificate for loopback, and the authority that vouches for it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "authority.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / "certificate.pem"))


def freeze(client: Process, server: Process, seconds: float) -> None:
    """Stop the client while all its requests are in flight, have them answered, and let it go on later."""
    assert read_line(server) == "held"
    client.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, client.pid, os.WSTOPPED)
    assert server.stdin
    server.stdin.write("\n")
    server.stdin.flush()
    assert read_line(server) == "answered"
    time.sleep(seconds)
    client.send_signal(signal.SIGCONT)


@cache
def version(python: str) -> str:
    code = "import sys; print('{}.{}'.format(*sys.version_info))"
    return subprocess.check_output([python, "-c", code], text=True).strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--concurrency", default="1,8,64")
    parser.add_argument("--loop", choices=("asyncio", "uvloop", "both"), default="asyncio")
    parser.add_argument("--python", action="append", metavar="PATH", help="the client's interpreter; repeatable")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    loops = ("asyncio", "uvloop") if arguments.loop == "both" else (arguments.loop,)
    runs = [
        (python, loop, name, concurrency)
        for python in arguments.python or [sys.executable]
        for loop in loops
        for name in arguments.scenario
        for concurrency in SCENARIOS[name].concurrency or map(int, arguments.concurrency.split(","))
    ]
    print(" " * 43 + "".join(f"{status.replace('_', ' '):>10}" for status in STATUSES) + "  violations")
    bad = 0
    for number, (python, loop, name, concurrency) in enumerate(runs, 1):
        title = f"{name:25}{concurrency:>3}  {loop:8}{version(python):5}"
        if sys.stderr.isatty():
            print(f"{title}  {number} of {len(runs)}", end="\r", file=sys.stderr, flush=True)
        verdict = run(
            name, messages=arguments.messages, concurrency=concurrency, python=python, loop=loop, seed=arguments.seed
        )
        bad += not verdict.is_good
        print(f"{title}{verdict}", flush=True)
    print(f"{bad} of {len(runs)} runs are not as they should be")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
