"""Sending requests over HTTP: the interface that the client needs, and its implementation with aiohttp's sessions."""

from .base import Answer, Transport
from .sessions import SessionPool

__all__ = ["Answer", "SessionPool", "Transport"]
