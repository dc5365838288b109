"""Helpers for the tests of applications: clocks, a sandbox in a thread, a transport in memory, and assertions.

The fixtures ``nxotp_sandbox``, ``nxotp_client``, ``nxotp_verifier`` and ``nxotp_clock`` come with the package; pytest
finds them by itself.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import orjson
from multidict import CIMultiDict
from yarl import URL

from .client import OtpClient
from .clocks import Clock
from .codes import ResponseCode
from .errors import NotSentError, OutcomeUnknownError
from .messages import check_field
from .phone_numbers import mask_number, parse_number
from .sandbox import SANDBOX_CREDENTIALS, FaultKind, ReceivedRequest, Sandbox
from .sandbox.account_queries import QUERIES
from .signing import Credentials, sign
from .transports import Answer, SessionPool

__all__ = [
    "NO_PAUSES",
    "FakeClock",
    "MemoryTransport",
    "SignedCallback",
    "UnpooledTransport",
    "assert_nothing_sent",
    "assert_otp_sent",
    "code_for",
    "serve_in_thread",
    "signed_callback",
]


async def _no_pause(_: float) -> None:
    await asyncio.sleep(0)


NO_PAUSES: Final = Clock(sleep=_no_pause)
"""The real clock, but pauses before a retry take no time: ``OtpClient(clock=NO_PAUSES)``."""


class FakeClock(Clock):
    """A clock that stands still. `advance` moves it, and so does a pause before a retry, which takes no real time.

    Pauses of messages that are sent at the same time add up.

        clock = FakeClock()
        async with Sandbox(clock=clock) as sandbox, sandbox.client(clock=clock) as client:
            sandbox.script(Fault.answer(-1))
            await client.send_otp("+999 555 0100", "482913")
        assert clock.slept == [0.5]

    Args:
        now: Seconds since the epoch at the beginning.

    Attributes:
        slept: The seconds of every pause so far.
        chance: The next random number, from 0.0 up to 1.0. While it is 1.0, every pause has its full length.
    """

    __setattr__ = object.__setattr__  # the fields of a Clock are frozen, these are not

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        super().__init__(time=self._read, monotonic=self._read, sleep=self._sleep, random=lambda: self.chance)
        self.slept: list[float] = []
        self.chance: float = 1.0
        self._now = now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds

    def _read(self) -> float:
        return self._now

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)


# ---------------------------------------------------------------------------------------------- over HTTP

_T = TypeVar("_T")


@contextmanager
def serve_in_thread(server: AbstractAsyncContextManager[_T]) -> Iterator[_T]:
    """Run a sandbox, or any other server, in a thread and an event loop of its own.

    It serves tests with and without an event loop, and applications in another thread or process.

    Args:
        server: A `Sandbox`, or another asynchronous context manager that serves as long as its block runs.

    Raises:
        OSError: The port is taken.
    """
    started: Future[tuple[_T, Callable[[], object]]] = Future()
    ended: Future[None] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with server as running:
            started.set_result((running, partial(loop.call_soon_threadsafe, stop.set)))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            (ended if started.done() else started).set_exception(error)
        else:
            ended.set_result(None)

    thread = threading.Thread(target=run, name="nxotp sandbox", daemon=True)
    thread.start()
    try:
        running, stop = started.result()
        try:
            yield running
        finally:
            stop()
            ended.result()
    finally:
        thread.join()


class UnpooledTransport:
    """A transport that closes its connection after every POST, so that it need not be closed, in any event loop."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        """POST the bytes once; see `Transport`."""
        pool = SessionPool(slots=1)
        try:
            return await pool.post(url, body, headers, timeout)
        finally:
            await pool.aclose()

    async def aclose(self) -> None:
        """Do nothing: nothing is open."""


# ---------------------------------------------------------------------------------------------- in memory


class MemoryTransport:
    """A transport that hands requests to a sandbox in memory: no socket, no waiting. The sandbox need not run.

        sandbox = Sandbox()
        client = MemoryTransport(sandbox).client()
        await client.send_otp("+999 555 0100", "482913")
        assert sandbox.messages[-1].otp == "482913"

    An answer that would come within the timeout comes at once; any other request times out at once. No status
    callbacks are pushed.

    Args:
        sandbox: The sandbox that answers.

    Attributes:
        reachable: While this is ``False``, every attempt fails with `NotSentError`.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.reachable: bool = True
        self._sandbox = sandbox

    def client(self, **options: Any) -> OtpClient:  # noqa: ANN401 - OtpClient checks them
        """Return a client that uses this transport and does not pause. The options are those of `OtpClient`."""
        defaults = {"transport": self, "base_url": "https://sandbox.invalid", "clock": NO_PAUSES}
        return self._sandbox.client(**{**defaults, **options})

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        """Answer as the vendor would; see `Transport`."""
        await asyncio.sleep(0)  # a real POST lets other tasks run, too
        if not self.reachable:
            raise NotSentError("no connection: reachable is False", temporary=True)

        if (path := URL(url).path) in QUERIES:
            return Answer(200, {}, self._sandbox.answer_query(path, CIMultiDict(headers), body))

        async def read() -> bytes:
            return body

        async with self._sandbox.receive(CIMultiDict(headers), read) as reply:
            fault = reply.request.fault
            if fault in (FaultKind.DISCONNECT_BEFORE_READING, FaultKind.DISCONNECT_AFTER_READING):
                raise _lost("the connection was reset")
            if fault in (FaultKind.HANG, FaultKind.DRIP) or reply.delay >= timeout:
                raise _lost(f"no answer within {timeout:.3g} s")
            return Answer(*reply.answer)

    async def aclose(self) -> None:
        """Do nothing: nothing is open."""


def _lost(what: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(f"{what}, after the request was sent")


# ---------------------------------------------------------------------------------------------- callbacks


class SignedCallback(NamedTuple):
    """A status callback as the vendor pushes it.

    Attributes:
        headers: The headers of the request.
        body: Its body, which must not be changed.
    """

    headers: dict[str, str]
    body: bytes


def signed_callback(
    message_id: str,
    status: str = "delivered",
    *,
    to: str = "",
    errors: Sequence[Mapping[str, Any]] = (),
    credentials: Credentials = SANDBOX_CREDENTIALS,
    now: float | None = None,
) -> SignedCallback:
    """Return a status callback that a receiver accepts, to POST with the test client of any framework.

        headers, body = signed_callback(message.message_id, "delivered")
        browser.post("/nxcloud/", content=body, headers=headers)

    Args:
        message_id: The message id that the vendor gave the message: ``assert_otp_sent(...).message_id``.
        status: ``sent``, ``delivered``, ``read``, ``failed`` or ``deleted``.
        to: The recipient's number. Default: none, which is allowed.
        errors: Why it failed: ``[{"code": 131026, "title": "Message undeliverable"}]``.
        credentials: The account's keys. Default: those of the sandbox.
        now: Seconds since the epoch at which it is signed. Default: the current time.
    """
    now = time.time() if now is None else now
    event = {"id": message_id, "status": status, "timestamp": str(int(now)), "recipient_id": to, "errors": [*errors]}
    body = orjson.dumps({"statuses": [event], "messaging_product": "whatsapp"})
    ts = int(now * 1000)
    headers = {
        "Content-Type": "application/json",
        "accessKey": credentials.access_key,
        "action": "callback",
        "bizType": "2",
        "ts": str(ts),
        "algorithm": "md5",
        "sign": sign(body, ts=ts, credentials=credentials, action="callback", biz_type="2"),
    }
    return SignedCallback(headers, body)


# ---------------------------------------------------------------------------------------------- assertions

_SHOWN: Final = 10


def assert_otp_sent(sandbox: Sandbox, to: str, *, code: str | None = None, within: float = 0.0) -> ReceivedRequest:
    """Assert that exactly one message was sent to a number, and return it: ``.otp`` is its code.

    A message was sent when the sandbox has accepted it, even if the sender does not know that. Call
    ``sandbox.requests.clear()`` between two steps of a test to check each for itself.

    Args:
        sandbox: The sandbox that received it.
        to: The number, in any notation.
        code: The expected code. Default: any.
        within: The most seconds to wait for it, where the application sends in the background. The calling thread is
            blocked; a coroutine writes ``await asyncio.to_thread(assert_otp_sent, sandbox, to, within=5)``.

    Raises:
        AssertionError: The text lists the requests received, with numbers masked and without codes.
        InvalidMessageError: ``to`` is not a number.
        RuntimeError: ``within`` was given, and an event loop runs in the calling thread.
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    number = check_field("to", parse_number, to)
    shown = mask_number(number)
    found = sandbox.messages_to(number, within=within)
    if not found:
        failure = f"no OTP was sent to {shown}; {_received(sandbox, number)}"
    elif len(found) > 1:
        failure = f"{len(found)} OTPs were sent to {shown}, expected one; {_received(sandbox, number)}"
    elif code is not None and found[0].otp != code:
        failure = f"the OTP that was sent to {shown} has another code than the expected one (codes are not shown)"
    else:
        return found[0]
    del to, code, number  # error reporters show the local variables of this frame
    raise AssertionError(failure)


def code_for(sandbox: Sandbox, number: str, *, within: float = 0.0) -> str:
    """Return the code that was last sent to a number: what the person who has it would type.

    Args:
        sandbox: The sandbox that received it.
        number: The number, in any notation.
        within: The most seconds to wait for it; see `assert_otp_sent`.

    Raises:
        AssertionError: None was sent. The text lists the requests received, with numbers masked and without codes.
        InvalidMessageError: ``number`` is not a number.
        RuntimeError: ``within`` was given, and an event loop runs in the calling thread.
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    digits = check_field("number", parse_number, number)
    if found := sandbox.messages_to(digits, within=within):
        return found[-1].otp or ""
    failure = f"no OTP was sent to {mask_number(digits)}; {_received(sandbox, digits)}"
    del number, digits  # error reporters show the local variables of this frame
    raise AssertionError(failure)


def assert_nothing_sent(sandbox: Sandbox) -> None:
    """Assert that no message was sent. Requests may have been received, and rejected.

    Args:
        sandbox: The sandbox that would have received it.

    Raises:
        AssertionError: The text lists the requests received, with numbers masked and without codes.
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    if sent := len(sandbox.messages):
        raise AssertionError(f"{sent} {'OTP was' if sent == 1 else 'OTPs were'} sent; {_received(sandbox)}")


def _received(sandbox: Sandbox, number: str = "") -> str:
    """List the last requests, one line each."""
    requests = sandbox.requests.copy()
    if not requests:
        return "no request was received"
    heading = "requests received:" if len(requests) <= _SHOWN else f"the last {_SHOWN} of {len(requests)} requests:"
    return "\n  ".join([heading, *(_describe(request, number) for request in [*requests][-_SHOWN:])])


def _describe(request: ReceivedRequest, number: str) -> str:
    shown = mask_number(request.to)
    # Two numbers may look the same when they are masked.
    who = f"{shown}, which is another number" if shown == mask_number(number) and request.to != number else shown
    if request.message_id is not None:
        return f"to {who}: sent"
    if request.code == ResponseCode.SUCCESS:
        return f"to {who}: not sent, because of the fault {request.fault}"
    known = ResponseCode.find(request.code)
    return f"to {who}: rejected with {int(request.code)}, {known.meaning if known else 'an undocumented code'}"
