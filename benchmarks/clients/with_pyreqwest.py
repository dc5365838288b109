"""pyreqwest: HTTP in Rust, in threads of its own, which share the core."""

from datetime import timedelta

from pyreqwest.client import ClientBuilder

from clients import Job
from clients.protocol import FIXED_HEADERS, PATH, TIMEOUT, message_id, signed


async def run(job: Job) -> None:
    builder = ClientBuilder().default_headers(FIXED_HEADERS).timeout(timedelta(seconds=TIMEOUT)).no_proxy()
    async with builder.max_connections(job.concurrency).build() as client:

        async def send(to: str, content: str) -> str:
            body, headers = signed(to, content)
            response = await client.post(job.url + PATH).headers(headers).body_bytes(body).build().send()
            return message_id(response.status, memoryview(await response.bytes()))

        await job.share_out(send)
