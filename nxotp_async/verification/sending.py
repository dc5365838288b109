"""The messages of verifications, over WhatsApp, and once over another channel if WhatsApp does not deliver."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b

import attrs

from ..client import OtpClient
from ..clocks import Clock
from ..codes import MetaCode
from ..errors import NxOtpError, OutcomeUnknownError, RefusalReason, VerificationRefusedError
from ..hooks import call_hook
from ..languages import Language
from ..messages import OtpMessage
from ..results import SendStatus
from .codes import VerificationKey
from .events import Action, Events, VerificationEvent, event_about
from .fallback import Fallback, Fallbacks, call_fallback
from .limiter import Limiter
from .numbers import Recipient
from .state import VerificationState, VerificationStatus
from .storage import Verifications

__all__ = ["Sender", "message_id_of"]


@attrs.frozen
class Sender:
    """Sends the messages of verifications.

    Attributes:
        client: Sends them over WhatsApp.
        verifications: Where the verifications are stored.
        limiter: Counts them.
        events: Hears of them.
        clock: The source of time.
        test_codes: The codes of test numbers.
        fallback: Sends them over another channel, if there is one.
        fallbacks: Waits for the delivery of those over WhatsApp, if somebody shall.
        on_low_conversion: Says whether a low conversion is no reason to refuse one, if it is asked.
    """

    client: OtpClient
    verifications: Verifications
    limiter: Limiter
    events: Events
    clock: Clock
    test_codes: Mapping[str, str]
    fallback: Fallback | None
    fallbacks: Fallbacks | None
    on_low_conversion: Callable[[VerificationEvent], bool] | None

    def code(self, verification_id: str, key: VerificationKey, number: str | None) -> str:
        """Return the code of a verification."""
        return self.test_codes.get(number or "") or key.code(verification_id)

    def waives(self, action: Action, recipient: Recipient) -> bool:
        """Return whether a message shall be sent although too few before it led to an approval."""
        event = event_about(action, recipient, reason=RefusalReason.LOW_CONVERSION)
        return self.on_low_conversion is not None and call_hook(self.on_low_conversion, event) is True

    async def send(
        self, action: Action, verification_id: str, state: VerificationState, key: VerificationKey, recipient: Recipient
    ) -> tuple[VerificationState, SendStatus]:
        """Send the message of a verification; return the verification's state, and what is known of the message.

        Raises:
            VerificationRefusedError: WhatsApp cannot deliver to this number, and there is no other channel.
            NxOtpError: It was not sent.
        """
        message = self._message(verification_id, state, key, recipient, str(state.resends))
        about = partial(event_about, action, recipient, message_id=message.cus_message_id)
        fall_back = partial(self._fall_back, verification_id, key, recipient)
        try:
            status = await self._post(message)
        except VerificationRefusedError as refusal:
            sent = await fall_back()
            if sent is None:
                raise
            self.events.report(about(status=SendStatus.REJECTED, reason=refusal.reason))
            return attrs.evolve(state, has_fallen_back=True), sent
        if self.fallbacks is not None:
            self.fallbacks.watch(message_id_of(verification_id, str(state.resends)), fall_back)
        self.events.report(about(status=status))
        return state, status

    async def _post(self, message: OtpMessage) -> SendStatus:
        try:
            return (await self.client.send(message)).status
        except OutcomeUnknownError:
            return SendStatus.UNKNOWN
        except NxOtpError as error:
            meta_code = MetaCode.find(error.meta_code)
            if meta_code is None or not meta_code.undeliverable:
                raise
            raise VerificationRefusedError(
                "WhatsApp cannot deliver to this number",
                reason=RefusalReason.UNDELIVERABLE,
                code=error.code,
                meta_code=error.meta_code,
                cus_message_id=error.cus_message_id,
                attempts=error.attempts,
                result=error.result,
            ) from None

    async def _fall_back(self, verification_id: str, key: VerificationKey, recipient: Recipient) -> SendStatus | None:
        """Give the code to the fallback, once; return what is known of its message, and ``None`` if it sends none."""
        now = self.clock.time()
        if self.fallback is None:
            return None
        try:
            with self.events.failures(Action.FALLBACK, recipient):
                before = await self.verifications.get(verification_id)
                if before is None or before.has_fallen_back or before.status_at(now) is not VerificationStatus.PENDING:
                    return None
                waives = partial(self.waives, Action.FALLBACK, recipient)
                async with self.limiter.admitted(recipient.scopes, now, waives=waives):
                    # Of all processes, one gets past this line.
                    fallen_back = partial(VerificationState.fallen_back, now=now)
                    state = await self.verifications.change(verification_id, fallen_back)
                    message = self._message(verification_id, state, key, recipient, "fallback")
                    status = await call_fallback(self.fallback, message)
        except NxOtpError:  # reported
            return None
        event = event_about(Action.FALLBACK, recipient, status, message_id=message.cus_message_id)
        self.events.report(event)
        return status

    def _message(
        self, verification_id: str, state: VerificationState, key: VerificationKey, recipient: Recipient, name: str
    ) -> OtpMessage:
        return OtpMessage.restored(
            recipient.number,
            self.code(verification_id, key, recipient.number),
            language_code=None if state.language_code is None else Language.parse(state.language_code),
            cus_message_id=message_id_of(verification_id, name),
            expires_at=datetime.fromtimestamp(state.expires_at, UTC),
        )


def message_id_of(verification_id: str, name: str) -> str:
    """Return the id of one of a verification's messages. It does not show the verification's id.

    Args:
        verification_id: The id of the verification.
        name: The number of the resend, or another name.
    """
    text = f"{name} {verification_id}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=16, person=b"nxotp message").hexdigest()
