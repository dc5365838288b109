"""Pending logins, in memory: shared by the login programs in this folder.

If several processes serve the logins, store them in your database or a cache.
"""

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

CODE_LIFE = 300.0  # seconds
ATTEMPTS = 5


@dataclass
class Login:
    """One login. Only a keyed hash of the code is stored, not the code."""

    number: str
    digest: bytes
    expires_at: float
    attempts_left: int = ATTEMPTS


class Logins:
    """Pending logins, the oldest first."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._logins: dict[str, Login] = {}

    def begin(self, number: str, code: str) -> str:
        """Store the hash of a code, and return the id of the login."""
        now = time.monotonic()
        while self._logins and self._logins[oldest := next(iter(self._logins))].expires_at <= now:
            del self._logins[oldest]
        login_id = secrets.token_urlsafe(16)
        self._logins[login_id] = Login(number, self._digest(login_id, code), now + CODE_LIFE)
        return login_id

    def verify(self, login_id: str, code: str) -> str | None:
        """Return the number if the code is correct, once. Every call is one of the login's attempts."""
        login = self._logins.get(login_id)
        if login is None or login.expires_at <= time.monotonic():
            return None
        login.attempts_left -= 1
        is_correct = hmac.compare_digest(login.digest, self._digest(login_id, code))
        if is_correct or not login.attempts_left:
            del self._logins[login_id]
        return login.number if is_correct else None

    def _digest(self, login_id: str, code: str) -> bytes:
        text = f"{login_id}:{code}".encode(errors="surrogatepass")
        return hmac.digest(self._key, text, hashlib.sha256)
