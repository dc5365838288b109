"""What the sandbox remembers of a request."""

from collections.abc import Mapping
from typing import Any, Final

import attrs

from ..phone_numbers import mask_number
from .checks import otp_code
from .faults import FaultKind

__all__ = ["ReceivedRequest"]

_TS_DIGITS: Final = 16  # more are no time; Python refuses to convert thousands


@attrs.frozen
class ReceivedRequest:
    """A request that the sandbox received, and the outcome.

    Attributes:
        arrived_at: Seconds since the epoch, by the sandbox's clock.
        headers: The request's headers.
        body: Its raw body; empty if the connection was reset before it was read.
        fields: The parsed body; empty if it was not a JSON object.
        code: The vendor's code for it, whether or not the answer said so.
        fault: The fault that was applied to it.
        message_id: The id of the message that was sent, or ``None`` if none was.
        why: What is wrong with it, or the fault; empty if there is nothing to say.
        is_sms: Whether it is for the vendor's SMS service, and not for WhatsApp.
    """

    arrived_at: float
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    fields: Mapping[str, Any] = attrs.field(repr=False)
    code: int
    fault: FaultKind
    message_id: str | None
    why: str = ""
    is_sms: bool = False

    @property
    def to(self) -> str:
        """The recipient's number; empty if there is none."""
        return self._text("to") or self._text("phone")

    @property
    def content(self) -> str:
        """The content as it was sent; empty if there is none."""
        return self._text("content")

    @property
    def otp(self) -> str | None:
        """The OTP code, as the vendor extracts it from the content."""
        return otp_code(self.content)

    @property
    def cus_message_id(self) -> str | None:
        """The sender's own id."""
        return self.fields.get("cus_message_id") or self.fields.get("sysMessageId")

    @property
    def ts(self) -> int:
        """The ``ts`` header, in milliseconds; 0 if it is missing or not a number."""
        ts = self.headers.get("ts", "")
        return int(ts) if ts.isascii() and ts.isdigit() and len(ts) <= _TS_DIGITS else 0

    def _text(self, name: str) -> str:
        value = self.fields.get(name)
        return value if isinstance(value, str) else ""

    def __str__(self) -> str:
        return f"{self.cus_message_id or '-'} to {mask_number(self.to)}: {int(self.code)} {self.fault}"
