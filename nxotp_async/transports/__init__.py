"""Sending requests over HTTP: the interface that the client needs, and its two implementations.

`SessionPool` uses aiohttp's sessions. `WireTransport` (``pip install "nxotp_async[fast]"``) speaks HTTP/1.1 itself.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from .base import Answer, Transport

if TYPE_CHECKING:
    from .sessions import SessionPool
    from .wire import WireTransport

__all__ = ["Answer", "SessionPool", "Transport", "WireTransport"]

_MODULES: Final[Mapping[str, str]] = {"SessionPool": "sessions", "WireTransport": "wire"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        raise ImportError(f'{name} needs  pip install "nxotp_async[fast]"', name=error.name) from error
