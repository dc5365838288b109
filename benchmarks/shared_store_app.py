"""The web application of shared_store.py: uvicorn serves it in several processes."""

import json
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from nxotp_async import Credentials, OtpClient, OtpMessage
from nxotp_async.callbacks import StatusEvent
from nxotp_async.receivers import AsgiReceiver, CallbackMiddleware
from nxotp_async.stores import store_from_url
from nxotp_async.tracking import DeliveryTracker

TO = "+999 555 0100"
Scope = MutableMapping[str, Any]


class Notes:
    """What this process notes for the benchmark: a line for each callback that it takes in, and for each wake-up."""

    def __init__(self) -> None:
        directory = os.environ["SHARED_STORE_NOTES"]
        self._file = Path(directory, str(os.getpid())).open("a", buffering=1)  # noqa: SIM115 - as long as the process

    def add(self, *words: str) -> None:
        self._file.write(f"{time.monotonic()} {' '.join(words)}\n")


class Application:
    """``POST /login?id&timeout`` sends a code and waits until it is delivered; ``POST /wait?id&timeout`` only waits."""

    def __init__(self) -> None:
        self._notes = Notes()
        self._tracker = DeliveryTracker(store_from_url())
        self._client = OtpClient(tracker=self._tracker)

    async def record(self, event: StatusEvent) -> None:
        """Take in a callback. It is answered 200 as soon as this returns."""
        await self._tracker.record(event)
        self._notes.add("answered", event.message_id, event.status)

    async def __call__(self, scope: Scope, _: object, send: Callable[[Scope], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            return
        query = dict(pair.split("=") for pair in scope["query_string"].decode().split("&"))
        if scope["path"] == "/login":
            await self._client.send(OtpMessage(TO, "482913", cus_message_id=query["id"]))
        status = 200
        try:
            await self._tracker.wait(query["id"], timeout=float(query["timeout"]))
            self._notes.add("woke", query["id"], "delivered")
        except TimeoutError:
            status = 504
        body = json.dumps({"status": status}).encode()
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body})


def make_app() -> CallbackMiddleware:
    application = Application()
    return CallbackMiddleware(application, path="/nxcloud", receiver=AsgiReceiver(application, Credentials.from_env()))
