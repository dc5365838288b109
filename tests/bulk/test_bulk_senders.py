"""Bulk runs over a `SenderPool`, against the sandbox."""

from collections import Counter
from pathlib import Path

from bulk_runs import ledger_of, rows
from support import Unbinding

from nxotp_async import OtpMessage
from nxotp_async.bulk import Dispatcher, MessageState
from nxotp_async.sandbox import Sandbox
from nxotp_async.senders import Sender, SenderPool

A, B = "99955500001", "99955500002"
FAST = [Sender(A, rate=10_000), Sender(B, rate=10_000)]


async def test_a_bulk_run_over_a_pool_goes_on_with_the_other_number(tmp_path: Path) -> None:
    unbinding = Unbinding([A, B], after=100)
    messages = [OtpMessage(f"99956{n:06d}", "482913", cus_message_id=f"m{n}") for n in range(400)]
    async with unbinding.sandbox as sandbox, sandbox.client(max_concurrency=16) as client:
        with ledger_of(messages, tmp_path / "run.ledger") as ledger:
            report = await Dispatcher(ledger, SenderPool(client, FAST)).run()
            assert report.counts == {MessageState.ACCEPTED: 400}
            assert {row["status"] for row in rows(ledger).values()} == {"accepted"}
        assert len({request.to for request in sandbox.messages}) == len(sandbox.messages) == 400


async def test_a_bulk_run_is_paused_where_no_number_is_bound(tmp_path: Path) -> None:
    async with Sandbox(business_phones=["99955500009"]) as sandbox, sandbox.client() as client:
        with ledger_of([OtpMessage("99956000001", "482913", cus_message_id="m1")], tmp_path / "run.ledger") as ledger:
            report = await Dispatcher(ledger, SenderPool(client, FAST)).run()
            assert report.paused is not None
            assert report.paused.code == 10003
            assert report.counts == {MessageState.QUEUED: 1}


async def test_a_row_with_a_number_goes_by_it(tmp_path: Path) -> None:
    messages = [
        OtpMessage(f"99956{n:06d}", "482913", cus_message_id=f"m{n}", business_phone=(A, B)[n % 4 == 0])
        for n in range(80)
    ]
    async with Sandbox(business_phones=[A, B]) as sandbox, sandbox.client() as client:
        with ledger_of(messages, tmp_path / "run.ledger") as ledger:
            await Dispatcher(ledger, SenderPool(client, FAST)).run()
        assert Counter(request.fields["business_phone"] for request in sandbox.messages) == {A: 60, B: 20}
