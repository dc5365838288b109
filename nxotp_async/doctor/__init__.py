"""Checks of why sending would fail, from this machine and with these settings, and what to do next."""

from .examination import examine, is_local, send_one
from .findings import Check, Finding, Status

__all__ = ["Check", "Finding", "Status", "examine", "is_local", "send_one"]
