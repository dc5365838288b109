"""What the sandbox's page shows: the last requests and callbacks, and the news of them."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, Final, Generic, TypeVar

import attrs

from .answers import Reply
from .pusher import Callback
from .requests import ReceivedRequest

__all__ = ["Entry", "Inbox", "News"]

_T = TypeVar("_T")
_MAX_PENDING: Final = 20_000  # news that a slow reader leaves unread


@attrs.frozen(eq=False)
class Entry:
    """A request, and how it was answered.

    Attributes:
        number: Counts the requests of a sandbox.
        request: The request.
        reply: What the sandbox did with it.
        attempt: Which request of its ``cus_message_id`` it is, as far as is remembered; 1 for the first.
        expires_at: When its code expires, in seconds since the epoch.
    """

    number: int
    request: ReceivedRequest
    reply: Reply
    attempt: int
    expires_at: float


class _Newest(Generic[_T]):
    """The newest of a kind by their numbers, in groups."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._keys: dict[int, str | None] = {}
        self._groups: defaultdict[str, dict[int, _T]] = defaultdict(dict)
        self.items: dict[int, _T] = {}

    def put(self, number: int, key: str | None, item: _T) -> None:
        if number not in self.items and len(self.items) == self._keep:
            self._forget(next(iter(self.items)))
        self.items[number], self._keys[number] = item, key
        if key is not None:
            self._groups[key][number] = item

    def group(self, key: str | None) -> list[_T]:
        return [*self._groups[key].values()] if key is not None and key in self._groups else []

    def last(self, key: str | None) -> _T | None:
        return next(reversed(self._groups[key].values())) if key is not None and key in self._groups else None

    def clear(self) -> None:
        for each in (self.items, self._keys, self._groups):
            each.clear()

    def _forget(self, number: int) -> None:
        key = self._keys.pop(number)
        del self.items[number]
        if key is not None:
            del self._groups[key][number]
            if not self._groups[key]:
                del self._groups[key]


class News:
    """What has changed since it was last asked, for one reader."""

    def __init__(self) -> None:
        self._pending: dict[tuple[str, int], Any] = {}
        self._changed = asyncio.Event()
        self.is_over: bool = False

    def add(self, kind: str, number: int, item: object) -> None:
        """Add a change; another one of the same item takes its place. A reader that is too slow is given up."""
        self._pending.pop((kind, number), None)  # the order is that of the last changes
        self._pending[kind, number] = item
        self.is_over |= len(self._pending) > _MAX_PENDING
        self._changed.set()

    def end(self) -> None:
        """Let the reader go."""
        self.is_over = True
        self._changed.set()

    async def wait(self, timeout: float) -> list[tuple[str, Any]]:
        """Return what has changed, each with its kind; wait for it, some seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        self._changed.clear()
        pending, self._pending = self._pending, {}
        return [(kind, item) for (kind, _), item in pending.items()]


class Inbox:
    """The last requests and the last callbacks of a sandbox. All calls come from the sandbox's event loop.

    Args:
        keep: How many requests are remembered, and three times as many callbacks; the oldest are forgotten first.
        code_life: Seconds until a code expires. No request says so: it is assumed.
    """

    def __init__(self, keep: int = 10_000, code_life: float = 300.0) -> None:
        self.keep: int = keep
        self.code_life: float = code_life
        self._numbers = count(1)
        self._last_callback = 0
        self._entries: _Newest[Entry] = _Newest(keep)
        self._callbacks: _Newest[Callback] = _Newest(3 * keep)
        self._messages: _Newest[Entry] = _Newest(keep)
        self._readers: set[News] = set()

    # ------------------------------------------------------------------------------------------ what comes

    def add(self, reply: Reply) -> None:
        """Remember a request."""
        request = reply.request
        own = request.cus_message_id if isinstance(request.cus_message_id, str) else None
        earlier = self._entries.last(own)
        attempt = earlier.attempt + 1 if earlier else 1
        entry = Entry(next(self._numbers), request, reply, attempt, request.arrived_at + self.code_life)
        self._entries.put(entry.number, own, entry)
        if request.message_id is not None:
            self._messages.put(entry.number, request.message_id, entry)
        self.tell("request", entry.number, entry)

    def add_callback(self, callback: Callback) -> None:
        """Remember a callback, or what has become of it."""
        if callback.number in self._callbacks.items or callback.number > self._last_callback:
            self._last_callback = max(callback.number, self._last_callback)
            self._callbacks.put(callback.number, callback.message_id, callback)
            self.tell("callback", callback.number, callback)

    def clear(self) -> None:
        """Forget all requests and callbacks."""
        for each in (self._entries, self._messages, self._callbacks):
            each.clear()
        self.tell("clear", 0, None)

    # ------------------------------------------------------------------------------------------ what is asked

    @property
    def last_number(self) -> int:
        """The number of the newest request; 0 if there is none."""
        return next(reversed(self._entries.items), 0)

    def entry(self, number: int) -> Entry | None:
        """Return a request by its number."""
        return self._entries.items.get(number)

    def attempts(self, cus_message_id: str | None) -> list[Entry]:
        """Return the requests of a message, the first one first."""
        return self._entries.group(cus_message_id)

    def message(self, message_id: str) -> Entry | None:
        """Return the newest request with this message id."""
        return self._messages.last(message_id)

    def callback(self, number: int) -> Callback | None:
        """Return a callback by its number."""
        return self._callbacks.items.get(number)

    def callbacks(self, message_id: str | None = None) -> list[Callback]:
        """Return the callbacks, the oldest first; those of one message, if its id is given."""
        return [*self._callbacks.items.values()] if message_id is None else self._callbacks.group(message_id)

    def newest(self, *, sent: bool = False) -> Iterator[Entry]:
        """Yield the requests, the newest first; only those whose message was sent, if ``sent``."""
        return reversed((self._messages if sent else self._entries).items.values())

    async def wait(self, matches: Callable[[Entry], bool], after: int, timeout: float) -> Entry | None:
        """Return the newest message that matches, or ``None`` if there is none within some seconds.

        Args:
            matches: Which messages are meant.
            after: The number of a request: only later ones are meant.
            timeout: The most seconds to wait.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        with self.reader() as news:
            while True:
                for entry in self.newest(sent=True):
                    if entry.number <= after:
                        break
                    if matches(entry):
                        return entry
                after = max(after, self.last_number)
                if (left := end - loop.time()) <= 0 or news.is_over:
                    return None
                await news.wait(left)

    # ------------------------------------------------------------------------------------------ news

    @contextmanager
    def reader(self) -> Iterator[News]:
        """Yield the news from here on, until the block ends."""
        news = News()
        self._readers.add(news)
        try:
            yield news
        finally:
            self._readers.discard(news)

    def tell(self, kind: str, number: int, item: object) -> None:
        """Tell every reader of a change."""
        for reader in self._readers:
            reader.add(kind, number, item)

    def close(self) -> None:
        """Let every reader go."""
        for reader in self._readers:
            reader.end()
