"""nxotp_async, over each transport: one after the other in many tasks, many at once, and a file by its ledger."""

import tempfile
from pathlib import Path

from answering import write_messages

from clients import Job
from nxotp_async import OtpMessage
from nxotp_async.sandbox import sandbox_client


async def send_otp(job: Job, transport: str = "aiohttp") -> None:
    async with sandbox_client(job.url, max_concurrency=job.concurrency, transport=transport) as client:

        async def send(to: str, content: str) -> str | None:
            return (await client.send_otp(to, content)).message_id

        await job.share_out(send)


async def send_many(job: Job, transport: str = "aiohttp") -> None:
    async with sandbox_client(job.url, max_concurrency=job.concurrency, transport=transport) as client:
        with job.clock():
            messages = (OtpMessage(to, content) for to, content in job.messages())
            async for result in client.send_many(messages):
                job.done(result.message_id, result.elapsed)


async def bulk(job: Job, transport: str = "aiohttp") -> None:
    from nxotp_async.bulk import Dispatcher, Ledger, MessageState, load, open_messages  # noqa: PLC0415 - not the others'

    with tempfile.TemporaryDirectory() as directory:
        file_name = Path(directory, "otps.csv")
        write_messages(file_name, job.sends)
        async with sandbox_client(job.url, max_concurrency=job.concurrency, transport=transport) as client:
            with Ledger(Path(directory, "ledger")) as ledger, open_messages(str(file_name)) as file:
                load(ledger, file)
                with job.clock():
                    report = await Dispatcher(ledger, client).run()
    job.accepted = report.counts[MessageState.ACCEPTED]


async def send_otp_wire(job: Job) -> None:
    await send_otp(job, "wire")


async def send_many_wire(job: Job) -> None:
    await send_many(job, "wire")


async def bulk_wire(job: Job) -> None:
    await bulk(job, "wire")
