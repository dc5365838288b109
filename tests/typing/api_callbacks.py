"""What type checkers see of callbacks: `callbacks`, `tracking` and `receivers`. Nothing here is ever run."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, assert_type

from aiohttp import web
from fastapi import FastAPI

from nxotp_async import Clock, Credentials, SendResult, SendStatus
from nxotp_async.callbacks import (
    MAX_CALLBACK_BYTES,
    TERMINAL_STATUSES,
    CdrType,
    Cost,
    StatusEvent,
    advances,
    parse_callback,
    reaches,
    verify_callback,
)
from nxotp_async.receivers import HANDLER_ARGS, AsgiReceiver, CallbackMiddleware, EventSink, aiohttp_receiver
from nxotp_async.tracking import DeliveryState, DeliveryTracker


def a_callback(headers: dict[str, str], body: bytes, keys: Credentials, event: StatusEvent) -> None:
    assert_type(verify_callback(headers, body, keys), None)
    verify_callback(headers, body, keys, 1_800_000_000.0, window=60, require_sha256=True)
    assert_type(parse_callback(body), list[StatusEvent])
    assert_type(event.message_id, str)
    assert_type(event.status, str)
    assert_type(event.timestamp, datetime | None)
    assert_type(event.recipient, str)
    assert_type(event.errors, tuple[Mapping[str, Any], ...])
    assert_type(event.conversation, Mapping[str, Any] | None)
    assert_type(event.costs, tuple[Cost, ...])
    assert_type(event.costs[0].price, Decimal | None)
    assert_type(event.costs[0].cdr_type, CdrType | int | None)
    assert_type(event.raw, Mapping[str, Any])
    assert_type(advances("sent", "delivered"), bool)
    assert_type(reaches("read", "delivered"), bool)
    statuses: frozenset[str] = TERMINAL_STATUSES
    limit: int = MAX_CALLBACK_BYTES
    del statuses, limit


async def a_tracker(result: SendResult, event: StatusEvent) -> None:
    tracker = DeliveryTracker()
    assert_type(await tracker.add(result), DeliveryState)
    assert_type(await tracker.record(event), bool)
    assert_type(await tracker.state("A-1"), DeliveryState | None)
    assert_type(await tracker.wait("A-1", "delivered", timeout=20), DeliveryState)
    await tracker.wait("A-1")
    assert_type(tracker.events(), AsyncIterator[DeliveryState])


def a_state(state: DeliveryState, event: StatusEvent) -> None:
    assert_type(state.ids, frozenset[str])
    assert_type(state.status, str)
    assert_type(state.send_status, SendStatus | None)
    assert_type(state.updated_at, datetime | None)
    assert_type(state.errors, tuple[Any, ...])
    assert_type(state.after(event), DeliveryState)
    assert_type(state.including(None), DeliveryState)
    assert_type(state.has_reached("read"), bool)


class MySink:
    """A class of the application's is an `EventSink` without inheriting from it, whatever its method returns."""

    async def record(self, event: StatusEvent) -> int:
        return len(event.status)


def receivers(tracker: DeliveryTracker, keys: Credentials, clock: Clock) -> None:
    sinks: list[EventSink] = [tracker, MySink()]
    for sink in sinks:
        assert_type(aiohttp_receiver(sink, keys), web.Application)
        receiver = AsgiReceiver(sink, keys, token="0" * 16)
        assert_type(receiver, AsgiReceiver)
        assert_type(CallbackMiddleware(receiver, path="/nxcloud", receiver=receiver), CallbackMiddleware)
        FastAPI().add_middleware(CallbackMiddleware, path="/nxcloud", receiver=receiver)
    aiohttp_receiver(tracker, token="0" * 16, allow_unsigned=True, window=60, clock=clock)
    AsgiReceiver(tracker, token="0" * 16, allow_unsigned=True, window=60, clock=clock)
    web.Application(handler_args=HANDLER_ARGS)
