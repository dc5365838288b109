"""What the methods of a verifier return."""

from datetime import datetime

import attrs

from ..phone_numbers import mask_number
from ..results import SendStatus
from .state import CheckStatus, VerificationStatus

__all__ = ["Check", "Verification"]


@attrs.frozen
class Verification:
    """A verification, as it was when a method of `Verifier` returned it.

    Attributes:
        id: What `Verifier.check` and `Verifier.resend` take: for the person's browser, in a form or a session.
        status: Where it stands.
        expires_at: When it expires.
        resend_at: From when on the message may be sent again; ``None`` means never.
        checks_left: How many codes may still be checked.
        message_id: The ``cus_message_id`` of the last WhatsApp message, for `DeliveryTracker.wait`.
        has_fallen_back: Whether the code was given to the verifier's ``fallback``.
        send_status: What is known of the message that was just sent: accepted, or unknown. ``None`` from
            `Verifier.get`.
    """

    id: str = attrs.field(repr=False)
    status: VerificationStatus
    expires_at: datetime
    resend_at: datetime | None
    checks_left: int
    message_id: str
    has_fallen_back: bool = False
    send_status: SendStatus | None = None


@attrs.frozen
class Check:
    """What a check found.

    Attributes:
        status: Approved, wrong, expired, spent or unknown.
        number: The verified number as E.164 digits if it is approved, else ``None``.
        checks_left: How many codes may still be checked.
    """

    status: CheckStatus
    number: str | None = attrs.field(default=None, repr=lambda number: repr(number and mask_number(number)))
    checks_left: int = 0

    @property
    def approved(self) -> bool:
        """Whether the code was right. Then the number is this person's."""
        return self.status is CheckStatus.APPROVED
