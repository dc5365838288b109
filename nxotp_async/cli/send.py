"""``nxotp send``."""

import sys
from secrets import token_hex
from typing import Any

import click

from ..client import OtpClient
from ..errors import (
    AccountError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    InvalidMessageError,
    NxOtpError,
    OutcomeUnknownError,
)
from ..messages import OtpMessage
from ..phone_numbers import mask_number
from ..results import SendResult
from ..settings import DEFAULT_BASE_URL
from .common import (
    EXIT_CONFIGURATION,
    EXIT_REJECTED,
    EXIT_UNKNOWN,
    EXIT_USAGE,
    ask_content,
    ask_key,
    fail,
    print_data,
    print_json,
    run,
    stderr,
)

__all__ = ["send"]


@click.command()
@click.argument("to")
@click.argument("content", nargs=-1, metavar="")
@click.option("--language", "language_code", help="The template's language, such as en or pt_BR.")
@click.option("--category", help="AUTHENTICATION (the vendor's default) or UTILITY.")
@click.option("--cus-message-id", help="Your own id for the message; made up when absent.")
@click.option("--dr-webhook", help="Where the vendor sends this message's status callbacks.")
@click.option("--business-phone", help="The sending number.")
@click.option("--base-url", help=f"The API's base URL. Default: {DEFAULT_BASE_URL}, or NXOTP_BASE_URL.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def send(to: str, content: tuple[str, ...], base_url: str | None, as_json: bool, **fields: Any) -> None:  # noqa: ANN401 - OtpMessage checks them
    """Send one OTP to the number TO.

    The content, text that holds the code, is read from standard input, or asked for without echo; it is never
    an argument, because arguments can be read by every user of the machine.

    \b
    echo "Your code is 482913" | nxotp send "+999 555 0100"
    """  # noqa: D301 - click wants the backspace character itself
    if content:
        fail("one argument is expected, the number; the content is read from standard input", EXIT_USAGE)
    if fields["cus_message_id"] is None:
        fields["cus_message_id"] = token_hex(16)
    access_key, access_secret, appkey = map(ask_key, ("access_key", "access_secret", "appkey"))
    try:
        message = OtpMessage(to, ask_content(), **fields)
        client = OtpClient(access_key=access_key, access_secret=access_secret, appkey=appkey, base_url=base_url)
    except InvalidMessageError as error:
        fail(error, EXIT_USAGE)
    except ConfigurationError as error:
        fail(error, EXIT_CONFIGURATION)
    lost = f"interrupted; message {message.cus_message_id} may have been accepted: wait for its status callback"
    result = run(_send_one(client, message), interrupted=lost)
    if as_json:
        print_json(_result_fields(result))
    elif result.error is None:
        print_data(f"accepted: {result.message_id}")
    if result.error is None:
        return
    if not as_json:
        stderr.print(f"{result.status}: {result.error}", markup=False, soft_wrap=True)
    sys.exit(_exit_code(result.error))


async def _send_one(client: OtpClient, message: OtpMessage) -> SendResult:
    async with client:
        (result,) = [result async for result in client.send_many([message])]
    return result


def _result_fields(result: SendResult) -> dict[str, Any]:
    error = result.error
    return {
        "status": result.status,
        "to": mask_number(result.message.to),
        "cus_message_id": result.message.cus_message_id,
        "message_id": result.message_id,
        "attempts": result.attempts,
        "elapsed_ms": round(result.elapsed * 1000, 1),
        "error": error
        and {
            "type": type(error).__name__,
            "code": error.code if isinstance(error, ApiError) else None,
            "message": str(error),
        },
    }


def _exit_code(error: NxOtpError) -> int:
    match error:
        case OutcomeUnknownError():
            return EXIT_UNKNOWN
        case AccountError() | AuthenticationError():
            return EXIT_CONFIGURATION
    return EXIT_REJECTED
