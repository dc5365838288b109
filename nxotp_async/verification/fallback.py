"""Another channel for codes that WhatsApp does not deliver."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ..errors import NxOtpError, OutcomeUnknownError
from ..messages import OtpMessage
from ..results import SendStatus
from ..tracking import DeliveryTracker

__all__ = ["Fallback", "Fallbacks", "call_fallback"]

_log = logging.getLogger("nxotp_async")

_MAX_WAITING: Final = 10_000  # messages; each takes a task
_PATIENCE: Final = 30.0  # seconds for the other channel to send a message

Fallback = Callable[[OtpMessage], Awaitable[object]]
"""Sends the code of a message over another channel. It raises `ApiError` or `NotSentError` if that surely failed."""


async def call_fallback(fallback: Fallback, message: OtpMessage) -> SendStatus:
    """Have a message sent over the other channel, and return what is known of it: accepted, or unknown.

    Raises:
        NxOtpError: It was provably not sent.
    """
    try:
        async with asyncio.timeout(_PATIENCE):
            await fallback(message)
    except OutcomeUnknownError:
        return SendStatus.UNKNOWN
    except NxOtpError:
        raise
    except Exception as error:
        # Without the error's text: that of an application may hold anything.
        _log.error("the fallback raised %s: its message may have been sent", type(error).__name__)
        return SendStatus.UNKNOWN
    return SendStatus.ACCEPTED


class Fallbacks:
    """Waits for the delivery of messages, each in a task of its own.

    Args:
        tracker: Hears of the delivery.
        seconds: How long to wait for it.
    """

    def __init__(self, tracker: DeliveryTracker, seconds: float) -> None:
        self._tracker = tracker
        self._seconds = seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()

    def watch(self, message_id: str, fall_back: Callable[[], Awaitable[object]]) -> None:
        """Call a function if the message is not delivered in time, or cannot be delivered any more."""
        if len(self._waiting) >= _MAX_WAITING:
            _log.warning("%d messages wait for their delivery: no fallback for message %s", _MAX_WAITING, message_id)
            return
        task = asyncio.create_task(self._run(message_id, fall_back))
        for tasks in (self._tasks, self._waiting):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _run(self, message_id: str, fall_back: Callable[[], Awaitable[object]]) -> None:
        try:
            if await self._is_delivered(message_id):
                return
            self._waiting -= {asyncio.current_task()}
            await fall_back()
        except Exception as error:
            _log.error("no fallback for message %s: %s", message_id, type(error).__name__)

    async def _is_delivered(self, message_id: str) -> bool:
        try:
            state = await self._tracker.wait(message_id, "delivered", timeout=self._seconds)
        except TimeoutError:
            return False
        return state.status in ("delivered", "read")

    async def aclose(self) -> None:
        """Stop waiting in the running event loop, and wait for what is being sent."""
        loop = asyncio.get_running_loop()
        tasks = [task for task in list(self._tasks) if task.get_loop() is loop]
        for task in tasks:
            if task in self._waiting:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
