"""Verifications: started, checked, sent again and cancelled, in any number of processes over one store."""

import hmac
import inspect
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, Final, Literal, Self

import attrs
from yarl import URL

from ..checks import InvalidValueError, instance_of, number, optional, validate
from ..client import OtpClient
from ..clocks import Clock
from ..errors import (
    ConfigurationError,
    NxOtpError,
    RefusalReason,
    StoreError,
    VerificationRefusedError,
    sensitive_variables,
)
from ..hooks import parse_hook
from ..languages import Language
from ..messages import check_field
from ..phone_numbers import parse_number, parse_region
from ..stores import Store
from ..urls import is_loopback
from .codes import VerificationKey, load_keys, normalize_code
from .events import Action, EventHook, Events, VerificationEvent, event_about
from .fallback import Fallback, Fallbacks
from .limiter import Limiter
from .limits import Limits, Scope
from .numbers import Recipient, parse_countries, parse_ip, parse_test_numbers
from .results import Check, Verification
from .sending import Sender, message_id_of
from .state import CheckStatus, VerificationState
from .storage import Verifications

__all__ = ["Verifier"]

_KEPT: Final = 3600.0  # seconds for which an ended verification is told from one that never was


class Verifier:
    """Finds out whether a phone number is a person's: sends a code to it, and checks the code that the person gives.

    Any number of processes may share the store; each change of a verification is atomic. Their clocks must agree to a
    second or so. A verifier may be used in several event loops and threads. Without ``fallback_after``, it need not be
    closed; its client and its store do, after it.

    Every method raises `StoreError` if the store does not answer in time, and `ConfigurationError` if it cannot be
    used as it is configured. Then nothing was sent.

    Args:
        client: Sends the messages.
        store: Where verifications and counts are stored: neither codes nor whole numbers.
        key: The secret that codes are made with, of at least 32 characters; the same in all processes. Of several, the
            first one makes, and all of them check. Default: those of ``NXOTP_VERIFICATION_KEY``, separated by commas.
        countries: The countries whose numbers are verified, by their two letters: ``{"ID", "SG"}``. ``"any"`` means
            every country, also those where a message costs a hundred times as much.
        limits: How often. Default: ``Limits()``.
        language_code: The template language of messages. Default: the client's.
        fallback: Sends a code over another channel if WhatsApp cannot deliver it: a coroutine function that is
            called with the message, such as `SmsFallback`. Of all processes together, it is called
            once at most for a verification. Its messages count in the limits, too.
        fallback_after: Seconds after which it is called as well, if no callback has said by then that the message was
            delivered. It needs the client's ``tracker``, and the verifier must be closed: ``async with``. A process
            that ends meanwhile calls it no more. Default: only if WhatsApp says at once that it cannot deliver.
        on_event: Called with every `VerificationEvent`; see `add_hook`.
        on_low_conversion: Called with the event of a message that would be refused because of a low conversion. If it
            returns ``True``, the message is sent. Default: it is refused.
        test_numbers: Numbers whose codes are always the same, ``{"+999 555 0100": "123456"}``, for tests. They are
            refused unless the client sends to loopback.
        clock: The source of time. Default: the client's.

    Raises:
        ConfigurationError: An argument is missing or wrong.
    """

    _environment: ClassVar[Mapping[str, str]] = os.environ

    @sensitive_variables
    def __init__(
        self,
        client: OtpClient,
        *,
        store: Store,
        key: str | bytes | Iterable[str | bytes] | None = None,
        countries: Collection[str] | Literal["any"],
        limits: Limits | None = None,
        language_code: Language | str | None = None,
        fallback: Fallback | None = None,
        fallback_after: float | None = None,
        on_event: EventHook | None = None,
        on_low_conversion: Callable[[VerificationEvent], bool] | None = None,
        test_numbers: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        validate("client", instance_of(OtpClient), client, ConfigurationError)
        validate("store", _parse_store, store, ConfigurationError)
        self._client = client
        self._keys = load_keys(key, self._environment)
        self._countries = validate("countries", parse_countries, countries, ConfigurationError)
        self._limits = validate(
            "limits", instance_of(Limits), Limits() if limits is None else limits, ConfigurationError
        )
        self._language_code = validate("language_code", optional(Language.parse), language_code, ConfigurationError)
        self._clock = validate(
            "clock", instance_of(Clock), client.state.clock if clock is None else clock, ConfigurationError
        )
        self._limiter = Limiter(store, self._limits, self._keys[0].digests)
        self._verifications = Verifications(store, self._ttl)
        self._events = Events()
        self.add_hook(on_event)
        validate("on_low_conversion", optional(parse_hook), on_low_conversion, ConfigurationError)
        validate("fallback", optional(_parse_fallback), fallback, ConfigurationError)
        test_codes = validate("test_numbers", optional(parse_test_numbers), test_numbers, ConfigurationError) or {}
        if test_codes and not is_loopback(URL(client.url).host or ""):
            raise ConfigurationError("test_numbers must not be set unless the client sends to loopback")
        self._fallbacks = None if fallback_after is None else self._fallbacks_after(fallback_after, fallback)
        self._sender = Sender(
            *(client, self._verifications, self._limiter, self._events, self._clock),
            *(test_codes, fallback, self._fallbacks, on_low_conversion),
        )

    def _fallbacks_after(self, seconds: float, fallback: Fallback | None) -> Fallbacks:
        check = number(above=0, at_most=self._limits.lifetime)
        validate("fallback_after", check, seconds, ConfigurationError)
        tracker = self._client.state.tracker
        if fallback is None or tracker is None:
            raise ConfigurationError(
                "fallback_after needs a fallback, and a client with a tracker", hint="OtpClient(tracker=...)"
            )
        return Fallbacks(tracker, seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop waiting for deliveries in the running event loop, and wait for what a fallback is sending."""
        if self._fallbacks is not None:
            await self._fallbacks.aclose()

    def add_hook(self, on_event: EventHook | None) -> None:
        """Have a function called with every decision from now on.

        It runs in the event loop, and must not block. One that raises is logged, and changes nothing.

        Raises:
            ConfigurationError: It cannot be called, or would have to be awaited.
        """
        self._events.add_hook(on_event)

    @property
    def hooks(self) -> tuple[EventHook, ...]:
        """The functions that are called with every decision."""
        return self._events.hooks

    def __repr__(self) -> str:
        countries = "any" if self._countries is None else sorted(self._countries)
        return f"Verifier({self._client!r}, countries={countries})"

    @property
    def clock(self) -> Clock:
        """The source of time."""
        return self._clock

    @sensitive_variables
    async def start(
        self,
        number: str,
        *,
        region: str | None = None,
        ip: str | None = None,
        language_code: Language | str | None = None,
    ) -> Verification:
        """Send a code to a number, and return the verification, whose ``id`` goes with the code to `Verifier.check`.

        If it is not known whether the message was accepted, the verification goes on: the person may hold the code.

        Args:
            number: The number as the person wrote it.
            region: Whose national numbers to expect where there is no +: the two letters of a country.
            ip: The IP address of the person, for the limit by address. Behind a proxy, it is not the connection's.
            language_code: The template language of this message. Default: the verifier's.

        Raises:
            InvalidMessageError: An argument is wrong; ``error.field`` names it, and ``error.reason`` says why.
            VerificationRefusedError: No message was sent; ``error.reason`` says why, and ``error.retry_after`` when
                it may be. `RefusalReason.UNDELIVERABLE`: this number is not on WhatsApp, and no fallback has sent
                the code.
            ApiError: The vendor said no, for another reason than the number.
            NotSentError: The message provably never left.
        """
        now = self._clock.time()
        default_region = None if region is None else check_field("region", parse_region, region)
        digits = check_field("number", partial(parse_number, default_region=default_region), number)
        network = None if ip is None else check_field("ip", parse_ip, ip)
        language = None if language_code is None else check_field("language_code", Language.parse, language_code)
        recipient = Recipient.of(digits)
        names = recipient.scopes | {Scope.NUMBER: digits} | ({} if network is None else {Scope.IP: network})
        id_ = secrets.token_urlsafe(24)
        state = VerificationState(
            sealed=self._keys[0].seal(id_, digits),
            expires_at=now + self._limits.lifetime,
            resend_at=now + self._limits.resend_after[0] if self._limits.resend_after else None,
            checks_left=self._limits.checks,
            language_code=language or self._language_code,
        )
        with self._events.failures(Action.START, recipient):
            recipient.check(self._countries, is_sandbox=self._client.url.startswith("http:"))
            added, waives = self._verifications.add(id_, state), partial(self._sender.waives, Action.START, recipient)
            try:
                async with self._limiter.admitted(names, now, meanwhile=added, waives=waives):
                    return await self._send(Action.START, id_, state, self._keys[0], recipient)
            except NxOtpError:
                with suppress(StoreError):  # nobody knows its id
                    await self._verifications.remove(id_)
                raise

    @sensitive_variables
    async def check(self, verification_id: str, code: str) -> Check:
        """Check a code that a person gave. Of all checks of a verification, one at most is approved.

        Args:
            verification_id: The ``id`` of a `Verification`.
            code: The code as the person typed it, also with spaces and in other digits. What cannot be a code is wrong,
                and takes a check, too.
        """
        now, typed = self._clock.time(), normalize_code(code)
        check, number = Check(CheckStatus.UNKNOWN), None

        def change(value: bytes | None) -> bytes | None:
            nonlocal check, number
            check, number = Check(CheckStatus.UNKNOWN), None
            if value is None:
                return None
            before = VerificationState.load(value)
            key, number = self._unseal(verification_id, before)
            # Without the key, it was a verification of a key that has been removed since.
            is_right = key is not None and hmac.compare_digest(typed, self._sender.code(verification_id, key, number))
            after, status = before.checked(now, is_right=is_right)
            check = Check(status, number if status is CheckStatus.APPROVED else None, after.checks_left)
            return value if after == before else after.dump()

        if isinstance(verification_id, str):
            await self._verifications.update(verification_id, change)
        is_of_interest = check.approved or self._events.are_wanted
        recipient = Recipient.of(number) if number is not None and is_of_interest else None
        self._events.report(event_about(Action.CHECK, recipient, check.status))
        if check.approved and recipient is not None:
            await self._limiter.approved(recipient.scopes, now)
        return check

    @sensitive_variables
    async def resend(self, verification_id: str) -> Verification:
        """Send the same code again, and return the verification.

        Raises:
            VerificationRefusedError: No message was sent; ``error.reason`` says why, and ``error.retry_after`` when
                it may be.
            ApiError: The vendor said no, for another reason than the number.
            NotSentError: The message provably never left.
        """
        now = self._clock.time()
        resent = partial(VerificationState.resent, now=now, pauses=self._limits.resend_after)
        before = await self._verifications.get(verification_id)
        key, number = (None, None) if before is None else self._unseal(verification_id, before)
        recipient = None if number is None else Recipient.of(number)
        with self._events.failures(Action.RESEND, recipient):
            if before is None or key is None or recipient is None:
                raise VerificationRefusedError("the verification has ended", reason=RefusalReason.NOT_PENDING)
            resent(before)  # what may not be sent again is not counted
            waives = partial(self._sender.waives, Action.RESEND, recipient)
            async with self._limiter.admitted(recipient.scopes, now, waives=waives):
                after = await self._verifications.change(verification_id, resent)
                return await self._send(Action.RESEND, verification_id, after, key, recipient)

    async def cancel(self, verification_id: str) -> None:
        """Have no code approved any more. One that was approved stays so, and an unknown id does nothing."""
        before = await self._verifications.get(verification_id)
        if before is None:
            return
        with suppress(VerificationRefusedError):  # it has just expired in the store
            after = await self._verifications.change(verification_id, VerificationState.cancelled)
            _, number = self._unseal(verification_id, before)
            if after != before:
                recipient = None if number is None else Recipient.of(number)
                self._events.report(event_about(Action.CANCEL, recipient))

    async def get(self, verification_id: str) -> Verification | None:
        """Return a verification, or ``None`` if there is none with this id, or it ended more than an hour ago."""
        state = await self._verifications.get(verification_id)
        return None if state is None else self._verification(verification_id, state)

    @property
    def _ttl(self) -> float:
        return self._limits.lifetime + _KEPT

    def _unseal(self, verification_id: str, state: VerificationState) -> tuple[VerificationKey | None, str | None]:
        """Return the key that a verification was made with, and its number; nothing of one that has ended."""
        for key in self._keys:
            if number := key.unseal(verification_id, state.sealed):
                return key, number
        return None, None

    async def _send(
        self, action: Action, verification_id: str, state: VerificationState, key: VerificationKey, recipient: Recipient
    ) -> Verification:
        state, status = await self._sender.send(action, verification_id, state, key, recipient)
        return attrs.evolve(self._verification(verification_id, state), send_status=status)

    def _verification(self, verification_id: str, state: VerificationState) -> Verification:
        return Verification(
            verification_id,
            state.status_at(self._clock.time()),
            _datetime(state.expires_at),
            None if state.resend_at is None else _datetime(state.resend_at),
            state.checks_left,
            message_id_of(verification_id, str(state.resends)),
            state.has_fallen_back,
        )


def _parse_store(value: Any) -> Store:  # noqa: ANN401 - a protocol: any class may be a store
    if not (hasattr(value, "get") and hasattr(value, "update") and hasattr(value, "reserve")):
        raise InvalidValueError(f"must be a Store, not {type(value).__name__}", "store_from_url() makes one")
    store: Store = value
    return store


def _parse_fallback(value: Any) -> Fallback:  # noqa: ANN401 - a function, or an object that can be called
    if not (inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__)):
        raise InvalidValueError("must be a coroutine function", "async def send_sms(message): ...")
    fallback: Fallback = value
    return fallback


def _datetime(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
