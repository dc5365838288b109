"""What a client tells its hooks and the log of its sends: all of it, once, and never a code or a number."""

import asyncio
import logging
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from support import ScriptedTransport
from test_canary import ANSWERS, _Canary, assert_clean, canary_client, echoing
from test_readme import BLOCKS, check_output

from nxotp_async import (
    Attempt,
    Clock,
    ConfigurationError,
    InvalidMessageError,
    NotSentError,
    NxOtpError,
    OtpClient,
    OtpMessage,
    SendResult,
    SendStatus,
    TransientApiError,
)
from nxotp_async.retry import RetryQuota
from nxotp_async.sandbox import Fault, Sandbox, sandbox_client
from nxotp_async.testing import FakeClock

TO = "+999 555 0100"
ACCEPTED, REJECTED, NOT_SENT, UNKNOWN = SendStatus


class Recorder:
    """Hooks that keep what they are told."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.results: list[SendResult] = []

    def listen_to(self, client: OtpClient) -> None:
        client.add_hooks(on_attempt=self.attempts.append, on_result=self.results.append)

    @property
    def story(self) -> tuple[list[tuple[int, SendStatus]], list[SendStatus]]:
        """The numbers and outcomes of the attempts, and the outcomes of the messages."""
        attempts = [(attempt.number, attempt.status) for attempt in self.attempts]
        return attempts, [result.status for result in self.results]


@pytest.fixture
def told(client: OtpClient) -> Recorder:
    recorder = Recorder()
    recorder.listen_to(client)
    return recorder


async def failure_of(sending: Awaitable[SendResult]) -> NxOtpError:
    with pytest.raises(NxOtpError) as caught:
        await sending
    return caught.value


# ---------------------------------------------------------------------------------------------- what hooks are told


async def test_a_message_that_is_accepted_at_once(client: OtpClient, told: Recorder) -> None:
    result = await client.send_otp(TO, "482913", cus_message_id="order-1")
    assert told.attempts == [Attempt(result.message, 1, ACCEPTED, "order-1", 0.0, None)]
    assert told.results == [result]
    assert told.results[0] is result


async def test_a_message_that_is_accepted_after_a_retry(
    client: OtpClient, told: Recorder, sandbox: Sandbox, clock: FakeClock
) -> None:
    sandbox.script(Fault.answer(-1))
    seen: list[tuple[str | None, int]] = []

    def note(attempt: Attempt) -> None:
        if attempt.error is not None:
            seen.append((attempt.error.cus_message_id, attempt.error.attempts))

    client.add_hooks(on_attempt=note)
    result = await client.send_otp(TO, "482913", cus_message_id="order-1")
    assert told.story == ([(1, REJECTED), (2, ACCEPTED)], [ACCEPTED])
    first, second = told.attempts
    assert isinstance(first.error, TransientApiError)
    assert (first.error.code, first.message_id, second.message_id) == (-1, None, "order-1")
    assert seen == [("order-1", 1)]
    # No time passes in the sandbox, and the pause is the result's alone.
    assert (first.elapsed, second.elapsed, result.elapsed) == (0.0, 0.0, sum(clock.slept))
    assert result.elapsed > 0


@pytest.mark.parametrize(
    ("to", "attempts", "status"),
    [
        pytest.param("999000009003", [REJECTED], REJECTED, id="an account-level code"),
        pytest.param("999000000001", [REJECTED] * 3, REJECTED, id="-1 for good"),
        pytest.param("999100131056", [REJECTED] * 3, REJECTED, id="Meta throttles"),
        pytest.param("999200000403", [REJECTED], REJECTED, id="HTTP 403"),
        pytest.param("999300000002", [UNKNOWN], UNKNOWN, id="disconnected"),
        pytest.param("999300000003", [UNKNOWN], UNKNOWN, id="half an answer"),
    ],
)
async def test_a_message_that_fails(
    client: OtpClient, told: Recorder, to: str, attempts: list[SendStatus], status: SendStatus
) -> None:
    error = await failure_of(client.send_otp(to, "482913"))
    assert told.story == (list(enumerate(attempts, 1)), [status])
    assert told.results[0].error is error
    assert type(told.attempts[-1].error) is type(error)
    assert told.results[0].message == told.attempts[0].message
    assert error.cus_message_id == told.results[0].message.cus_message_id


async def test_what_a_hook_was_given_does_not_change_afterwards(
    client: OtpClient, told: Recorder, sandbox: Sandbox
) -> None:
    sandbox.script(Fault.http(429), Fault.http(429, retry_after=3600))
    error = await failure_of(client.send_otp(TO, "482913"))
    assert "left no time for another attempt" in str(error)
    assert [attempt.error and attempt.error.attempts for attempt in told.attempts] == [1, 2]
    assert not any("left no time" in str(attempt.error) for attempt in told.attempts)


async def test_a_connection_that_is_refused_is_an_attempt(clock: FakeClock) -> None:
    told = Recorder()
    async with sandbox_client("http://127.0.0.1:1", clock=clock) as client:
        told.listen_to(client)
        await failure_of(client.send_otp(TO, "482913"))
    assert told.story == ([(number, NOT_SENT) for number in range(1, 6)], [NOT_SENT])
    assert all(isinstance(attempt.error, NotSentError) for attempt in told.attempts)


async def test_a_code_that_has_expired_is_no_attempt(client: OtpClient, told: Recorder, clock: FakeClock) -> None:
    expired = datetime.fromtimestamp(clock.time() - 1, UTC)
    await failure_of(client.send_otp(TO, "482913", expires_at=expired))
    assert told.story == ([], [NOT_SENT])
    assert told.results[0].attempts == 0


async def test_a_deadline_that_leaves_no_time_for_a_retry(client: OtpClient, told: Recorder, sandbox: Sandbox) -> None:
    sandbox.script(Fault.http(429, retry_after=3600))
    await failure_of(client.send_otp(TO, "482913"))
    assert told.story == ([(1, REJECTED)], [REJECTED])
    assert "deadline of 30 s left no time" in str(told.results[0].error)


async def test_an_id_that_is_used_twice_at_a_time(client: OtpClient, told: Recorder) -> None:
    message = OtpMessage(TO, "482913", cus_message_id="order-1")
    first, second = await asyncio.gather(client.send(message), client.send(message), return_exceptions=True)
    assert isinstance(first, SendResult)
    assert isinstance(second, InvalidMessageError)
    assert told.story == ([(1, ACCEPTED)], [NOT_SENT, ACCEPTED])


async def test_an_id_that_is_used_twice_in_a_batch(client: OtpClient, told: Recorder) -> None:
    message = OtpMessage(TO, "482913", cus_message_id="order-1")
    await client.send_batch([message, message])
    assert told.story[0] == [(1, ACCEPTED)]
    assert sorted(told.story[1]) == [ACCEPTED, NOT_SENT]


async def test_a_message_that_cannot_be_made_is_none(client: OtpClient, told: Recorder) -> None:
    await failure_of(client.send_otp("12", "482913"))
    assert told.story == ([], [])


# ---------------------------------------------------------------------------------------------- who tells


async def _send_many(client: OtpClient) -> None:
    async for _ in client.send_many([OtpMessage(TO, "482913")]):
        pass


WAYS: dict[str, Callable[[OtpClient], Awaitable[object]]] = {
    "send_otp": lambda client: client.send_otp(TO, "482913"),
    "send": lambda client: client.send(OtpMessage(TO, "482913")),
    "send_many": _send_many,
    "send_batch": lambda client: client.send_batch([OtpMessage(TO, "482913")]),
    "a view": lambda client: client.with_options(deadline=5).send_otp(TO, "482913"),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_every_way_of_sending_tells(
    client: OtpClient, told: Recorder, way: Callable[[OtpClient], Awaitable[object]]
) -> None:
    await way(client)
    assert told.story == ([(1, ACCEPTED)], [ACCEPTED])


async def test_hooks_of_a_view_are_its_clients_too(client: OtpClient) -> None:
    view, told = client.with_options(deadline=5), Recorder()
    told.listen_to(view)
    await client.send_otp(TO, "482913")
    assert told.story == ([(1, ACCEPTED)], [ACCEPTED])


async def test_hooks_can_be_given_to_the_client_itself(sandbox: Sandbox, clock: FakeClock) -> None:
    told = Recorder()
    hooks = {"on_attempt": told.attempts.append, "on_result": told.results.append}
    async with sandbox.client(clock=clock, **hooks) as client:
        await client.send_otp(TO, "482913")
    assert told.story == ([(1, ACCEPTED)], [ACCEPTED])


async def test_several_hooks_are_called_in_their_order(client: OtpClient) -> None:
    calls: list[str] = []
    for name in ("first", "second"):
        client.add_hooks(on_attempt=lambda _, name=name: calls.append(f"{name}: attempt"))  # type: ignore[misc]
        client.add_hooks(on_result=lambda _, name=name: calls.append(f"{name}: result"))  # type: ignore[misc]
    await client.send_otp(TO, "482913")
    assert calls == ["first: attempt", "second: attempt", "first: result", "second: result"]


async def test_each_of_many_messages_is_told_once(client: OtpClient, told: Recorder, sandbox: Sandbox) -> None:
    sandbox.script(*[Fault.answer(-1), Fault.slow(0)] * 10)
    collector = await client.send_batch(OtpMessage(TO, "482913") for _ in range(100))
    assert sorted(map(id, told.results)) == sorted(map(id, collector.accepted))
    assert len(told.attempts) == 110
    for result in told.results:
        own = [attempt.number for attempt in told.attempts if attempt.message is result.message]
        assert own == list(range(1, result.attempts + 1))


async def test_hooks_run_in_the_task_that_sends(client: OtpClient) -> None:
    tasks: list[object] = []
    client.add_hooks(
        on_attempt=lambda _: tasks.append(asyncio.current_task()),
        on_result=lambda _: tasks.append(asyncio.current_task()),
    )
    sending = asyncio.create_task(client.send_otp(TO, "482913"))
    await sending
    assert tasks == [sending, sending]


# ---------------------------------------------------------------------------------------------- hooks that are wrong


@pytest.mark.parametrize("kind", ["on_attempt", "on_result"])
async def test_a_hook_that_raises_is_logged_and_harms_nothing(
    client: OtpClient, kind: str, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    told = Recorder()
    client.add_hooks(**{kind: broken})
    told.listen_to(client)
    sandbox.script(Fault.answer(9003))
    await failure_of(client.send_otp(TO, "482913"))
    assert (await client.send_otp(TO, "482913")).status is ACCEPTED
    assert told.story == ([(1, REJECTED), (1, ACCEPTED)], [REJECTED, ACCEPTED])
    complaints = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in complaints] == [
        "a hook raised an exception; nothing else is affected"
    ] * 2
    assert all(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in complaints)
    assert client.in_flight == 0


async def _coroutine_function(_: object) -> None: ...


@pytest.mark.parametrize("kind", ["on_attempt", "on_result"])
@pytest.mark.parametrize(
    ("hook", "complaint"),
    [
        pytest.param("print", "must be a function, not str", id="a text"),
        pytest.param(_coroutine_function, "must not be a coroutine function", id="a coroutine function"),
        pytest.param(partial(_coroutine_function), "must not be a coroutine function", id="one in a partial"),
    ],
)
def test_a_hook_that_cannot_be_called_is_refused(kind: str, hook: Any, complaint: str) -> None:
    client = sandbox_client("https://otp.example", transport=ScriptedTransport())
    with pytest.raises(ConfigurationError, match=f"^{kind} {complaint}"):
        client.add_hooks(**{kind: hook})
    with pytest.raises(ConfigurationError, match=f"^{kind} {complaint}"):
        sandbox_client("https://otp.example", **{kind: hook})


def test_nothing_is_added_where_one_of_two_hooks_is_refused() -> None:
    client, told = sandbox_client("https://otp.example", transport=ScriptedTransport()), Recorder()
    with pytest.raises(ConfigurationError):
        client.add_hooks(on_attempt=told.attempts.append, on_result="print")  # type: ignore[arg-type]
    asyncio.run(client.send_otp(TO, "482913"))
    assert told.story == ([], [])


# ---------------------------------------------------------------------------------------------- cancellation


async def test_a_send_that_is_cancelled_in_its_post_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "nxotp_async")
    posting = asyncio.Event()

    class Hanging(ScriptedTransport):
        async def post(self, *args: Any) -> Any:
            posting.set()
            await asyncio.Event().wait()

    told, client = Recorder(), sandbox_client("https://otp.example", transport=Hanging())
    told.listen_to(client)
    sending = asyncio.create_task(client.send_otp(TO, "482913"))
    await posting.wait()
    assert client.in_flight == 1
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert told.story == ([], [])
    assert client.in_flight == 0
    assert not [record for record in caplog.records if record.name == "nxotp_async"]


async def test_a_send_that_is_cancelled_between_two_attempts_has_no_result(sandbox: Sandbox, clock: FakeClock) -> None:
    pausing = asyncio.Event()

    async def sleep(_: float) -> None:
        pausing.set()
        await asyncio.Event().wait()

    told = Recorder()
    sandbox.script(Fault.answer(-1))
    async with sandbox.client(clock=Clock(time=clock.time, monotonic=clock.monotonic, sleep=sleep)) as client:
        told.listen_to(client)
        sending = asyncio.create_task(client.send_otp(TO, "482913"))
        await pausing.wait()
        assert (client.in_flight, client.retry_tokens) == (1, RetryQuota.CAPACITY - RetryQuota.COST)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert told.story == ([(1, REJECTED)], [])
        assert (client.in_flight, client.retry_tokens) == (0, RetryQuota.CAPACITY)


# ---------------------------------------------------------------------------------------------- how it is going


async def test_what_is_in_flight_is_counted(client: OtpClient) -> None:
    view, seen = client.with_options(deadline=5), []
    client.add_hooks(on_attempt=lambda _: seen.append((client.in_flight, view.in_flight)))
    assert client.in_flight == 0
    await asyncio.gather(client.send_otp(TO, "482913"), view.send_otp(TO, "482914"))
    assert seen[0] == (2, 2)
    assert client.in_flight == view.in_flight == 0


async def test_the_retry_quota_can_be_read(client: OtpClient, sandbox: Sandbox) -> None:
    assert client.retry_tokens == RetryQuota.CAPACITY
    await failure_of(client.send_otp("999000000001", "482913"))
    assert (
        client.with_options(deadline=5).retry_tokens == client.retry_tokens == RetryQuota.CAPACITY - 2 * RetryQuota.COST
    )
    await client.send_otp(TO, "482913")
    assert client.retry_tokens == RetryQuota.CAPACITY - 2 * RetryQuota.COST + 1


async def test_a_hook_that_raises_cancelled_error_cancels_nothing(
    sandbox: Sandbox, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    async with sandbox.client(clock=clock, on_result=lambda _: cancelled.result()) as client:
        assert (await client.send_otp(TO, "482913")).status is SendStatus.ACCEPTED
    assert "a hook raised an exception" in caplog.text


async def test_a_hook_that_returns_a_coroutine_is_told_of(
    sandbox: Sandbox, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def tell(result: SendResult) -> None:
        raise AssertionError("nobody awaits it")

    async with sandbox.client(clock=clock, on_result=partial(lambda hook, result: hook(result), tell)) as client:
        assert (await client.send_otp(TO, "482913")).status is SendStatus.ACCEPTED
    assert "a hook returned a coroutine, which is not awaited" in caplog.text


# ---------------------------------------------------------------------------------------------- the log

EXTRAS = ("cus_message_id", "recipient", "status", "vendor_code", "attempts", "elapsed")


@pytest.mark.parametrize(
    ("to", "level", "text", "extras"),
    [
        pytest.param(TO, logging.DEBUG, "order-1: accepted", ("99******00", "accepted", None, 1, 0.0), id="accepted"),
        pytest.param(
            "999000009003",
            logging.INFO,
            "order-1: code 9003, ",
            ("99********03", "rejected", 9003, 1, 0.0),
            id="rejected",
        ),
        pytest.param(
            "999000000001",
            logging.INFO,
            "order-1: code -1, ",
            ("99********01", "rejected", -1, 3, 1.5),
            id="rejected after retries",
        ),
        pytest.param(
            "999200000403",
            logging.INFO,
            "order-1: HTTP 403 without a vendor code",
            ("99********03", "rejected", None, 1, 0.0),
            id="rejected without a code",
        ),
        pytest.param(
            "999300000003",
            logging.INFO,
            "order-1: HTTP 200: the answer is not JSON",
            ("99********03", "unknown", None, 1, 0.0),
            id="unknown",
        ),
    ],
)
async def test_a_message_is_logged_with_its_facts(
    client: OtpClient, caplog: pytest.LogCaptureFixture, to: str, level: int, text: str, extras: tuple[object, ...]
) -> None:
    caplog.set_level(logging.DEBUG, "nxotp_async")
    await client.send_batch([OtpMessage(to, "482913", cus_message_id="order-1")])
    (record,) = [record for record in caplog.records if hasattr(record, "cus_message_id")]
    assert (record.name, record.levelno) == ("nxotp_async", level)
    assert record.getMessage().startswith(text)
    assert tuple(getattr(record, name) for name in EXTRAS) == ("order-1", *extras)
    assert all(type(getattr(record, name)) in (str, int, float, type(None)) for name in EXTRAS)  # what JSON takes


async def test_a_message_that_never_left_is_logged_with_its_facts(
    client: OtpClient, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "nxotp_async")
    await failure_of(client.send_otp(TO, "482913", expires_at=datetime.fromtimestamp(clock.time() - 1, UTC)))
    (record,) = [record for record in caplog.records if record.name == "nxotp_async"]
    assert record.levelno == logging.INFO
    assert [getattr(record, name) for name in EXTRAS[2:]] == ["not_sent", None, 0, 0.0]


async def test_a_retry_is_logged_for_debugging(
    client: OtpClient, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "nxotp_async")
    sandbox.script(Fault.answer(-1))
    await client.send_otp(TO, "482913", cus_message_id="order-1")
    records = [record for record in caplog.records if record.name == "nxotp_async"]
    assert [(record.levelno, record.getMessage()) for record in records] == [
        (logging.DEBUG, "order-1: TransientApiError; retrying in 0.50 s"),
        (logging.DEBUG, "order-1: accepted"),
    ]


async def test_what_is_accepted_is_not_logged_above_debug(client: OtpClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nxotp_async")
    await client.send_otp(TO, "482913")
    assert not [record for record in caplog.records if record.name == "nxotp_async"]


def test_a_program_without_logging_prints_nothing() -> None:
    program = """if True:
        import asyncio
        from nxotp_async import NxOtpError
        from nxotp_async.sandbox import Sandbox
        from nxotp_async.testing import MemoryTransport

        async def main() -> None:
            client = MemoryTransport(Sandbox()).client()
            await client.send_otp("+999 555 0100", "482913")
            for to in ("999000009003", "999300000003", "999000000001"):
                try:
                    await client.send_otp(to, "482913")
                except NxOtpError:
                    pass

        asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_formatter_on_the_page_writes_what_it_shows() -> None:
    (block,) = [block for block in BLOCKS if block.page == "observability.md" and "JsonFormatter" in block.code]
    done = subprocess.run([sys.executable, "-c", block.code], capture_output=True, text=True, check=True)
    assert not done.stderr
    assert len(done.stdout.splitlines()) == 2
    check_output(block, done.stdout)


# ---------------------------------------------------------------------------------------------- no code, no number


def inspect_record(record: logging.LogRecord) -> None:
    """Look at what is printed, at every extra, and at the local variables that error reporters add to a traceback."""
    assert_clean(record.getMessage(), "the text of a log record")
    for name, value in vars(record).items():
        assert_clean(repr(value), f"{name} of a log record")
        assert_clean(str(value), f"{name} of a log record")
    if record.exc_info and record.exc_info[1]:
        report = traceback.TracebackException.from_exception(record.exc_info[1], capture_locals=True)
        assert_clean("".join(report.format()), "the traceback of a log record")


@pytest.mark.parametrize("respond", ANSWERS.values(), ids=ANSWERS.keys())
async def test_neither_records_nor_events_leak(
    respond: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = Recorder()

    def broken(_: object) -> None:
        raise ZeroDivisionError

    async with echoing(respond) as server, canary_client(server.url) as client:
        told.listen_to(client)
        client.add_hooks(on_attempt=broken, on_result=broken)
        await client.send_batch([OtpMessage(_Canary.written, _Canary.content)])
    assert told.attempts
    assert told.results
    for event in (*told.attempts, *told.results):
        assert_clean(repr(event), f"repr of {type(event).__name__}")
    assert sum(record.exc_info is not None for record in caplog.records) == len(told.attempts) + 1
    for record in caplog.records:
        inspect_record(record)
