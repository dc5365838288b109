"""The vendor's signature scheme ("API Interface Invocation Convention"), and the keys it needs."""

import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import Final, NoReturn, Self

import attrs

from .checks import header_text, validate
from .errors import ConfigurationError, sensitive_variables

__all__ = ["SANDBOX_CREDENTIALS", "Credentials", "sign", "signed_text", "verify"]


def _hidden(value: str) -> str:
    return "'***'" if value else "''"


@attrs.frozen
class Credentials:
    """An account's keys. None of them is ever shown by ``repr``, and the object refuses to be pickled.

    Attributes:
        access_key: Names the account; travels in every request.
        access_secret: Signs the requests; never sent.
        appkey: Names the WhatsApp application; travels in every body.
    """

    access_key: str = attrs.field(repr=_hidden)
    access_secret: str = attrs.field(repr=_hidden)
    appkey: str = attrs.field(default="", repr=_hidden)

    @classmethod
    @sensitive_variables
    def from_env(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Return the keys of ``NXOTP_ACCESS_KEY``, ``NXOTP_ACCESS_SECRET`` and, where it is set, ``NXOTP_APPKEY``.

        Args:
            environment: The variables. Default: those of this process.

        Raises:
            ConfigurationError: A variable is missing or wrong.
        """
        environment = os.environ if environment is None else environment
        variables = {field.name: f"NXOTP_{field.name.upper()}" for field in attrs.fields(cls)}
        found = {name: environment[variable] for name, variable in variables.items() if environment.get(variable)}
        missing = [variables[name] for name in ("access_key", "access_secret") if name not in found]
        if missing:
            raise ConfigurationError(
                "; ".join(f"{variable} is not set" for variable in missing),
                hint="no account yet? nxotp sandbox --env prints the variables of a sandbox",
            )
        for name, value in found.items():
            validate(variables[name], header_text, value, ConfigurationError)
        return cls(**found)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("Credentials refuse to be pickled; read them from the environment on the other side")


SANDBOX_CREDENTIALS: Final = Credentials("sandbox-access-key", "sandbox-access-secret", "sandbox-appkey")
"""The keys of the sandbox's account. They are not secret."""


def signed_text(
    body: bytes, *, ts: int | str, credentials: Credentials, action: str = "mt", biz_type: str = "2"
) -> bytes:
    """Return the exact bytes that are hashed, the access secret included. Never log them.

    Args:
        body: The JSON exactly as it is sent; the body's part is left out when it is empty.
        ts: Milliseconds since the epoch, as in the ``ts`` header.
        credentials: The account's keys.
        action: The ``action`` header.
        biz_type: The ``bizType`` header.
    """
    head = f"accessKey={credentials.access_key}&action={action}&bizType={biz_type}&ts={ts}".encode()
    tail = f"&accessSecret={credentials.access_secret}".encode()
    return head + b"&body=" + body + tail if body else head + tail


def sign(body: bytes, *, ts: int, credentials: Credentials, action: str = "mt", biz_type: str = "2") -> str:
    """Return the ``sign`` header: the lowercase hex MD5 of `signed_text`, whose arguments it takes."""
    text = signed_text(body, ts=ts, credentials=credentials, action=action, biz_type=biz_type)
    return hashlib.md5(text, usedforsecurity=False).hexdigest()


def verify(
    signature: str, body: bytes, *, ts: int, credentials: Credentials, action: str = "mt", biz_type: str = "2"
) -> bool:
    """Return whether the signature is the right one, in constant time. The arguments are those of `sign`."""
    expected = sign(body, ts=ts, credentials=credentials, action=action, biz_type=biz_type)
    return hmac.compare_digest(expected.encode(), signature.encode(errors="replace"))
