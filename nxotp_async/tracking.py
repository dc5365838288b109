"""The delivery status of messages: status callbacks matched with the sends that they are about."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import partial
from typing import Any, Final, Self

import attrs
import orjson
from cattrs.gen import make_dict_unstructure_fn, override
from cattrs.preconf.orjson import make_converter

from .callbacks import StatusEvent, advances, reaches
from .checks import number, validate
from .errors import ConfigurationError, StoreError
from .phone_numbers import mask_number
from .results import SendResult, SendStatus
from .stores import MemoryStore, Store, hashed_key

__all__ = ["DeliveryState", "DeliveryTracker"]

_log = logging.getLogger("nxotp_async")

_NAMESPACE: Final = "delivery"
_MAX_REMEMBERED: Final = 10_000


# ---------------------------------------------------------------------------------------------- states


@attrs.frozen
class DeliveryState:
    """What is known about one message.

    Attributes:
        ids: Its known ids: the ``cus_message_id`` and the vendor's id.
        status: ``queued``, ``sent``, ``delivered``, ``read``, ``failed`` or ``deleted``.
        send_status: The status of the send, or ``None`` before it is known. Any callback changes it to accepted,
            because it proves that the vendor accepted the message.
        updated_at: When the message got this status, by the vendor's clock, or ``None``.
        errors: The vendor's errors, if it failed.
    """

    ids: frozenset[str]
    status: str = "queued"
    send_status: SendStatus | None = None
    updated_at: datetime | None = None
    errors: tuple[Any, ...] = ()

    def after(self, event: StatusEvent) -> "DeliveryState":
        """Return the state after this event."""
        accepted = attrs.evolve(self, send_status=SendStatus.ACCEPTED)
        if not advances(self.status, event.status):
            return accepted
        errors = _without_number(event.errors, event.recipient)
        return attrs.evolve(accepted, status=event.status, updated_at=event.timestamp, errors=errors)

    def including(self, known: "DeliveryState | None") -> "DeliveryState":
        """Return this state together with what was known of the message besides."""
        if known is None:
            return self
        state = attrs.evolve(self, ids=self.ids | known.ids)
        if known.send_status is SendStatus.ACCEPTED:
            state = attrs.evolve(state, send_status=known.send_status)
        if advances(state.status, known.status):
            state = attrs.evolve(state, status=known.status, updated_at=known.updated_at, errors=known.errors)
        return state

    def has_reached(self, wanted: str) -> bool:
        """Return whether the message has reached the wanted status, or can no longer reach it."""
        was_not_accepted = self.send_status in (SendStatus.REJECTED, SendStatus.NOT_SENT)
        return was_not_accepted or reaches(self.status, wanted)


def _without_number(errors: tuple[Any, ...], recipient: str) -> tuple[Any, ...]:
    """Return the vendor's errors with the recipient's number masked: they are stored."""
    if not recipient or not errors:
        return errors
    masked = orjson.dumps(errors).replace(recipient.encode(), mask_number(recipient).encode())
    return tuple(orjson.loads(masked))


# ---------------------------------------------------------------------------------------------- documents


@attrs.frozen
class _Document:
    """What is stored under an id.

    Attributes:
        state: What is known of the message; where there is an ``owner``, what was known before its result came.
        owner: The ``cus_message_id`` under which the state is, where this is the vendor's id for the same message.
        version: The version of this form. A worker does not touch what a newer one has written in another form.
    """

    state: DeliveryState | None
    owner: str | None = None
    version: int = 1


_converter: Final = make_converter(forbid_extra_keys=False)
_converter.register_unstructure_hook(
    DeliveryState, make_dict_unstructure_fn(DeliveryState, _converter, ids=override(unstruct_hook=sorted))
)


def _dump(document: _Document) -> bytes:
    return _converter.dumps(document)


def _load(value: bytes | None) -> _Document:
    if value is None:
        return _Document(None)
    fields = orjson.loads(value)
    if fields["version"] > 1:
        raise StoreError("a newer version of nxotp_async has written this message's state", hint="update this worker")
    return _converter.structure(fields, _Document)


def _key(message_id: str) -> str:
    return hashed_key(_NAMESPACE, message_id)


# ---------------------------------------------------------------------------------------------- the tracker


class DeliveryTracker:
    """Matches status callbacks with the sends that they are about, whichever comes first.

    Callbacks may come more than once, out of order, before the answer to the send, and to any process that has a
    tracker with the same store. A tracker may be used in several event loops and threads. It need not be closed; its
    store does.

    Every method but `wait` raises `StoreError` if the store does not answer in time, and `ConfigurationError` if it
    cannot be used as it is configured.

    Args:
        store: Where the states are stored. Default: in the memory of this process.
        keep_for: Seconds for which a state is stored since its last change.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(self, store: Store | None = None, *, keep_for: float = 86_400.0) -> None:
        if store is not None and not hasattr(store, "update"):
            raise ConfigurationError(
                f"store must be a Store, not {type(store).__name__}", hint="store_from_url(...) makes one of a URL"
            )
        self._store = MemoryStore() if store is None else store
        self._keep_for = validate("keep_for", number(above=0), keep_for, ConfigurationError)

    async def add(self, result: SendResult) -> DeliveryState:
        """Add the result of a send, and return the message's state, which includes callbacks that came before."""
        own, vendors = result.message.cus_message_id or result.message_id, result.message_id
        state = DeliveryState(frozenset(filter(None, (own, vendors))), send_status=result.status)
        if own is None:
            return state
        if vendors is not None and vendors != own:
            await self._join(vendors, own)
            state = state.including((await self._stored(vendors)).state)
        _, after = await self._change(own, state.including)
        return after

    async def _join(self, vendors: str, own: str) -> None:
        """Note of the vendor's id that it is another one of this message. What is known by it already stays there."""

        def change(value: bytes | None) -> bytes | None:
            document = _load(value)
            is_taken = document.owner is not None or (document.state is not None and document.state.ids != {vendors})
            return value if is_taken else _dump(_Document(document.state, own))

        await self._store.update(_key(vendors), change, ttl=self._keep_for)

    async def record(self, event: StatusEvent) -> bool:
        """Add the event of a callback, and return whether it changed the message's state."""
        new = DeliveryState(frozenset({event.message_id}))
        before, after = await self._change(event.message_id, lambda before: (before or new).after(event))
        if before is None:
            _log.info(
                "a callback says %s of message ...%s to %s, of which no send is known here (yet)",
                event.status,
                event.message_id[-6:],
                mask_number(event.recipient) if event.recipient else "?",
            )
        return before != after

    async def _change(
        self, message_id: str, change: Callable[[DeliveryState | None], DeliveryState]
    ) -> tuple[DeliveryState | None, DeliveryState]:
        """Change the state of a message atomically, by either id; return the state before and after."""
        document = await self._change_stored(message_id, change)
        if document.owner is not None:
            with_early = partial(_together, early=document.state)
            document = await self._change_stored(document.owner, lambda state: change(with_early(state)), is_owner=True)
            return document.state, change(with_early(document.state))
        return document.state, change(document.state)

    async def _change_stored(
        self, message_id: str, change: Callable[[DeliveryState | None], DeliveryState], *, is_owner: bool = False
    ) -> _Document:
        """Change the state under an id, unless it is under the id of its owner; return what was stored before."""
        before = _Document(None)

        def apply(value: bytes | None) -> bytes | None:
            nonlocal before
            before = _load(value)
            if before.owner is not None and not is_owner:
                return value
            after = change(before.state)
            return value if after == before.state else _dump(attrs.evolve(before, state=after))

        await self._store.update(_key(message_id), apply, ttl=self._keep_for)
        return before

    async def _stored(self, message_id: str) -> _Document:
        return _load(await self._store.get(_key(message_id)))

    async def state(self, message_id: str) -> DeliveryState | None:
        """Return the state of a message, by its ``cus_message_id`` or the vendor's id; ``None`` if it is not known."""
        document = await self._stored(message_id)
        if document.owner is None:
            return document.state
        return _together((await self._stored(document.owner)).state, document.state)

    async def wait(self, message_id: str, status: str = "delivered", *, timeout: float | None = None) -> DeliveryState:
        """Wait until a message has reached this status, or can no longer reach it; see ``status`` of the state.

        An outage of the store does not end the wait.

        Args:
            message_id: The message's ``cus_message_id``, or the vendor's id.
            status: ``sent``, ``delivered`` or ``read``.
            timeout: Seconds to wait; ``None`` means without limit.

        Raises:
            TimeoutError: The message has not reached the status in time.
            ValueError: ``status`` is none of these.
        """
        if status not in ("sent", "delivered", "read"):
            raise ValueError("status must be sent, delivered or read")
        document, seen = _Document(None), None
        try:
            async with asyncio.timeout(timeout) as limit:
                while document.state is None or not document.state.has_reached(status):
                    seen = await self._store.wait(_key(message_id), seen, timeout=None)
                    document = _load(seen)
                    if document.owner is not None:
                        message_id, seen, document = document.owner, None, _Document(None)
        except TimeoutError:
            if not limit.expired():
                raise
            known = "nothing is known of it: OtpClient(tracker=...) tells its tracker of every send"
            if document.state is not None:
                known = f"it is {document.state.status}"
            raise TimeoutError(f"the message is not {status} within {timeout:g} s; {known}") from None
        return document.state

    def events(self) -> AsyncIterator[DeliveryState]:
        """Return the states of messages that change from now on, in all processes that share the store.

        Of a message that changes several times in a moment, only the newest state may come. A reader that is more than
        10,000 messages behind misses the oldest, and what changes while the store is away may be missed.
        """
        return _Events(self._store)


def _together(state: DeliveryState | None, early: DeliveryState | None) -> DeliveryState | None:
    return early if state is None else state.including(early)


class _Events:
    """The states that change, each once. It ends when its reader is garbage-collected."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys = store.changes(f"{_NAMESPACE}:")
        self._latest: OrderedDict[str, bytes | None] = OrderedDict()  # what was read of a key when it last changed

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> DeliveryState:
        while True:
            key = await anext(self._keys)
            try:
                value = await self._store.get(key)
                document = _load(value)
            except StoreError as error:
                _log.warning("a change of a message's state was missed: %s", error)
                continue
            is_news = document.state is not None and document.owner is None and self._latest.get(key) != value
            self._latest[key] = value
            if len(self._latest) > _MAX_REMEMBERED:
                self._latest.popitem(last=False)
            if is_news and document.state is not None:
                return document.state
