"""Send one code from a script, and exit with what became of it.

In another terminal: ``nxotp sandbox``. Set the variables that it prints, then

    pip install nxotp_async
    python examples/send_one.py "+999 555 0100"

The exit status is 0 where the vendor accepted the code, 1 where it refused it, 2 where the number is none, 3 where a
setting is missing or wrong, 4 where the code never left, and 6 where it may be on its way.
"""

import asyncio
import secrets
import sys

from nxotp_async import (
    ConfigurationError,
    InvalidMessageError,
    NotSentError,
    NxOtpError,
    OtpClient,
    OutcomeUnknownError,
)


async def send_code(to: str, message_id: str) -> int:
    """Send a code, tell what became of it, and return the exit status that says so."""
    code = f"{secrets.randbelow(1_000_000):06}"  # keep a keyed hash of it: see logins.py
    try:
        async with OtpClient() as client:
            result = await client.send_otp(to, f"Your code is {code}", cus_message_id=message_id)
    except ConfigurationError as error:
        return told(f"nothing was sent, a setting is wrong: {error}", 3)
    except InvalidMessageError as error:
        return told(f"nothing was sent: {error}", 2)
    except NotSentError as error:
        return told(f"it never left, send another as soon as you like: {error}", 4)
    except OutcomeUnknownError as error:
        return told(f"it may be on its way, do not send another at once: {error}", 6)
    except NxOtpError as error:
        return told(f"the vendor refused it: {error}", 1)
    print(f"accepted as {result.message_id} after {result.elapsed:.2f} s")
    return 0


def told(what: str, status: int) -> int:
    """Tell what went wrong, and return the status."""
    print(what, file=sys.stderr)
    return status


def main() -> int:
    """Send a code to the number on the command line."""
    if len(sys.argv) != 2:
        return told('usage: python send_one.py "+999 555 0100"', 2)
    message_id = secrets.token_hex(16)
    print(f"sending {message_id}", flush=True)  # status callbacks name it, whatever happens from here on
    try:
        return asyncio.run(send_code(sys.argv[1], message_id))
    except KeyboardInterrupt:
        return told("interrupted: it may be on its way", 130)


if __name__ == "__main__":
    sys.exit(main())
