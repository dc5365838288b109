import asyncio
import gc
import pickle
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, NoReturn

import aiohttp
import pytest
from support import ScriptedTransport, see_off

import nxotp_async.transports
from nxotp_async import (
    ApiError,
    ConfigurationError,
    InvalidMessageError,
    InvalidReason,
    Language,
    NxOtpError,
    OtpClient,
    OtpMessage,
    ResultCollector,
    RetryPolicy,
    SendResult,
    SendStatus,
    TransientApiError,
)
from nxotp_async.sandbox import SANDBOX_BUSINESS_PHONE, Fault, Sandbox, sandbox_client
from nxotp_async.testing import NO_PAUSES, FakeClock, serve_in_thread
from nxotp_async.tracking import DeliveryTracker
from nxotp_async.transports import Answer

TO = "+999 555 0100"


def messages(number: int | None = None) -> Iterator[OtpMessage]:
    numbers = count() if number is None else range(number)
    return (OtpMessage(f"9995{index % 10**6:06d}", f"Your code is {index % 10**6:06d}") for index in numbers)


async def collect(source: AsyncIterable[SendResult], into: list[SendResult]) -> None:
    async for result in source:
        into.append(result)  # noqa: PERF401 - what came before an error is wanted too


# ---------------------------------------------------------------------------------------------- one message


async def test_a_message_arrives_and_is_paired(client: OtpClient, sandbox: Sandbox) -> None:
    result = await client.send_otp(TO, "Your code is 004213", language_code="pt-BR")
    (received,) = sandbox.messages
    assert result.status is SendStatus.ACCEPTED
    assert result.message_id == received.message_id
    assert result.attempts == 1
    assert result.error is None
    assert (received.to, received.otp) == ("9995550100", "004213")
    assert received.fields["language_code"] == "pt_BR"


async def test_a_message_without_an_id_gets_an_unguessable_one(client: OtpClient, sandbox: Sandbox) -> None:
    message = OtpMessage(TO, "482913")
    results = [await client.send(message), await client.send(message)]
    ids = [result.message.cus_message_id for result in results]
    assert ids == [request.cus_message_id for request in sandbox.messages]
    assert len(set(ids)) == 2
    assert all(cus_message_id and len(cus_message_id) == 32 for cus_message_id in ids)
    assert message.cus_message_id is None


async def test_every_field_of_a_message_arrives(client: OtpClient, sandbox: Sandbox) -> None:
    await client.send_otp(
        TO,
        "482913",
        language_code="zh-cn",
        category="utility",
        cus_message_id="order 66/a",
        dr_webhook="https://example.com/status?token=1",
        api_type=1,
        business_phone=f"+{SANDBOX_BUSINESS_PHONE}",
        expires_at=datetime.now(UTC) + timedelta(days=9999),
    )
    assert sandbox.messages[0].fields == {
        "appkey": sandbox.credentials.appkey,
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "9995550100",
        "content": "482913",
        "language_code": "zh_CN",
        "category": "UTILITY",
        "cus_message_id": "order 66/a",
        "dr_webhook": "https://example.com/status?token=1",
        "api_type": 1,
        "business_phone": SANDBOX_BUSINESS_PHONE,
    }


async def test_the_clients_defaults_fill_what_a_message_leaves_open(sandbox: Sandbox, clock: FakeClock) -> None:
    defaults = {"language_code": "de", "dr_webhook": "https://example.com/a", "business_phone": SANDBOX_BUSINESS_PHONE}
    async with sandbox.client(clock=clock, **defaults) as client:
        result = await client.send_otp(TO, "482913")
        await client.send_otp(TO, "482913", language_code="fr", dr_webhook="https://example.com/b")
    first, second = sandbox.messages
    assert {name: first.fields[name] for name in defaults} == defaults
    assert (second.fields["language_code"], second.fields["dr_webhook"]) == ("fr", "https://example.com/b")
    assert result.message.language_code is Language.DE


async def test_an_invalid_message_is_refused_before_anything_is_sent(client: OtpClient, sandbox: Sandbox) -> None:
    with pytest.raises(InvalidMessageError, match="content") as caught:
        await client.send_otp(TO, "no code")
    assert caught.value.field == "content"
    assert not sandbox.requests


async def test_send_takes_messages_only(client: OtpClient) -> None:
    with pytest.raises(TypeError, match="expected an OtpMessage, not dict"):
        await client.send({"to": TO})  # type: ignore[arg-type]


async def test_an_error_knows_its_message_and_its_attempts(client: OtpClient, sandbox: Sandbox) -> None:
    sandbox.script(*[Fault.answer(-1)] * 3)
    with pytest.raises(TransientApiError) as caught:
        await client.send_otp(TO, "482913", cus_message_id="mine")
    assert (caught.value.cus_message_id, caught.value.attempts, caught.value.code) == ("mine", 3, -1)


# ---------------------------------------------------------------------------------------------- views


async def test_a_view_has_its_own_defaults_on_the_same_connections(sandbox: Sandbox, clock: FakeClock) -> None:
    async with sandbox.client(clock=clock, language_code="de") as client:
        view = client.with_options(language_code="fr", retry=RetryPolicy(max_attempts=1))
        await client.send_otp(TO, "482913")
        await view.send_otp(TO, "482913")
        sandbox.script(Fault.answer(-1))
        with pytest.raises(TransientApiError) as caught:
            await view.send_otp(TO, "482913")
    assert caught.value.attempts == 1
    assert [request.fields["language_code"] for request in sandbox.messages] == ["de", "fr"]


async def test_a_view_refuses_what_the_client_would(client: OtpClient) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        client.with_options(timeout=-1)


async def test_two_messages_with_one_id_in_flight_are_not_both_sent(client: OtpClient, sandbox: Sandbox) -> None:
    view = client.with_options(language_code="fr")
    outcomes = await asyncio.gather(
        client.send_otp(TO, "482913", cus_message_id="same"),
        view.send_otp(TO, "482914", cus_message_id="same"),
        return_exceptions=True,
    )
    assert [type(outcome).__name__ for outcome in outcomes] == ["SendResult", "InvalidMessageError"]
    assert len(sandbox.requests) == 1
    # Once the first has its outcome, the id may be used again.
    await client.send_otp(TO, "482915", cus_message_id="same")


# ---------------------------------------------------------------------------------------------- many messages


async def test_a_batch_is_paired_whatever_the_order_of_the_answers(clock: FakeClock) -> None:
    sandbox = Sandbox(clock=clock, echo_message_id=False)
    async with sandbox, sandbox.client(clock=clock) as client:
        collector = await client.send_batch(messages(300))
    assert len(collector.accepted) == 300
    assert dict(collector.pairs) == {request.cus_message_id: request.message_id for request in sandbox.messages}


async def test_a_batch_sends_an_id_that_comes_twice_once(client: OtpClient, sandbox: Sandbox) -> None:
    batch = [OtpMessage(TO, "482913", cus_message_id=cus_message_id) for cus_message_id in ("a", "b", "a")]
    collector = await client.send_batch(batch)
    (refused,) = collector.not_sent
    assert isinstance(refused.error, InvalidMessageError)
    assert sorted(collector.pairs) == ["a", "b"]
    assert len(sandbox.requests) == 2


async def test_one_failure_neither_raises_nor_stops_the_rest(client: OtpClient, sandbox: Sandbox) -> None:
    sandbox.script(Fault(), Fault.answer(9003), Fault(), Fault.truncated())
    statuses = Counter([result.status async for result in client.send_many(messages(20))])
    assert statuses == {SendStatus.ACCEPTED: 18, SendStatus.REJECTED: 1, SendStatus.UNKNOWN: 1}


async def test_asynchronous_messages_are_sent_as_they_come(client: OtpClient, sandbox: Sandbox) -> None:
    gate = asyncio.Event()

    async def slow_source() -> AsyncIterator[OtpMessage]:
        for message in messages(2):
            yield message
        await gate.wait()
        yield OtpMessage(TO, "482913")

    seen = 0
    async for _ in client.send_many(slow_source()):
        seen += 1
        if seen == 2:
            gate.set()  # reached only if the first two did not wait for the third
    assert seen == 3


@pytest.mark.parametrize("wrong", [OtpMessage(TO, "482913"), 5])
async def test_what_is_no_iterable_is_refused_at_once(client: OtpClient, wrong: object) -> None:
    with pytest.raises(TypeError, match="iterable of OtpMessage"):
        client.send_many(wrong)  # type: ignore[arg-type]


async def test_endless_messages_are_read_at_most_twice_the_permits_ahead(sandbox: Sandbox, clock: FakeClock) -> None:
    read = 0

    def source() -> Iterator[OtpMessage]:
        nonlocal read
        for message in messages():
            read += 1
            yield message

    ahead: list[int] = []
    async with sandbox.client(clock=clock, max_concurrency=5) as client:
        async for _ in client.send_many(source()):
            ahead.append(read - len(ahead))
            if len(ahead) == 200:
                break
    assert max(ahead) <= 10


async def test_leaving_the_loop_cancels_what_is_in_flight() -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        async with sandbox.client() as client:
            before = asyncio.all_tasks()
            async with aclosing(client.send_many(messages())) as results:
                async for _ in results:
                    break
            assert asyncio.all_tasks() == before
            # Permits and ids are free again.
            assert (await client.send_batch(messages(100))).summary().accepted == 100


async def test_a_broken_source_raises_after_what_was_in_flight(client: OtpClient) -> None:
    def source() -> Iterator[OtpMessage]:
        yield from messages(10)
        raise LookupError("row 11")

    results: list[SendResult] = []
    with pytest.raises(LookupError, match="row 11"):
        await collect(client.send_many(source()), results)
    assert len(results) == 10


async def test_a_batch_that_breaks_off_leaves_its_results_in_the_callers_collector(client: OtpClient) -> None:
    def source() -> Iterator[OtpMessage]:
        yield from messages(10)
        raise LookupError("row 11")

    collector = ResultCollector()
    with pytest.raises(LookupError, match="row 11"):
        await client.send_batch(source(), collector=collector)
    assert len(collector.accepted) == 10


async def test_a_source_that_cancels_itself_does_not_pass_for_one_that_ended(client: OtpClient) -> None:
    async def source() -> AsyncIterator[OtpMessage]:
        for message in messages(5):
            yield message
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    results: list[SendResult] = []
    with pytest.raises(asyncio.CancelledError):
        await collect(client.send_many(source()), results)
    assert len(results) == 5


async def test_an_alien_in_a_batch_is_refused(client: OtpClient) -> None:
    with pytest.raises(TypeError, match="expected an OtpMessage, not str"):
        await client.send_batch(["x"])  # type: ignore[list-item]


async def test_an_alien_among_the_messages_raises_after_what_was_in_flight(client: OtpClient) -> None:
    results: list[SendResult] = []
    with pytest.raises(TypeError, match="not dict"):
        await collect(client.send_many([*messages(3), {"to": TO}]), results)  # type: ignore[list-item]
    assert len(results) == 3


async def test_saturation_with_faults_loses_nothing_and_ages_nothing() -> None:
    concurrency, number = 50, 10_000
    async with Sandbox(fault_rate=0.2, seed=7, latency=0.002) as sandbox:
        async with sandbox.client(
            clock=NO_PAUSES, max_concurrency=concurrency, deadline=300, retry=RetryPolicy(max_attempts=4)
        ) as client:
            collector = await client.send_batch(messages(number))
        by_id: dict[str | None, list[tuple[int, str, bytes]]] = {}
        for request in sandbox.requests:
            by_id.setdefault(request.cus_message_id, []).append((request.ts, request.headers["sign"], request.body))
        summary = collector.summary()
        assert summary.total == len(by_id) == number
        assert summary.accepted + summary.rejected == number
        assert dict(collector.pairs) == {request.cus_message_id: request.message_id for request in sandbox.messages}
        assert len(collector.pairs) == summary.accepted > 0.99 * number
        assert summary.attempts == len(sandbox.requests) > 1.2 * number
        for requests in by_id.values():
            timestamps, signs, bodies = zip(*requests, strict=True)
            assert len(set(bodies)) == 1
            assert len(set(timestamps)) == len(set(signs)) == len(requests)
        assert max(request.arrived_at * 1000 - request.ts for request in sandbox.requests) < 5_000
        assert 1 < sandbox.max_in_flight <= concurrency


async def test_send_many_keeps_as_many_requests_in_flight_as_there_are_permits() -> None:
    # The answers take longer than it takes to begin as many requests, on a slow machine too.
    async with Sandbox(latency=0.3) as sandbox, sandbox.client(max_concurrency=40) as client:
        await client.send_batch(messages(80))
        assert sandbox.max_in_flight == 40


async def test_waiting_for_a_permit_does_not_age_the_timestamp() -> None:
    # All of these are begun at once, and the last of them waits through all the others.
    async with Sandbox() as sandbox, sandbox.client(max_concurrency=2, deadline=300) as client:
        await asyncio.gather(*(client.send(message) for message in messages(1_000)))
        assert max(request.arrived_at * 1000 - request.ts for request in sandbox.requests) < 5_000
        assert sandbox.max_in_flight <= 2


# ---------------------------------------------------------------------------------------------- loops and closing


def test_a_second_event_loop_works_without_closing_the_client() -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        client = sandbox.client()
        for _ in range(3):
            assert asyncio.run(client.send_otp(TO, "482913")).status is SendStatus.ACCEPTED


def by_asyncio_run(client: OtpClient) -> None:
    asyncio.run(client.send_otp(TO, "482913"))


def by_hand(client: OtpClient) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.send_otp(TO, "482913"))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.mark.parametrize("run", [by_asyncio_run, by_hand])
def test_the_end_of_an_event_loop_closes_the_connections_of_a_client_that_was_not_closed(
    run: Callable[[OtpClient], None], recwarn: pytest.WarningsRecorder
) -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        client = sandbox.client()
        run(client)
        del client
        gc.collect()
    assert [warning.message for warning in recwarn] == []  # aiohttp warns when an open session is collected


def test_a_second_event_loop_works_after_closing_the_client() -> None:
    async def main(client: OtpClient) -> SendStatus:
        async with client:
            return (await client.send_otp(TO, "482913")).status

    with serve_in_thread(Sandbox()) as sandbox:
        client = sandbox.client()
        assert [asyncio.run(main(client)) for _ in range(2)] == [SendStatus.ACCEPTED] * 2


def test_several_loops_in_several_threads_share_a_client() -> None:
    async def main(client: OtpClient) -> None:
        async with client:
            accepted.append((await client.send_batch(messages(200))).summary().accepted)

    accepted: list[int] = []
    with serve_in_thread(Sandbox()) as sandbox:
        client = sandbox.client()
        threads = [threading.Thread(target=lambda: asyncio.run(main(client))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert accepted == [200] * 4


async def test_closing_is_idempotent_and_lets_what_is_in_flight_finish(clock: FakeClock) -> None:
    with serve_in_thread(Sandbox(latency=0.05, clock=clock)) as sandbox:
        client = sandbox.client(clock=clock)
        sending = asyncio.create_task(client.send_otp(TO, "482913"))
        while not sandbox.requests:  # noqa: ASYNC110 - the sandbox lives in another thread
            await asyncio.sleep(0)
        await client.aclose()
        await client.aclose()
        assert (await sending).status is SendStatus.ACCEPTED


async def test_closing_after_a_break_leaves_no_session_open() -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        before = asyncio.all_tasks()
        client = sandbox.client()
        async with client:
            async for _ in client.send_many(messages()):
                break
        assert not client.state.transport._loops  # type: ignore[attr-defined]
        assert asyncio.all_tasks() == before
        await see_off(client)


async def test_closing_tells_whoever_still_reads_results() -> None:
    with serve_in_thread(Sandbox()) as sandbox:
        client = sandbox.client(max_concurrency=4)
        results = client.send_many(messages())
        await anext(results)
        await client.aclose()
        with pytest.raises(RuntimeError, match="the client was closed"):
            async for _ in results:
                pass
        await see_off(client)


async def test_a_borrowed_session_is_used_and_not_closed(sandbox: Sandbox, clock: FakeClock) -> None:
    async with aiohttp.ClientSession(headers={"X-Application": "shop"}, raise_for_status=True) as session:
        async with sandbox.client(session=session, clock=clock) as client:
            await client.send_otp(TO, "482913")
        assert not session.closed
    assert sandbox.requests[0].headers["X-Application"] == "shop"


async def test_a_transport_of_ones_own(clock: FakeClock) -> None:
    class Transport:
        closed = False

        async def post(self, url: str, body: bytes, headers: object, timeout: float) -> Answer:
            return Answer(200, {}, b'{"code":0,"data":{"messages":[{"id":"m-1"}]}}')

        async def aclose(self) -> None:
            self.closed = True

    transport = Transport()
    async with sandbox_client("https://otp.example", transport=transport, clock=clock) as client:
        assert (await client.send_otp(TO, "482913")).message_id == "m-1"
    assert transport.closed


@pytest.mark.parametrize("answer", [(200, None, b"{}"), (200, {}, None), None, (200, {}, b"{}", 4)])
async def test_a_transport_that_answers_nonsense_leaves_the_outcome_unknown(answer: Any) -> None:
    async with sandbox_client("https://otp.example", transport=ScriptedTransport(answer)) as client:
        (result,) = [result async for result in client.send_many(messages(1))]
    assert result.status is SendStatus.UNKNOWN


@pytest.mark.parametrize("name", ["session", "transport", "clock"])
def test_a_seam_of_the_wrong_type_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name} (\(or NXOTP_TRANSPORT\) )?must be"):
        sandbox_client("https://otp.example", **{name: 5})


async def test_session_proxy_and_transport_exclude_one_another() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConfigurationError, match="exclude one another"):
            sandbox_client("https://otp.example", session=session, proxy="http://localhost:3128")
        with pytest.raises(ConfigurationError, match=r"^session needs aiohttp: transport .* must not be wire$"):
            sandbox_client("https://otp.example", session=session, transport="wire")
    with pytest.raises(ConfigurationError, match=r"^proxy .* needs aiohttp: .* must not be ScriptedTransport$"):
        sandbox_client("https://otp.example", proxy="http://localhost:3128", transport=ScriptedTransport())


async def test_the_wire_is_chosen_by_its_name_or_its_variable(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="must be 'aiohttp', 'wire' or a Transport, not 'wires'"):
        sandbox.client(transport="wires")
    assert sandbox.client().transport == "aiohttp"
    monkeypatch.setenv("NXOTP_TRANSPORT", "wire")
    async with sandbox.client() as client:
        assert client.transport == "wire"
        assert (await client.send_otp(TO, "482913")).message_id
    assert sandbox.client(transport=ScriptedTransport()).transport == "ScriptedTransport"


def test_the_wire_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("httptools", "nxotp_async.transports.wire", "nxotp_async.transports.http1"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "httptools", None)
    with pytest.raises(ConfigurationError, match=r"wire, which needs the httptools package .*nxotp_async\[fast\]"):
        sandbox_client("https://otp.example", transport="wire")
    with pytest.raises(ImportError, match=r"WireTransport needs  pip install"):
        _ = nxotp_async.transports.WireTransport


def test_the_repr_shows_where_to_and_nothing_else() -> None:
    assert repr(sandbox_client("https://otp.example")) == "<OtpClient https://otp.example/api/wa/otp>"


# ---------------------------------------------------------------------------------------------- regions, trackers


async def test_a_client_knows_whose_national_numbers_are_sent_to(sandbox: Sandbox) -> None:
    async with sandbox_client(sandbox.url, default_region="us") as client:
        await client.send_otp("(415) 555-2671", "482913")
        await client.send_otp("07911 123456", "482913", default_region="GB")
        await client.with_options(default_region="ID").send_otp("0812 3456 7890", "482913")
        await client.send_otp("+44 7911 123456", "482913")
    assert [message.to for message in sandbox.messages] == [
        *("14155552671", "447911123456", "6281234567890", "447911123456")
    ]
    with pytest.raises(ConfigurationError, match=r"default_region \(or NXOTP_DEFAULT_REGION\) must be the two letters"):
        sandbox_client(sandbox.url, default_region="Indonesia")
    with pytest.raises(InvalidMessageError, match="default_region must be") as caught:
        OtpMessage(TO, "482913", default_region="XX")
    assert (caught.value.field, caught.value.reason) == ("default_region", InvalidReason.UNKNOWN_VALUE)


async def test_a_tracker_gets_every_result(sandbox: Sandbox) -> None:
    tracker = DeliveryTracker()
    faults = [Fault.answer(9003), Fault.http(503)]
    async with sandbox_client(sandbox.url, tracker=tracker) as client:
        await client.with_options(timeout=9).send_otp(TO, "482913", cus_message_id="accepted")
        for name, fault in zip(("rejected", "unknown"), faults, strict=True):
            sandbox.script(fault)
            with pytest.raises(NxOtpError):
                await client.send_otp(TO, "482913", cus_message_id=name)
        expired = OtpMessage(TO, "482913", cus_message_id="not sent", expires_at=datetime(2001, 1, 1, tzinfo=UTC))
        _ = [result async for result in client.send_many([expired])]
    for status in SendStatus:
        state = await tracker.state(status.label)
        assert state is not None
        assert state.send_status is status


async def test_a_duplicate_does_not_change_what_a_tracker_knows_of_the_first(sandbox: Sandbox) -> None:
    tracker = DeliveryTracker()
    async with sandbox_client(sandbox.url, tracker=tracker) as client:
        await client.send_batch([OtpMessage(TO, "482913", cus_message_id="same")] * 2)
    state = await tracker.state("same")
    assert state is not None
    assert state.send_status is SendStatus.ACCEPTED


class BrokenTracker(DeliveryTracker):
    async def add(self, result: SendResult) -> NoReturn:
        raise OSError(f"no place for {result.message.content}")


async def test_a_tracker_that_fails_changes_no_result(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    async with sandbox_client(sandbox.url, tracker=BrokenTracker()) as client:
        result = await client.send_otp(TO, "482913", cus_message_id="m-1")
    assert result.status is SendStatus.ACCEPTED
    assert "the tracker did not take the result of message m-1: OSError" in caplog.messages
    assert "482913" not in caplog.text


def test_what_is_no_tracker_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^tracker must be a DeliveryTracker, not dict$"):
        sandbox_client("http://127.0.0.1:1", tracker={})


async def test_an_error_has_the_whole_result_and_pickles_without_it(client: OtpClient, sandbox: Sandbox) -> None:
    sandbox.script(Fault.answer(9003))
    with pytest.raises(ApiError) as caught:
        await client.send_otp(TO, "482913")
    error = caught.value
    assert error.result is not None
    assert (error.result.error, error.result.status) == (error, SendStatus.REJECTED)
    copied = pickle.loads(pickle.dumps(error))
    assert (copied.result, copied.code, str(copied)) == (None, 9003, str(error))
    assert "482913" not in repr(vars(error))


def test_a_client_in_a_with_statement_says_what_to_write() -> None:
    client: Any = sandbox_client("http://127.0.0.1:1")
    with pytest.raises(TypeError, match="async with OtpClient"), client:
        pass


def test_without_a_loop_of_asyncio_it_says_what_is_missing() -> None:
    """As under trio, which runs coroutines without one."""
    with pytest.raises(RuntimeError, match=r"needs a running asyncio event loop.*trio"):
        sandbox_client("http://127.0.0.1:1").send_otp(TO, "482913").send(None)
