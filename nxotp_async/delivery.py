"""The send of one message: permit, rate limit, clock, signature, POST, outcome, and retries."""

import asyncio
import copy
import logging
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING

from .client_state import ClientState, LoopState
from .errors import (
    NotSentError,
    NxOtpError,
    OutcomeUnknownError,
    StoreError,
    TimestampExpiredError,
    TransportError,
    without_frames,
)
from .messages import OtpMessage
from .protocol import decode, encode, request_headers
from .results import Outcome, SendResult, SendStatus
from .retry import RetryQuota
from .settings import Settings
from .transports import Answer

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from .pacing import SharedRate

__all__ = ["Delivery"]

_log = logging.getLogger("nxotp_async")


class Delivery:
    """The attempts for one message by one sender. All of them have the same ``cus_message_id`` and body.

    Args:
        message: The message, complete.
        settings: How to send it.
        client: What it shares with all sends of the client.
        loop: What it shares with those of this event loop.
        began: When the send began, by the clock that never jumps, where another sender was tried before. Default: now.
        attempts: How many POSTs other senders have begun for it.
    """

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

    def __init__(
        self,
        message: OtpMessage,
        settings: Settings,
        client: ClientState,
        loop: LoopState,
        *,
        began: float | None = None,
        attempts: int = 0,
    ) -> None:
        self._message = message
        self._settings = settings
        self._client = client
        self._loop = loop
        self._body = encode(message, settings.credentials.appkey)
        self._started_at = client.clock.monotonic() if began is None else began
        self._deadline_at = self._started_at + settings.deadline
        self._attempts = attempts
        self._errors: list[NxOtpError] = []  # one for each failed attempt that had the time for its request
        self._tokens = 0  # taken from the retry quota

    async def run(self) -> SendResult:
        """Send the message, and return the result. Raises only `asyncio.CancelledError`."""
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
            return SendResult(self._message, SendStatus.ACCEPTED, outcome, self._attempts, elapsed)
        error = self._final_error(outcome, gave_up)
        return SendResult(self._message, SendStatus.of(error), None, self._attempts, elapsed, error)

    def _final_error(self, last: NxOtpError, gave_up: str) -> NxOtpError:
        """Return the error of the send: of the attempts, the latest one with the status that prevails.

        If any attempt may have been accepted, the message is unknown; if any was rejected, it is not one that was not
        sent. The error is a copy, because a hook may have stored the original.
        """
        error = copy.copy(
            max(reversed(self._errors), key=lambda failed: SendStatus.of(failed).precedence, default=last)
        )
        error.cus_message_id = self._message.cus_message_id
        error.attempts = self._attempts
        if gave_up:
            error.hint = f"{error.hint}; {gave_up}" if error.hint else gave_up
        return error

    # ------------------------------------------------------------------------------------------ one attempt

    async def _attempt(self) -> Outcome:
        """Make one attempt, and return the message id or what went wrong; without a POST where there is no time."""
        permits, limiter, shared_rate = self._loop.permits, self._loop.limiter, self._client.shared_rate
        if not permits.locked():
            await permits.acquire()
        elif not await self._in_time(permits.acquire()):
            return self._out_of_time("while it waited for one of the max_concurrency permits")
        try:
            if (refusal := self._client.refusal()) is not None:
                return refusal
            if limiter is not None and not await self._in_time(limiter.acquire()):
                return self._out_of_time("while it waited for the rate_limit")
            if shared_rate is not None and (refusal := await self._wait_for(shared_rate)) is not None:
                return refusal
            if (refusal := self._client.refusal()) is not None:
                return refusal
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
        """Wait, and return whether this ended in time."""
        try:
            async with asyncio.timeout(self._time_left()):
                await waiting
        except TimeoutError:
            return False
        return True

    async def _wait_for(self, rate: "SharedRate") -> NotSentError | None:
        """Wait for a permit of the rate, and return why the message cannot be sent if there is none in time."""
        patience = self._time_left()
        try:
            async with asyncio.timeout(patience) as limit:
                if patience > 0 and await rate.acquire(patience):
                    return None
        except Exception as error:
            if limit.expired():
                return self._out_of_time("while it waited for the rate_limit")
            why = error if isinstance(error, NxOtpError) else type(error).__name__
            failure = NotSentError(f"no permit of the rate_limit: {why}", temporary=isinstance(error, StoreError))
            self._errors.append(failure)
            return failure
        return NotSentError(f"{self._time_limit()} ends before the rate_limit allows this message")

    async def _post(self, now: float) -> Outcome:
        """Sign and POST the body. Signing comes last, so that no waiting can age the timestamp."""
        client, settings = self._client, self._settings
        timeout = min(settings.timeout, self._deadline_at - now)
        sent = client.clock.time()
        ts = int((sent + client.skew.offset) * 1000)
        url, headers = self._request(ts)
        self._attempts += 1
        try:
            answer = await client.transport.post(url, self._body, headers, timeout)
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
            # This send was not cancelled, but something inside the transport, for example in a borrowed session.
            return OutcomeUnknownError("the request was cancelled inside the transport")
        except Exception as error:
            return OutcomeUnknownError(f"the transport raised {type(error).__name__}")
        if isinstance(outcome, TimestampExpiredError):
            is_first = not any(isinstance(error, TimestampExpiredError) for error in self._errors)
            elapsed = client.clock.monotonic() - now
            outcome.clock_corrected = is_first and client.skew.explains_rejection(
                timestamp=ts / 1000, sent=sent, elapsed=elapsed, headers=answer.headers
            )
        return outcome

    def _request(self, ts: int) -> tuple[str, Mapping[str, str]]:
        """Return the URL and the headers of a request at this time, in milliseconds."""
        settings = self._settings
        fixed = settings.fixed_headers
        return settings.url, request_headers(self._body, ts=ts, credentials=settings.credentials, fixed=fixed)

    def _decode(self, answer: Answer, hide: tuple[str, ...]) -> Outcome:
        """Return what an answer says."""
        return decode(answer.status, answer.headers, answer.body, hide=hide)

    def _outcome_of(self, answer: Answer) -> Outcome:
        """Return the message id or the error that an answer stands for.

        Only the answer to an accepted message has an id, which shows that it belongs to this request. After any other
        answer the connection is not reused, because the next request could get a copy of that answer.
        """
        message = self._message
        secrets = (message.content, message.to, self._settings.credentials.access_secret)
        outcome = self._decode(answer, secrets)
        if isinstance(outcome, str) and self._belongs_to_another(outcome):
            outcome = OutcomeUnknownError("the answer has the message id of another message")
        answer.release(isinstance(outcome, str))
        return outcome

    def _belongs_to_another(self, message_id: str) -> bool:
        own, client = str(self._message.cus_message_id), self._client
        if message_id != own and message_id in client.in_flight:
            return True
        return client.accepted_ids.owner(message_id, own) != own

    # ------------------------------------------------------------------------------------------ time

    def _time_left(self) -> float:
        """Return the seconds until the deadline, or until the code expires, whichever comes first."""
        left = self._deadline_at - self._client.clock.monotonic()
        expires_at = self._message.expires_at
        return left if expires_at is None else min(left, expires_at.timestamp() - self._client.clock.time())

    def _time_limit(self) -> str:
        """Name the limit that `_time_left` counts down to."""
        if self._message.expires_at is not None:
            deadline_left = self._deadline_at - self._client.clock.monotonic()
            if self._message.expires_at.timestamp() - self._client.clock.time() < deadline_left:
                return "the code's life (expires_at)"
        return f"the deadline of {self._settings.deadline:g} s"

    def _out_of_time(self, when: str) -> NotSentError:
        return NotSentError(f"{self._time_limit()} ran out {when}")

    # ------------------------------------------------------------------------------------------ retries

    async def _retry(self, first: NxOtpError) -> tuple[Outcome, str]:
        """Make further attempts for as long as there may be one. Return the last outcome, and why there is no other.

        The first attempt was made without tenacity, which takes a fifth of the time of a POST.
        """
        from tenacity import AsyncRetrying, retry_if_result  # noqa: PLC0415 - imported when the client was made

        outcome: Outcome = first
        gave_up = ""

        def stop(state: "RetryCallState") -> bool:
            nonlocal gave_up
            reason = self._reason_to_stop(state)
            gave_up = reason or ""
            return reason is not None

        async for attempt in AsyncRetrying(
            retry=retry_if_result(self._is_retryable),
            wait=self._pause,
            stop=stop,
            sleep=self._sleep,
            retry_error_callback=lambda _: None,  # instead of raising
        ):
            state = attempt.retry_state
            if state.attempt_number > 1:
                outcome = await self._attempt()
                if isinstance(outcome, NxOtpError) and outcome is not self._errors[-1]:  # there was no time for it
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
        return self._settings.retry.backoff(error, state.attempt_number, self._client.clock.random())

    def _reason_to_stop(self, state: "RetryCallState") -> str | None:
        """Return why there is no further attempt: an empty str for a limit of the policy, ``None`` if there is one."""
        policy, error, pause = self._settings.retry, self._errors[-1], state.upcoming_sleep
        was_not_sent = isinstance(error, NotSentError)
        if sum(not isinstance(failed, NotSentError) for failed in self._errors) >= policy.max_attempts:
            return ""
        if was_not_sent and state.idle_for + pause > policy.reconnect_for:
            return ""
        if was_not_sent and not pause and len(self._errors) >= policy.max_attempts:
            return ""  # without pauses, that time would never be used up
        if pause >= self._time_left():
            return f"{self._time_limit()} left no time for another attempt"
        if not was_not_sent:
            if not self._client.quota.take():
                return "not retried, because too many sends of this client fail (retry quota)"
            self._tokens += RetryQuota.COST
        _log.debug("%s: %s; retrying in %.2f s", self._message.cus_message_id, type(error).__name__, pause)
        return None

    async def _sleep(self, seconds: float) -> None:
        self._loop.backing_off += 1
        try:
            await self._client.clock.sleep(seconds)
        finally:
            self._loop.backing_off -= 1
