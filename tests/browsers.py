"""A real browser for tests: Debian's Chromium, driven by Playwright. They are skipped where either is missing."""

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from aiohttp import web

CHROMIUM = shutil.which("chromium")
try:
    from playwright import sync_api as playwright
except ImportError:
    _MISSING = "playwright is not installed: it is in the group dev"
else:
    _MISSING = "" if CHROMIUM else "there is no Chromium here: apt-get install chromium"
needs_browser = pytest.mark.skipif(bool(_MISSING), reason=_MISSING)


@contextmanager
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # Of root, who runs CI, Chromium has no sandbox of its own. It opens nothing but the pages of the tests.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        playwright.expect.set_options(timeout=20_000)  # milliseconds
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def expect(page: Any, selector: str) -> Any:
    return playwright.expect(page.locator(selector))


def beside(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a thread: Playwright has an event loop in this one."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(coroutine)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


@asynccontextmanager
async def receiver() -> AsyncIterator[str]:
    """Take every callback."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()
