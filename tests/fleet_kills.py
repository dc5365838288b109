"""Kill the workers of a fleet and its database again and again, and compare the outbox with what the sandbox has seen.

    python tests/fleet_kills.py --messages 20000 --kills 100 --terms 50 --restarts 10 --pauses 10

Three workers send what an application enqueues meanwhile, some of it in transactions that are rolled back, some of it
with codes that soon expire. Exits with 1 where a message was lost, sent after it was accepted, sent although it was
rolled back, or sent after its code had expired, or where more are unknown than were in flight when workers were killed.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import attrs
import psycopg
from cryptography.fernet import Fernet
from store_servers import PostgresServer

from nxotp_async import OtpMessage, StoreError
from nxotp_async.fleet import MessageState, Outbox
from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import serve_in_thread

WORKERS: Final = 3
CONCURRENCY: Final = 40
STALLED_AFTER: Final = 2.0  # seconds
PAUSE: Final = 5.0  # seconds, which is longer than a worker may be silent
SHORT: Final = 4.0  # seconds that some codes are valid for
ON_THE_WAY: Final = 0.25  # seconds from a worker's look at its clock to the sandbox's


@attrs.define
class Findings:
    """What the kills have done.

    Attributes:
        kills: How often a worker was killed.
        terms: How often one was told to stop.
        restarts: How often the database crashed.
        pauses: How often a worker stood still.
        in_flight: How many messages were in flight when workers were killed.
        states: How many messages are in which state in the end.
        enqueued: How many were committed.
        rolled_back: How many were not.
        lost: Messages without an outcome, and those called accepted that never arrived.
        twice: Messages that the sandbox has accepted more than once.
        ghosts: Messages that arrived although they were rolled back.
        late: Messages that arrived after their codes had expired.
        arrived_unknown: Unknown messages that did arrive.
        stubborn: Workers that did not stop when told to, or failed.
        seconds: How long it took.
    """

    kills: int = 0
    terms: int = 0
    restarts: int = 0
    pauses: int = 0
    in_flight: list[int] = attrs.Factory(list)
    states: Counter[str] = attrs.Factory(Counter)
    enqueued: int = 0
    rolled_back: int = 0
    lost: int = 0
    twice: int = 0
    ghosts: int = 0
    late: int = 0
    arrived_unknown: int = 0
    stubborn: int = 0
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        wrong = self.lost + self.twice + self.ghosts + self.late + self.stubborn
        return not wrong and self.states[MessageState.UNKNOWN] <= sum(self.in_flight)


class Application(threading.Thread):
    """Logs people in: each login commits a row and a message together, or neither."""

    def __init__(self, outbox: Outbox, url: str, messages: int, rate: float, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.expires: dict[str, float] = {}  # of those that were committed
        self.rolled_back: set[str] = set()
        self._outbox = outbox
        self._url = url
        self._messages = messages
        self._rate = rate
        self._chance = chance
        self._connection: psycopg.Connection[Any] | None = None

    def run(self) -> None:
        began = time.monotonic()
        number = 0
        while number < self._messages:
            size = 20 if self._chance.random() < 0.1 else 1
            ids = [f"m{number + place}" for place in range(size)]
            number += size
            self._login(ids, roll_back=self._chance.random() < 0.05)
            time.sleep(max(0.0, began + number / self._rate - time.monotonic()))
        if self._connection is not None:
            self._connection.close()

    def _login(self, ids: list[str], *, roll_back: bool) -> None:
        while True:
            seconds = SHORT if self._chance.random() < 0.1 else 3600.0
            expires_at = datetime.now(UTC) + timedelta(seconds=seconds)
            # A commit without an answer may have been one: what was expires as it was said then.
            with suppress(psycopg.Error, psycopg.Rollback, StoreError):
                if roll_back:
                    self.rolled_back.update(ids)
                else:
                    known = self._known(ids)
                    if known:
                        self.expires.update(known)
                        return
                with self._connected() as connection, connection.transaction():
                    connection.execute("INSERT INTO logins SELECT unnest(%s::text[])", (ids,))
                    for id_ in ids:
                        message = OtpMessage(
                            f"9995{int(id_[1:]):07}", f"Your code is {int(id_[1:]):06}", cus_message_id=id_,
                            expires_at=expires_at,
                        )  # fmt: skip
                        self._outbox.enqueue_sync(message, connection=connection)
                    if roll_back:
                        raise psycopg.Rollback
                if roll_back:
                    return
                self.expires.update(dict.fromkeys(ids, expires_at.timestamp()))
                return
            time.sleep(0.1)

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._url, connect_timeout=2, autocommit=True)
        try:
            yield self._connection
        except psycopg.Error:
            self._connection.close()
            raise

    def _known(self, ids: list[str]) -> dict[str, float]:
        with self._connected() as connection:
            found = connection.execute(
                "SELECT cus_message_id, extract(epoch FROM expires_at)::float8 FROM nxotp_outbox "
                "WHERE cus_message_id = ANY(%s)",
                (ids,),
            )
            return dict(found.fetchall())


class Fleet:
    """Worker processes, of which one or another comes to harm."""

    def __init__(self, environment: dict[str, str], directory: Path, rate: float) -> None:
        self._environment = environment
        self._directory = directory
        self._rate = rate
        self._started = 0
        self._logs: dict[int, Path] = {}
        self.processes = [self._start() for _ in range(WORKERS)]

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "nxotp_async", "fleet", "work", "--rate", str(self._rate)]
        command += ["--concurrency", str(CONCURRENCY), "--stalled-after", str(STALLED_AFTER), "--timeout", "5"]
        self._started += 1
        path = self._directory / f"worker-{self._started}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._logs[process.pid] = path
        return process

    def working(self, number: int) -> "subprocess.Popen[bytes]":
        """Return a process when it has begun: before that, a signal to stop ends it as it does any other program.

        One that has found no database is started again, as a supervisor does.
        """
        while b"working for" not in self._logs[self.processes[number].pid].read_bytes():
            if self.processes[number].poll() is not None:
                self.replace(number)
            time.sleep(0.05)
        return self.processes[number]

    def replace(self, number: int) -> None:
        self.processes[number] = self._start()

    def stop(self) -> int:
        """Drain all, and return how many did not end well."""
        processes = [self.working(number) for number in range(WORKERS)]
        for process in processes:
            process.terminate()
        return sum(ends_badly(process) for process in processes)


def ends_badly(process: "subprocess.Popen[bytes]") -> bool:
    try:
        return process.wait(60) != 0
    except subprocess.TimeoutExpired:
        process.kill()
        return True


def in_flight(url: str, before: datetime) -> int:
    """Return how many messages were in flight at this time and have no outcome a moment later."""
    time.sleep(0.3)
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            row = connection.execute(
                "SELECT count(*) FROM nxotp_outbox WHERE sent_at <= %s "
                "AND (state = 'sending' OR (state = 'unknown' AND finished_at > %s))",
                (before, before),
            ).fetchone()
    except psycopg.Error:  # the database has just been killed, too
        return CONCURRENCY
    return int(row[0]) if row else 0


def do_harm(found: Findings, fleet: Fleet, server: PostgresServer, event: str, chance: random.Random) -> None:
    number = chance.randrange(WORKERS)
    victim = fleet.processes[number]
    if event == "restart":
        server.kill()
        time.sleep(chance.uniform(0.0, 1.0))
        server.start()
        found.restarts += 1
    elif event == "pause":
        victim.send_signal(signal.SIGSTOP)
        time.sleep(PAUSE)
        victim.send_signal(signal.SIGCONT)
        found.pauses += 1
    elif event == "term":
        victim = fleet.working(number)
        victim.terminate()
        found.stubborn += ends_badly(victim)
        found.terms += 1
        fleet.replace(number)
    else:
        now = datetime.now(UTC)
        victim.kill()
        victim.wait()
        fleet.replace(number)
        found.in_flight.append(in_flight(server.url, now))
        found.kills += 1


def kill_again_and_again(
    directory: Path, *, messages: int, kills: int, terms: int, restarts: int, pauses: int, seed: int, rate: float
) -> Findings:
    """Let an application and a fleet run, and do harm to it until all the messages have their outcomes."""
    chance = random.Random(seed)
    found = Findings()
    began = time.monotonic()
    events = ["kill"] * kills + ["term"] * terms + ["restart"] * restarts + ["pause"] * pauses
    chance.shuffle(events)
    key = Fernet.generate_key().decode()
    sandbox = Sandbox(fault_rate=0.05, seed=seed, latency=0.03, keep=10 * messages)
    with PostgresServer() as server, serve_in_thread(sandbox) as vendor:
        environment = {**os.environ, **vendor.environ, "NXOTP_DATABASE_URL": server.url, "NXOTP_OUTBOX_KEYS": key}
        subprocess.run([sys.executable, "-m", "nxotp_async", "fleet", "migrate"], env=environment, check=True)
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE logins (id text PRIMARY KEY)")
        application = Application(Outbox(server.url, keys=[key]), server.url, messages, rate, chance)
        fleet = Fleet(environment, directory, 2 * rate)
        try:
            application.start()
            for event in events:
                time.sleep(chance.uniform(0.0, 0.3))
                do_harm(found, fleet, server, event, chance)
            application.join()
            until_settled(server.url)
            found.stubborn += fleet.stop()
        finally:
            for process in fleet.processes:
                process.kill()
        compare(found, vendor, server.url, application)
    found.seconds = time.monotonic() - began
    return found


def until_settled(url: str) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM nxotp_outbox WHERE state IN ('queued', 'sending')"
            ).fetchone()
        if row == (0,):
            return
        time.sleep(0.5)


def compare(found: Findings, sandbox: Sandbox, url: str, application: Application) -> None:
    """Compare what the outbox says with what the application has committed, and with what the sandbox has seen."""
    rows: list[tuple[Any, ...]]
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT cus_message_id, state FROM nxotp_outbox").fetchall()
        logins = {row[0] for row in connection.execute("SELECT id FROM logins").fetchall()}
    states = dict(rows)
    arrived = Counter(str(request.cus_message_id) for request in sandbox.messages)
    known = {id_ for id_, state in states.items() if state not in ("queued", "sending")}
    accepted = {id_ for id_, state in states.items() if state == MessageState.ACCEPTED}
    unknown = {id_ for id_, state in states.items() if state == MessageState.UNKNOWN}
    found.states = Counter(states.values())
    found.enqueued, found.rolled_back = len(application.expires), len(application.rolled_back)
    found.lost = len({*application.expires, *logins} - known) + len(accepted - {*arrived})
    found.twice = sum(times > 1 for times in arrived.values())
    found.ghosts = len(({*arrived} | {*states}) & application.rolled_back) + len({*arrived} - logins)
    found.late = sum(
        request.arrived_at > application.expires[str(request.cus_message_id)] + ON_THE_WAY
        for request in sandbox.requests
        if request.cus_message_id in application.expires
    )
    found.arrived_unknown = len(unknown & {*arrived})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("messages", 20_000), ("kills", 100), ("terms", 50), ("restarts", 10), ("pauses", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=80.0, help="messages a second that the application enqueues")
    parser.add_argument("--directory", type=Path, default=Path("/tmp"), help="where the workers' logs go")
    found = kill_again_and_again(**vars(parser.parse_args()))
    print(attrs.evolve(found, in_flight=[]))
    print(f"in flight at the kills: {sum(found.in_flight)}, at most {max(found.in_flight, default=0)} at one")
    print("good" if found.is_good else "NOT GOOD")
    return 0 if found.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
