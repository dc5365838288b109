"""A process of the tests: sends five messages with a rate that it shares, and prints what became of each.

python tests/shared_rate_client.py URL STORE NAME
"""

import asyncio
import sys

from nxotp_async import OtpMessage
from nxotp_async.pacing import SharedRate
from nxotp_async.sandbox import sandbox_client
from nxotp_async.stores import store_from_url


async def main(url: str, store_url: str, name: str) -> None:
    async with store_from_url(store_url) as store:
        rate = SharedRate(store, name, 0.001, burst=4)
        async with sandbox_client(url, rate_limit=rate) as client:
            async for result in client.send_many(OtpMessage("+999 555 0100", "482913") for _ in range(5)):
                sys.stdout.write(f"{result.status}\n")


asyncio.run(main(*sys.argv[1:]))
