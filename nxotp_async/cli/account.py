"""The account's keys, from their variables or asked for at a terminal, and a client with them."""

import os
import re
import sys
from collections.abc import Container
from typing import Any

import attrs
import click

from ..client import OtpClient
from ..errors import ConfigurationError
from ..settings import SETTINGS
from ..signing import Credentials

__all__ = ["account_client", "ask", "ask_credentials", "named_as_given"]

_VARIABLES = {name: str(SETTINGS[name].variable) for name in ("access_key", "access_secret", "appkey")}


def ask(label: str) -> str | None:
    """Ask for something without echo; ``None`` if standard input is not a terminal."""
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    return str(click.prompt(label, hide_input=True, err=True)) if is_terminal else None


def ask_credentials(*, appkey: bool = True, hint: str | None = None) -> Credentials:
    """Return the account's keys, the appkey among them if it is needed.

    Raises:
        ConfigurationError: Keys are missing. The hint tells what else can be done.
    """
    names = [name for name in _VARIABLES if appkey or name != "appkey"]
    keys = {name: os.environ.get(_VARIABLES[name]) or ask(name.replace("_", " ").capitalize()) for name in names}
    if missing := [_VARIABLES[name] for name, key in keys.items() if not key]:
        raise ConfigurationError(f"keys are missing: set {' and '.join(missing)}", hint=hint)
    return Credentials(**{name: key for name, key in keys.items() if key})


def account_client(credentials: Credentials, **settings: Any) -> OtpClient:  # noqa: ANN401 - OtpClient checks them
    """Return a client with these keys, and with the settings that options gave; ``None`` leaves one to its variable.

    Raises:
        ConfigurationError: A setting is wrong.
    """
    try:
        return OtpClient(**attrs.asdict(credentials), **settings)
    except ConfigurationError as error:
        text = named_as_given(error, {name for name, value in settings.items() if value is not None})
    raise ConfigurationError(text)


def named_as_given(error: ConfigurationError, options: Container[str]) -> str:
    """Return the error's text, with the option or the variable that gave the setting in place of Python's argument."""

    def name(setting: re.Match[str]) -> str:
        return f"--{setting[1].replace('_', '-')}" if setting[1] in options else setting[2]

    return re.sub(r"^(\w+) \(or (NXOTP_\w+)\)", name, str(error))
