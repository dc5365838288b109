"""``examples/aiohttp_login.py`` in this process, with a sandbox that pushes its callbacks to it."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import attrs
import pytest
from aiohttp import web
from example_programs import ACCEPTED, ACCEPTED_DIGITS, INVALID, LOST, load

from nxotp_async import ConfigurationError, OtpClient
from nxotp_async.sandbox import CallbackPlan, Sandbox


@attrs.frozen
class Example:
    """The running example.

    Attributes:
        session: What asks it.
        sandbox: Where it sends to.
    """

    session: aiohttp.ClientSession
    sandbox: Sandbox

    async def post(self, path: str, **fields: str) -> tuple[int, str]:
        async with self.session.post(path, data=fields) as answer:
            return answer.status, await answer.text()

    async def ask(self, number: str = ACCEPTED) -> tuple[str, str, str]:
        """Ask for a code, and return the login, the message's id, and the code that went out."""
        async with self.session.post("/login/code", data={"number": number}) as answer:
            assert answer.status == (202 if number == LOST else 200)
            told = await answer.json()
        code = self.sandbox.messages[-1].otp
        assert code is not None
        return told["login"], told["message"], code

    async def delivery(self, message: str) -> object:
        await self.sandbox.callbacks_settled()
        async with self.session.get(f"/delivery/{message}") as answer:
            return (await answer.json())["delivery"]


@asynccontextmanager
async def serve(plan: CallbackPlan) -> AsyncIterator[Example]:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.MonkeyPatch.context() as patch:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with Sandbox(callbacks=plan) as sandbox, aiohttp.ClientSession(url) as session:
            for variable, value in {**sandbox.environ, "NXOTP_DR_WEBHOOK": f"{url}/nxcloud/"}.items():
                patch.setenv(variable, value)
            runner = web.AppRunner(load("aiohttp_login").make_app(), access_log=None)
            await runner.setup()
            try:
                await web.SockSite(runner, listener).start()
                yield Example(session, sandbox)
            finally:
                await runner.cleanup()


@pytest.fixture
async def example() -> AsyncIterator[Example]:
    async with serve(CallbackPlan(statuses=("sent", "delivered"))) as example:
        yield example


async def test_the_right_code_logs_in_once(example: Example) -> None:
    login, _, code = await example.ask()
    assert await example.post("/login/verify", login=login, code=code) == (200, '{"status": "logged in"}')
    assert await example.post("/login/verify", login=login, code=code) == (401, "wrong or expired code")


async def test_five_wrong_codes_lock_a_login(example: Example) -> None:
    login, _, code = await example.ask()
    wrong = f"{(int(code) + 1) % 1_000_000:06}"
    for _ in range(5):
        assert (await example.post("/login/verify", login=login, code=wrong))[0] == 401
    assert (await example.post("/login/verify", login=login, code=code))[0] == 401


@pytest.mark.parametrize("number", [ACCEPTED, LOST], ids=["answered", "lost"])
async def test_its_delivery_can_be_seen(example: Example, number: str) -> None:
    _, message, _ = await example.ask(number)
    assert await example.delivery(message) == "delivered"


@pytest.mark.parametrize(("number", "delivery"), [(ACCEPTED, "queued"), (LOST, "unknown")], ids=["answered", "lost"])
async def test_without_a_callback_no_more_is_told_than_is_known(number: str, delivery: str) -> None:
    async with serve(CallbackPlan(loss=1.0)) as example:
        _, message, _ = await example.ask(number)
        assert await example.delivery(message) == delivery


async def test_forged_callbacks_change_nothing() -> None:
    async with serve(CallbackPlan(statuses=("sent",), forged=1.0)) as example:
        _, message, _ = await example.ask()
        assert await example.delivery(message) == "sent"
        assert example.sandbox.counts["forged callbacks refused"] == 1


async def test_a_wrong_number_is_not_repeated_and_nothing_is_sent(example: Example) -> None:
    status, text = await example.post("/login/code", number=f"{ACCEPTED_DIGITS}{ACCEPTED_DIGITS}")
    assert (status, text.partition(";")[0]) == (422, "to has 20 digits")
    assert (await example.post("/login/code", number=INVALID))[0] == 422
    assert (await example.post("/login/code"))[0] == 422
    assert not example.sandbox.requests


@pytest.mark.parametrize("path", ["/login/code", "/login/verify"])
async def test_a_form_that_cannot_be_read_is_refused(example: Example, path: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with example.session.post(path, data=b"number=\xff", headers=headers) as answer:
        assert (answer.status, await answer.text()) == (400, "the form cannot be read")


async def test_the_client_is_closed_with_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    close = OtpClient.aclose

    async def aclose(client: OtpClient) -> None:
        closed.append(client)
        await close(client)

    monkeypatch.setattr(OtpClient, "aclose", aclose)
    async with serve(CallbackPlan()) as example:
        await example.ask()
        assert not closed
    assert len(closed) == 1


def test_without_settings_it_does_not_start_and_says_which() -> None:
    with pytest.raises(ConfigurationError, match="NXOTP_ACCESS_KEY; access_secret is missing"):
        load("aiohttp_login").make_app()
