"""The machine's clock is set in the middle of a bulk run, or between two."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from itertools import pairwise

import pytest
from bulk_runs import (
    ACCEPTED,
    ALICE,
    NOT_SENT,
    QUEUED,
    START,
    Post,
    Vendor,
    always,
    check,
    in_virtual_time,
    ledger_of,
    message,
    messages,
    meta_refusal,
    refusal,
    rows,
    run,
    virtual_dispatcher,
)
from support import VirtualTimeLoop

from nxotp_async import RetryPolicy, TimestampExpiredError
from nxotp_async.bulk import Dispatcher, Report
from nxotp_async.sandbox import answers
from nxotp_async.transports import Answer

HOUR = 3600.0
BACK_AND_FORWARD = pytest.mark.parametrize("seconds", [-HOUR, HOUR], ids=["set back", "set forward"])


def set_clock(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.clock_error += seconds


def setting_clock(at: float, seconds: float) -> Callable[[Dispatcher], Awaitable[None]]:
    async def set_it(_: Dispatcher) -> None:
        await asyncio.sleep(at)
        set_clock(seconds)

    return set_it


# ---------------------------------------------------------------------------------------------- what waits


@BACK_AND_FORWARD
@pytest.mark.parametrize(
    ("failure", "pauses"),
    [
        pytest.param(refusal(-1), [8, 8], id="refused for a moment"),
        pytest.param(Answer(429, {"Retry-After": "7"}, b""), [15, 15], id="throttled"),
        pytest.param(meta_refusal(131056), [14, 14], id="its recipient is throttled"),
    ],
)
def test_a_message_that_waits_does_so_for_as_long_whatever_the_clock_says(
    failure: Answer, pauses: list[float], seconds: float
) -> None:
    vendor = Vendor(lambda post: failure if post.name == "m0" and post.attempt <= 2 else None)
    with ledger_of(messages(40)) as ledger:
        policy = RetryPolicy(max_attempts=5, backoff_base=8.0, backoff_cap=8.0)
        run(ledger, vendor, meanwhile=setting_clock(3, seconds), retry=policy, rate=2)
        assert ledger.counts() == {ACCEPTED: 40}
    waited = [later - earlier - vendor.latency for earlier, later in pairwise(vendor.times("m0"))]
    assert waited == pytest.approx(pauses, abs=1)  # the rate may be just used up


@BACK_AND_FORWARD
@pytest.mark.parametrize("at", [0.05, 3.0, 6.05, 20.0])
def test_messages_to_one_recipient_stay_as_far_apart(at: float, seconds: float) -> None:
    vendor = Vendor()
    with ledger_of(message(number, ALICE) for number in range(6)) as ledger:
        run(ledger, vendor, meanwhile=setting_clock(at, seconds), per_recipient=6.0)
        assert ledger.counts() == {ACCEPTED: 6}
    assert vendor.times() == pytest.approx([0, 6, 12, 18, 24, 30], abs=0.2)


def test_messages_to_one_recipient_stay_as_far_apart_after_a_run_before_which_the_clock_was_set_back() -> None:
    async def main() -> None:
        dispatcher = virtual_dispatcher(ledger, vendor, per_recipient=6.0)
        asyncio.get_running_loop().call_later(1, dispatcher.stop)
        await dispatcher.run()
        set_clock(-HOUR)
        await virtual_dispatcher(ledger, vendor, per_recipient=6.0).run()

    vendor = Vendor()
    with ledger_of(message(number, ALICE) for number in range(3)) as ledger:
        in_virtual_time(main())
        check(ledger, vendor.accepted)
        assert ledger.counts() == {ACCEPTED: 3}
    first, second, third = vendor.times()
    assert 6 <= second - first <= 6 + 1 + 0.2  # when in the last hour the first one went, nobody can tell any more
    assert third - second == pytest.approx(6, abs=0.2)


@BACK_AND_FORWARD
def test_the_rate_is_kept(seconds: float) -> None:
    vendor = Vendor(lambda post: Answer(429, {}, b"") if post.name == "m50" and post.attempt == 1 else None)
    undisturbed = Vendor(vendor.treat)
    for each, jump in ((undisturbed, 0.0), (vendor, seconds)):
        with ledger_of(messages(200)) as ledger:
            run(ledger, each, meanwhile=setting_clock(4.95, jump), rate=10, concurrency=8)
            assert ledger.counts() == {ACCEPTED: 200}
    assert vendor.times() == pytest.approx(undisturbed.times(), abs=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_however_often_the_clock_is_set_nothing_is_late_and_nothing_too_early(seed: int) -> None:
    async def set_it(dispatcher: Dispatcher) -> None:
        for _ in range(40):
            await asyncio.sleep(chance.uniform(0, 2))
            set_clock(chance.uniform(-HOUR, HOUR))

    chance = random.Random(seed)
    vendor = Vendor(lambda post: refusal(-1) if int(post.name[1:]) % 7 == 0 and post.attempt == 1 else None)
    recipients = [f"99955{chance.randrange(12):05d}" for _ in range(100)]
    with ledger_of(message(number, to) for number, to in enumerate(recipients)) as ledger:
        ended = run(ledger, vendor, meanwhile=set_it, per_recipient=3.0, concurrency=8)
        assert ended.report == Report(Counter({ACCEPTED: 100}), None, False)
    for recipient in set(recipients):
        times = [post.at for post in vendor.posts if post.to == recipient]
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert all(3 - 1e-3 <= pause <= 3.2 for pause in pauses)


# ---------------------------------------------------------------------------------------------- what expires


def test_a_code_that_a_clock_set_forward_calls_expired_is_not_sent() -> None:
    vendor = Vendor()
    with ledger_of(message(number, expires_in=600) for number in range(10)) as ledger:
        ended = run(ledger, vendor, meanwhile=setting_clock(3.5, HOUR), rate=1)
        assert ended.report == Report(Counter({ACCEPTED: 4, NOT_SENT: 6}), None, False)
    assert ended.at < 70


def test_a_code_lives_on_where_the_clock_is_set_back() -> None:
    # Refused at 0.1 and due at 8.1, when it would have expired by a clock that had not been set.
    vendor = Vendor(lambda post: refusal(-1) if post.attempt == 1 and post.name == "m0" else None)
    batch = [message(0, expires_in=9), *(message(number) for number in range(1, 20))]
    with ledger_of(batch) as ledger:
        policy = RetryPolicy(max_attempts=5, backoff_base=8.0, backoff_cap=8.0)
        run(ledger, vendor, meanwhile=setting_clock(3, -HOUR), retry=policy, rate=1)
        assert ledger.counts() == {ACCEPTED: 20}


def test_codes_that_were_passed_over_as_expired_are_sent_where_the_clock_is_set_back() -> None:
    vendor = Vendor()
    batch = [message(number, expires_in=2.5 if number in (3, 4, 5) else None) for number in range(10)]
    with ledger_of(batch) as ledger:
        ended = run(ledger, vendor, meanwhile=setting_clock(3.5, -HOUR), rate=1)
        assert ended.report == Report(Counter({ACCEPTED: 10}), None, False)
    assert [post.name for post in vendor.posts[:4]] == ["m0", "m1", "m2", "m6"]


@BACK_AND_FORWARD
def test_the_ledger_records_what_the_clock_says(seconds: float) -> None:
    with ledger_of(messages(2)) as ledger:
        run(ledger, Vendor(), meanwhile=setting_clock(0.5, seconds), rate=1)
        first, second = rows(ledger).values()
    assert second["sent_at"] - first["sent_at"] == pytest.approx(1 + seconds, abs=0.2)
    assert second["finished_at"] - first["finished_at"] == pytest.approx(1 + seconds, abs=0.3)


# ---------------------------------------------------------------------------------------------- the vendor's clock


def refused_timestamp(vendor_now: float) -> Answer:
    return Answer(200, {"Date": formatdate(vendor_now, usegmt=True)}, answers.failure(1004))


def watching_the_clock(post: Post) -> Answer | None:
    """Refuse a wrong timestamp, as the vendor does."""
    vendor_now = START + post.at
    return refused_timestamp(vendor_now) if abs(post.ts - vendor_now) > 60 else None


@BACK_AND_FORWARD
@pytest.mark.parametrize("refusals", [1, 4])
def test_a_clock_that_is_set_between_two_attempts_for_a_message_does_not_pause_the_run(
    refusals: int, seconds: float
) -> None:
    def treat(post: Post) -> Answer | None:
        return refusal(-1) if post.attempt <= refusals else watching_the_clock(post)

    vendor = Vendor(treat)
    policy = RetryPolicy(max_attempts=5, backoff_base=1.0, backoff_cap=1.0)
    with ledger_of(messages(2)) as ledger:
        ended = run(ledger, vendor, meanwhile=setting_clock(1.15 * refusals - 0.5, seconds), retry=policy)
        assert ended.report == Report(Counter({ACCEPTED: 2}), None, False)
        assert {row["attempts"] for row in rows(ledger).values()} == {refusals + 2}


@pytest.mark.parametrize("max_attempts", [1, 2, 5])
@BACK_AND_FORWARD
def test_a_clock_that_is_wrong_from_the_start_is_held_against_no_message(seconds: float, max_attempts: int) -> None:
    vendor = Vendor(watching_the_clock)
    with ledger_of(messages(60)) as ledger:
        policy = RetryPolicy(max_attempts=max_attempts)
        ended = run(ledger, vendor, meanwhile=setting_clock(0.0, seconds), retry=policy, concurrency=16)
        assert ended.report == Report(Counter({ACCEPTED: 60}), None, False)
    assert len(vendor.posts) <= 60 + 16


@BACK_AND_FORWARD
def test_a_wrong_clock_that_is_set_right_while_requests_are_in_flight_does_not_pause_the_run(seconds: float) -> None:
    async def set_it(_: Dispatcher) -> None:
        set_clock(seconds)
        await asyncio.sleep(0.05)
        set_clock(-seconds)

    vendor = Vendor(watching_the_clock)
    with ledger_of(messages(60)) as ledger:
        ended = run(ledger, vendor, meanwhile=set_it, retry=RetryPolicy(max_attempts=1), concurrency=16)
        assert ended.report == Report(Counter({ACCEPTED: 60}), None, False)
    assert len(vendor.posts) <= 60 + 2 * 16


def test_a_clock_that_is_set_again_and_again_does_not_pause_the_run() -> None:
    async def set_it(_: Dispatcher) -> None:
        for turn in range(20):
            await asyncio.sleep(1.1)
            set_clock(HOUR if turn % 3 else -HOUR)

    vendor = Vendor(watching_the_clock)
    with ledger_of(messages(500)) as ledger:
        ended = run(ledger, vendor, meanwhile=set_it, rate=20, concurrency=8)
        assert ended.report == Report(Counter({ACCEPTED: 500}), None, False)
    assert len(vendor.posts) <= 500 + 20 * 8


def test_a_refused_timestamp_that_the_clocks_do_not_explain_pauses_the_run() -> None:
    vendor = Vendor(always(refusal(1004)))
    with ledger_of(messages(60)) as ledger:
        ended = run(ledger, vendor)
        assert isinstance(ended.report.paused, TimestampExpiredError)
        assert ended.report.counts == {QUEUED: 60}
        assert len(vendor.posts) <= 5 * 4
        vendor.treat = None
        assert run(ledger, vendor).report.counts == {ACCEPTED: 60}


def test_a_timestamp_that_is_refused_again_although_it_was_corrected_pauses_the_run() -> None:
    vendor = Vendor(lambda post: refused_timestamp(START + post.at + 600))
    with ledger_of(messages(60)) as ledger:
        ended = run(ledger, vendor)
        assert isinstance(ended.report.paused, TimestampExpiredError)
        assert ended.report.counts == {QUEUED: 60}
        assert len(vendor.posts) <= 6 * 4
        vendor.treat = None
        assert run(ledger, vendor).report.counts == {ACCEPTED: 60}


@pytest.mark.parametrize("max_attempts", [1, 5])
@pytest.mark.parametrize("number", [1, 60])
def test_a_vendor_whose_clock_is_another_at_every_answer_pauses_the_run(number: int, max_attempts: int) -> None:
    vendor = Vendor(lambda post: refused_timestamp(START + 600 * len(vendor.posts)))
    with ledger_of(messages(number)) as ledger:
        ended = run(ledger, vendor, retry=RetryPolicy(max_attempts=max_attempts))
        assert isinstance(ended.report.paused, TimestampExpiredError)
        assert ended.report.counts == {QUEUED: number}
        assert len(vendor.posts) <= 5 * 4
