"""`SenderPool` in virtual time: which sender sends what, how fast, and what follows when one fails."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from pools import (
    LOST,
    NO_RETRY,
    A,
    B,
    C,
    Post,
    Vendor,
    client_of,
    in_virtual_time,
    message,
    messages,
    most_in_a_second,
    now,
    pool_of,
)

from nxotp_async import (
    AccountError,
    Attempt,
    ConfigurationError,
    Credentials,
    NotSentError,
    OtpMessage,
    OutcomeUnknownError,
    RetryPolicy,
    SendResult,
    SendStatus,
)
from nxotp_async.pacing import SharedRate
from nxotp_async.sandbox import answers
from nxotp_async.senders import Sender, SenderAccount, SenderPool, SenderState, StepBack
from nxotp_async.senders.health import Health
from nxotp_async.stores import MemoryStore

UNBOUND, THROTTLED = answers.failure(10003), answers.meta_failure(130429)
SECOND = SenderAccount(credentials=Credentials("second-key", "second-secret", "second-appkey"))


async def result_of(pool: SenderPool, sent: OtpMessage) -> SendResult:
    (result,) = [result async for result in pool.send_many([sent])]
    return result


def home_of(pool: SenderPool, sent: OtpMessage) -> str:
    return str(pool._team.candidates(sent)[0].sender.business_phone)


def of_sender(pool: SenderPool, number: str, start: int = 0) -> OtpMessage:
    """Return a message to a recipient that belongs to this sender."""
    return next(sent for sent in messages(range(start, start + 1000)) if home_of(pool, sent) == number)


# ---------------------------------------------------------------------------------------------- whose recipients


def test_a_recipient_stays_with_its_sender() -> None:
    async def main() -> None:
        vendor = Vendor()
        pool = pool_of(vendor, A, B, C)
        for _ in range(3):
            await pool.send_batch(OtpMessage(f"99956{number:06d}", "482913") for number in range(100))
        senders = Counter((post.to, post.sender) for post in vendor.posts)
        assert set(senders.values()) == {3}
        assert min(vendor.by_sender().values()) > 60  # of 300

    in_virtual_time(main())


def test_the_choice_is_the_same_in_every_release() -> None:
    """Otherwise recipients would get their codes from other numbers after an update."""

    async def main() -> str:
        pool = pool_of(Vendor(), A, B, Sender(C, weight=160))
        return "".join(home_of(pool, sent)[-1] for sent in messages(range(24)))

    assert in_virtual_time(main()) == "111331113312121213333331"


def test_a_sender_that_is_added_takes_its_share_and_moves_nobody_else() -> None:
    async def main() -> None:
        few, more = pool_of(Vendor(), A, B), pool_of(Vendor(), A, B, C)
        homes = [(home_of(few, sent), home_of(more, sent)) for sent in messages(range(3000))]
        assert {after for before, after in homes if before != after} == {C}
        assert sum(after == C for _, after in homes) == pytest.approx(1000, rel=0.1)

    in_virtual_time(main())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(Sender(A, weight=3), Sender(B, weight=1), id="by weight"),
        pytest.param(Sender(A, rate=240), Sender(B), id="by rate"),
    ],
)
def test_shares_are_weighted(first: Sender, second: Sender) -> None:
    async def main() -> float:
        pool = pool_of(Vendor(), first, second)
        return sum(home_of(pool, sent) == A for sent in messages(range(4000))) / 4000

    assert in_virtual_time(main()) == pytest.approx(0.75, abs=0.03)


def test_a_message_with_a_number_goes_by_that_number_alone() -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: UNBOUND if post.sender == A else None)
        pool = pool_of(vendor, A, B)
        for number in range(10):
            assert (await result_of(pool, message(number, business_phone=A))).status is not SendStatus.ACCEPTED
        accepted = [
            await pool.send(message(number, business_phone=number_of)) for number, number_of in ((20, B), (21, C))
        ]
        assert [result.message.business_phone for result in accepted] == [B, C]  # also one that is none of the senders
        assert {post.sender for post in vendor.posts} == {A, B, C}

    in_virtual_time(main())


# ---------------------------------------------------------------------------------------------- rates


def test_two_senders_at_80_send_158_a_second_together_and_neither_more_than_80_in_any() -> None:
    async def main() -> None:
        vendor = Vendor()
        async for result in pool_of(vendor).send_many(messages(range(5000))):
            assert result.status is SendStatus.ACCEPTED
        for sender in (A, B):
            assert most_in_a_second(vendor.times(sender)) <= 80
        within = [post for post in vendor.posts if 1 <= post.at < 29]
        assert 158 <= len(within) / 28 <= 160

    in_virtual_time(main())


def test_retries_take_permits_of_their_sender_too() -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: answers.failure(-1) if len(vendor.posts) % 3 == 0 else None)
        pool = pool_of(vendor, Sender(A, rate=20), Sender(B, rate=20))
        await pool.send_batch(messages(range(300)))
        assert len(vendor.posts) > 400
        assert max(most_in_a_second(vendor.times(sender)) for sender in (A, B)) <= 20

    in_virtual_time(main())


def test_a_number_that_messages_name_keeps_to_its_own_rate() -> None:
    async def main() -> None:
        vendor = Vendor()
        pool = pool_of(vendor, Sender(A, rate=10), Sender(B, rate=40))
        await pool.send_batch(message(number, business_phone=(A, B, B, B, B)[number % 5]) for number in range(250))
        assert most_in_a_second(vendor.times(A)) <= 10
        assert most_in_a_second(vendor.times(B)) <= 40
        assert vendor.posts[-1].at < 6

    in_virtual_time(main())


def test_a_vendor_that_answers_slowly_lets_no_burst_through() -> None:
    async def main() -> None:
        vendor = Vendor(latency=2.0)
        await pool_of(vendor, max_concurrency=16).send_batch(messages(range(200)))
        assert max(most_in_a_second(vendor.times(sender)) for sender in (A, B)) <= 80

    in_virtual_time(main())


def test_a_sender_may_share_its_rate_with_other_processes() -> None:
    async def main() -> None:
        vendor = Vendor()
        clock = client_of(vendor).settings.clock
        store = MemoryStore(clock=clock)
        rates = [SharedRate(store, "A", 10, clock=clock) for _ in range(2)]
        pools = [pool_of(vendor, Sender(A, rate=rate)) for rate in rates]
        await asyncio.gather(
            *(pool.send_batch(messages(range(n, n + 50))) for n, pool in zip((0, 50), pools, strict=True))
        )
        assert 9.5 < now() < 10.5

    in_virtual_time(main())


# ---------------------------------------------------------------------------------------------- health


def test_one_that_is_unbound_in_mid_run_sends_nothing_more_and_no_message_goes_twice_or_is_lost() -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: UNBOUND if post.sender == A and post.at >= 5 else None)
        results = [result async for result in pool_of(vendor).send_many(messages(range(3000)))]
        assert {result.status for result in results} == {SendStatus.ACCEPTED}
        assert max(Counter(post.name for post in vendor.accepted).values()) == 1
        assert len(vendor.accepted) == 3000
        # It is tried with what was in flight only.
        refused = [post for post in vendor.posts if post.sender == A and post.at >= 5]
        assert 1 <= len(refused) <= 10
        for result in results:
            assert result.message.business_phone == (B if result.history else result.message.business_phone)
            assert [past.message.business_phone for past in result.history] in ([], [A])

    in_virtual_time(main())


def test_it_returns_by_itself_and_gets_its_recipients_back() -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: UNBOUND if post.sender == A and post.at < 100 else None)
        pool = pool_of(vendor)
        sent = of_sender(pool, A)
        by = []
        for _ in range(5):
            by.append((await pool.send(OtpMessage(sent.to, "482913"))).message.business_phone)
            await asyncio.sleep(60)
        assert by == [B, B, B, A, A]  # tried at 0, 60 (refused: 120 s) and 180 s
        assert [post.at for post in vendor.posts if post.sender == A] == pytest.approx([0, 60, 180, 240], abs=1)

    in_virtual_time(main())


def test_the_result_tells_each_sender_that_was_tried() -> None:
    async def main() -> None:
        pool = pool_of(Vendor(lambda post: UNBOUND if post.sender == A else None))
        attempts: list[Attempt] = []
        ended: list[SendResult] = []
        pool.add_hooks(on_attempt=attempts.append, on_result=ended.append)
        result = await pool.send(of_sender(pool, A))
        (past,) = result.history
        assert (result.status, result.message.business_phone, result.attempts) == (SendStatus.ACCEPTED, B, 2)
        assert (past.status, past.message.business_phone, past.attempts) == (SendStatus.REJECTED, A, 1)
        assert isinstance(past.error, AccountError)
        assert past.error.code == 10003
        assert result.elapsed == pytest.approx(0.1, abs=0.03)  # both of them
        assert [(one.number, one.message.business_phone, one.status) for one in attempts] == [
            (1, A, SendStatus.REJECTED),
            (2, B, SendStatus.ACCEPTED),
        ]
        assert ended == [result]

    in_virtual_time(main())


def test_a_throttled_one_steps_back_for_a_moment_and_the_other_sends() -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: THROTTLED if post.sender == A and post.at < 0.1 else None)
        pool = pool_of(vendor)
        first = await pool.send(of_sender(pool, A))
        assert first.message.business_phone == B
        assert pool.senders[0].reason is StepBack.THROTTLED
        assert 0 < pool.senders[0].returns_in <= 0.25
        await asyncio.sleep(1)
        assert pool.senders[0] == SenderState(pool.senders[0].sender, None, 0.0, 1)
        assert (await pool.send(of_sender(pool, A))).message.business_phone == A

    in_virtual_time(main())


def test_where_all_are_throttled_the_message_waits_and_is_tried_again_as_often_as_the_policy_says() -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: THROTTLED if len(vendor.posts) < 3 else None)
        pool = pool_of(vendor)
        result = await pool.send(of_sender(pool, A))
        assert result.status is SendStatus.ACCEPTED
        assert [post.sender for post in vendor.posts] == [A, B, A]

    in_virtual_time(main())


def test_what_waits_while_all_are_throttled_is_sent_when_they_return() -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: THROTTLED if 3 <= post.at < 3.1 else None)
        results = [result async for result in pool_of(vendor).send_many(messages(range(1500)))]
        assert Counter(result.status for result in results) == {SendStatus.ACCEPTED: 1500}
        assert max(Counter(post.name for post in vendor.accepted).values()) == 1
        assert now() < 11

    in_virtual_time(main())


def test_a_message_whose_sender_steps_back_between_two_attempts_goes_by_the_next() -> None:
    async def main() -> None:
        vendor = Vendor(
            lambda post: {"m1": answers.failure(-1), "m2": UNBOUND}.get(post.name) if post.sender == A else None
        )
        pool = pool_of(vendor)
        to = of_sender(pool, A).to
        first = asyncio.create_task(pool.send(OtpMessage(to, "482913", cus_message_id="m1")))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(pool.send(OtpMessage(to, "482913", cus_message_id="m2")))
        assert {(await task).message.business_phone for task in (first, second)} == {B}
        (past,) = (await first).history
        assert past.error is not None
        assert (past.error.code, past.message.business_phone) == (-1, A)

    in_virtual_time(main())


@pytest.mark.parametrize(
    "error", [LOST, answers.success("")[:40], (502, {}, b"<html>")], ids=["no answer", "half an answer", "a gateway"]
)
def test_after_an_unknown_outcome_no_other_sender_is_tried(error: Any) -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: error)
        pool = pool_of(vendor, A, B, C)
        for number in range(50):
            result = await result_of(pool, message(number))
            assert result.status is SendStatus.UNKNOWN
            assert result.history == ()
        assert max(Counter(post.name for post in vendor.posts).values()) == 1

    in_virtual_time(main())


def test_an_unknown_outcome_of_the_second_sender_is_the_messages() -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: UNBOUND if post.sender == A else LOST)
        pool = pool_of(vendor, A, B)
        result = await result_of(pool, of_sender(pool, A))
        assert isinstance(result.error, OutcomeUnknownError)
        assert result.message.business_phone == B
        assert [past.status for past in result.history] == [SendStatus.REJECTED]
        assert len(vendor.posts) == 2

    in_virtual_time(main())


def test_a_retry_that_ends_refused_after_an_unknown_outcome_is_not_followed_by_another_sender() -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: UNBOUND if len(vendor.posts) > 1 else LOST)
        pool = pool_of(vendor, A, B, C, retry=RetryPolicy(resend_unknown=True))
        result = await result_of(pool, of_sender(pool, A))
        assert result.status is SendStatus.UNKNOWN
        assert {post.sender for post in vendor.posts} == {A}

    in_virtual_time(main())


@pytest.mark.parametrize("code", [9015, 9000, -1])
def test_what_is_the_messages_own_failure_or_the_vendors_is_not_tried_by_another(code: int) -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: answers.failure(code))
        pool = pool_of(vendor, retry=NO_RETRY)
        result = await result_of(pool, message(1))
        assert (result.status, len(vendor.posts)) == (SendStatus.REJECTED, 1)
        assert [state.reason for state in pool.senders] == [None, None]

    in_virtual_time(main())


def test_if_all_refuse_the_last_refusal_is_the_messages() -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: UNBOUND)
        pool = pool_of(vendor, A, B, C)
        result = await result_of(pool, message(1))
        assert (result.status, result.attempts, len(result.history)) == (SendStatus.REJECTED, 3, 2)
        assert result.error is not None
        assert (result.error.code, result.error.attempts) == (10003, 3)

    in_virtual_time(main())


def test_where_none_is_ready_in_time_nothing_is_sent() -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: UNBOUND)
        pool = pool_of(vendor, A, B)
        await result_of(pool, message(1))
        result = await result_of(pool, message(2))
        assert (result.status, result.attempts, result.elapsed) == (SendStatus.NOT_SENT, 0, 0)
        assert isinstance(result.error, NotSentError)
        assert str(result.error).startswith("no sender is ready in time: 99*******0")
        assert "unbound" in str(result.error)
        assert result.error.retry_after == pytest.approx(60, abs=0.2)
        assert len(vendor.posts) == 2

    in_virtual_time(main())


def test_where_one_is_ready_in_time_the_message_waits_for_it() -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: THROTTLED if post.at < 0.2 else None)
        pool = pool_of(vendor, A, B, retry=NO_RETRY)
        assert (await result_of(pool, message(1))).status is SendStatus.REJECTED
        result = await result_of(pool, message(2))
        assert result.status is SendStatus.ACCEPTED
        assert result.elapsed == pytest.approx(0.25, abs=0.1)

    in_virtual_time(main())


def test_a_code_that_expires_before_one_is_ready_does_not_wait() -> None:
    async def main() -> None:
        pool = pool_of(Vendor(lambda post: UNBOUND), A, B, deadline=120)
        await result_of(pool, message(1))
        expires_at = datetime.fromtimestamp(1_800_000_000 + now() + 30, UTC)
        result = await result_of(pool, message(2, expires_at=expires_at))
        assert (result.status, result.elapsed) == (SendStatus.NOT_SENT, 0)

    in_virtual_time(main())


def test_what_waits_for_one_that_is_throttled_for_a_moment_stays_with_it_unless_the_code_would_expire() -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: THROTTLED if post.name == "first" and post.sender == A else None)
        pool = pool_of(vendor)
        to = of_sender(pool, A).to
        first = await pool.send(OtpMessage(to, "482913", cus_message_id="first"))
        assert first.message.business_phone == B
        soon = datetime.fromtimestamp(1_800_000_000 + now() + 0.05, UTC)
        pool._team.members[0].health = Health().failed(StepBack.THROTTLED, now())
        waits, hurries = await asyncio.gather(
            pool.send(OtpMessage(to, "482913")), pool.send(OtpMessage(to, "482913", expires_at=soon))
        )
        assert (waits.message.business_phone, hurries.message.business_phone) == (A, B)
        assert waits.elapsed == pytest.approx(0.15, abs=0.02)

    in_virtual_time(main())


# ---------------------------------------------------------------------------------------------- accounts


def second(post: Post) -> bool:
    return post.key == "second-key"


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1003, StepBack.REFUSED), (9003, StepBack.REFUSED), (9005, StepBack.EXHAUSTED)],
)
def test_what_an_account_is_refused_for_concerns_all_its_numbers(code: int, reason: StepBack) -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: answers.failure(code) if not second(post) else None)
        pool = pool_of(vendor, A, B, Sender(C, account=SECOND))
        sent = of_sender(pool, A)
        result = await pool.send(sent)
        assert result.message.business_phone == C
        assert [past.message.business_phone for past in result.history] == [A]  # not B, which belongs to the same one
        assert [state.reason for state in pool.senders] == [reason, reason, None]
        await pool.send_batch(messages(range(100, 200)))
        assert [post.sender for post in vendor.posts] == [A] + [C] * 101

    in_virtual_time(main())


def test_a_template_that_one_account_lacks_is_looked_for_in_the_other_and_no_account_steps_back() -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: answers.failure(10005) if not second(post) else None)
        pool = pool_of(vendor, A, B, Sender(C, account=SECOND))
        result = await pool.send(of_sender(pool, B))
        assert [post.sender for post in vendor.posts] == [B, C]
        assert result.status is SendStatus.ACCEPTED
        assert [state.reason for state in pool.senders] == [None] * 3

    in_virtual_time(main())


def test_each_account_signs_with_its_own_keys_and_sends_its_own_appkey() -> None:
    async def main() -> None:
        bodies: list[tuple[str, str]] = []

        class Noting(Vendor):
            async def post(self, url: str, body: bytes, headers: Any, timeout: float) -> Any:
                bodies.append((headers["accessKey"], body.decode()))
                return await super().post(url, body, headers, timeout)

        pool = pool_of(Noting(), A, Sender(C, account=SECOND))
        await pool.send_batch(messages(range(20)))
        for key, body in bodies:
            assert (key == "second-key") == ("second-appkey" in body) == (C in body)
        assert {key for key, _ in bodies} == {"second-key", "sandbox-access-key"}

    in_virtual_time(main())


def test_an_account_sends_no_more_in_24_hours_than_its_limit() -> None:
    async def main() -> None:
        vendor = Vendor()
        pool = pool_of(
            vendor,
            *(Sender(number, account=SenderAccount(daily_limit=30)) for number in (A, B)),
            Sender(C, account=SECOND),
        )
        batch = await pool.send_batch(messages(range(200)))
        assert len(batch.accepted) == 200
        by = vendor.by_sender()
        assert by[A] + by[B] == 30
        assert [state.reason for state in pool.senders] == [StepBack.EXHAUSTED, StepBack.EXHAUSTED, None]
        assert pool.senders[0].sent == 30
        await asyncio.sleep(86_460)
        assert (await pool.send(of_sender(pool, A))).message.business_phone == A

    in_virtual_time(main())


def test_what_is_refused_does_not_count_and_what_may_have_arrived_does() -> None:
    async def main() -> None:
        judged: dict[str, bytes | Exception] = {"m1": answers.failure(9015), "m2": LOST}
        pool = pool_of(Vendor(lambda post: judged.get(post.name)), Sender(A, account=SenderAccount(daily_limit=2)))
        states = [(await result_of(pool, message(number))).status for number in (1, 2, 3, 4)]
        assert states == [SendStatus.REJECTED, SendStatus.UNKNOWN, SendStatus.ACCEPTED, SendStatus.NOT_SENT]

    in_virtual_time(main())


# ---------------------------------------------------------------------------------------------- as a client


def test_views_share_the_health_and_may_name_a_number() -> None:
    async def main() -> None:
        vendor = Vendor(lambda post: UNBOUND if post.sender == A else None)
        pool = pool_of(vendor)
        view = pool.with_options(retry=NO_RETRY, deadline=5)
        assert isinstance(view, SenderPool)
        await view.send(of_sender(pool, A))
        assert pool.senders[0].reason is StepBack.UNBOUND
        assert (await pool.with_options(business_phone=C).send(message(1))).message.business_phone == C

    in_virtual_time(main())


def test_the_same_id_twice_in_flight_is_refused_across_senders() -> None:
    async def main() -> None:
        pool = pool_of(Vendor())
        one, other = of_sender(pool, A), of_sender(pool, B)
        same = [OtpMessage(sent.to, "482913", cus_message_id="same") for sent in (one, other)]
        results = await pool.send_batch(same)
        assert Counter(result.status for result in results) == {SendStatus.ACCEPTED: 1, SendStatus.NOT_SENT: 1}

    in_virtual_time(main())


def test_many_senders_have_the_permits_of_the_client_together() -> None:
    async def main() -> None:
        pool = pool_of(Vendor(), Sender(A, rate=30), Sender(B, rate=10), max_concurrency=40)
        loops = [member.state.of_running_loop() for member in pool._team.members]
        assert [loop.permits._value for loop in loops] == [30, 10]
        assert pool.max_concurrency == 40

    in_virtual_time(main())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda client: SenderPool(client, []), "senders is empty"),
        (lambda client: SenderPool(client, [Sender(A), Sender("+" + A)]), "two senders are 99*******01"),
        (lambda client: SenderPool(client, [cast("Any", A)]), "senders must be a Sender, not str"),
        (lambda client: SenderPool(SenderPool(client, [Sender(A)]), [Sender(B)]), "client is a SenderPool already"),
        (lambda client: SenderPool(cast("Any", None), [Sender(A)]), "client must be a OtpClient"),
        (lambda client: Sender("0123"), "business_phone of a sender starts with 0"),
        (lambda client: Sender(A, rate=0), "rate of a sender must be 0.001 at least"),
        (lambda client: Sender(A, weight=-1), "weight of a sender must be more than 0"),
        (lambda client: Sender(A, account=cast("Any", "second")), "account of a sender must be a SenderAccount"),
        (lambda client: SenderAccount(daily_limit=0), "daily_limit of a sender must be 1 at least"),
        (
            lambda client: SenderPool(client, [Sender(A), Sender(B, account=SenderAccount(daily_limit=5))]),
            "two accounts with the same keys have different limits",
        ),
    ],
)
def test_what_cannot_be_a_pool_is_refused(make: Callable[[Any], object], text: str) -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError) as raised:
            make(client_of(Vendor()))
        assert str(raised.value).startswith(text)

    in_virtual_time(main())


def test_a_client_with_a_rate_of_its_own_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError, match="leave rate_limit of the client out"):
            SenderPool(client_of(Vendor(), rate_limit=80), [Sender(A)])

    in_virtual_time(main())


def test_nothing_of_a_pool_shows_a_number_or_a_key() -> None:
    async def main() -> str:
        pool = pool_of(Vendor(), A, Sender(C, account=SECOND))
        return f"{pool} {pool.senders} {pool.settings}"

    shown = in_virtual_time(main())
    assert A not in shown
    assert "second-" not in shown
