"""``nxotp fleet work``."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click
from aiohttp import web

from ...urls import listening_url
from ..account import account_client, ask_credentials
from ..event_loop import on_stop_signal, run
from ..exit_codes import exit_codes
from ..output import print_note
from ..parameters import ADDRESS, CONCURRENCY, FiniteRange, Seconds, base_url_option, time_limit_options
from ..serving import SHUTDOWN_TIMEOUT, listening_on
from .outboxes import outbox_of, sender_option

if TYPE_CHECKING:
    from ...fleet import Worker

__all__ = ["command"]

QUEUES = ("login", "bulk")


@click.command(
    "work",
    epilog=exit_codes(
        success="stopped, and everything that was in flight has its outcome",
        failure="the database does not answer",
        usage="wrong usage",
        configuration="configuration, account or outbox",
        unknown=None,
        interrupted="interrupted a second time: what was in flight is unknown",
    ),
)
@sender_option
@click.option("--concurrency", type=CONCURRENCY, help="Requests in flight at most. Default: 64.")
@click.option(
    "--rate",
    type=FiniteRange(0.001, 1_000_000),
    default=80.0,
    help="Messages a second of all workers of the sender together; give all of them the same. Meta's default is 80 for "
    "a sending number. It halves when the vendor throttles, and grows back.",
)
@click.option(
    "--queues",
    type=click.Choice(QUEUES),
    multiple=True,
    default=QUEUES,
    help="Which queues. May be repeated. A login never waits behind a bulk load.",
)
@click.option(
    "--reject-on",
    type=int,
    multiple=True,
    metavar="CODE",
    help="Reject only the message at this code of the vendor's, instead of pausing the sender. May be repeated.",
)
@click.option(
    "--stalled-after",
    type=Seconds(0.5),
    default=30.0,
    help="Without a sign of life for so long, a worker has gone: what it had in flight is unknown. Give all workers "
    "the same.",
)
@click.option("--keep-days", type=FiniteRange(0), default=7.0, help="How long a message is kept after its outcome.")
@click.option(
    "--health",
    type=ADDRESS,
    metavar="[HOST:]PORT",
    help="Answer GET /live and GET /ready here, for an orchestrator: 200, or 503.",
)
@base_url_option
@time_limit_options
def command(
    sender: str,
    concurrency: int | None,
    rate: float,
    queues: tuple[str, ...],
    reject_on: tuple[int, ...],
    stalled_after: float,
    keep_days: float,
    health: tuple[str, int] | None,
    base_url: str | None,
    timeout: float | None,
    deadline: float | None,
) -> None:
    """Send what is queued, together with all other workers, until SIGTERM or Ctrl-C.

    Then nothing more is begun, what is in flight is seen through, and the rest is left to the others. A second signal
    ends it at once.
    """
    outbox = outbox_of(sender)
    from ...fleet import Queue, Worker  # noqa: PLC0415 - an extra

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for name in ("procrastinate", "psycopg.pool"):  # what they would say with a traceback, the worker says in a line
        logging.getLogger(name).setLevel(logging.CRITICAL)

    async def work() -> None:
        client = account_client(
            ask_credentials(), max_concurrency=concurrency, base_url=base_url, timeout=timeout, deadline=deadline
        )
        worker = Worker(
            outbox,
            client,
            rate=rate,
            queues=[Queue(queue) for queue in queues],
            reject_on=reject_on,
            stalled_after=stalled_after,
            keep=keep_days * 86_400,
        )
        async with outbox, client, _answering(worker, health):
            asyncio.get_running_loop().set_exception_handler(_ignore_engine)
            _drain_on_signal(worker)
            print_note(f"working for sender {sender}, {rate:g} messages a second at most; Ctrl-C drains")
            await worker.run()

    run(work(), interrupted="interrupted: what was in flight is unknown, as soon as another worker notices")


def _ignore_engine(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Leave out what becomes of the engine's own tasks in an outage of the database: the worker says that in a line."""
    if not type(context.get("exception")).__module__.startswith("procrastinate"):
        loop.default_exception_handler(context)


def _drain_on_signal(worker: "Worker") -> None:
    task = asyncio.current_task()

    def stop() -> None:
        if worker.is_stopping and task is not None:
            task.cancel()
        elif worker.in_flight:
            print_note(f"draining: {worker.in_flight} messages are in flight; once more ends it at once")
        worker.stop()

    on_stop_signal(stop)


@asynccontextmanager
async def _answering(worker: "Worker", address: tuple[str, int] | None) -> AsyncIterator[None]:
    """Answer an orchestrator that asks whether the worker lives, and whether it is ready."""
    if address is None:
        yield
        return

    async def live(_: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def ready(_: web.Request) -> web.Response:
        return web.Response(status=200 if worker.is_ready else 503, text=f"{worker.condition}\n")

    application = web.Application()
    application.add_routes([web.get("/live", live), web.get("/ready", ready)])
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_TIMEOUT)
    await runner.setup()
    try:
        with listening_on(*address):
            await web.TCPSite(runner, *address).start()
        print_note(f"health on {listening_url(*runner.addresses[0][:2])}")
        yield
    finally:
        await runner.cleanup()
