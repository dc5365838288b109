"""Calls that block, in threads that nobody has to wait for."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

__all__ = ["in_daemon_thread"]

_T = TypeVar("_T")


def in_daemon_thread(name: str, function: Callable[[], _T]) -> "asyncio.Future[_T]":
    """Call a function in a new daemon thread, and return the future of its result.

    asyncio and Python wait for the threads of the default executor when the event loop closes, and at exit. If a DNS
    server does not answer, that takes many seconds after the deadline, or after Ctrl-C.

    Raises:
        OSError: No thread can be started. Whatever the function raises, the future raises as an ``OSError``.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def finish(result: _T | None, error: OSError | None) -> None:
        if future.done():  # it was cancelled
            return
        if error is None:
            future.set_result(cast("_T", result))
        else:
            future.set_exception(error)

    def work() -> None:
        result, error = None, None
        try:
            result = function()
        except OSError as failure:
            error = failure
        except Exception as failure:  # a name that IDNA cannot encode, for example
            error = OSError(None, f"{type(failure).__name__}: {failure}")
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(finish, result, error)

    try:
        threading.Thread(target=work, name=f"nxotp_async: {name}", daemon=True).start()
    except RuntimeError as error:
        raise OSError(None, str(error)) from None
    return future
