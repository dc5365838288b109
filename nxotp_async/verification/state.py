"""The life of a verification: what each event makes of it. No I/O, and no clock of its own."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import attrs
import orjson
from cattrs.preconf.orjson import make_converter

from ..errors import RefusalReason, StoreError, VerificationRefusedError

__all__ = ["CheckStatus", "VerificationState", "VerificationStatus"]


class VerificationStatus(StrEnum):
    """Where a verification stands."""

    PENDING = "pending"
    """A code was sent, and can be checked."""
    APPROVED = "approved"
    """The right code was given."""
    EXPIRED = "expired"
    """Nobody gave the right code in time."""
    SPENT = "spent"
    """All checks were used up by wrong codes."""
    CANCELLED = "cancelled"
    """The application cancelled it, or its message was not sent."""


class CheckStatus(StrEnum):
    """What a check found."""

    APPROVED = "approved"
    """The code is right. No other check of this verification finds that."""
    WRONG = "wrong"
    """The code is wrong; one check less is left."""
    EXPIRED = "expired"
    """The verification has expired, whatever the code."""
    SPENT = "spent"
    """The verification has ended, whatever the code: approved before, cancelled, or all checks were used up."""
    UNKNOWN = "unknown"
    """There is no verification with this id, or it ended long ago."""


@attrs.frozen
class VerificationState:
    """What is stored of a verification: neither its code nor its id, and its number only as it was sealed.

    Attributes:
        sealed: The number, for whoever has the id and the key; empty after an end.
        expires_at: When it expires, in seconds since the epoch.
        resend_at: When the message may be sent again, in seconds since the epoch; ``None`` means never.
        checks_left: How many codes may still be checked.
        language_code: The template language that was asked for, or ``None``.
        resends: How often the message was sent again.
        has_fallen_back: Whether another channel was asked to send the code.
        status: Pending, approved or cancelled; `status_at` knows the rest.
        version: The version of this form. A worker does not touch what a newer one has written in another form.
    """

    sealed: bytes
    expires_at: float
    resend_at: float | None
    checks_left: int
    language_code: str | None = None
    resends: int = 0
    has_fallen_back: bool = False
    status: VerificationStatus = VerificationStatus.PENDING
    version: int = 1

    def status_at(self, now: float) -> VerificationStatus:
        """Return where it stands at this time, in seconds since the epoch."""
        if self.status is not VerificationStatus.PENDING:
            return self.status
        if self.checks_left == 0:
            return VerificationStatus.SPENT
        return VerificationStatus.EXPIRED if now >= self.expires_at else VerificationStatus.PENDING

    def checked(self, now: float, *, is_right: bool) -> tuple["VerificationState", CheckStatus]:
        """Return the state after a check, and what the check found."""
        match self.status_at(now):
            case VerificationStatus.PENDING if is_right:
                return self._ended(VerificationStatus.APPROVED), CheckStatus.APPROVED
            case VerificationStatus.PENDING:
                return attrs.evolve(self, checks_left=self.checks_left - 1), CheckStatus.WRONG
            case VerificationStatus.EXPIRED:
                return self, CheckStatus.EXPIRED
        return self, CheckStatus.SPENT

    def resent(self, now: float, pauses: Sequence[float]) -> "VerificationState":
        """Return the state after the message was sent again.

        Args:
            now: The time, in seconds since the epoch.
            pauses: The seconds before the first resend, between it and the second, and so on.

        Raises:
            VerificationRefusedError: It may not be sent again, or not yet.
        """
        if self.status_at(now) is not VerificationStatus.PENDING:
            raise VerificationRefusedError("the verification has ended", reason=RefusalReason.NOT_PENDING)
        if self.resend_at is None:
            problem = "the message was sent again as often as it may be"
            raise VerificationRefusedError(problem, reason=RefusalReason.NO_RESENDS_LEFT)
        if now < self.resend_at:
            problem = "the message was sent a moment ago"
            raise VerificationRefusedError(problem, reason=RefusalReason.TOO_SOON, retry_after=self.resend_at - now)
        resends = self.resends + 1
        resend_at = now + pauses[resends] if resends < len(pauses) else None
        return attrs.evolve(self, resends=resends, resend_at=resend_at)

    def fallen_back(self, now: float) -> "VerificationState":
        """Return the state after another channel was asked to send the code: once at most.

        Raises:
            VerificationRefusedError: It was asked before, or the verification has ended.
        """
        if self.has_fallen_back or self.status_at(now) is not VerificationStatus.PENDING:
            raise VerificationRefusedError("nothing more to send", reason=RefusalReason.NOT_PENDING)
        return attrs.evolve(self, has_fallen_back=True)

    def cancelled(self) -> "VerificationState":
        """Return the state after it was cancelled. One that was approved stays so."""
        return self if self.status is VerificationStatus.APPROVED else self._ended(VerificationStatus.CANCELLED)

    def _ended(self, status: VerificationStatus) -> "VerificationState":
        return attrs.evolve(self, status=status, sealed=b"")

    def dump(self) -> bytes:
        """Return it as a JSON document."""
        return _converter.dumps(self)

    @classmethod
    def load(cls, value: bytes) -> "VerificationState":
        """Return what a document holds.

        Raises:
            StoreError: A newer version of the library has written it.
        """
        fields = orjson.loads(value)
        if fields["version"] > 1:
            raise StoreError("a newer version of nxotp_async has written this verification", hint="update this worker")
        return _converter.structure(fields, cls)


_converter: Final = make_converter(forbid_extra_keys=False)
