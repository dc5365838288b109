"""The sandbox's inbox over HTTP: what has come, waiting, callbacks, faults, and who may use it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from requests_by_hand import CODE, NUMBER, Api, body_with

from nxotp_async import OtpClient, RetryPolicy
from nxotp_async.sandbox import CallbackPlan, Fault, Sandbox
from nxotp_async.testing import FakeClock


class Inbox:
    """Requests to the API of a sandbox's inbox."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        self._sandbox = sandbox
        self._session = session

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        data = None if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        content_type = {} if data is None else {"Content-Type": "application/json"}
        url = f"{self._sandbox.url}{path}"
        async with self._session.request(method, url, data=data, headers={**content_type, **headers}) as answer:
            text = await answer.text()
            is_json = answer.content_type in ("application/json", "application/problem+json")
            return answer.status, json.loads(text) if is_json else text

    async def get(self, path: str) -> Any:
        status, answer = await self.ask("GET", path)
        assert status == 200, answer
        return answer

    async def post(self, path: str, **fields: Any) -> Any:
        status, answer = await self.ask("POST", path, fields)
        assert status in (200, 201), answer
        return answer

    async def problem(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, str | None]:
        """Return the status of a refusal, and the field that is wrong."""
        status, answer = await self.ask(method, path, body, **headers)
        assert answer["status"] == status
        assert answer["detail"]
        return status, answer.get("field")


@pytest.fixture
def inbox(sandbox: Sandbox, session: aiohttp.ClientSession) -> Inbox:
    return Inbox(sandbox, session)


async def send(client: OtpClient, *names: str, to: str = NUMBER) -> None:
    for index, name in enumerate(names):
        await client.send_otp(to, f"Your code is {482913 + index}", cus_message_id=name)


# ---------------------------------------------------------------------------------------------- what has come


async def test_a_message_is_listed_with_its_code(inbox: Inbox, client: OtpClient, clock: FakeClock) -> None:
    await send(client, "order-1", "order-2")
    listed = (await inbox.get("/sandbox/messages"))["messages"]
    assert listed[1] == {
        "number": 1,
        "arrived_at": clock.time(),
        "expires_at": clock.time() + 300,
        "to": NUMBER,
        "otp": CODE,
        "content": f"Your code is {CODE}",
        "language_code": "en",
        "cus_message_id": "order-1",
        "message_id": "order-1",
        "attempt": 1,
        "code": 0,
        "fault": "none",
        "why": "",
    }
    assert [each["number"] for each in listed] == [2, 1]


async def test_a_refused_request_is_listed_among_the_requests_only(inbox: Inbox, api: Api) -> None:
    await api.post_good(content="no code")
    assert (await inbox.get("/sandbox/messages"))["messages"] == []
    (refused,) = (await inbox.get("/sandbox/requests"))["requests"]
    assert (refused["code"], refused["otp"], refused["message_id"]) == (9015, None, None)


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("", [4, 3, 2, 1]),
        ("?limit=2", [4, 3]),
        ("?limit=2&before=3", [2, 1]),
        ("?after=2", [4, 3]),
        ("?to=9995550100", [4, 2, 1]),
        ("?to=%2B999%20555%200100", [4, 2, 1]),
        ("?search=482914", [2]),
        ("?search=ORDER-", [3, 2, 1]),
        ("?search=nothing", []),
    ],
)
async def test_lists_are_filtered(inbox: Inbox, client: OtpClient, query: str, numbers: list[int]) -> None:
    await send(client, "order-1", "order-2")
    await send(client, "order-3", to="9995550199")
    await send(client, "last")
    assert [each["number"] for each in (await inbox.get(f"/sandbox/messages{query}"))["messages"]] == numbers


async def test_all_is_told_of_a_request_and_the_secret_is_masked(
    inbox: Inbox, api: Api, sandbox: Sandbox, clock: FakeClock
) -> None:
    await api.post(body_with(), {"sign": "0" * 32, "ts": str(api.now_ms - 1500), "Authorization": "Bearer abcdefghijk"})
    shown = await inbox.get("/sandbox/requests/1")
    signature = shown["signature"]
    head = f"accessKey=sandbox-access-key&action=mt&bizType=2&ts={api.now_ms - 1500}&body="
    assert signature["text"] == f"{head}{body_with().decode()}&accessSecret=***"
    assert signature["given"] == "0" * 32
    expected = signature["expected"]
    assert signature["first_difference"] == next(index for index, char in enumerate(expected) if char != "0")
    assert shown["ts_age"] == 1.5
    assert shown["answer"]["status"] == 200
    assert json.loads(shown["answer"]["body"])["code"] == shown["code"] == 1003
    assert {"name": "Authorization", "value": "Bea***"} in shown["headers"]
    assert sandbox.credentials.access_secret not in json.dumps(shown)
    await api.post(body_with(), {"sign": expected, "ts": str(api.now_ms - 1500)})
    assert (await inbox.get("/sandbox/requests/2"))["code"] == 0


async def test_the_first_difference_is_the_end_of_a_signature_that_is_cut_off(inbox: Inbox, api: Api) -> None:
    await api.post_good()
    right = (await inbox.get("/sandbox/requests/1"))["signature"]
    assert right["first_difference"] is None
    await api.post(body_with(), {"sign": right["expected"][:20]})
    assert (await inbox.get("/sandbox/requests/2"))["signature"]["first_difference"] == 20


async def test_the_keys_of_another_account_are_masked(inbox: Inbox, api: Api) -> None:
    await api.post(body_with(appkey="their-real-appkey"), {"accessKey": "their-real-access-key"})
    assert "their-real" not in json.dumps(await inbox.get("/sandbox/requests/1"))


async def test_what_is_no_text_and_no_time_is_told_all_the_same(inbox: Inbox, api: Api) -> None:
    async with await api.connect() as wire:
        head = api.head(b"\xff{", ts="9" * 5000).replace(b"sandbox-access-key", b"\xffkey")
        wire.write(head + b"\xff{")
        await wire.read_until(b"unknown accessKey")
    shown = await inbox.get("/sandbox/requests/1")
    assert (shown["code"], shown["ts_age"], shown["body"]) == (1005, None, "\ufffd{")


async def test_the_retries_of_a_message_stand_together(inbox: Inbox, client: OtpClient, sandbox: Sandbox) -> None:
    sandbox.script(Fault.answer(9001), Fault.disconnect_before_reading())
    await client.with_options(retry=RetryPolicy(resend_unknown=True)).send_otp(NUMBER, CODE, cus_message_id="order-1")
    listed = (await inbox.get("/sandbox/requests"))["requests"]
    assert [(each["attempt"], each["code"]) for each in listed] == [(2, 0), (1, -1), (1, 9001)]
    shown = await inbox.get("/sandbox/requests/3")
    assert [each["number"] for each in shown["attempts"]] == [1, 3]
    assert (await inbox.get("/sandbox/requests/2"))["answer"] is None


async def test_the_oldest_requests_are_forgotten(session: aiohttp.ClientSession) -> None:
    async with Sandbox(keep=2) as sandbox, sandbox.client() as client:
        inbox = Inbox(sandbox, session)
        await send(client, "a", "b", "c")
        assert [each["number"] for each in (await inbox.get("/sandbox/messages"))["messages"]] == [3, 2]
        assert await inbox.problem("GET", "/sandbox/requests/1") == (404, None)
        assert (await inbox.get("/sandbox/counts"))["messages"] == 3


async def test_everything_can_be_forgotten(inbox: Inbox, client: OtpClient, sandbox: Sandbox) -> None:
    await send(client, "a", "b")
    assert await inbox.ask("POST", "/sandbox/clear") == (204, "")
    assert (await inbox.get("/sandbox/requests"))["requests"] == []
    assert not sandbox.requests
    await send(client, "a")
    (again,) = (await inbox.get("/sandbox/requests"))["requests"]
    assert (again["number"], again["attempt"]) == (3, 1)


# ---------------------------------------------------------------------------------------------- waiting


async def test_one_can_wait_for_a_message(inbox: Inbox, client: OtpClient) -> None:
    await send(client, "other", to="9995550199")
    waiting = asyncio.create_task(inbox.get("/sandbox/wait?to=%2B999%20555%200100&timeout=20"))
    await until(lambda: is_waited_for(inbox))
    await send(client, "theirs", to="9995550199")
    await send(client, "mine")
    assert (await waiting)["cus_message_id"] == "mine"


def is_waited_for(inbox: Inbox) -> bool:
    return bool(inbox._sandbox._inbox._readers)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of a server's state, which tells nobody
            await asyncio.sleep(0)


async def test_waiting_ends_at_once_where_the_message_is_there(inbox: Inbox, client: OtpClient) -> None:
    await send(client, "first", "second")
    assert (await inbox.get(f"/sandbox/wait?to={NUMBER}"))["cus_message_id"] == "second"
    assert await inbox.problem("GET", f"/sandbox/wait?to={NUMBER}&after=2&timeout=0") == (404, None)


async def test_a_plus_that_was_not_encoded_is_one(inbox: Inbox, client: OtpClient) -> None:
    await send(client, "mine")
    assert (await inbox.get("/sandbox/wait?to=+999%20555%200100"))["cus_message_id"] == "mine"


async def test_a_sandbox_that_stops_lets_those_who_wait_go(session: aiohttp.ClientSession) -> None:
    async with Sandbox() as sandbox:
        inbox = Inbox(sandbox, session)
        waiting = asyncio.create_task(inbox.problem("GET", f"/sandbox/wait?to={NUMBER}&timeout=60"))
        await until(lambda: is_waited_for(inbox))
    assert await waiting == (404, None)


# ---------------------------------------------------------------------------------------------- events


class Events:
    """A stream of server-sent events, read by hand."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def next(self) -> tuple[str, Any]:
        fields = {}
        async with asyncio.timeout(10):
            while line := (await self._answer.content.readline()).decode().rstrip("\n"):
                name, _, value = line.partition(": ")
                fields[name] = value
        return fields["event"], json.loads(fields["data"])


@pytest.fixture
async def events(sandbox: Sandbox, session: aiohttp.ClientSession) -> AsyncIterator[Events]:
    async with session.get(f"{sandbox.url}/sandbox/events") as answer:
        assert answer.content_type == "text/event-stream"
        yield Events(answer)


async def test_what_changes_is_streamed(inbox: Inbox, events: Events, client: OtpClient, clock: FakeClock) -> None:
    name, hello = await events.next()
    assert (name, hello["now"], hello["last_number"], hello["pushing"]) == ("hello", clock.time(), 0, False)
    await send(client, "order-1")
    name, (change,) = await events.next()
    assert (name, change["kind"], change["item"]["otp"]) == ("changes", "request", CODE)
    await inbox.post("/sandbox/faults", kind="hang")
    _, (change,) = await events.next()
    assert (change["kind"], change["item"][0]["kind"]) == ("faults", "hang")
    await inbox.ask("POST", "/sandbox/clear")
    assert await events.next() == ("changes", [{"kind": "clear", "item": None}])


async def test_a_reader_that_is_too_slow_is_let_go(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nxotp_async.sandbox.inbox._MAX_PENDING", 2)
    with sandbox._inbox.reader() as news:
        for number in range(2):
            news.add("request", number, None)
        assert not news.is_over
        news.add("request", 2, None)
        assert news.is_over


async def test_of_one_thing_only_the_last_change_is_told(sandbox: Sandbox) -> None:
    with sandbox._inbox.reader() as news:
        for item in ("first", "second"):
            news.add("callback", 1, item)
            news.add("clear", 0, None)
        assert await news.wait(0) == [("callback", "second"), ("clear", None)]
        assert await news.wait(0) == []


# ---------------------------------------------------------------------------------------------- callbacks


class Receiver:
    """A server that takes callbacks."""

    def __init__(self) -> None:
        self.statuses: list[str] = []
        self.signs: list[str] = []
        self.answer = 200
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.statuses.append((await request.json())["statuses"][0]["status"])
        self.signs.append(request.headers["sign"])
        return web.Response(status=self.answer)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield receiver
    await runner.cleanup()


@pytest.fixture
async def pushing(receiver: Receiver, session: aiohttp.ClientSession) -> AsyncIterator[tuple[Inbox, Sandbox]]:
    async with Sandbox(callbacks=CallbackPlan(webhook=receiver.url, statuses=("sent", "delivered"))) as sandbox:
        yield Inbox(sandbox, session), sandbox


async def settled(sandbox: Sandbox) -> None:
    async with asyncio.timeout(10):
        await sandbox.callbacks_settled()


async def test_callbacks_are_listed_and_pushed_again_in_any_order(
    pushing: tuple[Inbox, Sandbox], receiver: Receiver
) -> None:
    inbox, sandbox = pushing
    async with sandbox.client() as client:
        await send(client, "order-1", "order-2")
    await settled(sandbox)
    listed = (await inbox.get("/sandbox/callbacks?message_id=order-1"))["callbacks"]
    assert [(each["status"], each["state"], each["answer"], each["tries"]) for each in listed] == [
        ("sent", "taken", 200, 1),
        ("delivered", "taken", 200, 1),
    ]
    assert len((await inbox.get("/sandbox/callbacks"))["callbacks"]) == 4
    receiver.statuses.clear()
    again = await inbox.post("/sandbox/callbacks/push", numbers=[each["number"] for each in reversed(listed)])
    await settled(sandbox)
    assert receiver.statuses == ["delivered", "sent"]
    assert [each["number"] for each in again["callbacks"]] == [5, 6]
    shown = await inbox.get("/sandbox/requests/1")
    assert [each["state"] for each in shown["callbacks"]] == ["taken"] * 4


async def test_a_callback_of_any_status_can_be_pushed_also_a_forged_one(
    pushing: tuple[Inbox, Sandbox], receiver: Receiver
) -> None:
    inbox, sandbox = pushing
    async with sandbox.client() as client:
        await send(client, "order-1")
    await settled(sandbox)
    made = await inbox.post("/sandbox/callbacks", message_id="order-1", status="failed", forged=True)
    await settled(sandbox)
    assert made["forged"]
    assert (receiver.statuses[-1], set(receiver.signs[-1])) == ("failed", {"0"})
    assert sandbox.counts["forged callbacks taken"] == 1


async def test_callbacks_can_be_held_dropped_and_pushed_by_hand(
    pushing: tuple[Inbox, Sandbox], receiver: Receiver
) -> None:
    inbox, sandbox = pushing
    assert await inbox.ask("PUT", "/sandbox/callbacks/hold", {"hold": True}) == (200, {"hold": True})
    async with sandbox.client() as client:
        await send(client, "order-1")
    await settled(sandbox)
    held = await inbox.get("/sandbox/callbacks")
    assert held["hold"]
    assert [each["state"] for each in held["callbacks"]] == ["held", "held"]
    await inbox.post("/sandbox/callbacks/drop", numbers=[1])
    assert await inbox.problem("POST", "/sandbox/callbacks/drop", {"numbers": [1]}) == (409, "numbers")
    await inbox.post("/sandbox/callbacks/push", numbers=[2])
    await settled(sandbox)
    assert receiver.statuses == ["delivered"]
    assert [each["state"] for each in (await inbox.get("/sandbox/callbacks"))["callbacks"]] == ["dropped", "taken"]


async def test_a_callback_that_waits_for_its_next_try_can_be_dropped(
    pushing: tuple[Inbox, Sandbox], receiver: Receiver
) -> None:
    inbox, sandbox = pushing
    receiver.answer = 503
    async with sandbox.client() as client:
        await send(client, "order-1")
        await until(lambda: len(receiver.statuses) >= 2)
    await inbox.post("/sandbox/callbacks/drop", numbers=[1, 2])
    await settled(sandbox)
    listed = (await inbox.get("/sandbox/callbacks"))["callbacks"]
    assert [each["state"] for each in listed] == ["dropped", "dropped"]


async def test_without_callbacks_the_answer_says_how_to_have_them(inbox: Inbox, client: OtpClient) -> None:
    await send(client, "order-1")
    for path, fields in (
        ("", {"message_id": "order-1", "status": "read"}),
        ("/push", {"numbers": [1]}),
    ):
        assert (await inbox.problem("POST", f"/sandbox/callbacks{path}", fields))[0] in (404, 409)
    status, answer = await inbox.ask("PUT", "/sandbox/callbacks/hold", {"hold": True})
    assert (status, answer["detail"]) == (
        409,
        "this sandbox pushes no callbacks: start it with --callbacks or --webhook",
    )


async def test_a_message_without_an_address_has_no_callbacks(session: aiohttp.ClientSession) -> None:
    async with Sandbox(callbacks=CallbackPlan()) as sandbox, sandbox.client() as client:
        inbox = Inbox(sandbox, session)
        await send(client, "order-1")
        fields = {"message_id": "order-1", "status": "read"}
        assert await inbox.problem("POST", "/sandbox/callbacks", fields) == (409, None)
        assert await inbox.problem("POST", "/sandbox/callbacks", {**fields, "message_id": "x"}) == (404, "message_id")


# ---------------------------------------------------------------------------------------------- faults


async def test_a_fault_is_switched_on_and_off(inbox: Inbox, api: Api) -> None:
    made = await inbox.post("/sandbox/faults", kind="code", code=9005)
    assert (await api.post_good()).code == 9005
    assert (await inbox.get("/sandbox/faults"))["faults"] == [made]
    assert await inbox.ask("DELETE", f"/sandbox/faults/{made['number']}") == (204, "")
    assert (await api.post_good()).code == 0
    assert await inbox.problem("DELETE", f"/sandbox/faults/{made['number']}") == (404, None)


async def test_a_fault_can_be_for_one_number_and_goes_before_one_for_all(inbox: Inbox, api: Api) -> None:
    await inbox.post("/sandbox/faults", kind="http", code=503, retry_after=3)
    await inbox.post("/sandbox/faults", kind="meta", code=131056, to="+999 555 0100")
    assert (await api.post_good()).code == 9099
    other = await api.post_good(to="9995550199")
    assert (other.status, other.headers["Retry-After"]) == (503, "3")
    await inbox.ask("DELETE", "/sandbox/faults")
    assert (await api.post_good()).code == 0


async def test_a_fault_for_one_number_can_cut_the_connection(inbox: Inbox, api: Api, sandbox: Sandbox) -> None:
    await inbox.post("/sandbox/faults", kind="disconnect_before_reading", to=NUMBER)
    with pytest.raises(aiohttp.ClientError):
        await api.post_good()
    assert not sandbox.messages


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "kind"),
        ({"kind": "teapot"}, "kind"),
        ({"kind": "code"}, "code"),
        ({"kind": "code", "code": 0}, "code"),
        ({"kind": "code", "code": 9099}, "code"),
        ({"kind": "code", "code": "9001"}, "code"),
        ({"kind": "code", "code": 1_000_000}, "code"),
        ({"kind": "http", "code": 600}, "code"),
        ({"kind": "hang", "code": 1}, "code"),
        ({"kind": "none"}, "latency"),
        ({"kind": "hang", "latency": 61}, "latency"),
        ({"kind": "hang", "latency": True}, "latency"),
        ({"kind": "hang", "retry_after": 1}, "retry_after"),
        ({"kind": "http", "code": 429, "retry_after": -1}, "retry_after"),
        ({"kind": "hang", "probability": 1.5}, "probability"),
        ({"kind": "hang", "to": "somebody"}, "to"),
        ({"kind": "hang", "colour": "red"}, "colour"),
    ],
    ids=str,
)
async def test_a_fault_that_cannot_be_is_refused_with_its_field(
    inbox: Inbox, fields: dict[str, object], field: str
) -> None:
    assert await inbox.problem("POST", "/sandbox/faults", fields) == (400, field)
    assert (await inbox.get("/sandbox/faults"))["faults"] == []


async def test_not_any_number_of_faults_can_be_switched_on(inbox: Inbox) -> None:
    for _ in range(100):
        await inbox.post("/sandbox/faults", kind="hang", probability=0)
    assert await inbox.problem("POST", "/sandbox/faults", {"kind": "hang"}) == (409, None)


# ---------------------------------------------------------------------------------------------- wrong requests


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/sandbox/messages?limit=0", "limit"),
        ("/sandbox/messages?limit=x", "limit"),
        ("/sandbox/messages?limit=1&limit=2", "limit"),
        ("/sandbox/messages?after=-1", "after"),
        ("/sandbox/messages?to=somebody", "to"),
        ("/sandbox/messages?colour=red", "colour"),
        ("/sandbox/wait", "to"),
        (f"/sandbox/wait?to={NUMBER}&timeout=61", "timeout"),
        (f"/sandbox/wait?to={NUMBER}&timeout=soon", "timeout"),
        (f"/sandbox/wait?to={NUMBER}&timeout=nan", "timeout"),
        ("/sandbox/callbacks?id=1", "id"),
    ],
)
async def test_a_filter_that_is_none_is_refused_with_its_name(inbox: Inbox, path: str, field: str) -> None:
    assert await inbox.problem("GET", path) == (400, field)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null", b"NaN"])
async def test_a_body_that_is_no_json_object_is_refused(inbox: Inbox, body: bytes) -> None:
    assert await inbox.problem("POST", "/sandbox/faults", body) == (400, None)


@pytest.mark.parametrize("numbers", [[], [0], ["1"], [1.5], 1, [1] * 101])
async def test_numbers_that_are_none_are_refused(inbox: Inbox, numbers: object) -> None:
    assert await inbox.problem("POST", "/sandbox/callbacks/push", {"numbers": numbers}) == (400, "numbers")


async def test_other_refusals_are_problems_too(inbox: Inbox) -> None:
    assert await inbox.problem("GET", "/sandbox/teapot") == (404, None)
    assert await inbox.problem("PATCH", "/sandbox/faults") == (405, None)
    assert await inbox.problem("POST", "/sandbox/faults", b"{}" + b" " * 70_000) == (413, None)
    status, answer = await inbox.ask("POST", "/sandbox/faults", b"{}", **{"Content-Type": "text/plain"})
    assert (status, answer["title"]) == (415, "Unsupported Media Type")


# ---------------------------------------------------------------------------------------------- who may use it

PLACES = ["/", "/sandbox/messages", "/sandbox/events", "/sandbox/page/inbox.js", "/sandbox/teapot"]


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8099", "192.0.2.1", "localhost.evil.example", "", "[", "x:y"]
)
async def test_a_name_that_only_leads_to_loopback_is_refused(inbox: Inbox, path: str, host: str) -> None:
    assert await inbox.problem("GET", path, Host=host) == (403, None)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8099", "[::1]:8099", "LOCALHOST"])
async def test_loopback_may_be_called_by_each_of_its_names(inbox: Inbox, host: str) -> None:
    assert (await inbox.ask("GET", "/sandbox/messages", Host=host))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
async def test_another_web_page_changes_nothing(
    inbox: Inbox, client: OtpClient, sandbox: Sandbox, headers: dict[str, str]
) -> None:
    await send(client, "order-1")
    assert await inbox.problem("POST", "/sandbox/clear", **headers) == (403, None)
    assert await inbox.problem("POST", "/sandbox/faults", {"kind": "hang"}, **headers) == (403, None)
    assert len(sandbox.messages) == 1


async def test_its_own_page_changes_what_it_likes(inbox: Inbox, sandbox: Sandbox) -> None:
    own = {"Origin": sandbox.url, "Sec-Fetch-Site": "same-origin"}
    assert await inbox.ask("POST", "/sandbox/clear", **own) == (204, "")


async def test_answers_tell_the_browser_to_load_nothing_from_elsewhere(
    sandbox: Sandbox, session: aiohttp.ClientSession
) -> None:
    for path in (*PLACES, "/sandbox/openapi.json"):
        async with session.get(sandbox.url + path) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"


@pytest.fixture
async def guarded(session: aiohttp.ClientSession) -> AsyncIterator[tuple[Inbox, Sandbox]]:
    async with Sandbox(host="0.0.0.0") as sandbox:
        yield Inbox(sandbox, session), sandbox


async def test_elsewhere_than_on_loopback_the_token_is_needed(guarded: tuple[Inbox, Sandbox]) -> None:
    inbox, sandbox = guarded
    assert sandbox.token is not None
    for token in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {sandbox.token}"}):
        assert await inbox.problem("GET", "/sandbox/messages", **token) == (401, None)
        assert await inbox.problem("POST", "/sandbox/clear", **token) == (401, None)
    right = {"Authorization": f"Bearer {sandbox.token}", "Host": "sandbox:8099"}
    assert (await inbox.ask("GET", "/sandbox/messages", **right))[0] == 200


async def test_a_link_with_the_token_opens_the_page(guarded: tuple[Inbox, Sandbox]) -> None:
    inbox, sandbox = guarded
    status, asked = await inbox.ask("GET", "/")
    assert (status, "It printed a token" in asked) == (401, True)
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as browser:
        async with browser.get(f"{sandbox.url}/?token=wrong") as refused:
            assert refused.status == 401
        async with browser.get(f"{sandbox.url}/?token={sandbox.token}") as page:
            assert (page.status, str(page.url)) == (200, f"{sandbox.url}/")
        async with browser.get(f"{sandbox.url}/sandbox/messages") as answer:
            assert answer.status == 200


async def test_the_vendors_endpoint_needs_no_token(guarded: tuple[Inbox, Sandbox]) -> None:
    async with guarded[1].client() as client:
        await send(client, "order-1")
    assert len(guarded[1].messages) == 1


async def test_a_token_can_be_chosen() -> None:
    assert Sandbox(host="0.0.0.0", token="my own token").token == "my own token"
    assert Sandbox().token is None
