"""Verifications: started, checked, sent again and cancelled, in any number of processes over one store."""

import hmac
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from typing import Any, ClassVar, Final, Literal

import attrs

from ..checks import InvalidValueError, instance_of, optional, validate
from ..client import OtpClient
from ..clocks import Clock
from ..codes import MetaCode
from ..errors import (
    ConfigurationError,
    NxOtpError,
    OutcomeUnknownError,
    RefusalReason,
    StoreError,
    VerificationRefusedError,
    sensitive_variables,
)
from ..languages import Language
from ..messages import OtpMessage, check_field
from ..phone_numbers import mask_number, parse_number, parse_region
from ..results import SendStatus
from ..stores import Store, hashed_key
from .codes import VerificationKey, load_keys, normalize_code
from .limiter import Limiter
from .limits import Limits, Scope
from .numbers import check_number, parse_countries, parse_ip, scopes_of
from .state import CheckStatus, VerificationState, VerificationStatus

__all__ = ["Check", "Verification", "Verifier"]

_KEPT: Final = 3600.0  # seconds for which an ended verification is told from one that never was


@attrs.frozen
class Verification:
    """A verification, as it was when a method of `Verifier` returned it.

    Attributes:
        id: What `Verifier.check` and `Verifier.resend` take: for the person's browser, in a form or a session.
        status: Where it stands.
        expires_at: When it expires.
        resend_at: From when on the message may be sent again; ``None`` means never.
        checks_left: How many codes may still be checked.
        message_id: The ``cus_message_id`` of the last message, for `DeliveryTracker.wait`.
        send_status: What is known of the message that was just sent: accepted, or unknown. ``None`` from
            `Verifier.get`.
    """

    id: str = attrs.field(repr=False)
    status: VerificationStatus
    expires_at: datetime
    resend_at: datetime | None
    checks_left: int
    message_id: str
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


class Verifier:
    """Finds out whether a phone number is a person's: sends a code to it, and checks the code that the person gives.

    Any number of processes may share the store; each change of a verification is atomic. Their clocks must agree to a
    second or so. A verifier may be used in several event loops and threads. It need not be closed; its client and its
    store do.

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
        clock: Clock | None = None,
    ) -> None:
        self._client = validate("client", instance_of(OtpClient), client, ConfigurationError)
        self._store = validate("store", _parse_store, store, ConfigurationError)
        self._keys = load_keys(key, self._environment)
        self._countries = validate("countries", parse_countries, countries, ConfigurationError)
        self._limits = validate("limits", instance_of(Limits), limits or Limits(), ConfigurationError)
        self._language_code = validate("language_code", optional(Language.parse), language_code, ConfigurationError)
        self._clock = clock or client.state.clock
        self._limiter = Limiter(store, self._limits, self._keys[0].digests)

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
                it may be. `RefusalReason.UNDELIVERABLE`: this number is not on WhatsApp.
            ApiError: The vendor said no, for another reason than the number.
            NotSentError: The message provably never left.
        """
        now = self._clock.time()
        default_region = None if region is None else check_field("region", parse_region, region)
        digits = check_field("number", partial(parse_number, default_region=default_region), number)
        network = None if ip is None else check_field("ip", parse_ip, ip)
        language = None if language_code is None else check_field("language_code", Language.parse, language_code)
        check_number(digits, self._countries, is_sandbox=self._client.url.startswith("http:"))
        names = scopes_of(digits) | {Scope.NUMBER: digits} | ({} if network is None else {Scope.IP: network})
        id_ = secrets.token_urlsafe(24)
        state = VerificationState(
            sealed=self._keys[0].seal(id_, digits),
            expires_at=now + self._limits.lifetime,
            resend_at=now + self._limits.resend_after[0] if self._limits.resend_after else None,
            checks_left=self._limits.checks,
            language_code=language or self._language_code,
        )
        async with self._limiter.admitted(names, now):
            await self._store.update(_key(id_), lambda _: state.dump(), ttl=self._ttl)
            try:
                return await self._send(id_, state, self._keys[0], digits)
            except NxOtpError:
                with suppress(StoreError):
                    await self.cancel(id_)
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
        check = Check(CheckStatus.UNKNOWN)

        def change(value: bytes | None) -> bytes | None:
            nonlocal check
            if value is None:
                check = Check(CheckStatus.UNKNOWN)
                return None
            before = VerificationState.load(value)
            key, number = self._unseal(verification_id, before)
            # Without the key, it was a verification of a key that has been removed since.
            is_right = key is not None and hmac.compare_digest(typed, key.code(verification_id))
            after, status = before.checked(now, is_right=is_right)
            check = Check(status, number if status is CheckStatus.APPROVED else None, after.checks_left)
            return value if after == before else after.dump()

        if isinstance(verification_id, str):
            await self._store.update(_key(verification_id), change, ttl=self._ttl)
        if check.number is not None:
            await self._limiter.approved(scopes_of(check.number), now)
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
        before = await self._stored(verification_id)
        key, number = (None, None) if before is None else self._unseal(verification_id, before)
        if before is None or key is None or number is None:
            raise VerificationRefusedError("the verification has ended", reason=RefusalReason.NOT_PENDING)
        resent(before)  # what may not be sent again is not counted
        async with self._limiter.admitted(scopes_of(number), now):
            after = await self._change(verification_id, resent)
            return await self._send(verification_id, after, key, number)

    async def cancel(self, verification_id: str) -> None:
        """Have no code approved any more. One that was approved stays so, and an unknown id does nothing."""
        if await self._stored(verification_id) is not None:
            await self._change(verification_id, VerificationState.cancelled)

    async def get(self, verification_id: str) -> Verification | None:
        """Return a verification, or ``None`` if there is none with this id, or it ended more than an hour ago."""
        state = await self._stored(verification_id)
        return None if state is None else self._verification(verification_id, state)

    @property
    def _ttl(self) -> float:
        return self._limits.lifetime + _KEPT

    async def _stored(self, verification_id: object) -> VerificationState | None:
        value = await self._store.get(_key(verification_id)) if isinstance(verification_id, str) else None
        return None if value is None else VerificationState.load(value)

    async def _change(
        self, verification_id: str, change: Callable[[VerificationState], VerificationState]
    ) -> VerificationState:
        """Change a verification that is stored, and return its new state."""

        def apply(value: bytes | None) -> bytes:
            if value is None:  # it has just expired in the store
                raise VerificationRefusedError("the verification has ended", reason=RefusalReason.NOT_PENDING)
            return change(VerificationState.load(value)).dump()

        value = await self._store.update(_key(verification_id), apply, ttl=self._ttl)
        return VerificationState.load(value or b"")

    def _unseal(self, verification_id: str, state: VerificationState) -> tuple[VerificationKey | None, str | None]:
        """Return the key that a verification was made with, and its number; nothing of one that has ended."""
        for key in self._keys:
            if number := key.unseal(verification_id, state.sealed):
                return key, number
        return None, None

    async def _send(
        self, verification_id: str, state: VerificationState, key: VerificationKey, number: str
    ) -> Verification:
        message = OtpMessage(
            number,
            key.code(verification_id),
            language_code=state.language_code,
            cus_message_id=_message_id(verification_id, state.resends),
            expires_at=_datetime(state.expires_at),
        )
        try:
            status = (await self._client.send(message)).status
        except OutcomeUnknownError:
            status = SendStatus.UNKNOWN
        except NxOtpError as error:
            if error.meta_code != MetaCode.UNDELIVERABLE:
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
        return attrs.evolve(self._verification(verification_id, state), send_status=status)

    def _verification(self, verification_id: str, state: VerificationState) -> Verification:
        return Verification(
            verification_id,
            state.status_at(self._clock.time()),
            _datetime(state.expires_at),
            None if state.resend_at is None else _datetime(state.resend_at),
            state.checks_left,
            _message_id(verification_id, state.resends),
        )


def _parse_store(value: Any) -> Store:  # noqa: ANN401 - a protocol: any class may be a store
    if not (hasattr(value, "get") and hasattr(value, "update") and hasattr(value, "reserve")):
        raise InvalidValueError(f"must be a Store, not {type(value).__name__}", "store_from_url() makes one")
    store: Store = value
    return store


def _key(verification_id: str) -> str:
    return hashed_key("verification", verification_id)


def _message_id(verification_id: str, resends: int) -> str:
    """Return the id of the message after so many resends. It does not show the verification's id."""
    text = f"{resends} {verification_id}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=16, person=b"nxotp message").hexdigest()


def _datetime(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
