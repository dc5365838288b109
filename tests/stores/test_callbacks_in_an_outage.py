"""The store is killed while callbacks come: they are answered 503, pushed again, and none is lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace

import pytest
from aiohttp import web
from store_fixtures import Server, own_server
from store_servers import PostgresServer, ValkeyServer

from nxotp_async import StoreError
from nxotp_async.receivers import aiohttp_receiver
from nxotp_async.sandbox import SANDBOX_CREDENTIALS, CallbackPlan, Sandbox, pusher
from nxotp_async.stores import store_from_url
from nxotp_async.stores.base import BaseStore
from nxotp_async.tracking import DeliveryTracker

TO = "+999 555 0100"
MESSAGES = 20
CALLBACKS = 2 * MESSAGES


@pytest.fixture(params=[PostgresServer, ValkeyServer], ids=["postgres", "redis"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    with own_server(request.param) as server:
        yield server


@pytest.fixture
async def store(server: Server) -> AsyncIterator[BaseStore]:
    async with store_from_url(server.url) as store:
        yield store


@pytest.fixture
def vendor_may_push_again(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """In place of the pauses between the sandbox's tries: they end when the test says so."""
    event = asyncio.Event()

    async def sleep(_: float) -> None:
        await event.wait()

    monkeypatch.setattr(pusher, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    return event


class Answers:
    """The receiver's server, and the statuses that it answers with."""

    def __init__(self, tracker: DeliveryTracker) -> None:
        self.statuses: list[int] = []
        self.all_in = asyncio.Event()

        @web.middleware
        async def noted(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            answer = await handler(request)
            self.statuses.append(answer.status)
            if len(self.statuses) == CALLBACKS:
                self.all_in.set()
            return answer

        app = web.Application(middlewares=[noted])
        app.add_subapp("/nxcloud", aiohttp_receiver(tracker, SANDBOX_CREDENTIALS))
        self.runner = web.AppRunner(app, access_log=None)

    async def __aenter__(self) -> str:
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}/nxcloud"

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()


async def test_callbacks_are_answered_503_while_the_store_is_away_and_none_is_lost(
    server: Server, store: BaseStore, vendor_may_push_again: asyncio.Event
) -> None:
    tracker = DeliveryTracker(store)
    answers = Answers(tracker)
    async with answers as webhook, asyncio.timeout(60):
        plan = CallbackPlan(webhook=webhook, statuses=("sent", "delivered"))
        async with Sandbox(callbacks=plan) as sandbox, sandbox.client() as client:
            waiting = [asyncio.create_task(tracker.wait(f"order-{index}")) for index in range(MESSAGES)]
            server.kill()
            for index in range(MESSAGES):
                await client.send_otp(TO, "482913", cus_message_id=f"order-{index}")
            await answers.all_in.wait()
            assert answers.statuses == [503] * CALLBACKS
            server.start()
            await works_again(store)
            vendor_may_push_again.set()
            await sandbox.callbacks_settled()
            assert answers.statuses[CALLBACKS:] == [200] * CALLBACKS
            assert sandbox.counts["callbacks taken"] == CALLBACKS
            assert {state.status for state in await asyncio.gather(*waiting)} == {"delivered"}


async def works_again(store: BaseStore) -> None:
    while True:
        try:
            await store.get("any")
        except StoreError:
            continue
        return
