"""Fixtures for tests that hold for every transport."""

from collections.abc import Callable
from typing import Any

import pytest

from nxotp_async.sandbox import account
from nxotp_async.transports import SessionPool, Transport, WireTransport


@pytest.fixture(params=["aiohttp", "wire"])
def transport_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The transport of all clients that name none, whichever way they are made, and of processes that are started."""
    kind: str = request.param
    monkeypatch.setenv("NXOTP_TRANSPORT", kind)
    monkeypatch.setattr(account._SandboxClient, "_environment", {"NXOTP_TRANSPORT": kind})
    return kind


@pytest.fixture
def new_transport(transport_kind: str) -> Callable[..., Transport]:
    """Make a transport of that kind, which reuses its connections as soon as it can."""

    def make(**options: Any) -> Transport:
        return SessionPool(slots=1, **options) if transport_kind == "aiohttp" else WireTransport(**options)

    return make
