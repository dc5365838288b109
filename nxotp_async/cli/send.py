"""``nxotp send``."""

import sys
from secrets import token_hex
from typing import Any

import click

from ..checks import InvalidValueError
from ..client import OtpClient
from ..errors import InvalidMessageError, OutcomeUnknownError
from ..messages import OtpMessage
from ..phone_numbers import mask_number, parse_number
from ..results import SendResult
from .account import account_client, ask, ask_credentials
from .event_loop import run
from .exit_codes import ExitCode
from .output import error_fields, print_data, print_json, print_note
from .parameters import PHONE_NUMBER, base_url_option, default_region_option, json_option, time_limit_options

__all__ = ["command"]


@click.command("send")
@click.argument("to")
@click.argument("content", nargs=-1, metavar="")
@click.option("--language", "language_code", help="The template's language, such as en or pt_BR.")
@click.option("--category", help="AUTHENTICATION (the vendor's default) or UTILITY.")
@click.option("--cus-message-id", help="Your own id for the message. Default: a random one.")
@click.option("--dr-webhook", help="URL that the vendor pushes this message's status callbacks to.")
@click.option("--business-phone", type=PHONE_NUMBER, help="The sending number.")
@default_region_option
@base_url_option
@time_limit_options
@json_option(help="Print the result as JSON.")
def command(
    to: str,
    content: tuple[str, ...],
    default_region: str | None,
    base_url: str | None,
    timeout: float | None,
    deadline: float | None,
    as_json: bool,
    **fields: Any,  # noqa: ANN401 - OtpMessage checks them
) -> None:
    """Send one OTP to the number TO.

    The content, text that holds the code, is read from standard input, or asked for without echo; it is never
    an argument, because arguments can be read by every user of the machine.

    \b
    echo "Your code is 482913" | nxotp send "+999 555 0100"
    """  # noqa: D301 - click wants the backspace character itself
    if content:
        raise click.UsageError("one argument is expected, the number; the content is read from standard input")
    try:
        to = parse_number(to, default_region)
    except InvalidValueError as error:
        raise _bad_parameter("to", str(error)) from None
    if fields["cus_message_id"] is None:
        fields["cus_message_id"] = token_hex(16)
    credentials = ask_credentials()
    message = _message(to, _read_content(), fields)
    client = account_client(credentials, base_url=base_url, timeout=timeout, deadline=deadline)
    lost = OutcomeUnknownError(
        f"interrupted; message {message.cus_message_id} may have been accepted",
        hint="wait for its status callback",
        cus_message_id=message.cus_message_id,
    )
    result = run(_send(client, message), interrupted=lost)
    if as_json:
        print_json(_masked(result))
    elif result.error is None:
        print_data(f"accepted: {result.message_id}")
    else:
        print_note(f"{result.status.label}: {result.error}")
    if result.error is not None:
        sys.exit(ExitCode.of(result.error))


def _read_content() -> str:
    content = ask("Content")
    if content is None:
        try:
            content = sys.stdin.read(10_000).strip() if sys.stdin else ""
            content.encode()  # Python may have let other bytes pass as halves of surrogate pairs
        except UnicodeError:
            raise click.UsageError("the content on standard input is not UTF-8") from None
    if not content:
        raise click.UsageError("the content is expected on standard input, which is empty")
    return content


def _message(to: str, content: str, fields: dict[str, Any]) -> OtpMessage:
    try:
        return OtpMessage(to, content, **fields)
    except InvalidMessageError as error:
        field, problem = error.field, str(error).removeprefix(f"{error.field} ")
    raise _bad_parameter(field, problem)


def _bad_parameter(name: str, problem: str) -> click.BadParameter:
    context = click.get_current_context()
    (wrong,) = (parameter for parameter in context.command.params if parameter.name == name)
    hint = None if name == "to" else f"'{wrong.opts[-1]}'"  # the content is read, and has no name in the help
    return click.BadParameter(problem, context, wrong, param_hint=hint)


async def _send(client: OtpClient, message: OtpMessage) -> SendResult:
    async with client:
        (result,) = [result async for result in client.send_many([message])]
    return result


def _masked(result: SendResult) -> dict[str, Any]:
    """Return the result without the code, and with the number masked. The elapsed time is in seconds."""
    error = result.error
    return {
        "status": result.status,
        "to": mask_number(result.message.to),
        "cus_message_id": result.message.cus_message_id,
        "message_id": result.message_id,
        "attempts": result.attempts,
        "elapsed": round(result.elapsed, 4),
        "error": error and error_fields(error),
    }
