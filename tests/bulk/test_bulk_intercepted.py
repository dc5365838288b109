"""Something else than the vendor's API answers a bulk run: a proxy, a firewall, a server at a wrong address."""

import math
import random
from collections import Counter

import pytest
from bulk_runs import (
    ACCEPTED,
    QUEUED,
    REJECTED,
    Post,
    SlowLedgerLoop,
    Vendor,
    always,
    in_state,
    ledger_of,
    messages,
    refusal,
    run,
    run_at,
)

from nxotp_async import ApiError, RetryPolicy
from nxotp_async.bulk import Report
from nxotp_async.sandbox import Fault, Sandbox
from nxotp_async.transports import Answer


def page(status: int = 403) -> Answer:
    """Return the answer of a server that is not the vendor's."""
    return Answer(status, {"Content-Type": "text/html"}, b"<h1>Forbidden</h1>")


# ---------------------------------------------------------------------------------------------- now and then


@pytest.mark.parametrize("max_attempts", [1, 5])
def test_a_stray_one_does_not_end_the_run_nor_slow_it_down(max_attempts: int) -> None:
    vendor = Vendor(lambda post: page() if post.name == "m1234" and post.attempt == 1 else None)
    undisturbed = Vendor()
    ends = []
    for each in (undisturbed, vendor):
        with ledger_of(messages(3000)) as ledger:
            ended = run(ledger, each, concurrency=16, retry=RetryPolicy(max_attempts=max_attempts))
            assert ended.report == Report(Counter({ACCEPTED: 3000}), None, False)
            ends.append(ended.at)
    assert len(vendor.posts) == 3001
    first, again = vendor.times("m1234")
    assert 0.1 < again - first < 1
    assert ends[1] - ends[0] < 0.5


async def test_a_stray_one_among_real_traffic_does_not_end_the_run() -> None:
    with ledger_of(messages(60)) as ledger:
        async with Sandbox() as sandbox:
            sandbox.script(*[Fault()] * 20, Fault.http(403), *[Fault()] * 20, Fault.http(307))
            assert await run_at(sandbox, ledger) == Report(Counter({ACCEPTED: 60}), None, False)
            assert len(sandbox.requests) == 62


@pytest.mark.parametrize("concurrency", [2, 16])
def test_many_of_them_do_not_end_the_run_either(concurrency: int) -> None:
    chance = random.Random(403)
    vendor = Vendor(lambda _: page() if chance.random() < 0.03 else None)
    with ledger_of(messages(3000)) as ledger:
        ended = run(ledger, vendor, concurrency=concurrency)
        assert ended.report == Report(Counter({ACCEPTED: 3000}), None, False)


@pytest.mark.parametrize("concurrency", [1, 8, 500])
@pytest.mark.parametrize("latency", [0.0, 0.1])
@pytest.mark.parametrize("max_attempts", [1, 5])
def test_a_gateway_that_answers_for_two_seconds_does_not_end_the_run(
    concurrency: int, latency: float, max_attempts: int
) -> None:
    vendor = Vendor(lambda post: page() if 1 <= post.at < 3 else None, latency=latency)
    with ledger_of(messages(3000)) as ledger:
        policy = RetryPolicy(max_attempts=max_attempts)
        ended = run(ledger, vendor, concurrency=concurrency, rate=500, retry=policy)
        assert ended.report == Report(Counter({ACCEPTED: 3000}), None, False)
    assert sum(1 <= at < 3 for at in vendor.times()) <= 4 * concurrency


@pytest.mark.parametrize("max_attempts", [1, 3, 5])
def test_a_message_that_is_answered_so_again_and_again_while_others_pass_is_rejected(max_attempts: int) -> None:
    vendor = Vendor(lambda post: page() if post.name == "m7" else None)
    with ledger_of(messages(1000)) as ledger:
        policy = RetryPolicy(max_attempts=max_attempts)
        ended = run(ledger, vendor, rate=20, retry=policy)
        assert ended.report == Report(Counter({ACCEPTED: 999, REJECTED: 1}), None, False)
        assert in_state(ledger, REJECTED) == {"m7"}
    assert len(vendor.times("m7")) == max_attempts + 1
    assert ended.at < 1000 / 20 * 1.1


def test_a_message_that_is_answered_so_when_all_others_are_done_pauses_the_run() -> None:
    vendor = Vendor(lambda post: page() if post.name == "m7" else None)
    with ledger_of(messages(8)) as ledger:
        ended = run(ledger, vendor, concurrency=1)
        assert isinstance(ended.report.paused, ApiError)
        assert ended.report.counts == {ACCEPTED: 7, QUEUED: 1}
        assert len(vendor.times("m7")) == 5
        assert run(ledger, vendor, reject_on=[403]).report == Report(Counter({ACCEPTED: 7, REJECTED: 1}), None, False)


# ---------------------------------------------------------------------------------------------- for good


@pytest.mark.parametrize(("status", "max_attempts"), [(307, 5), (401, 5), (403, 1), (404, 5)])
@pytest.mark.parametrize("concurrency", [1, 4, 64])
@pytest.mark.parametrize("number", [1, 5, 500])
def test_where_nothing_else_comes_the_run_is_paused_soon_and_all_of_it_stays_queued(
    status: int, max_attempts: int, concurrency: int, number: int
) -> None:
    vendor = Vendor(always(page(status)))
    with ledger_of(messages(number)) as ledger:
        policy = RetryPolicy(max_attempts=max_attempts)
        ended = run(ledger, vendor, concurrency=concurrency, retry=policy)
        assert isinstance(ended.report.paused, ApiError)
        assert (ended.report.paused.code, ended.report.paused.http_status) == (None, status)
        assert ended.report.counts == {QUEUED: number}
        assert len(vendor.posts) <= 5 * concurrency
        assert ended.at <= 8
        vendor.treat = None
        assert run(ledger, vendor).report.counts == {ACCEPTED: number}


@pytest.mark.parametrize("concurrency", [1, 4, 64])
@pytest.mark.parametrize("max_attempts", [1, 5])
@pytest.mark.parametrize("latency", [0.0, 0.1])
def test_so_it_is_where_it_begins_in_the_middle_of_the_run(concurrency: int, max_attempts: int, latency: float) -> None:
    def treat(post: Post) -> Answer | None:
        return page() if len(vendor.accepted) >= 200 else None

    vendor = Vendor(treat, latency=latency)
    with ledger_of(messages(1000)) as ledger:
        policy = RetryPolicy(max_attempts=max_attempts)
        ended = run(ledger, vendor, concurrency=concurrency, retry=policy)
        assert isinstance(ended.report.paused, ApiError)
        assert ended.report.counts == {ACCEPTED: 200, QUEUED: 800}
        assert len(vendor.posts) <= 200 + 6 * concurrency
        vendor.treat = None
        assert run(ledger, vendor).report.counts == {ACCEPTED: 1000}


@pytest.mark.parametrize(("concurrency", "rate"), [(4, None), (64, None), (64, 500), (200, 500)])
@pytest.mark.parametrize("seconds", [2.0, math.inf])
def test_a_run_is_as_patient_where_the_ledger_takes_its_time(
    concurrency: int, rate: float | None, seconds: float
) -> None:
    vendor = Vendor(lambda post: page() if 1 <= post.at < 1 + seconds else None)
    with ledger_of(messages(3000)) as ledger:
        ended = run(ledger, vendor, concurrency=concurrency, rate=rate, loop_factory=SlowLedgerLoop)
    failures = len(vendor.posts) - len(vendor.accepted)
    assert failures <= 5 * concurrency
    if seconds == math.inf:
        assert isinstance(ended.report.paused, ApiError)
        assert 4.4 <= ended.at <= 8
    else:
        assert ended.report == Report(Counter({ACCEPTED: 3000}), None, False)


def test_as_long_as_the_vendor_answers_as_well_the_run_is_not_paused() -> None:
    def treat(post: Post) -> Answer | None:
        if post.at > 20:
            return None
        return page() if len(vendor.posts) % 2 else refusal(-1)

    vendor = Vendor(treat)
    with ledger_of(messages(500)) as ledger:
        assert run(ledger, vendor).report == Report(Counter({ACCEPTED: 500}), None, False)
