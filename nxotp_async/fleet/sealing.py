"""What of a message is stored, and how: encrypted, with keys that may be replaced."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from ..errors import ConfigurationError, sensitive_variables
from ..languages import Language
from ..messages import ApiType, Category, OtpMessage

__all__ = ["Keys", "UnreadableError"]

_HINT: Final = (
    'make one with  python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"  '
    "and give the same keys to all that use the outbox"
)


_ENUMS: Final[Mapping[str, Any]] = {
    "language_code": Language,
    "category": Category,
    "api_type": ApiType,
}


class UnreadableError(Exception):
    """No key opens what is stored, or it belongs to another row."""


class Keys:
    """The keys of an outbox: the first one seals, and all of them open.

    A key is replaced in three steps, each on all machines before the next one: add the new key at the end; move it to
    the front; remove the old one when what was sealed with it has expired.

    Args:
        keys: Fernet keys: 32 bytes in URL-safe base64.

    Raises:
        ConfigurationError: There is none, or one is no key.
    """

    @sensitive_variables
    def __init__(self, keys: Sequence[str]) -> None:
        if isinstance(keys, str) or not keys:
            raise ConfigurationError("keys (or NXOTP_OUTBOX_KEYS) are missing: a list of keys", hint=_HINT)
        fernets = []
        for place, key in enumerate(keys, start=1):
            try:
                fernets.append(Fernet(key))
            except (ValueError, TypeError):
                raise ConfigurationError(f"key {place} of NXOTP_OUTBOX_KEYS is no Fernet key", hint=_HINT) from None
        self._fernet = MultiFernet(fernets)
        self.row_key = _derived(keys[0], b"row")
        """What identifies the rows of files that have no ``cus_message_id``: a digest with the first key."""
        self._digest_keys = [_derived(key, b"number") for key in keys]
        self.fingerprints: list[str] = [_derived(key, b"fingerprint").hex() for key in keys]
        """What tells the keys apart, and nothing about them, in their order."""

    @sensitive_variables
    def seal(self, message: OtpMessage, cus_message_id: str) -> bytes:
        """Return what a row stores of a message."""
        fields = {
            "id": cus_message_id,
            "to": message.to,
            "content": message.content,
            "language_code": message.language_code,
            "category": message.category,
            "dr_webhook": message.dr_webhook,
            "api_type": message.api_type,
            "business_phone": message.business_phone,
        }
        return self._fernet.encrypt(orjson.dumps({name: value for name, value in fields.items() if value is not None}))

    @sensitive_variables
    def open(self, sealed: bytes, cus_message_id: str, expires_at: datetime) -> OtpMessage:
        """Return the message of a row.

        Raises:
            UnreadableError: No key opens it, or it was sealed for another id.
        """
        try:
            fields: dict[str, Any] = orjson.loads(self._fernet.decrypt(sealed))
        except InvalidToken:
            raise UnreadableError("no key of NXOTP_OUTBOX_KEYS opens it") from None
        if fields.pop("id") != cus_message_id:
            raise UnreadableError("what is stored under this id is another message's")
        for name, kind in _ENUMS.items():
            if name in fields:
                fields[name] = kind(fields[name])
        return OtpMessage.restored(**fields, cus_message_id=cus_message_id, expires_at=expires_at)

    @sensitive_variables
    def digests(self, number: str) -> list[bytes]:
        """Return what a number may be stored as, to look it up by: one digest for each key, the first one's first."""
        return [hashlib.blake2b(number.encode(), digest_size=16, key=key).digest() for key in self._digest_keys]


def _derived(key: str, purpose: bytes) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16, person=purpose).digest()
