"""httpx."""

import httpx

from clients import Job
from clients.protocol import FIXED_HEADERS, PATH, TIMEOUT, message_id, signed


async def run(job: Job) -> None:
    async with httpx.AsyncClient(
        limits=httpx.Limits(max_connections=job.concurrency, max_keepalive_connections=job.concurrency),
        headers=FIXED_HEADERS,
        timeout=TIMEOUT,
        trust_env=False,
    ) as client:

        async def send(to: str, content: str) -> str:
            body, headers = signed(to, content)
            response = await client.post(job.url + PATH, content=body, headers=headers)
            return message_id(response.status_code, response.content)

        await job.share_out(send)
