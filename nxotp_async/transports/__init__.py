"""How requests reach the vendor: what the client needs of an HTTP library, and aiohttp's sessions behind it."""

from .base import Answer, Transport
from .sessions import SessionPool

__all__ = ["Answer", "SessionPool", "Transport"]
