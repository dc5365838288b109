"""The sandbox's one account, and a client of it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import attrs

from ..client import OtpClient
from ..signing import Credentials

__all__ = ["SANDBOX_BUSINESS_PHONE", "SANDBOX_CREDENTIALS", "sandbox_client"]

SANDBOX_CREDENTIALS: Final = Credentials("sandbox-access-key", "sandbox-access-secret", "sandbox-appkey")
"""The keys of the sandbox's account. They are not secret."""
SANDBOX_BUSINESS_PHONE: Final = "99955500000"
"""The number bound to the sandbox's application."""


class _SandboxClient(OtpClient):
    _environment: ClassVar[Mapping[str, str]] = {}


def sandbox_client(base_url: str, **options: Any) -> OtpClient:  # noqa: ANN401 - OtpClient checks them
    """Return a client with the sandbox's account and number. It reads no variable: those are for a real account.

    Args:
        base_url: Where a sandbox listens, in another process for example.
        options: Those of `OtpClient`.
    """
    account = {**attrs.asdict(SANDBOX_CREDENTIALS), "business_phone": SANDBOX_BUSINESS_PHONE}
    return _SandboxClient(**{**account, "base_url": base_url, **options})
