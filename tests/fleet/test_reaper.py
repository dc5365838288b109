"""What nobody looks after any more."""

import asyncio

import psycopg
from fleet_support import message, rows, running, until, worker_of
from support import ScriptedTransport
from test_worker import client_of, settled

from nxotp_async import Clock
from nxotp_async.callbacks import StatusEvent
from nxotp_async.fleet import MessageState, Outbox
from nxotp_async.fleet.engine import connected, new_app
from nxotp_async.fleet.reaper import Reaped, reap
from nxotp_async.fleet.settling import Settler
from nxotp_async.fleet.states import Report

DAY = 86_400.0


async def reaped(outbox: Outbox, *, keep: float = DAY) -> Reaped | None:
    async with connected(new_app(), outbox.connections.conninfo) as app:
        return await reap(outbox, app.job_manager, stalled_after=5, keep=keep)


async def claimed_by(worker: int, url: str, *ids: str) -> None:
    """Have rows in flight, as a worker of this id leaves them when it is killed."""
    await rows(
        url,
        "UPDATE nxotp_outbox SET state = 'sending', claims = claims + 1, worker_id = %s, sent_at = now() "
        "WHERE cus_message_id = ANY(%s)",
        worker,
        list(ids),
    )


async def alive(url: str) -> int:
    [(worker,)] = await rows(url, "INSERT INTO procrastinate_workers DEFAULT VALUES RETURNING id")
    return int(worker)


async def test_what_a_worker_that_has_gone_had_in_flight_is_unknown(outbox: Outbox, schema_url: str) -> None:
    await outbox.enqueue_many([message(number, cus_message_id=f"m{number}") for number in range(4)])
    living, stalled = await alive(schema_url), await alive(schema_url)
    await rows(
        schema_url, "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 min' WHERE id = %s", stalled
    )
    await claimed_by(living, schema_url, "m0")
    await claimed_by(stalled, schema_url, "m1")
    await claimed_by(9999, schema_url, "m2", "m3")
    await outbox.record(StatusEvent(message_id="m3", status="sent"))
    done = await reaped(outbox)
    assert done is not None
    assert done.interrupted == 3
    states = [each.state for each in [each async for each in outbox.results()]]
    assert states == [MessageState.SENDING, MessageState.UNKNOWN, MessageState.UNKNOWN, MessageState.ACCEPTED]
    # Truth arrives late, and is taken.
    [(row_id,)] = await rows(schema_url, "SELECT id FROM nxotp_outbox WHERE cus_message_id = 'm1'")
    await Settler(outbox, Clock()).settle(
        Report(row_id, 1, MessageState.ACCEPTED, MessageState.ACCEPTED, message_id="v1")
    )
    late = await outbox.get("m1")
    assert late is not None
    assert (late.state, late.message_id, late.reason) == (MessageState.ACCEPTED, "v1", None)


async def test_a_message_in_flight_for_far_too_long_is_unknown_whatever_its_worker_says(
    outbox: Outbox, schema_url: str
) -> None:
    id_ = await outbox.enqueue(message())
    await claimed_by(await alive(schema_url), schema_url, id_)
    await rows(schema_url, "UPDATE nxotp_outbox SET sent_at = now() - interval '11 min'")
    await reaped(outbox)
    assert await outbox.states() == {MessageState.UNKNOWN: 1}


async def test_what_is_queued_and_in_no_job_of_a_living_worker_gets_another(outbox: Outbox, schema_url: str) -> None:
    await outbox.enqueue_many([message(number, cus_message_id=f"m{number}") for number in range(4)])
    for number in range(4, 8):
        await outbox.enqueue(message(number, cus_message_id=f"m{number}"))
    living = await alive(schema_url)
    jobs = await rows(schema_url, "SELECT id FROM procrastinate_jobs ORDER BY id")
    [of_many, of_gone, of_living, failed, waiting] = [job for (job,) in jobs]
    doing = "UPDATE procrastinate_jobs SET status = 'doing', worker_id = %s WHERE id = ANY(%s)"
    await rows(schema_url, doing, None, [of_many, of_gone])
    await rows(schema_url, doing, living, [of_living])
    await rows(schema_url, "DELETE FROM procrastinate_jobs WHERE id = %s", failed)
    assert await reaped(outbox) == Reaped(0, 0, 0, 0)  # they are new: their jobs may only not be seen yet
    await rows(schema_url, doing, None, [of_many, of_gone])  # it deletes the jobs of workers that have gone
    await rows(
        schema_url,
        "UPDATE nxotp_outbox SET queued_at = now() - interval '1 min', not_before = now() - interval '1 min'",
    )
    assert await reaped(outbox) == Reaped(0, 0, 6, 0)
    carried = await rows(
        schema_url,
        "SELECT array_agg(cus_message_id ORDER BY o.id) FROM procrastinate_jobs j "
        "CROSS JOIN jsonb_array_elements(args -> 'ids') e JOIN nxotp_outbox o ON o.id = e::bigint "
        "WHERE j.status = 'todo' GROUP BY j.id ORDER BY j.id",
    )
    assert sorted(ids for (ids,) in carried) == [["m0", "m1", "m2", "m3"], ["m4", "m6"], ["m7"]]
    assert await reaped(outbox) == Reaped(0, 0, 0, 0)
    assert waiting


async def test_what_expires_in_the_queue_is_not_sent_and_whoever_waits_hears_of_it(
    outbox: Outbox, schema_url: str
) -> None:
    id_ = await outbox.enqueue(message())
    waiting = asyncio.create_task(outbox.wait(id_, timeout=30))
    await rows(schema_url, "UPDATE nxotp_outbox SET expires_at = now()")
    done = await reaped(outbox)
    assert done is not None
    assert done.expired == 1
    state = await waiting
    assert (state.state, state.error) == (MessageState.NOT_SENT, "Expired")
    assert await rows(schema_url, "SELECT sealed FROM nxotp_outbox") == [(None,)]


async def test_content_of_what_is_unknown_goes_when_its_code_expires(outbox: Outbox, schema_url: str) -> None:
    id_ = await outbox.enqueue(message())
    await claimed_by(9999, schema_url, id_)
    await reaped(outbox)
    assert await rows(schema_url, "SELECT sealed IS NULL FROM nxotp_outbox") == [(False,)]
    await rows(schema_url, "UPDATE nxotp_outbox SET expires_at = now()")
    await reaped(outbox)
    assert await rows(schema_url, "SELECT sealed IS NULL, state FROM nxotp_outbox") == [(True, "unknown")]


async def test_a_settled_message_is_kept_for_a_while_and_no_longer(outbox: Outbox, schema_url: str) -> None:
    await outbox.enqueue_many([message(number) for number in range(3)])
    await rows(
        schema_url,
        "UPDATE nxotp_outbox SET state = 'accepted', finished_at = now() - interval '1 h' WHERE mod(id, 2) = 1",
    )
    assert (await reaped(outbox, keep=2 * 3600)) == Reaped(0, 0, 0, 0)
    assert (await reaped(outbox, keep=1800)) == Reaped(0, 0, 0, 2)
    assert await outbox.states() == {MessageState.QUEUED: 1}


async def test_one_reaper_is_at_work_at_a_time(outbox: Outbox, schema_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(schema_url) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (0x6E786F7472,))
        assert await reaped(outbox) is None
    assert await reaped(outbox) is not None


async def test_a_worker_reaps_what_another_left_and_sends_it(outbox: Outbox, schema_url: str) -> None:
    await outbox.enqueue_many([message(number, cus_message_id=f"m{number}") for number in range(3)])
    await claimed_by(9999, schema_url, "m0")
    await rows(schema_url, "UPDATE procrastinate_jobs SET status = 'doing', worker_id = NULL")
    await rows(
        schema_url,
        "UPDATE nxotp_outbox SET queued_at = now() - interval '1 min', not_before = now() - interval '1 min'",
    )
    transport = ScriptedTransport()
    async with running(worker_of(outbox, client_of(transport))):
        await until(lambda: settled(outbox))
    assert await outbox.states() == {MessageState.UNKNOWN: 1, MessageState.ACCEPTED: 2}
    assert len(transport.posts) == 2
