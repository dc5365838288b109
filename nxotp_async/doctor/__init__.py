"""Why sending would fail, from this machine and with these settings, and what to do next. Nothing is sent unasked."""

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
from .findings import Check, Finding, Status, milliseconds
from .machine import examine_environment, examine_settings, resolve_endpoint
from .network import examine_network

__all__ = ["Check", "Finding", "Status", "examine", "is_local", "send_one"]


async def examine(*, timeout: float = 5.0, clock: Clock | None = None) -> list[Finding]:
    """Examine this process's environment, the ``NXOTP_`` variables, and the way to the API. Sends no message.

    Of the API, only the root of the base URL is asked for. Every check has a finding at least; where the way to the
    API ends early, the checks after that are skipped. Wrong keys do not keep the way from being examined.

    Args:
        timeout: Seconds for each of these: looking up the name, connecting, being answered.
        clock: Sources of time for tests.

    Raises:
        ValueError: The timeout is not more than 0, or not finite.
    """
    validate("timeout", number(above=0), timeout)
    # Made as aiohttp makes the one that it verifies with, which it does not show. It reads files.
    context = await asyncio.to_thread(ssl.create_default_context)
    findings = [*examine_environment(context), *examine_settings()]
    endpoint = resolve_endpoint()
    if endpoint is not None:
        findings += await examine_network(endpoint, timeout, context, clock or Clock())
    examined = {Check.SEND, *(finding.check for finding in findings)}
    why = f"not examined, because of {findings[-1].check}"
    return findings + [Finding(check, Status.SKIPPED, why) for check in Check if check not in examined]


def is_local() -> bool:
    """Return whether the ``NXOTP_`` variables lead to this machine itself, a sandbox for example.

    Raises:
        ConfigurationError: A setting is missing or wrong.
    """
    settings = Settings.resolve({})
    return settings.url.startswith("http:") and settings.proxy is None  # plain http is for loopback only


@sensitive_variables
async def send_one(to: str, *, clock: Clock | None = None) -> Finding:
    """Send one real OTP, with a made-up code, by the ``NXOTP_`` variables, and tell what became of it.

    Args:
        to: The recipient's WhatsApp number.
        clock: Sources of time and chance for tests.

    Raises:
        InvalidMessageError: It is no number.
        ConfigurationError: A setting is missing or wrong.
    """
    message = OtpMessage(to, f"{randbelow(1_000_000):06}")
    async with OtpClient(clock=clock) as client:
        (result,) = [result async for result in client.send_many([message])]
    error = result.error
    if error is not None:
        return Finding(Check.SEND, Status.FAILED, f"{result.status.label}: {error.args[0]}", error.hint or "", error)
    found = f"accepted for {mask_number(message.to)} in {milliseconds(result.elapsed)}, as {result.message_id}"
    advice = "accepted is not delivered: look at the phone; 'nxotp listen' shows what the vendor calls back"
    return Finding(Check.SEND, Status.OK, found, advice)
