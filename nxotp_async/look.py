"""How the pages of the package look: one style sheet for the sandbox's page and for reports."""

from importlib.resources import files
from typing import Final

__all__ = ["STYLE"]

STYLE: Final = (files(__package__) / "look.css").read_text(encoding="utf-8")
"""Colours for light and for dark, and the plainest elements."""
