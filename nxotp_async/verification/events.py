"""The decisions of a verifier, for the log and the application's hooks: without codes and whole numbers."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

import attrs

from ..checks import optional, validate
from ..errors import ConfigurationError, NxOtpError, RefusalReason, StoreError, VerificationRefusedError
from ..hooks import call_hook, parse_hook
from ..phone_numbers import mask_number
from ..results import SendStatus
from .numbers import Recipient
from .state import CheckStatus

__all__ = ["Action", "EventHook", "Events", "VerificationEvent", "event_about"]

_log = logging.getLogger("nxotp_async")


class Action(StrEnum):
    """What a `Verifier` was asked for, or did by itself."""

    START = "start"
    CHECK = "check"
    RESEND = "resend"
    CANCEL = "cancel"
    FALLBACK = "fallback"
    """The code was given to another channel, or would have been."""


@attrs.frozen
class VerificationEvent:
    """A decision of a `Verifier`.

    Attributes:
        action: What was asked for.
        status: What became of the message, or what the check found. ``None`` if no message was sent because of the
            ``reason``, and for a cancellation.
        reason: Why no message was sent, or ``UNDELIVERABLE``; else ``None``.
        number: The number, masked: ``62*********90``. ``None`` if it is not known.
        prefix: The number without its last four digits, masked.
        country: The number's country by two letters, or ``None``.
        message_id: The ``cus_message_id``, if there is a message.
    """

    action: Action
    status: SendStatus | CheckStatus | None = None
    reason: RefusalReason | None = None
    number: str | None = None
    prefix: str | None = None
    country: str | None = None
    message_id: str | None = None


def event_about(
    action: Action,
    recipient: Recipient | None,
    status: SendStatus | CheckStatus | None = None,
    reason: RefusalReason | None = None,
    message_id: str | None = None,
) -> VerificationEvent:
    """Return an event that is about a recipient, if that is known."""
    if recipient is None:
        return VerificationEvent(action, status, reason, message_id=message_id)
    masked = mask_number(recipient.number), mask_number(recipient.prefix)
    return VerificationEvent(action, status, reason, *masked, recipient.country, message_id)


EventHook = Callable[[VerificationEvent], None]

_EXPECTED: Final = frozenset({SendStatus.ACCEPTED, CheckStatus.APPROVED})


class Events:
    """Logs events, and gives them to hooks."""

    def __init__(self) -> None:
        self.hooks: tuple[EventHook, ...] = ()

    @property
    def are_wanted(self) -> bool:
        """Whether anybody looks at them."""
        return bool(self.hooks) or _log.isEnabledFor(logging.INFO)

    def add_hook(self, hook: EventHook | None) -> None:
        """Add a hook.

        Raises:
            ConfigurationError: It cannot be called, or would have to be awaited.
        """
        validate("on_event", optional(parse_hook), hook, ConfigurationError)
        if hook is not None:
            self.hooks += (hook,)

    def report(self, event: VerificationEvent) -> None:
        """Log an event, with DEBUG if all went well, otherwise with INFO, and call the hooks for it."""
        level = logging.DEBUG if event.reason is None and event.status in {*_EXPECTED, None} else logging.INFO
        if _log.isEnabledFor(level):
            facts = {
                "cus_message_id": event.message_id,
                "recipient": event.number,
                "action": event.action.value,
                "status": None if event.status is None else event.status.value,
                "reason": None if event.reason is None else event.reason.value,
                "country": event.country,
            }
            outcome = ", ".join(filter(None, (facts["status"], facts["reason"]))) or "done"
            _log.log(level, "verification, %s of %s: %s", facts["action"], event.number or "?", outcome, extra=facts)
        for hook in self.hooks:
            call_hook(hook, event)

    @contextmanager
    def failures(self, action: Action, recipient: Recipient | None) -> Iterator[None]:
        """Report the error that the block raises instead of sending a message."""
        try:
            yield
        except NxOtpError as error:
            reason = error.reason if isinstance(error, VerificationRefusedError) else None
            self.report(event_about(action, recipient, _status_of(error), reason, error.cus_message_id))
            raise


def _status_of(error: NxOtpError) -> SendStatus | None:
    """Return what is known of a message, if there is one."""
    if isinstance(error, VerificationRefusedError):
        return None if error.result is None else error.result.status
    if isinstance(error, StoreError | ConfigurationError):  # before anything was sent
        return SendStatus.NOT_SENT
    return SendStatus.of(error)
