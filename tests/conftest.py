"""What the tests share: a sandbox, a client of it, and a clock that only moves when told."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from nxotp_async import Clock, OtpClient
from nxotp_async.sandbox import Sandbox


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees an account of the developer's."""
    for name in [name for name in os.environ if name.startswith("NXOTP_")]:
        monkeypatch.delenv(name)


class ManualClock:
    """Time that passes in `sleep` only. Its ``clock`` is what a client is given."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.slept: list[float] = []
        self.chance = 1.0
        self.clock = Clock(
            time=lambda: self.now, monotonic=lambda: self.now, sleep=self.sleep, random=lambda: self.chance
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def sandbox(clock: ManualClock) -> AsyncIterator[Sandbox]:
    """A sandbox whose clock is the client's."""
    async with Sandbox(clock=lambda: clock.now) as sandbox:
        yield sandbox


@pytest.fixture
async def client(sandbox: Sandbox, clock: ManualClock) -> AsyncIterator[OtpClient]:
    """A client of the sandbox that backs off without waiting."""
    async with sandbox.client(clock=clock.clock) as client:
        yield client
