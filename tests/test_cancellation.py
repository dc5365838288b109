"""A send is cancelled at its first suspension point, at its second, and so on: nothing may be left behind."""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any

import pytest
from support import raw_server

from nxotp_async import NxOtpError, OtpClient, OtpMessage, RetryPolicy, SendStatus
from nxotp_async.pacing import SharedRate
from nxotp_async.retry import RetryQuota
from nxotp_async.sandbox import Fault, Sandbox, sandbox_client
from nxotp_async.stores.base import BaseStore
from nxotp_async.testing import NO_PAUSES, serve_in_thread
from nxotp_async.transports import SessionPool, Transport, WireTransport

pytestmark = pytest.mark.usefixtures("transport_kind")

TO = "+999 555 0100"


@coroutine
def cancelled_at(suspension: int, work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, bool]:
    """Run the work in the current task, cancel it at the given suspension, and return whether it was cancelled."""
    suspensions = 0
    step = partial(work.send, None)
    while True:
        try:
            awaited = step()
        except StopIteration:
            return False
        except asyncio.CancelledError:
            return True
        except NxOtpError:
            return False
        suspensions += 1
        if suspensions == suspension:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            yield awaited
        except BaseException as error:
            step = partial(work.throw, error)
        else:
            step = partial(work.send, None)


async def sweep(client: OtpClient, work: Callable[[], Coroutine[Any, Any, Any]]) -> int:
    """Cancel the work at every suspension point, one after the other, and return how many there are."""
    loop = client.state.of_running_loop()
    permits = loop.permits._value
    for suspension in range(1, 1000):
        before = asyncio.all_tasks()
        client.state.quota.give_back(RetryQuota.CAPACITY)
        cancelled = await asyncio.create_task(_run(cancelled_at(suspension, work())))
        await _settled(before)
        assert asyncio.all_tasks() == before
        assert loop.permits._value == permits
        assert loop.backing_off == 0
        assert not client.state.in_flight
        _check_connections(client.state.transport)
        if not cancelled:
            return suspension - 1
        assert client.state.quota.tokens == RetryQuota.CAPACITY
    raise AssertionError("the work never completes")


def _check_connections(transport: Transport) -> None:
    if isinstance(transport, SessionPool):
        for sessions in transport._loops.values():
            assert [slot.in_flight for slot in sessions.slots] == [0] * len(sessions.slots)
            assert all(not slot.session.connector._acquired for slot in sessions.slots)  # type: ignore[union-attr]
    else:
        assert isinstance(transport, WireTransport)
        for pool in transport._pools.values():
            assert pool.in_flight == 0
            assert pool._connections == set(pool.idle)


async def _run(work: Awaitable[bool]) -> bool:
    return await work


async def _settled(before: set[asyncio.Task[Any]]) -> None:
    """Let tasks that have been cancelled run to their end; those are not leaked, only not over."""
    for _ in range(10):
        if asyncio.all_tasks() == before:
            return
        await asyncio.sleep(0)


async def test_a_send_cancelled_anywhere_leaves_nothing_behind() -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        async with sandbox.client() as client:
            # A new connection for every send: connecting has suspension points too.
            points = await sweep(client, lambda: _send_afresh(client))
            assert points >= 3
            assert (await client.send_otp(TO, "482913")).status is SendStatus.ACCEPTED


async def _send_afresh(client: OtpClient) -> None:
    await client.aclose()
    await client.send_otp(TO, "482913")


async def test_a_send_with_retries_cancelled_anywhere_leaves_nothing_behind() -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        async with sandbox.client(clock=NO_PAUSES, rate_limit=10_000, max_concurrency=1) as client:
            points = await sweep(client, lambda: _send_with_faults(client, sandbox))
            assert points >= 4
            assert (await client.send_otp(TO, "482913")).status is SendStatus.ACCEPTED


async def _send_with_faults(client: OtpClient, sandbox: Sandbox) -> None:
    sandbox._plan._script.clear()
    sandbox.script(Fault.answer(-1), Fault.answer(9001))
    await client.send_otp(TO, "482913")


async def test_a_send_that_waits_for_a_permit_cancelled_anywhere_leaves_nothing_behind() -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        async with sandbox.client(max_concurrency=1) as client:
            assert await sweep(client, lambda: _send_behind_another(client)) >= 3
            assert (await client.send_otp(TO, "482913")).status is SendStatus.ACCEPTED


async def _send_behind_another(client: OtpClient) -> None:
    permits = client.state.of_running_loop().permits
    await permits.acquire()
    asyncio.get_running_loop().call_soon(permits.release)
    await client.send_otp(TO, "482913")


@pytest.mark.parametrize("store_kind", ["postgres", "redis"])
async def test_a_send_with_a_shared_rate_cancelled_anywhere_leaves_nothing_behind(
    new_store: Callable[[], BaseStore],
) -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        rate = SharedRate(new_store(), uuid.uuid4().hex, 10_000)
        async with sandbox.client(max_concurrency=1, rate_limit=rate) as client:
            assert await sweep(client, lambda: client.send_otp(TO, "482913")) >= 3
            assert (await client.send_otp(TO, "482913")).status is SendStatus.ACCEPTED


async def test_a_stream_cancelled_anywhere_leaves_nothing_behind() -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        async with sandbox.client(max_concurrency=2) as client:
            assert await sweep(client, lambda: _stream(client)) >= 3
            assert (await client.send_otp(TO, "482913")).status is SendStatus.ACCEPTED


async def _stream(client: OtpClient) -> None:
    async for _ in client.send_many(OtpMessage(TO, "482913") for _ in range(6)):
        pass


async def test_a_send_to_a_server_that_hangs_cancelled_anywhere_leaves_nothing_behind() -> None:
    async def hang(writer: asyncio.StreamWriter) -> None:
        await asyncio.get_running_loop().create_future()

    with serve_in_thread(raw_server(hang)) as server:
        async with sandbox_client(server.url, timeout=0.5, retry=RetryPolicy(max_attempts=1)) as client:
            assert await sweep(client, lambda: client.send_otp(TO, "482913")) >= 3


@pytest.mark.parametrize("transport_kind", ["aiohttp"], indirect=True)  # which runs both, as this one does
@pytest.mark.skipif(sys.flags.dev_mode, reason="this is the run it asks for")
def test_the_same_without_any_warning_in_development_mode() -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "Warning" not in finished.stderr
