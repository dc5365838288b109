"""``nxotp fleet``'s commands that enqueue files, look and repair, over a real PostgreSQL."""

import asyncio
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from bulk_commands import GOOD, otps, write
from click.testing import Result
from commands import CONTENT, OTP, invoke
from fleet_support import KEYS

from nxotp_async.errors import OutboxFullError
from nxotp_async.fleet import Outbox
from nxotp_async.fleet.senders import change_sender
from nxotp_async.stores import PostgresStore

pytest_plugins = ["command_fixtures"]

pytestmark = pytest.mark.usefixtures("own_directory")


@pytest.fixture
def url(schema_url: str) -> str:
    asyncio.run(_migrate(schema_url))
    return schema_url


async def _migrate(url: str) -> None:
    async with PostgresStore(url):
        outbox = Outbox(url, keys=KEYS)
        await outbox.migrate()
        await outbox.aclose()


def fleet(url: str, *arguments: str, stdin: bytes = b"") -> Result:
    return invoke("fleet", *arguments, env={"NXOTP_DATABASE_URL": url, "NXOTP_OUTBOX_KEYS": KEYS[0]}, stdin=stdin)


def change(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def status(url: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(fleet(url, "status", "--json").stdout)
    return shown


def test_a_file_that_is_loaded_twice_adds_nothing(url: str) -> None:
    file = otps(*GOOD[:3])
    first, second = fleet(url, "load", file), fleet(url, "load", file)
    assert (first.exit_code, first.stderr) == (0, "3 rows: 3 valid\n3 messages enqueued\n")
    assert (second.exit_code, second.stderr) == (0, "3 rows: 3 valid\n0 messages enqueued, 3 were there already\n")
    (sender,) = status(url)["senders"]
    assert sender["queued"] == {"login": 0, "bulk": 3}
    assert sender["oldest_queued"] >= 0


def test_the_rules_for_rows_are_those_of_bulk(url: str) -> None:
    rows = (f"{GOOD[0]},{CONTENT},a", f"{GOOD[1]},{CONTENT},a", f"12,{CONTENT},b")
    file = write(*rows, header="to,content,cus_message_id")
    strict = fleet(url, "load", "--strict", file)
    assert (strict.exit_code, status(url)["senders"][0]["states"]["queued"]) == (2, 0)
    loaded = fleet(url, "load", file)
    assert loaded.exit_code == 0
    assert "line 3: cus_message_id is that of line 2" in loaded.stderr
    assert "3 rows: 1 valid, 2 invalid, written to otps.rejects.csv" in loaded.stderr
    assert len(Path("otps.rejects.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_what_has_expired_is_left_out(url: str) -> None:
    file = write(f"{GOOD[0]},{CONTENT},2020-01-01T00:00:00Z", header="to,content,expires_at")
    assert fleet(url, "load", file).stderr.endswith("\n0 messages enqueued, 1 had expired\n")


def test_a_full_outbox_is_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third message finds the outbox full, and is enqueued when the first two are gone."""
    enqueue_many = Outbox.enqueue_many
    refused = []

    async def enqueue(self: Outbox, messages: Any, **options: Any) -> Any:
        try:
            return await enqueue_many(self, messages, **options)
        except OutboxFullError:
            refused.append(messages)
            change(url, "DELETE FROM nxotp_outbox")
            raise

    monkeypatch.setattr(Outbox, "enqueue_many", enqueue)
    monkeypatch.setattr("nxotp_async.fleet.loading._LOOK_AGAIN", 0.0)
    result = fleet(url, "load", otps(*GOOD[:3]), "--max-queued", "2")
    assert (result.exit_code, len(refused)) == (0, 1)
    assert "waiting: 2 messages are queued in bulk" in result.stderr
    assert result.stderr.endswith("\n3 messages enqueued\n")


def test_what_is_left_after_a_failure_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = otps(*GOOD[:3])
    change(url, "ALTER TABLE nxotp_outbox RENAME COLUMN sealed TO other")
    result = fleet(url, "load", file)
    assert result.exit_code != 0
    assert "0 messages enqueued; repeat the command for the rest" in result.stderr


def test_unknown_outcomes_are_listed_and_resolved(url: str) -> None:
    rows = [f"{number},{CONTENT},m{place}" for place, number in enumerate(GOOD[:5])]
    fleet(url, "load", write(*rows, header="to,content,cus_message_id"))
    change(url, "UPDATE nxotp_outbox SET state = 'unknown', finished_at = now()")
    assert fleet(url, "resolve").stdout == "m0\nm1\nm2\nm3\nm4\n"
    by_hand = fleet(url, "resolve", "delivered", "m0", "other")
    assert by_hand.exit_code == 1
    assert by_hand.stderr.startswith("1 of 2 delivered; 4 unknown\n")
    assert fleet(url, "resolve", "failed", "m1").stderr == "1 of 1 failed; 3 unknown\n"
    callbacks = b'{"statuses":[{"id":"m2","status":"delivered"}]}\n\nnonsense\n'
    Path("callbacks").write_bytes(callbacks)
    by_callback = fleet(url, "resolve", "--callbacks", "callbacks")
    assert by_callback.exit_code == 1
    assert "1 callbacks read; they updated messages 1 times; 2 unknown" in by_callback.stderr
    assert "1 lines are not callbacks: 3" in by_callback.stderr
    assert fleet(url, "resolve", "failed", "--all").stderr == "2 of 2 failed; 0 unknown\n"
    assert fleet(url, "resolve").stdout == ""
    states = status(url)["senders"][0]["states"]
    assert (states["accepted"], states["rejected"]) == (2, 3)


@pytest.mark.parametrize("arguments", [("--all",), ("failed",), ("failed", "a", "--all")])
def test_what_to_resolve_must_be_said(url: str, arguments: tuple[str, ...]) -> None:
    assert fleet(url, "resolve", *arguments).exit_code == 2


def test_the_export_holds_outcomes_and_neither_codes_nor_numbers(url: str) -> None:
    fleet(url, "load", write(f"{GOOD[0]},{CONTENT},a", header="to,content,cus_message_id"))
    csv = fleet(url, "export").stdout.splitlines()
    assert csv[0].startswith("cus_message_id,sender,queue,status,message_id,code,")
    assert csv[1].startswith("a,default,bulk,queued,")
    for _ in range(2):
        result = fleet(url, "export", "-o", "out.ndjson")
        assert (result.exit_code, result.stderr) == (0, "1 rows written to out.ndjson\n")
    text = Path("out.ndjson").read_text(encoding="utf-8")
    assert json.loads(text)["status"] == "queued"
    assert OTP not in text
    assert GOOD[0] not in text
    Path("out.csv").write_text("mine", encoding="utf-8")
    assert fleet(url, "export", "-o", "out.csv").exit_code == 2


def test_a_paused_sender_is_shown_and_resumed(url: str) -> None:
    async def pause() -> None:
        async with PostgresStore(url) as store:
            await change_sender(store, "default", lambda state: state.pause("no balance", 1e9).throttled(80, 1e9, 1e9))

    asyncio.run(pause())
    shown = fleet(url, "status").stdout
    assert "workers 0" in shown
    assert "paused since 2001-09-09T01:46:40+00:00: no balance" in shown
    assert "/s at most" in shown
    assert fleet(url, "resume").stderr == "sender default goes on; it was paused: no balance\n"
    assert fleet(url, "resume").stderr == "sender default is not paused\n"
    assert status(url)["senders"][0]["paused"] is None


def test_outcomes_are_shown_with_their_reasons(url: str) -> None:
    fleet(url, "load", otps(*GOOD[:2]))
    change(
        url,
        "UPDATE nxotp_outbox SET state = 'rejected', code = 9015, error = 'ParameterError', sent_at = now(), "
        "finished_at = now()",
    )
    (sender,) = status(url)["senders"]
    assert sender["outcomes"] == [{"state": "rejected", "error": "ParameterError", "code": 9015, "count": 2}]
    assert sender["rate"] == 0.2
    assert "ParameterError 9015" in fleet(url, "status").stdout


def test_watching_ends_when_nobody_reads(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = iter([True, True, False])
    printed: list[bytes] = []

    def show(text: bytes) -> bool:
        printed.append(text)
        return next(shown)

    monkeypatch.setattr("nxotp_async.cli.fleet.status.print_data", show)
    assert fleet(url, "status", "--watch", "--json", "--every", "0.1").exit_code == 0
    assert [json.loads(text)["workers"] for text in printed] == [0, 0, 0]
    assert all(b"\n" not in text for text in printed)
