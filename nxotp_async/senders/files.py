"""Senders out of a TOML file. It holds no keys: those of further accounts come from variables."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..checks import header_text, validate
from ..errors import ConfigurationError, sensitive_variables
from ..signing import Credentials
from .sender import Sender, SenderAccount

__all__ = ["read_senders"]

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@sensitive_variables
def read_senders(path: Path | str, environment: Mapping[str, str] | None = None) -> list[Sender]:
    """Return the senders of a TOML file, for a `SenderPool`.

    Args:
        path: The file: a table ``[[senders]]`` for each, with ``business_phone``, and perhaps ``rate``, ``weight`` and
            ``account``; and perhaps ``[accounts.NAME]`` with a ``daily_limit``. The keys of the account NAME are those
            of the variables ``NXOTP_NAME_ACCESS_KEY``, ``NXOTP_NAME_ACCESS_SECRET`` and ``NXOTP_NAME_APPKEY``. A sender
            without an account belongs to the client's, whose limit is in ``[accounts.default]``.
        environment: The variables. Default: those of this process.

    Raises:
        ConfigurationError: The file cannot be read, or something in it is wrong; or a variable is missing.
    """
    try:
        content = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    try:
        return _senders(content, os.environ if environment is None else environment)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error.args[0]}", hint=error.hint) from None


def _senders(content: Mapping[str, Any], environment: Mapping[str, str]) -> list[Sender]:
    _check_names("the file", content, "accounts", "senders")
    tables, senders = content.get("accounts", {}), content.get("senders", [])
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigurationError("accounts must be tables: [accounts.NAME]")
    if not isinstance(senders, list) or not senders or not all(isinstance(sender, dict) for sender in senders):
        raise ConfigurationError("there must be a table [[senders]] for each sender")
    used = {str(sender.get("account", "default")) for sender in senders}
    if unused := set(tables) - used:
        raise ConfigurationError(f"no sender is of the account {min(unused)}")
    accounts = {name: _account(name, tables.get(name, {}), environment) for name in used}
    return [_sender(sender, accounts) for sender in senders]


def _account(name: str, table: Mapping[str, Any], environment: Mapping[str, str]) -> SenderAccount:
    if not _NAME.fullmatch(name):
        raise ConfigurationError("the name of an account must be letters, digits and underscores")
    _check_names(f"accounts.{name}", table, "daily_limit")
    if name == "default":
        return SenderAccount(**table)
    prefix = f"NXOTP_{name.upper()}_"
    keys = {key: environment.get(prefix + key, "") for key in ("ACCESS_KEY", "ACCESS_SECRET", "APPKEY")}
    if missing := [prefix + key for key, value in keys.items() if not value]:
        raise ConfigurationError(f"keys of the account {name} are missing: set {' and '.join(missing)}")
    checked = (validate(prefix + key, header_text, value, ConfigurationError) for key, value in keys.items())
    return SenderAccount(credentials=Credentials(*checked), **table)


def _sender(table: Mapping[str, Any], accounts: Mapping[str, SenderAccount]) -> Sender:
    _check_names("a sender", table, "business_phone", "rate", "weight", "account")
    if "business_phone" not in table:
        raise ConfigurationError("a sender has no business_phone")
    options = {**table, "account": accounts[str(table.get("account", "default"))]}
    return Sender(options.pop("business_phone"), **options)


def _check_names(where: str, table: Mapping[str, Any], *allowed: str) -> None:
    if unknown := sorted(set(table) - set(allowed)):
        raise ConfigurationError(f"{where} has a {unknown[0]}, which is none of {', '.join(allowed)}")
