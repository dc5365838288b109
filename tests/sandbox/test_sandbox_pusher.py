import asyncio
import gc
import hashlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from itertools import count
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import orjson
import pytest
from aiohttp import web

from nxotp_async import Clock, OtpMessage, RetryPolicy, SendStatus
from nxotp_async.callbacks import CdrType, parse_callback, verify_callback
from nxotp_async.errors import CallbackVerificationError
from nxotp_async.sandbox import SANDBOX_BUSINESS_PHONE, SANDBOX_CREDENTIALS, CallbackPlan, Fault, Sandbox, pusher

TO: Final = "+999 555 0100"
ALL: Final = ["sent", "delivered", "read"]


class Inbox:
    """A server that remembers what is pushed to it, and answers what it is told to."""

    def __init__(self) -> None:
        self.received: list[web.Request] = []
        self.connections: list[object] = []
        self.bodies: list[bytes] = []
        self.answers: list[int] = []
        self.before_answer: Callable[[], Awaitable[object]] | None = None
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        self.received.append(request)
        self.connections.append(request.transport)
        if self.before_answer is not None:
            await self.before_answer()
        status = self.answers.pop(0) if self.answers else 200
        return web.Response(status=status, headers={"Location": "http://127.0.0.1:9/"} if status == 307 else None)

    @property
    def events(self) -> list[tuple[str, str]]:
        return [(event.message_id, event.status) for body in self.bodies for event in parse_callback(body)]

    def genuine(self) -> list[bool]:
        return [
            is_genuine(request, body) for request, body in zip(self.received, self.bodies, strict=True)
        ]  # fmt: skip


def is_genuine(request: web.Request, body: bytes) -> bool:
    try:
        verify_callback(request.headers, body, SANDBOX_CREDENTIALS)
    except CallbackVerificationError:
        return False
    return True


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    box = Inbox()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", box.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    box.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield box
    await runner.cleanup()


class Pauses:
    """What the pusher slept, which took no time."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    pauses = Pauses()
    monkeypatch.setattr(pusher, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": pauses.sleep}))
    return pauses


async def push(inbox: Inbox | None, messages: int = 1, *, seed: int | None = None, **plan: Any) -> Counter[str]:
    """Send so many messages, one after the other, and wait for their callbacks."""
    webhook = {} if inbox is None else {"webhook": inbox.url}
    sandbox = Sandbox(callbacks=CallbackPlan(**{**webhook, **plan}), seed=seed)
    async with sandbox, sandbox.client() as client:
        for index in range(messages):
            await client.send_otp(TO, "482913", cus_message_id=f"order-{index}")
            await settled(sandbox)
    return sandbox.counts


async def settled(sandbox: Sandbox) -> None:
    """Wait for the callbacks; the limit is for a sandbox that forgets one."""
    async with asyncio.timeout(5):
        await sandbox.callbacks_settled()


async def turns(count: int = 100) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of servers' states, which tell nobody
            await asyncio.sleep(0)


# ---------------------------------------------------------------------------------------------- what is pushed


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_message_is_followed_by_its_callbacks_in_order(inbox: Inbox, host: str) -> None:
    counts = await push(None, 50, webhook=inbox.url.replace("127.0.0.1", host))
    assert inbox.events == [(f"order-{index}", status) for index in range(50) for status in ALL]
    assert all(inbox.genuine())
    assert {key: value for key, value in counts.items() if "callback" in key} == {
        "callbacks pushed": 150,
        "callbacks taken": 150,
    }


@pytest.mark.parametrize("plan", [{}, {"delay": 7.5}, {"early": 1.0}])
async def test_a_callback_waits_for_the_one_before_it_and_for_no_other_messages(
    inbox: Inbox, pauses: Pauses, plan: dict[str, Any]
) -> None:
    waiting = asyncio.Event()

    async def hold_the_first_message_up() -> None:
        if inbox.events[-1][0] == "order-1":
            await waiting.wait()

    inbox.before_answer = hold_the_first_message_up
    sandbox = Sandbox(callbacks=CallbackPlan(webhook=inbox.url, **plan))
    async with sandbox, sandbox.client() as client:
        first = asyncio.create_task(client.send_otp(TO, "482913", cus_message_id="order-1"))
        await until(lambda: len(inbox.bodies) == 1)
        await client.send_otp(TO, "482913", cus_message_id="order-2")
        await until(lambda: len(inbox.bodies) == 4)
        await turns()
        assert inbox.events == [("order-1", "sent"), *(("order-2", status) for status in ALL)]
        waiting.set()
        await first
        await settled(sandbox)
    assert inbox.events[4:] == [("order-1", "delivered"), ("order-1", "read")]


async def test_a_callback_looks_like_the_vendors(inbox: Inbox) -> None:
    plan = CallbackPlan(webhook=f"{inbox.url}/hook?a=b")
    now = Clock(time=lambda: 1_800_000_000.25)
    async with Sandbox(callbacks=plan, clock=now) as sandbox, sandbox.client(clock=now) as client:
        await client.send_otp(TO, "482913", cus_message_id="order-1")
        await settled(sandbox)
    sent, delivered, read = (orjson.loads(body) for body in inbox.bodies)
    (event,) = sent["statuses"]
    assert (sent["messaging_product"], sent["business_phone"]) == ("whatsapp", SANDBOX_BUSINESS_PHONE)
    assert [event[name] for name in ("id", "status", "timestamp", "recipient_id")] == [
        "order-1", "sent", "1800000000", "9995550100",
    ]  # fmt: skip
    assert event["conversation"]["expiration_timestamp"] == "1800086400"
    assert set(delivered["statuses"][0]["conversation"]) == {"id"}
    assert "conversation" not in read["statuses"][0]
    request = inbox.received[0]
    assert (request.method, request.path_qs) == ("POST", "/hook?a=b")
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["ts"] == "1800000000250"


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
async def test_callbacks_are_signed_as_the_vendors_page_says(inbox: Inbox, algorithm: Any) -> None:
    await push(inbox, algorithm=algorithm)
    for request, body in zip(inbox.received, inbox.bodies, strict=True):
        given = request.headers
        assert (given["accessKey"], given["algorithm"]) == (SANDBOX_CREDENTIALS.access_key, algorithm)
        text = f"accessKey={given['accesskey']}&action={given['action']}&bizType={given['biztype']}&ts={given['ts']}"
        text += f"&body={body.decode()}&accessSecret={SANDBOX_CREDENTIALS.access_secret}"
        assert given["sign"] == hashlib.new(algorithm, text.encode()).hexdigest()


async def test_an_account_may_have_no_signatures(inbox: Inbox) -> None:
    await push(inbox, signed=False)
    assert [status for _, status in inbox.events] == ALL
    for request in inbox.received:
        assert {"accesskey", "action", "biztype", "ts", "algorithm", "sign"}.isdisjoint(map(str.lower, request.headers))


@pytest.mark.parametrize(
    ("plan", "statuses"),
    [
        pytest.param({"statuses": ("sent",)}, {"sent": 1}, id="one status"),
        pytest.param({"statuses": ()}, {}, id="none"),
        pytest.param({"statuses": ("read", "sent", "read")}, {"sent": 1, "read": 2}, id="odd ones"),
        pytest.param({"copies": 3}, {"sent": 3, "delivered": 3, "read": 3}, id="copies"),
        pytest.param({"copies": 0}, {}, id="no copy"),
        pytest.param({"copies": 0, "early": 1.0}, {}, id="no copy, early"),
        pytest.param({"failed": 1.0}, {"sent": 1, "failed": 1}, id="failed"),
        pytest.param({"failed": 1.0, "copies": 2}, {"sent": 2, "failed": 2}, id="failed twice"),
        pytest.param({"failed": 1.0, "statuses": ()}, {"failed": 1}, id="failed at once"),
        pytest.param({"loss": 1.0}, {}, id="all lost"),
        pytest.param({"loss": 1.0, "forged": 1.0, "early": 1.0}, {}, id="all lost, early"),
        pytest.param({"forged": 1.0}, {"sent": 1, "delivered": 1, "read": 1, "deleted": 3}, id="forged"),
        pytest.param({"early": 1.0, "copies": 2}, {"sent": 2, "delivered": 2, "read": 2}, id="early"),
    ],
)
async def test_as_many_callbacks_come_as_the_plan_says(
    inbox: Inbox, plan: dict[str, Any], statuses: dict[str, int]
) -> None:
    await push(inbox, 3, **plan)
    assert Counter(inbox.events) == {
        (f"order-{index}", status): count for index in range(3) for status, count in statuses.items()
    }


async def test_a_failure_says_why(inbox: Inbox) -> None:
    await push(inbox, failed=1.0)
    (sent,), (failed,) = (parse_callback(body) for body in inbox.bodies)
    assert (sent.status, sent.errors) == ("sent", ())
    assert (failed.status, failed.errors) == ("failed", ({"code": 131026, "title": "Message undeliverable"},))


async def test_the_shares_are_about_what_the_plan_says(inbox: Inbox) -> None:
    await push(inbox, 400, seed=3, failed=0.25, loss=0.5, statuses=("sent", "read"), forged=0.2)
    seen = Counter(status for _, status in inbox.events)
    assert 160 < seen["sent"] < 240
    assert 30 < seen["failed"] < 75
    assert 115 < seen["read"] < 185
    assert 50 < seen["deleted"] < 110


async def test_shuffled_callbacks_come_in_any_order(inbox: Inbox) -> None:
    await push(inbox, 60, seed=5, shuffle=True)
    orders = Counter(
        tuple(status for message_id, status in inbox.events if message_id == f"order-{index}") for index in range(60)
    )
    assert len(orders) == 6
    assert all(sorted(order) == sorted(ALL) for order in orders)


async def test_forged_callbacks_are_refused_and_not_tried_again(inbox: Inbox) -> None:
    async def as_a_receiver_would() -> None:
        inbox.answers.append(200 if inbox.genuine()[-1] else 401)

    inbox.before_answer = as_a_receiver_would
    counts = await push(inbox, 5, forged=1.0)
    assert [status == "deleted" for _, status in inbox.events] == [not genuine for genuine in inbox.genuine()]
    assert counts["callbacks pushed"] == 30
    assert (counts["callbacks taken"], counts["callbacks refused"]) == (15, 0)
    assert (counts["forged callbacks taken"], counts["forged callbacks refused"]) == (0, 15)


async def test_a_forgery_that_is_taken_is_counted_as_such(inbox: Inbox) -> None:
    counts = await push(inbox, 1, forged=1.0)
    assert (counts["forged callbacks taken"], counts["forged callbacks refused"]) == (3, 0)


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
async def test_a_forgery_differs_in_its_signature_only(inbox: Inbox, algorithm: Any) -> None:
    await push(inbox, 1, forged=1.0, algorithm=algorithm)
    shapes = {(frozenset(request.headers), len(request.headers["sign"])) for request in inbox.received}
    assert len(shapes) == 1
    assert sum(inbox.genuine()) == 3


async def test_early_callbacks_come_before_the_answer(inbox: Inbox) -> None:
    waiting = asyncio.Event()
    inbox.before_answer = waiting.wait
    plan = CallbackPlan(webhook=inbox.url, early=1.0)
    async with Sandbox(callbacks=plan) as sandbox, sandbox.client() as client:
        sending = asyncio.create_task(client.send_otp(TO, "482913", cus_message_id="order-1"))
        await until(lambda: len(inbox.bodies) == 1)
        await turns()
        assert not sending.done()
        assert inbox.events == [("order-1", "sent")]
        waiting.set()
        assert (await sending).status is SendStatus.ACCEPTED
        await settled(sandbox)
    assert [status for _, status in inbox.events] == ALL


async def test_other_callbacks_do_not_hold_the_answer_up(inbox: Inbox) -> None:
    waiting = asyncio.Event()
    inbox.before_answer = waiting.wait
    async with Sandbox(callbacks=CallbackPlan(webhook=inbox.url)) as sandbox, sandbox.client() as client:
        assert (await client.send_otp(TO, "482913")).status is SendStatus.ACCEPTED
        settling = asyncio.create_task(settled(sandbox))
        await turns()
        assert not settling.done()
        waiting.set()
        await settling


async def test_every_callback_is_delayed(inbox: Inbox, pauses: Pauses) -> None:
    await push(inbox, delay=7.5, copies=2)
    assert pauses.slept == [7.5] * 6
    assert Counter(status for _, status in inbox.events) == dict.fromkeys(ALL, 2)


async def test_of_early_callbacks_all_but_the_first_are_delayed(inbox: Inbox, pauses: Pauses) -> None:
    await push(inbox, delay=7.5, early=1.0)
    assert pauses.slept == [7.5] * 2
    assert inbox.events[0] == ("order-0", "sent")


async def test_the_same_seed_draws_the_same_callbacks(inbox: Inbox) -> None:
    plan = {"failed": 0.3, "loss": 0.3, "forged": 0.3, "copies": 2, "shuffle": True, "early": 0.5}
    drawn = []
    for seed in (1, 1, 2):
        inbox.bodies.clear()
        await push(inbox, 30, seed=seed, **plan)
        drawn.append(Counter(inbox.events))
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


# ---------------------------------------------------------------------------------------------- for what, and where


@pytest.mark.parametrize(
    ("fault", "goes_out"),
    [
        (Fault.answer(9002), False),
        (Fault.meta(131026), False),
        (Fault.http(503), False),
        (Fault.disconnect_before_reading(), False),
        (Fault.http(504), True),
        (Fault.disconnect_after_reading(), True),
        (Fault.truncated(), True),
        (Fault.without_id(), True),
    ],
    ids=lambda value: f"{value.kind} {value.code}" if isinstance(value, Fault) else str(value),
)
async def test_callbacks_follow_what_went_out_and_nothing_else(inbox: Inbox, fault: Fault, goes_out: bool) -> None:
    async with Sandbox(callbacks=CallbackPlan(webhook=inbox.url)) as sandbox, sandbox.client() as client:
        sandbox.script(fault)
        once = client.with_options(retry=RetryPolicy(max_attempts=1))
        message = OtpMessage(TO, "482913", cus_message_id="order-1")
        assert [sent.attempts async for sent in once.send_many([message])] == [1]
        await settled(sandbox)
    assert inbox.events == [("order-1", status) for status in ALL] * goes_out


async def test_callbacks_name_the_id_that_was_answered(inbox: Inbox) -> None:
    plan = CallbackPlan(webhook=inbox.url)
    async with Sandbox(callbacks=plan, echo_message_id=False) as sandbox, sandbox.client() as client:
        sent = await client.send_otp(TO, "482913", cus_message_id="order-1")
        await settled(sandbox)
    assert sent.message_id != "order-1"
    assert inbox.events == [(sent.message_id, status) for status in ALL]


async def test_a_messages_own_webhook_comes_before_the_applications(inbox: Inbox) -> None:
    plan = CallbackPlan(webhook=f"{inbox.url}/app", statuses=("sent",))
    async with Sandbox(callbacks=plan) as sandbox, sandbox.client() as client:
        await client.send_otp(TO, "482913", dr_webhook=f"{inbox.url}/own")
        await settled(sandbox)
        await client.send_otp(TO, "482913")
        await settled(sandbox)
    assert [request.path for request in inbox.received] == ["/own", "/app"]


async def test_a_messages_own_webhook_needs_none_of_the_applications(inbox: Inbox) -> None:
    async with Sandbox(callbacks=CallbackPlan()) as sandbox, sandbox.client(dr_webhook=inbox.url) as client:
        await client.send_otp(TO, "482913", cus_message_id="order-1")
        await settled(sandbox)
    assert inbox.events == [("order-1", status) for status in ALL]


async def test_without_an_address_they_are_counted_only() -> None:
    counts = await push(None, 3)
    assert counts["callbacks without an address"] == 3
    assert counts["callbacks pushed"] == 0


ELSEWHERE: Final = pytest.mark.parametrize(
    "webhook",
    [
        "https://example.com/hook",
        "http://192.0.2.1/",
        "http://10.0.0.1:8080/",
        "http://0.0.0.0:9/",
        "http://127.0.0.1.example.com/",
        "http://localhost.example.com/",
        "http://127.0.0.1@example.com/",
        "http://example.com#@127.0.0.1/",
        "http://example.com?@127.0.0.1/",
        "http://[2001:db8::1]/",
        "http://[::ffff:192.0.2.1]/",
        "http://2130706433/",
        "http://0x7f000001/",
    ],
)


@ELSEWHERE
async def test_nothing_is_pushed_anywhere_but_to_loopback(webhook: str) -> None:
    sandbox = Sandbox(callbacks=CallbackPlan(early=1.0))
    async with sandbox, sandbox.client(dr_webhook=webhook) as client:
        await client.send_otp(TO, "482913")
        await settled(sandbox)
    assert sandbox.counts["callbacks without an address"] == 1
    assert sandbox.counts["callbacks pushed"] == 0


@ELSEWHERE
def test_a_webhook_that_nothing_would_be_pushed_to_is_refused_at_once(webhook: str) -> None:
    with pytest.raises(ValueError, match="webhook must lead to loopback, or to one of hosts"):
        CallbackPlan(webhook=webhook, hosts=("another.example",))


async def test_a_host_that_is_named_is_pushed_to(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved: list[str] = []

    async def resolve(_: object, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        resolved.append(host)
        address = {"host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
        return [{"hostname": host, **address}]

    monkeypatch.setattr(aiohttp.resolver.ThreadedResolver, "resolve", resolve)
    monkeypatch.setattr(aiohttp.resolver.AsyncResolver, "resolve", resolve)
    counts = await push(None, webhook=inbox.url.replace("127.0.0.1", "Receiver"), hosts=["RECEIVER"])
    assert resolved == ["receiver"]
    assert counts["callbacks taken"] == 3
    assert [status for _, status in inbox.events] == ALL


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"failed": 1.1}, "failed must be 0 at least, and 1 at most"),
        ({"loss": float("nan")}, "loss must be"),
        ({"early": "x"}, "early must be a number"),
        ({"forged": -1}, "forged must be"),
        ({"delay": -1}, "delay must be 0 at least"),
        ({"copies": 0.5}, "copies must be an integer"),
        ({"hosts": ["http://app"]}, "hosts must be the name of a host"),
    ],
    ids=str,
)
def test_a_wrong_plan_is_refused(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        CallbackPlan(**wrong)


@pytest.mark.parametrize("reuse", [True, False])
async def test_callbacks_come_over_new_connections_where_these_are_asked_for(inbox: Inbox, reuse: bool) -> None:
    await push(inbox, 2, reuse_connections=reuse)
    assert len(inbox.events) == 6
    assert len(set(inbox.connections)) == (1 if reuse else 6)


@pytest.mark.parametrize("field", ["cost", "costs"])
async def test_a_delivery_says_what_it_costs_where_that_is_asked_for(inbox: Inbox, field: Any) -> None:
    await push(inbox, cost=field)
    events = [event for body in inbox.bodies for event in parse_callback(body)]
    assert [field in event.raw for event in events] == [False, True, False]
    (cost,) = events[1].costs
    assert (cost.cdr_type, cost.currency, cost.foreign_price) == (CdrType.AUTHENTICATION, "USD", Decimal("0.02"))
    assert (cost.price, cost.message_id) == (Decimal("0.14") if field == "costs" else None, "order-0")


async def test_nothing_says_what_it_costs_otherwise(inbox: Inbox) -> None:
    await push(inbox)
    assert not [event for body in inbox.bodies for event in parse_callback(body) if event.costs]


async def test_localhost_by_name_is_loopback(inbox: Inbox) -> None:
    await push(None, webhook=inbox.url.replace("127.0.0.1", "LOCALHOST"))
    assert sorted(status for _, status in inbox.events) == sorted(ALL)


async def test_a_redirect_leads_nowhere(inbox: Inbox, pauses: Pauses) -> None:
    inbox.answers = [307, 307]
    counts = await push(inbox, statuses=("sent",))
    assert inbox.events == [("order-0", "sent")] * 3
    assert (counts["callbacks pushed"], counts["callbacks taken"]) == (3, 1)


# ---------------------------------------------------------------------------------------------- trying again


@pytest.mark.parametrize("status", [500, 503, 401, 404, 204, 201])
async def test_a_callback_comes_again_until_it_is_answered_200(inbox: Inbox, pauses: Pauses, status: int) -> None:
    inbox.answers = [status] * 3
    counts = await push(inbox, statuses=("sent",))
    assert inbox.events == [("order-0", "sent")] * 4
    assert pauses.slept == [0.05, 0.1, 0.2]
    assert (counts["callbacks pushed"], counts["callbacks taken"], counts["callbacks refused"]) == (4, 1, 0)
    assert all(inbox.genuine())


async def test_an_early_callback_comes_again_after_the_answer(inbox: Inbox, pauses: Pauses) -> None:
    inbox.answers = [500, 500]
    counts = await push(inbox, statuses=("sent",), early=1.0)
    assert (counts["callbacks pushed"], counts["callbacks taken"]) == (3, 1)


async def test_a_callback_is_given_up_after_twelve_tries(inbox: Inbox, pauses: Pauses) -> None:
    inbox.answers = [500] * 12
    counts = await push(inbox, statuses=("sent",))
    assert len(inbox.bodies) == 12
    assert pauses.slept == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5, 5])
    assert (counts["callbacks pushed"], counts["callbacks taken"], counts["callbacks refused"]) == (12, 0, 1)


async def test_every_try_is_signed_at_its_own_time(inbox: Inbox, pauses: Pauses) -> None:
    inbox.answers = [500] * 2
    times = count(1_800_000_000)
    plan = CallbackPlan(webhook=inbox.url, statuses=("sent",))
    sandbox = Sandbox(callbacks=plan, clock=Clock(time=lambda: float(next(times))))
    async with sandbox, sandbox.client(clock=Clock(time=lambda: 1_800_000_000)) as client:
        await client.send_otp(TO, "482913")
        await settled(sandbox)
    stamps = [int(request.headers["ts"]) for request in inbox.received]
    assert stamps == sorted(set(stamps))
    assert len(set(inbox.bodies)) == 1


@pytest.mark.parametrize(
    "webhook",
    [
        "http://127.0.0.1:9/",
        "https://127.0.0.1:9/",
        "http://user:pass@127.0.0.1:9/",
    ],
)
async def test_where_nobody_listens_it_is_given_up(webhook: str, pauses: Pauses) -> None:
    counts = await push(None, 2, webhook=webhook)
    assert (counts["callbacks refused"], counts["callbacks taken"]) == (6, 0)


NO_URLS: Final = [
    *("http://[::1", "http://[x]/", "http://", "http://]["),
    *("http://127.0.0.1:0/", "http://127.0.0.1:99999/", "http://127.0.0.1:x/", "http://localhost:70000/"),
    *("http://127.0.0.1 /", "http://127.0.0.1:9/\x00"),
]


@pytest.mark.parametrize("webhook", NO_URLS)
def test_a_webhook_that_is_no_url_is_refused_at_once(webhook: str) -> None:
    with pytest.raises(ValueError, match="webhook must lead to loopback"):
        CallbackPlan(webhook=webhook)


@pytest.mark.parametrize("webhook", NO_URLS)
async def test_a_senders_webhook_that_is_no_url_does_not_break_the_sandbox(webhook: str, pauses: Pauses) -> None:
    async with Sandbox(callbacks=CallbackPlan()) as sandbox, sandbox.client() as client:
        message = OtpMessage(TO, "482913")
        object.__setattr__(message, "dr_webhook", webhook)  # what another client may send
        results = [sent async for sent in client.send_many([message])]
        await settled(sandbox)
        assert results[0].status in (SendStatus.ACCEPTED, SendStatus.REJECTED), results[0].error
        assert (await client.send_otp(TO, "482913")).status is SendStatus.ACCEPTED


async def test_a_receiver_that_hangs_up_is_tried_again(inbox: Inbox, pauses: Pauses) -> None:
    async def hang_up() -> None:
        if len(inbox.bodies) <= 2:
            transport = inbox.received[-1].transport
            assert transport is not None
            transport.abort()

    inbox.before_answer = hang_up
    counts = await push(inbox, statuses=("sent",))
    assert (counts["callbacks pushed"], counts["callbacks taken"], counts["callbacks refused"]) == (3, 1, 0)


# ---------------------------------------------------------------------------------------------- the end


async def test_a_sandbox_without_callbacks_has_none_to_wait_for() -> None:
    async with Sandbox() as sandbox, sandbox.client() as client:
        await client.send_otp(TO, "482913")
        await settled(sandbox)
    assert not [name for name in sandbox.counts if "callback" in name]


async def test_before_anything_is_sent_all_is_settled(inbox: Inbox) -> None:
    async with Sandbox(callbacks=CallbackPlan(webhook=inbox.url)) as sandbox:
        await settled(sandbox)
    assert inbox.bodies == []


async def test_several_may_wait_until_all_is_settled(inbox: Inbox) -> None:
    waiting = asyncio.Event()
    inbox.before_answer = waiting.wait
    async with Sandbox(callbacks=CallbackPlan(webhook=inbox.url)) as sandbox, sandbox.client() as client:
        await client.send_otp(TO, "482913")
        settling = [asyncio.create_task(settled(sandbox)) for _ in range(3)]
        await turns()
        assert not any(task.done() for task in settling)
        waiting.set()
        await asyncio.gather(*settling)
        await client.send_otp(TO, "482913")
        await settled(sandbox)
    assert len(inbox.bodies) == 6


@pytest.mark.parametrize("plan", [{}, {"early": 1.0}, {"delay": 1000.0}, {"copies": 20}])
async def test_a_stop_in_the_middle_leaves_nothing_behind(inbox: Inbox, plan: dict[str, Any]) -> None:
    inbox.before_answer = asyncio.Event().wait
    sandbox = Sandbox(callbacks=CallbackPlan(webhook=inbox.url, **plan))
    await sandbox.start()
    async with sandbox.client() as client:
        sending = asyncio.create_task(client.send_otp(TO, "482913"))
        await until(lambda: sandbox.counts["messages"] == 1)
        await turns()
        await sandbox.stop()
        await asyncio.gather(sending, return_exceptions=True)
    await turns()
    running = {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}
    assert not [name for name in running if "Pusher" in name or "Sandbox" in name]
    gc.collect()  # a connection left open would warn, which is an error


async def test_a_stop_that_is_cancelled_leaves_nothing_behind_either(inbox: Inbox) -> None:
    inbox.before_answer = asyncio.Event().wait
    sandbox = Sandbox(callbacks=CallbackPlan(webhook=inbox.url))
    await sandbox.start()
    async with sandbox.client() as client:
        await client.send_otp(TO, "482913")
        await until(lambda: len(inbox.bodies) == 1)
        stopping = asyncio.create_task(sandbox.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
    assert stopping.cancelled()
    running = {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}
    assert not [name for name in running if "Pusher" in name]


async def test_who_waits_for_callbacks_hears_when_the_sandbox_stops(inbox: Inbox) -> None:
    inbox.before_answer = asyncio.Event().wait
    sandbox = Sandbox(callbacks=CallbackPlan(webhook=inbox.url))
    async with sandbox, sandbox.client() as client:
        await client.send_otp(TO, "482913")
        settling = asyncio.create_task(sandbox.callbacks_settled())
        await until(lambda: len(inbox.bodies) == 1)
    await turns()
    done = settling.done()
    settling.cancel()
    await asyncio.gather(settling, return_exceptions=True)
    assert done


async def test_what_was_dropped_at_the_stop_does_not_come_after_the_next_start(inbox: Inbox) -> None:
    never = asyncio.Event()
    inbox.before_answer = never.wait
    sandbox = Sandbox(callbacks=CallbackPlan(webhook=inbox.url, copies=10))
    async with sandbox, sandbox.client() as client:
        await client.send_otp(TO, "482913", cus_message_id="order-1")
        await until(lambda: len(inbox.bodies) == 1)
    inbox.before_answer = None
    inbox.bodies.clear()
    async with sandbox, sandbox.client() as client:
        await client.send_otp(TO, "482913", cus_message_id="order-2")
        await settled(sandbox)
    assert {message_id for message_id, _ in inbox.events} == {"order-2"}
    assert len(inbox.bodies) == 30


async def test_a_sender_that_leaves_during_an_early_callback_holds_nothing_up(inbox: Inbox) -> None:
    waiting = asyncio.Event()
    inbox.before_answer = waiting.wait
    plan = CallbackPlan(webhook=inbox.url, early=1.0)
    async with Sandbox(callbacks=plan) as sandbox, sandbox.client() as client:
        sending = asyncio.create_task(client.send_otp(TO, "482913", cus_message_id="order-1"))
        await until(lambda: len(inbox.bodies) == 1)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await client.aclose()
        await turns(500)  # until the sandbox knows
        waiting.set()
        await settled(sandbox)
    assert sandbox.counts["messages"] == 1
    assert {status for _, status in inbox.events} == set(ALL)  # the message went out
