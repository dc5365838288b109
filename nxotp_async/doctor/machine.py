"""Checks without the network: this process's environment, and the ``NXOTP_`` variables."""

import os
import platform
import re
import ssl
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import attrs

from .._version import __version__
from ..errors import ConfigurationError
from ..settings import CALLBACK_TOKEN, OUTBOX, SENDERS, SETTINGS, STORES, Setting, Settings
from ..signing import SANDBOX_CREDENTIALS
from .findings import Check, Finding, Status, printable

__all__ = ["examine_environment", "examine_settings", "resolve_endpoint"]


def examine_environment(context: ssl.SSLContext) -> list[Finding]:
    """Check what this process runs on, and the TLS context that is to verify certificates."""
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


_BY_VARIABLE: Final = {
    setting.variable: setting
    for setting in (*SETTINGS.values(), CALLBACK_TOKEN, SENDERS, *STORES, *OUTBOX)
    if setting.variable
}


def examine_settings() -> list[Finding]:
    """Check every variable separately, so that a wrong one does not hide the next."""
    findings = [_examine(setting, text) for name, setting in _BY_VARIABLE.items() if (text := os.environ.get(name))]
    absent = [setting for name, setting in _BY_VARIABLE.items() if not os.environ.get(name)]
    if missing := ", ".join(setting.variable for setting in absent if setting.is_required):
        advice = "set them to the keys in NXCloud's console; without an account, run 'nxotp sandbox', which prints keys"
        findings.append(Finding(Check.SETTINGS, Status.FAILED, f"missing: {missing}", advice))
    if optional := ", ".join(setting.variable for setting in absent if not setting.is_required):
        findings.append(Finding(Check.SETTINGS, Status.OK, f"not set (optional): {optional}"))
    return findings + _examine_together() + _misspelt()


def _examine_together() -> list[Finding]:
    """Check the variables that are right each for itself: they may contradict one another."""
    sound = attrs.asdict(SANDBOX_CREDENTIALS)  # in the place of keys that are missing or wrong
    for name, setting in _BY_VARIABLE.items():
        if (text := os.environ.get(name)) and _examine(setting, text).status is Status.OK:
            sound[setting.name] = text
    try:
        Settings.resolve(sound, {})
    except ConfigurationError as error:
        variable = next(name for name in _BY_VARIABLE if name in str(error))
        return [Finding(Check.SETTINGS, Status.FAILED, str(error), f"correct {variable}, or unset it")]
    return []


def _examine(setting: Setting, text: str) -> Finding:
    """Check the text of a variable. Nothing of a wrong one is shown."""
    try:
        value = setting.parse(text)
    except ConfigurationError as error:
        return Finding(Check.SETTINGS, Status.FAILED, str(error), f"correct {setting.variable}, or unset it")
    if setting.is_required and (why := _looks_wrong(text)):
        advice = "copy it again from NXCloud's console, without anything around it"
        return Finding(Check.SETTINGS, Status.FAILED, f"{setting.variable} {why}", advice)
    return Finding(Check.SETTINGS, Status.OK, f"{setting.variable}: {setting.show(value)}")


def resolve_endpoint() -> Settings | None:
    """Return settings with the URLs of the variables and the sandbox's keys, or ``None`` where a URL is wrong."""
    names = ("NXOTP_BASE_URL", "NXOTP_INSECURE_SANDBOX_HOST", "NXOTP_PROXY")
    try:
        return Settings.resolve(attrs.asdict(SANDBOX_CREDENTIALS), {name: os.environ.get(name, "") for name in names})
    except ConfigurationError:
        return None


_OF_FURTHER_ACCOUNT: Final = re.compile(r"NXOTP_\w+_(ACCESS_KEY|ACCESS_SECRET|APPKEY)")  # of a file of senders
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
    for name in sorted(name for name in os.environ if name.upper().startswith("NX") and name not in _BY_VARIABLE):
        if _OF_FURTHER_ACCOUNT.fullmatch(name):
            continue
        meant = get_close_matches(name.upper(), _BY_VARIABLE, 1, cutoff=0.85)
        if meant or name.upper().startswith("NXOTP_"):
            advice = f"did you mean {meant[0]}?" if meant else "no setting has this name: unset it"
            findings.append(Finding(Check.SETTINGS, Status.WARNING, f"{printable(name)} is set, but not used", advice))
    return findings
