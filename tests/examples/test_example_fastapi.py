"""``examples/fastapi_login.py`` in this process, served by uvicorn, with a sandbox that pushes its callbacks to it."""

import asyncio
import contextlib
import queue
import socket
import sys
import threading
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import aiohttp
import attrs
import psycopg
import pytest
import uvicorn
from example_programs import ACCEPTED, ACCEPTED_DIGITS, LOST, docstring, load

from nxotp_async import ConfigurationError
from nxotp_async.callbacks import StatusEvent
from nxotp_async.phone_numbers import parse_number
from nxotp_async.sandbox import CallbackPlan, Sandbox
from nxotp_async.stores import store_from_url
from nxotp_async.testing import serve_in_thread
from nxotp_async.tracking import DeliveryTracker

ALL_DELIVERED = CallbackPlan(statuses=("sent", "delivered"))


@attrs.frozen
class Example:
    """The running example.

    Attributes:
        url: Where it is served.
        module: The example itself.
        app: The application that it makes.
        sandbox: Where it sends to.
        fallbacks: The numbers that it fell back for.
        asked: The numbers that it has sent a code to.
        watched: The numbers whose delivery it has ceased to wait for.
    """

    url: str
    module: ModuleType
    app: Any
    sandbox: Sandbox
    fallbacks: list[str] = attrs.Factory(list)
    asked: list[str] = attrs.Factory(list)
    watched: "queue.Queue[str]" = attrs.Factory(queue.Queue)

    def post(self, path: str, body: Any = None, **fields: str) -> tuple[int, dict[str, Any]]:
        async def post() -> tuple[int, dict[str, Any]]:
            json = fields if body is None else body
            async with aiohttp.ClientSession() as session, session.post(f"{self.url}{path}", json=json) as answer:
                return answer.status, await answer.json()

        return asyncio.run(post())

    def ask(self, number: str = ACCEPTED) -> tuple[str, str]:
        """Ask for a code, and return the login and the code that went out."""
        status, answer = self.post("/login/code", number=number)
        told = (202, "may arrive") if number == LOST else (200, "sent")
        assert (status, answer["status"]) == told
        code = self.sandbox.messages[-1].otp
        assert code is not None
        self.asked.append(parse_number(number))
        return answer["login"], code

    def outcome(self) -> tuple[str, list[str]]:
        """Wait until it has ceased to wait for a delivery; return the number, and all it has fallen back for."""
        number = self.watched.get(timeout=20)
        self.asked.remove(number)
        return number, self.fallbacks

    def settle(self) -> None:
        while self.asked:
            self.outcome()

    def verify(self, login: str, code: str) -> int:
        return self.post("/login/verify", login=login, code=code)[0]


@contextlib.contextmanager
def _served(app: Any, listener: socket.socket) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
    started = threading.Event()
    original = server.startup

    async def startup(sockets: Any = None) -> None:
        await original(sockets)
        started.set()

    server.startup = startup  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        assert started.wait(20)
        yield
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def serve(plan: CallbackPlan = ALL_DELIVERED, *, delivery_timeout: float | None = None) -> Iterator[Example]:
    """Serve the example with a sandbox of these callbacks."""
    with (
        pytest.MonkeyPatch.context() as patch,
        socket.create_server(("127.0.0.1", 0)) as listener,
        serve_in_thread(Sandbox(callbacks=plan)) as sandbox,
    ):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for variable, value in sandbox.environ.items():
            patch.setenv(variable, value)
        patch.setenv("NXOTP_DR_WEBHOOK", f"{url}/nxcloud/")
        module = load("fastapi_login")
        patch.setitem(sys.modules, module.__name__, module)
        app = module.make_app()
        example = Example(url, module, app, sandbox)
        watch = module.wait_for_delivery

        async def fall_back(number: str) -> None:
            example.fallbacks.append(number)

        async def wait_for_delivery(tracker: DeliveryTracker, number: str, message_id: str) -> None:
            await watch(tracker, number, message_id)
            example.watched.put(number)

        patch.setattr(module, "fall_back", fall_back)
        patch.setattr(module, "wait_for_delivery", wait_for_delivery)
        if delivery_timeout is not None:
            patch.setattr(module, "DELIVERY_TIMEOUT", delivery_timeout)
        with _served(app, listener):
            yield example
            example.settle()


@pytest.fixture(scope="module")
def _shared() -> Iterator[Example]:
    with serve() as example:
        yield example


@pytest.fixture
def example(_shared: Example) -> Iterator[Example]:
    """The example with callbacks that tell of every delivery, and nothing of the tests before."""
    yield _shared
    _shared.settle()
    _shared.fallbacks.clear()
    _shared.sandbox.requests.clear()
    _shared.module.logins._logins.clear()


def other_codes(code: str) -> list[str]:
    return [f"{(int(code) + step) % 1_000_000:06}" for step in range(1, 7)]


# ---------------------------------------------------------------------------------------------- logging in


def test_the_right_code_logs_in_once_and_its_delivery_is_seen(example: Example) -> None:
    login, code = example.ask()
    assert example.outcome() == (ACCEPTED_DIGITS, [])
    assert example.verify(login, code) == 200
    assert example.verify(login, code) == 401
    (message,) = example.sandbox.messages
    assert (message.to, message.content) == ("9995550100", f"Your code is {code}")
    assert message.fields["dr_webhook"] == f"{example.url}/nxcloud/"
    assert example.module.logins._logins == {}


def test_the_answers_are_those_of_the_docstring(example: Example) -> None:
    assert '-> 200 {"login": "...", "status": "sent"}' in docstring("fastapi_login")
    assert '-> 200 {"status": "logged in"}, or 401' in docstring("fastapi_login")
    login, code = example.ask()
    assert example.post("/login/verify", login=login, code=code) == (200, {"status": "logged in"})


def test_five_wrong_codes_lock_a_login_and_only_that_one(example: Example) -> None:
    login, code = example.ask()
    another, another_code = example.ask("+999 555 0101")
    for wrong in other_codes(code)[:5]:
        assert example.verify(login, wrong) == 401
    assert example.verify(login, code) == 401
    assert example.verify(another, another_code) == 200


def test_the_fifth_attempt_still_counts(example: Example) -> None:
    login, code = example.ask()
    assert [example.verify(login, wrong) for wrong in other_codes(code)[:4]] == [401] * 4
    assert example.verify(login, code) == 200


@pytest.mark.parametrize(
    "wrong", ["", "\uff14" * 6, "482913 OR 1=1", "x" * 10_000], ids=["empty", "wide", "sql", "long"]
)
def test_what_is_no_code_is_a_wrong_one(example: Example, wrong: str) -> None:
    login, code = example.ask()
    assert example.post("/login/verify", login=login, code=wrong) == (401, {"detail": "wrong or expired code"})
    assert example.verify(login, code) == 200


def test_a_code_is_of_use_to_its_own_login_only(example: Example) -> None:
    (first, code), (second, another) = example.ask(), example.ask()
    if code != another:
        assert example.verify(second, code) == 401
    assert example.verify("no-such-login", code) == 401
    assert example.verify(first, code) == 200


@pytest.mark.parametrize(("age", "status"), [(299.0, 200), (300.0, 401), (301.0, 401)])
def test_a_code_lives_five_minutes(example: Example, monkeypatch: pytest.MonkeyPatch, age: float, status: int) -> None:
    now = [1000.0]
    monkeypatch.setattr(sys.modules["logins"], "time", SimpleNamespace(monotonic=lambda: now[0]))
    login, code = example.ask()
    now[0] += age
    assert example.verify(login, code) == status


def test_logins_that_have_expired_are_dropped(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(sys.modules["logins"], "time", SimpleNamespace(monotonic=lambda: now[0]))
    example.ask()
    now[0] += 301
    login, _ = example.ask()
    assert list(example.module.logins._logins) == [login]


def test_the_store_holds_no_code_in_clear_and_no_plain_hash_of_one(example: Example) -> None:
    login, code = example.ask()
    logins = example.module.logins
    assert code not in repr(vars(logins))
    ours, others = example.module.Logins(), example.module.Logins()
    begun = [(store, store.begin(ACCEPTED, code)) for store in (ours, ours, others)]
    digests = [store._logins[login].digest for store, login in begun]
    assert len({*digests, logins._logins[login].digest}) == 4


# ---------------------------------------------------------------------------------------------- sending


@pytest.mark.parametrize("number", ["12", "0555 0100", "no number", ""])
def test_a_refused_number_is_told_and_leaves_no_login(example: Example, number: str) -> None:
    status, answer = example.post("/login/code", number=number)
    assert status == 422
    assert isinstance(answer["detail"], str)
    assert answer["detail"].startswith("to ")
    assert (len(example.sandbox.requests), example.module.logins._logins) == (0, {})


@pytest.mark.parametrize("number", ["999000009003", "999000009005", "999100131026", "999200000404"])
def test_a_refusal_of_the_vendors_tells_the_person_nothing_of_it(example: Example, number: str) -> None:
    assert example.post("/login/code", number=number) == (503, {"detail": "the code could not be sent"})
    assert example.module.logins._logins == {}
    assert (example.fallbacks, example.watched.empty()) == ([], True)


def test_a_lost_answer_is_an_answer_all_the_same_and_the_callback_prevents_the_fallback(example: Example) -> None:
    login, code = example.ask(LOST)
    assert example.outcome() == (LOST, [])
    assert example.verify(login, code) == 200
    assert len(example.sandbox.messages) == 1


@pytest.mark.parametrize("number", [ACCEPTED, LOST], ids=["answered", "lost"])
def test_a_callback_that_overtakes_the_answer_is_not_lost(number: str) -> None:
    with serve(CallbackPlan(statuses=("delivered",), early=1.0)) as example:
        example.ask(number)
        assert example.outcome() == (parse_number(number), [])


# ---------------------------------------------------------------------------------------------- falling back


@pytest.mark.parametrize("number", [ACCEPTED, LOST], ids=["answered", "lost"])
@pytest.mark.parametrize("plan", [CallbackPlan(loss=1.0), CallbackPlan(statuses=("sent",))], ids=["silence", "sent"])
def test_without_a_delivery_it_falls_back(plan: CallbackPlan, number: str) -> None:
    with serve(plan, delivery_timeout=0.01) as example:
        login, code = example.ask(number)
        assert example.outcome() == (parse_number(number), [parse_number(number)])
        assert example.verify(login, code) == 200


@pytest.mark.parametrize("number", [ACCEPTED, LOST], ids=["answered", "lost"])
def test_where_the_delivery_fails_it_falls_back_at_once(number: str) -> None:
    with serve(CallbackPlan(failed=1.0)) as example:
        example.ask(number)
        assert example.outcome() == (parse_number(number), [parse_number(number)])


@pytest.mark.parametrize(
    ("plan", "counted"),
    [
        (CallbackPlan(statuses=("sent",), forged=1.0), "forged callbacks refused"),
        (CallbackPlan(statuses=("sent",), algorithm="md5"), "callbacks taken"),
    ],
    ids=["forged", "md5"],
)
def test_only_the_vendors_callbacks_are_taken(plan: CallbackPlan, counted: str) -> None:
    with serve(plan, delivery_timeout=0.01) as example:
        example.ask()
        assert example.outcome() == (ACCEPTED_DIGITS, [ACCEPTED_DIGITS])
        message_id = example.sandbox.messages[0].message_id
        while not (example.sandbox.counts[counted] and example.sandbox.counts["callbacks taken"]):
            threading.Event().wait(0.001)
        state = asyncio.run(example.app.state.tracker.state(message_id))
        assert state.status == "sent"


def test_what_is_still_awaited_when_the_server_stops_does_not_fall_back() -> None:
    with serve(CallbackPlan(loss=1.0)) as example:
        example.ask()
        example.asked.clear()  # wait for none of them
    assert (example.fallbacks, example.watched.empty()) == ([], True)
    assert example.module.waits == set()


@pytest.mark.parametrize("body", [{"number": 9995550100}, {"numbre": ACCEPTED_DIGITS}, [ACCEPTED_DIGITS]])
def test_a_request_of_the_wrong_form_is_not_repeated_in_the_answer(body: Any, example: Example) -> None:
    status, answer = example.post("/login/code", body)
    assert (status, answer["detail"][0]["loc"][0]) == (422, "body")
    assert ACCEPTED_DIGITS not in str(answer)


def test_without_settings_it_does_not_start_and_says_which() -> None:
    with pytest.raises(ConfigurationError, match="NXOTP_ACCESS_KEY; access_secret is missing"):
        load("fastapi_login").make_app()


# ---------------------------------------------------------------------------------------------- several workers


async def test_with_tables_of_a_newer_version_it_does_not_start_and_sends_nothing(
    schema_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store_from_url(schema_url):
        pass
    async with await psycopg.AsyncConnection.connect(schema_url, autocommit=True) as connection:
        await connection.execute("UPDATE nxotp_schema SET version = 7, needs = 7")
    async with Sandbox() as sandbox:
        for variable, value in {**sandbox.environ, "NXOTP_STORE": schema_url}.items():
            monkeypatch.setenv(variable, value)
        module = load("fastapi_login")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        app = module.make_app()
        with pytest.raises(ConfigurationError, match="needs a newer nxotp_async"):
            async with app.router.lifespan_context(app):
                pytest.fail("it has started")
        assert not sandbox.requests


async def test_a_callback_that_comes_to_another_worker_is_heard_of(
    schema_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Sandbox() as sandbox:
        for variable, value in {**sandbox.environ, "NXOTP_STORE": schema_url}.items():
            monkeypatch.setenv(variable, value)
        module = load("fastapi_login")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        waits, receives = module.make_app(), module.make_app()
        async with waits.router.lifespan_context(waits), receives.router.lifespan_context(receives):
            await waits.state.client.send_otp(ACCEPTED, "482913", cus_message_id="order-1")
            waiting = asyncio.create_task(module.wait_for_delivery(waits.state.tracker, ACCEPTED_DIGITS, "order-1"))
            await receives.state.tracker.record(StatusEvent("order-1", "delivered", None))
            await waiting
            assert (await waits.state.tracker.state("order-1")).status == "delivered"
