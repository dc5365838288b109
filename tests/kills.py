"""Kill a bulk run again and again, and compare what the ledger says of every message with what the sandbox has seen.

    python tests/kills.py --messages 10000 --kills 100

The run is a process of its own, killed with SIGKILL in the middle of a random request, or at a random moment of its
start. Meanwhile an operator looks at it, exports it, pauses and resumes it, and changes its rate and its concurrency,
at random. Exits with 1 where a message was lost, or one that was accepted was sent again.
"""

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import attrs

from nxotp_async import Clock, LedgerError
from nxotp_async.bulk import Ledger, MessageState
from nxotp_async.bulk.looking import look
from nxotp_async.cli.bulk.remote import ask_run, run_export, steer
from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import serve_in_thread

CONCURRENCY = 50


@attrs.define
class Findings:
    """What the kills have done.

    Attributes:
        kills: How often the run was killed.
        in_flight: How many messages were in flight at each kill.
        counts: How many messages the ledger has in which state in the end.
        lost: Messages without an outcome, and those called accepted that never arrived.
        twice: Messages that the sandbox has accepted more than once.
        arrived_unknown: Unknown messages that did arrive.
        operated: What the operator has done, and how often.
    """

    kills: int = 0
    in_flight: list[int] = attrs.Factory(list)
    counts: Counter[MessageState] = attrs.Factory(Counter)
    lost: int = 0
    twice: int = 0
    arrived_unknown: int = 0
    operated: Counter[str] = attrs.Factory(Counter)

    @property
    def is_good(self) -> bool:
        unknown = self.counts[MessageState.UNKNOWN]
        bounded = all(number <= CONCURRENCY for number in self.in_flight) and unknown <= sum(self.in_flight)
        return not self.lost and not self.twice and bounded


class _Killer:
    """The sandbox's clock, which it reads at every request: it kills the run in the middle of the one that is due."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.requests_left = 0

    def __call__(self) -> float:
        self.requests_left -= 1
        if self.requests_left == 0 and self.process is not None:
            self.process.kill()
        return time.time()


class _Operator:
    """Somebody in another terminal, who does something at random moments until the block ends."""

    def __init__(self, path: Path, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._path = path
        self._chance = random.Random(seed)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> "_Operator":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._is_over.wait(self._chance.uniform(0.0, 0.05)):
            name = self._chance.choice(("status", "progress", "export", "pause", "set", "look"))
            try:
                if self._does(name):
                    self.done[name] += 1
            except LedgerError:  # no run is at work, one has just been killed, or it is starting
                self.done["none at work"] += 1

    def _does(self, name: str) -> bool:
        """Do something, and return whether a run has answered."""
        match name:
            case "pause":
                steer(self._path, "/pause")
                self._is_over.wait(self._chance.uniform(0.0, 0.02))
                steer(self._path, "/resume")
            case "set":
                rate = self._chance.choice((None, self._chance.uniform(200, 2000)))
                steer(self._path, "/set", {"rate": rate, "concurrency": self._chance.randint(1, CONCURRENCY)})
            case "export":
                with run_export(self._path, "format=csv") as texts:
                    return all(texts)
            case "look":  # from outside, as a status does where no run answers: never in its way
                with look(self._path) as ledger:
                    return bool(ledger.counts())
            case _:
                return ask_run(self._path, f"/{name}") is not None
        return True


def write_messages(path: Path, count: int) -> None:
    """Write messages, every other one with an id of its own."""
    with path.open("w") as file:
        file.write("to,content,cus_message_id\n")
        for number in range(count):
            own_id = f"own-{number}" if number % 2 else ""
            file.write(f"9995{number:07},Your code is {number % 1_000_000:06},{own_id}\n")


def kill_again_and_again(directory: Path, *, messages: int, kills: int, seed: int, at_start: float) -> Findings:
    """Run, and kill, until the number of kills is reached; then let it finish.

    Args:
        directory: Where the files go.
        messages: How many there are.
        kills: How often to kill.
        seed: Makes the moments repeatable, as far as processes are.
        at_start: The share of the kills at a random moment of the start, before the first request is due.
    """
    chance = random.Random(seed)
    found = Findings()
    source, path = directory / "otps.csv", directory / "run.ledger"
    write_messages(source, messages)
    killer = _Killer()
    vendor = Sandbox(clock=Clock(time=killer), fault_rate=0.05, seed=seed, keep=4 * messages)
    with serve_in_thread(vendor) as sandbox, _Operator(path, seed) as operator:
        while found.kills < kills:
            killer.requests_left = chance.randint(1, max(1, 2 * messages // kills - 1))
            early = chance.random() < at_start
            killer.process = start(sandbox, source, path, chance)
            if early:
                time.sleep(chance.uniform(0.0, 1.0))
                killer.process.kill()
            code = killer.process.wait()
            if code != -signal.SIGKILL:
                break  # it was done before the moment came
            found.kills += 1
            if path.exists():
                found.in_flight.append(count_in_flight(path) - sum(found.in_flight))
        killer.process = None
        last = start(sandbox, source, path, chance, resume=False)
        assert last.wait() in (0, 6)
    found.operated = operator.done
    compare(found, sandbox, path, messages)
    return found


def start(
    sandbox: Sandbox, source: Path, path: Path, chance: random.Random, *, resume: bool | None = None
) -> "subprocess.Popen[bytes]":
    """Start the run, by the command that began it or by the one that resumes it."""
    may_resume = path.exists() and chance.random() < 0.5 if resume is None else resume
    arguments = ["resume", str(path)] if may_resume else ["run", str(source), "--ledger", str(path)]
    keys = sandbox.credentials
    return subprocess.Popen(
        [sys.executable, "-m", "nxotp_async", "bulk", *arguments, "--concurrency", str(CONCURRENCY)],
        env={
            **os.environ,
            "NXOTP_BASE_URL": sandbox.url,
            "NXOTP_ACCESS_KEY": keys.access_key,
            "NXOTP_ACCESS_SECRET": keys.access_secret,
            "NXOTP_APPKEY": keys.appkey,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def count_in_flight(path: Path) -> int:
    """Return how many messages the ledger had in flight when the run was killed, this time and before.

    Those that were so before are unknown, and the others may be by now, because somebody has looked at it.
    """
    with closing(sqlite3.connect(path)) as database:
        try:
            (count,) = database.execute(
                "SELECT count(*) FROM messages WHERE state IN ('sending', 'unknown')"
            ).fetchone()
        except sqlite3.OperationalError:  # killed before the tables were made
            return 0
    return int(count)


def compare(found: Findings, sandbox: Sandbox, path: Path, messages: int) -> None:
    """Compare what the ledger says with what the sandbox has seen."""
    arrived = Counter(request.cus_message_id for request in sandbox.messages)
    with Ledger(path, create=False) as ledger:
        results = list(ledger.results())
        found.counts = ledger.counts()
    unknown = {row["cus_message_id"] for row in results if row["status"] == MessageState.UNKNOWN}
    accepted = {row["cus_message_id"] for row in results if row["status"] == MessageState.ACCEPTED}
    found.lost = messages - len(accepted | unknown) + len(accepted - set(arrived))
    found.twice = sum(times > 1 for times in arrived.values())
    found.arrived_unknown = len(unknown & set(arrived))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        found = kill_again_and_again(
            Path(directory), messages=arguments.messages, kills=arguments.kills, seed=arguments.seed, at_start=0.1
        )
    counts = found.counts
    print(f"{arguments.messages} messages, {found.kills} kills, {time.monotonic() - began:.0f} s")
    print(f"in flight at the kills: {sum(found.in_flight)}, at most {max(found.in_flight, default=0)} at one")
    print(
        f"accepted {counts[MessageState.ACCEPTED]}, unknown {counts[MessageState.UNKNOWN]}, "
        f"{found.arrived_unknown} of which arrived"
    )
    print("meanwhile: " + ", ".join(f"{what} {times}" for what, times in sorted(found.operated.items())))
    print(f"lost {found.lost}, sent twice {found.twice}")
    return 0 if found.is_good and found.kills == arguments.kills else 1


if __name__ == "__main__":
    sys.exit(main())
