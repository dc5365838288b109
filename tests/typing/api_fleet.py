"""The types of a fleet, as users write them. Never run."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, assert_type

import psycopg

from nxotp_async import OtpClient, OtpMessage
from nxotp_async.callbacks import StatusEvent
from nxotp_async.fleet import (
    Enqueued,
    FleetMigration,
    FleetStatus,
    MessageState,
    Outbox,
    OutboxCount,
    OutboxMessage,
    Queue,
    SenderStatus,
    Worker,
    fleet_status,
)
from nxotp_async.otel import FleetGauges
from nxotp_async.stores import Migration, Store


async def messages_in(
    message: OtpMessage, own: psycopg.AsyncConnection[Any], of_django: psycopg.Connection[Any]
) -> None:
    async with Outbox("postgresql://host/app", keys=["key"], sender="eu", expires_after=300) as outbox:
        assert_type(outbox.sender, str)
        assert_type(await outbox.enqueue(message, connection=own), str)
        assert_type(outbox.enqueue_sync(message, connection=of_django, queue=Queue.BULK), str)
        enqueued = await outbox.enqueue_many([message], queue=Queue.LOGIN)
        assert_type(enqueued, Enqueued)
        assert_type(enqueued.queued, list[str])
        assert_type(enqueued.known, list[str])
        migration = await outbox.migrate(dry_run=True)
        assert_type(migration, FleetMigration)
        assert_type(migration.outbox, Migration)
        assert_type(migration.store, Migration)
        assert_type(migration.engine, tuple[str, ...] | None)
        assert_type(migration.is_needed, bool)
        await outbox.aclose()


async def messages_out(outbox: Outbox, event: StatusEvent) -> None:
    assert_type(await outbox.get("id"), OutboxMessage | None)
    message = await outbox.wait("id", timeout=10)
    assert_type(message.state, MessageState)
    assert_type(message.queue, Queue)
    assert_type(message.is_settled, bool)
    assert_type(message.message_id, str | None)
    assert_type(message.queued_at, datetime)
    assert_type(message.sent_at, datetime | None)
    assert_type(await outbox.find("+999 555 0100", limit=1), list[OutboxMessage])
    assert_type(outbox.results(batch=100), AsyncIterator[OutboxMessage])
    assert_type(await outbox.counts(), list[OutboxCount])
    assert_type(await outbox.states(), Counter[MessageState])
    assert_type(await outbox.unknown_ids(), list[str])
    assert_type(await outbox.record(event), bool)
    assert_type(await outbox.resolve(["id"], MessageState.ACCEPTED), int)


async def workers(outbox: Outbox, client: OtpClient, store: Store) -> None:
    worker = Worker(outbox, client, rate=80, queues=[Queue.LOGIN], reject_on=[9005], stalled_after=30, keep=86_400)
    await worker.check()
    await worker.run()
    worker.stop()
    assert_type(worker.is_stopping, bool)
    assert_type(worker.is_ready, bool)
    assert_type(worker.condition, str)
    assert_type(worker.in_flight, int)
    status = await fleet_status(outbox, store, now=1.0, stalled_after=30)
    assert_type(status, FleetStatus)
    assert_type(status.workers, int)
    assert_type(FleetGauges().set(status), None)
    assert_type(status.senders, list[SenderStatus])
    assert_type(status.senders[0].states, Counter[MessageState])
    assert_type(status.senders[0].queued, dict[Queue, int])
    assert_type(status.senders[0].paused, str | None)
