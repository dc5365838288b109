"""One message's way to the vendor: permit, rate, clock, signature, POST, verdict, and perhaps again."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Final

import attrs

from .clocks import Clock
from .errors import NotSentError, NxOtpError, OutcomeUnknownError, TimestampExpiredError, TransportError, without_frames
from .hooks import Hooks
from .messages import OtpMessage
from .protocol import decode, encode, request_headers, server_time
from .results import SendResult, SendStatus
from .retry import RetryQuota, retrying
from .settings import Settings
from .streaming import Stream
from .transports import Answer, Transport

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

__all__ = ["Delivery", "Lane", "Shared", "Skew", "import_what_sending_needs"]

_log = logging.getLogger("nxotp_async")


def import_what_sending_needs(*, rate_limit: float | None) -> None:
    """Import what takes too long for ``import nxotp_async``, before the first send needs it.

    A program that has no file descriptors left cannot import anything, and must still be told what became of its
    messages.
    """
    import tenacity  # noqa: F401, PLC0415

    if rate_limit is not None:
        import aiolimiter  # noqa: F401, PLC0415


class Lane:
    """What the sends of one event loop share.

    Attributes:
        permits: One for each request in flight.
        limiter: The rate limit, if there is one.
        asleep: How many sends are between two attempts.
        streams: The open `send_many` and `send_batch`.
    """

    def __init__(self, max_concurrency: int, rate_limit: float | None) -> None:
        self.permits: asyncio.Semaphore = asyncio.Semaphore(max_concurrency)
        self.limiter: AsyncLimiter | None = None if rate_limit is None else _smooth_limiter(rate_limit)
        self.asleep = 0
        self.streams: set[Stream] = set()


def _smooth_limiter(rate: float) -> "AsyncLimiter":
    from aiolimiter import AsyncLimiter  # noqa: PLC0415 - takes long to import, and most clients have no limit

    # The bucket starts full, and all of it may go out at once: a hundredth of a second's worth keeps the first
    # second smooth, and is still enough to make up for timers that fire late.
    burst = max(1.0, rate / 100)
    return AsyncLimiter(burst, burst / rate)


class Skew:
    """How far the vendor's clock is ahead of this machine's, as far as its refusals have shown.

    Attributes:
        offset: Seconds to add to this machine's clock.
    """

    WINDOW: Final = 60.0  # seconds the vendor allows ("API Interface Invocation Convention")

    def __init__(self) -> None:
        self.offset: float = 0.0

    def explains(self, *, claimed: float, sent: float, received: float, headers: Mapping[str, str]) -> bool:
        """Learn from a refused timestamp, and return whether the two clocks explain the refusal.

        Args:
            claimed: The refused timestamp, in seconds since the epoch.
            sent: This machine's clock before the request, in the same seconds.
            received: This machine's clock after the answer.
            headers: The answer's headers; without a usable ``Date`` nothing is explained.
        """
        date = server_time(headers)
        if date is None:
            return False
        # The header was cut to a whole second, and was written at some time between sent and received.
        server_now = date + 0.5
        uncertainty = 0.5 + abs(received - sent) / 2
        if abs(claimed - server_now) + uncertainty <= self.WINDOW:
            return False
        offset = server_now - (sent + received) / 2
        if abs(offset - self.offset) > 2 * uncertainty:
            _log.warning("this machine's clock differs from the vendor's by %.1f s; timestamps are corrected", offset)
        self.offset = offset
        return True


class AcceptedIds:
    """The message ids of the latest messages that were accepted, and whose they are.

    An answer with another message's id was not meant for this one.
    """

    MANY: Final = 10_000

    def __init__(self) -> None:
        self._owners: OrderedDict[str, str] = OrderedDict()

    def owner(self, message_id: str, cus_message_id: str) -> str:
        """Return the ``cus_message_id`` of the message that this id was given to first."""
        owner = self._owners.setdefault(message_id, cus_message_id)
        if len(self._owners) > self.MANY:
            self._owners.popitem(last=False)
        return owner


@attrs.frozen
class Shared:
    """What all sends of a client share, whatever their event loop.

    Attributes:
        transport: Makes the POSTs.
        clock: The sources of time and chance.
        quota: Limits the retries.
        skew: The vendor's clock.
        in_flight: The ``cus_message_id`` of every message on its way, with a mark of whose it is.
        accepted_ids: The message ids of the latest accepted messages.
        hooks: Who is told of attempts and results.
    """

    transport: Transport
    clock: Clock
    quota: RetryQuota = attrs.Factory(RetryQuota)
    skew: Skew = attrs.Factory(Skew)
    in_flight: dict[str, object] = attrs.Factory(dict)
    accepted_ids: AcceptedIds = attrs.Factory(AcceptedIds)
    hooks: Hooks = attrs.Factory(Hooks)


class Delivery:
    """The attempts for one message. Its identity, the ``cus_message_id`` and the body's bytes, never changes."""

    __slots__ = (
        "_attempts",
        "_body",
        "_corrected",
        "_deadline_at",
        "_gave_up",
        "_lane",
        "_message",
        "_paused",
        "_posts",
        "_settings",
        "_shared",
        "_started_at",
        "_tokens",
        "_verdict",
    )

    def __init__(self, message: OtpMessage, settings: Settings, shared: Shared, lane: Lane) -> None:
        self._message = message
        self._settings = settings
        self._shared = shared
        self._lane = lane
        self._body = encode(message, settings.credentials.appkey)
        self._started_at = shared.clock.monotonic()
        self._deadline_at = self._started_at + settings.deadline
        self._attempts = 0
        self._paused = 0.0  # seconds between attempts
        self._posts = 0  # those attempts after which something may have left
        self._tokens = 0  # taken from the retry quota
        self._corrected = False  # the timestamp, once
        self._gave_up = ""  # why there was no further attempt
        self._verdict: NxOtpError | None = None  # of the failed attempts, the one that says most

    async def run(self) -> SendResult:
        """Send the message, and return what became of it. Raises for cancellation only."""
        quota = self._shared.quota
        try:
            outcome = await self._attempt()
            if not isinstance(outcome, str) and self._may_follow(outcome):
                outcome = await self._retry(outcome)
        except asyncio.CancelledError:
            quota.give_back(self._tokens)
            raise
        elapsed = self._shared.clock.monotonic() - self._started_at
        if isinstance(outcome, str):
            quota.give_back(RetryQuota.COST if self._tokens else 1)
            result = SendResult(self._message, SendStatus.ACCEPTED, outcome, self._attempts, elapsed)
        else:
            error = self._final_error(outcome)
            result = SendResult(self._message, SendStatus.of(error), None, self._attempts, elapsed, error)
        self._shared.hooks.notify_result(result)
        return result

    def _final_error(self, last: NxOtpError) -> NxOtpError:
        error = self._verdict or last
        error.cus_message_id = self._message.cus_message_id
        error.attempts = self._attempts
        if self._gave_up:
            error.hint = f"{error.hint}; {self._gave_up}" if error.hint else self._gave_up
        return error

    # ------------------------------------------------------------------------------------------ one attempt

    async def _attempt(self) -> str | NxOtpError:
        """Make one attempt, and return the message id or what went wrong."""
        permits, limiter = self._lane.permits, self._lane.limiter
        if not permits.locked():
            await permits.acquire()
        elif not await self._in_time(permits.acquire()):
            return self._out_of_time("while it waited for one of the max_concurrency permits")
        try:
            if limiter is not None and not await self._in_time(limiter.acquire()):
                return self._out_of_time("while it waited for the rate_limit")
            if self._time_left() <= 0:
                return self._out_of_time("before the request began")
            began = self._shared.clock.monotonic()
            outcome = await self._post(began)
        finally:
            permits.release()
        if self._shared.hooks.on_attempt:
            elapsed = self._shared.clock.monotonic() - began
            self._shared.hooks.notify_attempt(self._message, self._attempts, outcome, elapsed)
        if not isinstance(outcome, str):
            self._weigh(outcome)
        return outcome

    def _weigh(self, outcome: NxOtpError) -> None:
        """Keep the outcome, where it says more than those before it, or as much."""
        if self._verdict is None or _WEIGHT[SendStatus.of(outcome)] >= _WEIGHT[SendStatus.of(self._verdict)]:
            self._verdict = outcome

    async def _in_time(self, waiting: Awaitable[object]) -> bool:
        """Wait, and return whether it was over before the time was."""
        try:
            async with asyncio.timeout(self._time_left()):
                await waiting
        except TimeoutError:
            return False
        return True

    async def _post(self, now: float) -> str | NxOtpError:
        """Sign and POST the body. Signing comes last, so that no waiting can age the timestamp."""
        shared, settings = self._shared, self._settings
        timeout = min(settings.timeout, self._deadline_at - now)
        sent = shared.clock.time()
        ts = int((sent + shared.skew.offset) * 1000)
        headers = request_headers(self._body, ts=ts, credentials=settings.credentials)
        self._attempts += 1
        try:
            answer = await shared.transport.post(settings.url, self._body, headers, timeout)
            outcome = self._understand(answer)
        except TransportError as error:
            if timeout < settings.timeout and self._time_left() <= 0:
                self._gave_up = f"the deadline of {settings.deadline:g} s ran out during attempt {self._attempts}"
            return without_frames(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody has cancelled this send: something inside the transport was, a borrowed session's for example.
            return OutcomeUnknownError("the transport was cancelled from within")
        except Exception as error:
            return OutcomeUnknownError(f"the transport broke off with {type(error).__name__}")
        if isinstance(outcome, TimestampExpiredError):
            received = shared.clock.time()
            outcome.clock_corrected = not self._corrected and shared.skew.explains(
                claimed=ts / 1000, sent=sent, received=received, headers=answer.headers
            )
            self._corrected = True
        return outcome

    def _understand(self, answer: Answer) -> str | NxOtpError:
        """Return the message id or the error that an answer stands for.

        Only an acceptance is known by its id to be this request's own answer. After any other one the connection
        carries no further request, which could take a second copy of that answer for its own.
        """
        message = self._message
        secrets = (message.content, message.to, self._settings.credentials.access_secret)
        outcome = decode(answer.status, answer.headers, answer.body, hide=secrets)
        if isinstance(outcome, str) and self._is_anothers(outcome):
            outcome = OutcomeUnknownError(
                "the answer has the message id of another message",
                hint="the message may have been accepted; wait for its status callback before you send another",
            )
        answer.settle(isinstance(outcome, str))
        return outcome

    def _is_anothers(self, message_id: str) -> bool:
        own, shared = str(self._message.cus_message_id), self._shared
        if message_id == own:
            return False
        return message_id in shared.in_flight or shared.accepted_ids.owner(message_id, own) != own

    def _time_left(self) -> float:
        """Seconds until the deadline, or until the code expires, whichever comes first."""
        left = self._deadline_at - self._shared.clock.monotonic()
        expires_at = self._message.expires_at
        return left if expires_at is None else min(left, expires_at.timestamp() - self._shared.clock.time())

    def _which_time(self) -> str:
        """Name what `_time_left` counts down to."""
        if self._message.expires_at is not None:
            deadline_left = self._deadline_at - self._shared.clock.monotonic()
            if self._message.expires_at.timestamp() - self._shared.clock.time() < deadline_left:
                return "the code's life (expires_at)"
        return f"the deadline of {self._settings.deadline:g} s"

    def _out_of_time(self, where: str) -> NxOtpError:
        what = f"{self._which_time()} ran out {where}"
        if self._verdict is None:
            return NotSentError(what)
        self._gave_up = what
        return self._verdict

    # ------------------------------------------------------------------------------------------ and perhaps again

    async def _retry(self, first: str | NxOtpError) -> str | NxOtpError:
        """Let tenacity drive the further attempts. The first one was made without it, and is only replayed."""
        made = [first]

        async def attempt() -> str | NxOtpError:
            return made.pop() if made else await self._attempt()

        controller = retrying(again=self._may_follow, pause=self._pause, give_up=self._gives_up, sleep=self._sleep)
        outcome: str | NxOtpError = await controller(attempt)
        return outcome

    def _may_follow(self, outcome: str | NxOtpError) -> bool:
        """Whether another attempt may follow this outcome."""
        if self._settings.retry.max_attempts == 1:
            return False
        if isinstance(outcome, TimestampExpiredError) and outcome.clock_corrected:
            return True
        return isinstance(outcome, NxOtpError) and self._settings.retry.retries(outcome)

    def _pause(self, outcome: str | NxOtpError, attempt: int) -> float:
        if isinstance(outcome, str | TimestampExpiredError):
            return 0.0
        return self._settings.retry.pause(outcome, attempt, self._shared.clock.random())

    def _gives_up(self, outcome: str | NxOtpError, pause: float) -> bool:
        never_left = isinstance(outcome, NotSentError)
        if not never_left:
            self._posts += 1
        if self._posts >= self._settings.retry.max_attempts:
            return True
        if never_left and self._paused + pause > self._settings.retry.reconnect_for:
            return True
        if pause >= self._time_left():
            self._gave_up = self._gave_up or f"{self._which_time()} left no time for another attempt"
            return True
        if not never_left:
            if not self._shared.quota.take():
                self._gave_up = "not tried again, because too many of this client's sends fail (retry quota)"
                return True
            self._tokens += RetryQuota.COST
        self._paused += pause
        _log.debug("%s: %s; again in %.2f s", self._message.cus_message_id, type(outcome).__name__, pause)
        return False

    async def _sleep(self, seconds: float) -> None:
        self._lane.asleep += 1
        try:
            await self._shared.clock.sleep(seconds)
        finally:
            self._lane.asleep -= 1


# Of several attempts for a message the heaviest counts: one that may have been accepted is not undone by a later
# refusal, and a message the vendor has answered about is no longer one that never left.
_WEIGHT: Final = {SendStatus.NOT_SENT: 0, SendStatus.REJECTED: 1, SendStatus.UNKNOWN: 2}
