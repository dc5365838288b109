"""The client that `faults.py` judges, in a process of its own, so that any interpreter can run it.

    python tests/faults_client.py PLAN

The plan is JSON. Prints the outcomes as JSON: of each message its cus_message_id, status and message id.
"""

import asyncio
import json
import random
import sys
from typing import Any

from nxotp_async import Credentials, OtpMessage
from nxotp_async.sandbox import sandbox_client
from nxotp_async.senders import Sender, SenderAccount, SenderPool
from nxotp_async.testing import NO_PAUSES


def sender(number: int) -> Sender:
    account = SenderAccount(credentials=Credentials(f"key-{number}", "secret", "appkey"))
    return Sender(f"9995550000{number}", rate=100_000, account=account)


async def send(plan: dict[str, Any]) -> list[tuple[str | None, str, str | None]]:
    chance = random.Random(plan["seed"])
    messages = [
        OtpMessage(f"+999 555 {number:07}", f"{100_000 + number}", cus_message_id=f"message-{number}")
        for number in range(plan["messages"])
    ]
    burst = plan["concurrency"] if plan["pause"] else len(messages)
    outcomes: list[tuple[str | None, str, str | None]] = []
    async with sandbox_client(
        plan["url"], max_concurrency=plan["concurrency"], timeout=plan["timeout"], clock=NO_PAUSES
    ) as client:
        if plan["senders"]:
            client = SenderPool(client, map(sender, range(plan["senders"])))  # noqa: PLW2901 - the same connections
        for start in range(0, len(messages), burst):
            results = await client.send_batch(messages[start : start + burst])
            outcomes += [(result.message.cus_message_id, result.status.value, result.message_id) for result in results]
            if plan["pause"]:
                await asyncio.sleep(chance.uniform(*plan["pause"]))
    return outcomes


def main() -> None:
    plan = json.loads(sys.argv[1])
    loop_factory = None
    if plan["loop"] == "uvloop":
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        print(json.dumps(runner.run(send(plan))))


if __name__ == "__main__":
    main()
