"""aiosonic."""

import aiosonic
from aiosonic.connectors import TCPConnector
from aiosonic.pools import PoolConfig
from aiosonic.timeout import Timeouts

from clients import Job
from clients.protocol import FIXED_HEADERS, PATH, TIMEOUT, message_id, signed


async def run(job: Job) -> None:
    pool = PoolConfig(size=job.concurrency, max_conn_requests=None)
    connector = TCPConnector({":default": pool}, Timeouts(request_timeout=TIMEOUT))
    async with aiosonic.HTTPClient(connector) as client:

        async def send(to: str, content: str) -> str:
            body, headers = signed(to, content)
            response = await client.post(job.url + PATH, data=body, headers=FIXED_HEADERS | headers)
            return message_id(response.status_code, await response.content())

        await job.share_out(send)
        await connector.cleanup()
