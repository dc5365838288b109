"""The account's keys, from their variables or asked for at a terminal, and a client with them."""

import os
import re
import sys
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import attrs
import click

from ..client import OtpClient
from ..errors import ConfigurationError
from ..settings import SETTINGS
from ..signing import Credentials

__all__ = ["account_client", "ask", "ask_credentials", "quick_transport"]

_VARIABLES = {name: str(SETTINGS[name].variable) for name in ("access_key", "access_secret", "appkey")}


def ask(label: str) -> str | None:
    """Ask for something without echo; ``None`` if standard input is not a terminal."""
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    return str(click.prompt(label, hide_input=True, err=True)) if is_terminal else None


def ask_credentials(*, appkey: bool = True, hint: str | None = None) -> Credentials:
    """Return the account's keys, the appkey among them if it is needed, or name those that are missing."""
    names = [name for name in _VARIABLES if appkey or name != "appkey"]
    keys = {name: os.environ.get(_VARIABLES[name]) or ask(name.replace("_", " ").capitalize()) for name in names}
    if missing := [_VARIABLES[name] for name, key in keys.items() if not key]:
        raise ConfigurationError(f"keys are missing: set {' and '.join(missing)}", hint=hint)
    return Credentials(**{name: key for name, key in keys.items() if key})


def account_client(credentials: Credentials, **settings: Any) -> OtpClient:  # noqa: ANN401 - OtpClient checks them
    """Return a client with these keys, and with the settings that options gave; ``None`` leaves one to its variable."""
    try:
        return OtpClient(**attrs.asdict(credentials), **settings)
    except ConfigurationError as error:
        text = re.sub(r"^(\w+) \(or (NXOTP_\w+)\)", partial(_source, settings), str(error))
    raise ConfigurationError(text)


def quick_transport() -> str | None:
    """Return the transport for commands that send much, or ``None`` for the client's default or its variable's."""
    is_free = not (os.environ.get("NXOTP_TRANSPORT") or os.environ.get("NXOTP_PROXY"))
    return "wire" if is_free and find_spec("httptools") is not None else None


def _source(settings: Mapping[str, object], found: re.Match[str]) -> str:
    """Return the option or the variable that gave the setting, in place of Python's argument."""
    return f"--{found[1].replace('_', '-')}" if settings.get(found[1]) is not None else found[2]
