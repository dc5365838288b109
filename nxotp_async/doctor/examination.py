"""Running the checks in their order, and sending one message as the last of them."""

import asyncio
import ssl
from secrets import randbelow

from ..checks import number, validate
from ..client import OtpClient
from ..clocks import Clock
from ..errors import sensitive_variables
from ..messages import OtpMessage
from ..phone_numbers import mask_number
from ..settings import Settings
from .account import examine_account
from .findings import Check, Finding, Status, milliseconds
from .machine import examine_environment, examine_settings, resolve_endpoint
from .network import examine_network

__all__ = ["examine", "is_local", "send_one"]


async def examine(*, timeout: float = 5.0, clock: Clock | None = None) -> list[Finding]:
    """Check this process's environment, the ``NXOTP_`` variables, and the connection to the API. Sends no message.

    The base URL's root is asked for, and, if nothing has failed, the account's balance, numbers and templates. Every
    check has at least one finding; those after a check of the network that failed are skipped. Wrong keys do not affect
    the checks of the network.

    Args:
        timeout: Seconds for each of these: looking up the name, connecting, receiving an answer.
        clock: Sources of time for tests.

    Raises:
        ValueError: The timeout is not more than 0, or not finite.
    """
    validate("timeout", number(above=0), timeout)
    # aiohttp creates its context, which it does not expose, in the same way. That reads files, hence the thread.
    context = await asyncio.to_thread(ssl.create_default_context)
    findings = [*examine_environment(context), *examine_settings()]
    endpoint = resolve_endpoint()
    if endpoint is not None:
        findings += await examine_network(endpoint, timeout, context, clock or Clock())
    if not any(finding.status is Status.FAILED for finding in findings):
        findings += await examine_account(timeout, clock or Clock())
    examined = {Check.SEND, *(finding.check for finding in findings)}
    failed = [finding.check for finding in findings if finding.status is Status.FAILED]
    why = f"not checked, because of {failed[-1]}" if failed else ""
    return findings + [Finding(check, Status.SKIPPED, why) for check in Check if check not in examined]


def is_local() -> bool:
    """Return whether the ``NXOTP_`` variables lead to this machine itself, or to a sandbox elsewhere.

    Raises:
        ConfigurationError: A setting is missing or wrong.
    """
    settings = Settings.resolve({})
    return settings.url.startswith("http:") and settings.proxy is None  # plain http is for these only


@sensitive_variables
async def send_one(to: str, *, clock: Clock | None = None) -> Finding:
    """Send one real OTP with a random code, with the settings of the ``NXOTP_`` variables, and return the outcome.

    Args:
        to: The recipient's WhatsApp number.
        clock: Sources of time and chance for tests.

    Raises:
        InvalidMessageError: It is not a number.
        ConfigurationError: A setting is missing or wrong.
    """
    message = OtpMessage(to, f"{randbelow(1_000_000):06}")
    async with OtpClient(clock=clock) as client:
        (result,) = [result async for result in client.send_many([message])]
    error = result.error
    if error is not None:
        return Finding(Check.SEND, Status.FAILED, f"{result.status.label}: {error.args[0]}", error.hint or "", error)
    found = f"accepted for {mask_number(message.to)} in {milliseconds(result.elapsed)}, as {result.message_id}"
    advice = "accepted does not mean delivered: look at the phone; 'nxotp listen' shows the status callbacks"
    return Finding(Check.SEND, Status.OK, found, advice)
