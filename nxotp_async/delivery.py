"""One message's way to the vendor: permit, rate, clock, signature, POST, outcome, and perhaps again."""

import asyncio
import copy
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from .client_state import ClientState, LoopState
from .errors import NotSentError, NxOtpError, OutcomeUnknownError, TimestampExpiredError, TransportError, without_frames
from .messages import OtpMessage
from .protocol import decode, encode, request_headers
from .results import Outcome, SendResult, SendStatus
from .retry import RetryQuota
from .settings import Settings
from .transports import Answer

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["Delivery"]

_log = logging.getLogger("nxotp_async")


class Delivery:
    """The attempts for one message. Its identity, the ``cus_message_id`` and the body's bytes, never changes."""

    __slots__ = (
        "_attempts",
        "_body",
        "_client",
        "_deadline_at",
        "_errors",
        "_loop",
        "_message",
        "_settings",
        "_started_at",
        "_tokens",
    )

    def __init__(self, message: OtpMessage, settings: Settings, client: ClientState, loop: LoopState) -> None:
        self._message = message
        self._settings = settings
        self._client = client
        self._loop = loop
        self._body = encode(message, settings.credentials.appkey)
        self._started_at = client.clock.monotonic()
        self._deadline_at = self._started_at + settings.deadline
        self._attempts = 0
        self._errors: list[NxOtpError] = []  # one for each attempt that failed
        self._tokens = 0  # taken from the retry quota

    async def run(self) -> SendResult:
        """Send the message, and return what became of it. Raises for cancellation only."""
        quota = self._client.quota
        gave_up = ""
        try:
            outcome = await self._attempt()
            if isinstance(outcome, NxOtpError) and self._is_retryable(outcome):
                outcome, gave_up = await self._retry(outcome)
        except asyncio.CancelledError:
            quota.give_back(self._tokens)
            raise
        elapsed = self._client.clock.monotonic() - self._started_at
        if isinstance(outcome, str):
            quota.give_back(RetryQuota.COST if self._tokens else 1)
            result = SendResult(self._message, SendStatus.ACCEPTED, outcome, self._attempts, elapsed)
        else:
            error = self._final_error(outcome, gave_up)
            result = SendResult(self._message, SendStatus.of(error), None, self._attempts, elapsed, error)
        self._client.hooks.call_on_result(result)
        return result

    def _final_error(self, last: NxOtpError, gave_up: str) -> NxOtpError:
        """Return the error that says most of the message: of several that say as much, the latest.

        One that may have been accepted is not undone by a later refusal, and a message that the vendor has answered
        about is no longer one that never left. It is a copy: a hook may have kept the error itself.
        """
        error = copy.copy(max(reversed(self._errors), key=lambda failed: _WEIGHT[SendStatus.of(failed)], default=last))
        error.cus_message_id = self._message.cus_message_id
        error.attempts = self._attempts
        if gave_up:
            error.hint = f"{error.hint}; {gave_up}" if error.hint else gave_up
        return error

    # ------------------------------------------------------------------------------------------ one attempt

    async def _attempt(self) -> Outcome:
        """Make one attempt, and return the message id or what went wrong; without a POST where there is no time."""
        permits, limiter = self._loop.permits, self._loop.limiter
        if not permits.locked():
            await permits.acquire()
        elif not await self._in_time(permits.acquire()):
            return self._out_of_time("while it waited for one of the max_concurrency permits")
        try:
            if limiter is not None and not await self._in_time(limiter.acquire()):
                return self._out_of_time("while it waited for the rate_limit")
            if self._time_left() <= 0:
                return self._out_of_time("before the request began")
            began = self._client.clock.monotonic()
            outcome = await self._post(began)
        finally:
            permits.release()
        if not isinstance(outcome, str):
            self._errors.append(outcome)
        if self._client.hooks.on_attempt:
            elapsed = self._client.clock.monotonic() - began
            self._client.hooks.call_on_attempt(self._message, self._attempts, outcome, elapsed)
        return outcome

    async def _in_time(self, waiting: Awaitable[object]) -> bool:
        """Wait, and return whether it was over before the time was."""
        try:
            async with asyncio.timeout(self._time_left()):
                await waiting
        except TimeoutError:
            return False
        return True

    async def _post(self, now: float) -> Outcome:
        """Sign and POST the body. Signing comes last, so that no waiting can age the timestamp."""
        client, settings = self._client, self._settings
        timeout = min(settings.timeout, self._deadline_at - now)
        sent = client.clock.time()
        ts = int((sent + client.skew.offset) * 1000)
        headers = request_headers(self._body, ts=ts, credentials=settings.credentials)
        self._attempts += 1
        try:
            answer = await client.transport.post(settings.url, self._body, headers, timeout)
            outcome = self._outcome_of(answer)
        except TransportError as error:
            if timeout < settings.timeout and self._time_left() <= 0:
                why = f"the deadline of {settings.deadline:g} s ran out during attempt {self._attempts}"
                error.hint = f"{error.hint}; {why}" if error.hint else why
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
            is_first = not any(isinstance(error, TimestampExpiredError) for error in self._errors)
            elapsed = client.clock.monotonic() - now
            outcome.clock_corrected = is_first and client.skew.explains_refusal(
                timestamp=ts / 1000, sent=sent, elapsed=elapsed, headers=answer.headers
            )
        return outcome

    def _outcome_of(self, answer: Answer) -> Outcome:
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
        own, client = str(self._message.cus_message_id), self._client
        if message_id != own and message_id in client.in_flight:
            return True
        return client.accepted_ids.owner(message_id, own) != own

    # ------------------------------------------------------------------------------------------ time

    def _time_left(self) -> float:
        """Seconds until the deadline, or until the code expires, whichever comes first."""
        left = self._deadline_at - self._client.clock.monotonic()
        expires_at = self._message.expires_at
        return left if expires_at is None else min(left, expires_at.timestamp() - self._client.clock.time())

    def _which_time(self) -> str:
        """Name what `_time_left` counts down to."""
        if self._message.expires_at is not None:
            deadline_left = self._deadline_at - self._client.clock.monotonic()
            if self._message.expires_at.timestamp() - self._client.clock.time() < deadline_left:
                return "the code's life (expires_at)"
        return f"the deadline of {self._settings.deadline:g} s"

    def _out_of_time(self, where: str) -> NotSentError:
        return NotSentError(f"{self._which_time()} ran out {where}")

    # ------------------------------------------------------------------------------------------ and perhaps again

    async def _retry(self, first: NxOtpError) -> tuple[Outcome, str]:
        """Make further attempts for as long as there may be one. Return the last outcome, and why there is no other.

        tenacity drives them. The first attempt was made without it, which takes a fifth of a whole POST.
        """
        from tenacity import AsyncRetrying, retry_if_result  # noqa: PLC0415 - imported when the client was made

        outcome: Outcome = first
        gave_up = ""

        def stop(state: "RetryCallState") -> bool:
            nonlocal gave_up
            obstacle = self._obstacle(state)
            gave_up = obstacle or ""
            return obstacle is not None

        async for attempt in AsyncRetrying(
            retry=retry_if_result(self._is_retryable),
            wait=self._pause,
            stop=stop,
            sleep=self._sleep,
            retry_error_callback=lambda _: None,  # instead of raising
        ):
            state = attempt.retry_state
            if state.attempt_number > 1:
                made = self._attempts
                outcome = await self._attempt()
                if self._attempts == made:
                    return outcome, str(outcome)
            state.set_result(outcome)
        return outcome, gave_up

    def _is_retryable(self, outcome: Outcome) -> bool:
        """Return whether another attempt may follow this outcome, time and quota permitting."""
        if isinstance(outcome, str) or self._settings.retry.max_attempts == 1:
            return False
        if isinstance(outcome, TimestampExpiredError) and outcome.clock_corrected:
            return True
        return self._settings.retry.retries(outcome)

    def _pause(self, state: "RetryCallState") -> float:
        """Return the seconds to wait before the next attempt."""
        error = self._errors[-1]
        if isinstance(error, TimestampExpiredError):
            return 0.0
        return self._settings.retry.pause(error, state.attempt_number, self._client.clock.random())

    def _obstacle(self, state: "RetryCallState") -> str | None:
        """Return why there is no further attempt, with nothing to say where the policy's limit is reached."""
        policy, error, pause = self._settings.retry, self._errors[-1], state.upcoming_sleep
        never_left = isinstance(error, NotSentError)
        if sum(not isinstance(failed, NotSentError) for failed in self._errors) >= policy.max_attempts:
            return ""
        if never_left and state.idle_for + pause > policy.reconnect_for:
            return ""
        if pause >= self._time_left():
            return f"{self._which_time()} left no time for another attempt"
        if not never_left:
            if not self._client.quota.take():
                return "not tried again, because too many of this client's sends fail (retry quota)"
            self._tokens += RetryQuota.COST
        _log.debug("%s: %s; again in %.2f s", self._message.cus_message_id, type(error).__name__, pause)
        return None

    async def _sleep(self, seconds: float) -> None:
        self._loop.backing_off += 1
        try:
            await self._client.clock.sleep(seconds)
        finally:
            self._loop.backing_off -= 1


_WEIGHT: Final = {SendStatus.NOT_SENT: 0, SendStatus.REJECTED: 1, SendStatus.UNKNOWN: 2}
