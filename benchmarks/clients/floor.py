"""aiohttp, bare and tuned: the least that a correct client on aiohttp can cost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from clients import Job
from clients.protocol import FIXED_HEADERS, PATH, TIMEOUT, message_id, signed


@asynccontextmanager
async def sender(base_url: str, concurrency: int) -> AsyncIterator[Callable[[str, str], Awaitable[str]]]:
    """Yield what sends a message."""
    url = URL(base_url + PATH)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers=FIXED_HEADERS,
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:

        async def send(to: str, content: str) -> str:
            body, headers = signed(to, content)
            async with asyncio.timeout(TIMEOUT):
                # Not "async with", which costs a twentieth more: reading to the end, or failing to, lets it go.
                response = await session.post(url, data=body, headers=headers, allow_redirects=False)
                answer = await response.read()
            return message_id(response.status, answer)

        yield send


async def run(job: Job) -> None:
    async with sender(job.url, job.concurrency) as send:
        await job.share_out(send)
