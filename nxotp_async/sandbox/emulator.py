"""The vendor's side of the API, however the requests come in: it checks, decides, answers and remembers."""

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from secrets import token_urlsafe
from typing import Any, Final

import attrs

from ..client import OtpClient
from ..codes import ResponseCode
from ..messages import mask_number, parse_number
from ..protocol import OTP_PATH
from ..signing import Credentials
from . import answers
from .checks import check_body, check_headers, otp_code, parse_body
from .faults import MAGIC_RECIPIENTS, Fault, FaultKind, FaultPlan

__all__ = ["SANDBOX_BUSINESS_PHONE", "SANDBOX_CREDENTIALS", "Emulator", "ReceivedRequest", "Treatment"]

SANDBOX_CREDENTIALS: Final = Credentials("sandbox-access-key", "sandbox-access-secret", "sandbox-appkey")
"""The keys of the sandbox's one account. They are no secret."""
SANDBOX_BUSINESS_PHONE: Final = "99955500000"
"""The number bound to the sandbox's application."""

_NO_FAULT = Fault()


@attrs.frozen
class ReceivedRequest:
    """What the sandbox received, and what became of it.

    Attributes:
        arrived_at: Seconds since the epoch, by the sandbox's clock.
        headers: The request's headers.
        body: Its raw body; empty where the connection was reset before it was read.
        fields: The parsed body; empty where it was no JSON object.
        code: The vendor's code it earned, whether or not that was answered.
        fault: The kind of fault it met.
        message_id: The id of the message that went out, or ``None`` where none did.
    """

    arrived_at: float
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    fields: Mapping[str, Any] = attrs.field(repr=False)
    code: int
    fault: FaultKind
    message_id: str | None

    @property
    def to(self) -> str:
        """The recipient's number."""
        return str(self.fields.get("to", ""))

    @property
    def content(self) -> str:
        """The content as it was sent."""
        return str(self.fields.get("content", ""))

    @property
    def otp(self) -> str | None:
        """The OTP code, as the vendor extracts it from the content."""
        return otp_code(self.content)

    @property
    def cus_message_id(self) -> str | None:
        """The sender's own id."""
        return self.fields.get("cus_message_id")

    @property
    def ts(self) -> int:
        """The ``ts`` header, in milliseconds; 0 where it is none."""
        ts = self.headers.get("ts", "")
        return int(ts) if ts.isascii() and ts.isdigit() else 0

    def __str__(self) -> str:
        return f"{self.cus_message_id or '-'} to {mask_number(self.to)}: {int(self.code)} {self.fault}"


@attrs.frozen
class Treatment:
    """A request, why it earned its code, and the fault it meets."""

    request: ReceivedRequest
    why: str
    fault: Fault


class Emulator:
    """The vendor, with one account, however the requests come in. Its options are told by `Sandbox`.

    Attributes:
        credentials: The account's keys.
        requests: What came in, the oldest first. Another thread adds to it while a sandbox runs there.
        counts: How many requests, messages, codes and faults there were.
    """

    def __init__(
        self,
        *,
        credentials: Credentials = SANDBOX_CREDENTIALS,
        business_phones: Sequence[str] = (SANDBOX_BUSINESS_PHONE,),
        fault_rate: float = 0.0,
        faults: Sequence[Fault] = (Fault.answer(-1), Fault.answer(9001)),
        seed: int | None = None,
        latency: float = 0.0,
        clock_offset: float = 0.0,
        echo_message_id: bool = True,
        keep: int = 100_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.credentials = credentials
        self.requests: deque[ReceivedRequest] = deque(maxlen=keep)
        self.counts: Counter[str] = Counter()
        self._business_phones = tuple(business_phones)
        self._plan = FaultPlan(fault_rate, faults, seed)
        self._latency = latency
        self._clock: Callable[[], float] = lambda: clock() + clock_offset
        self._echo_message_id = echo_message_id
        self._remembered = threading.Condition()

    # ------------------------------------------------------------------------------------------ use

    def client(self, **options: Any) -> OtpClient:  # noqa: ANN401 - OtpClient checks them
        """Return a client of this account and its first number. The options are those of `OtpClient`."""
        return OtpClient(**{**self._account(), **options})

    def _account(self) -> dict[str, str]:
        account = {
            "access_key": self.credentials.access_key,
            "access_secret": self.credentials.access_secret,
            "appkey": self.credentials.appkey,
        }
        return {**account, "business_phone": self._business_phones[0]} if self._business_phones else account

    def script(self, *faults: Fault) -> None:
        """Let the next requests meet these faults, one each.

        Raises:
            TypeError: One is no `Fault`; nothing was added.
        """
        for fault in faults:
            if not isinstance(fault, Fault):
                raise TypeError(f"expected a Fault, Fault.answer(9005) for example, not {type(fault).__name__}")
        self._plan.script(faults)

    @property
    def messages(self) -> list[ReceivedRequest]:
        """The requests whose message went out, the oldest first."""
        with self._remembered:
            return [request for request in self.requests if request.message_id is not None]

    def messages_to(self, to: str, *, within: float = 0.0) -> list[ReceivedRequest]:
        """Return the messages that went out to a number, the oldest first; wait for the first one if need be.

        Args:
            to: The number, as people write it.
            within: Seconds to wait at the most. The calling thread waits.

        Raises:
            InvalidMessageError: It is no number.
            RuntimeError: An event loop runs in the calling thread, and would wait, too.
        """
        number = parse_number(to)
        if within and _runs_an_event_loop():
            raise RuntimeError("waiting would stop this thread's event loop: await asyncio.to_thread(...) instead")

        def found() -> list[ReceivedRequest]:
            return [message for message in self.messages if message.to == number]

        with self._remembered:
            return self._remembered.wait_for(found, within)

    # ------------------------------------------------------------------------------------------ a request

    def _arrive(self) -> tuple[float, Fault | None]:
        """Count a request, and return when it came and the fault it meets, unless that depends on its recipient."""
        self.counts["requests"] += 1
        return self._clock(), self._plan.next()

    def _treat(self, arrived_at: float, headers: Mapping[str, str], body: bytes, fault: Fault | None) -> Treatment:
        """Check a request, and decide and remember what becomes of it."""
        code: int
        code, why = check_headers(headers, body, self.credentials, now_ms=int(arrived_at * 1000))
        fields = parse_body(body)
        if code is ResponseCode.SUCCESS:
            code, why = check_body(fields, self.credentials, self._business_phones)
        fields = fields or {}
        fault = fault or MAGIC_RECIPIENTS.get(str(fields.get("to"))) or _NO_FAULT
        if code is ResponseCode.SUCCESS and fault.kind is FaultKind.CODE:
            code = fault.code
        elif code is ResponseCode.SUCCESS and fault.kind is FaultKind.META:
            code = ResponseCode.WHATSAPP_ERROR
        message_id = self._new_id(fields) if code is ResponseCode.SUCCESS and fault.accepts else None
        request = ReceivedRequest(arrived_at, headers, body, fields, code, fault.kind, message_id)
        self._remember(request)
        return Treatment(request, why, fault)

    def _drop(self, arrived_at: float, headers: Mapping[str, str], fault: Fault) -> None:
        """Remember a request whose body is not read."""
        code = ResponseCode.REQUEST_FAILED
        self._remember(ReceivedRequest(arrived_at, headers, b"", {}, code, fault.kind, None))

    def _new_id(self, fields: Mapping[str, Any]) -> str:
        own = fields.get("cus_message_id") if self._echo_message_id else None
        return own or f"wamid.{token_urlsafe(21)}"

    def _remember(self, request: ReceivedRequest) -> None:
        self.counts["messages"] += request.message_id is not None
        self.counts[f"code {int(request.code)}"] += 1
        self.counts[f"fault {request.fault}"] += 1
        with self._remembered:
            self.requests.append(request)
            self._remembered.notify_all()

    def _now(self) -> str:
        """Return the ``Date`` header."""
        return formatdate(self._clock(), usegmt=True)

    def _answer(self, treatment: Treatment) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the answer to a request that gets one."""
        headers = {"Date": self._now()}
        fault = treatment.fault
        if fault.kind is not FaultKind.HTTP:
            return 200, {**headers, "Content-Type": "application/json"}, _body(treatment)
        if fault.retry_after is not None:
            headers["Retry-After"] = str(fault.retry_after)
        if 300 <= fault.code < 400:
            headers["Location"] = OTP_PATH
        headers["Content-Type"] = "text/html; charset=utf-8"
        return fault.code, headers, answers.gateway_page(fault.code).encode()


def _runs_an_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _body(treatment: Treatment) -> bytes:
    request, fault = treatment.request, treatment.fault
    if request.code == ResponseCode.WHATSAPP_ERROR:
        return answers.meta_failure(fault.code or 100, treatment.why)
    if request.code != ResponseCode.SUCCESS:
        return answers.failure(request.code, treatment.why)
    message_id = request.message_id or ""
    match fault.kind:
        case FaultKind.TRUNCATED:
            whole = answers.success(message_id)
            return whole[: len(whole) // 2]
        case FaultKind.WRONG_TYPES:
            return answers.wrong_types(message_id)
        case FaultKind.WITHOUT_ID:
            return answers.without_id()
        case FaultKind.HUGE:
            return answers.huge(fault.size)
    return answers.success(message_id)
