"""Workers over a real PostgreSQL: what they send, and what they leave."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from fleet_support import KEYS, message, rows, running, until, worker_of
from support import ScriptedTransport

from nxotp_async import Clock, ConfigurationError, OtpClient, RetryPolicy
from nxotp_async.fleet import MessageState, Outbox, Queue, Worker
from nxotp_async.fleet.senders import Sender, SenderState, change_sender, read_sender
from nxotp_async.fleet.sending import Sending
from nxotp_async.signing import SANDBOX_CREDENTIALS
from nxotp_async.stores import PostgresStore
from nxotp_async.transports import Answer


def refusal(code: int) -> Answer:
    return Answer(200, {}, b'{"code":%d,"message":"no"}' % code)


def client_of(transport: ScriptedTransport) -> OtpClient:
    keys = SANDBOX_CREDENTIALS
    return OtpClient(
        access_key=keys.access_key, access_secret=keys.access_secret, appkey=keys.appkey, transport=transport
    )


async def settled(outbox: Outbox) -> bool:
    states = await outbox.states()
    return not states[MessageState.QUEUED] + states[MessageState.SENDING]


async def test_what_is_queued_is_sent_once_and_its_content_erased(outbox: Outbox, schema_url: str) -> None:
    transport = ScriptedTransport()
    await outbox.enqueue_many([message(number) for number in range(150)])
    async with running(worker_of(outbox, client_of(transport))) as worker:
        id_ = await outbox.enqueue(message(150))
        state = await outbox.wait(id_, timeout=30)
        assert (state.state, state.attempts, state.error) == (MessageState.ACCEPTED, 1, None)
        await until(lambda: settled(outbox))
        assert worker.is_ready
    assert (await outbox.states(), len(transport.posts)) == ({MessageState.ACCEPTED: 151}, 151)
    assert len({body for body, _, _ in transport.posts}) == 151
    assert await rows(schema_url, "SELECT id FROM nxotp_outbox WHERE sealed IS NOT NULL OR message_id IS NULL") == []
    assert await rows(schema_url, "SELECT id FROM procrastinate_jobs") == []


async def test_what_may_be_sent_again_is_and_what_may_not_is_not(outbox: Outbox) -> None:
    transport = ScriptedTransport(refusal(9001), refusal(9015), Answer(200, {}, b"nonsense"))
    policy = RetryPolicy(max_attempts=5, backoff_base=0.01)
    ids = []
    async with running(worker_of(outbox, client_of(transport), retry=policy)):
        ids.append(await outbox.enqueue(message(0)))
        refused = await outbox.wait(ids[0], timeout=30)
        unknown = await outbox.wait(await outbox.enqueue(message(1)), timeout=30)
    assert (refused.state, refused.attempts, refused.code) == (MessageState.REJECTED, 2, 9015)
    assert (unknown.state, unknown.attempts) == (MessageState.UNKNOWN, 1)
    assert len(transport.posts) == 3


async def test_a_row_that_no_key_opens_is_set_aside_and_stops_nobody(outbox: Outbox, schema_url: str) -> None:
    stranger = Outbox(schema_url, keys=[Fernet.generate_key().decode()])
    unreadable = await stranger.enqueue(message(0))
    await stranger.aclose()
    swapped, good = await outbox.enqueue(message(1)), await outbox.enqueue(message(2))
    await rows(schema_url, "UPDATE nxotp_outbox SET cus_message_id = 'other' WHERE cus_message_id = %s", swapped)
    transport = ScriptedTransport()
    async with running(worker_of(outbox, client_of(transport))):
        states = [await outbox.wait(id_, timeout=30) for id_ in (unreadable, "other", good)]
    assert [state.state for state in states] == [MessageState.NOT_SENT, MessageState.NOT_SENT, MessageState.ACCEPTED]
    assert states[0].reason == "no key of NXOTP_OUTBOX_KEYS opens it"
    assert states[1].reason == "what is stored under this id is another message's"
    assert len(transport.posts) == 1


async def test_a_worker_that_is_stopped_leaves_the_rest_to_others(outbox: Outbox) -> None:
    slow, fast = ScriptedTransport(), ScriptedTransport()
    await outbox.enqueue_many([message(number) for number in range(120)])
    async with running(worker_of(outbox, client_of(slow), rate=25)):
        await until(lambda: _has(slow, 3))
    assert len(slow.posts) < 120
    assert (await outbox.states())[MessageState.SENDING] == 0
    async with running(worker_of(outbox, client_of(fast))):
        await until(lambda: settled(outbox))
    assert await outbox.states() == {MessageState.ACCEPTED: 120}
    assert len(slow.posts) + len(fast.posts) == 120


async def _has(transport: ScriptedTransport, posts: int) -> bool:
    return len(transport.posts) >= posts


async def test_an_error_of_the_account_pauses_the_sender_for_all_workers(outbox: Outbox, schema_url: str) -> None:
    transport = ScriptedTransport(refusal(9002), Answer(200, {}, b'{"code":0,"data":{"messages":[{"id":"v1"}]}}'))
    store = PostgresStore(schema_url)
    async with running(worker_of(outbox, client_of(transport))) as worker:
        id_ = await outbox.enqueue(message())

        async def paused() -> bool:
            return (await read_sender(store, "default")).paused is not None

        await until(paused)
        assert "code 9002" in worker.condition
        async with running(worker_of(outbox, client_of(transport))) as other:
            await until(lambda: _condition(other, "paused: code 9002"))
            state = await outbox.get(id_)
            assert state is not None
            assert (state.state, state.code) == (MessageState.QUEUED, 9002)
            assert len(transport.posts) == 1
            await change_sender(store, "default", SenderState.resume)
            assert (await outbox.wait(id_, timeout=30)).state is MessageState.ACCEPTED
    await store.aclose()


async def test_an_error_of_the_account_does_not_count_against_the_message_that_met_it(
    outbox: Outbox, schema_url: str
) -> None:
    id_ = await outbox.enqueue(message())
    await rows(schema_url, "UPDATE nxotp_outbox SET refusals = 4")  # one more would be its last
    async with running(worker_of(outbox, client_of(ScriptedTransport(refusal(9002))))):

        async def refused() -> bool:
            state = await outbox.get(id_)
            return state is not None and (state.state, state.code) == (MessageState.QUEUED, 9002)

        await until(refused)
    assert await rows(schema_url, "SELECT refusals FROM nxotp_outbox") == [(4,)]


async def _condition(worker: Worker, begins: str) -> bool:
    return worker.condition.startswith(begins)


async def test_what_the_rate_leaves_no_time_for_is_not_sent(outbox: Outbox) -> None:
    transport = ScriptedTransport()
    async with running(worker_of(outbox, client_of(transport), rate=0.01)):
        first, second = await outbox.enqueue(message(0)), await outbox.enqueue(message(1, seconds=60))
        states = [await outbox.wait(id_, timeout=30) for id_ in (first, second)]
    outcomes = sorted((state.state, state.reason) for state in states)
    assert outcomes[0][0] is MessageState.ACCEPTED
    assert outcomes[1] == (MessageState.NOT_SENT, "the rate leaves no time for it before expires_at")
    assert len(transport.posts) == 1


# ---------------------------------------------------------------------------------------------- one job, two workers


class _Turns:
    """Lets two workers take their steps in a given order. The turns of one that has no more steps are skipped."""

    def __init__(self, order: tuple[str, ...]) -> None:
        self._order = list(order)
        self._done: set[str] = set()
        self._changed = asyncio.Condition()

    async def step(self, name: str) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._next() in (name, None))
            if self._order:
                self._order.pop(0)
            self._changed.notify_all()

    def _next(self) -> str | None:
        while self._order and self._order[0] in self._done:
            self._order.pop(0)
        return self._order[0] if self._order else None

    async def finish(self, name: str) -> None:
        async with self._changed:
            self._done.add(name)
            self._changed.notify_all()


class _Stepping(ScriptedTransport):
    def __init__(self, turns: _Turns, name: str, posts: list[bytes]) -> None:
        super().__init__()
        self._turns, self._name, self._all = turns, name, posts

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        await self._turns.step(self._name)
        self._all.append(body)
        return await super().post(url, body, headers, timeout)


@pytest.fixture
async def outboxes(schema_url: str, outbox: Outbox) -> AsyncIterator[dict[str, Outbox]]:
    other = Outbox(schema_url, keys=KEYS)
    yield {"A": outbox, "B": other}
    await other.aclose()


async def test_the_same_job_in_two_workers_in_every_order_of_steps_is_sent_once(
    outboxes: dict[str, Outbox], schema_url: str
) -> None:
    # The steps of the one that wins are to look, to claim, to post and to settle.
    orders = sorted({order for order in itertools.permutations("AAAABBBB") if order[0] == "A"})
    assert len(orders) == 35
    store = PostgresStore(schema_url)
    for order in orders:
        ids = (await outboxes["A"].enqueue_many([message(0)])).queued
        [(row_id,)] = await rows(schema_url, "SELECT id FROM nxotp_outbox WHERE cus_message_id = %s", ids[0])
        turns, posts = _Turns(order), list[bytes]()

        async def work(name: str, row_id: int = row_id, turns: _Turns = turns, posts: list[bytes] = posts) -> None:
            clock = Clock()
            sender = Sender(store, "default", 10_000, clock)
            client = client_of(_Stepping(turns, name, posts))
            sending = Sending(outboxes[name], client, sender, policy=RetryPolicy(), reject_on=(), clock=clock)
            execute, settle = sending._execute, sending._settler.settle

            async def stepping_execute(statement: Any, arguments: Mapping[str, Any]) -> Any:
                await turns.step(name)
                return await execute(statement, arguments)

            async def stepping_settle(report: Any) -> None:
                await turns.step(name)
                await settle(report)

            sending._execute = stepping_execute  # type: ignore[method-assign]
            sending._settler.settle = stepping_settle  # type: ignore[method-assign]
            await sending.run_job([row_id], Queue.LOGIN, worker=1 if name == "A" else 2)
            await turns.finish(name)

        async with asyncio.timeout(30):
            await asyncio.gather(work("A"), work("B"))
        state = await outboxes["A"].get(ids[0])
        assert state is not None
        assert (len(posts), state.state, state.attempts) == (1, MessageState.ACCEPTED, 1), order
    await store.aclose()


# ---------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rate": 0}, "rate"),
        ({"stalled_after": 0}, "stalled_after"),
        ({"keep": -1}, "keep"),
        ({"reject_on": ["x"]}, "reject_on"),
        ({"retry": 3}, "retry"),
    ],
)
def test_what_is_wrong_with_an_argument_is_said(options: dict[str, Any], words: str) -> None:
    outbox = Outbox("postgresql://localhost/x", keys=KEYS)
    with pytest.raises(ConfigurationError, match=words):
        Worker(outbox, client_of(ScriptedTransport()), **options)


async def test_a_worker_with_other_keys_does_not_begin(outbox: Outbox, schema_url: str) -> None:
    async with running(worker_of(outbox, client_of(ScriptedTransport()))) as worker:
        await until(lambda: _condition(worker, "ready"))
    async with Outbox(schema_url, keys=[Fernet.generate_key().decode()]) as other:
        with pytest.raises(ConfigurationError, match="none of the keys in NXOTP_OUTBOX_KEYS is one of this outbox"):
            await worker_of(other, client_of(ScriptedTransport())).run()
    async with Outbox(schema_url, keys=[Fernet.generate_key().decode(), *KEYS]) as rotated:
        await worker_of(rotated, client_of(ScriptedTransport())).check()
        assert await rows(schema_url, "SELECT count(*) FROM nxotp_outbox_keys") == [(2,)]


async def test_a_database_that_forgets_commits_is_refused(schema_url: str, outbox: Outbox) -> None:
    async with Outbox(f"{schema_url}%20-csynchronous_commit%3Doff", keys=KEYS) as careless:
        with pytest.raises(ConfigurationError, match="synchronous_commit is off"):
            await worker_of(careless, client_of(ScriptedTransport())).run()


async def test_a_pooler_is_refused_by_a_worker_and_not_by_those_who_enqueue(
    outbox: Outbox, schema_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler tells its clients a process id of its own."""
    monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", property(lambda _: 1))
    assert await outbox.get(await outbox.enqueue(message())) is not None
    with pytest.raises(ConfigurationError, match=r"leads to a pooler.*NXOTP_OUTBOX_LISTEN"):
        await worker_of(outbox, client_of(ScriptedTransport())).run()
    with pytest.raises(ConfigurationError, match="leads to a pooler"):
        await outbox.wait("one", timeout=30)
