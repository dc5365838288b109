from collections.abc import Iterator

import orjson
import pytest
from bulk_ledgers import ACCEPTED, UNKNOWN, ProbedLedger, begin, brought_to, claim, entries, record, row, take

from nxotp_async.bulk import Settled, settle
from nxotp_async.bulk.schema import Transition


@pytest.fixture
def ledger() -> Iterator[ProbedLedger]:
    with ProbedLedger(None) as ledger:
        yield ledger


# ---------------------------------------------------------------------------------------------- callbacks


def callback(*statuses: tuple[str, str]) -> bytes:
    """Return the body of a callback, as a line of a file."""
    return orjson.dumps({"statuses": [{"id": key, "status": status} for key, status in statuses]}) + b"\n"


_CLICK = b'{"messages":[{"from":"9995550100","type":"button"}]}\n'
_SETTLED = [
    pytest.param([callback(("id-1", "sent"))], Settled(1, 1, []), "accepted", "sent", id="one"),
    pytest.param([callback(("id-1", "failed"))], Settled(1, 1, []), "accepted", "failed", id="failed"),
    pytest.param([callback(("id-1", "Delivered"))], Settled(1, 1, []), "accepted", "delivered", id="letter case"),
    pytest.param([callback(("id-1", "deleted"))], Settled(1, 1, []), "accepted", "deleted", id="deleted"),
    pytest.param([callback(("id-1", "played"))], Settled(1, 0, []), "unknown", None, id="a new status"),
    pytest.param(
        [callback(("id-1", "read")), callback(("id-1", "sent")), callback(("id-1", "delivered"))],
        Settled(3, 1, []), "accepted", "read", id="out of order",
    ),
    pytest.param(
        [callback(("id-1", "read"), ("id-1", "sent"), ("id-77", "read"))],
        Settled(1, 1, []), "accepted", "read", id="many in one",
    ),
    pytest.param(
        [callback(("id-1", "failed")), callback(("id-1", "sent"))],
        Settled(2, 1, []), "accepted", "failed", id="failed, sent",
    ),
    pytest.param(
        [callback(("id-1", "sent")), callback(("id-1", "failed"))],
        Settled(2, 1, []), "accepted", "failed", id="sent, failed",
    ),
    pytest.param(
        [callback(("id-1", "delivered")), callback(("id-1", "failed"))],
        Settled(2, 1, []), "accepted", "delivered", id="delivered, failed",
    ),
    pytest.param([callback(("id-1", "sent"))] * 5, Settled(5, 1, []), "accepted", "sent", id="repeated"),
    pytest.param([callback(("id-77", "read"))], Settled(1, 0, []), "unknown", None, id="a foreign id"),
    pytest.param([_CLICK], Settled(1, 0, []), "unknown", None, id="a click"),
    pytest.param([b"", b"\n", b" \r\n"], Settled(0, 0, []), "unknown", None, id="blank lines"),
    pytest.param([], Settled(0, 0, []), "unknown", None, id="nothing"),
    pytest.param(
        [b"\n", b"nonsense\n", _CLICK, b"[]\n", callback(("id-1", "read")), b'{"statuses":[\n', b"\xff\n"],
        Settled(2, 1, [2, 4, 6, 7]), "accepted", "read", id="bad lines",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "settled", "state", "receipt"), _SETTLED)
def test_callbacks_settle_what_is_unknown(
    ledger: ProbedLedger, lines: list[bytes], settled: Settled, state: str, receipt: str | None
) -> None:
    brought_to(UNKNOWN, ledger)
    assert settle(ledger, lines) == settled
    result = row(ledger)
    assert (result["status"], result["receipt"]) == (state, receipt)
    assert result["message_id"] == (None if receipt is None else "id-1")
    assert settle(ledger, lines).messages == 0


def test_files_of_callbacks_longer_than_a_batch_are_settled_batch_by_batch(ledger: ProbedLedger) -> None:
    take(ledger, *entries(2500))
    begin(ledger)
    claim(ledger, 2500)
    record(ledger, *[Transition(key, UNKNOWN, 1) for key in range(1, 2501)])
    lines = [callback((f"id-{number}", "delivered")) for number in range(1, 2401)]
    lines[1999] = b"nonsense\n"
    lines += [callback(("id-1", "sent")), callback(("id-2", "read"))]
    before = ledger.transactions
    assert settle(ledger, iter(lines)) == Settled(2401, 2400, [2000])
    assert ledger.transactions - before == 3
    assert ledger.counts() == {ACCEPTED: 2399, UNKNOWN: 101}
    assert [row(ledger, number)["receipt"] for number in (1, 2, 3)] == ["delivered", "read", "delivered"]
    assert ledger.unknown_ids()[0] == "id-2000"
