import asyncio
import logging
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support import ACCEPTED, ScriptedTransport, VirtualTimeLoop

from nxotp_async import (
    Clock,
    MetaError,
    NotSentError,
    NxOtpError,
    OtpClient,
    OtpMessage,
    OutcomeUnknownError,
    ResultCollector,
    RetryPolicy,
    SendResult,
    SendStatus,
    TimestampExpiredError,
    TransientApiError,
)
from nxotp_async.client_state import AcceptedIds
from nxotp_async.retry import RetryQuota
from nxotp_async.sandbox import Fault, Sandbox, sandbox_client
from nxotp_async.testing import FakeClock
from nxotp_async.transports import Answer

TO = "+999 555 0100"
OK = Answer(200, {}, ACCEPTED)
FAILED = Answer(200, {}, b'{"code":-1,"message":"Request failed","data":null}')
REFUSED = NotSentError("refused", temporary=True)
LOST = OutcomeUnknownError("lost")


async def outcome(client: OtpClient, **fields: Any) -> SendResult:
    """Send one message, close the client, and return the result, whatever it is."""
    async with client:
        return await outcome_on(client, **fields)


async def outcome_on(client: OtpClient, **fields: Any) -> SendResult:
    (result,) = [result async for result in client.send_many([OtpMessage(TO, "482913", **fields)])]
    return result


def in_virtual_time(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def virtual_clock() -> Clock:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop.clock


# ---------------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize(
    ("outcomes", "policy", "status", "posts"),
    [
        pytest.param([OK], {}, SendStatus.ACCEPTED, 1, id="accepted"),
        pytest.param([FAILED, OK], {}, SendStatus.ACCEPTED, 2, id="-1, accepted"),
        pytest.param([FAILED], {}, SendStatus.REJECTED, 3, id="-1 for good"),
        pytest.param([FAILED], {"max_attempts": 1}, SendStatus.REJECTED, 1, id="-1, no retries"),
        pytest.param([FAILED], {"transient_codes": ()}, SendStatus.REJECTED, 1, id="-1, not transient"),
        pytest.param([REFUSED, OK], {}, SendStatus.ACCEPTED, 2, id="refused, accepted"),
        # What never left is tried again for ten seconds, however many attempts that takes.
        pytest.param([REFUSED], {}, SendStatus.NOT_SENT, 5, id="refused for good"),
        pytest.param([REFUSED], {"reconnect_for": 0}, SendStatus.NOT_SENT, 1, id="refused, no patience"),
        pytest.param([REFUSED], {"backoff_base": 0}, SendStatus.NOT_SENT, 3, id="refused, no pauses"),
        pytest.param([REFUSED], {"max_attempts": 1}, SendStatus.NOT_SENT, 1, id="refused, no retries"),
        pytest.param([NotSentError("certificate")], {}, SendStatus.NOT_SENT, 1, id="certificate"),
        pytest.param([LOST], {}, SendStatus.UNKNOWN, 1, id="lost"),
        pytest.param([LOST, OK], {"resend_unknown": True}, SendStatus.ACCEPTED, 2, id="lost, resent, accepted"),
        pytest.param([FAILED, LOST], {}, SendStatus.UNKNOWN, 2, id="-1, lost"),
        # What an attempt left open, no later attempt can close.
        pytest.param([LOST, FAILED], {"resend_unknown": True}, SendStatus.UNKNOWN, 3, id="lost, resent, -1 for good"),
        pytest.param([LOST, REFUSED], {"resend_unknown": True}, SendStatus.UNKNOWN, 5, id="lost, resent, refused"),
        pytest.param([FAILED, REFUSED], {}, SendStatus.REJECTED, 5, id="-1, refused"),
        pytest.param([REFUSED, FAILED], {}, SendStatus.REJECTED, 4, id="refused, -1"),
        pytest.param([ValueError("bug")], {}, SendStatus.UNKNOWN, 1, id="a transport that breaks its contract"),
    ],
)
async def test_the_attempts_and_what_they_add_up_to(
    clock: FakeClock, outcomes: list[Any], policy: dict[str, Any], status: SendStatus, posts: int
) -> None:
    transport = ScriptedTransport(*outcomes)
    result = await outcome(
        sandbox_client("https://otp.example", transport=transport, clock=clock, retry=RetryPolicy(**policy))
    )
    assert result.status is status
    assert result.attempts == len(transport.posts) == posts
    assert (result.error is None) == (status is SendStatus.ACCEPTED)
    assert len({body for body, _, _ in transport.posts}) == 1


async def test_backoff_is_jittered_and_doubles(clock: FakeClock) -> None:
    clock.chance = 0.5
    policy = RetryPolicy(max_attempts=5, backoff_base=1.0, backoff_cap=3.0)
    await outcome(sandbox_client("https://otp.example", transport=ScriptedTransport(FAILED), clock=clock, retry=policy))
    assert clock.slept == [0.5, 1.0, 1.5, 1.5]


async def test_backoff_does_not_hold_a_permit(sandbox: Sandbox, clock: FakeClock) -> None:
    asleep, wake = asyncio.Event(), asyncio.Event()

    async def sleep(_: float) -> None:
        asleep.set()
        await wake.wait()

    patient = Clock(time=clock.time, monotonic=clock.monotonic, sleep=sleep)
    async with sandbox.client(clock=patient, max_concurrency=1) as client:
        sandbox.script(Fault.answer(-1))
        backing_off = asyncio.create_task(client.send_otp(TO, "482913"))
        await asleep.wait()
        await client.send_otp(TO, "482914")
        wake.set()
        assert (await backing_off).attempts == 2


async def test_a_throttled_recipient_waits_longer_and_others_do_not(client: OtpClient, clock: FakeClock) -> None:
    with pytest.raises(MetaError) as caught:
        await client.send_otp("999100131056", "482913")
    assert caught.value.meta_code == 131056
    assert caught.value.attempts == 3
    assert all(seconds >= 6 for seconds in clock.slept)
    clock.slept.clear()
    await client.send_otp(TO, "482913")
    assert not clock.slept


async def test_retry_after_is_honoured(client: OtpClient, sandbox: Sandbox, clock: FakeClock) -> None:
    clock.chance = 0.0
    sandbox.script(Fault.http(429, retry_after=7))
    assert (await client.send_otp(TO, "482913")).attempts == 2
    assert clock.slept == [7.0]


async def test_a_retry_after_past_the_deadline_is_not_waited_for(
    client: OtpClient, sandbox: Sandbox, clock: FakeClock
) -> None:
    sandbox.script(Fault.http(429, retry_after=3600))
    with pytest.raises(TransientApiError, match="deadline of 30 s left no time") as caught:
        await client.send_otp(TO, "482913")
    assert caught.value.attempts == 1
    assert not clock.slept


async def test_an_outage_is_not_multiplied_by_retries() -> None:
    number = 10_000
    transport = ScriptedTransport(FAILED)
    clock = FakeClock()
    async with sandbox_client("https://otp.example", transport=transport, clock=clock, deadline=1e9) as client:
        collector = await client.send_batch(OtpMessage(TO, "482913") for _ in range(number))
    assert len(collector.rejected) == number
    assert len(transport.posts) == number + RetryQuota.CAPACITY // RetryQuota.COST
    assert "retry quota" in str(collector.rejected[-1].error)


def test_a_restart_of_the_vendor_loses_no_message_of_a_stream() -> None:
    async def main() -> tuple[ResultCollector, int]:
        loop = asyncio.get_running_loop()

        class Restarting(ScriptedTransport):
            async def post(self, *args: Any) -> Answer:
                if 0.5 < loop.time() < 3.9:
                    raise NotSentError("refused", temporary=True)
                await asyncio.sleep(0.1)
                return await super().post(*args)

        async with sandbox_client("https://otp.example", transport=Restarting(), clock=virtual_clock()) as client:
            collector = await client.send_batch(OtpMessage(TO, "482913") for _ in range(1200))
            return collector, client.retry_tokens

    collector, tokens = in_virtual_time(main())
    assert len(collector.accepted) == 1200
    assert tokens == RetryQuota.CAPACITY


async def test_an_answer_with_another_messages_id_is_unknown(clock: FakeClock) -> None:
    released: list[bool] = []

    class SameId(ScriptedTransport):
        async def post(self, *args: Any) -> Answer:
            return Answer(200, {}, ACCEPTED, released.append)

    async with sandbox_client("https://otp.example", transport=SameId(), clock=clock) as client:
        results = [await outcome_on(client) for _ in range(2)]
    assert [result.status for result in results] == [SendStatus.ACCEPTED, SendStatus.UNKNOWN]
    assert str(results[1].error).startswith("the answer has the message id of another message")
    assert released == [True, False]


async def test_where_the_vendor_answers_with_the_cus_message_id_a_second_copy_is_noticed_too(clock: FakeClock) -> None:
    class SecondCopy(ScriptedTransport):
        async def post(self, *args: Any) -> Answer:
            return Answer(200, {}, ACCEPTED.replace(b"gBGHhhdgYFCBnwIJ6QRYvhwQk7Nc", b"first"))

    async with sandbox_client("https://otp.example", transport=SecondCopy(), clock=clock) as client:
        results = [await outcome_on(client, cus_message_id=name) for name in ("first", "second")]
    assert [result.status for result in results] == [SendStatus.ACCEPTED, SendStatus.UNKNOWN]


async def test_an_answer_with_the_id_of_a_message_in_flight_is_unknown(clock: FakeClock) -> None:
    """Where the vendor answers with the cus_message_id, an answer can name a message that has none yet."""
    release = asyncio.Event()

    class Crossed(ScriptedTransport):
        async def post(self, *args: Any) -> Answer:
            if b"first" in args[1]:
                await release.wait()
            return Answer(200, {}, ACCEPTED.replace(b"gBGHhhdgYFCBnwIJ6QRYvhwQk7Nc", b"first"))

    async with sandbox_client("https://otp.example", transport=Crossed(), clock=clock) as client:
        first = asyncio.create_task(outcome_on(client, cus_message_id="first"))
        while not client.in_flight:  # noqa: ASYNC110 - it takes some turns of the loop to begin
            await asyncio.sleep(0)
        second = await outcome_on(client, cus_message_id="second")
        release.set()
        assert second.status is SendStatus.UNKNOWN
        assert (await first).status is SendStatus.ACCEPTED


async def test_an_id_that_comes_again_for_the_same_message_is_its_own(clock: FakeClock) -> None:
    transport = ScriptedTransport(OK)
    async with sandbox_client("https://otp.example", transport=transport, clock=clock) as client:
        for _ in range(2):
            assert (await outcome_on(client, cus_message_id="order-1")).status is SendStatus.ACCEPTED


async def test_only_the_latest_ids_are_kept(clock: FakeClock) -> None:
    ids = AcceptedIds()
    for number in range(AcceptedIds.CAPACITY + 1):
        assert ids.owner(f"id-{number}", "a") == "a"
    assert ids.owner("id-0", "b") == "b"  # forgotten
    assert ids.owner("id-2", "b") == "a"


async def test_after_anything_but_an_acceptance_the_connection_is_given_up(clock: FakeClock) -> None:
    released: list[bool] = []
    answers = [FAILED, Answer(503, {}, b""), Answer(200, {}, b"{}"), OK]

    class Recording(ScriptedTransport):
        async def post(self, *args: Any) -> Answer:
            return answers.pop(0)._replace(release=released.append)

    policy = RetryPolicy(resend_unknown=True, max_attempts=4)
    result = await outcome(sandbox_client("https://otp.example", transport=Recording(), clock=clock, retry=policy))
    assert result.status is SendStatus.ACCEPTED
    assert released == [False, False, False, True]


async def test_the_quota_recovers_with_what_is_accepted(sandbox: Sandbox, clock: FakeClock) -> None:
    async with sandbox.client(clock=clock, retry=RetryPolicy(max_attempts=2), deadline=1e9) as client:
        sandbox.script(*[Fault.answer(-1)] * 250)
        await client.send_batch(OtpMessage(TO, "482913") for _ in range(150))
        used = client.state.quota.tokens
        await client.send_batch(OtpMessage(TO, "482913") for _ in range(20))
        assert used == 0
        assert client.state.quota.tokens == 20


async def test_a_cancellation_that_nobody_asked_for_leaves_the_outcome_unknown(clock: FakeClock) -> None:
    class Cancelled(ScriptedTransport):
        async def post(self, *args: Any) -> Answer:
            raise asyncio.CancelledError

    result = await outcome(sandbox_client("https://otp.example", transport=Cancelled(), clock=clock))
    assert result.status is SendStatus.UNKNOWN
    assert "cancelled inside the transport" in str(result.error)


# ---------------------------------------------------------------------------------------------- time runs out


async def test_a_code_that_has_expired_is_not_sent(client: OtpClient, sandbox: Sandbox, clock: FakeClock) -> None:
    expired = datetime.fromtimestamp(clock.time() - 1, UTC)
    with pytest.raises(NotSentError, match=r"expires_at.* ran out before the request began") as caught:
        await client.send_otp(TO, "482913", expires_at=expired)
    assert caught.value.attempts == 0
    assert not sandbox.requests


async def test_a_code_that_would_expire_in_the_backoff_is_not_sent_again(
    client: OtpClient, sandbox: Sandbox, clock: FakeClock
) -> None:
    sandbox.script(Fault.answer(-1), Fault.answer(-1))
    with pytest.raises(TransientApiError, match=r"expires_at.* left no time for another attempt") as caught:
        await client.send_otp(TO, "482913", expires_at=datetime.fromtimestamp(clock.time() + 1, UTC))
    assert caught.value.attempts == 2
    assert clock.slept == [0.5]


def test_an_answer_is_waited_for_though_the_code_expires_meanwhile() -> None:
    # The POST has begun, and only its answer tells whether the message is on its way.
    async def main() -> SendResult:
        class Slow(ScriptedTransport):
            async def post(self, *args: Any) -> Any:
                await asyncio.sleep(5)
                return await super().post(*args)

        clock = virtual_clock()
        expires_at = datetime.fromtimestamp(clock.time(), UTC) + timedelta(seconds=1)
        return await outcome(
            sandbox_client("https://otp.example", transport=Slow(), clock=clock), expires_at=expires_at
        )

    assert in_virtual_time(main()).status is SendStatus.ACCEPTED


class Hanging(ScriptedTransport):
    """Takes as long as it is given, and then does not know."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        await asyncio.sleep(timeout)
        raise OutcomeUnknownError("no answer")


def test_the_deadline_bounds_the_wait_for_a_permit() -> None:
    async def main() -> tuple[NxOtpError | None, float]:
        clock = virtual_clock()
        async with sandbox_client(
            "https://otp.example", transport=Hanging(), clock=clock, max_concurrency=1, timeout=20, deadline=20
        ) as client:
            first = asyncio.create_task(outcome_on(client))
            await asyncio.sleep(0.1)
            result = await outcome_on(client.with_options(deadline=5))
            await first
        return result.error, result.elapsed

    error, elapsed = in_virtual_time(main())
    assert isinstance(error, NotSentError)
    assert str(error) == "the deadline of 5 s ran out while it waited for one of the max_concurrency permits"
    assert elapsed == pytest.approx(5)


def test_the_deadline_bounds_the_wait_for_the_rate_limit() -> None:
    async def main() -> list[SendResult]:
        transport = ScriptedTransport()
        client = sandbox_client(
            "https://otp.example", transport=transport, clock=virtual_clock(), rate_limit=0.1, deadline=5
        )
        results = [await outcome(client) for _ in range(2)]
        assert len(transport.posts) == 1
        return results

    first, second = in_virtual_time(main())
    assert first.status is SendStatus.ACCEPTED
    assert str(second.error) == "the deadline of 5 s ran out while it waited for the rate_limit"
    assert second.elapsed == pytest.approx(5)


def test_the_deadline_cuts_an_attempt_short_and_says_so() -> None:
    async def main() -> SendResult:
        return await outcome(
            sandbox_client("https://otp.example", transport=Hanging(), clock=virtual_clock(), timeout=10, deadline=4)
        )

    result = in_virtual_time(main())
    assert result.status is SendStatus.UNKNOWN
    assert "the deadline of 4 s ran out during attempt 1" in str(result.error)
    assert result.elapsed == pytest.approx(4)


def test_a_deadline_that_runs_out_before_a_later_attempt_leaves_the_last_outcome() -> None:
    async def main() -> SendResult:
        clock = virtual_clock()
        slow = RetryPolicy(backoff_base=3)
        client = sandbox_client(
            "https://otp.example", transport=ScriptedTransport(FAILED), clock=clock, retry=slow, max_concurrency=1,
            deadline=5,
        )  # fmt: skip
        hanging = sandbox_client("https://otp.example", transport=Hanging(), clock=clock, timeout=30)
        hanging._state._loops = client.state._loops  # one permit for both
        sending = asyncio.create_task(outcome_on(client))
        await asyncio.sleep(1)
        blocking = asyncio.create_task(outcome_on(hanging))
        result = await sending
        await blocking
        return result

    result = in_virtual_time(main())
    assert result.status is SendStatus.REJECTED
    assert result.attempts == 1
    assert "deadline of 5 s ran out while it waited for one of the max_concurrency permits" in str(result.error)


def test_the_rate_is_smooth_from_the_first_second() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        begun: list[float] = []

        class Recording(ScriptedTransport):
            async def post(self, *args: Any) -> Answer:
                begun.append(loop.time())
                return await super().post(*args)

        client = sandbox_client(
            "https://otp.example", transport=Recording(), clock=virtual_clock(), rate_limit=200, deadline=60
        )
        async with client:
            await client.send_batch(OtpMessage(TO, "482913") for _ in range(600))
        return begun

    begun = in_virtual_time(main())
    assert begun[-1] == pytest.approx(3, rel=0.02)
    for tenth in range(29):
        in_this_tenth = sum(tenth / 10 <= at < (tenth + 1) / 10 for at in begun)
        assert 18 <= in_this_tenth <= 22


def test_a_slow_rate_does_not_let_a_batch_run_into_its_own_deadlines() -> None:
    async def main() -> int:
        client = sandbox_client(
            "https://otp.example", transport=ScriptedTransport(), clock=virtual_clock(), rate_limit=1
        )
        async with client:
            return len((await client.send_batch(OtpMessage(TO, "482913") for _ in range(200))).accepted)

    assert in_virtual_time(main()) == 200


# ---------------------------------------------------------------------------------------------- the vendor's clock


@pytest.mark.parametrize("offset", [600, -600])
async def test_a_wrong_clock_costs_one_extra_request(
    clock: FakeClock, offset: float, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox = Sandbox(clock=clock, clock_offset=offset)
    async with sandbox, sandbox.client(clock=clock) as client:
        for _ in range(200):
            await client.send_otp(TO, "482913")
            clock.advance(0.25)
    assert len(sandbox.requests) == 201
    assert len(sandbox.messages) == 200
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert f"{offset + 0.5:.1f} s" in warnings[0].getMessage()


async def test_the_clocks_correction_is_made_once_a_message(clock: FakeClock) -> None:
    # A server that refuses every timestamp, and shows a clock that would explain it.
    expired = (200, {"Date": "Thu, 01 Jan 2026 00:00:00 GMT"}, b'{"code":1004,"message":"expired","data":null}')
    transport = ScriptedTransport(expired)
    result = await outcome(sandbox_client("https://otp.example", transport=transport, clock=clock))
    assert isinstance(result.error, TimestampExpiredError)
    assert not result.error.clock_corrected  # the last refusal is not explained by the clocks any more
    assert len(transport.posts) == 2


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Date": "Fri, 15 Jan 2027 08:00:00 GMT"}, id="the server's clock is ours"),
        pytest.param({"Date": "Fri, 15 Jan 2027 08:00:55 GMT"}, id="within the window"),
        pytest.param({}, id="no Date"),
        pytest.param({"Date": "yesterday"}, id="no date in Date"),
    ],
)
async def test_a_refusal_the_clocks_do_not_explain_leads_to_no_further_request(
    clock: FakeClock, headers: dict[str, str]
) -> None:
    assert datetime.fromtimestamp(clock.time(), UTC).isoformat() == "2027-01-15T08:00:00+00:00"
    transport = ScriptedTransport((200, headers, b'{"code":1004,"message":"expired","data":null}'))
    result = await outcome(sandbox_client("https://otp.example", transport=transport, clock=clock))
    assert isinstance(result.error, TimestampExpiredError)
    assert not result.error.clock_corrected
    assert len(transport.posts) == 1


async def test_a_policy_of_one_attempt_corrects_the_clock_for_the_next_message(clock: FakeClock) -> None:
    sandbox = Sandbox(clock=clock, clock_offset=600)
    async with sandbox, sandbox.client(clock=clock, retry=RetryPolicy(max_attempts=1)) as client:
        with pytest.raises(TimestampExpiredError) as refused:
            await client.send_otp(TO, "482913")
        assert refused.value.clock_corrected
        await client.send_otp(TO, "482913")
    assert len(sandbox.requests) == 2


async def test_a_wrong_secret_leads_to_no_further_request(sandbox: Sandbox, clock: FakeClock) -> None:
    result = await outcome(sandbox.client(clock=clock, access_secret="wrong"))
    assert getattr(result.error, "code", None) == 1003
    assert len(sandbox.requests) == 1
