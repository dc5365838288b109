"""Send one code from a script, and exit with a status that depends on the outcome.

In another terminal: ``nxotp sandbox``. Set the variables that it prints, then

    pip install .
    python examples/send_one.py "+999 555 0100"

The exit status is 0 if the vendor accepted the code, 1 if it rejected it, 2 if the number is not a phone number, 3 if a
setting is missing or wrong, 4 if the code was not sent, and 6 if this is unknown.
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
    """Send a code, print the outcome, and return the exit status."""
    code = f"{secrets.randbelow(1_000_000):06}"
    try:
        async with OtpClient() as client:
            result = await client.send_otp(to, f"Your code is {code}", cus_message_id=message_id)
    except ConfigurationError as error:
        return fail(f"nothing was sent, a setting is wrong: {error}", 3)
    except InvalidMessageError as error:
        return fail(f"nothing was sent: {error}", 2)
    except NotSentError as error:
        return fail(f"not sent; you can send another code at once: {error}", 4)
    except OutcomeUnknownError as error:
        return fail(f"unknown; the code may arrive, so do not send another one yet: {error}", 6)
    except NxOtpError as error:
        return fail(f"rejected by the vendor: {error}", 1)
    print(f"accepted as {result.message_id} after {result.elapsed:.2f} s")
    return 0


def fail(text: str, exit_status: int) -> int:
    """Print an error, and return the exit status."""
    print(text, file=sys.stderr)
    return exit_status


def main() -> int:
    """Send a code to the number on the command line."""
    if len(sys.argv) != 2:
        return fail('usage: python send_one.py "+999 555 0100"', 2)
    message_id = secrets.token_hex(16)
    print(f"sending {message_id}", flush=True)  # before the send, because status callbacks contain this id in any case
    try:
        return asyncio.run(send_code(sys.argv[1], message_id))
    except KeyboardInterrupt:
        return fail("interrupted: the code may arrive", 130)


if __name__ == "__main__":
    sys.exit(main())
