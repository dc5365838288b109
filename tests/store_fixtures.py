"""A PostgreSQL and a Valkey for the tests of a process, and stores over them."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import psycopg
import pytest
from store_servers import POSTGRES_URL, REDIS_URL, PostgresServer, ValkeyServer

from nxotp_async.stores import MemoryStore, store_from_url
from nxotp_async.stores.base import BaseStore

Server = PostgresServer | ValkeyServer


def own_server(kind: type[Server]) -> Server:
    """Return a server that the test may stop."""
    if not kind.is_installed():
        pytest.skip(f"{kind.package} has no wheel for this Python and machine, and the test needs a server of its own")
    return kind()


def url_of(kind: type[Server], given: str) -> Iterator[str]:
    """Return the URL of a running server: the one that is given, or one of the wheel's."""
    if given:
        yield given
        return
    if not kind.is_installed():
        variable = "NXOTP_TEST_POSTGRES" if kind is PostgresServer else "NXOTP_TEST_REDIS"
        pytest.skip(f"{kind.package} has no wheel for this Python and machine: set {variable} to a server's URL")
    with kind() as server:
        yield server.url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    yield from url_of(PostgresServer, POSTGRES_URL)


@pytest.fixture
def schema_url(postgres_url: str) -> str:
    """A URL with an empty schema of its own, and a user of the same name who may do nothing with it."""
    return schema_of(postgres_url)


def schema_of(postgres_url: str) -> str:
    """Return such a URL."""
    name = f"s{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
        connection.execute(f"CREATE ROLE {name} LOGIN")
    return f"{postgres_url}?options=-csearch_path%3D{name}"


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    yield from url_of(ValkeyServer, REDIS_URL)


@pytest.fixture(params=["memory", "postgres", "redis"])
def store_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store_url(store_kind: str, request: pytest.FixtureRequest) -> str:
    return "memory://" if store_kind == "memory" else str(request.getfixturevalue(f"{store_kind}_url"))


@pytest.fixture
async def new_store(store_url: str) -> AsyncIterator[Callable[[], BaseStore]]:
    """Returns a store at each call. All of them share their values, as those of several processes do."""
    stores = [store_from_url(store_url)]

    def new() -> BaseStore:
        if not isinstance(stores[0], MemoryStore):
            stores.append(store_from_url(store_url))
        return stores[-1]

    yield new
    await asyncio.gather(*(store.aclose() for store in stores))


@pytest.fixture
def store(new_store: Callable[[], BaseStore]) -> BaseStore:
    return new_store()
