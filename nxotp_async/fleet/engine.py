"""procrastinate, connected to the database of an outbox."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from procrastinate import App, PsycopgConnector
from psycopg_pool import AsyncConnectionPool

__all__ = ["connected", "new_app"]

_TIMEOUT: Final = 10.0  # seconds for a connection


@asynccontextmanager
async def connected(app: App, conninfo: str, *, max_size: int = 1) -> AsyncIterator[App]:
    """Connect an application for as long as the block runs.

    procrastinate leaves its pool open where connecting fails or is cancelled, and what the pool does in the background
    then never ends.
    """
    pool = AsyncConnectionPool(
        conninfo,
        min_size=1,
        max_size=max_size,
        timeout=_TIMEOUT,
        check=AsyncConnectionPool.check_connection,
        open=False,
    )
    try:
        await pool.open(wait=True, timeout=_TIMEOUT)
        async with app.open_async(pool):
            yield app
    finally:
        await pool.close()


def new_app() -> App:
    """Return an application that `connected` connects."""
    return App(connector=PsycopgConnector())
