"""Checks without the network: this process's environment, and the ``NXOTP_`` variables."""

import os
import platform
import re
import ssl
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from yarl import URL

from .._version import __version__
from ..errors import ConfigurationError
from ..phone_numbers import mask_number, parse_number
from ..settings import Settings
from ..urls import mask_url
from .findings import Check, Finding, Status, printable

__all__ = ["examine_environment", "examine_settings", "resolve"]


def examine_environment(context: ssl.SSLContext) -> list[Finding]:
    """Check what this process runs on.

    Args:
        context: The TLS context that verifies certificates.
    """
    versions = f"aiohttp {version('aiohttp')}, orjson {version('orjson')}"
    return [
        Finding(Check.ENVIRONMENT, Status.OK, f"Python {platform.python_version()} on {platform.system()}"),
        Finding(Check.ENVIRONMENT, Status.OK, f"nxotp_async {__version__}, {versions}"),
        _event_loop(),
        _authorities(context),
        *_ignored_proxies(),
    ]


def _event_loop() -> Finding:
    try:
        return Finding(Check.ENVIRONMENT, Status.OK, f"uvloop {version('uvloop')}")
    except PackageNotFoundError:
        advice = 'it is optional, and faster; not for Windows: pip install "nxotp_async[fast]"'
        return Finding(Check.ENVIRONMENT, Status.OK, "uvloop is not installed", advice)


def _authorities(context: ssl.SSLContext) -> Finding:
    if number := context.cert_store_stats()["x509_ca"]:
        return Finding(Check.ENVIRONMENT, Status.OK, f"{number} certificate authorities")
    # Those in a directory are loaded when they are needed, and not counted before.
    directory = ssl.get_default_verify_paths().capath
    if directory and any(Path(directory).iterdir()):
        return Finding(Check.ENVIRONMENT, Status.OK, f"the certificate authorities in {printable(directory)}")
    return Finding(
        Check.ENVIRONMENT,
        Status.WARNING,
        "no certificate authorities: no server's certificate can be verified",
        "unset SSL_CERT_FILE and SSL_CERT_DIR if their files do not exist; install the package ca-certificates "
        "(macOS with Python from python.org: run 'Install Certificates.command')",
    )


def _ignored_proxies() -> list[Finding]:
    names = [spelt for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY") for spelt in (name, name.lower())]
    present = ", ".join(name for name in names if os.environ.get(name))
    if not present or os.environ.get("NXOTP_PROXY"):
        return []
    advice = "if there is no way around that proxy, set NXOTP_PROXY to its URL"
    return [Finding(Check.ENVIRONMENT, Status.WARNING, f"{present}: set, but deliberately not used", advice)]


# ---------------------------------------------------------------------------------------------- settings


def _length(value: str) -> str:
    return f"set, {len(value)} characters"


def _proxy(url: str) -> str:
    return f"{mask_url(url)}{', with a user name' if URL(url).user else ''}"


_KEYS: Final = ("NXOTP_ACCESS_KEY", "NXOTP_ACCESS_SECRET", "NXOTP_APPKEY")
# Every variable that is read, and what may be shown of a valid value. Nothing is shown of an invalid one.
_SHOWN: Final[Mapping[str, Callable[[str], str]]] = {
    **dict.fromkeys(_KEYS, _length),
    "NXOTP_BASE_URL": str,
    "NXOTP_PROXY": _proxy,
    "NXOTP_BUSINESS_PHONE": lambda value: mask_number(parse_number(value)),
    "NXOTP_DR_WEBHOOK": mask_url,
    "NXOTP_CALLBACK_TOKEN": _length,
    "NXOTP_LANGUAGE_CODE": str,
    "NXOTP_MAX_CONCURRENCY": str,
    "NXOTP_RATE_LIMIT": str,
    "NXOTP_TIMEOUT": str,
    "NXOTP_DEADLINE": str,
    "NXOTP_KEEPALIVE_TIMEOUT": str,
}


def examine_settings() -> list[Finding]:
    """Check every variable separately, so that a wrong one does not hide the next."""
    given = {name: value for name in _SHOWN if (value := os.environ.get(name))}
    findings = [_examine_variable(name, value) for name, value in given.items()]
    if missing := ", ".join(name for name in _KEYS if name not in given):
        advice = "set them to the keys in NXCloud's console; without an account, run 'nxotp sandbox', which prints keys"
        findings.append(Finding(Check.SETTINGS, Status.FAILED, f"missing: {missing}", advice))
    if absent := ", ".join(name for name in _SHOWN if name not in given and name not in _KEYS):
        findings.append(Finding(Check.SETTINGS, Status.OK, f"not set (optional): {absent}"))
    return findings + _misspelt()


def _examine_variable(name: str, value: str) -> Finding:
    settings = resolve(name)
    if isinstance(settings, ConfigurationError):
        return Finding(Check.SETTINGS, Status.FAILED, str(settings), f"correct {name}, or unset it")
    if name in _KEYS and (why := _looks_wrong(value)):
        advice = "copy it again from NXCloud's console, without anything around it"
        return Finding(Check.SETTINGS, Status.FAILED, f"{name} {why}", advice)
    return Finding(Check.SETTINGS, Status.OK, f"{name}: {_SHOWN[name](value)}")


def resolve(*names: str) -> Settings | ConfigurationError:
    """Resolve the settings as if only these variables were set; keys that are not among them are placeholders."""
    given = {name: value for name in names if (value := os.environ.get(name))}
    try:
        return Settings.resolve({}, dict.fromkeys(_KEYS, "made-up") | given)
    except ConfigurationError as error:
        return error


_PLACEHOLDER: Final = re.compile(r"[\W_]+|x+|<.*>|\$.*|your[\W_].*|change.?me.*", re.IGNORECASE)


def _looks_wrong(key: str) -> str:
    """Return what is obviously wrong with a key."""
    if _PLACEHOLDER.fullmatch(key):
        return "is still the placeholder of an example"
    if key[0] in "'\"" or key[-1] in "'\"":
        return "is in quotes, which count as a part of it"
    return "contains white space" if " " in key else ""


def _misspelt() -> list[Finding]:
    """Find variables that seem to be meant for this library, and are not used."""
    findings = []
    for name in sorted(name for name in os.environ if name.upper().startswith("NX") and name not in _SHOWN):
        meant = get_close_matches(name.upper(), _SHOWN, 1, cutoff=0.85)
        if meant or name.upper().startswith("NXOTP_"):
            advice = f"did you mean {meant[0]}?" if meant else "no setting has this name: unset it"
            findings.append(Finding(Check.SETTINGS, Status.WARNING, f"{printable(name)} is set, but not used", advice))
    return findings
