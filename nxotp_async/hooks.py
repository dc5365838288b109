"""What a client tells of its sends while they happen: to the application's hooks, and to the log."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import attrs

from .errors import ConfigurationError, NxOtpError
from .messages import OtpMessage
from .phone_numbers import mask_number
from .results import SendResult, SendStatus

__all__ = ["Attempt", "AttemptHook", "Hooks", "ResultHook"]

_log = logging.getLogger("nxotp_async")


@attrs.frozen
class Attempt:
    """One POST for a message, and what came of it.

    Attributes:
        message: The message, with its ``cus_message_id``.
        number: Which of the message's attempts this was, from 1.
        status: What this attempt alone says of the message.
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
    """The hooks of a client. One that raises is logged; the send it was told of goes on."""

    on_attempt: tuple[AttemptHook, ...] = ()
    on_result: tuple[ResultHook, ...] = ()

    def add(self, on_attempt: AttemptHook | None, on_result: ResultHook | None) -> None:
        """Call these, too.

        Raises:
            ConfigurationError: One cannot be called, or would have to be awaited.
        """
        for name, hook in (("on_attempt", on_attempt), ("on_result", on_result)):
            _check(name, hook)
        if on_attempt is not None:
            self.on_attempt += (on_attempt,)
        if on_result is not None:
            self.on_result += (on_result,)

    def tell_attempt(self, message: OtpMessage, number: int, outcome: str | NxOtpError, elapsed: float) -> None:
        """Tell of an attempt that ended with a message id or an error."""
        if isinstance(outcome, str):
            attempt = Attempt(message, number, SendStatus.ACCEPTED, outcome, elapsed, None)
        else:
            outcome.cus_message_id, outcome.attempts = message.cus_message_id, number
            attempt = Attempt(message, number, SendStatus.of(outcome), None, elapsed, outcome)
        for hook in self.on_attempt:
            _call(hook, attempt)

    def tell_result(self, result: SendResult) -> None:
        """Tell what became of a message."""
        level = logging.DEBUG if result.error is None else logging.INFO
        if _log.isEnabledFor(level):
            _write_to_log(level, result)
        for hook in self.on_result:
            _call(hook, result)


def _check(name: str, hook: object) -> None:
    if hook is not None and not callable(hook):
        raise ConfigurationError(f"{name} must be a function, not {type(hook).__name__}")
    if inspect.iscoroutinefunction(hook):
        raise ConfigurationError(
            f"{name} must not be a coroutine function: hooks are called, not awaited", hint="let it start a task"
        )


def _call(hook: Callable[[Any], Any], event: object) -> None:
    try:
        answer = hook(event)
    # A hook is no coroutine: what it raises was not meant for the task that sends.
    except (Exception, asyncio.CancelledError):
        _log.exception("a hook failed; the send it was told of is not affected")
        return
    if inspect.iscoroutine(answer):
        answer.close()
        _log.error("a hook returned a coroutine, which nobody awaits: let it start a task")


def _write_to_log(level: int, result: SendResult) -> None:
    error, cus_message_id = result.error, result.message.cus_message_id
    facts = {
        "cus_message_id": cus_message_id,
        "recipient": mask_number(result.message.to),
        "status": result.status.value,
        "vendor_code": None if error is None else error.code,
        "attempts": result.attempts,
        "elapsed": result.elapsed,
    }
    _log.log(level, "%s: %s", cus_message_id, result.status.value if error is None else error, extra=facts)
