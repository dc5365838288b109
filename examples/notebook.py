"""One client in several event loops: a notebook in cells, which also runs as a script.

In another terminal: ``nxotp sandbox``. Set the variables that it prints, then

    pip install nxotp_async
    python examples/notebook.py

or run its cells in Jupyter, VS Code or PyCharm, started with these variables. There an event loop is running already:
write ``await ...`` in place of ``asyncio.run(...)``. The client is the same.
"""

# %% A client needs no event loop to be made, and does not belong to one.
import asyncio
import secrets

from nxotp_async import OtpClient, OtpMessage, ResultCollector, SendStatus

client = OtpClient()


def new_message(to: str) -> OtpMessage:
    """Return a message with a code that nobody can guess."""
    return OtpMessage(to, f"Your code is {secrets.randbelow(1_000_000):06}")


# %% One code. `send_many` and `send_batch` raise for no message; the result says what became of it.
async def send_code(to: str) -> SendStatus:
    """Send one code, and return what became of it."""
    (result,) = await client.send_batch([new_message(to)])
    return result.status


print(asyncio.run(send_code("+999 555 0100")))


# %% Many of them, in a second loop. The connections of the first were closed when it ended; these are new ones.
async def send_codes(count: int) -> ResultCollector:
    """Send codes to as many made-up numbers."""
    return await client.send_batch(new_message(f"+999 555 {number:04}") for number in range(count))


collector = asyncio.run(send_codes(100))
print(collector.summary())

# %% The sandbox has numbers that always have the same outcome: refused by the vendor, and accepted with a lost answer.
print(asyncio.run(send_code("999000009003")))
print(asyncio.run(send_code("999300000002")))

# %% A notebook's loop goes on after the last cell, so close the connections. They would open again for another send.
asyncio.run(client.aclose())
