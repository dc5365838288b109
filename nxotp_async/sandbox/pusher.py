"""Status callbacks as the vendor pushes them: also out of order, repeatedly, or not at all; unsigned or forged."""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import count
from typing import Any, Final, Literal

import aiohttp
import attrs
import orjson
from yarl import URL

from ..checks import InvalidValueError, integer, number, validate
from ..signing import Credentials, signed_text
from ..urls import is_http_url, is_loopback, parse_host

__all__ = ["Callback", "CallbackPlan", "CallbackPusher", "CallbackState"]

_MESSAGES_AT_ONCE: Final = 8
_MAX_TRIES: Final = 12
_TIMEOUT: Final = aiohttp.ClientTimeout(total=5.0)


@attrs.frozen(kw_only=True)
class CallbackPlan:
    """Which callbacks the sandbox pushes for a message that was sent, and how.

    Each is repeated with growing pauses until it is answered with 200, up to twelve times. They go to loopback
    addresses only, and to ``hosts``. Shares are from 0.0 to 1.0.

    Attributes:
        webhook: The URL for messages without a ``dr_webhook``; with ``None``, they have no callbacks.
        hosts: Names or addresses of other hosts that callbacks may go to, of other containers for example.
        reuse_connections: Whether connections are kept open; otherwise each callback comes over a new one, so that all
            the workers behind one port get some.
        statuses: The statuses of a message, in this order.
        failed: The share of messages that have the status ``failed`` in place of all after the first.
        delay: Seconds before each callback of a message.
        early: The share of messages whose first callback is pushed before their request is answered.
        shuffle: Whether the order is random.
        copies: How often each is pushed.
        loss: The share of callbacks that are not pushed.
        algorithm: The hash of the signature.
        signed: Whether they are signed.
        forged: The share of callbacks that a forged one is added to, with a wrong signature and the status ``deleted``.
        cost: The field in which ``delivered`` says what the message costs: ``cost``, an object, or ``costs``, an array.
            With ``None``, it does not.

    Raises:
        ValueError: A value is wrong, or ``webhook`` leads to another host.
    """

    webhook: str | None = None
    hosts: Sequence[str] = ()
    reuse_connections: bool = True
    statuses: Sequence[str] = ("sent", "delivered", "read")
    failed: float = 0.0
    delay: float = 0.0
    early: float = 0.0
    shuffle: bool = False
    copies: int = 1
    loss: float = 0.0
    algorithm: Literal["md5", "sha256"] = "sha256"
    signed: bool = True
    forged: float = 0.0
    cost: Literal["cost", "costs"] | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("failed", "early", "loss", "forged"):
            validate(name, number(at_least=0, at_most=1), getattr(self, name))
        validate("delay", number(at_least=0), self.delay)
        validate("copies", integer(at_least=0), self.copies)
        for host in self.hosts:
            validate("hosts", parse_host, host)
        if self.webhook is not None and self.url_for(None) is None:
            raise InvalidValueError("webhook must lead to loopback, or to one of hosts")

    def url_for(self, dr_webhook: str | None) -> str | None:
        """Return the URL for the callbacks of a message, or ``None`` if there is none that they may go to."""
        url = dr_webhook or self.webhook
        host = URL(url).host if url is not None and is_http_url(url) else None
        return url if host and (is_loopback(host) or host in map(str.lower, self.hosts)) else None


class CallbackState(StrEnum):
    """What has become of a callback."""

    HELD = "held"
    WAITING = "waiting"
    TAKEN = "taken"
    REFUSED = "refused"
    DROPPED = "dropped"


@attrs.define(eq=False)
class Callback:
    """A callback of a message, and what has become of it.

    Attributes:
        number: Counts the callbacks of a sandbox.
        message_id: The message that it is about.
        status: The status that it tells.
        url: Where it goes.
        body: Its JSON.
        made_at: Seconds since the epoch.
        is_forged: Whether its signature is wrong on purpose.
        state: What has become of it.
        tries: How often it was pushed.
        answer: The HTTP status of the last answer; 0 if there was none.
    """

    number: int
    message_id: str
    status: str
    url: str
    body: bytes
    made_at: float
    is_forged: bool = False
    state: CallbackState = CallbackState.WAITING
    tries: int = 0
    answer: int = 0


class CallbackPusher:
    """Pushes the callbacks of a running sandbox. It is made in an event loop, and pushes until it is closed.

    Args:
        plan: Which callbacks, and how.
        credentials: The keys to sign with.
        counts: Where to count them by outcome.
        clock: Seconds since the epoch.
        seed: Makes the draws repeatable.
        on_change: Called with each new callback, and with each whose state has changed.

    Attributes:
        hold: Whether new callbacks are held until `push`.
    """

    def __init__(
        self,
        plan: CallbackPlan,
        credentials: Credentials,
        counts: Counter[str],
        clock: Callable[[], float],
        seed: int | None,
        on_change: Callable[[Callback], object],
    ) -> None:
        self.hold: bool = False
        self._numbers = count(1)
        self._on_change = on_change
        self._plan = plan
        self._credentials = credentials
        self._counts = counts
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=not plan.reuse_connections),
            timeout=_TIMEOUT,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._permits = asyncio.Semaphore(_MESSAGES_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsettled = 0
        self._settled = asyncio.Event()

    async def aclose(self) -> None:
        """Stop pushing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()
        self._unsettled = 0
        self._settled.set()

    async def settled(self) -> None:
        """Wait until every callback so far has been answered with 200, or given up."""
        while self._unsettled:
            self._settled.clear()
            await self._settled.wait()

    async def announce(self, fields: Mapping[str, Any], message_id: str) -> None:
        """Push the callbacks of a message that was sent; an early one, before this returns."""
        url = self._plan.url_for(fields.get("dr_webhook"))
        if url is None:
            self._counts["callbacks without an address"] += 1
            return
        callbacks = [
            self._new(url, fields, message_id, status, is_forged=is_forged) for status, is_forged in self._statuses()
        ]
        if self.hold:
            for callback in callbacks:
                self._turn(callback, CallbackState.HELD)
            return
        self._unsettled += len(callbacks)
        if self._random.random() < self._plan.early:
            # The sender may disconnect meanwhile, which is no reason for the vendor to stop.
            early = asyncio.create_task(self._push_early(callbacks))
            self._keep(early)
            await asyncio.shield(early)
        else:
            self._keep(asyncio.create_task(self._push_in_turn(callbacks)))

    async def _push_early(self, callbacks: list[Callback]) -> None:
        for callback in callbacks[:1]:
            await self._push(callback)
        self._keep(asyncio.create_task(self._push_in_turn(callbacks[1:])))

    async def _push_in_turn(self, callbacks: list[Callback]) -> None:
        if self._plan.delay:
            for callback in callbacks:
                await asyncio.sleep(self._plan.delay)
                await self._push(callback)
        else:
            async with self._permits:
                await self._push_each(callbacks)

    async def _push_each(self, callbacks: list[Callback]) -> None:
        for callback in callbacks:
            await self._push(callback)

    def push(self, callbacks: Iterable[Callback]) -> list[Callback]:
        """Push callbacks, each after the answer to the one before, and return them.

        One that is held is pushed for the first time. Of any other, a copy is pushed.
        """
        pushed = []
        for callback in callbacks:
            if callback.state is CallbackState.HELD:
                self._turn(callback, CallbackState.WAITING)
                pushed.append(callback)
            else:
                pushed.append(self._copy(callback))
        self._unsettled += len(pushed)
        self._keep(asyncio.create_task(self._push_each(pushed)))
        return pushed

    def push_new(self, fields: Mapping[str, Any], message_id: str, status: str, *, is_forged: bool) -> Callback | None:
        """Push one more callback of a message, and return it; ``None`` if there is no address that it may go to."""
        url = self._plan.url_for(fields.get("dr_webhook"))
        if url is None:
            return None
        callback = self._new(url, fields, message_id, status, is_forged=is_forged)
        self._unsettled += 1
        self._keep(asyncio.create_task(self._push(callback)))
        return callback

    def drop(self, callback: Callback) -> bool:
        """Do not push a callback any more, and return whether it was still to be pushed."""
        if callback.state not in (CallbackState.HELD, CallbackState.WAITING):
            return False
        if callback.state is CallbackState.WAITING:
            self._settle()
        self._turn(callback, CallbackState.DROPPED)
        return True

    def _new(self, url: str, fields: Mapping[str, Any], message_id: str, status: str, *, is_forged: bool) -> Callback:
        body = self._body(fields, message_id, status)
        callback = Callback(next(self._numbers), message_id, status, url, body, self._clock(), is_forged)
        self._on_change(callback)
        return callback

    def _copy(self, callback: Callback) -> Callback:
        copy = Callback(
            number=next(self._numbers),
            message_id=callback.message_id,
            status=callback.status,
            url=callback.url,
            body=callback.body,
            made_at=self._clock(),
            is_forged=callback.is_forged,
        )
        self._on_change(copy)
        return copy

    def _turn(self, callback: Callback, state: CallbackState) -> None:
        callback.state = state
        self._on_change(callback)

    def _settle(self) -> None:
        self._unsettled -= 1
        if not self._unsettled:
            self._settled.set()

    def _statuses(self) -> list[tuple[str, bool]]:
        """Draw the statuses of a message, and whether each is forged."""
        plan, chance = self._plan, self._random.random
        statuses = [*plan.statuses]
        if chance() < plan.failed:
            statuses = [*plan.statuses[:1], "failed"]
        drawn = [(status, False) for status in statuses for _ in range(plan.copies) if chance() >= plan.loss]
        drawn += [("deleted", True) for _ in drawn if chance() < plan.forged]
        if plan.shuffle:
            self._random.shuffle(drawn)
        return drawn

    def _body(self, fields: Mapping[str, Any], message_id: str, status: str) -> bytes:
        now = int(self._clock())
        event: dict[str, Any] = {
            "id": message_id,
            "status": status,
            "timestamp": str(now),
            "recipient_id": str(fields.get("to", "")),
        }
        if status in ("sent", "delivered"):
            event["conversation"] = {"id": hashlib.sha256(message_id.encode()).hexdigest()[:32]}
        if status == "sent":
            event["conversation"] |= {"expiration_timestamp": str(now + 86_400)}
        if status == "delivered" and self._plan.cost is not None:
            cost = {"currency": "USD", "foreign_price": 0.02, "cdr_type": 6, "message_id": message_id, "direction": 2}
            event |= {"cost": cost} if self._plan.cost == "cost" else {"costs": [{**cost, "price": 0.14}]}
        if status == "failed":
            event["errors"] = [{"code": 131026, "title": "Message undeliverable"}]
        return orjson.dumps(
            {
                "statuses": [event],
                "business_phone": str(fields.get("business_phone", "")),
                "messaging_product": "whatsapp",
            }
        )

    # ------------------------------------------------------------------------------------------ pushing

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _push_later(self, callback: Callback, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._push(callback)

    async def _push(self, callback: Callback) -> None:
        if callback.state is not CallbackState.WAITING:
            return  # dropped meanwhile
        self._counts["callbacks pushed"] += 1
        callback.tries += 1
        try:
            async with self._session.post(
                callback.url, data=callback.body, headers=self._headers(callback), allow_redirects=False
            ) as answer:
                callback.answer = answer.status
        except (aiohttp.ClientError, TimeoutError):
            callback.answer = 0
        if callback.state is not CallbackState.WAITING:
            return
        taken = callback.answer == 200
        if not taken and not callback.is_forged and callback.tries < _MAX_TRIES:
            self._on_change(callback)
            self._keep(asyncio.create_task(self._push_later(callback, min(5.0, 0.05 * 2.0 ** (callback.tries - 1)))))
            return
        kind = "forged callbacks" if callback.is_forged else "callbacks"
        self._counts[f"{kind} taken" if taken else f"{kind} refused"] += 1
        self._turn(callback, CallbackState.TAKEN if taken else CallbackState.REFUSED)
        self._settle()

    def _headers(self, callback: Callback) -> dict[str, str]:
        if not self._plan.signed:
            return {"Content-Type": "application/json"}
        ts, algorithm = int(self._clock() * 1000), self._plan.algorithm
        text = signed_text(callback.body, ts=ts, credentials=self._credentials, action="callback", biz_type="2")
        signature = hashlib.new(algorithm, text, usedforsecurity=False).hexdigest()
        return {
            "Content-Type": "application/json",
            "accessKey": self._credentials.access_key,
            "action": "callback",
            "bizType": "2",
            "ts": str(ts),
            "algorithm": algorithm,
            "sign": "0" * len(signature) if callback.is_forged else signature,
        }
