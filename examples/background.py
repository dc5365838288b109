"""Send codes in the background of a web application: a queue and one task, no broker.

In another terminal: ``nxotp sandbox``. Set the variables that it prints, then

    pip install .
    python examples/background.py

    POST /codes       number=+999 555 0100    -> 202 {"id": "..."}, 422, or 503 if the queue is full
    GET  /codes/{id}                          -> 200 {"status": "queued"}, then accepted, rejected, not_sent or unknown

On SIGTERM or Ctrl-C no more requests are accepted, and the queue is sent, for `DRAIN` seconds at most. After that, what
is still queued is not sent, and what is in flight may arrive; the log counts both. The queue is lost when the process
ends, because a code is useless after some minutes; if it must not be lost, see docs/background.md.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

from aiohttp import web

from nxotp_async import InvalidMessageError, OtpClient, OtpMessage

CODE_LIFE = 300.0  # seconds
DRAIN = 20.0  # seconds; less than the 30 that Kubernetes, for example, gives a process between SIGTERM and SIGKILL
MAX_QUEUED = 1000

QUEUE = web.AppKey("queue", asyncio.Queue[OtpMessage])
STATUSES = web.AppKey("statuses", dict[str, str])

log = logging.getLogger(__name__)
routes = web.RouteTableDef()


@routes.post("/codes")
async def queue_code(request: web.Request) -> web.Response:
    """Queue a code. A wrong number is reported at once; for everything else, see `get_status`."""
    code = f"{secrets.randbelow(1_000_000):06}"
    message_id = secrets.token_hex(16)
    try:
        message = OtpMessage(
            await field(request, "number"),
            f"Your code is {code}",
            cus_message_id=message_id,
            expires_at=datetime.now(UTC) + timedelta(seconds=CODE_LIFE),  # not sent after that
        )
    except InvalidMessageError as error:
        raise web.HTTPUnprocessableEntity(text=str(error)) from None
    try:
        request.app[QUEUE].put_nowait(message)
    except asyncio.QueueFull:
        raise web.HTTPServiceUnavailable(text="too many codes are waiting", headers={"Retry-After": "5"}) from None
    request.app[STATUSES][message_id] = "queued"
    return web.json_response({"id": message_id}, status=202)


@routes.get("/codes/{id}")
async def get_status(request: web.Request) -> web.Response:
    """Return the status of a code."""
    status = request.app[STATUSES].get(request.match_info["id"])
    if status is None:
        raise web.HTTPNotFound(text="no such code, or an old one")
    return web.json_response({"status": status})


async def send_queued(client: OtpClient, queue: asyncio.Queue[OtpMessage], statuses: dict[str, str]) -> None:
    """Send the messages of the queue, until cancelled. A message that fails does not stop the others."""

    async def queued() -> AsyncIterator[OtpMessage]:
        while True:
            yield await queue.get()

    loop = asyncio.get_running_loop()
    async for result in client.send_many(queued()):
        message_id = str(result.message.cus_message_id)
        statuses[message_id] = result.status
        loop.call_later(CODE_LIFE, statuses.pop, message_id)
        if result.error is not None:
            log.warning("code %s: %s: %s", message_id, result.status, result.error)
        queue.task_done()


@asynccontextmanager
async def sending(app: web.Application) -> AsyncIterator[None]:
    """Send while the application runs. After the last request has been answered, send the rest of the queue."""
    queue, statuses = app[QUEUE], app[STATUSES]
    # The task group ends the server if the task fails. Otherwise it would queue codes that are never sent.
    async with OtpClient(deadline=DRAIN - 5) as client, asyncio.TaskGroup() as tasks:
        sender = tasks.create_task(send_queued(client, queue, statuses))
        yield
        if not sender.done():
            with suppress(TimeoutError):
                await asyncio.wait_for(queue.join(), DRAIN)
            sender.cancel()
    never_sent = queue.qsize()
    in_flight = sum(status == "queued" for status in statuses.values()) - never_sent
    log.info("stopped: %d codes were not sent, %d may arrive", never_sent, in_flight)


async def field(request: web.Request, name: str) -> str:
    """Return a field of the request's form, or an empty str."""
    try:
        return str((await request.post()).get(name, ""))
    except ValueError:
        raise web.HTTPBadRequest(text="the form cannot be read") from None


def make_app() -> web.Application:
    """Return the application."""
    app = web.Application()
    app[QUEUE] = asyncio.Queue(MAX_QUEUED)
    app[STATUSES] = {}
    app.cleanup_ctx.append(sending)
    app.add_routes(routes)
    return app


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
