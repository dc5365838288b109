"""What several processes do at the same moment, over every store, and what is left in the store."""

import asyncio
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
import redis
from verifier_support import KEY, NewVerifier, code_of, wrong

from nxotp_async import RefusalReason, VerificationRefusedError
from nxotp_async.sandbox import Sandbox
from nxotp_async.stores import MemoryStore
from nxotp_async.stores.base import BaseStore
from nxotp_async.testing import FakeClock
from nxotp_async.verification import CheckStatus, Limits, Verification, Verifier

# How many are started for a look into the store; `make dumps` starts 10,000.
VERIFICATIONS = int(os.environ.get("NXOTP_TEST_VERIFICATIONS", "200"))
MANY = Limits(prefix_per_hour=None, ip_per_hour=None, country_per_hour=10**6, messages_per_day=10**6)
NUMBERS = [f"+62 812 3456 {index:04}" for index in range(1000)]


@pytest.fixture
def verifiers(new_verifier: NewVerifier) -> tuple[Verifier, Verifier]:
    return new_verifier(), new_verifier()


async def test_of_ten_right_codes_at_the_same_moment_one_is_approved(
    sandbox: Sandbox, verifiers: tuple[Verifier, Verifier]
) -> None:
    for number in NUMBERS[:20]:
        started = await verifiers[0].start(number)
        code = code_of(sandbox, number)
        checks = await asyncio.gather(*(verifiers[index % 2].check(started.id, code) for index in range(10)))
        assert Counter(check.status for check in checks) == {CheckStatus.APPROVED: 1, CheckStatus.SPENT: 9}


async def test_of_fifty_wrong_codes_at_the_same_moment_five_are_counted(
    sandbox: Sandbox, verifiers: tuple[Verifier, Verifier]
) -> None:
    for number in NUMBERS[:5]:
        started = await verifiers[0].start(number)
        code = code_of(sandbox, number)
        checks = await asyncio.gather(*(verifiers[index % 2].check(started.id, wrong(code)) for index in range(50)))
        assert Counter(check.status for check in checks) == {CheckStatus.WRONG: 5, CheckStatus.SPENT: 45}
        assert sorted(check.checks_left for check in checks if check.status is CheckStatus.WRONG) == [0, 1, 2, 3, 4]
        assert (await verifiers[0].check(started.id, code)).status is CheckStatus.SPENT


async def test_of_many_starts_and_resends_at_the_same_moment_no_more_are_sent_than_allowed(
    sandbox: Sandbox, clock: FakeClock, new_verifier: NewVerifier, store: BaseStore
) -> None:
    verifiers = [new_verifier(limits=Limits(number_per_hour=3)) for _ in range(2)]
    number = f"+62 812 99{Random().randrange(10**6):06}"  # the servers are shared by the tests
    results: list[Any] = await asyncio.gather(
        *(verifiers[index % 2].start(number, ip="192.0.2.1") for index in range(20)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, VerificationRefusedError)]
    assert Counter(error.reason for error in refused) == {RefusalReason.NUMBER_LIMIT: 17}
    assert len(sandbox.messages) == 3
    (started, *_) = [result for result in results if not isinstance(result, VerificationRefusedError)]
    clock.advance(30)
    results = await asyncio.gather(
        *(verifiers[index % 2].resend(started.id) for index in range(10)), return_exceptions=True
    )
    assert Counter(getattr(result, "reason", "sent") for result in results) == {RefusalReason.TOO_SOON: 9, "sent": 1}
    assert len(sandbox.messages) == 4


# ---------------------------------------------------------------------------------------------- what is stored


def dump_of_memory(store: MemoryStore) -> bytes:
    return repr({key: value for key, (_, value) in store._entries.items()}).encode()


def dump_of_postgres(url: str) -> bytes:
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute("SELECT key, value FROM nxotp_entries").fetchall()
        data = connection.execute("SHOW data_directory").fetchone()
        connection.execute("CHECKPOINT")
    directory = Path(data[0] if data else "")
    files = [path for folder in ("pg_wal", "base") for path in (directory / folder).rglob("*") if path.is_file()]
    assert files
    return repr(rows).encode() + b"".join(path.read_bytes() for path in files)


def dump_of_redis(url: str) -> bytes:
    with redis.Redis.from_url(url) as server:
        values = {key: server.get(key) for key in server.scan_iter() if server.type(key) == b"string"}
        config: Any = server.config_get("dir")
        server.config_set("rdbcompression", "no")  # what is compressed cannot be searched
        server.save()
    files = [path for path in Path(config["dir"]).rglob("*") if path.suffix in (".aof", ".rdb")]
    assert {path.suffix for path in files} == {".aof", ".rdb"}
    return repr(values).encode() + b"".join(path.read_bytes() for path in files)


@pytest.fixture
def dump(store_kind: str, store: BaseStore, store_url: str) -> Callable[[], bytes]:
    if isinstance(store, MemoryStore):
        return lambda: dump_of_memory(store)
    return lambda: dump_of_postgres(store_url) if store_kind == "postgres" else dump_of_redis(store_url)


def without_keys(dump: bytes) -> bytes:
    """Leave out the keys in a store: digests, in which any digits stand by chance. An index cuts some of them short."""
    return re.sub(rb"(limit|verification):[0-9a-f]{0,40}|[0-9a-f]{40}", b"", dump)


def possible_codes(dump: bytes) -> set[bytes]:
    """Return all runs of exactly six digits, except those inside what is left of a digest."""
    return set(re.findall(rb"(?<![0-9a-f])\d{6}(?![0-9a-f])", dump))


def parts_of(dump: bytes, characters: bytes, size: int) -> set[bytes]:
    """Return every text of so many of these characters, wherever it stands in a longer one."""
    runs = re.findall(rb"[%b]{%d,}" % (characters, size), dump)
    return {run[at : at + size] for run in set(runs) for at in range(len(run) - size + 1)}


async def test_the_store_never_holds_a_code_a_whole_number_a_key_or_an_id(
    sandbox: Sandbox, new_verifier: NewVerifier, store: BaseStore, dump: Callable[[], bytes]
) -> None:
    await store.get("any")  # PostgreSQL makes its tables
    before = possible_codes(dump())
    verifier = new_verifier(store=store, limits=MANY)
    numbers = Random(1).sample([f"62812{index:08}" for index in range(0, 10**8, 9973)], VERIFICATIONS)
    codes: dict[str, str] = {}
    started: list[Verification] = []
    for first in range(0, VERIFICATIONS, 50):
        some = numbers[first : first + 50]
        verifications = await asyncio.gather(*(verifier.start(f"+{number}", ip="192.0.2.77") for number in some))
        codes |= {message.to: message.otp or "" for message in sandbox.messages}
        sandbox.requests.clear()
        for index, (verification, number) in enumerate(zip(verifications, some, strict=True)):
            if index % 4 < 2:
                check = await verifier.check(verification.id, codes[number] if index % 4 else wrong(codes[number]))
                assert (check.number == number) == check.approved == bool(index % 4)
        started += verifications
    stored = without_keys(dump())
    assert stored.count(b"checks_left") >= VERIFICATIONS
    assert not {code.encode() for code in codes.values()} & (possible_codes(stored) - before)
    assert not {number[2:].encode() for number in numbers} & parts_of(stored, rb"0-9", 11)
    assert not {verification.id.encode() for verification in started} & parts_of(stored, rb"\w-", 32)
    assert not {verification.message_id.encode() for verification in started} & parts_of(stored, rb"0-9a-f", 32)
    assert KEY.encode() not in stored
    assert b"192.0.2.77" not in stored
