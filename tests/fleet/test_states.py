"""The life of a row: as it is told in ``states.py``, and as the statements do it on a real server."""

import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import orjson
import psycopg
import pytest
from fleet_support import message

from nxotp_async.callbacks import TERMINAL_STATUSES, advances
from nxotp_async.fleet import MessageState, Outbox
from nxotp_async.fleet.statements import CLAIM, EXPIRE, INTERRUPT, RECEIVE, SETTLE
from nxotp_async.fleet.states import OutboxRow, Report

QUEUED, SENDING, UNKNOWN = MessageState.QUEUED, MessageState.SENDING, MessageState.UNKNOWN
ACCEPTED, REJECTED, NOT_SENT = MessageState.ACCEPTED, MessageState.REJECTED, MessageState.NOT_SENT
ROWS, STEPS = 400, 14
FAR = 1e6  # seconds, in which no test ends
# What a worker may report: where the row goes, and what the attempt ended with.
REPORTS = [
    (ACCEPTED, ACCEPTED),
    (REJECTED, REJECTED),
    (NOT_SENT, NOT_SENT),
    (UNKNOWN, UNKNOWN),
    (QUEUED, REJECTED),
    (QUEUED, NOT_SENT),
]


def report(claim: int, state: MessageState, outcome: MessageState, *, delay: float = 0.0, row: int = 1) -> Report:
    return Report(row, claim, state, outcome, delay=delay)


def sending(**fields: Any) -> OutboxRow:
    return OutboxRow(expires_at=100, state=SENDING, claims=1, **fields)


def test_a_row_is_claimed_once_and_only_while_its_code_is_valid() -> None:
    row = OutboxRow(expires_at=100, not_before=10)
    assert row.claim(9) is None
    assert row.claim(100) is None
    claimed = row.claim(10)
    assert claimed is not None
    assert (claimed.state, claimed.claims) == (SENDING, 1)
    assert claimed.claim(11) is None


def test_a_report_of_an_earlier_claim_changes_nothing() -> None:
    row = OutboxRow(expires_at=100, state=SENDING, claims=2)
    assert row.settle(report(1, ACCEPTED, ACCEPTED), 1) is row


@pytest.mark.parametrize(
    ("outcome", "becomes"), [(ACCEPTED, ACCEPTED), (REJECTED, REJECTED), (NOT_SENT, NOT_SENT), (UNKNOWN, UNKNOWN)]
)
def test_a_worker_that_was_only_cut_off_reports_late_and_nothing_is_sent_again(
    outcome: MessageState, becomes: MessageState
) -> None:
    row = sending().interrupt()
    assert row.state is UNKNOWN
    goes = QUEUED if outcome in (REJECTED, NOT_SENT) else outcome
    assert row.settle(report(1, goes, outcome), 1).state is becomes


def test_what_expires_has_the_outcome_of_its_last_attempt() -> None:
    assert OutboxRow(expires_at=100).expire(99).state is QUEUED
    assert OutboxRow(expires_at=100).expire(100).state is NOT_SENT
    again = sending().settle(report(1, QUEUED, REJECTED, delay=5), 50)
    assert (again.state, again.not_before) == (QUEUED, 55)
    assert again.expire(100).state is REJECTED


def test_a_callback_settles_whatever_may_have_gone_out() -> None:
    assert OutboxRow(expires_at=100).receive("sent").state is QUEUED
    assert sending().receive("sent").state is SENDING
    assert sending().receive("sent").interrupt().state is ACCEPTED
    assert sending().receive("sent").settle(report(1, UNKNOWN, UNKNOWN), 1).state is ACCEPTED
    assert sending().receive("sent").settle(report(1, QUEUED, REJECTED), 1).state is ACCEPTED
    assert sending().interrupt().receive("failed").state is ACCEPTED
    assert sending().settle(report(1, QUEUED, REJECTED), 1).receive("delivered").state is ACCEPTED
    assert sending().settle(report(1, REJECTED, REJECTED), 1).receive("delivered").state is REJECTED


# ---------------------------------------------------------------------------------------------- on a server


class _Rows:
    """Rows that go through the same life twice: in memory, and on the server."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], ids: list[int]) -> None:
        self.rows = {id_: OutboxRow(expires_at=FAR) for id_ in ids}
        self._connection = connection

    async def execute(self, statement: Any, arguments: dict[str, Any]) -> None:
        await self._connection.execute(statement, arguments)

    async def do(self, event: str, ids: list[int], chance: random.Random) -> None:
        await {
            "claim": self.claim,
            "settle": self.settle,
            "interrupt": self.interrupt,
            "expire": self.expire,
            "receive": self.receive,
            "wait": self.wait,
        }[event](ids, chance)

    def _change(self, ids: list[int], change: Callable[[OutboxRow], OutboxRow | None]) -> None:
        for id_ in ids:
            self.rows[id_] = change(self.rows[id_]) or self.rows[id_]

    async def claim(self, ids: list[int], _: random.Random) -> None:
        await self.execute(CLAIM, {"ids": ids, "worker": 1})
        self._change(ids, lambda row: row.claim(0.0))

    async def settle(self, ids: list[int], chance: random.Random) -> None:
        reports = [
            report(
                self.rows[id_].claims - (chance.random() < 0.2),
                *chance.choice(REPORTS),
                delay=chance.choice([0.0, 5000.0]),
                row=id_,
            )
            for id_ in ids
        ]
        values = [
            {"id": r.id, "claim": r.claim, "state": r.state, "outcome": r.outcome, "delay": r.delay, "refusals": 0}
            for r in reports
        ]
        await self.execute(SETTLE, {"reports": orjson.dumps(values).decode()})
        for each in reports:
            self.rows[each.id] = self.rows[each.id].settle(each, 0.0)

    async def interrupt(self, ids: list[int], _: random.Random) -> None:
        await self.execute("UPDATE nxotp_outbox SET worker_id = 2 WHERE id = ANY(%(ids)s)", {"ids": ids})
        await self.execute(INTERRUPT, {"stalled_after": 60, "longest": 600})
        self._change(ids, OutboxRow.interrupt)

    async def expire(self, ids: list[int], _: random.Random) -> None:
        past = "UPDATE nxotp_outbox SET expires_at = now() - interval '1 s' WHERE id = ANY(%(ids)s)"
        await self.execute(past, {"ids": ids})
        await self.execute(EXPIRE, {"limit": 10 * ROWS})
        for id_ in ids:
            self.rows[id_] = OutboxRow(
                -1.0,
                *(getattr(self.rows[id_], name) for name in ("state", "claims", "not_before", "outcome", "receipt")),
            )
        self._change([*self.rows], lambda row: row.expire(0.0))

    async def receive(self, ids: list[int], chance: random.Random) -> None:
        status = chance.choice(["sent", "delivered", "failed"])
        known = ("queued", "sent", "delivered", "read", *TERMINAL_STATUSES)
        earlier = [each for each in known if advances(each, status)]
        for id_ in ids:
            await self.execute(RECEIVE, {"message_id": f"m{id_}", "status": status, "earlier": earlier})
        self._change(ids, lambda row: row.receive(status))

    async def wait(self, ids: list[int], _: random.Random) -> None:
        """Let the time of those that wait come."""
        await self.execute("UPDATE nxotp_outbox SET not_before = now() WHERE id = ANY(%(ids)s)", {"ids": ids})
        for id_ in ids:
            row = self.rows[id_]
            self.rows[id_] = OutboxRow(row.expires_at, row.state, row.claims, 0.0, row.outcome, row.receipt)


async def test_the_statements_do_what_is_told(outbox: Outbox, schema_url: str) -> None:
    """Hundreds of rows have an event each at every step, at random; after each step all are as they should be."""
    chance = random.Random(17)
    await outbox.enqueue_many([message(number) for number in range(ROWS)])
    async with await psycopg.AsyncConnection.connect(schema_url, autocommit=True) as connection:
        await connection.execute(
            "UPDATE nxotp_outbox SET cus_message_id = 'm' || id, expires_at = now() + interval '1 h'"
        )
        await connection.execute(
            "INSERT INTO procrastinate_workers OVERRIDING SYSTEM VALUE VALUES (1, now() + interval '1 h')"
        )
        cursor = await connection.execute("SELECT id FROM nxotp_outbox ORDER BY id")
        rows = _Rows(connection, [id_ for (id_,) in await cursor.fetchall()])
        seen: set[MessageState] = set()
        for step in range(STEPS):
            events: defaultdict[str, list[int]] = defaultdict(list)
            for id_ in rows.rows:
                kinds, weights = ["claim", "settle", "interrupt", "expire", "receive", "wait"], [6, 4, 1, 0.3, 0.5, 2]
                events[chance.choices(kinds, weights)[0]].append(id_)
            for event, ids in events.items():
                await rows.do(event, ids, chance)
                cursor = await connection.execute(
                    "SELECT id, state, claims, receipt, outcome, not_before > now() + interval '1 min', "
                    "sealed IS NOT NULL FROM nxotp_outbox ORDER BY id"
                )
                for id_, state, claims, receipt, outcome, waits, has_content in await cursor.fetchall():
                    row = rows.rows[id_]
                    told = (row.state, row.claims, row.receipt)
                    assert (state, claims, receipt) == told, (step, event, id_)
                    seen.add(row.state)
                    assert has_content == (row.state in (QUEUED, SENDING, UNKNOWN)), (step, event, row)
                    if row.state is QUEUED:
                        assert (outcome, waits) == (row.outcome, row.not_before > 0), (step, event, row)
        assert seen == {*MessageState}
