"""``examples/background.py``: what becomes of the queue."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from example_programs import ACCEPTED, INVALID, LOST, REFUSED, assert_clean, load, running

from nxotp_async import ConfigurationError, OtpClient, OtpMessage, SendResult
from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import serve_in_thread

HANGS = "999300000008"


@pytest.fixture
def module() -> ModuleType:
    return load("background")


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    """A sandbox that the environment points to."""
    async with Sandbox() as sandbox:
        for variable, value in sandbox.environ.items():
            monkeypatch.setenv(variable, value)
        yield sandbox


@asynccontextmanager
async def serve(module: ModuleType) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve the example until the block ends, and yield what asks it."""
    runner = web.AppRunner(module.make_app(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
            yield session
    finally:
        await runner.cleanup()


async def queue_code(session: aiohttp.ClientSession, number: str) -> tuple[int, str]:
    """Queue a code, and return the status and the code's id, or what is wrong."""
    async with session.post("/codes", data={"number": number}) as answer:
        return answer.status, (await answer.json())["id"] if answer.status == 202 else await answer.text()


async def status(session: aiohttp.ClientSession, message_id: str) -> Any:
    """Return what is told of a code, or ``None`` where nothing is known of it."""
    async with session.get(f"/codes/{message_id}") as answer:
        return None if answer.status == 404 else (await answer.json())["status"]


def stopped(caplog: pytest.LogCaptureFixture) -> str:
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("stopped")]
    return line


@pytest.mark.parametrize(
    ("number", "told"), [(ACCEPTED, "accepted"), (REFUSED, "rejected"), (LOST, "unknown")], ids=lambda value: value
)
async def test_it_tells_what_became_of_a_code(number: str, told: str, module: ModuleType, sandbox: Sandbox) -> None:
    async with serve(module) as session:
        answered, message_id = await queue_code(session, number)
        async with asyncio.timeout(30):
            while (last := await status(session, message_id)) == "queued":
                pass
        assert (answered, last) == (202, told)
    assert [request.cus_message_id for request in sandbox.requests] == [message_id]


async def test_what_is_wrong_is_told_at_once(module: ModuleType, sandbox: Sandbox) -> None:
    async with serve(module) as session:
        answered, why = await queue_code(session, INVALID)
        assert (answered, why.partition(";")[0]) == (422, "to has 2 digits")
        assert await status(session, "no-such-id") is None
    assert not sandbox.requests


async def test_a_full_queue_refuses_and_what_cannot_be_sent_in_time_is_counted(
    module: ModuleType, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NXOTP_MAX_CONCURRENCY", "1")
    monkeypatch.setattr(module, "MAX_QUEUED", 2)
    caplog.set_level(logging.INFO)
    async with serve(module) as session:
        _, message_id = await queue_code(session, HANGS)
        async with asyncio.timeout(30):
            while not sandbox.requests:
                assert await status(session, message_id) == "queued"
        assert [(await queue_code(session, ACCEPTED))[0] for _ in range(3)] == [202, 202, 503]
        monkeypatch.setattr(module, "DRAIN", 0.01)
    assert stopped(caplog) == "stopped: 2 codes were not sent, 1 may arrive"
    assert [request.to for request in sandbox.requests] == [HANGS]


async def test_a_code_that_is_old_is_neither_sent_nor_remembered(
    module: ModuleType, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "CODE_LIFE", 0.0)
    async with serve(module) as session:
        answered, message_id = await queue_code(session, ACCEPTED)
        async with asyncio.timeout(30):
            while await status(session, message_id) is not None:
                pass
    assert (answered, len(sandbox.requests)) == (202, 0)
    assert f"code {message_id}: not_sent: the code's life (expires_at) ran out" in caplog.text


async def test_an_error_in_the_task_ends_the_server_at_once(
    module: ModuleType, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: OtpClient, messages: AsyncIterator[OtpMessage]) -> AsyncIterator[SendResult]:
        await anext(messages)
        raise OSError("a bug")
        yield

    async def run() -> None:
        async with serve(module) as session:
            await queue_code(session, ACCEPTED)
            await asyncio.Event().wait()  # as web.run_app does

    monkeypatch.setattr(OtpClient, "send_many", fail)
    monkeypatch.setattr(module, "DRAIN", 3600.0)
    task = asyncio.create_task(run())
    assert (await asyncio.wait({task}, timeout=30))[0]
    with pytest.raises(ExceptionGroup) as raised:
        await task
    assert raised.group_contains(OSError, match="a bug")


async def test_without_settings_it_does_not_start_and_says_which(module: ModuleType) -> None:
    with pytest.raises(ConfigurationError, match=r"access_key is missing: .* set NXOTP_ACCESS_KEY"):
        async with serve(module):
            pass


def test_what_is_queued_is_sent_before_the_server_stops() -> None:
    numbers = [f"9995550{number}" for number in range(100, 120)]
    with serve_in_thread(Sandbox(latency=0.02)) as sandbox:
        with running("background", sandbox, NXOTP_MAX_CONCURRENCY="2") as program:
            answers = [program.post("/codes", {"number": number}) for number in numbers]
            exit_status, output = program.stop()
        assert_clean(output + "".join(answer.text for answer in answers), sandbox)
        sent = [message.to for message in sandbox.messages]
    assert [answer.status for answer in answers] == [202] * 20
    assert sorted(sent) == numbers
    assert "stopped: 0 codes were not sent, 0 may arrive" in output
    assert exit_status == 0
