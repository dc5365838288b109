"""Bulk runs: in virtual time without sockets, or against the sandbox."""

import asyncio
from collections import Counter
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

import attrs
import orjson
from bulk_ledgers import ProbedLedger
from support import VirtualTimeLoop

from nxotp_async import (
    NotSentError,
    OtpClient,
    OtpMessage,
    OutcomeUnknownError,
    RetryPolicy,
)
from nxotp_async.bulk import Dispatcher, Ledger, MessageState, Report, Row
from nxotp_async.bulk.schema import Transition
from nxotp_async.sandbox import Sandbox, answers, sandbox_client
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


class WatchedLedger(ProbedLedger):
    """A ledger that notices how much is in flight, and when it is asked again and again for nothing."""

    in_flight = 0
    most_in_flight = 0
    idle_exchanges = 0  # in a row

    def record(self, transitions: Sequence[Transition], now: float) -> None:
        self.in_flight -= len(transitions)
        self.idle_exchanges = 0 if transitions else self.idle_exchanges + 1
        if self.idle_exchanges > 1000:
            raise AssertionError("the ledger is asked again and again for nothing")
        super().record(transitions, now)

    def claim(self, keys: Sequence[int], now: float) -> None:
        self.in_flight += len(keys)
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.idle_exchanges = 0 if keys else self.idle_exchanges
        super().claim(keys, now)


@contextmanager
def ledger_of(batch: Iterable[OtpMessage], path: Path | None = None) -> Iterator[WatchedLedger]:
    with WatchedLedger(path) as ledger:
        fill(ledger, batch)
        yield ledger


def fill(ledger: Ledger, batch: Iterable[OtpMessage]) -> None:
    entries = [(str(item.cus_message_id), Row(line, item, {}, "", "")) for line, item in enumerate(batch, start=2)]
    with ledger.transaction():
        assert ledger.add(ledger.add_source("otps.csv", START), entries, START) == {}


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


_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class BulkLoop(VirtualTimeLoop):
    """A loop in virtual time that has the ledger's work done at once."""

    def run_in_executor(self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts) -> asyncio.Future[_T]:
        # Answers in a later turn, as a thread does: Python 3.14 itself answers in this one what is done at once.
        return self.create_task(asyncio.wait_for(super().run_in_executor(Inline(), func, *args), timeout=None))


class SlowLedgerLoop(BulkLoop):
    """A loop in virtual time in which the ledger takes a hundredth of a second."""

    def run_in_executor(self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts) -> asyncio.Future[_T]:
        async def take_time() -> _T:
            await asyncio.sleep(0.01)
            return func(*args)

        return self.create_task(take_time())


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
    return Dispatcher(ledger, client, clock=loop.clock, **options)


def in_virtual_time(main: Coroutine[Any, Any, Any], loop_factory: type[BulkLoop] = BulkLoop) -> Any:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)


@attrs.frozen
class Ended:
    report: Report
    at: float
    dispatcher: Dispatcher


def run(
    ledger: Ledger,
    vendor: Vendor,
    *,
    meanwhile: Callable[[Dispatcher], Awaitable[None]] | None = None,
    loop_factory: type[BulkLoop] = BulkLoop,
    **options: Any,
) -> Ended:
    """Run a dispatcher in virtual time from 0, and check what always holds."""

    async def main() -> Ended:
        dispatcher = virtual_dispatcher(ledger, vendor, **options)
        running = asyncio.create_task(dispatcher.run())
        if meanwhile is not None:
            await meanwhile(dispatcher)
        report = await running
        return Ended(report, asyncio.get_running_loop().time(), dispatcher)

    ended: Ended = in_virtual_time(main(), loop_factory)
    check(ledger, vendor.accepted, ended.report)
    assert ended.dispatcher.counts == ended.report.counts
    return ended


# ---------------------------------------------------------------------------------------------- at the sandbox


async def run_at(
    sandbox: Sandbox,
    ledger: Ledger,
    *,
    before: Iterable[Sandbox] = (),
    concurrency: int = 4,
    client: Mapping[str, Any] | None = None,
    **options: Any,
) -> Report:
    """Run a dispatcher against the sandbox, after runs against others, and check what always holds."""
    async with sandbox.client(max_concurrency=concurrency, **(client or {})) as sender:
        report = await Dispatcher(ledger, sender, **{"retry": AT_ONCE, **options}).run()
    check(ledger, went_out(sandbox, *before), report)
    return report


def went_out(*sandboxes: Sandbox) -> list[str | None]:
    return [request.cus_message_id for sandbox in sandboxes for request in sandbox.messages]


def fail_some(post: Post) -> Answer | Exception | None:
    match post.name, post.attempt:
        case "m1" | "m6", 1:
            return refusal(-1)
        case "m3", _:
            return LOST
        case "m5", _:
            return refusal(9015)
    return None


async def settled(client: OtpClient, tasks: Collection[asyncio.Task[Any]]) -> None:
    """Let tasks that have been cancelled run to their end; those are not leaked, only not over."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert client.in_flight == 0


def check_at(sandbox: Sandbox, ledger: Ledger) -> None:
    check(ledger, went_out(sandbox))
    received = {str(request.cus_message_id) for request in sandbox.requests}
    assert not received & in_state(ledger, QUEUED)
