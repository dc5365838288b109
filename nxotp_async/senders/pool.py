"""`SenderPool`: a client that sends by several numbers."""

import logging
import math
from collections.abc import Iterable
from typing import Final

import attrs

from ..checks import instance_of, validate
from ..client import OtpClient
from ..client_state import ClientState
from ..codes import MetaCode
from ..delivery import Delivery
from ..errors import ConfigurationError, NotSentError, NxOtpError
from ..messages import OtpMessage
from ..results import SendResult, SendStatus
from ..settings import Settings
from ..signing import Credentials
from .daily import DailyCount
from .health import Failing, Failure, Health, StepBack
from .sender import Sender, in_order

__all__ = ["SenderPool", "SenderState"]

_log = logging.getLogger("nxotp_async")

_SOON: Final = 1.0  # seconds
_THROTTLING: Final = frozenset(code for code in MetaCode if code.throttling)


@attrs.frozen
class SenderState:
    """How a sender of a pool is at present.

    Attributes:
        sender: The sender.
        reason: Why it has stepped back, or ``None`` if it sends.
        returns_in: In how many seconds a message is sent by it again.
        sent: Messages of its account in the last 24 hours, by this process.
    """

    sender: Sender
    reason: StepBack | None
    returns_in: float
    sent: int


class SenderPool(OtpClient):
    """A client that sends by several numbers, of one account or of several. It is used as any other client is.

    Each recipient belongs to a sender, by a stable hash of its number, and stays with it. A sender that the vendor
    throttles, that is not bound to its application, or whose account is refused or exhausted steps back, and returns by
    itself; meanwhile the next one in the recipient's order sends. A message that was rejected for its sender's sake is
    sent by the next one at once; one that may have been accepted never is. A result's ``message`` names the number that
    it is about, and its ``history`` the others that were tried.

    A message with a ``business_phone`` goes by that number alone, at its rate; where that is none of the senders, it is
    one of the client's account with a rate of 80.

    Args:
        client: Its settings, connections and hooks are those of the pool; closing either closes both. Its
            ``business_phone`` is not used, and its ``max_concurrency`` is divided among the senders by their rates.
        senders: The numbers.

    Raises:
        ConfigurationError: There are no senders, two are the same number, or two accounts with the same keys differ;
            or the client is a pool itself, or has a ``rate_limit``.
    """

    def __init__(self, client: OtpClient, senders: Iterable[Sender]) -> None:
        settings = validate("client", instance_of(OtpClient), client, ConfigurationError).settings
        if isinstance(client, SenderPool):
            raise ConfigurationError("client is a SenderPool already")
        if settings.rate_limit is not None:
            raise ConfigurationError("a SenderPool has the rates of its senders: leave rate_limit of the client out")
        self._state = client.state
        self._team = _Team(list(senders), settings, client.state)
        self._settings = attrs.evolve(settings, business_phone=None, rate_limit=self._team.per_second)
        self._settings_of: dict[_Member, Settings] = {}

    def __repr__(self) -> str:
        return f"<SenderPool of {len(self._team.members)} senders, {self.url}>"

    @property
    def max_concurrency(self) -> int:
        """How many messages are under way at the most, per event loop: a second's worth of all rates at least."""
        return max(self._settings.max_concurrency, int(self._team.per_second))

    @property
    def senders(self) -> list[SenderState]:
        """How each sender is at present."""
        now = self._state.clock.monotonic()
        return [member.describe(now) for member in self._team.members]

    def _view(self, settings: Settings) -> OtpClient:
        return _PoolView(settings, self._state, self._team)

    async def _attempt(self, message: OtpMessage) -> SendResult:
        began = self._state.clock.monotonic()
        candidates = self._team.candidates(message)
        results: list[SendResult] = []
        while (member := await self._choose(candidates, message, began)) is not None:
            attempts = results[-1].attempts if results else 0
            result = await self._send_by(member, message, began, attempts)
            if isinstance(result.error, _SteppedBackError):
                continue
            results.append(result)
            failure = Failure.found_in(result.error)
            if failure is None and not self._was_cut_short(member, result):
                break
            candidates = [other for other in candidates if not member.fails_with(other, failure)]
            # As the policy says, one that is throttled is tried again, after all others.
            is_throttled = failure is not None and failure.reason is StepBack.THROTTLED
            if is_throttled and len(results) < self._settings.retry.max_attempts:
                candidates.append(member)
        return _conclusion(results) if results else self._unavailable(message, candidates, began)

    async def _choose(self, candidates: "list[_Member]", message: OtpMessage, began: float) -> "_Member | None":
        """Let the message through by the first candidate that is ready, or is soon; wait, if there is the time."""
        clock = self._state.clock
        while candidates:
            now = clock.monotonic()
            left = began + self._settings.deadline - now
            if message.expires_at is not None:
                left = min(left, message.expires_at.timestamp() - clock.time())
            soon = (member for member in candidates if member.returns_soon(now, left))
            member = next(soon, None) or min(candidates, key=lambda candidate: candidate.ready_at(now))
            wait = member.ready_at(now) - now
            if wait <= 0:
                member.let_through(now)
                return member
            if wait >= left:
                return None
            await clock.sleep(wait)
        return None

    async def _send_by(self, member: "_Member", message: OtpMessage, began: float, attempts: int) -> SendResult:
        """Send a message by a sender, and take in what that says of the sender."""
        settings = self._settings_of.get(member)
        if settings is None:
            settings = self._settings_of[member] = member.settings_from(self._settings)
        message = message.with_defaults(
            cus_message_id="",
            language_code=settings.language_code,
            dr_webhook=None,
            business_phone=settings.business_phone,
        )
        loop = member.state.of_running_loop()
        result = await Delivery(message, settings, member.state, loop, began=began, attempts=attempts).run()
        member.take_in(result, self._state.clock.monotonic())
        return result

    def _was_cut_short(self, member: "_Member", result: SendResult) -> bool:
        """Return whether the message would have been tried again, if its sender had not stepped back meanwhile."""
        error = result.error
        if error is None or result.status is SendStatus.UNKNOWN:
            return False
        return member.refusal() is not None and self._settings.retry.retries(error)

    def _unavailable(self, message: OtpMessage, candidates: "list[_Member]", began: float) -> SendResult:
        now = self._state.clock.monotonic()
        why = ", ".join(f"{member.sender.label} {member.describe(now).reason}" for member in candidates)
        error = NotSentError(
            f"no sender is ready in time: {why}",
            temporary=True,
            retry_after=min(member.ready_at(now) for member in candidates) - now,
            cus_message_id=message.cus_message_id,
        )
        lasting = [member.lasting_refusal(now) for member in candidates]
        if None not in lasting:
            error.__cause__ = lasting[0]
        return SendResult(message, SendStatus.NOT_SENT, elapsed=now - began, error=error)


class _PoolView(SenderPool):
    """A pool with settings of its own, and everything else of another one."""

    def __init__(self, settings: Settings, state: ClientState, team: "_Team") -> None:
        self._settings = settings
        self._state = state
        self._team = team
        self._settings_of = {}


def _conclusion(results: list[SendResult]) -> SendResult:
    """Return the result of a message that several senders were tried for: the latest with the status that prevails."""
    if len(results) == 1:
        return results[0]
    last = results[-1]
    final = max(reversed(results), key=lambda result: result.status.precedence)
    if final.error is not None:
        final.error.attempts = last.attempts
    history = tuple(result for result in results if result is not final)
    return attrs.evolve(final, attempts=last.attempts, elapsed=last.elapsed, history=history)


class _SteppedBackError(NotSentError):
    """The sender has stepped back while the message waited for its rate. Nobody outside the pool gets it."""


class _Account:
    """What the senders of an account have in common."""

    def __init__(self, daily_limit: int | None) -> None:
        self.daily_limit = daily_limit
        self.health = Health()
        self.lasting: NxOtpError | None = None
        self.sent = DailyCount(daily_limit)


class _Member:
    """A sender of a pool: its health, its account, and its permits and rate for each event loop."""

    def __init__(self, sender: Sender, account: _Account, state: ClientState) -> None:
        self.sender = sender
        self.account = account
        self.state = state
        self.health = Health()
        self.lasting: NxOtpError | None = None  # why it has stepped back, if it has failed again on trial
        state.refusal = self.refusal

    def refusal(self) -> NotSentError | None:
        """Return why what waits for its rate is not to be sent: it has stepped back meanwhile."""
        now = self.state.clock.monotonic()
        if self.health.is_closed(now) or self.account.health.is_closed(now):
            return _SteppedBackError(f"{self.sender.label} has stepped back while the message waited for its rate")
        return None

    def lasting_refusal(self, now: float) -> NxOtpError | None:
        """Return what the vendor has refused it for again on trial, if nothing is to be sent by it for that reason."""
        return next((one.lasting for one in (self.account, self) if one.health.is_closed(now) and one.lasting), None)

    def ready_at(self, now: float) -> float:
        """Return when a message may be sent by it."""
        return max(self.health.until, self.account.health.until, self.account.sent.has_room_at(now))

    def returns_soon(self, now: float, left: float) -> bool:
        """Return whether a message should rather wait for it than go by another: it was throttled for a moment only."""
        is_throttled = {self.health.reason, self.account.health.reason} <= {None, StepBack.THROTTLED}
        return self.ready_at(now) - now <= (min(_SOON, left / 2) if is_throttled else 0.0)

    def let_through(self, now: float) -> None:
        """Take in that a message is sent by it."""
        self.health = self.health.letting_through(now)
        self.account.health = self.account.health.letting_through(now)
        self.account.sent.add(now)

    def take_in(self, result: SendResult, now: float) -> None:
        """Take in what became of a message that was let through."""
        if result.error is None:
            self.health = self.health.accepted(now)
            self.account.health = self.account.health.accepted(now)
        elif result.status is not SendStatus.UNKNOWN:
            self.account.sent.add(now, -1)
            self._take_in_failure(result.error, now)

    def _take_in_failure(self, error: NxOtpError, now: float) -> None:
        failure = Failure.found_in(error)
        if failure is None or failure.reason is None:
            return
        of = self if failure.of is Failing.NUMBER else self.account
        before, of.health = of.health, of.health.failed(failure.reason, now, retry_after=error.retry_after)
        if of.health is not before:
            of.lasting = error if before.reason is failure.reason is not StepBack.THROTTLED else None
            who = self.sender.label if of is self else f"the account of {self.sender.label}"
            _log.warning("%s steps back for %g s, %s: %s", who, of.health.pause, failure.reason, error)

    def describe(self, now: float) -> SenderState:
        """Return how it is at present."""
        reason = next((one.reason for one in (self.account.health, self.health) if one.until > now), None)
        if reason is None and not self.account.sent.has_room(now):
            reason = StepBack.EXHAUSTED
        wait = max(0.0, self.ready_at(now) - now)
        return SenderState(self.sender, reason, wait, self.account.sent.count(now))

    def fails_with(self, other: "_Member", failure: Failure | None) -> bool:
        """Return whether another sender would fail for the same."""
        of_account = failure is not None and failure.of is Failing.ACCOUNT
        return other is self or (of_account and other.account is self.account)

    def settings_from(self, settings: Settings) -> Settings:
        """Return the settings for sending by it: those of a pool, with its number and keys."""
        own, retry = self.sender.account.credentials or settings.credentials, settings.retry
        # Where it is throttled, the pool tries the next sender.
        retry = attrs.evolve(retry, transient_meta_codes=retry.transient_meta_codes - _THROTTLING)
        return attrs.evolve(
            settings,
            access_key=own.access_key,
            access_secret=own.access_secret,
            appkey=own.appkey or settings.appkey,
            business_phone=self.sender.business_phone,
            retry=retry,
        )


class _Team:
    """The members of a pool, which its views share, and those that only messages with their number go by."""

    def __init__(self, senders: list[Sender], settings: Settings, state: ClientState) -> None:
        for sender in senders:
            validate("senders", instance_of(Sender), sender, ConfigurationError)
        if not senders:
            raise ConfigurationError("senders is empty: name one number at least")
        self.per_second = sum(sender.per_second for sender in senders)
        self._settings = settings
        self._state = state
        self._accounts: dict[Credentials, _Account] = {}
        self._by_number: dict[str | None, _Member] = {}
        self.members = [self._add(sender) for sender in senders]

    def candidates(self, message: OtpMessage) -> list[_Member]:
        """Return who may send a message, in the order in which they are to be tried."""
        number = message.business_phone
        if number is None:
            return in_order(self.members, message.to, lambda member: member.sender)
        return [self._by_number.get(number) or self._add(Sender(number))]

    def _add(self, sender: Sender) -> _Member:
        if sender.business_phone in self._by_number:
            raise ConfigurationError(f"two senders are {sender.label}")
        keys, limit = sender.account.credentials or self._settings.credentials, sender.account.daily_limit
        account = self._accounts.setdefault(keys, _Account(limit))
        if account.daily_limit != limit:
            raise ConfigurationError("two accounts with the same keys have different limits: give both the same")
        share = math.ceil(self._settings.max_concurrency * sender.per_second / self.per_second)
        state = self._state.with_limits(min(share, self._settings.max_concurrency), sender.rate)
        self._by_number[sender.business_phone] = member = _Member(sender, account, state)
        return member
