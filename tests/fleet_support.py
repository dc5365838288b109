"""An outbox with a schema of its own, and workers that send to a sandbox."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet

from nxotp_async import OtpClient, OtpMessage
from nxotp_async.fleet import Outbox, Worker

KEYS = [Fernet.generate_key().decode()]


def message(number: int = 0, *, seconds: float = 300, **fields: Any) -> OtpMessage:
    """Return a message that is valid for so long by the machine's clock, which is the database's here."""
    expires_at = datetime.now(UTC) + timedelta(seconds=seconds)
    return OtpMessage(f"+9995{number:07}", f"Your code is {482000 + number:06}", expires_at=expires_at, **fields)


@pytest.fixture
async def outbox(schema_url: str) -> AsyncIterator[Outbox]:
    outbox = Outbox(schema_url, keys=KEYS)
    await outbox.migrate()
    async with outbox:
        yield outbox


async def rows(url: str, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Execute a statement on a connection of its own, and return its rows, if it has any."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(statement, arguments)
        return await cursor.fetchall() if cursor.description else []


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[Worker]:
    """Run a worker for as long as the block, and drain it."""
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await task


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - the database changes, and no task of this loop
            await asyncio.sleep(0.02)


def worker_of(outbox: Outbox, client: OtpClient, **options: Any) -> Worker:
    return Worker(outbox, client, **{"rate": 10_000, "stalled_after": 5, **options})
