"""A client with a rate that processes share: in virtual time over a store in memory, and over real stores."""

import asyncio
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support import ScriptedTransport, VirtualTimeLoop

from nxotp_async import (
    Clock,
    ConfigurationError,
    NotSentError,
    OtpClient,
    OtpMessage,
    RetryPolicy,
    SendResult,
    SendStatus,
    StoreError,
)
from nxotp_async.pacing import SharedRate
from nxotp_async.sandbox import Sandbox, sandbox_client
from nxotp_async.stores import MemoryStore
from nxotp_async.stores.base import BaseStore
from nxotp_async.testing import FakeClock
from nxotp_async.transports import Answer

TO, CONTENT = "+999 555 0100", "482913"
START = 1_800_000_000  # of VirtualTimeLoop's clock


class Vendor(ScriptedTransport):
    """Notes when messages are posted."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    async def post(self, *args: Any) -> Answer:
        self.times.append(asyncio.get_running_loop().time())
        return await super().post(*args)


class FailingStore(MemoryStore):
    """A store that fails as it is told, so many times."""

    def __init__(self, error: Exception, times: int = 1_000_000) -> None:
        super().__init__()
        self.calls = 0
        self._error = error
        self._times = times

    async def reserve(self, *_: Any, **__: Any) -> float | None:
        self.calls += 1
        if self.calls <= self._times:
            raise self._error
        return 0.0


def client_of(rate: SharedRate, clock: Clock, transport: ScriptedTransport, **options: Any) -> OtpClient:
    return sandbox_client("https://otp.example", transport=transport, clock=clock, rate_limit=rate, **options)


async def sent(client: OtpClient, **fields: Any) -> SendResult:
    (result,) = [result async for result in client.send_many([OtpMessage(TO, CONTENT, **fields)])]
    return result


def in_virtual_time(main: Callable[[Clock], Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualTimeLoop)
        return runner.run(main(loop.clock))


# ---------------------------------------------------------------------------------------------- time


def test_clients_that_share_a_rate_send_so_much_together() -> None:
    async def main(clock: Clock) -> list[float]:
        store, vendor = MemoryStore(clock=clock), Vendor()
        rates = [SharedRate(store, "sender", 80, clock=clock) for _ in range(4)]
        batches = [
            client_of(rate, clock, vendor).send_batch(OtpMessage(TO, CONTENT) for _ in range(400)) for rate in rates
        ]
        for results in await asyncio.gather(*batches):
            assert len(results.accepted) == 400
        return vendor.times

    times = in_virtual_time(main)
    assert times[-1] == pytest.approx(1600 / 80, rel=0.01)
    assert all(later - earlier == pytest.approx(1 / 80, rel=0.01) for earlier, later in pairwise(times))


@pytest.mark.parametrize(
    ("options", "expires_in", "limit"),
    [({"deadline": 5}, None, "the deadline of 5 s"), ({}, 5, "the code's life (expires_at)")],
)
def test_a_message_that_would_not_be_allowed_in_time_is_not_sent_and_takes_no_permit(
    options: dict[str, Any], expires_in: float | None, limit: str
) -> None:
    async def main(clock: Clock) -> None:
        store, vendor = MemoryStore(clock=clock), Vendor()
        client = client_of(SharedRate(store, "sender", 0.1, clock=clock), clock, vendor, **options)
        expires_at = None if expires_in is None else datetime.fromtimestamp(START + expires_in, UTC)
        assert (await sent(client, expires_at=expires_at)).status is SendStatus.ACCEPTED
        result = await sent(client, expires_at=expires_at)
        assert result.status is SendStatus.NOT_SENT
        assert str(result.error) == f"{limit} ends before the rate_limit allows this message"
        assert result.attempts == 0
        assert result.elapsed == pytest.approx(0, abs=0.001)
        assert client.state.of_running_loop().permits._value == 64
        assert (await sent(client.with_options(deadline=11))).status is SendStatus.ACCEPTED
        assert vendor.times == [pytest.approx(0, abs=0.001), pytest.approx(10, abs=0.001)]

    in_virtual_time(main)


def test_a_slow_rate_does_not_let_a_batch_run_into_its_own_deadlines() -> None:
    async def main(clock: Clock) -> int:
        client = client_of(SharedRate(MemoryStore(clock=clock), "sender", 1, clock=clock), clock, Vendor())
        return len((await client.send_batch(OtpMessage(TO, CONTENT) for _ in range(200))).accepted)

    assert in_virtual_time(main) == 200


# ---------------------------------------------------------------------------------------------- the store fails


async def test_an_outage_of_the_store_is_waited_for_like_that_of_the_vendor(clock: FakeClock) -> None:
    store, vendor = FailingStore(StoreError("the store is down"), times=3), Vendor()
    result = await sent(client_of(SharedRate(store, "sender", 80), clock, vendor))
    assert (result.status, result.attempts, store.calls) == (SendStatus.ACCEPTED, 1, 4)
    assert len(clock.slept) == 3


@pytest.mark.parametrize(
    ("error", "policy", "said", "calls"),
    [
        (StoreError("the store is down"), {}, "the store is down", 5),
        (StoreError("the store is down"), {"backoff_base": 0}, "the store is down", 3),
        (StoreError("the store is down"), {"max_attempts": 1}, "the store is down", 1),
        (ConfigurationError("no rights", hint="grant"), {}, "no rights (grant)", 1),
        (ValueError(CONTENT), {}, "ValueError", 1),
    ],
)
async def test_what_got_no_permit_is_not_sent_and_says_why(
    clock: FakeClock, error: Exception, policy: dict[str, Any], said: str, calls: int
) -> None:
    store, vendor, attempts = FailingStore(error), Vendor(), list[Any]()
    rate = SharedRate(store, "sender", 80)
    client = client_of(rate, clock, vendor, retry=RetryPolicy(**policy), on_attempt=attempts.append)
    result = await sent(client)
    assert isinstance(result.error, NotSentError)
    assert str(result.error) == f"no permit of the rate_limit: {said}"
    assert result.error.temporary is isinstance(error, StoreError)
    assert (store.calls, result.attempts, vendor.posts, attempts) == (calls, 0, [], [])
    assert client.state.of_running_loop().permits._value == 64
    assert client.retry_tokens == 500


def test_a_store_that_hangs_does_not_outlast_the_deadline() -> None:
    class Hanging(MemoryStore):
        async def reserve(self, *_: Any, **__: Any) -> float | None:
            await asyncio.sleep(3600)
            return 0.0

    async def main(clock: Clock) -> SendResult:
        return await sent(client_of(SharedRate(Hanging(), "sender", 80), clock, Vendor(), deadline=2))

    result = in_virtual_time(main)
    assert result.status is SendStatus.NOT_SENT
    assert str(result.error) == "the deadline of 2 s ran out while it waited for the rate_limit"
    assert result.elapsed == pytest.approx(2)


def test_a_store_that_fails_after_a_refusal_leaves_the_refusal() -> None:
    class Once(FailingStore):
        async def reserve(self, *_: Any, **__: Any) -> float | None:
            self.calls += 1
            if self.calls == 1:
                return 0.0
            raise self._error

    async def main(clock: Clock) -> SendResult:
        transport = ScriptedTransport((200, {}, b'{"code":-1,"message":"Request failed","data":null}'))
        return await sent(client_of(SharedRate(Once(StoreError("down")), "sender", 80), clock, transport))

    result = in_virtual_time(main)
    assert (result.status, result.attempts) == (SendStatus.REJECTED, 1)


# ---------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("value", [object(), MemoryStore(), [80]])
def test_what_is_neither_a_number_nor_a_shared_rate_is_refused(value: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"rate_limit \(or NXOTP_RATE_LIMIT\) must be a number or a SharedRate"
    ):
        sandbox_client("https://otp.example", rate_limit=value)


# ---------------------------------------------------------------------------------------------- processes


@pytest.mark.parametrize("store_kind", ["postgres", "redis"])
async def test_processes_have_one_rate_together(new_store: Callable[[], BaseStore], store_url: str) -> None:
    """Four permits at once and then none for days: so many messages arrive, whoever is faster."""
    program, name = Path(__file__).with_name("shared_rate_client.py"), uuid.uuid4().hex
    async with Sandbox() as sandbox:
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable, program, sandbox.url, store_url, name, stdout=asyncio.subprocess.PIPE
            )
            for _ in range(2)
        ]
        outputs = [(await process.communicate())[0].decode().split() for process in processes]
        statuses = [status for output in outputs for status in output]
        assert sorted(statuses) == ["accepted"] * 4 + ["not_sent"] * 6
        assert len(sandbox.messages) == 4
    assert not await SharedRate(new_store(), name, 0.001, burst=4).acquire(60)
