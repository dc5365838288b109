"""Several web workers that share a store: how fast they hear of each other's callbacks, and what a crash costs.

Two uvicorn workers behind one port serve an application that sends a code and waits until it is delivered. A sandbox
pushes the callbacks, each over a connection of its own, so that they land in any worker. For each store:

  wake-up    the logins; how long after a callback was answered the login that waited for it goes on, in either worker
  idle       waits for which nothing comes: how many commands or statements the server executes meanwhile
  crashes    the server is killed (SIGKILL) and started again under load; a callback that was answered 200 is lost if
             the store does not know its status in the end

    python benchmarks/shared_store.py                              all of it: about six minutes
    python benchmarks/shared_store.py --store postgres --idle 5    one store, less thoroughly

The stores are postgres, and Valkey with its settings for what survives: valkey-always (appendfsync always),
valkey-everysec, and valkey-none (no file at all), which shows that a loss is noticed. A killed process loses nothing
that it has handed to the kernel; so valkey-everysec loses only if the machine crashes, or if the disk was so slow that
the server has postponed its writing.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import aiohttp
import attrs
import psycopg
import redis

from nxotp_async.callbacks import reaches
from nxotp_async.sandbox import CallbackPlan, Sandbox
from nxotp_async.stores import store_from_url
from nxotp_async.tracking import DeliveryTracker

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from store_servers import PostgresServer, ValkeyServer, free_port

Server = PostgresServer | ValkeyServer
SERVERS: Final[dict[str, Callable[[], Server]]] = {
    "postgres": PostgresServer,
    "valkey-always": lambda: ValkeyServer("--appendonly", "yes", "--appendfsync", "always"),
    "valkey-everysec": lambda: ValkeyServer("--appendonly", "yes", "--appendfsync", "everysec"),
    "valkey-none": lambda: ValkeyServer("--appendonly", "no"),
}
AT_ONCE: Final = 20  # logins
LOGIN_TIMEOUT: Final = 30.0  # seconds


@attrs.frozen
class Note:
    """What a worker has noted: when, in which process, and what."""

    at: float
    process: str
    what: str
    message_id: str
    status: str


@attrs.frozen
class Fleet:
    """The workers, and what they work with."""

    url: str
    notes_in: Path
    server: Server
    sandbox: Sandbox
    session: aiohttp.ClientSession

    def notes(self, what: str) -> list[Note]:
        found = []
        for file in self.notes_in.iterdir():
            for line in file.read_text().splitlines():
                at, *words = line.split(" ")
                found.append(Note(float(at), file.name, *words))
        return [note for note in found if note.what == what]

    async def ask(self, path: str, message_id: str, timeout: float) -> bool:
        """Return whether the message was delivered in time."""
        query = {"id": message_id, "timeout": str(timeout)}
        async with self.session.post(f"{self.url}{path}", params=query) as answer:
            return answer.status == 200


@contextmanager
def uvicorn(port: int, environment: dict[str, str], workers: int) -> Iterator[None]:
    command = [sys.executable, "-m", "uvicorn", "--factory", "shared_store_app:make_app", "--port", str(port)]
    command += ["--app-dir", str(Path(__file__).parent), "--workers", str(workers), "--log-level", "critical"]
    process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


@asynccontextmanager
async def running(server: Server, workers: int) -> AsyncIterator[Fleet]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    plan = CallbackPlan(webhook=f"{url}/nxcloud/", statuses=("sent", "delivered"), reuse_connections=False)
    limit = aiohttp.TCPConnector(limit=0, force_close=True)
    with tempfile.TemporaryDirectory() as notes:
        async with Sandbox(callbacks=plan) as sandbox, aiohttp.ClientSession(connector=limit) as session:
            environment = {**sandbox.environ, "NXOTP_STORE": server.url, "SHARED_STORE_NOTES": notes}
            with uvicorn(port, environment, workers):
                async with asyncio.timeout(60):
                    while len(os.listdir(notes)) < workers or not await is_there(session, url):  # noqa: ASYNC110, PTH208
                        await asyncio.sleep(0.1)  # another process tells nobody that it is ready
                yield Fleet(url, Path(notes), server, sandbox, session)


async def is_there(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/nxcloud") as answer:
            return answer.status == 405
    except aiohttp.ClientConnectionError:
        return False


# ---------------------------------------------------------------------------------------------- the measurements


async def wake_ups(fleet: Fleet, logins: int) -> str:
    """Log in so often, and say how long after the callback each login went on."""
    permits = asyncio.Semaphore(AT_ONCE)

    async def log_in() -> bool:
        async with permits:
            return await fleet.ask("/login", uuid.uuid4().hex, LOGIN_TIMEOUT)

    resolved = sum(await asyncio.gather(*(log_in() for _ in range(logins))))
    answered = {note.message_id: note for note in fleet.notes("answered") if note.status == "delivered"}
    woke = {note.message_id: note for note in fleet.notes("woke")}
    pairs = [(answered[message_id], note) for message_id, note in woke.items() if message_id in answered]
    elsewhere = sum(callback.process != login.process for callback, login in pairs)
    # A login may go on before the worker that took the callback in has noted it.
    late = sorted(max(0.0, login.at - callback.at) * 1000 for callback, login in pairs)
    return (
        f"{resolved} of {logins} logins resolved, {elsewhere} by another worker's callback; "
        f"wake-up p50 {median(late):.1f} ms, p99 {late[int(len(late) * 0.99)]:.1f} ms, worst {late[-1]:.1f} ms"
    )


async def idle(fleet: Fleet, waits: int, seconds: float) -> str:
    """Wait for what never comes, and say what the server executes meanwhile."""
    settling = 10.0
    timeout = settling + seconds + 5
    waiting = [asyncio.create_task(fleet.ask("/wait", f"never-{index}", timeout)) for index in range(waits)]
    await asyncio.sleep(settling)  # until each has looked once
    with counting(fleet.server) as count:
        await asyncio.sleep(seconds)
        executed = count()
    still_waiting = sum(not task.done() for task in waiting)
    await asyncio.gather(*waiting)
    return f"{still_waiting} waits for {seconds:g} s: {executed / seconds:.2f} commands a second in the store"


@contextmanager
def counting(server: Server) -> Iterator[Callable[[], int]]:
    """Give what returns how many commands the server has executed since then, without those for counting."""
    if isinstance(server, PostgresServer):

        def switch(setting: str) -> None:
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute(f"ALTER SYSTEM SET log_statement = {setting}".encode())
                connection.execute("SELECT pg_reload_conf()")

        def logged() -> int:
            return sum("execute <unnamed>" in line or "statement:" in line for line in log.read_text().splitlines())

        log = server.directory / "log"
        switch("'all'")
        before = logged()
        yield lambda: logged() - before
        switch("'none'")
    else:
        with redis.Redis.from_url(server.url) as client:
            begin = int(client.info("stats")["total_commands_processed"])
            yield lambda: int(client.info("stats")["total_commands_processed"]) - begin - 1


async def crashes(fleet: Fleet, kills: int) -> str:
    """Kill the server and start it again under load, and say what was lost of what was answered 200."""
    is_over = asyncio.Event()
    took: list[float] = []
    resolved: list[bool] = []

    async def log_in_again_and_again() -> None:
        while not is_over.is_set():
            began = time.monotonic()
            resolved.append(await fleet.ask("/login", uuid.uuid4().hex, LOGIN_TIMEOUT))
            took.append(time.monotonic() - began)

    pushed = fleet.sandbox.counts["callbacks pushed"]
    load = [asyncio.create_task(log_in_again_and_again()) for _ in range(AT_ONCE)]
    for _ in range(kills):
        await asyncio.sleep(0.5 + random.random())
        await asyncio.to_thread(fleet.server.kill)
        await asyncio.sleep(random.random() / 2)
        await asyncio.to_thread(fleet.server.start)
    await asyncio.sleep(1)
    is_over.set()
    await asyncio.gather(*load)
    async with asyncio.timeout(120):
        await fleet.sandbox.callbacks_settled()
    counts = fleet.sandbox.counts
    answered = fleet.notes("answered")
    repeated = counts["callbacks pushed"] - pushed - 2 * len(took)
    return (
        f"{kills} kills, {sum(resolved)} of {len(took)} logins resolved, the slowest in {max(took):.1f} s; "
        f"{len(answered)} callbacks answered 200, {repeated} pushed again, {counts['callbacks refused']} given up; "
        f"lost: {await lost(fleet.server.url, answered)}"
    )


async def lost(url: str, answered: list[Note]) -> int:
    """Return how many callbacks the store does not know any more."""
    async with store_from_url(url) as store:
        tracker = DeliveryTracker(store)
        states = {note.message_id: await tracker.state(note.message_id) for note in answered}
    known = {message_id: "queued" if state is None else state.status for message_id, state in states.items()}
    return sum(not reaches(known[note.message_id], note.status) for note in answered)


async def measure(name: str, options: argparse.Namespace) -> None:
    with SERVERS[name]() as server:
        async with running(server, options.workers) as fleet:
            print(f"{name}, {options.workers} workers")
            print(f"  wake-up  {await wake_ups(fleet, options.logins)}", flush=True)
            print(f"  idle     {await idle(fleet, options.waits, options.idle)}", flush=True)
            print(f"  crashes  {await crashes(fleet, options.kills)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="append", choices=SERVERS, help="default: all of them, one after the other")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--logins", type=int, default=200)
    parser.add_argument("--waits", type=int, default=1000)
    parser.add_argument("--idle", type=float, default=35.0, help="seconds")
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args()
    for name in options.store or SERVERS:
        asyncio.run(measure(name, options))


if __name__ == "__main__":
    main()
