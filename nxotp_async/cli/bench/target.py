"""The server that ``nxotp bench`` loads: a sandbox, one on loopback, or a real one, if asked for explicitly."""

import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import attrs
import click
from yarl import URL

from ...bench import Plan, made_up_messages
from ...client import OtpClient
from ...messages import OtpMessage
from ...phone_numbers import mask_number
from ...sandbox import sandbox_client
from ...sandbox.process import sandbox_process
from ...urls import is_http_url, is_loopback, mask_url
from ..account import account_client, ask_credentials, quick_transport

__all__ = ["Target", "choose_target"]

_REFUSAL: Final = (
    "{host} is not loopback: every message of the benchmark would be a real WhatsApp message to a real person, and "
    "cost money. Omit --base-url to load a sandbox. To send real messages, add --yes-send-real-messages, "
    "--recipients FILE, --count and --rate"
)


@attrs.frozen
class Target:
    """The server to load, and the messages.

    Attributes:
        name: A description.
        messages: The messages to send.
        client: The client to send with. Entering that of a sandbox starts the sandbox, or raises `ChildProcessError`.
    """

    name: str
    messages: list[OtpMessage]
    client: AbstractAsyncContextManager[OtpClient]


@asynccontextmanager
async def _sandbox(concurrency: int, options: Mapping[str, object]) -> AsyncIterator[OtpClient]:
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    async with sandbox_process(*arguments) as url, _sandbox_client(url, concurrency) as client:
        yield client


def _sandbox_client(url: str, concurrency: int) -> OtpClient:
    # A sandbox's client reads no variables, but the transport may be chosen by its own.
    transport = os.environ.get("NXOTP_TRANSPORT") or quick_transport()
    return sandbox_client(url, max_concurrency=concurrency, transport=transport)


def choose_target(
    plan: Plan,
    *,
    concurrency: int,
    base_url: str | None,
    real: bool,
    recipients: list[OtpMessage] | None,
    sandbox: Mapping[str, object],
) -> Target:
    """Return the target that the options name, if they do not contradict each other."""
    given = {name: value for name, value in sorted(sandbox.items()) if value is not None}
    messages = recipients or made_up_messages()
    if base_url is None:
        if real:
            raise click.UsageError("--yes-send-real-messages requires a --base-url that is not loopback")
        settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in given.items())
        name = f"sandbox ({settings})" if settings else "sandbox"
        return Target(name, messages, _sandbox(concurrency, given))
    if given:
        option = next(iter(given)).replace("_", "-")
        raise click.UsageError(f"--{option} is an option of the sandbox, which --base-url replaces")
    if not (is_http_url(base_url) and base_url.isascii()) or set(base_url) & set("?#@\\"):
        example = "http://127.0.0.1:8099 for example"
        raise click.UsageError(f"--base-url must be a plain URL without a user, password, query or fragment, {example}")
    host = str(URL(base_url).host)
    if is_loopback(host):
        if real:
            raise click.UsageError(
                f"--yes-send-real-messages requires a --base-url that is not loopback, unlike {host}"
            )
        # The sandbox's account: the keys of a real one are not sent to a local server.
        client = _sandbox_client(base_url, concurrency)
    else:
        _check_real(host, plan, real=real, messages=recipients)
        client = account_client(
            ask_credentials(), base_url=base_url, max_concurrency=concurrency, transport=quick_transport()
        )
    return Target(mask_url(base_url), messages, client)


def _check_real(host: str, plan: Plan, *, real: bool, messages: list[OtpMessage] | None) -> None:
    if not real:
        raise click.UsageError(_REFUSAL.format(host=host))
    if messages is None or plan.count is None or plan.rate is None:
        raise click.UsageError("real messages require --recipients FILE, --count and --rate")
    if plan.warm_up:
        raise click.UsageError("--warm-up would send real messages that are not measured: omit it")
    if repeated := [number for number, times in Counter(message.to for message in messages).items() if times > 1]:
        raise click.UsageError(
            f"--recipients repeats numbers ({len(repeated)}, {mask_number(repeated[0])} for example): real messages "
            "are sent once to each number"
        )
    if plan.count > len(messages):
        raise click.UsageError(
            f"--count is {plan.count}, but --recipients contains {len(messages)}: real messages are sent once to each"
        )
