"""The sandbox: it checks requests, decides, answers and remembers as the vendor does, over HTTP or in memory."""

import asyncio
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from secrets import token_urlsafe
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from ..checks import number, validate
from ..client import OtpClient
from ..clocks import Clock
from ..codes import ResponseCode
from ..messages import check_field
from ..phone_numbers import parse_number
from ..signing import Credentials
from ..sms import SMS_PATH
from ..urls import is_loopback, listening_url
from .account import SANDBOX_BUSINESS_PHONE, SANDBOX_CREDENTIALS, client_settings, environ_of
from .account_queries import SandboxAccount, answer_query
from .answers import Reply, answer
from .api import Api
from .checks import check_body, check_headers, parse_body
from .faults import MAGIC_RECIPIENTS, Fault, FaultKind, FaultPlan
from .inbox import Inbox
from .limits import WhatsAppLimits
from .problems import Guard
from .pusher import CallbackPlan, CallbackPusher
from .requests import ReceivedRequest
from .server import make_app
from .sms import check_sms_body

__all__ = ["Sandbox"]

_NO_FAULT: Final = Fault()
_KEPT_BY_PAGE: Final = 10_000
_SMS: Final = {"action": "mtsend", "biz_type": "3"}


class Sandbox:
    """An emulator of the OTP API on a loopback port, for tests, demonstrations and load tests.

    It checks every header, the signature over the raw bytes, the 60 s window and every field, and answers with the
    vendor's codes. Faults are scripted (`script`), drawn at random (``fault_rate``), or chosen by the recipient's
    number (`MAGIC_RECIPIENTS`).

        async with Sandbox() as sandbox, sandbox.client() as client:
            await client.send_otp("+999 555 0100", "482913")
            assert sandbox.messages[-1].otp == "482913"

    Args:
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        credentials: The keys of the one account there is.
        business_phones: The numbers bound to its application.
        fault_rate: The share of requests with one of ``faults``, from 0.0 to 1.0. A code is answered to valid requests
            only; an invalid one is answered with its own.
        faults: The faults to draw from: by default the codes -1 and 9001.
        seed: Makes the draws repeatable.
        latency: Seconds every answer takes at least.
        clock_offset: Seconds the sandbox's clock is ahead; its ``Date`` header and its 60 s window follow it.
        echo_message_id: Whether the message id is the ``cus_message_id``, as the vendor documents it; otherwise ids
            are made up, like that of the vendor's example answer.
        sender_limit: Messages a second from one sending number; more are refused with 9099 and Meta's 130429, as by
            WhatsApp, whose limit is 80. No limit by default.
        recipient_interval: Seconds between two messages to one recipient; earlier ones are refused with 9099 and Meta's
            131056, as by WhatsApp, where it is 6. No limit by default.
        callbacks: The status callbacks to push for messages that were sent; none by default.
        account: What there is to ask about the account, and what follows from it. By default it has money enough, and
            templates in all languages.
        on_request: Called with every request, after it was judged and before it is answered.
        keep: How many requests are remembered; the oldest are dropped first. The counters are not affected. Its page
            and its API know the last 10,000 of them.
        token: What the page and the API ask for. Default: nothing on loopback, and a token at random elsewhere.
        code_life: Seconds that the page shows a code as valid for. No request says how long it is.
        clock: The source of time.

    Raises:
        ValueError: An argument is wrong.

    Attributes:
        credentials: The account's keys.
        account: What there is to ask about the account.
        business_phones: The numbers bound to its application, which may change.
        requests: The requests received, the oldest first. A sandbox in another thread adds to it as they come.
        counts: How many requests, messages, codes and faults there were.
        max_in_flight: The most requests that were in flight at the same time.
        token: What the page and the API ask for; ``None`` if nothing.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        credentials: Credentials = SANDBOX_CREDENTIALS,
        business_phones: Sequence[str] = (SANDBOX_BUSINESS_PHONE,),
        fault_rate: float = 0.0,
        faults: Sequence[Fault] = (Fault.answer(-1), Fault.answer(9001)),
        seed: int | None = None,
        latency: float = 0.0,
        clock_offset: float = 0.0,
        echo_message_id: bool = True,
        sender_limit: int | None = None,
        recipient_interval: float | None = None,
        callbacks: CallbackPlan | None = None,
        account: SandboxAccount | None = None,
        on_request: Callable[[ReceivedRequest], object] | None = None,
        keep: int = 100_000,
        token: str | None = None,
        code_life: float = 300.0,
        clock: Clock | None = None,
    ) -> None:
        self.credentials = credentials
        self.requests: deque[ReceivedRequest] = deque(maxlen=keep)
        self.counts: Counter[str] = Counter()
        self.max_in_flight: int = 0
        self.token: str | None = token or (None if is_loopback(host) else token_urlsafe(18))
        self._inbox = Inbox(min(keep, _KEPT_BY_PAGE), validate("code_life", number(above=0), code_life))
        self._address = host, port
        self.account: SandboxAccount = account or SandboxAccount()
        self.business_phones: list[str] = [*business_phones]
        self._first_phone = next(iter(business_phones), None)
        self._plan = FaultPlan(fault_rate, faults, seed)
        self._limits = WhatsAppLimits(sender_limit, recipient_interval)
        self._latency = validate("latency", number(at_least=0), latency)
        self._echo_message_id = echo_message_id
        self._callback_plan = callbacks
        self._on_request = on_request
        self._seed = seed
        self._clock = clock or Clock()
        self._clock_offset = clock_offset
        self._in_flight = 0
        self._remembered = threading.Condition()
        self._pusher: CallbackPusher | None = None
        self._runner: web.AppRunner | None = None

    # ------------------------------------------------------------------------------------------ running

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start listening.

        Raises:
            OSError: The port is taken.
            RuntimeError: It is running already.
        """
        if self._runner is not None:
            raise RuntimeError("the sandbox is running already")
        app = make_app(self.receive, self._announce, self._now, self.answer_query)
        self._api().add_to(app)
        runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=0.1, handler_cancellation=True
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, *self._address).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        if self._callback_plan is not None:
            self._pusher = CallbackPusher(
                self._callback_plan, self.credentials, self.counts, self._now, self._seed, self._inbox.add_callback
            )

    def _api(self) -> Api:
        return Api(
            inbox=self._inbox,
            plan=self._plan,
            credentials=self.credentials,
            clock=self._now,
            pusher=lambda: self._pusher,
            forget=self._forget,
            counts=lambda: {**self.counts, "max_in_flight": self.max_in_flight},
            guard=Guard(self.token),
        )

    def _forget(self) -> None:
        with self._remembered:
            self.requests.clear()

    async def stop(self) -> None:
        """Stop listening, and abort what is in flight."""
        runner, self._runner = self._runner, None
        pusher, self._pusher = self._pusher, None
        try:
            if runner is not None:
                await runner.cleanup()
        finally:
            if pusher is not None:
                await pusher.aclose()

    async def callbacks_settled(self) -> None:
        """Wait until every callback so far has been answered with 200, or given up."""
        if self._pusher is not None:
            await self._pusher.settled()

    @property
    def url(self) -> str:
        """The base URL to give to a client on this machine."""
        if self._runner is None:
            raise RuntimeError("the sandbox is not running: use it as 'async with Sandbox() as sandbox'")
        return listening_url(*self._runner.addresses[0][:2])

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that let ``OtpClient()`` use this sandbox, its account and its first number."""
        return environ_of(self._client_settings(self.url))

    def client(self, **options: Any) -> OtpClient:  # noqa: ANN401 - OtpClient checks them
        """Return a client with this sandbox's account and first number. The options are those of `OtpClient`."""
        return OtpClient(**{**self._client_settings(options.get("base_url") or self.url), **options})

    def _client_settings(self, base_url: str) -> dict[str, str | None]:
        return client_settings(base_url, self.credentials, self._first_phone)

    # ------------------------------------------------------------------------------------------ in tests

    def script(self, *faults: Fault) -> None:
        """Apply these faults to the next requests, one each.

        Raises:
            TypeError: One is not a `Fault`; none was added.
        """
        for fault in faults:
            if not isinstance(fault, Fault):
                raise TypeError(f"expected a Fault, Fault.answer(9005) for example, not {type(fault).__name__}")
        self._plan.script(faults)

    @property
    def messages(self) -> list[ReceivedRequest]:
        """The requests whose message was sent, the oldest first."""
        with self._remembered:
            return [request for request in self.requests if request.message_id is not None]

    def messages_to(self, to: str, *, within: float = 0.0) -> list[ReceivedRequest]:
        """Return the messages that were sent to a number, the oldest first; wait for the first one if need be.

        Args:
            to: The number, in any notation.
            within: The most seconds to wait. The calling thread is blocked meanwhile.

        Raises:
            InvalidMessageError: It is not a number.
            RuntimeError: An event loop runs in the calling thread, and would be blocked, too.
        """
        number = check_field("to", parse_number, to)
        if within and _runs_an_event_loop():
            raise RuntimeError("waiting would block this thread's event loop: await asyncio.to_thread(...) instead")

        def found() -> list[ReceivedRequest]:
            return [message for message in self.messages if message.to == number]

        with self._remembered:
            return self._remembered.wait_for(found, within)

    # ------------------------------------------------------------------------------------------ a request

    @asynccontextmanager
    async def receive(
        self, headers: Mapping[str, str], read: Callable[[], Awaitable[bytes]], *, path: str | None = None
    ) -> AsyncIterator[Reply]:
        """Take a request, and yield the reply, which the caller carries out. It is in flight until the block ends.

        The HTTP server uses it, and so does `nxotp_async.testing.MemoryTransport`.

        Args:
            headers: The request's headers, with names in any letter case.
            read: Returns the body. It is not called where the connection is to be reset before that.
            path: The path of the URL, which names the service. Default: as ``bizType`` says.
        """
        self.counts["requests"] += 1
        self._in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self._in_flight)
        try:
            is_sms = headers.get("bizType") == "3" if path is None else path == SMS_PATH
            reply = await self._reply(headers, read, is_sms=is_sms)
            self._inbox.add(reply)
            yield reply
        finally:
            self._in_flight -= 1

    def answer_query(self, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """Return the answer to what is asked about the account. Such requests are not remembered, nor counted."""
        now_ms = int(self._now() * 1000)
        return answer_query(path, headers, body, self.account, self.business_phones, self.credentials, now_ms=now_ms)

    async def _reply(self, headers: Mapping[str, str], read: Callable[[], Awaitable[bytes]], *, is_sms: bool) -> Reply:
        arrived_at, fault = self._now(), self._plan.next()
        if fault is not None and fault.kind is FaultKind.DISCONNECT_BEFORE_READING:
            failed = ResponseCode.REQUEST_FAILED
            unread = ReceivedRequest(arrived_at, headers, b"", {}, failed, fault.kind, None, str(fault))
            return Reply(self._remember(unread))
        body = await read()
        code: int
        service = _SMS if is_sms else {}
        code, why = check_headers(headers, body, self.credentials, now_ms=int(arrived_at * 1000), **service)
        fields = parse_body(body)
        if code is ResponseCode.SUCCESS and is_sms:
            code, why = check_sms_body(fields, self.credentials)
        elif code is ResponseCode.SUCCESS:
            code, why = check_body(fields, self.credentials, self.business_phones)
        fields = fields or {}
        to = fields.get("phone" if is_sms else "to")
        if isinstance(to, str):
            fault = self._plan.next_to(to) or fault or MAGIC_RECIPIENTS.get(to)
        fault = fault or _NO_FAULT
        if is_sms and fault.kind is FaultKind.META:
            fault = _NO_FAULT  # it is WhatsApp's
        if code is ResponseCode.SUCCESS and fault.accepts and not is_sms:
            sender = fields.get("business_phone") or self._first_phone or ""
            refusal = self.account.refuse(fields["language_code"])
            fault = refusal or self._limits.take(sender, fields["to"], self._clock.monotonic()) or fault
        if code is ResponseCode.SUCCESS and fault.kind is FaultKind.CODE:
            code = fault.code
        elif code is ResponseCode.SUCCESS and fault.kind is FaultKind.META:
            code = ResponseCode.WHATSAPP_ERROR
        is_accepted = code is ResponseCode.SUCCESS and fault.accepts
        message_id = self._new_id(fields) if is_accepted else None
        self.account.balance -= self.account.price * is_accepted
        request = self._remember(
            ReceivedRequest(arrived_at, headers, body, fields, code, fault.kind, message_id, why or str(fault), is_sms)
        )
        return Reply(request, self._latency + fault.latency, answer(request, fault, why, self._now()))

    def _now(self) -> float:
        return self._clock.time() + self._clock_offset

    def _new_id(self, fields: Mapping[str, Any]) -> str:
        own = fields.get("cus_message_id", fields.get("sysMessageId")) if self._echo_message_id else None
        return own or f"wamid.{token_urlsafe(21)}"

    def _remember(self, request: ReceivedRequest) -> ReceivedRequest:
        self.counts["messages"] += request.message_id is not None
        self.counts[f"code {int(request.code)}"] += 1
        self.counts[f"fault {request.fault}"] += 1
        with self._remembered:
            self.requests.append(request)
            self._remembered.notify_all()
        if self._on_request is not None:
            self._on_request(request)
        return request

    async def _announce(self, request: ReceivedRequest) -> None:
        if request.message_id is not None and self._pusher is not None and not request.is_sms:
            await self._pusher.announce(request.fields, request.message_id)


def _runs_an_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
