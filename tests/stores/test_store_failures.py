"""Servers that are killed, hang, are too old, or refuse: calls end in time, with an error that says what to do."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from store_fixtures import Server, own_server
from store_servers import PostgresServer, ValkeyServer

from nxotp_async import ConfigurationError, NxOtpError, StoreError
from nxotp_async.stores import Migration, PostgresStore, RedisStore, store_from_url
from nxotp_async.stores import redis as redis_store
from nxotp_async.stores.base import BaseStore
from nxotp_async.stores.listening import Listener
from nxotp_async.testing import FakeClock

SECRET = "pa55word-in-the-url"


def becomes(value: bytes) -> Callable[[bytes | None], bytes | None]:
    return lambda _: value


@pytest.fixture(scope="module", params=[PostgresServer, ValkeyServer], ids=["postgres", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that the tests of this file may stop."""
    with own_server(request.param) as server:
        yield server


@pytest.fixture
def own_store(server: Server) -> BaseStore:
    kind = PostgresStore if isinstance(server, PostgresServer) else RedisStore
    return kind(server.url, timeout=1.0)


async def works_again(store: BaseStore) -> None:
    """Call a store until its server takes connections again."""
    async with asyncio.timeout(30):
        while True:
            try:
                await store.get("any")
            except StoreError:
                continue
            return


async def test_what_was_answered_survives_a_crash_and_who_waits_goes_on(server: Server, own_store: BaseStore) -> None:
    key = uuid.uuid4().hex
    await own_store.update(key, becomes(b"1"), ttl=60)
    waiting = asyncio.create_task(own_store.wait(key, b"1", timeout=60))
    await asyncio.sleep(0)
    await own_store.wait(key, None, timeout=60)
    server.kill()
    with pytest.raises(StoreError):
        await own_store.update(key, becomes(b"2"), ttl=60)
    server.start()
    await works_again(own_store)
    assert await own_store.get(key) == b"1"
    assert not waiting.done()
    await own_store.update(key, becomes(b"3"), ttl=60)
    assert await waiting == b"3"
    await own_store.aclose()


async def test_a_server_that_hangs_ends_every_call_in_time(server: Server, own_store: BaseStore) -> None:
    loop = asyncio.get_running_loop()
    await own_store.get("any")
    server.pause()
    try:
        began = loop.time()
        for call in (
            own_store.get("any"),
            own_store.update("any", becomes(b"1"), ttl=60),
            own_store.reserve("any", 1, rate=1, burst=1, patience=10),
        ):
            with pytest.raises(StoreError, match="more than 1 s"):
                await call
        with pytest.raises(TimeoutError):
            await own_store.wait("any", None, timeout=0.1)
        assert loop.time() - began < 10
    finally:
        server.resume()
    await works_again(own_store)
    await own_store.aclose()


async def test_who_begins_to_wait_while_the_server_is_away_hears_of_it_later(
    server: Server, own_store: BaseStore
) -> None:
    key = uuid.uuid4().hex
    await own_store.get(key)
    server.kill()
    waiting = asyncio.create_task(own_store.wait(key, None, timeout=60))
    await asyncio.sleep(0)
    server.start()
    await works_again(own_store)
    await own_store.update(key, becomes(b"1"), ttl=60)
    assert await waiting == b"1"
    await own_store.aclose()


# ---------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "NXOTP_STORE\\) is missing"),
        ("mysql://host", "unknown scheme"),
        (f"postgresql://u:{SECRET}@host:port/d", "refuses|not one of PostgreSQL|failed"),
        (f"postgresql://u:{SECRET}@host/d?colour=red", "not one of PostgreSQL"),
        (f"redis://u:{SECRET}@host:port/0", "not one of Redis"),
        (f"redis://u:{SECRET}@host/0?colour=red", "not one of Redis"),
    ],
)
async def test_a_wrong_url_is_refused_and_not_shown(url: str, problem: str) -> None:
    with pytest.raises(NxOtpError, match=problem) as caught:
        async with store_from_url(url, environment={}):
            pass
    assert SECRET not in f"{caught.value!r} {caught.value}"


async def test_no_secret_of_the_url_is_shown(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    url = server.url.replace("postgres@", "postgres:" + SECRET + "@").replace("redis://", f"redis://default:{SECRET}@")
    store = store_from_url(url)
    with caplog.at_level(logging.DEBUG):
        failure = (await asyncio.gather(store.get("any"), return_exceptions=True))[0]
        await store.aclose()
    assert SECRET not in f"{store!r} {caplog.text} {failure!r}"


async def test_a_server_that_is_not_there_is_an_error_in_time() -> None:
    for url in ("postgresql://postgres@127.0.0.1:1/postgres", "redis://127.0.0.1:1/0"):
        with pytest.raises(StoreError):
            await store_from_url(url).get("any")


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        ({"redis_version": "5.0.14"}, "is Redis 5.0.14"),
        ({"redis_version": "7.2.4", "redis_mode": "cluster"}, "Cluster"),
        ({"redis_version": "7.2.4", "redis_mode": "sentinel"}, "Sentinel"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused(info: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        redis_store._check_server(info)


# ---------------------------------------------------------------------------------------------- PostgreSQL's tables


async def execute(url: str, *statements: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for statement in statements:
            await connection.execute(statement)


async def test_many_processes_may_make_the_tables_at_once(schema_url: str) -> None:
    stores = [PostgresStore(schema_url) for _ in range(10)]
    await asyncio.gather(*(store.update("any", becomes(b"1"), ttl=60) for store in stores))
    assert await stores[0].migrate() == Migration(1, 1)
    for store in stores:
        await store.aclose()


async def test_tables_are_not_made_by_a_user_who_may_not(schema_url: str) -> None:
    name = schema_url.partition("%3D")[2]
    await execute(schema_url, f"GRANT USAGE ON SCHEMA {name} TO {name}")
    lesser = PostgresStore(schema_url.replace("postgres@", f"{name}@"))
    with pytest.raises(ConfigurationError, match=r"tables are missing.*nxotp store migrate"):
        await lesser.get("any")
    with pytest.raises(ConfigurationError, match="refuses"):
        await lesser.migrate()
    assert await lesser.migrate(dry_run=True) == Migration(0, 1)
    assert await PostgresStore(schema_url).migrate() == Migration(0, 1)
    await execute(
        schema_url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON nxotp_entries, nxotp_rates, nxotp_schema TO {name}"
    )
    assert await lesser.migrate() == Migration(1, 1)
    await lesser.update("any", becomes(b"1"), ttl=60)
    assert await lesser.reserve("any", 1, rate=1, burst=1, patience=0) == 0
    assert await lesser.wait("any", None, timeout=30) == b"1"
    await lesser.aclose()


async def test_newer_tables_are_used_if_they_allow_it(schema_url: str) -> None:
    store = PostgresStore(schema_url)
    await store.migrate()
    await execute(schema_url, "UPDATE nxotp_schema SET version = 7")
    await store.update("any", becomes(b"1"), ttl=60)
    await store.aclose()
    await execute(schema_url, "UPDATE nxotp_schema SET needs = 7")
    for call in (store.get("any"), store.migrate(), store.migrate(dry_run=True)):
        with pytest.raises(ConfigurationError, match="version 7, which needs a newer nxotp_async"):
            await call


async def test_a_server_that_is_too_old_is_refused(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", property(lambda _: 130_014))
    store = PostgresStore(postgres_url)
    for call in (store.get("any"), store.migrate(), store.wait("any", None, timeout=30)):
        with pytest.raises(ConfigurationError, match=r"PostgreSQL 13.*14 or newer"):
            await call
    await store.aclose()


async def test_tables_that_were_dropped_are_missed_with_a_word(schema_url: str) -> None:
    store = PostgresStore(schema_url)
    await store.get("any")
    await execute(schema_url, "DROP TABLE nxotp_entries")
    with pytest.raises(ConfigurationError, match="nxotp store migrate"):
        await store.get("any")
    await store.aclose()


async def test_what_has_expired_is_swept_a_part_at_a_time(schema_url: str) -> None:
    store = PostgresStore(schema_url)
    await store.update("one", becomes(b"1"), ttl=60)
    await execute(
        schema_url,
        "INSERT INTO nxotp_entries SELECT 'old-' || n, '', now() - interval '1 s' FROM generate_series(1, 1500) n",
        "INSERT INTO nxotp_rates VALUES ('old', 1)",
    )
    await store.aclose()
    store = PostgresStore(schema_url)  # whose first update sweeps

    async def left() -> int:
        async with await psycopg.AsyncConnection.connect(schema_url) as connection:
            cursor = await connection.execute("SELECT count(*) FROM nxotp_entries WHERE key LIKE 'old%'")
            row = await cursor.fetchone()
            return int(row[0]) if row else 0

    counts = []
    for value in (b"2", b"3", b"4"):
        await store.update("one", becomes(value), ttl=60)
        counts.append(await left())
    assert counts == [500, 0, 0]
    await store.aclose()


async def test_a_pooler_in_front_of_the_server_is_refused_for_listening(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler tells its clients a process id of its own."""
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", property(lambda _: 1))
    store = PostgresStore(postgres_url)
    await store.update("any", becomes(b"1"), ttl=60)
    with pytest.raises(ConfigurationError, match="listen_url="):
        await store.wait("any", b"1", timeout=30)
    await store.aclose()


async def test_listening_goes_on_however_often_it_fails() -> None:
    """A pause that is doubled at each failure must not become too large to be a number."""
    failures = [StoreError("away")] * 1_100 + [OSError("unforeseen")]
    heard = asyncio.Event()

    @asynccontextmanager
    async def listen() -> AsyncIterator[AsyncIterator[str]]:
        if failures:
            raise failures.pop()
        heard.set()
        yield forever()

    async def forever() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    listener = Listener(listen, FakeClock())
    with listener.watchers().watch("key") as changed:
        await asyncio.wait_for(heard.wait(), 20)
        await asyncio.wait_for(changed.wait(), 20)
    await listener.aclose()
