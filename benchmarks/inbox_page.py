"""How long a message takes from its arrival at the sandbox to its code on the sandbox's page.

The sandbox is a process of its own, and the page is in Chromium, without a window. The page first has 10,000 messages,
as many as it keeps; then more arrive at a steady rate. The time is from the sandbox's own time of arrival to the frame
after the one in which the code was put on the page: then it has been painted.

    python benchmarks/inbox_page.py [--rate 200] [--seconds 20] [--before 10000] [--callbacks]
"""

import argparse
import asyncio
import os
import shutil
from bisect import bisect_left
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
from aiohttp import web
from playwright.async_api import Page, async_playwright

from nxotp_async import OtpMessage
from nxotp_async.sandbox import sandbox_client
from nxotp_async.sandbox.process import sandbox_process

# Notes when a row has been painted that is newer than all before it: with it, or below it, all that came before are on
# the page. The page's clock is that of the sandbox, because they share the machine.
WATCH = """(last) => {
  window.painted = [];
  let newest = 0;
  const look = () => {
    const numbers = [...document.querySelectorAll("#messages-list .row")].map((row) => Number(row.dataset.number));
    const first = Math.max(0, ...numbers);
    if (first <= newest) return;
    newest = first;
    requestAnimationFrame(() => painted.push([first, (performance.timeOrigin + performance.now()) / 1000]));
  };
  window.all = new Promise((done) => {
    const wait = () => (painted.at(-1)?.[0] >= last ? done(painted) : setTimeout(wait, 50));
    wait();
  });
  new MutationObserver(look).observe(document.querySelector("#messages-list .space"), { childList: true });
}"""


async def receive(stack: AsyncExitStack) -> str:
    """Serve a receiver that takes every callback, and return its URL."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}/"


async def send(url: str, count: int, rate: float | None) -> None:
    """Send so many messages, to a hundred numbers."""
    async with sandbox_client(url, rate_limit=rate) as client:
        messages = (
            OtpMessage(f"99955501{index % 100:02}", f"Your code is {index % 10**6:06}") for index in range(count)
        )
        async for result in client.send_many(messages):
            assert result.message_id is not None, result.error


async def measure(page: Page, url: str, count: int, rate: float, before: int) -> list[float]:
    """Return the milliseconds of each message."""
    await page.evaluate(WATCH, before + count)
    await send(url, count, rate)
    painted: list[tuple[int, float]] = await page.evaluate("window.all")
    query = {"limit": str(count), "after": str(before)}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/sandbox/messages", params=query) as answer,
    ):
        messages: list[dict[str, Any]] = (await answer.json())["messages"]
    numbers = [number for number, _ in painted]
    return sorted(
        (painted[bisect_left(numbers, message["number"])][1] - message["arrived_at"]) * 1000 for message in messages
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200, help="messages a second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--before", type=int, default=10_000, help="messages that have come before")
    parser.add_argument("--callbacks", action="store_true", help="three callbacks for each message, too")
    options = parser.parse_args()
    count = int(options.rate * options.seconds)
    async with AsyncExitStack() as stack:
        webhook = ["--webhook", await receive(stack)] if options.callbacks else []
        url = await stack.enter_async_context(sandbox_process(*webhook))
        await send(url, options.before, None)
        driver = await stack.enter_async_context(async_playwright())
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await driver.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        opened = asyncio.get_running_loop().time()
        await page.goto(url)
        if options.before:
            await page.wait_for_selector(".message")
        else:
            await page.wait_for_selector("#state[data-state=live]")
        print(
            f"the page with {options.before:,} messages is there after "
            f"{asyncio.get_running_loop().time() - opened:.2f} s"
        )
        times = await measure(page, url, count, options.rate, options.before)
        await browser.close()
    print(f"{len(times):,} messages at {options.rate:g}/s")
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
        print(f"{name} {times[min(len(times) - 1, int(share * len(times)))]:7.1f} ms")


if __name__ == "__main__":
    asyncio.run(main())
