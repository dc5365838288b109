"""The findings of the checks."""

from enum import StrEnum

import attrs

from ..errors import NxOtpError

__all__ = ["Check", "Finding", "Status", "milliseconds", "printable"]


class Status(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    """Sending should work nevertheless."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not run: an earlier check failed, or it was not confirmed."""


class Check(StrEnum):
    """The checks, in the order in which they run."""

    ENVIRONMENT = "environment"
    SETTINGS = "settings"
    DNS = "dns"
    CONNECTION = "connection"
    HTTP = "http"
    CLOCK = "clock"
    ACCOUNT = "account"
    SEND = "send"


@attrs.frozen
class Finding:
    """One result of a check, which may have several.

    Attributes:
        check: The check.
        status: Its result.
        found: What was found. Never a key, a password, a code or a whole number.
        advice: What to do next; empty if there is nothing to do.
        error: The error that the message of `send_one` failed with, or ``None``.
    """

    check: Check
    status: Status
    found: str
    advice: str = ""
    error: NxOtpError | None = None


def milliseconds(seconds: float) -> str:
    """Return a duration as text."""
    return f"{seconds * 1000:.0f} ms"


def printable(text: str) -> str:
    """Return the text without characters that control a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
