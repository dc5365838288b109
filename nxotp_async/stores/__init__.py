"""Where processes keep what they have to agree on: the states of messages, rates, verifications.

`MemoryStore` is for one process. `PostgresStore` (``pip install "nxotp_async[postgres]"``) and `RedisStore`
(``pip install "nxotp_async[redis]"``, also for Valkey) are for any number of processes and machines.
"""

import importlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ..checks import text, validate
from ..errors import ConfigurationError, sensitive_variables
from .base import Migration, Store, hashed_key
from .memory import MemoryStore

if TYPE_CHECKING:
    from .postgres import PostgresStore
    from .redis import RedisStore

__all__ = ["MemoryStore", "Migration", "PostgresStore", "RedisStore", "Store", "hashed_key", "store_from_url"]

_EXTRAS: Final[Mapping[str, str]] = {"PostgresStore": "postgres", "RedisStore": "redis"}
_SCHEMES: Final[Mapping[str, str]] = {
    "postgresql": "PostgresStore",
    "postgres": "PostgresStore",
    "redis": "RedisStore",
    "rediss": "RedisStore",
    "unix": "RedisStore",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class
    if name not in _EXTRAS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    extra = _EXTRAS[name]
    try:
        return getattr(importlib.import_module(f".{extra}", __name__), name)
    except ModuleNotFoundError as error:
        raise ImportError(f'{name} needs  pip install "nxotp_async[{extra}]"', name=error.name) from error


@sensitive_variables
def store_from_url(
    url: str | None = None, *, environment: Mapping[str, str] | None = None
) -> "MemoryStore | PostgresStore | RedisStore":
    """Return the store that a URL names; nothing is connected yet.

    Args:
        url: ``postgresql://…``, ``redis://…``, ``rediss://…``, ``unix://…`` or ``memory://``. Default: the variable
            ``NXOTP_STORE``. If that leads to a pooler, ``NXOTP_STORE_LISTEN`` names PostgreSQL itself.
        environment: The variables. Default: those of this process.

    Raises:
        ConfigurationError: There is no URL, it is wrong, or its package is not installed.
    """
    environment = os.environ if environment is None else environment
    url = validate("url", text, url or environment.get("NXOTP_STORE") or "", ConfigurationError)
    scheme = url.partition(":")[0]
    if scheme == "memory":
        return MemoryStore()
    if scheme not in _SCHEMES:
        raise ConfigurationError(
            "the store's URL (or NXOTP_STORE) is missing" if not url else "the store's URL has an unknown scheme",
            hint="postgresql://user:password@host/database, redis://host:6379/0 (also Valkey), memory:// for one process",
        )
    try:
        kind = __getattr__(_SCHEMES[scheme])
    except ImportError as error:
        raise ConfigurationError(str(error)) from None
    options = {"listen_url": environment.get("NXOTP_STORE_LISTEN") or None} if kind.__name__ == "PostgresStore" else {}
    store: PostgresStore | RedisStore = kind(url, **options)
    return store
