"""One client in several event loops: a notebook with cells, which also runs as a script.

In another terminal: ``nxotp sandbox``. Set the variables that it prints, then

    pip install nxotp_async
    python examples/notebook.py

or run its cells in Jupyter, VS Code or PyCharm, started with these variables. There, an event loop is already running:
write ``await ...`` instead of ``asyncio.run(...)``. The client is the same.
"""

# %% A client can be created without an event loop, and belongs to none.
import asyncio
import secrets

from nxotp_async import OtpClient, OtpMessage, ResultCollector, SendStatus

client = OtpClient()


def new_message(to: str) -> OtpMessage:
    """Return a message with a code that nobody can guess."""
    return OtpMessage(to, f"Your code is {secrets.randbelow(1_000_000):06}")


# %% One code. `send_many` and `send_batch` do not raise the error of a message; it is in the result.
async def send_code(to: str) -> SendStatus:
    """Send one code, and return its status."""
    (result,) = await client.send_batch([new_message(to)])
    return result.status


print(asyncio.run(send_code("+999 555 0100")))


# %% Many codes, in a second loop. The first loop closed its connections when it ended; this one opens new ones.
async def send_codes(count: int) -> ResultCollector:
    """Send codes to this many invented numbers."""
    return await client.send_batch(new_message(f"+999 555 {number:04}") for number in range(count))


collector = asyncio.run(send_codes(100))
print(collector.summary())

# %% The sandbox has numbers that always have the same outcome: here rejected, and accepted with a lost answer.
print(asyncio.run(send_code("999000009003")))
print(asyncio.run(send_code("999300000002")))

# %% The loop of a notebook does not end after the last cell, so close the connections. A later send opens new ones.
asyncio.run(client.aclose())
