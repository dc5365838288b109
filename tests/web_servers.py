"""Web servers on a free port of loopback, in the event loop of the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import uvicorn
import uvicorn.server
from aiohttp import web


@asynccontextmanager
async def aiohttp_server(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def uvicorn_server(app: Any, lifespan: Literal["on", "off"] = "on") -> AsyncIterator[str]:
    # Always the same parser, whether httptools is installed or not.
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_config=None, access_log=False, http="h11", ws="none", lifespan=lifespan
    )  # fmt: skip
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    assert not server.should_exit, "the application did not start"
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        await server.shutdown()


@pytest.fixture(autouse=True)
def impatient_uvicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let uvicorn look without pauses whether its connections are gone."""
    hasty = SimpleNamespace(**{**vars(asyncio), "sleep": lambda _: asyncio.sleep(0)})
    monkeypatch.setattr(uvicorn.server, "asyncio", hasty)
