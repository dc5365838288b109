"""The sandbox's one account, and a client of it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import attrs

from ..client import OtpClient
from ..signing import SANDBOX_CREDENTIALS, Credentials
from ..urls import plain_http_host

__all__ = ["SANDBOX_BUSINESS_PHONE", "SANDBOX_CREDENTIALS", "client_settings", "environ_of", "sandbox_client"]

SANDBOX_BUSINESS_PHONE: Final = "99955500000"
"""The number bound to the sandbox's application."""


class _SandboxClient(OtpClient):
    _environment: ClassVar[Mapping[str, str]] = {}


def sandbox_client(base_url: str, **options: Any) -> OtpClient:  # noqa: ANN401 - OtpClient checks them
    """Return a client with the sandbox's account and number. It reads no variable: those are for a real account.

    Args:
        base_url: Where a sandbox listens, in another process or container for example.
        options: Those of `OtpClient`.
    """
    return _SandboxClient(**{**client_settings(base_url), **options})


def client_settings(
    base_url: str,
    credentials: Credentials = SANDBOX_CREDENTIALS,
    business_phone: str | None = SANDBOX_BUSINESS_PHONE,
) -> dict[str, str | None]:
    """Return the settings of a client of a sandbox."""
    settings = {"base_url": base_url, **attrs.asdict(credentials), "business_phone": business_phone}
    return {**settings, "insecure_sandbox_host": plain_http_host(base_url)}


def environ_of(settings: Mapping[str, str | None]) -> dict[str, str]:
    """Return settings as the environment variables that a client reads."""
    return {f"NXOTP_{name.upper()}": value for name, value in settings.items() if value is not None}
