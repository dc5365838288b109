"""Bulk runs over a `SenderPool`, against the sandbox."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from bulk_runs import LOST, Vendor, always, check, in_virtual_time, ledger_of, messages, refusal, rows
from support import Unbinding, VirtualTimeLoop

from nxotp_async import OtpMessage
from nxotp_async.bulk import Dispatcher, Ledger, MessageState, Report
from nxotp_async.sandbox import Sandbox, sandbox_client
from nxotp_async.senders import Sender, SenderPool

A, B = "99955500001", "99955500002"
FAST = [Sender(A, rate=10_000), Sender(B, rate=10_000)]


async def test_a_bulk_run_over_a_pool_goes_on_with_the_other_number(tmp_path: Path) -> None:
    unbinding = Unbinding([A, B], after=100)
    batch = [OtpMessage(f"99956{n:06d}", "482913", cus_message_id=f"m{n}") for n in range(400)]
    async with unbinding.sandbox as sandbox, sandbox.client(max_concurrency=16) as client:
        with ledger_of(batch, tmp_path / "run.ledger") as ledger:
            report = await Dispatcher(ledger, SenderPool(client, FAST)).run()
            assert report.counts == {MessageState.ACCEPTED: 400}
            assert {row["status"] for row in rows(ledger).values()} == {"accepted"}
        assert len({request.to for request in sandbox.messages}) == len(sandbox.messages) == 400


@pytest.mark.parametrize("number", [1, 200])
@pytest.mark.parametrize("code", [1003, 9005, 10003])
def test_a_run_is_paused_where_every_sender_is_refused_again_on_trial(code: int, number: int) -> None:
    with ledger_of(messages(number)) as ledger:
        report, at = run_by_two(ledger, Vendor(always(refusal(code))))
    assert report.counts == {MessageState.QUEUED: number}
    assert report.paused is not None
    assert report.paused.code == code
    assert 60 < at < 90


@pytest.mark.parametrize("code", [1003, 9005, 10003])
def test_a_run_goes_on_where_every_sender_is_refused_for_a_moment(code: int) -> None:
    vendor = Vendor(lambda post: refusal(code) if post.at < 5 else None)
    with ledger_of(messages(200)) as ledger:
        report, at = run_by_two(ledger, vendor)
        check(ledger, vendor.accepted, report)
    assert (report.paused, report.counts) == (None, {MessageState.ACCEPTED: 200})
    assert 60 < at < 90


def test_outcomes_that_are_all_unknown_end_a_run_by_what_is_sent_at_once_and_not_by_what_waits_for_its_rate() -> None:
    with ledger_of(messages(2000)) as ledger:
        report, _ = run_by_two(ledger, Vendor(always(LOST)), Sender(A, rate=500), Sender(B, rate=500))
    assert report.paused is not None
    assert report.counts[MessageState.UNKNOWN] <= 2 * 4 + 1000 + 4  # and what was in flight already


def run_by_two(ledger: Ledger, vendor: Vendor, *senders: Sender) -> tuple[Report, float]:
    async def main() -> tuple[Report, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        client = sandbox_client("https://otp.example", transport=vendor, clock=loop.clock, max_concurrency=4)
        pool = SenderPool(client, senders or FAST)
        return await Dispatcher(ledger, pool, clock=loop.clock).run(), loop.time()

    ended: tuple[Report, float] = in_virtual_time(main())
    return ended


async def test_a_row_with_a_number_goes_by_it(tmp_path: Path) -> None:
    batch = [
        OtpMessage(f"99956{n:06d}", "482913", cus_message_id=f"m{n}", business_phone=(A, B)[n % 4 == 0])
        for n in range(80)
    ]
    async with Sandbox(business_phones=[A, B]) as sandbox, sandbox.client() as client:
        with ledger_of(batch, tmp_path / "run.ledger") as ledger:
            await Dispatcher(ledger, SenderPool(client, FAST)).run()
        assert Counter(request.fields["business_phone"] for request in sandbox.messages) == {A: 60, B: 20}
