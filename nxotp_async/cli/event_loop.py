"""Running a coroutine until it ends or the command is told to stop."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar, cast

from .exit_codes import ExitCode
from .output import fail

__all__ = ["on_stop_signal", "run"]

_T = TypeVar("_T")


def run(main: Coroutine[Any, Any, _T], *, interrupted: object = "interrupted") -> _T:
    """Run the coroutine, on uvloop if it is installed. A signal to stop cancels it, and exits with this error."""

    async def until_signal() -> _T:
        on_stop_signal(cast("asyncio.Task[_T]", asyncio.current_task()).cancel)
        return await main

    loop_factory: Callable[[], asyncio.AbstractEventLoop]
    try:
        from uvloop import new_event_loop as loop_factory  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        loop_factory = asyncio.new_event_loop
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(until_signal())
    except (KeyboardInterrupt, asyncio.CancelledError):
        fail(interrupted, ExitCode.INTERRUPTED)


def on_stop_signal(callback: Callable[[], object]) -> None:
    """Have the running loop call this at each SIGINT, SIGTERM and SIGHUP, in place of what they do otherwise.

    SIGHUP stays ignored under nohup. On Windows nothing changes: its loops have no signal handlers.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
            continue
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, callback)
