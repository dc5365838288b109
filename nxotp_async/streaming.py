"""Concurrent work over a stream of items of any length, in bounded memory."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import Final, Generic, Protocol, TypeVar, cast

__all__ = ["Stream", "as_completed"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_END: Final = object()


async def as_completed(
    items: Iterable[_Item] | AsyncIterable[_Item],
    work: Callable[[_Item], Awaitable[_Result]],
    *,
    concurrency: int,
    asleep: Callable[[], int],
    streams: "set[Stream]",
) -> AsyncGenerator[_Result, None]:
    """Yield the result of the work on each item, as they complete.

    At most twice ``concurrency`` items are read ahead of the results that have been yielded. Closing the generator
    cancels the work in progress and waits for it to end. Where reading the items raises, or the work does, what is
    in progress is finished and yielded before the error goes on to the caller.

    Args:
        items: What to work on; read one at a time, in order.
        work: Makes an item into a result.
        concurrency: Workers at the same time, those asleep not counted.
        asleep: Returns how many workers wait for a later attempt, and so leave room for others.
        streams: Where the stream stands as long as it is open, for those who have to end it.
    """
    stream = _Stream(items, work, concurrency, asleep)
    streams.add(stream)
    try:
        while stream.hire() or stream.workers or stream.results:
            if not stream.results:
                await stream.next_result()
                continue
            yield stream.results.popleft()
    finally:
        streams.discard(stream)
        await stream.cancel()
    if stream.failure is not None:
        raise stream.failure


class Stream(Protocol):
    """A stream that is open."""

    failure: BaseException | None

    async def cancel(self) -> None:
        """Cancel the work in progress, and wait for it to end."""
        ...


class _Stream(Generic[_Item, _Result]):
    """Workers that each read an item, work on it, and read the next.

    One worker at a time reads. Whoever has read an item hires a newcomer to read the next before going to work, so
    there are never more workers than items. A worker who may not read on leaves.
    """

    def __init__(
        self,
        items: Iterable[_Item] | AsyncIterable[_Item],
        work: Callable[[_Item], Awaitable[_Result]],
        concurrency: int,
        asleep: Callable[[], int],
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
        self._asleep = asleep
        self._has_newcomer = False  # who has not begun yet
        self._is_reading = False
        self._exhausted = False
        self._cancelled = False
        self._in_work = 0
        self._waiter: asyncio.Future[None] | None = None

    def hire(self) -> bool:
        """Start a worker, where one may read. Return whether it was started."""
        if self._has_newcomer or self._is_overstaffed(with_another=1) or not self._may_read():
            return False
        self._has_newcomer = True
        self.workers.add(asyncio.create_task(self._read_and_work(), name="nxotp_async: send_many"))
        return True

    def _may_read(self) -> bool:
        has_room = self._in_work + len(self.results) < 2 * self._concurrency
        return has_room and not self._exhausted and not self._is_reading

    def _is_overstaffed(self, with_another: int = 0) -> bool:
        excess = len(self.workers) + with_another - self._concurrency
        return excess > 0 and excess > min(self._asleep(), self._concurrency)

    async def _read_and_work(self) -> None:
        self._has_newcomer = False
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
                self._in_work += 1
                self.hire()
                result = await self._work(cast("_Item", item))
                self._in_work -= 1
                self.results.append(result)
                self._notify()
                if self._is_overstaffed():
                    return
        except (Exception, asyncio.CancelledError) as error:
            if self._cancelled:
                raise
            # A source may also raise a CancelledError of its own, which must not pass for the end of the items.
            self._exhausted = True
            self.failure = self.failure or error
        finally:
            self.workers.remove(cast("asyncio.Task[None]", asyncio.current_task()))
            self._notify()

    def _notify(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next_result(self) -> None:
        """Wait until there is a result, or a worker has left."""
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    async def cancel(self) -> None:
        """Cancel the workers, and wait until they have gone."""
        self._exhausted = self._cancelled = True
        for worker in self.workers:
            worker.cancel()
        await asyncio.gather(*self.workers, return_exceptions=True)
        self.workers.clear()  # one that had not begun yet has not taken its leave
        self._notify()
