"""What type checkers see of `nxotp_async.bulk`. Nothing here is ever run."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, assert_type

from nxotp_async import Clock, NxOtpError, OtpClient, OtpMessage, RetryPolicy
from nxotp_async.bulk import (
    Budget,
    Dispatcher,
    FileFormat,
    Ledger,
    Loaded,
    MessageFile,
    MessageState,
    Reason,
    ReceiptRecorder,
    RejectsFile,
    Report,
    Row,
    Settled,
    export,
    load,
    open_messages,
    read_messages,
    settle,
)
from nxotp_async.receivers import EventSink


def a_file(path: Path) -> None:
    with open_messages(str(path)) as file:
        assert_type(file, MessageFile)
        assert_type(iter(file), Iterator[Row])
    assert_type(read_messages(io.BytesIO(), "otps", FileFormat.CSV), MessageFile)
    with open_messages("-", FileFormat.NDJSON) as file, Ledger(path) as ledger:
        assert_type(load(ledger, file), Loaded)
        rejects = RejectsFile(path, file)
        load(ledger, file, strict=True, on_reject=rejects.add, on_progress=print, before_commit=rejects.keep)
        assert_type(rejects.keep(), Path | None)
        assert_type(rejects.discard(), None)


def a_row(row: Row, loaded: Loaded) -> None:
    assert_type(OtpMessage.restored("9995550100", "482913", cus_message_id="A-1"), OtpMessage)
    assert_type(row.line, int)
    assert_type(row.message, OtpMessage | None)
    assert_type(row.extra, Mapping[str, Any])
    assert_type(row.problem, str)
    assert_type(row.raw, list[str] | str)
    assert_type((loaded.rows, loaded.queued, loaded.known, loaded.rejected), tuple[int, int, int, int])


def a_ledger(ledger: Ledger, reason: Reason) -> None:
    Ledger("otps.csv.ledger", create=False).close()
    Ledger(None)
    with ledger as entered:
        assert_type(entered, Ledger)
    assert_type(ledger.counts(), Counter[MessageState])
    assert_type(ledger.reasons(), list[Reason])
    assert_type(ledger.receipts(), Counter[str])
    assert_type(ledger.results(), Iterator[dict[str, Any]])
    assert_type(ledger.resolve({"A-1": "delivered"}), int)
    assert_type(ledger.requeue(["A-1"]), int)
    assert_type(ledger.requeue_rejected(["A-1", 10005]), tuple[int, int])
    assert_type(ledger.reach(), dict[str, list[dict[str, Any]]])
    assert_type(ledger.spent("CNY"), tuple[int, int, int])
    assert_type(ledger.unknown_ids(), list[str])
    assert_type(ledger.extra_columns(), list[str])
    assert_type(reason.state, MessageState)
    assert_type((reason.error, reason.reason), tuple[str | None, str | None])
    assert_type((reason.code, reason.meta_code), tuple[int | None, int | None])
    assert_type(reason.count, int)
    assert_type(export(ledger, io.StringIO(), FileFormat.CSV, show_number=str.lower), int)


async def a_run(ledger: Ledger, client: OtpClient, clock: Clock) -> None:
    dispatcher = Dispatcher(ledger, client)
    Dispatcher(ledger, client, rate=80, per_recipient=6, max_per_recipient=3, retry=RetryPolicy(), clock=clock)
    Dispatcher(ledger, client, reject_on=(9004,), patience=60, keep_codes=True)
    budget = Budget(amount=Decimal(350), price=Decimal("0.05"), currency="USD")
    assert_type(budget.amount + budget.price, Decimal)
    assert_type(budget.currency, str)
    assert_type(budget.room(0, 0, 0), int)
    Dispatcher(ledger, client, budget=budget)
    assert_type(dispatcher.set_rate(40), None)
    assert_type(dispatcher.set_rate(None), None)
    assert_type(dispatcher.set_concurrency(8), None)
    assert_type(dispatcher.pause(), None)
    assert_type(dispatcher.resume(), None)
    assert_type(dispatcher.is_paused, bool)
    assert_type(dispatcher.concurrency, int)
    assert_type(dispatcher.counts, Counter[MessageState])
    assert_type(dispatcher.in_flight, int)
    assert_type(dispatcher.rate, float)
    assert_type(dispatcher.is_stopping, bool)
    assert_type(dispatcher.stop(within=5), None)
    report = await dispatcher.run()
    assert_type(report, Report)
    assert_type(report.counts[MessageState.ACCEPTED], int)
    assert_type(report.paused, NxOtpError | None)
    assert_type(report.stopped, bool)


def receipts(ledger: Ledger) -> None:
    sink: EventSink = ReceiptRecorder(ledger)
    settled = settle(ledger, [b"{}"])
    assert_type(settled, Settled)
    assert_type((settled.callbacks, settled.messages), tuple[int, int])
    assert_type(settled.bad_lines, list[int])
    del sink
