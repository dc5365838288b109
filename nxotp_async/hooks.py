"""Functions of the application that a client calls after every attempt and every result."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import attrs

from .checks import InvalidValueError, optional, validate
from .errors import ConfigurationError, NxOtpError
from .logs import log_result
from .messages import OtpMessage
from .results import Outcome, SendResult, SendStatus

__all__ = ["Attempt", "AttemptHook", "Hooks", "ResultHook", "call_hook", "parse_hook"]

_log = logging.getLogger("nxotp_async")


@attrs.frozen
class Attempt:
    """One POST for a message, and its outcome.

    Attributes:
        message: The message, with its ``cus_message_id``.
        number: Which of the message's attempts this was, from 1.
        status: The outcome of this attempt alone.
        message_id: The vendor's id for it, or ``None`` unless accepted.
        elapsed: Seconds of the POST alone, without waiting for a permit, the rate limit or a retry.
        error: What went wrong, or ``None``.
    """

    message: OtpMessage
    number: int
    status: SendStatus
    message_id: str | None
    elapsed: float
    error: NxOtpError | None


AttemptHook = Callable[[Attempt], None]
ResultHook = Callable[[SendResult], None]


@attrs.define
class Hooks:
    """The hooks of a client. The exception of a hook is logged, and does not affect the send."""

    on_attempt: tuple[AttemptHook, ...] = ()
    on_result: tuple[ResultHook, ...] = ()

    def add(self, on_attempt: AttemptHook | None, on_result: ResultHook | None) -> None:
        """Add hooks.

        Raises:
            ConfigurationError: One cannot be called, or would have to be awaited.
        """
        validate("on_attempt", optional(parse_hook), on_attempt, ConfigurationError)
        validate("on_result", optional(parse_hook), on_result, ConfigurationError)
        if on_attempt is not None:
            self.on_attempt += (on_attempt,)
        if on_result is not None:
            self.on_result += (on_result,)

    def call_on_attempt(self, message: OtpMessage, number: int, outcome: Outcome, elapsed: float) -> None:
        """Call the hooks for an attempt that ended with a message id or an error."""
        if isinstance(outcome, str):
            attempt = Attempt(message, number, SendStatus.ACCEPTED, outcome, elapsed, None)
        else:
            outcome.cus_message_id, outcome.attempts = message.cus_message_id, number
            attempt = Attempt(message, number, SendStatus.of(outcome), None, elapsed, outcome)
        for hook in self.on_attempt:
            call_hook(hook, attempt)

    def call_on_result(self, result: SendResult) -> None:
        """Log the outcome of a message, and call the hooks for it."""
        log_result(result)
        for hook in self.on_result:
            call_hook(hook, result)


def parse_hook(value: object) -> object:
    """Check for a function that can be called and need not be awaited.

    Raises:
        InvalidValueError: It is none.
    """
    if not callable(value):
        raise InvalidValueError(f"must be a function, not {type(value).__name__}")
    if inspect.iscoroutinefunction(value):
        problem = "must not be a coroutine function: hooks are called, not awaited"
        raise InvalidValueError(problem, "let it start a task")
    return value


def call_hook(hook: Callable[[Any], Any], event: object) -> object:
    """Call a hook, and return what it returns; ``None`` if it raises, which is logged."""
    try:
        answer = hook(event)
    # A hook is not a coroutine: a CancelledError that it raises is not meant for the task that sends.
    except (Exception, asyncio.CancelledError):
        _log.exception("a hook raised an exception; nothing else is affected")
        return None
    if inspect.iscoroutine(answer):
        answer.close()
        _log.error("a hook returned a coroutine, which is not awaited: let it start a task")
        return None
    return answer
