"""The client: messages in, results out."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from secrets import token_hex
from typing import TYPE_CHECKING, ClassVar, Final, Literal, NoReturn, Self

from .checks import instance_of, validate
from .client_state import ClientState
from .clocks import Clock
from .delivery import Delivery
from .errors import ConfigurationError, InvalidMessageError, InvalidReason, sensitive_variables
from .hooks import AttemptHook, ResultHook
from .languages import Language
from .messages import ApiType, Category, OtpMessage
from .results import ResultCollector, SendResult, SendStatus
from .retry import RetryPolicy
from .settings import Settings, shown_transport
from .streaming import as_completed
from .transports import Transport

if TYPE_CHECKING:
    import aiohttp

    from .account import Account
    from .pacing import SharedRate
    from .tracking import DeliveryTracker

__all__ = ["OtpClient"]

_log = logging.getLogger("nxotp_async")
_TRACKER_TIMEOUT: Final = 5.0  # seconds; a user may be waiting

Messages = Iterable[OtpMessage] | AsyncIterable[OtpMessage]


class OtpClient:
    """Sends one-time passwords through NXCloud's WhatsApp OTP API.

    Constructing it does no I/O and needs no event loop. One client serves a whole program, also over several event
    loops, one after the other or in several threads: each loop has its own connections, permits and rate limit.

    Every argument that is not given is read from its environment variable, ``NXOTP_`` and the argument's name in
    capitals (``NXOTP_ACCESS_KEY``); ``retry``, ``session``, ``clock``, ``tracker`` and the hooks have none.

    Args:
        access_key: The account's key. Required.
        access_secret: The account's secret; it signs, and is never sent. Required.
        appkey: The key of the WhatsApp application. Required.
        business_phone: The sending number, for accounts that have several. Default: the vendor chooses.
        default_region: Whose national numbers `send_otp` expects where there is no +: the two letters of a country,
            ``US`` for example. It needs the extra ``verification``. Default: a national number is refused.
        base_url: ``https://api2.nxcloud.com`` by default. Plain http is for loopback only.
        insecure_sandbox_host: The one host beside loopback that plain http may go to: a sandbox's in another container.
            With other keys than the sandbox's own, it is refused.
        dr_webhook: Where the vendor sends status callbacks. Default: the application's own webhook.
        language_code: The template language of messages that name none. Default: ``en``.
        max_concurrency: Permits: requests in flight at the same time, per event loop. Default: 64.
        rate_limit: Messages a second, per event loop, or a `SharedRate` (``nxotp_async.pacing``), which other processes
            have a part in; a retry counts too. Default: no limit. A send that waits for it holds a permit, and its
            deadline runs. One that would not be allowed in time is not sent, and does not wait.
        timeout: Seconds for one attempt, connecting included. Default: 10.
        deadline: Seconds for all attempts of a message together, waiting for a permit and for the rate limit
            included. Default: 30.
        retry: What is tried again. Default: ``RetryPolicy()``.
        keepalive_timeout: Seconds a connection may idle before it is not used again. Default: 15. What the server
            says of it, or does, shortens the time by itself.
        proxy: URL of an HTTP proxy. The environment's ``HTTPS_PROXY`` and the like are never used by themselves.
        session: An ``aiohttp.ClientSession`` of the application: borrowed, never closed. Its default headers and its
            middlewares take part in every request.
        transport: ``aiohttp``, the default, or ``wire``: HTTP/1.1 by this library itself, for less than half of the
            processor time; it has no proxies, no sessions, and needs the extra ``fast``. Or an object of your own, for
            another HTTP library or for tests; closed with the client.
        clock: Sources of time and chance for tests.
        tracker: Gets every `SendResult` before it is returned or raised, so that callbacks find their message. If it
            fails, or takes longer than 5 seconds, that is logged, and the result is returned all the same.
        on_attempt: Called after every POST, with an `Attempt`. See `add_hooks`.
        on_result: Called with every `SendResult`, also with those that `send_otp` raises for.

    Raises:
        ConfigurationError: A setting is missing or wrong; the text names the argument and its variable.
    """

    _environment: ClassVar[Mapping[str, str]] = os.environ

    @sensitive_variables
    def __init__(
        self,
        *,
        access_key: str | None = None,
        access_secret: str | None = None,
        appkey: str | None = None,
        business_phone: str | None = None,
        default_region: str | None = None,
        base_url: str | None = None,
        insecure_sandbox_host: str | None = None,
        dr_webhook: str | None = None,
        language_code: Language | str | None = None,
        max_concurrency: int | None = None,
        rate_limit: "float | SharedRate | None" = None,
        timeout: float | None = None,
        deadline: float | None = None,
        retry: RetryPolicy | None = None,
        keepalive_timeout: float | None = None,
        proxy: str | None = None,
        session: "aiohttp.ClientSession | None" = None,
        transport: Transport | Literal["aiohttp", "wire"] | None = None,
        clock: Clock | None = None,
        tracker: "DeliveryTracker | None" = None,
        on_attempt: AttemptHook | None = None,
        on_result: ResultHook | None = None,
    ) -> None:
        self._settings = settings = Settings.resolve(locals(), self._environment)
        self._state = ClientState(
            settings.new_transport(), settings.clock, settings.max_concurrency, settings.rate_limit
        )
        if tracker is not None:
            from .tracking import DeliveryTracker  # noqa: PLC0415 - not needed for sending

            self._state.tracker = validate("tracker", instance_of(DeliveryTracker), tracker, ConfigurationError)
        self.add_hooks(on_attempt=on_attempt, on_result=on_result)

    def __repr__(self) -> str:
        return f"<OtpClient {self.url}>"

    @property
    def max_concurrency(self) -> int:
        """How many requests may be in flight at the same time, per event loop."""
        return self._settings.max_concurrency

    @property
    def url(self) -> str:
        """The URL that messages are posted to."""
        return self._settings.url

    @property
    def settings(self) -> Settings:
        """The settings of this client or view, to look at. They hold the keys, and are not shown by ``repr``."""
        return self._settings

    @property
    def transport(self) -> str:
        """The transport: ``aiohttp``, ``wire``, or the name of the class of another one."""
        return shown_transport(self._settings.transport)

    @property
    def state(self) -> ClientState:
        """What this client and its views have in common, to look at: what is in flight, the retry quota, the hooks."""
        return self._state

    @property
    def account(self) -> "Account":
        """The account at the vendor: its balance, sending numbers and templates."""
        from .account import Account  # noqa: PLC0415 - not needed for sending

        return Account(self._settings, self._state)

    @property
    def in_flight(self) -> int:
        """How many messages are on their way, those that wait for a permit or a retry included."""
        return len(self._state.in_flight)

    @property
    def retry_tokens(self) -> int:
        """What is left of the retry quota, of `RetryQuota.CAPACITY` tokens; nothing is tried again without it."""
        return self._state.quota.tokens

    def add_hooks(self, *, on_attempt: AttemptHook | None = None, on_result: ResultHook | None = None) -> None:
        """Have functions called with what happens, those of `with_options` included.

        They run in the event loop, in the task that sends, and must not block. One that raises is logged, and the
        send goes on. A send that is cancelled has no result.

        Args:
            on_attempt: Called after every POST that was not cancelled.
            on_result: Called with what became of every message that was not cancelled.

        Raises:
            ConfigurationError: One cannot be called, or would have to be awaited.
        """
        self._state.hooks.add(on_attempt, on_result)

    if not TYPE_CHECKING:  # type checkers refuse ``with``, and so shall Python, but with a hint

        def __enter__(self) -> NoReturn:
            raise TypeError("use `async with OtpClient(...) as client:`, in an async function")

        __exit__ = __enter__  # Python looks for it first

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the running loop's connections, once what is in flight on them has its answer. Idempotent.

        A `send_many` or `send_batch` that is still open is cancelled, and raises `RuntimeError` to whoever reads on.
        The client stays usable: a later send opens new connections.
        """
        for stream in list(self._state.of_running_loop().streams):
            stream.failure = stream.failure or RuntimeError("the client was closed while send_many was reading")
            await stream.cancel()
        await self._state.transport.aclose()

    @sensitive_variables
    def with_options(
        self,
        *,
        business_phone: str | None = None,
        default_region: str | None = None,
        dr_webhook: str | None = None,
        language_code: Language | str | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> "OtpClient":
        """Return a view of this client with other defaults. Connections, permits, rate limit and quota are shared.

        Closing either closes the connections of both.

        Raises:
            ConfigurationError: A value is wrong.
        """
        return self._view(self._settings.replace(locals()))

    def _view(self, settings: Settings) -> "OtpClient":
        return _View(settings, self._state)

    @sensitive_variables
    async def send_otp(
        self,
        to: str,
        content: str,
        *,
        language_code: Language | str | None = None,
        category: Category | str | None = None,
        cus_message_id: str | None = None,
        dr_webhook: str | None = None,
        api_type: ApiType | int | None = None,
        business_phone: str | None = None,
        expires_at: datetime | None = None,
        default_region: str | None = None,
    ) -> SendResult:
        """Send one OTP, and return when the vendor has accepted it. The arguments are those of `OtpMessage`.

        Raises:
            InvalidMessageError: The message cannot be sent as it stands; nothing left.
            ApiError: The vendor said no.
            NotSentError: It provably never left.
            OutcomeUnknownError: It may have been accepted.
        """
        message = OtpMessage(
            to,
            content,
            language_code=language_code,
            category=category,
            cus_message_id=cus_message_id,
            dr_webhook=dr_webhook,
            api_type=api_type,
            business_phone=business_phone,
            expires_at=expires_at,
            default_region=default_region or self._settings.default_region,
        )
        return await self.send(message)

    async def send(self, message: OtpMessage) -> SendResult:
        """Send a message, and return when the vendor has accepted it. Raises as `send_otp` does.

        The whole result is also the ``result`` of the error.
        """
        result = await self._deliver(message)
        if result.error is not None:
            result.error.result = result
            raise result.error
        return result

    def send_many(self, messages: Messages) -> AsyncGenerator[SendResult, None]:
        """Send every message, and yield the results as they complete.

        A message's failure is a result like any other: it neither raises nor stops the rest. The messages are read
        as they are needed, at most ``2 * max_concurrency`` ahead of the results taken; they may be endless. Where
        reading them raises, what was in flight is yielded first.

        Leaving the loop early cancels what is in flight, whose outcome is then unknown. Use `contextlib.aclosing`
        where the generator outlives the loop.

        Args:
            messages: Any iterable or asynchronous iterable. A synchronous one must not block.
        """
        return self._stream(messages, self._deliver)

    async def send_batch(self, messages: Messages, *, collector: ResultCollector | None = None) -> ResultCollector:
        """Send every message, and return all results, paired.

        A ``cus_message_id`` that comes twice is sent once; the second result is a refusal.

        Args:
            messages: As for `send_many`.
            collector: Where the results go. With one of your own you keep those that came before reading the
                messages raised, or before you cancelled.
        """
        collector = ResultCollector() if collector is None else collector
        seen: set[str] = set()

        async def deliver_once(message: OtpMessage) -> SendResult:
            _check_type(message)
            if message.cus_message_id in seen:
                return self._refuse_duplicate(message)
            if message.cus_message_id is not None:
                seen.add(message.cus_message_id)
            return await self._deliver(message)

        async for result in self._stream(messages, deliver_once):
            collector.add(result)
        return collector

    def _stream(
        self, messages: Messages, deliver: Callable[[OtpMessage], Awaitable[SendResult]]
    ) -> AsyncGenerator[SendResult, None]:
        if not isinstance(messages, Iterable | AsyncIterable):
            raise TypeError(f"messages must be an iterable of OtpMessage, not {type(messages).__name__}")
        loop, settings, concurrency = self._state.of_running_loop(), self._settings, self.max_concurrency
        if settings.rate_limit is not None:
            # More than the rate keeps busy would only queue for it, and let the deadline run out there.
            rate, patience = settings.rate_limit, min(settings.timeout, settings.deadline / 3)
            per_second = rate if isinstance(rate, int | float) else rate.per_second
            concurrency = max(1, min(concurrency, int(per_second * patience)))
        return as_completed(
            messages, deliver, concurrency=concurrency, sleeping=lambda: loop.backing_off, open_streams=loop.streams
        )

    async def _deliver(self, message: OtpMessage) -> SendResult:
        """Give the message its identity, and see it through. Raises for cancellation only."""
        _check_type(message)
        settings, in_flight = self._settings, self._state.in_flight
        cus_message_id = message.cus_message_id or token_hex(16)
        message = message.with_defaults(
            cus_message_id=cus_message_id,
            language_code=settings.language_code,
            dr_webhook=settings.dr_webhook,
            business_phone=settings.business_phone,
        )
        own = object()
        if in_flight.setdefault(cus_message_id, own) is not own:  # in one step, for the sake of threads
            return self._refuse_duplicate(message)
        try:
            result = await self._attempt(message)
            self._state.hooks.call_on_result(result)
        finally:
            del in_flight[cus_message_id]
        if self._state.tracker is not None:
            await self._track(result, self._state.tracker)
        return result

    async def _attempt(self, message: OtpMessage) -> SendResult:
        """Make the attempts for a message that is complete, and return the result."""
        return await Delivery(message, self._settings, self._state, self._state.of_running_loop()).run()

    async def _track(self, result: SendResult, tracker: "DeliveryTracker") -> None:
        """Give the result to the tracker. What goes wrong there changes nothing of what became of the message."""
        try:
            async with asyncio.timeout(_TRACKER_TIMEOUT):
                await tracker.add(result)
        except Exception as error:
            # Without the error's text: that of an application's own store may hold anything.
            id_, kind = result.message.cus_message_id, type(error).__name__
            _log.error("the tracker did not take the result of message %s: %s", id_, kind)

    def _refuse_duplicate(self, message: OtpMessage) -> SendResult:
        """Return the result of a second message with the same id: the ids could not be told apart."""
        error = InvalidMessageError(
            "cus_message_id is that of another message of this client or batch",
            field="cus_message_id",
            reason=InvalidReason.DUPLICATE,
            hint="give each message its own, or none",
            cus_message_id=message.cus_message_id,
        )
        result = SendResult(message, SendStatus.NOT_SENT, error=error)
        self._state.hooks.call_on_result(result)
        return result


class _View(OtpClient):
    """A client with settings of its own, and everything else of another one."""

    def __init__(self, settings: Settings, state: ClientState) -> None:
        self._settings = settings
        self._state = state


def _check_type(message: object) -> None:
    if not isinstance(message, OtpMessage):
        raise TypeError(f"expected an OtpMessage, not {type(message).__name__}")
