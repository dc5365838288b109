"""Codes and numbers under the application's key: nothing that is stored shows either."""

import hmac
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

from ..errors import ConfigurationError, sensitive_variables

__all__ = ["CODE_LENGTH", "VerificationKey", "load_keys", "normalize_code"]

CODE_LENGTH: Final = 6
"""Digits of a code."""
_VARIABLE: Final = "NXOTP_VERIFICATION_KEY"
_MIN_KEY: Final = 32  # characters or bytes: 128 bits also of a key that was written in hexadecimal
_NUMBER_LENGTH: Final = 15  # digits of the longest E.164 number
_TAG_LENGTH: Final = 16
_MAX_TYPED: Final = 64  # characters
_SEPARATORS: Final = frozenset({"Zs", "Pd", "Cf", "Cc"})  # spaces, dashes, direction marks, tabs and line ends


class VerificationKey:
    """A key of the application's, and all that is made with it.

    A verification's id is its random seed: 192 bits, known to the application and the person's browser, and stored
    only as a digest. Code and number need both, the id and the key, so that whoever has the store's data and even the
    key cannot read the numbers of people.

    The number is encrypted with a one-time pad, HMAC-SHA256 of the id, of which the number is the only thing ever
    encrypted, and is authenticated by a second HMAC over the id and the result (encrypt-then-MAC, RFC 7366). Each
    use has a key of its own, as in RFC 5869. So AES, for which Python's own library has nothing, is not needed.
    """

    __slots__ = ("_code", "_pad", "_tag", "digests")

    def __init__(self, key: bytes) -> None:
        self._code, self._pad, self._tag, self.digests = (
            hmac.digest(key, b"nxotp verification " + use, "sha256") for use in (b"code", b"pad", b"tag", b"digests")
        )

    def __repr__(self) -> str:
        return "VerificationKey(***)"

    def code(self, verification_id: str) -> str:
        """Return the code: the same whenever it is asked for (RFC 4226, section 5.3)."""
        digest = hmac.digest(self._code, verification_id.encode(), "sha256")
        offset = digest[-1] & 0xF
        number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFF_FFFF
        return f"{number % 10**CODE_LENGTH:0{CODE_LENGTH}}"

    def seal(self, verification_id: str, number: str) -> bytes:
        """Encrypt a number of at most 15 digits. Its length does not show."""
        encrypted = self._xor(verification_id, number.ljust(_NUMBER_LENGTH).encode())
        return encrypted + self._tag_of(verification_id, encrypted)

    def unseal(self, verification_id: str, sealed: bytes) -> str | None:
        """Return the number that this key has sealed for this id, and ``None`` for everything else."""
        encrypted, tag = sealed[:-_TAG_LENGTH], sealed[-_TAG_LENGTH:]
        if not hmac.compare_digest(tag, self._tag_of(verification_id, encrypted)):
            return None
        return self._xor(verification_id, encrypted).decode().rstrip()

    def _xor(self, verification_id: str, text: bytes) -> bytes:
        pad = hmac.digest(self._pad, verification_id.encode(), "sha256")
        return bytes(byte ^ key for byte, key in zip(text, pad, strict=False))

    def _tag_of(self, verification_id: str, encrypted: bytes) -> bytes:
        return hmac.digest(self._tag, encrypted + verification_id.encode(), "sha256")[:_TAG_LENGTH]


@sensitive_variables
def load_keys(
    key: str | bytes | Iterable[str | bytes] | None, environment: Mapping[str, str]
) -> tuple[VerificationKey, ...]:
    """Return the keys: the first one makes verifications, all of them check.

    Args:
        key: A key, or several; ``None`` takes those of ``NXOTP_VERIFICATION_KEY``, which are separated by commas.
        environment: The variables.

    Raises:
        ConfigurationError: There is none, or one is too short.
    """
    if key is None:
        key = [part.strip() for part in environment.get(_VARIABLE, "").split(",") if part.strip()]
    keys = [key] if isinstance(key, str | bytes) or not hasattr(key, "__iter__") else list(key)
    if not keys:
        raise ConfigurationError(f"key (or {_VARIABLE}) is missing", hint=_HINT)
    return tuple(VerificationKey(_check_key(each)) for each in keys)


_HINT: Final = "make one with: openssl rand -hex 32"


def _check_key(key: object) -> bytes:
    if not isinstance(key, str | bytes):
        raise ConfigurationError(f"key (or {_VARIABLE}) must be str or bytes, not {type(key).__name__}", hint=_HINT)
    data = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    if len(data) < _MIN_KEY:
        raise ConfigurationError(f"key (or {_VARIABLE}) is shorter than {_MIN_KEY} characters", hint=_HINT)
    return data


def normalize_code(typed: object) -> str:
    """Return the digits 0-9 of a code as a person typed it, and an empty text for what cannot be a code.

    Spaces, dashes and invisible marks between the digits are left out; other decimal digits (full-width, Arabic) become
    0-9.
    """
    if not isinstance(typed, str) or len(typed) > _MAX_TYPED:
        return ""
    rest = [char for char in typed if unicodedata.category(char) not in _SEPARATORS]
    if len(rest) != CODE_LENGTH or not all(char.isdecimal() for char in rest):
        return ""
    return "".join(str(unicodedata.decimal(char)) for char in rest)
