"""Concurrent work on a stream of items of any length, in constant memory."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, Final, Generic, TypeVar, cast

__all__ = ["Stream", "as_completed"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_END: Final = object()


async def as_completed(
    items: Iterable[_Item] | AsyncIterable[_Item],
    work: Callable[[_Item], Awaitable[_Result]],
    *,
    concurrency: int,
    sleeping: Callable[[], int],
    open_streams: "set[Stream[Any, Any]]",
) -> AsyncGenerator[_Result, None]:
    """Yield the result of the work on each item, as soon as it is complete.

    At most twice ``concurrency`` items are read ahead of the results that have been yielded. Closing the generator
    cancels the work in progress and waits until it has ended. If reading the items raises, or the work does, the work
    in progress is finished and its results are yielded; then the exception is raised.

    Args:
        items: The items to work on; read one at a time, in order.
        work: Returns the result of an item.
        concurrency: The maximum number of workers at the same time, not counting those that sleep.
        sleeping: Returns how many workers wait for a retry; as many others may start.
        open_streams: Contains the stream while it is open, so that it can be cancelled.
    """
    stream = Stream(items, work, concurrency, sleeping)
    open_streams.add(stream)
    try:
        while stream.start_worker() or stream.workers or stream.results:
            if not stream.results:
                await stream.wait_for_result()
                continue
            yield stream.results.popleft()
    finally:
        open_streams.discard(stream)
        await stream.cancel()
    if stream.failure is not None:
        raise stream.failure


class Stream(Generic[_Item, _Result]):
    """Workers that each read an item, work on it, and read the next.

    Only one worker reads at a time. When it has read an item, it starts another worker, which reads the next item, and
    then works on its own: so there are never more workers than items. A worker that may not read another item ends.

    Attributes:
        results: The results that have not been yielded.
        workers: The tasks of the workers.
        failure: The exception that ended the stream, or ``None``.
    """

    def __init__(
        self,
        items: Iterable[_Item] | AsyncIterable[_Item],
        work: Callable[[_Item], Awaitable[_Result]],
        concurrency: int,
        sleeping: Callable[[], int],
    ) -> None:
        self.results: deque[_Result] = deque()
        self.workers: set[asyncio.Task[None]] = set()
        self.failure: BaseException | None = None
        if isinstance(items, AsyncIterable):
            self._asynchronous = aiter(items)
            self._synchronous = None
        else:
            self._synchronous = iter(items)
        self._work = work
        self._concurrency = concurrency
        self._sleeping = sleeping
        self._is_worker_starting = False  # its task has not begun to run
        self._is_reading = False
        self._exhausted = False
        self._cancelled = False
        self._in_progress = 0
        self._waiter: asyncio.Future[None] | None = None

    def start_worker(self) -> bool:
        """Start a worker if one more may read. Return whether it was started."""
        if self._is_worker_starting or self._exceeds_concurrency(len(self.workers) + 1) or not self._may_read():
            return False
        self._is_worker_starting = True
        self.workers.add(asyncio.create_task(self._read_and_work(), name="nxotp_async: send_many"))
        return True

    async def wait_for_result(self) -> None:
        """Wait until there is a result, or a worker has ended."""
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    async def cancel(self) -> None:
        """Cancel the workers, and wait until they have ended."""
        self._exhausted = self._cancelled = True
        for worker in self.workers:
            worker.cancel()
        await asyncio.gather(*self.workers, return_exceptions=True)
        self.workers.clear()  # a worker that had not begun to run has not removed itself
        self._wake()

    def _may_read(self) -> bool:
        has_room = self._in_progress + len(self.results) < 2 * self._concurrency
        return has_room and not self._exhausted and not self._is_reading

    def _exceeds_concurrency(self, workers: int) -> bool:
        excess = workers - self._concurrency
        return excess > 0 and excess > min(self._sleeping(), self._concurrency)

    async def _read_and_work(self) -> None:
        self._is_worker_starting = False
        try:
            while self._may_read():
                self._is_reading = True
                item = (
                    await anext(self._asynchronous, _END)
                    if self._synchronous is None
                    else next(self._synchronous, _END)
                )
                self._is_reading = False
                if item is _END:
                    self._exhausted = True
                    return
                self._in_progress += 1
                self.start_worker()
                result = await self._work(cast("_Item", item))
                self._in_progress -= 1
                self.results.append(result)
                self._wake()
                if self._exceeds_concurrency(len(self.workers)):
                    return
        except (Exception, asyncio.CancelledError) as error:
            if self._cancelled:
                raise
            # The source may raise its own CancelledError, which is not the end of the items.
            self._exhausted = True
            self.failure = self.failure or error
        finally:
            self.workers.remove(cast("asyncio.Task[None]", asyncio.current_task()))
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
