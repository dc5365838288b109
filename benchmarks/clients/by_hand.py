"""aiohttp as it is commonly used: gather over every message, a semaphore, json=, tenacity around each call."""

import asyncio
import hashlib
import json
import time
import uuid
from time import perf_counter

import aiohttp
import tenacity

from clients import Job
from nxotp_async.sandbox import SANDBOX_BUSINESS_PHONE
from nxotp_async.sandbox import SANDBOX_CREDENTIALS as KEYS


async def run(job: Job) -> None:
    semaphore = asyncio.Semaphore(job.concurrency)

    @tenacity.retry(
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_exponential(),
        retry=tenacity.retry_if_exception_type(aiohttp.ClientError),
    )
    async def post(to: str, content: str) -> str:
        body = {
            "appkey": KEYS.appkey,
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": to,
            "content": content,
            "language_code": "en",
            "cus_message_id": uuid.uuid4().hex,
            "business_phone": SANDBOX_BUSINESS_PHONE,
        }
        headers = {"accessKey": KEYS.access_key, "action": "mt", "bizType": "2", "ts": str(int(time.time() * 1000))}
        signed = "&".join(f"{name}={value}" for name, value in headers.items())
        signed += f"&body={json.dumps(body)}&accessSecret={KEYS.access_secret}"
        headers["sign"] = hashlib.md5(signed.encode()).hexdigest()
        async with session.post(f"{job.url}/api/wa/otp", json=body, headers=headers) as response:
            response.raise_for_status()
            answer = await response.json()
        if answer["code"] != 0:
            raise RuntimeError(answer["message"])
        return str(answer["data"]["messages"][0]["id"])

    async def send(to: str, content: str) -> None:
        async with semaphore:
            began = perf_counter()
            job.done(await post(to, content), perf_counter() - began)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        with job.clock():
            await asyncio.gather(*(send(to, content) for to, content in job.messages()))
