"""What the tests share: a sandbox, a client of it, and a clock that stands still."""

import os
from collections.abc import AsyncIterator

import pytest
from fleet_support import outbox  # noqa: F401 - a fixture of the fleet's tests
from requests_by_hand import api, api_of, session  # noqa: F401 - fixtures of the sandbox's tests
from store_fixtures import (  # noqa: F401 - fixtures of the stores' tests
    new_store,
    postgres_url,
    redis_url,
    schema_url,
    store,
    store_kind,
    store_url,
)
from transport_fixtures import new_transport, transport_kind  # noqa: F401 - fixtures of the transports' tests
from verifier_support import new_verifier  # noqa: F401 - a fixture of the verifiers' tests

from nxotp_async import OtpClient
from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import FakeClock


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees an account of the developer's."""
    for name in [name for name in os.environ if name.startswith("NXOTP_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def sandbox(clock: FakeClock) -> AsyncIterator[Sandbox]:
    """A sandbox whose clock is the client's."""
    async with Sandbox(clock=clock) as sandbox:
        yield sandbox


@pytest.fixture
async def client(sandbox: Sandbox, clock: FakeClock) -> AsyncIterator[OtpClient]:
    """A client of the sandbox that backs off without waiting."""
    async with sandbox.client(clock=clock) as client:
        yield client
