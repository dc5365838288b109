"""Status callbacks that are recorded in the ledger as they come."""

import asyncio
import contextlib
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from nxotp_async.bulk import Dispatcher, Ledger, MessageState, ReceiptRecorder, load, open_messages
from nxotp_async.callbacks import StatusEvent
from nxotp_async.errors import LedgerError
from nxotp_async.receivers import aiohttp_receiver
from nxotp_async.sandbox import SANDBOX_CREDENTIALS, CallbackPlan, Fault, Sandbox

CONTENT = "Your code is 73915508"
GOOD = tuple(f"9995550{number}" for number in range(100, 400))


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def otps(*numbers: str) -> str:
    rows = [f"{number},{CONTENT},id-{place}" for place, number in enumerate(numbers)]
    Path("otps.csv").write_text("\n".join(["to,content,cus_message_id", *rows, ""]), encoding="utf-8")
    return "otps.csv"


class WatchedLedger(Ledger):
    """A ledger that counts its transactions, and may be told to make none."""

    transactions = 0
    is_writable = True

    def transaction(self) -> AbstractContextManager[None]:
        if not self.is_writable:
            raise LedgerError("run.db cannot be written")
        self.transactions += 1
        return super().transaction()


def ledger_of(count: int) -> WatchedLedger:
    """Make run.db of so many messages that are unknown."""
    with Ledger("run.db") as ledger, open_messages(otps(*GOOD[:count])) as file:
        load(ledger, file)
        with ledger.transaction():
            ledger.claim([stored.key for stored in ledger.fresh(count, 0.0, after=0)], 0.0)
    return WatchedLedger("run.db")


READ_A_COPY = """
import shutil, sqlite3, sys
for name in ("run.db", "run.db-wal"):
    shutil.copy(name, "copy-of-" + name)
print(sqlite3.connect("copy-of-run.db").execute("SELECT state, receipt FROM messages").fetchall())
"""


async def test_an_event_is_in_the_file_when_recording_it_returns() -> None:
    with ledger_of(1) as ledger:
        await ReceiptRecorder(ledger).record(StatusEvent("id-0", "delivered"))
        # In another process, because closing a file would give up the locks that this one has on it.
        reading = await asyncio.create_subprocess_exec(
            sys.executable, "-c", READ_A_COPY, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await reading.communicate()
    assert out == b"[('accepted', 'delivered')]\n"


async def test_many_events_at_once_cost_one_commit() -> None:
    with ledger_of(300) as ledger:
        recorder, before = ReceiptRecorder(ledger), ledger.transactions
        statuses = ("sent", "delivered", "sent", "delivered")
        await asyncio.gather(
            *(recorder.record(StatusEvent(f"id-{place}", status)) for status in statuses for place in range(300))
        )
        assert ledger.transactions - before == 1
        assert ledger.receipts() == {"delivered": 300}
        assert ledger.counts() == {MessageState.ACCEPTED: 300}


@pytest.mark.parametrize(
    ("statuses", "receipt"),
    [
        (("sent", "delivered", "read"), "read"),
        (("read", "delivered", "sent"), "read"),
        (("delivered", "failed"), "delivered"),
        (("sent", "failed", "delivered"), "failed"),
        (("failed", "sent"), "failed"),
        (("failed", "deleted"), "failed"),
        (("read", "deleted"), "deleted"),
        (("delivered", "seen by the moon"), "delivered"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
async def test_the_order_of_the_events_does_not_matter_more_than_to_a_tracker(
    statuses: tuple[str, ...], receipt: str, at_once: bool
) -> None:
    with ledger_of(1) as ledger:
        recorder = ReceiptRecorder(ledger)
        events = [StatusEvent("id-0", status) for status in statuses]
        if at_once:
            await asyncio.gather(*map(recorder.record, events))
        else:
            for event in events:
                await recorder.record(event)
        assert ledger.receipts() == {receipt: 1}


async def test_what_became_of_an_unknown_message_does_not_depend_on_how_fast_its_events_come() -> None:
    with ledger_of(2) as ledger:
        recorder = ReceiptRecorder(ledger)
        await asyncio.gather(*(recorder.record(StatusEvent("id-0", status)) for status in ("sent", "failed")))
        for status in ("sent", "failed"):
            await recorder.record(StatusEvent("id-1", status))
        first, second = ({**row, "cus_message_id": "", "message_id": "", "to": ""} for row in ledger.results())
        ignored = ("line", "finished_at")
        assert {name: value for name, value in first.items() if name not in ignored} == {
            name: value for name, value in second.items() if name not in ignored
        }


async def test_what_says_nothing_costs_nothing() -> None:
    with ledger_of(1) as ledger:
        recorder, before = ReceiptRecorder(ledger), ledger.transactions
        for status in ("queued", "seen by the moon", ""):
            await recorder.record(StatusEvent("id-0", status))
        assert ledger.transactions == before
        assert (ledger.receipts(), ledger.counts()) == ({}, {MessageState.UNKNOWN: 1})


async def test_old_news_waits_until_the_news_are_durable() -> None:
    with ledger_of(1) as ledger:
        recorder = ReceiptRecorder(ledger)
        news = asyncio.create_task(recorder.record(StatusEvent("id-0", "read")))
        await asyncio.sleep(0)
        await recorder.record(StatusEvent("id-0", "sent"))
        assert ledger.receipts() == {"read": 1}
        await news


async def test_an_event_of_a_message_that_is_not_in_the_ledger_changes_nothing() -> None:
    with ledger_of(1) as ledger:
        await ReceiptRecorder(ledger).record(StatusEvent("another", "delivered"))
        assert (ledger.receipts(), ledger.counts()) == ({}, {MessageState.UNKNOWN: 1})


async def test_a_ledger_that_cannot_be_written_is_told_to_everybody_and_a_later_event_is_noted() -> None:
    with ledger_of(3) as ledger:
        recorder = ReceiptRecorder(ledger)
        ledger.is_writable = False
        failures = await asyncio.gather(
            *(recorder.record(StatusEvent(f"id-{place}", "sent")) for place in range(3)), return_exceptions=True
        )
        assert [type(failure) for failure in failures] == [LedgerError] * 3
        assert "cannot be written" in str(failures[0])
        ledger.is_writable = True
        assert ledger.receipts() == {}
        for place in range(3):
            await recorder.record(StatusEvent(f"id-{place}", "sent"))
        assert ledger.receipts() == {"sent": 3}


async def test_somebody_who_gives_up_does_not_stop_the_writing() -> None:
    with ledger_of(2) as ledger:
        recorder = ReceiptRecorder(ledger)
        gone = asyncio.create_task(recorder.record(StatusEvent("id-0", "sent")))
        stays = asyncio.create_task(recorder.record(StatusEvent("id-1", "sent")))
        await asyncio.sleep(0)
        gone.cancel()
        await stays
        assert gone.cancelled()
        assert ledger.receipts() == {"sent": 2}


async def test_a_callback_that_could_not_be_noted_is_pushed_again_and_noted_then() -> None:
    with ledger_of(1) as ledger:

        class Recorder(ReceiptRecorder):
            tries = 0

            async def record(self, event: StatusEvent) -> None:
                ledger.is_writable = self.tries > 0
                self.tries += 1
                await super().record(event)

        recorder = Recorder(ledger)
        async with _received(recorder) as webhook, Sandbox(callbacks=DELIVERED_ONLY) as sandbox:
            async with sandbox.client(dr_webhook=webhook) as client:
                await client.send_otp(GOOD[0], CONTENT, cus_message_id="id-0")
            await sandbox.callbacks_settled()
        assert (recorder.tries, ledger.receipts()) == (2, {"delivered": 1})
        assert sandbox.counts["callbacks pushed"] == 2


DELIVERED_ONLY = CallbackPlan(statuses=("delivered",))


@contextlib.asynccontextmanager
async def _received(recorder: ReceiptRecorder) -> Any:
    runner = web.AppRunner(aiohttp_receiver(recorder, SANDBOX_CREDENTIALS), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def test_a_run_that_is_sending_meanwhile_loses_no_outcome_and_no_event() -> None:
    plan = CallbackPlan(statuses=("sent", "delivered"), early=0.5, copies=2, failed=0.1)
    faults = (Fault.disconnect_after_reading(), Fault.answer(9015))
    with Ledger("run.db") as ledger, open_messages(otps(*GOOD[:150])) as file:
        load(ledger, file)
        async with (
            _received(ReceiptRecorder(ledger)) as webhook,
            Sandbox(callbacks=plan, fault_rate=0.2, faults=faults, seed=7) as sandbox,
            sandbox.client(dr_webhook=webhook) as client,
        ):
            report = await Dispatcher(ledger, client).run()
            await sandbox.callbacks_settled()
        assert report.paused is None
        assert sandbox.counts["callbacks taken"] == 4 * sandbox.counts["messages"]
        refused = {request.cus_message_id for request in sandbox.requests if request.code == 9015}
        lost = {request.cus_message_id for request in sandbox.messages if request.fault == "disconnect_after_reading"}
        assert (len(refused) > 2, len(lost) > 2) == (True, True)
        for row in ledger.results():
            name, receipt = row["cus_message_id"], row["receipt"]
            if name in refused:
                assert (row["status"], row["code"], receipt) == ("rejected", 9015, None)
            else:
                assert receipt in ("delivered", "failed")
                assert row["status"] in (
                    {"accepted", "rejected"} if receipt == "failed" and name in lost else ["accepted"]
                )
            assert row["attempts"] == 1
        assert ledger.receipts()["failed"] > 2
