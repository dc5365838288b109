"""Verifiers over a sandbox and every store, and what their tests share."""

import re
from collections.abc import Callable
from typing import Any, Final

import pytest

from nxotp_async import OtpClient
from nxotp_async.sandbox import Sandbox
from nxotp_async.stores.base import BaseStore
from nxotp_async.testing import FakeClock
from nxotp_async.verification import Limits, Verifier

KEY: Final = "the key of the tests and of nothing else"
OFF: Final = dict.fromkeys(
    [
        *("number_per_hour", "number_per_day", "ip_per_hour", "prefix_per_hour", "country_per_hour"),
        *("messages_per_day", "min_prefix_conversion", "min_country_conversion"),
    ]
)
UNLIMITED: Final = Limits(**OFF)  # type: ignore[arg-type] # all of them are None

NewVerifier = Callable[..., Verifier]


@pytest.fixture
def new_verifier(client: OtpClient, clock: FakeClock, new_store: Callable[[], BaseStore]) -> NewVerifier:
    """Returns a verifier at each call, as of another process: over a store of its own with shared values."""

    def new(**options: Any) -> Verifier:
        defaults: dict[str, Any] = {"store": new_store(), "key": KEY, "countries": {"ID"}, "limits": UNLIMITED}
        return Verifier(client, **{**defaults, "clock": clock, **options})

    return new


def code_of(sandbox: Sandbox, number: str) -> str:
    return sandbox.messages_to(number)[-1].otp or ""


def wrong(code: str) -> str:
    return re.sub(r"\d", lambda digit: str((int(digit.group()) + 1) % 10), code)
