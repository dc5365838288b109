import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
from support import VENDOR_FAILURES, VirtualTimeLoop
from test_cancellation import cancelled_at

from nxotp_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    InvalidSignatureError,
    LedgerError,
    NotSentError,
    OtpClient,
    OtpMessage,
    OutcomeUnknownError,
    PermissionDeniedError,
    RetryPolicy,
    TimestampExpiredError,
    TransientApiError,
)
from nxotp_async.bulk import Dispatcher, Ledger, MessageState, Report
from nxotp_async.bulk.records import Claim, Entry
from nxotp_async.sandbox import Fault, FaultKind, Sandbox, answers, sandbox_client
from nxotp_async.testing import serve_in_thread
from nxotp_async.transports import Answer

ACCEPTED, QUEUED, REJECTED = MessageState.ACCEPTED, MessageState.QUEUED, MessageState.REJECTED
NOT_SENT, UNKNOWN, SENDING = MessageState.NOT_SENT, MessageState.UNKNOWN, MessageState.SENDING

ALICE = "9995550100"
AT_ONCE = RetryPolicy(max_attempts=5, backoff_base=0.0)
START = 1_800_000_000  # of VirtualTimeLoop's clock
UNREACHABLE = NotSentError("no connection", temporary=True)
LOST = OutcomeUnknownError("no answer")


def message(number: int, to: str | None = None, *, expires_in: float | None = None) -> OtpMessage:
    """Return a message with an id of its own, to a recipient of its own where none is given."""
    expires_at = None if expires_in is None else datetime.fromtimestamp(START + expires_in, UTC)
    return OtpMessage(to or f"99955{number:05d}", "482913", cus_message_id=f"m{number}", expires_at=expires_at)


def messages(number: int) -> list[OtpMessage]:
    return [message(place) for place in range(number)]


class WatchedLedger(Ledger):
    """A ledger that notices how much is in flight, and when it is asked again and again for nothing."""

    in_flight = 0
    most_in_flight = 0
    idle_exchanges = 0  # in a row

    def exchange(self, outcomes: Any, wanted: int, now: float, monotonic: float, admit: Any) -> Claim:
        claim = super().exchange(outcomes, wanted, now, monotonic, admit)
        self.in_flight += len(claim.messages) - len(outcomes)
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.idle_exchanges = 0 if outcomes or claim.messages else self.idle_exchanges + 1
        if self.idle_exchanges > 1000:
            raise AssertionError("the ledger is asked again and again for nothing")
        return claim


@contextmanager
def ledger_of(batch: Iterable[OtpMessage], path: Path | None = None) -> Iterator[WatchedLedger]:
    with WatchedLedger(path) as ledger:
        fill(ledger, batch)
        yield ledger


def fill(ledger: Ledger, batch: Iterable[OtpMessage]) -> None:
    entries = [Entry(line, str(item.cus_message_id), item, {}, "") for line, item in enumerate(batch, start=2)]
    with ledger.transaction():
        assert ledger.add(ledger.add_source("otps.csv"), entries) == {}


def rows(ledger: Ledger) -> dict[str, dict[str, Any]]:
    return {row["cus_message_id"]: row for row in ledger.results()}


def in_state(ledger: Ledger, state: MessageState) -> set[str]:
    return {name for name, row in rows(ledger).items() if row["status"] == state}


def check(ledger: Ledger, accepted: Iterable[str | None], report: Report | None = None) -> None:
    """Check what always holds, however a run has ended, given the ids of the messages that went out."""
    went_out = Counter(accepted)
    assert [name for name, times in went_out.items() if times > 1] == []
    found = rows(ledger)
    assert {row["status"] for row in found.values()} <= {ACCEPTED, QUEUED, REJECTED, NOT_SENT, UNKNOWN}
    for name, row in found.items():
        match row["status"]:
            case MessageState.ACCEPTED:
                assert went_out[name] == 1
                assert row["message_id"]
            case MessageState.UNKNOWN:
                assert row["error"]
            case _:
                assert went_out[name] == 0
    if report is not None:
        assert report.counts == ledger.counts()
        assert report.counts.total() == len(found)


# ---------------------------------------------------------------------------------------------- virtual time


class Inline(Executor):
    """Does the work at once, so that no time can jump meanwhile."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@attrs.frozen
class Post:
    at: float
    name: str
    to: str
    attempt: int
    ts: float  # in seconds
    body: bytes


Treatment = Callable[[Post], Answer | Exception | None]


class Vendor:
    """A vendor without sockets. `treat` says how it fails a request, or nothing where it accepts it."""

    def __init__(self, treat: Treatment | None = None, *, latency: float = 0.1) -> None:
        self.posts: list[Post] = []
        self.accepted: list[str] = []
        self.treat = treat
        self.latency = latency
        self.before_post: Callable[[str], object] = lambda _: None
        self._attempts: Counter[str] = Counter()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        fields = orjson.loads(body)
        name = fields["cus_message_id"]
        self._attempts[name] += 1
        now, ts = asyncio.get_running_loop().time(), int(headers["ts"]) / 1000
        post = Post(now, name, fields["to"], self._attempts[name], ts, body)
        self.before_post(name)
        self.posts.append(post)
        failure = self.treat(post) if self.treat else None
        if failure is None:
            self.accepted.append(name)
        await asyncio.sleep(self.latency)
        if isinstance(failure, Exception):
            raise failure
        return failure or Answer(200, {}, answers.success(f"wamid.{name}"))

    async def aclose(self) -> None:
        pass

    def times(self, *names: str) -> list[float]:
        """Return when these messages were posted, or all of them."""
        return [post.at for post in self.posts if not names or post.name in names]


def refusal(code: int) -> Answer:
    return Answer(200, {}, answers.failure(code))


def meta_refusal(code: int) -> Answer:
    return Answer(200, {}, answers.meta_failure(code))


def always(failure: Answer | Exception) -> Treatment:
    return lambda _: failure


def virtual_dispatcher(ledger: Ledger, vendor: Vendor, *, concurrency: int = 4, **options: Any) -> Dispatcher:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    client = sandbox_client("https://otp.example", transport=vendor, clock=loop.clock, max_concurrency=concurrency)
    dispatcher = Dispatcher(ledger, client, clock=loop.clock, **options)
    dispatcher._thread = Inline()  # type: ignore[assignment]
    return dispatcher


def in_virtual_time(main: Coroutine[Any, Any, Any], loop_factory: type[VirtualTimeLoop] = VirtualTimeLoop) -> Any:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)


@attrs.frozen
class Ended:
    report: Report
    at: float
    dispatcher: Dispatcher


def run(
    ledger: Ledger, vendor: Vendor, *, meanwhile: Callable[[Dispatcher], Awaitable[None]] | None = None, **options: Any
) -> Ended:
    """Run a dispatcher in virtual time from 0, and check what always holds."""

    async def main() -> Ended:
        dispatcher = virtual_dispatcher(ledger, vendor, **options)
        running = asyncio.create_task(dispatcher.run())
        if meanwhile is not None:
            await meanwhile(dispatcher)
        report = await running
        return Ended(report, asyncio.get_running_loop().time(), dispatcher)

    ended: Ended = in_virtual_time(main())
    check(ledger, vendor.accepted, ended.report)
    assert ended.dispatcher.counts == ended.report.counts
    return ended


# ---------------------------------------------------------------------------------------------- at the sandbox


async def run_at(
    sandbox: Sandbox, ledger: Ledger, *, concurrency: int = 4, client: Mapping[str, Any] | None = None, **options: Any
) -> Report:
    """Run a dispatcher against the sandbox, and check what always holds."""
    async with sandbox.client(max_concurrency=concurrency, **(client or {})) as sender:
        report = await Dispatcher(ledger, sender, **{"retry": AT_ONCE, **options}).run()
    check(ledger, went_out(sandbox), report)
    return report


def went_out(sandbox: Sandbox) -> list[str | None]:
    return [request.cus_message_id for request in sandbox.messages]


@asynccontextmanager
async def mended(sandbox: Sandbox) -> AsyncIterator[Sandbox]:
    """Take the faults away that are still to come."""
    sandbox._plan._script.clear()
    sandbox._plan._rate = 0.0
    yield sandbox


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
async def test_an_account_error_pauses_the_run_and_loses_nothing(code: int) -> None:
    with ledger_of(messages(60)) as ledger:
        async with Sandbox() as sandbox:
            sandbox.script(*[Fault()] * 20, *[Fault.answer(code)] * 1000)
            report = await run_at(sandbox, ledger)
            assert isinstance(report.paused, ApiError)
            assert report.paused.code == code
            assert not report.stopped
            assert report.counts == {ACCEPTED: 20, QUEUED: 40}
            refused = [request.cus_message_id for request in sandbox.requests if request.message_id is None]
            assert 1 <= len(refused) <= 4
            assert {rows(ledger)[str(name)]["code"] for name in refused} == {code}
            async with mended(sandbox):
                assert await run_at(sandbox, ledger) == Report(Counter({ACCEPTED: 60}), None, False)
            assert len(sandbox.requests) == 60 + len(refused)


@pytest.mark.parametrize(
    ("setting", "error"),
    [({"access_secret": "wrong"}, InvalidSignatureError), ({"access_key": "wrong"}, PermissionDeniedError)],
)
async def test_wrong_keys_pause_the_run_before_much_is_posted(
    setting: dict[str, str], error: type[AuthenticationError]
) -> None:
    with ledger_of(messages(50)) as ledger:
        async with Sandbox() as sandbox:
            report = await run_at(sandbox, ledger, client=setting)
            assert type(report.paused) is error
            assert report.counts == {QUEUED: 50}
            assert len(sandbox.requests) <= 4
            assert (await run_at(sandbox, ledger)).counts == {ACCEPTED: 50}


def test_a_certificate_that_is_refused_pauses_the_run() -> None:
    vendor = Vendor(always(NotSentError("the certificate was refused")))
    with ledger_of(messages(50)) as ledger:
        ended = run(ledger, vendor)
        assert isinstance(ended.report.paused, NotSentError)
        assert ended.report.counts == {QUEUED: 50}
        assert len(vendor.posts) == 4
        assert ended.at < 1
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


async def test_without_it_the_same_code_pauses_the_run() -> None:
    with ledger_of([message(0, "999000009004"), *(message(number) for number in range(1, 40))]) as ledger:
        async with Sandbox() as sandbox:
            report = await run_at(sandbox, ledger, reject_on={9005})
        assert isinstance(report.paused, AccountError)
        assert rows(ledger)["m0"]["status"] == QUEUED


@pytest.mark.parametrize("offset", [600, -600])
async def test_a_wrong_clock_is_corrected_and_everything_is_accepted(offset: float) -> None:
    with ledger_of(messages(60)) as ledger:
        async with Sandbox(clock_offset=offset) as sandbox:
            report = await run_at(sandbox, ledger)
            assert report == Report(Counter({ACCEPTED: 60}), None, False)
            assert len(sandbox.requests) <= 60 + 4


# ---------------------------------------------------------------------------------------------- one recipient


def test_a_recipient_that_meta_throttles_waits_and_others_go_on() -> None:
    def throttle_first(post: Post) -> Answer | None:
        return meta_refusal(131056) if post.to == ALICE and post.attempt == 1 and post.at < 1 else None

    batch = [message(number, ALICE if number in (0, 20, 30) else None) for number in range(40)]
    vendor = Vendor(throttle_first)
    with ledger_of(batch) as ledger:
        ended = run(ledger, vendor, concurrency=2)
        assert ended.report == Report(Counter({ACCEPTED: 40}), None, False)
        others = [name for name in rows(ledger) if name not in ("m0", "m20", "m30")]
    # Refused at 0.1, tried again after Meta's 6 seconds and 4 of backoff, and the next ones 6 seconds apart.
    assert vendor.times("m0") == pytest.approx([0, 10.1], abs=0.01)
    assert vendor.times("m20") == pytest.approx([16.1], abs=0.01)
    assert vendor.times("m30") == pytest.approx([22.1], abs=0.01)
    assert [post.name for post in vendor.posts if post.name in others] == others
    assert max(vendor.times(*others)) < 5


def test_many_messages_to_one_recipient_survive_metas_pair_rate_limit() -> None:
    accepted_at = [-10.0]

    def pair_rate_limit(post: Post) -> Answer | None:
        if post.at - accepted_at[-1] < 6:
            return meta_refusal(131056)
        accepted_at.append(post.at)
        return None

    vendor = Vendor(pair_rate_limit)
    with ledger_of(message(number, ALICE) for number in range(10)) as ledger:
        assert run(ledger, vendor, concurrency=64).report == Report(Counter({ACCEPTED: 10}), None, False)


def test_messages_to_one_recipient_are_kept_apart_and_so_are_their_retries() -> None:
    def fail_some(post: Post) -> Answer | Exception | None:
        if (post.name, post.attempt) in {("m0", 1), ("m5", 1), ("m5", 2)}:
            return refusal(-1)
        return meta_refusal(131056) if (post.name, post.attempt) == ("m3", 1) else None

    batch = [message(number, ALICE if number % 2 or number == 0 else None) for number in range(24)]
    vendor = Vendor(fail_some)
    with ledger_of(batch) as ledger:
        ended = run(ledger, vendor, per_recipient=6.0)
    assert ended.report == Report(Counter({ACCEPTED: 24}), None, False)
    to_alice = [post.at for post in vendor.posts if post.to == ALICE]
    assert len(to_alice) == 13 + 4
    assert min(later - earlier for earlier, later in pairwise(to_alice)) >= 6 - 1e-3
    assert max(later - earlier for earlier, later in pairwise(to_alice)) <= 6 + 1
    assert max(post.at for post in vendor.posts if post.to != ALICE) < 1


def test_a_recipient_is_left_alone_for_as_long_after_a_resumption() -> None:
    async def main() -> None:
        for _ in range(2):
            dispatcher = virtual_dispatcher(ledger, vendor, per_recipient=6.0)
            asyncio.get_running_loop().call_later(1, dispatcher.stop)
            await dispatcher.run()
        await virtual_dispatcher(ledger, vendor, per_recipient=6.0).run()

    vendor = Vendor()
    with ledger_of(message(number, ALICE) for number in range(3)) as ledger:
        in_virtual_time(main())
        check(ledger, vendor.accepted)
        assert ledger.counts() == {ACCEPTED: 3}
    assert vendor.times() == pytest.approx([0, 6, 12], abs=0.01)


def test_looking_for_messages_in_vain_uses_nothing_of_the_rate_up() -> None:
    async def main() -> None:
        await virtual_dispatcher(ledger, vendor, per_recipient=6.0, max_per_recipient=1).run()
        fill(ledger, [message(1, ALICE)])
        await virtual_dispatcher(ledger, vendor, per_recipient=6.0, rate=0.01).run()

    vendor = Vendor()
    with ledger_of([message(0, ALICE)]) as ledger:
        in_virtual_time(main())
    assert vendor.times() == pytest.approx([0, 6], abs=0.01)


def test_no_recipient_gets_more_than_the_cap_over_all_runs() -> None:
    vendor = Vendor()
    with ledger_of([*(message(number, ALICE) for number in range(5)), message(5)]) as ledger:
        for _ in range(2):
            ended = run(ledger, vendor, max_per_recipient=2)
            assert ended.report.counts == {ACCEPTED: 3, NOT_SENT: 3}
        assert in_state(ledger, NOT_SENT) == {"m2", "m3", "m4"}
        assert {row["error"] for row in rows(ledger).values()} == {None, "Capped"}
    assert [post.name for post in vendor.posts] == ["m0", "m1", "m5"]


# ---------------------------------------------------------------------------------------------- the rate


@pytest.mark.parametrize("rate", [0.5, 3.0, 20.0, 200.0, 1000.0])
def test_the_rate_is_kept_by_retries_too_and_used_up(rate: float) -> None:
    number = 40 if rate < 10 else 200
    vendor = Vendor(lambda post: refusal(-1) if post.attempt == 1 and int(post.name[1:]) % 10 == 0 else None)
    with ledger_of(messages(number)) as ledger:
        ended = run(ledger, vendor, rate=rate, concurrency=200)
        assert ended.report.counts == {ACCEPTED: number}
    times = vendor.times()
    assert len(times) == number + number // 10
    burst = max(1.0, rate / 10)
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + rate * (times[last] - times[first] + 0.001)
    assert ended.at <= len(times) / rate * 1.1 + 1.5


THROTTLINGS = [
    pytest.param(Answer(429, {}, b""), id="HTTP 429"),
    pytest.param(meta_refusal(4), id="Meta 4"),
    pytest.param(meta_refusal(80007), id="Meta 80007"),
    pytest.param(meta_refusal(130429), id="Meta 130429"),
]


@pytest.mark.parametrize("throttling", THROTTLINGS)
def test_throttling_halves_the_rate_once_a_round_and_it_grows_back(throttling: Answer) -> None:
    sampled: dict[float, float] = {}

    async def sample(dispatcher: Dispatcher) -> None:
        loop = asyncio.get_running_loop()
        for at in (0.4, 0.9, 5.5, 17.0):
            await asyncio.sleep(at - loop.time())
            sampled[at] = dispatcher.rate

    vendor = Vendor(lambda post: throttling if post.at < 0.5 else None, latency=0.5)
    with ledger_of(messages(600)) as ledger:
        # One attempt, because throttling is not held against a message.
        ended = run(ledger, vendor, meanwhile=sample, rate=40, concurrency=80, retry=RetryPolicy(max_attempts=1))
        assert ended.report == Report(Counter({ACCEPTED: 600}), None, False)
    assert sum(at < 0.5 for at in vendor.times()) > 10
    assert sampled[0.4] == 40
    assert sampled[0.9] == pytest.approx(20 * 1.05**0.4, rel=0.02)
    assert sampled[5.5] == pytest.approx(20 * 1.05**5, rel=0.02)
    assert sampled[17.0] == 40
    assert sum(1 <= at < 3 for at in vendor.times()) == pytest.approx(2 * 20 * 1.07, abs=5)


def test_throttling_lowers_a_rate_that_was_not_limited() -> None:
    vendor = Vendor(lambda post: Answer(429, {}, b"") if post.at < 0.1 else None)
    with ledger_of(messages(300)) as ledger:
        ended = run(ledger, vendor, concurrency=80)
        assert ended.report.counts == {ACCEPTED: 300}
    assert sum(at < 0.1 for at in vendor.times()) == 80
    assert sum(0.1 <= at < 1.1 for at in vendor.times()) <= 41  # half of what went before, or less


def test_a_message_is_throttled_more_often_than_it_has_attempts_and_still_accepted() -> None:
    vendor = Vendor(lambda post: Answer(429, {}, b"") if post.attempt <= 6 else None)
    with ledger_of(messages(3)) as ledger:
        ended = run(ledger, vendor, retry=RetryPolicy(max_attempts=2))
        assert ended.report.counts == {ACCEPTED: 3}
        assert {row["attempts"] for row in rows(ledger).values()} == {7}


def test_retry_after_holds_the_whole_run() -> None:
    throttled = Answer(429, {"Retry-After": "7"}, b"")
    vendor = Vendor(lambda post: throttled if post.name == "m0" and post.attempt == 1 else None, latency=0.05)
    with ledger_of(messages(40)) as ledger:
        ended = run(ledger, vendor)
        assert ended.report == Report(Counter({ACCEPTED: 40}), None, False)
    assert [post.name for post in vendor.posts if post.at < 7] == ["m0", "m1", "m2", "m3"]
    assert min(at for at in vendor.times() if at > 0.01) == pytest.approx(7.05, abs=0.01)


def test_a_vendor_that_throttles_everything_for_a_minute_pauses_the_run() -> None:
    vendor = Vendor(always(Answer(429, {}, b"")))
    with ledger_of(messages(200)) as ledger:
        ended = run(ledger, vendor, rate=50)
        assert isinstance(ended.report.paused, TransientApiError)
        assert ended.report.counts == {QUEUED: 200}
        assert 60 <= ended.at <= 65
        assert len(vendor.posts) <= 75  # about one a second
        vendor.treat = None
        assert run(ledger, vendor).report.counts == {ACCEPTED: 200}


# ---------------------------------------------------------------------------------------------- expiry


def test_a_code_that_has_expired_before_the_run_is_not_sent() -> None:
    vendor = Vendor()
    with ledger_of([message(0, expires_in=-1), message(1, expires_in=600), message(2)]) as ledger:
        assert run(ledger, vendor).report.counts == {ACCEPTED: 2, NOT_SENT: 1}
        assert rows(ledger)["m0"]["error"] == "Expired"
    assert [post.name for post in vendor.posts] == ["m1", "m2"]


def test_codes_that_expire_while_they_are_queued_are_not_sent() -> None:
    vendor = Vendor()
    with ledger_of(message(number, expires_in=5.5) for number in range(10)) as ledger:
        ended = run(ledger, vendor, rate=1)
        assert ended.report == Report(Counter({ACCEPTED: 6, NOT_SENT: 4}), None, False)
        assert in_state(ledger, NOT_SENT) == {"m6", "m7", "m8", "m9"}
    assert ended.at < 70
    assert vendor.times() == pytest.approx([0, 1, 2, 3, 4, 5], abs=0.01)


@pytest.mark.parametrize(
    ("failure", "state"),
    [
        pytest.param(refusal(-1), REJECTED, id="the vendor has answered about it"),
        pytest.param(meta_refusal(131056), REJECTED, id="its recipient is throttled"),
        pytest.param(UNREACHABLE, NOT_SENT, id="it never left"),
    ],
)
def test_a_code_that_expires_while_it_waits_for_another_attempt_is_not_sent_again(
    failure: Answer | Exception, state: MessageState
) -> None:
    vendor = Vendor(lambda post: failure if post.name == "m0" else None)
    with ledger_of([message(0, expires_in=4), *(message(number) for number in range(1, 5))]) as ledger:
        ended = run(ledger, vendor, retry=RetryPolicy(max_attempts=5, backoff_base=8.0, backoff_cap=8.0))
        assert ended.report == Report(Counter({state: 1, ACCEPTED: 4}), None, False)
        assert rows(ledger)["m0"]["error"] == "Expired"
    assert vendor.times("m0") == [pytest.approx(0, abs=0.01)]
    assert ended.at < 70


def test_a_code_that_expires_while_its_recipient_has_to_wait_is_not_sent() -> None:
    vendor = Vendor()
    with ledger_of([message(0, ALICE), message(1, ALICE, expires_in=3), message(2, ALICE)]) as ledger:
        ended = run(ledger, vendor, per_recipient=6.0)
        assert ended.report == Report(Counter({ACCEPTED: 2, NOT_SENT: 1}), None, False)
        assert in_state(ledger, NOT_SENT) == {"m1"}
    assert [post.name for post in vendor.posts] == ["m0", "m2"]
    assert ended.at < 70


def test_a_code_that_expires_while_the_client_holds_it_back_is_not_sent() -> None:
    async def main() -> Report:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        client = sandbox_client(
            "https://otp.example", transport=vendor, clock=loop.clock, max_concurrency=4, rate_limit=1
        )
        dispatcher = Dispatcher(ledger, client, clock=loop.clock)
        dispatcher._thread = Inline()  # type: ignore[assignment]
        return await dispatcher.run()

    vendor = Vendor()
    with ledger_of(message(number, expires_in=1.5) for number in range(4)) as ledger:
        report = in_virtual_time(main())
        check(ledger, vendor.accepted, report)
        assert report == Report(Counter({ACCEPTED: 2, NOT_SENT: 2}), None, False)


# ---------------------------------------------------------------------------------------------- the vendor is down


def test_a_vendor_out_of_reach_is_tried_again_after_ever_longer_pauses_until_it_is_back() -> None:
    vendor = Vendor(lambda post: UNREACHABLE if post.at < 20 else None, latency=0.0)
    with ledger_of(messages(40)) as ledger:
        ended = run(ledger, vendor, concurrency=3, retry=RetryPolicy(max_attempts=2))
        assert ended.report == Report(Counter({ACCEPTED: 40}), None, False)
        assert max(row["attempts"] for row in rows(ledger).values()) > 2  # nothing of it was held against them
    rounds = sorted({round(at, 1) for at in vendor.times()})
    assert [round(later - earlier) for earlier, later in pairwise(rounds) if later - earlier > 0.4] == [
        0,
        1,
        2,
        4,
        8,
        8,
    ]
    assert rounds[:2] == [0.0, 0.5]
    assert sum(at < 20 for at in vendor.times()) == 3 * 6
    assert ended.at < 27


def test_a_second_outage_begins_with_short_pauses_again() -> None:
    vendor = Vendor(lambda post: UNREACHABLE if post.at < 10 or 20 <= post.at < 21.4 else None, latency=0.0)
    with ledger_of(messages(150)) as ledger:
        assert run(ledger, vendor, rate=10).report == Report(Counter({ACCEPTED: 150}), None, False)
    times = [at for at in vendor.times() if at > 19.95]
    pauses = [later - earlier for earlier, later in pairwise(times) if later - earlier > 0.4]
    assert pauses == pytest.approx([0.5, 1.0], abs=0.15)


def test_a_vendor_out_of_reach_for_a_minute_pauses_the_run() -> None:
    vendor = Vendor(always(UNREACHABLE), latency=0.0)
    with ledger_of(messages(40)) as ledger:
        ended = run(ledger, vendor)
        assert isinstance(ended.report.paused, NotSentError)
        assert ended.report.counts == {QUEUED: 40}
        assert 60 <= ended.at <= 70
        assert len(vendor.posts) <= 4 * 12
        vendor.treat = None
        assert run(ledger, vendor).report.counts == {ACCEPTED: 40}


@pytest.mark.parametrize("concurrency", [1, 32])
@pytest.mark.parametrize("max_attempts", [2, 5])
def test_a_vendor_that_refuses_everything_for_a_while_does_not_reject_the_file(
    concurrency: int, max_attempts: int
) -> None:
    vendor = Vendor(always(refusal(-1)))
    with ledger_of(messages(200)) as ledger:
        ended = run(ledger, vendor, concurrency=concurrency, retry=RetryPolicy(max_attempts=max_attempts))
        assert isinstance(ended.report.paused, TransientApiError)
        assert ended.report.counts[REJECTED] <= 2 * concurrency
        assert 60 <= ended.at <= 70
        vendor.treat = None
        rejected = ended.report.counts[REJECTED]
        assert run(ledger, vendor).report.counts == +Counter({ACCEPTED: 200 - rejected, REJECTED: rejected})


async def test_a_storm_of_unknown_outcomes_pauses_the_run_and_none_is_sent_again() -> None:
    with ledger_of(messages(100)) as ledger:
        async with Sandbox(fault_rate=1.0, faults=[Fault.disconnect_after_reading()]) as sandbox:
            resending = RetryPolicy(max_attempts=5, resend_unknown=True)
            report = await run_at(sandbox, ledger, retry=resending)
            assert isinstance(report.paused, OutcomeUnknownError)
            assert 2 * 4 < report.counts[UNKNOWN] <= 3 * 4 + 1
            assert report.counts[QUEUED] == 100 - report.counts[UNKNOWN]
            unknown = in_state(ledger, UNKNOWN)
            async with mended(sandbox):
                report = await run_at(sandbox, ledger, retry=resending)
            assert report == Report(Counter({UNKNOWN: len(unknown), ACCEPTED: 100 - len(unknown)}), None, False)
            assert in_state(ledger, UNKNOWN) == unknown
            assert max(Counter(request.cus_message_id for request in sandbox.requests).values()) == 1


def test_unknown_outcomes_among_good_ones_do_not_pause_the_run() -> None:
    vendor = Vendor(lambda post: LOST if int(post.name[1:]) % 2 else None)
    with ledger_of(messages(200)) as ledger:
        assert run(ledger, vendor).report == Report(Counter({ACCEPTED: 100, UNKNOWN: 100}), None, False)
    assert len(vendor.posts) == 200


# ---------------------------------------------------------------------------------------------- stopping


def stopping(at: float, **how: float) -> Callable[[Dispatcher], Awaitable[None]]:
    async def stop(dispatcher: Dispatcher) -> None:
        await asyncio.sleep(at)
        assert not dispatcher.is_stopping
        dispatcher.stop(**how)
        assert dispatcher.is_stopping

    return stop


def test_a_run_that_is_stopped_waits_for_what_is_in_flight_and_can_be_resumed() -> None:
    vendor = Vendor(latency=1.0)
    with ledger_of(messages(100)) as ledger:
        ended = run(ledger, vendor, meanwhile=stopping(2.5))
        posted = len(vendor.posts)
        assert posted == 12
        assert ended.report == Report(Counter({ACCEPTED: 12, QUEUED: 88}), None, True)
        assert ended.at == pytest.approx(3, abs=0.3)
        assert ended.dispatcher.in_flight == 0
        assert run(ledger, vendor).report == Report(Counter({ACCEPTED: 100}), None, False)
    assert len(vendor.posts) == 100


def test_what_fails_while_a_run_is_stopping_stays_queued() -> None:
    vendor = Vendor(lambda post: refusal(-1) if post.attempt == 1 else None, latency=1.0)
    with ledger_of(messages(20)) as ledger:
        assert run(ledger, vendor, meanwhile=stopping(0.5)).report == Report(Counter({QUEUED: 20}), None, True)
        assert len(vendor.posts) == 4
        assert run(ledger, vendor).report.counts == {ACCEPTED: 20}


@pytest.mark.parametrize("at", [0.0, 0.02, 0.1, 0.101, 0.15, 3.0])
def test_a_run_that_waits_for_the_rate_can_be_stopped_at_any_time(at: float) -> None:
    vendor = Vendor()
    with ledger_of(messages(100)) as ledger:
        ended = run(ledger, vendor, meanwhile=stopping(at), rate=0.1)
        assert ended.at <= at + 0.3
        assert ended.report.stopped
        assert ended.report.counts[ACCEPTED] == len(vendor.posts) <= 1


async def test_a_run_that_was_stopped_before_it_began_sends_nothing() -> None:
    with ledger_of(messages(5)) as ledger:
        async with Sandbox() as sandbox, sandbox.client() as client:
            dispatcher = Dispatcher(ledger, client)
            dispatcher.stop()
            assert await dispatcher.run() == Report(Counter({QUEUED: 5}), None, True)
            assert not sandbox.requests


async def test_a_run_is_stopped_in_the_middle_of_real_traffic() -> None:
    with ledger_of(messages(200)) as ledger:
        async with Sandbox() as sandbox, sandbox.client(max_concurrency=8) as client:
            dispatcher = Dispatcher(ledger, client)
            seen = count(1)
            receive = sandbox._plan.next

            def stop_at_the_fiftieth() -> Fault | None:
                if next(seen) == 50:
                    dispatcher.stop()
                return receive()

            sandbox._plan.next = stop_at_the_fiftieth  # type: ignore[method-assign]
            report = await dispatcher.run()
            check(ledger, went_out(sandbox), report)
            assert report.stopped
            assert 50 <= report.counts[ACCEPTED] <= 57
            assert report.counts[QUEUED] == 200 - report.counts[ACCEPTED]
            assert (await run_at(sandbox, ledger)).counts == {ACCEPTED: 200}


@pytest.mark.parametrize("within", [0.0, 3.0])
def test_what_hangs_when_the_patience_ends_is_unknown_and_the_rest_queued(within: float) -> None:
    vendor = Vendor(latency=1e6)
    with ledger_of(messages(20)) as ledger:
        ended = run(ledger, vendor, meanwhile=stopping(2.0, within=within))
        assert ended.report == Report(Counter({UNKNOWN: 4, QUEUED: 16}), None, True)
        assert ended.at == pytest.approx(2 + within, abs=0.01)
        assert in_state(ledger, UNKNOWN) == {"m0", "m1", "m2", "m3"}
        assert {row["attempts"] for row in rows(ledger).values()} == {0, 1}
        vendor.latency = 0.1
        assert run(ledger, vendor).report.counts == {UNKNOWN: 4, ACCEPTED: 16}
    assert len(vendor.posts) == 20


def test_a_second_stop_does_not_lengthen_the_patience() -> None:
    async def twice(dispatcher: Dispatcher) -> None:
        await stopping(1.0, within=3.0)(dispatcher)
        await asyncio.sleep(2.0)
        dispatcher.stop(within=100.0)

    with ledger_of(messages(20)) as ledger:
        assert run(ledger, Vendor(latency=1e6), meanwhile=twice).at == pytest.approx(4, abs=0.01)


def test_a_paused_run_can_be_hurried_up() -> None:
    vendor = Vendor(lambda post: refusal(9005) if post.name == "m0" else None)
    hang = asyncio.sleep

    class Slow(Vendor):
        async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
            answer = await super().post(url, body, headers, timeout)
            if orjson.loads(body)["cus_message_id"] != "m0":
                await hang(1e6)
            return answer

    vendor = Slow(vendor.treat)
    with ledger_of(messages(20)) as ledger:
        ended = run(ledger, vendor, meanwhile=hurrying_up)
        assert isinstance(ended.report.paused, AccountError)
        assert not ended.report.stopped
        assert ended.report.counts == {UNKNOWN: 3, QUEUED: 17}
        assert ended.at == pytest.approx(6, abs=0.01)


async def hurrying_up(dispatcher: Dispatcher) -> None:
    await asyncio.sleep(1)
    assert dispatcher.is_stopping
    await asyncio.sleep(4)
    dispatcher.stop(within=1)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - of another thread's doing, or of a server's
            await asyncio.sleep(0)


async def test_a_client_that_is_closed_in_the_middle_of_a_run_ends_it() -> None:
    with ledger_of(messages(50)) as ledger:
        async with Sandbox() as sandbox, sandbox.client(max_concurrency=4) as client:
            dispatcher = Dispatcher(ledger, client)
            sandbox.script(*[Fault()] * 10, *[Fault.hang()] * 4)
            running = asyncio.create_task(dispatcher.run())
            await until(lambda: sandbox.counts["requests"] == 14)
            await client.aclose()
            with pytest.raises(RuntimeError, match="the client was closed"):
                await running
            check(ledger, went_out(sandbox))
            assert dispatcher.counts == ledger.counts() == {ACCEPTED: 10, UNKNOWN: 4, QUEUED: 36}


# ---------------------------------------------------------------------------------------------- cancellation


class TurnLoop(VirtualTimeLoop):
    """A loop that does something at the start of its n-th turn from now."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = 0
        self.at_turn: int | None = None
        self.action: Callable[[], object] = lambda: None
        selector = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def counted(timeout: float | None = None) -> Any:
            self.turns += 1
            if self.turns == self.at_turn:
                self.action()
                timeout = 0
            return select(timeout)

        selector.select = counted

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override] # of any types
        """Answer in a later turn, as a thread does: Python 3.14 itself answers in this one what is done at once."""
        return self.create_task(asyncio.wait_for(super().run_in_executor(executor, func, *args), timeout=None))


def fail_some(post: Post) -> Answer | Exception | None:
    match post.name, post.attempt:
        case "m1" | "m6", 1:
            return refusal(-1)
        case "m3", _:
            return LOST
        case "m5", _:
            return refusal(9015)
    return None


def check_interrupted(ledger: Ledger, vendor: Vendor) -> None:
    check(ledger, vendor.accepted)
    posted = {post.name for post in vendor.posts}
    assert in_state(ledger, UNKNOWN) <= posted
    assert in_state(ledger, QUEUED) >= rows(ledger).keys() - posted
    assert {row["attempts"] for name, row in rows(ledger).items() if name not in posted} <= {0}


@pytest.mark.parametrize("options", [{}, {"rate": 30.0}], ids=["no rate", "rate"])
def test_a_run_cancelled_at_any_turn_of_the_loop_leaves_nothing_behind(options: dict[str, Any]) -> None:
    async def main(turn: int, ledger: Ledger, vendor: Vendor) -> bool:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurnLoop)
        before = asyncio.all_tasks()
        dispatcher = virtual_dispatcher(ledger, vendor, concurrency=3, **options)
        running = asyncio.create_task(dispatcher.run())
        loop.at_turn, loop.action = loop.turns + 1 + turn, running.cancel  # it begins in the next one
        await asyncio.wait([running])
        if not running.cancelled():
            running.result()
        for _ in range(10):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == before
        assert dispatcher.in_flight == 0
        assert dispatcher.counts == ledger.counts()
        return running.cancelled()

    states: Counter[MessageState] = Counter()
    for turn in count(1):
        vendor = Vendor(fail_some)
        with ledger_of(messages(7)) as ledger:
            cancelled = in_virtual_time(main(turn, ledger, vendor), TurnLoop)
            check_interrupted(ledger, vendor)
            states += ledger.counts()
            unknown = in_state(ledger, UNKNOWN)
            assert unknown >= {"m3"} & {post.name for post in vendor.posts}
            report = run(ledger, vendor).report
            assert report.counts == Counter({UNKNOWN: len(unknown | {"m3"})}) + Counter(
                {state: report.counts[state] for state in (ACCEPTED, REJECTED)}
            )
            assert max(Counter(post.name for post in vendor.posts if post.name in unknown).values(), default=0) <= 2
        if not cancelled:
            break
    assert turn > 50
    assert min(states[state] for state in (QUEUED, UNKNOWN, ACCEPTED, REJECTED)) > 10


async def test_a_run_cancelled_at_any_suspension_point_leaves_no_task_and_no_thread() -> None:
    async def awaited(suspension: int, dispatcher: Dispatcher) -> bool:
        return await cancelled_at(suspension, dispatcher.run())

    with serve_in_thread(Sandbox()) as sandbox:
        async with sandbox.client(max_concurrency=3) as client:
            await client.send_otp(ALICE, "482913")
            tasks, threads = asyncio.all_tasks(), threading.active_count()
            for suspension in range(1, 1000):
                # What was given up may reach the sandbox later: ids of their own tell it from the next run's.
                with ledger_of(message(100 * suspension + number) for number in range(9)) as ledger:
                    dispatcher = Dispatcher(ledger, client, retry=AT_ONCE)
                    cancelled = await asyncio.create_task(awaited(suspension, dispatcher))
                    await settled(client, tasks)
                    assert threading.active_count() == threads
                    check_at(sandbox, ledger)
                    assert dispatcher.in_flight == 0
                    assert await run_at(sandbox, ledger) == Report(ledger.counts(), None, False)
                    assert ledger.counts()[QUEUED] == 0
                if not cancelled:
                    break
            assert suspension >= 4


async def settled(client: OtpClient, tasks: Collection[asyncio.Task[Any]]) -> None:
    """Let tasks that have been cancelled run to their end; those are not leaked, only not over."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    loop = client.state.of_running_loop()
    assert loop.permits._value == client.max_concurrency
    assert not loop.streams
    assert not client.state.in_flight


def check_at(sandbox: Sandbox, ledger: Ledger) -> None:
    check(ledger, went_out(sandbox))
    received = {str(request.cus_message_id) for request in sandbox.requests}
    assert not received & in_state(ledger, QUEUED)


class HeldLedger(WatchedLedger):
    """A ledger whose n-th exchange waits in its thread, before or after it is done, until it is let go."""

    def __init__(self, held: int, *, when_done: bool) -> None:
        super().__init__(None)
        self.entered, self.go_on = threading.Event(), threading.Event()
        self._held = held
        self._when_done = when_done
        self._exchanges = count(1)
        self.threads: set[threading.Thread] = set()

    def expire(self, now: float, *, monotonic: float | None = None) -> Any:
        self.threads.add(threading.current_thread())
        return super().expire(now, monotonic=monotonic)

    def exchange(self, outcomes: Any, wanted: int, now: float, monotonic: float, admit: Any) -> Claim:
        is_held = next(self._exchanges) == self._held
        if is_held and not self._when_done:
            self._wait()
        claim = super().exchange(outcomes, wanted, now, monotonic, admit)
        if is_held and self._when_done:
            self._wait()
        return claim

    def _wait(self) -> None:
        self.entered.set()
        assert self.go_on.wait(10)


@contextmanager
def held_ledger(held: int, *, when_done: bool) -> Iterator[HeldLedger]:
    with HeldLedger(held, when_done=when_done) as ledger:
        fill(ledger, messages(12))
        yield ledger


@pytest.mark.parametrize("when_done", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("held", [1, 2, 3])
async def test_a_run_cancelled_while_the_ledger_is_written_leaves_nothing_behind(held: int, when_done: bool) -> None:
    with serve_in_thread(Sandbox()) as sandbox, held_ledger(held, when_done=when_done) as ledger:
        async with sandbox.client(max_concurrency=3) as client:
            tasks, threads = asyncio.all_tasks(), threading.active_count()
            running = asyncio.create_task(Dispatcher(ledger, client).run())
            await until(ledger.entered.is_set)
            running.cancel()
            asyncio.get_running_loop().call_soon(ledger.go_on.set)
            with pytest.raises(asyncio.CancelledError):
                await running
            await settled(client, tasks)
            assert threading.active_count() == threads
        assert len(ledger.threads) == 1  # one after the other, whatever was still under way
        check_at(sandbox, ledger)
        if held == 1:
            assert ledger.counts() == {QUEUED: 12}
            assert not sandbox.requests
        else:
            # What the exchange has claimed was never posted.
            assert {row["attempts"] for row in rows(ledger).values() if row["status"] == QUEUED} == {0}
            begun = ledger.counts()[ACCEPTED] + ledger.counts()[UNKNOWN]
            assert len(sandbox.requests) <= begun <= 3 * (held - 1)
        assert (await run_at(sandbox, ledger)).counts[QUEUED] == 0


@pytest.mark.parametrize("held", [1, 2])
async def test_what_is_claimed_while_a_run_is_being_stopped_is_not_sent(held: int) -> None:
    with held_ledger(held, when_done=True) as ledger:
        async with Sandbox() as sandbox, sandbox.client(max_concurrency=3) as client:
            dispatcher = Dispatcher(ledger, client)
            running = asyncio.create_task(dispatcher.run())
            await until(ledger.entered.is_set)
            dispatcher.stop()
            ledger.go_on.set()
            report = await running
            check(ledger, went_out(sandbox), report)
            sent = 3 * (held - 1)
            assert report == Report(+Counter({QUEUED: 12 - sent, ACCEPTED: sent}), None, True)
            assert len(sandbox.requests) == sent


# ---------------------------------------------------------------------------------------------- the ledger


@pytest.mark.parametrize("exchange", [1, 2, 5])
async def test_a_ledger_that_cannot_be_written_ends_the_run_and_nothing_is_posted_that_it_does_not_know(
    exchange: int, tmp_path: Path
) -> None:
    class FullDisk(WatchedLedger):
        exchanges = 0

        def exchange(self, outcomes: Any, wanted: int, now: float, monotonic: float, admit: Any) -> Claim:
            self.exchanges += 1
            if self.exchanges == exchange:
                (pages,) = self._one("PRAGMA page_count")
                self._one(f"PRAGMA max_page_count = {pages}")
            return super().exchange(outcomes, wanted, now, monotonic, admit)

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
        assert not ledger._database.in_transaction
        assert ledger._one("SELECT state FROM messages WHERE cus_message_id = ?", (name,)) == ("sending",)
        assert ledger.counts()[SENDING] == ledger.in_flight <= 8

    vendor = Vendor(treat)
    vendor.before_post = check_intent
    with ledger_of(messages(100)) as ledger:
        assert run(ledger, vendor, concurrency=8).report.counts.total() == 100
        assert ledger.most_in_flight == 8


def test_fifty_sends_cost_one_commit_at_the_most() -> None:
    vendor = Vendor(latency=0.05)
    with ledger_of(messages(5000)) as ledger:
        before = ledger.commits
        assert run(ledger, vendor, concurrency=100).report.counts == {ACCEPTED: 5000}
        assert ledger.commits - before <= 5000 / 50
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
