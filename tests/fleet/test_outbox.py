"""Messages into the outbox, in the transactions of all kinds of connections, and what is told of them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from fleet_support import KEYS, message, rows
from psycopg.rows import dict_row

from nxotp_async import (
    ConfigurationError,
    InvalidMessageError,
    InvalidReason,
    OtpMessage,
    OutboxFullError,
)
from nxotp_async.callbacks import StatusEvent
from nxotp_async.fleet import MessageState, Outbox, Queue


@pytest.fixture
async def connection(schema_url: str, outbox: Outbox) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(schema_url) as connection:
        await connection.execute("CREATE TABLE logins (id integer)")
        await connection.commit()
        yield connection


async def test_a_message_is_committed_with_the_callers_rows(
    outbox: Outbox, connection: psycopg.AsyncConnection[Any], schema_url: str
) -> None:
    await connection.execute("INSERT INTO logins VALUES (1)")
    id_ = await outbox.enqueue(message(), connection=connection)
    assert await outbox.get(id_) is None
    await connection.commit()
    stored = await outbox.get(id_)
    assert stored is not None
    assert (stored.state, stored.queue, stored.sender) == (MessageState.QUEUED, Queue.LOGIN, "default")
    jobs = await rows(schema_url, "SELECT queue_name, priority, args FROM procrastinate_jobs")
    [(row_id,)] = await rows(schema_url, "SELECT id FROM nxotp_outbox")
    assert jobs == [("nxotp:default:login", 10, {"ids": [row_id]})]


async def test_a_message_is_rolled_back_with_the_callers_rows(
    outbox: Outbox, connection: psycopg.AsyncConnection[Any], schema_url: str
) -> None:
    id_ = await outbox.enqueue(message(), connection=connection)
    await connection.rollback()
    assert await outbox.get(id_) is None
    assert await rows(schema_url, "SELECT id FROM procrastinate_jobs") == []


async def test_a_message_adds_two_statements_to_a_transaction(
    outbox: Outbox, connection: psycopg.AsyncConnection[Any], schema_url: str
) -> None:
    executed: list[object] = []

    class Counting(psycopg.AsyncCursor[Any]):
        async def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
            executed.append(query)
            return await super().execute(query, *arguments, **options)

    connection.cursor_factory = Counting
    await outbox.enqueue(message(), connection=connection)
    assert len(executed) == 2
    await outbox.enqueue_many([message(number) for number in range(250)], connection=connection)
    assert len(executed) == 4
    await connection.commit()
    sizes = await rows(schema_url, "SELECT jsonb_array_length(args -> 'ids') FROM procrastinate_jobs ORDER BY id")
    assert sizes == [(1,), (100,), (100,), (50,)]


@pytest.mark.parametrize("row_factory", [None, dict_row])
async def test_a_synchronous_connection_is_good_as_well(outbox: Outbox, schema_url: str, row_factory: Any) -> None:
    def login() -> str:
        with psycopg.connect(schema_url, row_factory=row_factory, cursor_factory=psycopg.ClientCursor) as connection:
            return outbox.enqueue_sync(message(), connection=connection)

    stored = await outbox.get(await asyncio.to_thread(login))
    assert stored is not None


async def test_another_drivers_connection_is_refused_with_a_hint(outbox: Outbox, schema_url: str) -> None:
    with psycopg.connect(schema_url) as connection:
        with pytest.raises(TypeError, match=r"psycopg\.AsyncConnection, not psycopg\.Connection"):
            await outbox.enqueue(message(), connection=connection)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="driver's own"):
            outbox.enqueue_sync(message(), connection=object())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="expected an OtpMessage"):
            outbox.enqueue_sync("482913", connection=connection)  # type: ignore[arg-type]


async def test_an_invalid_message_leaves_the_transaction_as_it_was(
    outbox: Outbox, connection: psycopg.AsyncConnection[Any]
) -> None:
    await connection.execute("INSERT INTO logins VALUES (1)")
    await outbox.enqueue(message(cus_message_id="one"), connection=connection)
    with pytest.raises(InvalidMessageError) as refused:
        await outbox.enqueue(message(1, cus_message_id="one"), connection=connection)
    assert refused.value.reason is InvalidReason.DUPLICATE
    with pytest.raises(InvalidMessageError):
        await outbox.enqueue(OtpMessage("+999 555 0100", "no code"), connection=connection)
    full = Outbox(outbox.connections.conninfo, keys=KEYS, max_queued=1)
    with pytest.raises(OutboxFullError, match="1 messages are queued in login for sender default"):
        await full.enqueue(message(), connection=connection)
    other = Outbox(outbox.connections.conninfo, keys=[Fernet.generate_key().decode()])
    await connection.execute("INSERT INTO nxotp_outbox_keys VALUES (%s)", outbox.keys.fingerprints)
    with pytest.raises(ConfigurationError, match="no worker of this outbox has the first key"):
        await other.enqueue(message(), connection=connection)
    await connection.commit()
    assert await outbox.states() == {MessageState.QUEUED: 1}


async def test_a_cap_is_of_one_queue_of_one_sender(outbox: Outbox) -> None:
    def of(sender: str) -> Outbox:
        return Outbox(outbox.connections.conninfo, keys=KEYS, sender=sender, max_queued=3)

    async with of("one") as one, of("other") as other:
        await one.enqueue_many([message(number) for number in range(3)])
        await one.enqueue(message())
        await other.enqueue_many([message(number) for number in range(2)])
        with pytest.raises(OutboxFullError):
            await other.enqueue_many([message(number) for number in range(2)])
        assert sum((await outbox.states()).values()) == 6


async def test_of_many_messages_those_that_are_known_are_left_alone(outbox: Outbox) -> None:
    first = await outbox.enqueue_many([message(number, cus_message_id=f"m{number}") for number in range(3)])
    assert (first.queued, first.known) == (["m0", "m1", "m2"], [])
    again = await outbox.enqueue_many([message(number, cus_message_id=f"m{number}") for number in (2, 3, 3)])
    assert (again.queued, again.known) == (["m3"], ["m2"])
    assert [each.cus_message_id async for each in outbox.results(batch=3)] == ["m0", "m1", "m2", "m3"]
    assert (await outbox.enqueue_many([])).queued == []


async def test_a_message_without_expires_at_expires_all_the_same(schema_url: str, outbox: Outbox) -> None:
    short = Outbox(schema_url, keys=KEYS, expires_after=60)
    async with short:
        stored = await short.get(await short.enqueue(OtpMessage("+999 555 0100", "482913")))
    assert stored is not None
    assert (stored.expires_at - stored.queued_at).total_seconds() == pytest.approx(60, abs=5)


async def test_a_number_is_found_by_the_keys_old_and_new(schema_url: str, outbox: Outbox) -> None:
    old = await outbox.enqueue(message(1))
    new_key = Fernet.generate_key().decode()
    async with Outbox(schema_url, keys=[new_key, *KEYS]) as rotated:
        new = await rotated.enqueue(message(1))
        await rotated.enqueue(message(2))
        assert [found.cus_message_id for found in await rotated.find("+999 5000 0001")] == [new, old]
    assert [found.cus_message_id for found in await outbox.find("99950000001")] == [old]


async def test_whoever_waits_hears_of_an_outcome_at_once(outbox: Outbox, schema_url: str) -> None:
    waiting = asyncio.create_task(outbox.wait("early", timeout=30))
    await outbox.enqueue(message(cus_message_id="early"))
    await rows(schema_url, "UPDATE nxotp_outbox SET state = 'sending', claims = 1")
    await outbox.record(StatusEvent(message_id="early", status="delivered"))
    assert not waiting.done()
    await rows(schema_url, "UPDATE nxotp_outbox SET state = 'queued'")  # after a refusal that was none
    assert await outbox.record(StatusEvent(message_id="early", status="read"))
    assert (await waiting).state is MessageState.ACCEPTED
    assert not await outbox.record(StatusEvent(message_id="early", status="delivered"))
    with pytest.raises(TimeoutError):
        await outbox.wait("nobody's", timeout=0.05)


async def test_what_is_unknown_is_resolved_by_hand(outbox: Outbox, schema_url: str) -> None:
    await outbox.enqueue_many([message(number, cus_message_id=f"m{number}") for number in range(3)])
    await rows(schema_url, "UPDATE nxotp_outbox SET state = 'unknown' WHERE cus_message_id <> 'm2'")
    assert await outbox.resolve(["m0", "m2", "m9"], MessageState.REJECTED) == 1
    assert await outbox.resolve(["m1"], MessageState.ACCEPTED) == 1
    with pytest.raises(ValueError, match="accepted or rejected"):
        await outbox.resolve(["m1"], MessageState.QUEUED)
    assert await outbox.states() == dict.fromkeys(("rejected", "accepted", "queued"), 1)
    assert await rows(schema_url, "SELECT cus_message_id FROM nxotp_outbox WHERE sealed IS NOT NULL") == [("m2",)]


async def test_nothing_of_a_message_is_stored_in_clear(outbox: Outbox, schema_url: str) -> None:
    await outbox.enqueue(message(business_phone="+999 555 0177", dr_webhook="https://example.com/secret-token"))
    stored = repr(await rows(schema_url, "SELECT * FROM nxotp_outbox"))
    stored += repr(await rows(schema_url, "SELECT * FROM procrastinate_jobs"))
    for secret in ("99950000000", "482000", "9995550177", "secret-token"):
        assert secret not in stored


# ---------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, r"url \(or NXOTP_DATABASE_URL\) is missing"),
        ({"url": "nonsense"}, "is not one of PostgreSQL's"),
        ({"keys": []}, "NXOTP_OUTBOX_KEYS"),
        ({"keys": ["short"]}, "key 1 of NXOTP_OUTBOX_KEYS is no Fernet key"),
        ({"sender": "no spaces"}, "sender must be"),
        ({"expires_after": 0}, "expires_after"),
        ({"max_queued": 0}, "max_queued"),
    ],
)
def test_what_is_wrong_with_an_argument_is_said(arguments: dict[str, Any], words: str) -> None:
    if arguments:
        arguments = {"url": "postgresql://localhost/x", "keys": KEYS, **arguments}
    with pytest.raises(ConfigurationError, match=words):
        Outbox(**arguments, environment={"NXOTP_OUTBOX_KEYS": ""})


def test_the_environment_is_enough() -> None:
    keys = f"{KEYS[0]}, {Fernet.generate_key().decode()}"
    outbox = Outbox(environment={"NXOTP_DATABASE_URL": "postgresql://user:secret@db/x", "NXOTP_OUTBOX_KEYS": keys})
    assert repr(outbox) == "Outbox(host='db', dbname='x', sender='default')"
    assert len(outbox.keys.fingerprints) == 2


async def test_missing_tables_are_said_with_the_command_that_makes_them(schema_url: str) -> None:
    bare = Outbox(schema_url, keys=KEYS)
    with pytest.raises(ConfigurationError, match=r"tables are missing .run {2}nxotp fleet migrate"):
        await bare.get("one")
    async with await psycopg.AsyncConnection.connect(schema_url) as connection:
        with pytest.raises(ConfigurationError, match=r"tables are missing .run {2}nxotp fleet migrate"):
            await bare.enqueue(message(), connection=connection)
    await bare.aclose()


async def test_procrastinates_tables_of_an_application_are_left_to_it(schema_url: str) -> None:
    from procrastinate.schema import SchemaManager

    async with await psycopg.AsyncConnection.connect(schema_url, autocommit=True) as connection:
        await connection.execute(SchemaManager.get_schema())
    outbox = Outbox(schema_url, keys=KEYS)
    assert (await outbox.migrate()).engine is None
    assert await outbox.enqueue(message())
    await outbox.aclose()


async def test_procrastinates_tables_of_ours_follow_its_migrations(
    outbox: Outbox, schema_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from procrastinate.schema import SchemaManager

    (tmp_path / "99.00.00_01_pre_more.sql").write_text("ALTER TABLE procrastinate_jobs ADD COLUMN more integer")
    monkeypatch.setattr(SchemaManager, "get_migrations_path", lambda: str(tmp_path))
    other = Outbox(schema_url, keys=KEYS)
    with pytest.raises(ConfigurationError, match="older than this version needs"):
        await other.get("one")
    assert (await other.migrate()).engine == ("99.00.00_01_pre_more.sql",)
    assert not (await other.migrate()).is_needed
    await rows(schema_url, "SELECT more FROM procrastinate_jobs")
    await other.aclose()


async def test_a_database_in_recovery_is_said_as_what_it_is(schema_url: str, outbox: Outbox) -> None:
    from nxotp_async import StoreError

    async with await psycopg.AsyncConnection.connect(schema_url) as connection:
        await connection.execute("SET TRANSACTION READ ONLY")  # a standby refuses the same way
        with pytest.raises(StoreError, match="in recovery: a standby"):
            await outbox.enqueue(message(), connection=connection)
