import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bulk_runs import (
    ACCEPTED,
    AT_ONCE,
    LOST,
    NOT_SENT,
    QUEUED,
    REJECTED,
    SENDING,
    START,
    UNKNOWN,
    UNREACHABLE,
    Post,
    Treatment,
    Vendor,
    WatchedLedger,
    always,
    check,
    check_at,
    fail_some,
    in_state,
    in_virtual_time,
    ledger_of,
    message,
    messages,
    meta_refusal,
    refusal,
    rows,
    run,
    run_at,
    settled,
    virtual_dispatcher,
)
from support import VENDOR_FAILURES

from nxotp_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    InvalidSignatureError,
    LedgerError,
    NotSentError,
    PermissionDeniedError,
    RetryPolicy,
    TimestampExpiredError,
)
from nxotp_async.bulk import Dispatcher, Ledger, MessageState, Report
from nxotp_async.bulk.schema import Transition
from nxotp_async.sandbox import Fault, FaultKind, Sandbox, sandbox_client
from nxotp_async.testing import serve_in_thread
from nxotp_async.transports import Answer


async def test_everything_is_accepted_once_with_its_message_id() -> None:
    with ledger_of(messages(200)) as ledger:
        async with Sandbox(echo_message_id=False) as sandbox:
            report = await run_at(sandbox, ledger, concurrency=16)
        assert report == Report(Counter({ACCEPTED: 200}), None, False)
        ids = {request.cus_message_id: request.message_id for request in sandbox.messages}
        assert {name: row["message_id"] for name, row in rows(ledger).items()} == ids
        assert {row["attempts"] for row in rows(ledger).values()} == {1}
        assert len(sandbox.requests) == 200
        assert ledger.most_in_flight <= 16
        assert sandbox.max_in_flight <= 16


async def test_a_ledger_with_nothing_queued_is_done_at_once() -> None:
    with ledger_of([]) as ledger:
        async with Sandbox() as sandbox:
            assert await run_at(sandbox, ledger) == Report(Counter(), None, False)
            assert not sandbox.requests


async def test_what_is_done_is_not_sent_again_by_a_second_run() -> None:
    with ledger_of(messages(10)) as ledger:
        async with Sandbox() as sandbox:
            for _ in range(2):
                assert (await run_at(sandbox, ledger)).counts == {ACCEPTED: 10}
            assert len(sandbox.requests) == 10


@pytest.mark.parametrize(
    ("faults", "max_attempts", "state", "code"),
    [
        pytest.param([-1], 5, ACCEPTED, None, id="-1 once"),
        pytest.param([-1, 9001, -1, 9001], 5, ACCEPTED, None, id="four times"),
        pytest.param([-1, -1, -1, -1, 9001], 5, REJECTED, 9001, id="five times"),
        pytest.param([9001], 1, REJECTED, 9001, id="one attempt"),
        pytest.param([-1, -1], 2, REJECTED, -1, id="two attempts"),
    ],
)
async def test_a_temporary_refusal_is_sent_again_as_it_was_until_the_attempts_run_out(
    faults: list[int], max_attempts: int, state: MessageState, code: int | None
) -> None:
    attempts = min(len(faults) + 1, max_attempts)
    with ledger_of(messages(1)) as ledger:
        async with Sandbox() as sandbox:
            sandbox.script(*map(Fault.answer, faults))
            policy = RetryPolicy(max_attempts=max_attempts, backoff_base=0.0)
            report = await run_at(sandbox, ledger, retry=policy)
            assert report == Report(Counter({state: 1}), None, False)
            assert len(sandbox.requests) == attempts
            assert len({request.body for request in sandbox.requests}) == 1
            assert {request.cus_message_id for request in sandbox.requests} == {"m0"}
        (row,) = rows(ledger).values()
        assert (row["attempts"], row["code"]) == (attempts, code)
        assert (row["error"] is None) == (state is ACCEPTED)


async def test_every_failure_is_final_in_its_own_way_and_others_go_on() -> None:
    expected: dict[str, tuple[MessageState, int | None, int | None, str | None]] = {
        "999000001002": (REJECTED, 1002, None, "ParameterError"),
        "999000009000": (REJECTED, 9000, None, "ParameterError"),
        "999000009007": (REJECTED, 9007, None, "ApiError"),
        "999000009014": (REJECTED, 9014, None, "TemplateError"),
        "999000009015": (REJECTED, 9015, None, "OtpContentError"),
        "999000010005": (REJECTED, 10005, None, "TemplateError"),
        "999100000100": (REJECTED, 9099, 100, "MetaError"),
        "999100131026": (REJECTED, 9099, 131026, "MetaError"),
        "999100131016": (REJECTED, 9099, 131016, "MetaError"),
        "999200000307": (REJECTED, None, None, "ApiError"),
        "999200000403": (REJECTED, None, None, "ApiError"),
        "999200000500": (UNKNOWN, None, None, "OutcomeUnknownError"),
        "999200000502": (UNKNOWN, None, None, "OutcomeUnknownError"),
        "999300000001": (UNKNOWN, None, None, "OutcomeUnknownError"),
        "999300000002": (UNKNOWN, None, None, "OutcomeUnknownError"),
        "999300000003": (UNKNOWN, None, None, "OutcomeUnknownError"),
        "999300000004": (UNKNOWN, None, None, "OutcomeUnknownError"),
        "999300000005": (UNKNOWN, None, None, "OutcomeUnknownError"),
        "999300000007": (UNKNOWN, None, None, "OutcomeUnknownError"),
        **{f"9995550{number:03d}": (ACCEPTED, None, None, None) for number in range(30)},
    }
    with ledger_of(message(number, to) for number, to in enumerate(expected)) as ledger:
        async with Sandbox() as sandbox:
            report = await run_at(sandbox, ledger, concurrency=16, reject_on=[307, 403])
        assert report.paused is None
        fields = ("status", "code", "meta_code", "error")
        assert {row["to"]: tuple(row[name] for name in fields) for row in rows(ledger).values()} == expected
        sent_again = {row["to"] for row in rows(ledger).values() if row["attempts"] != 1}
        assert sent_again == {"999100131016"}


# ---------------------------------------------------------------------------------------------- account errors


# A refused timestamp is first corrected.
PAUSING = [
    code
    for code, error in VENDOR_FAILURES.items()
    if issubclass(error, AccountError | AuthenticationError) and error is not TimestampExpiredError
]


@pytest.mark.parametrize("code", PAUSING)
def test_an_account_error_that_lasts_pauses_the_run_and_loses_nothing(code: int) -> None:
    vendor = Vendor(lambda _: refusal(code) if len(vendor.accepted) >= 20 else None)
    with ledger_of(messages(60)) as ledger:
        ended = run(ledger, vendor)
        assert isinstance(ended.report.paused, ApiError)
        assert ended.report.paused.code == code
        assert not ended.report.stopped
        assert ended.report.counts == {ACCEPTED: 20, QUEUED: 40}
        refused = {post.name for post in vendor.posts} - {*vendor.accepted}
        assert {rows(ledger)[name]["code"] for name in refused} == {code}
        assert len(vendor.posts) <= 20 + 5 * 4
        assert ended.at < 6
        vendor.treat = None
        assert run(ledger, vendor).report == Report(Counter({ACCEPTED: 60}), None, False)


@pytest.mark.parametrize("code", PAUSING)
def test_a_stray_account_error_does_not_end_the_run(code: int) -> None:
    vendor = Vendor(lambda post: refusal(code) if post.name in ("m0", "m30", "m31") and post.attempt == 1 else None)
    with ledger_of(messages(60)) as ledger:
        assert run(ledger, vendor).report == Report(Counter({ACCEPTED: 60}), None, False)
    assert len(vendor.posts) == 63


@pytest.mark.parametrize("max_attempts", [1, 5])
def test_a_message_that_is_refused_so_time_and_again_while_others_pass_is_rejected(max_attempts: int) -> None:
    vendor = Vendor(lambda post: refusal(9004) if post.name == "m7" else None)
    with ledger_of(messages(1000)) as ledger:
        report = run(ledger, vendor, rate=20, retry=RetryPolicy(max_attempts=max_attempts)).report
        assert report == Report(Counter({ACCEPTED: 999, REJECTED: 1}), None, False)
        assert rows(ledger)["m7"]["code"] == 9004
    assert len(vendor.times("m7")) == max_attempts + 1


@pytest.mark.parametrize(("code", "error"), [(1003, InvalidSignatureError), (1005, PermissionDeniedError)])
def test_wrong_keys_pause_the_run_before_much_is_posted(code: int, error: type[AuthenticationError]) -> None:
    vendor = Vendor(always(refusal(code)))
    with ledger_of(messages(500)) as ledger:
        ended = run(ledger, vendor)
        assert type(ended.report.paused) is error
        assert ended.report.counts == {QUEUED: 500}
        assert len(vendor.posts) <= 5 * 4
        vendor.treat = None
        assert run(ledger, vendor).report.counts == {ACCEPTED: 500}


def test_a_certificate_that_is_refused_pauses_the_run() -> None:
    vendor = Vendor(always(NotSentError("the certificate was refused")))
    with ledger_of(messages(50)) as ledger:
        ended = run(ledger, vendor)
        assert isinstance(ended.report.paused, NotSentError)
        assert ended.report.counts == {QUEUED: 50}
        assert len(vendor.posts) <= 5 * 4
        assert ended.at < 6
        vendor.treat = None
        assert run(ledger, vendor).report.counts == {ACCEPTED: 50}


async def test_a_file_that_is_refused_message_by_message_for_one_reason_pauses_the_run() -> None:
    with ledger_of(messages(400)) as ledger:
        async with Sandbox(fault_rate=1.0, faults=[Fault.answer(10005)]) as sandbox:
            report = await run_at(sandbox, ledger)
        assert isinstance(report.paused, ApiError)
        assert report.paused.code == 10005
        assert 100 < report.counts[REJECTED] <= 104
    with ledger_of(messages(200)) as ledger:
        async with Sandbox(fault_rate=1.0, faults=[Fault.answer(10005)]) as sandbox:
            assert await run_at(sandbox, ledger, reject_on=[10005]) == Report(Counter({REJECTED: 200}), None, False)


@pytest.mark.parametrize(
    "options",
    [
        *({"rate": value} for value in (0, -1, float("nan"), float("inf"), "80", True)),
        *({"per_recipient": value} for value in (0, -1.0, float("nan"), "6")),
        *({"max_per_recipient": value} for value in (0, 1.5, True)),
        {"retry": 3},
        {"reject_on": ["9004"]},
        {"reject_on": None},
    ],
    ids=str,
)
async def test_an_argument_that_is_wrong_is_told_at_once(options: dict[str, Any]) -> None:
    (name,) = options
    with Ledger(None) as ledger:
        async with sandbox_client("http://127.0.0.1:9") as client:
            with pytest.raises(ConfigurationError, match=f"^{name} must"):
                Dispatcher(ledger, client, **options)


async def test_a_dispatcher_runs_once() -> None:
    with ledger_of(messages(3)) as ledger:
        async with Sandbox() as sandbox, sandbox.client() as client:
            dispatcher = Dispatcher(ledger, client)
            await dispatcher.run()
            with pytest.raises(RuntimeError, match="runs once"):
                await dispatcher.run()
            assert len(sandbox.requests) == 3


async def test_a_code_to_reject_on_refuses_its_message_and_the_run_goes_on() -> None:
    batch = [*messages(20), message(20, "999000009004"), *(message(number) for number in range(21, 40))]
    with ledger_of(batch) as ledger:
        async with Sandbox() as sandbox:
            report = await run_at(sandbox, ledger, reject_on={9004})
        assert report == Report(Counter({ACCEPTED: 39, REJECTED: 1}), None, False)
        assert rows(ledger)["m20"]["code"] == 9004


def test_without_it_the_same_code_pauses_the_run_where_nothing_else_comes() -> None:
    vendor = Vendor(always(refusal(9004)))
    with ledger_of(messages(40)) as ledger:
        ended = run(ledger, vendor, reject_on={9005})
        assert isinstance(ended.report.paused, AccountError)
        assert ended.report.counts == {QUEUED: 40}


@pytest.mark.parametrize("offset", [600, -600])
async def test_a_wrong_clock_is_corrected_and_everything_is_accepted(offset: float) -> None:
    with ledger_of(messages(60)) as ledger:
        async with Sandbox(clock_offset=offset) as sandbox:
            report = await run_at(sandbox, ledger)
            assert report == Report(Counter({ACCEPTED: 60}), None, False)
            assert len(sandbox.requests) <= 60 + 4


# ---------------------------------------------------------------------------------------------- the ledger


@pytest.mark.parametrize("exchange", [1, 2, 5])
async def test_a_ledger_that_cannot_be_written_ends_the_run_and_nothing_is_posted_that_it_does_not_know(
    exchange: int, tmp_path: Path
) -> None:
    class FullDisk(WatchedLedger):
        exchanges = 0

        def record(self, transitions: Sequence[Transition], now: float) -> None:
            self.exchanges += 1
            if self.exchanges == exchange:
                ((pages,),) = self.connection.execute("PRAGMA page_count")
                self.connection.execute(f"PRAGMA max_page_count = {pages}")
            super().record(transitions, now)

    path = tmp_path / "ledger"
    with ledger_of(messages(200), path):
        pass
    with serve_in_thread(Sandbox()) as sandbox:
        async with sandbox.client(max_concurrency=16) as client:
            with FullDisk(path) as full:
                before = asyncio.all_tasks()
                with pytest.raises(LedgerError, match="the disk is full"):
                    await Dispatcher(full, client).run()
                await settled(client, before)
            assert len(sandbox.requests) < 200
        with WatchedLedger(path) as ledger:
            check_at(sandbox, ledger)
            assert {str(request.cus_message_id) for request in sandbox.requests} <= (
                in_state(ledger, UNKNOWN) | in_state(ledger, ACCEPTED)
            )
            assert len(in_state(ledger, UNKNOWN)) <= 16
            unknown = ledger.counts()[UNKNOWN]
            assert (await run_at(sandbox, ledger)).counts == +Counter({ACCEPTED: 200 - unknown, UNKNOWN: unknown})


@pytest.mark.parametrize("treat", [None, fail_some], ids=["all accepted", "some failing"])
def test_whatever_is_posted_has_been_written_as_in_flight_before(treat: Treatment | None) -> None:
    def check_intent(name: str) -> None:
        assert not ledger.connection.in_transaction
        assert in_state(ledger, SENDING) >= {name}
        assert ledger.counts()[SENDING] == ledger.in_flight <= 8

    vendor = Vendor(treat)
    vendor.before_post = check_intent
    with ledger_of(messages(100)) as ledger:
        assert run(ledger, vendor, concurrency=8).report.counts.total() == 100
        assert ledger.most_in_flight == 8


def test_fifty_sends_cost_one_commit_at_the_most() -> None:
    vendor = Vendor(latency=0.05)
    with ledger_of(messages(5000)) as ledger:
        before = ledger.transactions
        assert run(ledger, vendor, concurrency=100).report.counts == {ACCEPTED: 5000}
        assert ledger.transactions - before <= 5000 / 50
        assert ledger.most_in_flight == 100


@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_a_long_run_needs_few_tasks_and_keeps_within_its_permits(concurrency: int) -> None:
    most = 0

    def sample(name: str) -> None:
        nonlocal most
        if len(vendor.posts) % 5 == 0:
            most = max(most, len(asyncio.all_tasks()))

    vendor = Vendor(lambda post: refusal(-1) if post.attempt == 1 and int(post.name[1:]) % 7 == 0 else None)
    vendor.before_post = sample
    number = 5000 if concurrency == 64 else 500
    with ledger_of(messages(number)) as ledger:
        assert run(ledger, vendor, concurrency=concurrency, retry=AT_ONCE).report.counts == {ACCEPTED: number}
        assert ledger.most_in_flight == concurrency
    assert most <= concurrency + 10


def test_the_counts_shown_meanwhile_are_those_of_what_has_an_outcome() -> None:
    async def sample(dispatcher: Dispatcher) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < 150:
            await asyncio.sleep(1.003)
            now = loop.time()
            done = sum(at + vendor.latency <= now for at in vendor.times())
            expired = dispatcher.counts[NOT_SENT]
            assert expired == (now > 65) or 55 < now < 65
            assert +dispatcher.counts == +Counter(
                {ACCEPTED: done - 1, REJECTED: 1, NOT_SENT: expired, QUEUED: 500 - done - expired}
            )

    # At the first sweep for expired codes, after a minute, several are in flight, or wait to be written.
    vendor = Vendor(lambda post: refusal(9015) if post.name == "m0" else None, latency=0.7)
    with ledger_of([*messages(499), message(499, expires_in=30)]) as ledger:
        ended = run(ledger, vendor, meanwhile=sample, rate=3.1, concurrency=8)
        assert ended.report.counts == {ACCEPTED: 498, REJECTED: 1, NOT_SENT: 1}


# ---------------------------------------------------------------------------------------------- all at once


async def test_under_load_and_faults_of_every_kind_every_message_is_accounted_for() -> None:
    faults = [
        Fault.answer(-1),
        Fault.answer(9001),
        Fault.answer(9015),
        Fault.meta(131016),
        Fault.meta(131026),
        Fault.http(503),
        Fault.http(502),
        Fault.disconnect_before_reading(),
        Fault.disconnect_after_reading(),
        Fault.truncated(),
        Fault.without_id(),
    ]
    with (
        serve_in_thread(Sandbox(fault_rate=0.2, faults=faults, seed=482913)) as sandbox,
        ledger_of(messages(2000)) as ledger,
    ):
        report = await run_at(sandbox, ledger, concurrency=50)
        assert report.paused is None
        assert not report.stopped
        assert report.counts[ACCEPTED] > 1600
        assert report.counts[UNKNOWN] > 50
        assert report.counts[REJECTED] > 50
        assert report.counts.total() == report.counts[ACCEPTED] + report.counts[UNKNOWN] + report.counts[REJECTED]
        assert ledger.most_in_flight <= 50
        met = {request.fault for request in sandbox.requests}
        assert met == {fault.kind for fault in faults} | {FaultKind.NONE}
        per_message = Counter(request.cus_message_id for request in sandbox.requests)
        for name, row in rows(ledger).items():
            if (
                row["status"] != UNKNOWN
            ):  # where the connection is reset before the body comes, nobody knows whose it was
                assert per_message[name] == row["attempts"]


def luck(chance: random.Random, vendor_is_down_until: float) -> Treatment:
    outcomes: list[Answer | Exception | None] = [None] * chance.randint(1, 20)
    outcomes += [
        refusal(-1),
        refusal(9015),
        meta_refusal(131056),
        meta_refusal(130429),
        Answer(429, {}, b""),
        Answer(403, {}, b""),
        LOST,
    ]
    outcomes += [refusal(9005)] * chance.randint(0, 1)

    def treat(post: Post) -> Answer | Exception | None:
        return UNREACHABLE if 2 < post.at < vendor_is_down_until else chance.choice(outcomes)

    return treat


@pytest.mark.parametrize("how", ["stopped", "stopped within 1 s", "cancelled"])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_the_ledger_tells_the_truth_and_the_promises_are_kept(how: str, seed: int) -> None:
    async def main(ledger: WatchedLedger) -> None:
        for ends in range(50):
            dispatcher = virtual_dispatcher(
                ledger, vendor, concurrency=concurrency, per_recipient=interval, retry=RetryPolicy(max_attempts=3)
            )
            before = asyncio.all_tasks()
            running = asyncio.create_task(dispatcher.run())
            if not ends:
                await asyncio.sleep(chance.uniform(0, 5))
                if how == "cancelled":
                    running.cancel()
                else:
                    dispatcher.stop(within=1.0 if "within" in how else 30.0)
            await asyncio.wait([running])
            for _ in range(10):
                await asyncio.sleep(0)
            assert asyncio.all_tasks() == before
            check(ledger, vendor.accepted, None if running.cancelled() else running.result())
            if not (running.cancelled() or running.result().stopped or running.result().paused):
                break
        assert ledger.counts()[QUEUED] == 0

    chance = random.Random(seed)
    concurrency, interval = chance.choice([1, 2, 8, 64]), chance.choice([None, 1.0, 6.0])
    vendor = Vendor(luck(chance, chance.uniform(0, 100)), latency=chance.choice([0.0, 0.1, 2.0]))
    batch = [
        message(number, f"99955{chance.randrange(10):05d}", expires_in=chance.choice([None, chance.uniform(0, 90)]))
        for number in range(40)
    ]
    with ledger_of(batch) as ledger:
        in_virtual_time(main(ledger))
        assert ledger.most_in_flight <= concurrency
        unknown = in_state(ledger, UNKNOWN)
    expiry = {item.cus_message_id: item.expires_at and item.expires_at.timestamp() - START for item in batch}
    assert [post for post in vendor.posts if post.at > (expiry[post.name] or 1e9)] == []
    assert {post.name for post in vendor.posts} >= unknown
    for recipient in {post.to for post in vendor.posts}:
        times = [post.at for post in vendor.posts if post.to == recipient]
        assert min((later - earlier for earlier, later in pairwise(times)), default=99) >= (interval or 0.0) - 1e-3
