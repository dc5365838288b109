"""``nxotp fleet migrate`` and ``nxotp fleet work``, as processes."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import orjson
import pytest
from cryptography.fernet import Fernet
from fleet_support import message

from nxotp_async.fleet import MessageState, Outbox
from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import serve_in_thread

KEY = Fernet.generate_key().decode()


@pytest.fixture
def environment(schema_url: str) -> Iterator[dict[str, str]]:
    with serve_in_thread(Sandbox()) as sandbox:
        yield {**os.environ, **sandbox.environ, "NXOTP_DATABASE_URL": schema_url, "NXOTP_OUTBOX_KEYS": KEY}


def fleet(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "nxotp_async", "fleet", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_tables_are_made_and_then_there_is_nothing_to_migrate(environment: dict[str, str]) -> None:
    needed = fleet(environment, "migrate", "--check")
    assert (needed.returncode, needed.stdout[:8]) == (1, "needed: ")
    made = fleet(environment, "migrate")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == (
        "migrated: the outbox's tables from version 0 to 1; the store's tables from version 0 to 1; "
        "procrastinate's tables (schema.sql)\n"
    )
    again = fleet(environment, "migrate", "--json")
    assert again.returncode == 0
    assert orjson.loads(again.stdout) == {
        "outbox": [1, 1],
        "store": [1, 1],
        "procrastinate": [],
        "migration_needed": False,
    }


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"NXOTP_DATABASE_URL": ""}, "url (or NXOTP_DATABASE_URL) is missing"),
        ({"NXOTP_OUTBOX_KEYS": "no-key"}, "key 1 of NXOTP_OUTBOX_KEYS is no Fernet key"),
        ({}, "the outbox's tables are missing (run  nxotp fleet migrate)"),
    ],
)
def test_a_worker_that_cannot_work_says_why(environment: dict[str, str], variables: dict[str, str], said: str) -> None:
    done = fleet({**environment, **variables}, "work")
    assert (done.returncode, done.stdout) == (3, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_worker_sends_answers_an_orchestrator_and_drains(environment: dict[str, str], schema_url: str) -> None:
    assert fleet(environment, "migrate").returncode == 0

    async def send() -> MessageState:
        async with Outbox(schema_url, keys=[KEY]) as outbox:
            return (await outbox.wait(await outbox.enqueue(message()), timeout=60)).state

    command = [sys.executable, "-m", "nxotp_async", "fleet", "work", "--health", "127.0.0.1:0", "--queues", "login"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        health = re.fullmatch(r"health on (http://\S+)\n", process.stderr.readline())
        assert health is not None
        assert process.stderr.readline().startswith("working for sender default, 80 messages a second")
        assert asyncio.run(send()) is MessageState.ACCEPTED
        assert (status_of(f"{health[1]}/live"), status_of(f"{health[1]}/ready")) == (200, 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
