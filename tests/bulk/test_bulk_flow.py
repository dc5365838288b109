import asyncio
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from bulk_runs import (
    ACCEPTED,
    ALICE,
    LOST,
    NOT_SENT,
    QUEUED,
    REJECTED,
    UNKNOWN,
    UNREACHABLE,
    Post,
    Treatment,
    Vendor,
    always,
    check,
    fill,
    in_state,
    in_virtual_time,
    ledger_of,
    message,
    messages,
    meta_refusal,
    refusal,
    rows,
    run,
    run_at,
    virtual_dispatcher,
)
from support import VirtualTimeLoop

from nxotp_async import (
    NotSentError,
    OutcomeUnknownError,
    RetryPolicy,
    TransientApiError,
)
from nxotp_async.bulk import Dispatcher, MessageState, Report
from nxotp_async.sandbox import Fault, Sandbox, sandbox_client
from nxotp_async.transports import Answer

# ---------------------------------------------------------------------------------------------- one recipient


def test_a_recipient_that_meta_throttles_waits_and_others_go_on() -> None:
    def throttle_first(post: Post) -> Answer | None:
        return meta_refusal(131056) if post.to == ALICE and post.attempt == 1 and post.at < 1 else None

    batch = [message(number, ALICE if number in (0, 20, 30) else None) for number in range(40)]
    vendor = Vendor(throttle_first)
    with ledger_of(batch) as ledger:
        ended = run(ledger, vendor, concurrency=2)
        assert ended.report == Report(Counter({ACCEPTED: 40}), None, False)
        others = [name for name in rows(ledger) if name not in ("m0", "m20", "m30")]
    # Refused at 0.1, tried again after Meta's 6 seconds and 4 of backoff, and the next ones 6 seconds apart.
    assert vendor.times("m0") == pytest.approx([0, 10.1], abs=0.01)
    assert vendor.times("m20") == pytest.approx([16.1], abs=0.01)
    assert vendor.times("m30") == pytest.approx([22.1], abs=0.01)
    assert [post.name for post in vendor.posts if post.name in others] == others
    assert max(vendor.times(*others)) < 5


def test_many_messages_to_one_recipient_survive_metas_pair_rate_limit() -> None:
    accepted_at = [-10.0]

    def pair_rate_limit(post: Post) -> Answer | None:
        if post.at - accepted_at[-1] < 6:
            return meta_refusal(131056)
        accepted_at.append(post.at)
        return None

    vendor = Vendor(pair_rate_limit)
    with ledger_of(message(number, ALICE) for number in range(10)) as ledger:
        assert run(ledger, vendor, concurrency=64).report == Report(Counter({ACCEPTED: 10}), None, False)


def test_messages_to_one_recipient_are_kept_apart_and_so_are_their_retries() -> None:
    def fail_some(post: Post) -> Answer | Exception | None:
        if (post.name, post.attempt) in {("m0", 1), ("m5", 1), ("m5", 2)}:
            return refusal(-1)
        return meta_refusal(131056) if (post.name, post.attempt) == ("m3", 1) else None

    batch = [message(number, ALICE if number % 2 or number == 0 else None) for number in range(24)]
    vendor = Vendor(fail_some)
    with ledger_of(batch) as ledger:
        ended = run(ledger, vendor, per_recipient=6.0)
    assert ended.report == Report(Counter({ACCEPTED: 24}), None, False)
    to_alice = [post.at for post in vendor.posts if post.to == ALICE]
    assert len(to_alice) == 13 + 4
    assert min(later - earlier for earlier, later in pairwise(to_alice)) >= 6 - 1e-3
    assert max(later - earlier for earlier, later in pairwise(to_alice)) <= 6 + 1
    assert max(post.at for post in vendor.posts if post.to != ALICE) < 1


def test_a_recipient_is_left_alone_for_as_long_after_a_resumption() -> None:
    async def main() -> None:
        for _ in range(2):
            dispatcher = virtual_dispatcher(ledger, vendor, per_recipient=6.0)
            asyncio.get_running_loop().call_later(1, dispatcher.stop)
            await dispatcher.run()
        await virtual_dispatcher(ledger, vendor, per_recipient=6.0).run()

    vendor = Vendor()
    with ledger_of(message(number, ALICE) for number in range(3)) as ledger:
        in_virtual_time(main())
        check(ledger, vendor.accepted)
        assert ledger.counts() == {ACCEPTED: 3}
    assert vendor.times() == pytest.approx([0, 6, 12], abs=0.01)


def test_looking_for_messages_in_vain_uses_nothing_of_the_rate_up() -> None:
    async def main() -> None:
        await virtual_dispatcher(ledger, vendor, per_recipient=6.0, max_per_recipient=1).run()
        fill(ledger, [message(1, ALICE)])
        await virtual_dispatcher(ledger, vendor, per_recipient=6.0, rate=0.01).run()

    vendor = Vendor()
    with ledger_of([message(0, ALICE)]) as ledger:
        in_virtual_time(main())
    assert vendor.times() == pytest.approx([0, 6], abs=0.01)


def test_no_recipient_gets_more_than_the_cap_over_all_runs() -> None:
    vendor = Vendor()
    with ledger_of([*(message(number, ALICE) for number in range(5)), message(5)]) as ledger:
        for _ in range(2):
            ended = run(ledger, vendor, max_per_recipient=2)
            assert ended.report.counts == {ACCEPTED: 3, NOT_SENT: 3}
        assert in_state(ledger, NOT_SENT) == {"m2", "m3", "m4"}
        assert {row["error"] for row in rows(ledger).values()} == {None, "Capped"}
    assert [post.name for post in vendor.posts] == ["m0", "m1", "m5"]


# ---------------------------------------------------------------------------------------------- the rate


@pytest.mark.parametrize("rate", [0.5, 3.0, 20.0, 200.0, 1000.0])
def test_the_rate_is_kept_by_retries_too_and_used_up(rate: float) -> None:
    number = 40 if rate < 10 else 200
    vendor = Vendor(lambda post: refusal(-1) if post.attempt == 1 and int(post.name[1:]) % 10 == 0 else None)
    with ledger_of(messages(number)) as ledger:
        ended = run(ledger, vendor, rate=rate, concurrency=200)
        assert ended.report.counts == {ACCEPTED: number}
    times = vendor.times()
    assert len(times) == number + number // 10
    burst = max(1.0, rate / 10)
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + rate * (times[last] - times[first] + 0.001)
    assert ended.at <= len(times) / rate * 1.1 + 1.5


THROTTLINGS = [
    pytest.param(Answer(429, {}, b""), id="HTTP 429"),
    pytest.param(meta_refusal(4), id="Meta 4"),
    pytest.param(meta_refusal(80007), id="Meta 80007"),
    pytest.param(meta_refusal(130429), id="Meta 130429"),
]


@pytest.mark.parametrize("throttling", THROTTLINGS)
def test_throttling_halves_the_rate_once_a_round_and_it_grows_back(throttling: Answer) -> None:
    sampled: dict[float, float] = {}

    async def sample(dispatcher: Dispatcher) -> None:
        loop = asyncio.get_running_loop()
        for at in (0.4, 0.9, 5.5, 17.0):
            await asyncio.sleep(at - loop.time())
            sampled[at] = dispatcher.rate

    vendor = Vendor(lambda post: throttling if post.at < 0.5 else None, latency=0.5)
    with ledger_of(messages(600)) as ledger:
        # One attempt, because throttling is not held against a message.
        ended = run(ledger, vendor, meanwhile=sample, rate=40, concurrency=80, retry=RetryPolicy(max_attempts=1))
        assert ended.report == Report(Counter({ACCEPTED: 600}), None, False)
    assert sum(at < 0.5 for at in vendor.times()) > 10
    assert sampled[0.4] == 40
    assert sampled[0.9] == pytest.approx(20 * 1.05**0.4, rel=0.02)
    assert sampled[5.5] == pytest.approx(20 * 1.05**5, rel=0.02)
    assert sampled[17.0] == 40
    assert sum(1 <= at < 3 for at in vendor.times()) == pytest.approx(2 * 20 * 1.07, abs=5)


def test_throttling_lowers_a_rate_that_was_not_limited() -> None:
    vendor = Vendor(lambda post: Answer(429, {}, b"") if post.at < 0.1 else None)
    with ledger_of(messages(300)) as ledger:
        ended = run(ledger, vendor, concurrency=80)
        assert ended.report.counts == {ACCEPTED: 300}
    assert sum(at < 0.1 for at in vendor.times()) == 80
    assert sum(0.1 <= at < 1.1 for at in vendor.times()) <= 41  # half of what went before, or less


def test_a_message_is_throttled_more_often_than_it_has_attempts_and_still_accepted() -> None:
    vendor = Vendor(lambda post: Answer(429, {}, b"") if post.attempt <= 6 else None)
    with ledger_of(messages(3)) as ledger:
        ended = run(ledger, vendor, retry=RetryPolicy(max_attempts=2))
        assert ended.report.counts == {ACCEPTED: 3}
        assert {row["attempts"] for row in rows(ledger).values()} == {7}


def test_retry_after_holds_the_whole_run() -> None:
    throttled = Answer(429, {"Retry-After": "7"}, b"")
    vendor = Vendor(lambda post: throttled if post.name == "m0" and post.attempt == 1 else None, latency=0.05)
    with ledger_of(messages(40)) as ledger:
        ended = run(ledger, vendor)
        assert ended.report == Report(Counter({ACCEPTED: 40}), None, False)
    assert [post.name for post in vendor.posts if post.at < 7] == ["m0", "m1", "m2", "m3"]
    assert min(at for at in vendor.times() if at > 0.01) == pytest.approx(7.05, abs=0.01)


def test_a_vendor_that_throttles_everything_for_a_minute_pauses_the_run() -> None:
    vendor = Vendor(always(Answer(429, {}, b"")))
    with ledger_of(messages(200)) as ledger:
        ended = run(ledger, vendor, rate=50, patience=60)
        assert isinstance(ended.report.paused, TransientApiError)
        assert ended.report.counts == {QUEUED: 200}
        assert 60 <= ended.at <= 65
        assert len(vendor.posts) <= 75  # about one a second
        vendor.treat = None
        assert run(ledger, vendor).report.counts == {ACCEPTED: 200}


# ---------------------------------------------------------------------------------------------- expiry


def test_a_code_that_has_expired_before_the_run_is_not_sent() -> None:
    vendor = Vendor()
    with ledger_of([message(0, expires_in=-1), message(1, expires_in=600), message(2)]) as ledger:
        assert run(ledger, vendor).report.counts == {ACCEPTED: 2, NOT_SENT: 1}
        assert rows(ledger)["m0"]["error"] == "Expired"
    assert [post.name for post in vendor.posts] == ["m1", "m2"]


def test_codes_that_expire_while_they_are_queued_are_not_sent() -> None:
    vendor = Vendor()
    with ledger_of(message(number, expires_in=5.5) for number in range(10)) as ledger:
        ended = run(ledger, vendor, rate=1)
        assert ended.report == Report(Counter({ACCEPTED: 6, NOT_SENT: 4}), None, False)
        assert in_state(ledger, NOT_SENT) == {"m6", "m7", "m8", "m9"}
    assert ended.at < 70
    assert vendor.times() == pytest.approx([0, 1, 2, 3, 4, 5], abs=0.01)


@pytest.mark.parametrize(
    ("failure", "state"),
    [
        pytest.param(refusal(-1), REJECTED, id="the vendor has answered about it"),
        pytest.param(meta_refusal(131056), REJECTED, id="its recipient is throttled"),
        pytest.param(UNREACHABLE, NOT_SENT, id="it never left"),
    ],
)
def test_a_code_that_expires_while_it_waits_for_another_attempt_is_not_sent_again(
    failure: Answer | Exception, state: MessageState
) -> None:
    vendor = Vendor(lambda post: failure if post.name == "m0" else None)
    with ledger_of([message(0, expires_in=4), *(message(number) for number in range(1, 5))]) as ledger:
        ended = run(ledger, vendor, retry=RetryPolicy(max_attempts=5, backoff_base=8.0, backoff_cap=8.0))
        assert ended.report == Report(Counter({state: 1, ACCEPTED: 4}), None, False)
        assert rows(ledger)["m0"]["error"] == "Expired"
    assert vendor.times("m0") == [pytest.approx(0, abs=0.01)]
    assert ended.at < 70


def test_a_code_that_expires_while_its_recipient_has_to_wait_is_not_sent() -> None:
    vendor = Vendor()
    with ledger_of([message(0, ALICE), message(1, ALICE, expires_in=3), message(2, ALICE)]) as ledger:
        ended = run(ledger, vendor, per_recipient=6.0)
        assert ended.report == Report(Counter({ACCEPTED: 2, NOT_SENT: 1}), None, False)
        assert in_state(ledger, NOT_SENT) == {"m1"}
    assert [post.name for post in vendor.posts] == ["m0", "m2"]
    assert ended.at < 70


def test_a_code_that_expires_while_the_client_holds_it_back_is_not_sent() -> None:
    async def main() -> Report:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        client = sandbox_client(
            "https://otp.example", transport=vendor, clock=loop.clock, max_concurrency=4, rate_limit=1
        )
        return await Dispatcher(ledger, client, clock=loop.clock).run()

    vendor = Vendor()
    with ledger_of(message(number, expires_in=1.5) for number in range(4)) as ledger:
        report = in_virtual_time(main())
        check(ledger, vendor.accepted, report)
        assert report == Report(Counter({ACCEPTED: 2, NOT_SENT: 2}), None, False)


# ---------------------------------------------------------------------------------------------- the vendor is down


def test_a_vendor_out_of_reach_is_tried_again_after_ever_longer_pauses_until_it_is_back() -> None:
    vendor = Vendor(lambda post: UNREACHABLE if post.at < 20 else None, latency=0.0)
    with ledger_of(messages(40)) as ledger:
        ended = run(ledger, vendor, concurrency=3, retry=RetryPolicy(max_attempts=2))
        assert ended.report == Report(Counter({ACCEPTED: 40}), None, False)
        assert max(row["attempts"] for row in rows(ledger).values()) > 2  # nothing of it was held against them
    rounds = sorted({round(at, 1) for at in vendor.times()})
    assert [round(later - earlier) for earlier, later in pairwise(rounds) if later - earlier > 0.4] == [
        0,
        1,
        2,
        4,
        8,
        8,
    ]
    assert rounds[:2] == [0.0, 0.5]
    assert sum(at < 20 for at in vendor.times()) == 3 * 6
    assert ended.at < 27


def test_a_second_outage_begins_with_short_pauses_again() -> None:
    vendor = Vendor(lambda post: UNREACHABLE if post.at < 10 or 20 <= post.at < 21.4 else None, latency=0.0)
    with ledger_of(messages(150)) as ledger:
        assert run(ledger, vendor, rate=10).report == Report(Counter({ACCEPTED: 150}), None, False)
    times = [at for at in vendor.times() if at > 19.95]
    pauses = [later - earlier for earlier, later in pairwise(times) if later - earlier > 0.4]
    assert pauses == pytest.approx([0.5, 1.0], abs=0.15)


def test_a_vendor_out_of_reach_for_a_minute_pauses_the_run() -> None:
    vendor = Vendor(always(UNREACHABLE), latency=0.0)
    with ledger_of(messages(40)) as ledger:
        ended = run(ledger, vendor, patience=60)
        assert isinstance(ended.report.paused, NotSentError)
        assert ended.report.counts == {QUEUED: 40}
        assert 60 <= ended.at <= 70
        assert len(vendor.posts) <= 4 * 12
        vendor.treat = None
        assert run(ledger, vendor).report.counts == {ACCEPTED: 40}


def unreachable_until(end: float) -> Treatment:
    return lambda post: UNREACHABLE if post.at < end else None


@pytest.mark.parametrize(("patience", "seconds"), [(None, 900), (5.0, 5), (7200.0, 7200)])
def test_so_long_as_its_patience_lasts_a_run_waits_for_the_vendor(patience: float | None, seconds: float) -> None:
    for away, goes_on in ((seconds - 1, True), (seconds + 20, False)):
        vendor = Vendor(unreachable_until(away), latency=0.0)
        options: dict[str, Any] = {} if patience is None else {"patience": patience}
        with ledger_of(messages(40)) as ledger:
            report = run(ledger, vendor, **options).report
            assert (report.paused is None) is goes_on


@pytest.mark.parametrize("concurrency", [1, 32])
@pytest.mark.parametrize("max_attempts", [2, 5])
def test_a_vendor_that_refuses_everything_for_a_while_does_not_reject_the_file(
    concurrency: int, max_attempts: int
) -> None:
    vendor = Vendor(always(refusal(-1)))
    with ledger_of(messages(200)) as ledger:
        policy = RetryPolicy(max_attempts=max_attempts)
        ended = run(ledger, vendor, concurrency=concurrency, retry=policy, patience=60)
        assert isinstance(ended.report.paused, TransientApiError)
        assert ended.report.counts[REJECTED] <= 2 * concurrency
        assert 60 <= ended.at <= 70
        vendor.treat = None
        rejected = ended.report.counts[REJECTED]
        assert run(ledger, vendor).report.counts == +Counter({ACCEPTED: 200 - rejected, REJECTED: rejected})


async def test_a_storm_of_unknown_outcomes_pauses_the_run_and_none_is_sent_again() -> None:
    with ledger_of(messages(100)) as ledger:
        async with Sandbox(fault_rate=1.0, faults=[Fault.disconnect_after_reading()]) as sandbox:
            resending = RetryPolicy(max_attempts=5, resend_unknown=True)
            report = await run_at(sandbox, ledger, retry=resending)
            assert isinstance(report.paused, OutcomeUnknownError)
            assert 2 * 4 < report.counts[UNKNOWN] <= 3 * 4 + 1
            assert report.counts[QUEUED] == 100 - report.counts[UNKNOWN]
            unknown = in_state(ledger, UNKNOWN)
            async with Sandbox() as mended:
                report = await run_at(mended, ledger, before=[sandbox], retry=resending)
                assert len(mended.requests) == report.counts[ACCEPTED]
            assert report == Report(Counter({UNKNOWN: len(unknown), ACCEPTED: 100 - len(unknown)}), None, False)
            assert in_state(ledger, UNKNOWN) == unknown
            assert max(Counter(request.cus_message_id for request in sandbox.requests).values()) == 1


def test_unknown_outcomes_among_good_ones_do_not_pause_the_run() -> None:
    vendor = Vendor(lambda post: LOST if int(post.name[1:]) % 2 else None)
    with ledger_of(messages(200)) as ledger:
        assert run(ledger, vendor).report == Report(Counter({ACCEPTED: 100, UNKNOWN: 100}), None, False)
    assert len(vendor.posts) == 200
