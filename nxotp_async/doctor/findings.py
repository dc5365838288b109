"""What an examination finds."""

from enum import StrEnum

import attrs

from ..errors import NxOtpError

__all__ = ["Check", "Finding", "Status", "milliseconds", "printable"]


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    """Sending should work all the same."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not examined: an earlier check failed, or nobody agreed to it."""


class Check(StrEnum):
    """What is examined, in this order."""

    ENVIRONMENT = "environment"
    SETTINGS = "settings"
    DNS = "dns"
    CONNECTION = "connection"
    HTTP = "http"
    CLOCK = "clock"
    SEND = "send"


@attrs.frozen
class Finding:
    """One thing that a check found.

    Attributes:
        check: The check.
        status: How it came out.
        found: What was found. Never a key, a password, a code or a whole number.
        advice: What to do next; empty where there is nothing to do.
        error: What the message of `send_one` failed with, or ``None``.
    """

    check: Check
    status: Status
    found: str
    advice: str = ""
    error: NxOtpError | None = None


def milliseconds(seconds: float) -> str:
    """Write a duration as people read it."""
    return f"{seconds * 1000:.0f} ms"


def printable(text: str) -> str:
    """Return the text without what could drive a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
