"""Limits that all processes share: what a message counts in is changed in the store, each scope atomically."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from copy import copy
from functools import partial
from typing import Final

import attrs

from ..errors import NxOtpError, RefusalReason, StoreError, VerificationRefusedError
from ..stores import Store, hashed_key
from .limits import DAY, Limits, Scope, Usage, rules_of

__all__ = ["Limiter"]

_log = logging.getLogger("nxotp_async")

_TTL: Final = DAY + 3600.0  # seconds
Names = Mapping[Scope, str]
"""What a message counts in: the number itself for `Scope.NUMBER`, and so on."""
Change = Callable[[Usage], Usage]


class Limiter:
    """Admits messages within limits.

    Args:
        store: What the processes share.
        limits: What is allowed.
        secret: The key of the digests that stand for numbers and addresses in the store.
    """

    def __init__(self, store: Store, limits: Limits, secret: bytes) -> None:
        self._store = store
        self._rules = rules_of(limits)
        self._secret = secret
        self._queues: dict[tuple[asyncio.AbstractEventLoop, str], _Queue] = {}

    @asynccontextmanager
    async def admitted(
        self,
        names: Names,
        now: float,
        *,
        meanwhile: Awaitable[object] | None = None,
        waives: Callable[[], bool] = lambda: False,
    ) -> AsyncIterator[None]:
        """Count a message that is sent in the block. If the block says that it was not sent, it is not counted.

        One that WhatsApp cannot deliver is counted: otherwise anybody could find out who is on WhatsApp.

        Args:
            names: What it counts in.
            now: Seconds since the epoch.
            meanwhile: What else is to be done before the block, at the same time.
            waives: Says whether a low conversion is no reason to refuse this message.

        Raises:
            VerificationRefusedError: A limit is reached. Nothing is counted then.
            StoreError: The store does not answer.
        """
        names = {scope: name for scope, name in names.items() if scope in self._rules}
        counts = (self._count(scope, name, now, waives) for scope, name in names.items())
        others = () if meanwhile is None else (meanwhile,)
        results = await asyncio.gather(*counts, *others, return_exceptions=True)
        counted = {scope: names[scope] for scope, result in zip(names, results, strict=False) if result is None}
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            await self._take_back(counted, now)
            raise max(failures, key=_weight)
        try:
            yield
        except NxOtpError as error:
            if getattr(error, "reason", None) is not RefusalReason.UNDELIVERABLE:
                await self._take_back(counted, now)
            raise

    async def _count(self, scope: Scope, name: str, now: float, waives: Callable[[], bool]) -> None:
        rule = self._rules[scope]
        try:
            await self._change(scope, name, partial(rule.admit, now=now))
        except VerificationRefusedError as refusal:
            if refusal.reason is not RefusalReason.LOW_CONVERSION or not waives():
                raise
            await self._change(scope, name, partial(attrs.evolve(rule, min_conversion=None).admit, now=now))

    async def _take_back(self, names: Names, now: float) -> None:
        def change(usage: Usage) -> Usage:
            return usage.with_message(now, -1)

        with suppress(StoreError):  # then more is counted than was sent, which is on the safe side
            await asyncio.gather(*(self._change(scope, name, change) for scope, name in names.items()))

    async def approved(self, names: Names, now: float) -> None:
        """Count an approval. If the store fails, that is logged: the approval itself is stored already."""

        def change(usage: Usage) -> Usage:
            return usage.with_approval(now)

        scopes = [scope for scope in names if scope in self._rules and self._rules[scope].min_conversion is not None]
        results = await asyncio.gather(
            *(self._change(scope, names[scope], change) for scope in scopes), return_exceptions=True
        )
        for result in results:
            if result is not None:
                _log.warning("an approval was not counted for the conversion: %s", type(result).__name__)

    async def _change(self, scope: Scope, name: str, change: Change) -> None:
        """Change a count. All changes that wait for each other in this event loop are made in one update.

        Every message counts in its country and in the budget. If each were an update of its own, a burst of them would
        compete for the same two keys until some run out of time.

        Raises:
            Exception: What ``change`` raises, or the store.
        """
        key = hashed_key("limit", f"{scope} {name}", secret=self._secret)
        place = asyncio.get_running_loop(), key
        queue = self._queues.setdefault(place, _Queue())
        wanted = _Wanted(change)
        queue.users += 1
        queue.wanted.append(wanted)
        try:
            async with queue.lock:
                if not wanted.is_done:
                    await self._update(key, queue)
        finally:
            if wanted in queue.wanted:  # cancelled
                queue.wanted.remove(wanted)
            queue.users -= 1
            if not queue.users:
                self._queues.pop(place, None)
        if wanted.failure is not None:
            raise wanted.failure

    async def _update(self, key: str, queue: "_Queue") -> None:
        """Make the changes that wait, and note of each what it raised."""
        batch, queue.wanted = queue.wanted, []

        def apply(value: bytes | None) -> bytes | None:
            before = usage = Usage.load(value)
            for each in batch:
                try:
                    usage, each.failure = each.change(usage), None
                except VerificationRefusedError as refusal:
                    each.failure = refusal
            return value if usage == before else usage.dump() if usage != Usage() else None

        try:
            await self._store.update(key, apply, ttl=_TTL)
        except Exception as error:
            for each in batch:
                each.failure = copy(error)  # each is raised in a task of its own
        except BaseException:  # cancelled, and the others are not
            queue.wanted = batch + queue.wanted
            raise
        for each in batch:
            each.is_done = True


@attrs.define(eq=False)
class _Wanted:
    """A change of a count that waits to be made."""

    change: Change
    is_done: bool = False
    failure: Exception | None = None


class _Queue:
    """The changes of one count that wait in one event loop."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wanted: list[_Wanted] = []
        self.users = 0


def _weight(failure: BaseException) -> float:
    """Return how much a failure matters: an outage most, and then the refusal that lasts longest."""
    return (failure.retry_after or 0.0) if isinstance(failure, VerificationRefusedError) else float("inf")
