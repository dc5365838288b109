"""niquests."""

import niquests

from clients import Job
from clients.protocol import FIXED_HEADERS, PATH, TIMEOUT, message_id, signed


async def run(job: Job) -> None:
    async with niquests.AsyncSession(pool_maxsize=job.concurrency, headers=FIXED_HEADERS, timeout=TIMEOUT) as session:
        session.trust_env = False

        async def send(to: str, content: str) -> str:
            body, headers = signed(to, content)
            response = await session.post(job.url + PATH, data=body, headers=headers)
            return message_id(response.status_code or 0, response.content or b"")

        await job.share_out(send)
