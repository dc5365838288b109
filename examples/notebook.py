"""One client in several event loops: a notebook with cells, which also runs as a script.

In another terminal: ``nxotp sandbox``. Set the variables that it prints, then

    pip install .
    python examples/notebook.py

or run its cells in Jupyter, VS Code or PyCharm, started with these variables. There, an event loop is already running:
write ``await ...`` instead of ``asyncio.run(...)``. The client is the same.
"""

# %% A client can be created without an event loop, and belongs to none.
import asyncio
import secrets
from functools import cache

from nxotp_async import OtpClient, OtpMessage, ResultCollector, SendStatus


@cache
def the_client() -> OtpClient:
    """Return the one client of this notebook, which is made by the first call."""
    return OtpClient()


def new_message(to: str) -> OtpMessage:
    """Return a message with a code that nobody can guess."""
    return OtpMessage(to, f"Your code is {secrets.randbelow(1_000_000):06}")


# %% One code. `send_many` and `send_batch` do not raise the error of a message; it is in the result.
async def send_code(client: OtpClient, to: str) -> SendStatus:
    """Send one code, and return its status."""
    (result,) = await client.send_batch([new_message(to)])
    return result.status


if __name__ == "__main__":  # in a notebook and in a script, but not where a test imports the functions
    print(asyncio.run(send_code(the_client(), "+999 555 0100")))


# %% Many codes, in a second loop. The first loop closed its connections when it ended; this one opens new ones.
async def send_codes(client: OtpClient, count: int) -> ResultCollector:
    """Send codes to this many invented numbers."""
    return await client.send_batch(new_message(f"+999 555 {number:04}") for number in range(count))


if __name__ == "__main__":
    collector = asyncio.run(send_codes(the_client(), 100))
    print(collector.summary())

# %% The sandbox has numbers that always have the same outcome: here rejected, and accepted with a lost answer.
if __name__ == "__main__":
    print(asyncio.run(send_code(the_client(), "999000009003")))
    print(asyncio.run(send_code(the_client(), "999300000002")))

# %% The loop of a notebook does not end after the last cell, so close the connections. A later send opens new ones.
if __name__ == "__main__":
    asyncio.run(the_client().aclose())
