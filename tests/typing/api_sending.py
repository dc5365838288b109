"""What type checkers see of sending: `nxotp_async` itself. Nothing here is ever run."""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from typing import assert_type

import aiohttp

import nxotp_async
from nxotp_async import (
    AccountError,
    Answer,
    ApiError,
    ApiType,
    Attempt,
    AuthenticationError,
    CallbackVerificationError,
    Category,
    Clock,
    ConfigurationError,
    Credentials,
    InputFileError,
    InvalidMessageError,
    InvalidReason,
    InvalidSignatureError,
    Language,
    LedgerError,
    MetaCode,
    MetaError,
    NotSentError,
    NxOtpError,
    OtpClient,
    OtpContentError,
    OtpMessage,
    OutboxFullError,
    OutcomeUnknownError,
    ParameterError,
    PermissionDeniedError,
    RefusalReason,
    ResponseCode,
    ResultCollector,
    RetryPolicy,
    SendResult,
    SendStatus,
    StoreError,
    Summary,
    TemplateError,
    TimestampExpiredError,
    TransientApiError,
    Transport,
    TransportError,
    VerificationRefusedError,
    sign,
    verify,
)
from nxotp_async.settings import Settings

# ---------------------------------------------------------------------------------------------- the client


async def a_client(session: aiohttp.ClientSession, transport: Transport, clock: Clock) -> None:
    assert_type(OtpClient(), OtpClient)
    OtpClient(access_key="key", access_secret="secret", appkey="app", language_code="en", rate_limit=80)
    OtpClient(language_code=Language.PT_BR, max_concurrency=8, rate_limit=0.5, timeout=5, deadline=10.0)
    OtpClient(retry=RetryPolicy(max_attempts=2, transient_codes=frozenset({-1})), proxy="http://proxy.example:3128")
    OtpClient(session=session)
    OtpClient(transport=transport, clock=clock)
    OtpClient(transport="wire")
    async with OtpClient() as client:
        assert_type(client, OtpClient)
        assert_type(client.transport, str)
        assert_type((client.max_concurrency, client.in_flight, client.retry_tokens), tuple[int, int, int])
        assert_type(client.url, str)
        assert_type(client.settings, Settings)
        assert_type(client.state.in_flight, dict[str, object])
        assert_type(client.with_options(deadline=5, retry=RetryPolicy()), OtpClient)
    assert_type(await client.aclose(), None)


def hooks(client: OtpClient, attempts: list[Attempt], attempt: Attempt) -> None:
    results: list[SendResult] = []
    OtpClient(on_attempt=attempts.append, on_result=results.append)
    assert_type(client.add_hooks(on_attempt=attempts.append, on_result=results.append), None)
    assert_type(attempt.message, OtpMessage)
    assert_type(attempt.number, int)
    assert_type(attempt.status, SendStatus)
    assert_type(attempt.message_id, str | None)
    assert_type(attempt.elapsed, float)
    assert_type(attempt.error, NxOtpError | None)


class MyTransport:
    """A class of the application's is a `Transport` without inheriting from it."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:
        return Answer(200, headers, body)

    async def aclose(self) -> None: ...


async def a_transport(transport: Transport) -> None:
    answer = await transport.post("https://you.example/", b"{}", {}, timeout=10)
    assert_type(answer, Answer)
    assert_type((answer.status, answer.headers, answer.body), tuple[int, Mapping[str, str], bytes])
    assert_type(answer.release(True), None)
    assert_type(await transport.aclose(), None)
    await a_transport(MyTransport())


async def sending(client: OtpClient, message: OtpMessage, expires_at: datetime) -> None:
    assert_type(await client.send_otp("+999 555 0100", "Your code is 004213"), SendResult)
    await client.send_otp("9995550100", "004213", language_code="en", category="UTILITY", api_type=1)
    await client.send_otp("9995550100", "004213", language_code=Language.EN, category=Category.UTILITY)
    await client.send_otp("9995550100", "004213", api_type=ApiType.MM_LITE, expires_at=expires_at)
    await client.send_otp(
        "9995550100", "004213", cus_message_id="A-1", dr_webhook="https://you.example/", business_phone="9995550199"
    )
    assert_type(await client.send(message), SendResult)


async def sending_many(
    client: OtpClient, messages: list[OtpMessage], endless: AsyncIterator[OtpMessage], mine: ResultCollector
) -> None:
    assert_type(client.send_many(messages), AsyncGenerator[SendResult, None])
    async for result in client.send_many(endless):
        assert_type(result, SendResult)
    assert_type(await client.send_batch(messages), ResultCollector)
    assert_type(await client.send_batch((message for message in messages), collector=mine), ResultCollector)


# ---------------------------------------------------------------------------------------------- what goes in, and out


def a_message(message: OtpMessage) -> None:
    assert_type(message.to, str)
    assert_type(message.content, str)
    assert_type(message.code, str)
    assert_type(message.language_code, Language | None)
    assert_type(message.category, Category | None)
    assert_type(message.cus_message_id, str | None)
    assert_type(message.dr_webhook, str | None)
    assert_type(message.api_type, ApiType | None)
    assert_type(message.business_phone, str | None)
    assert_type(message.expires_at, datetime | None)
    filled = message.with_defaults(
        cus_message_id="A-1", language_code=Language.EN, dr_webhook=None, business_phone=None
    )
    assert_type(filled, OtpMessage)
    assert_type(Language.parse("pt-br"), Language)
    assert_type(Language.PT_BR.label, str)


def a_result(result: SendResult) -> None:
    assert_type(result.message, OtpMessage)
    assert_type(result.status, SendStatus)
    assert_type(result.message_id, str | None)
    assert_type(result.attempts, int)
    assert_type(result.elapsed, float)
    assert_type(result.error, NxOtpError | None)
    assert_type(SendStatus.NOT_SENT.label, str)
    assert_type(SendStatus.of(NotSentError("no route")), SendStatus)


def every_status_has_its_branch(status: SendStatus) -> str:
    match status:  # checkers see that no status is left over: else this function could return None
        case SendStatus.ACCEPTED:
            return "on its way"
        case SendStatus.REJECTED:
            return "refused"
        case SendStatus.NOT_SENT:
            return "never left"
        case SendStatus.UNKNOWN:
            return "may be on its way"


def a_collector(collector: ResultCollector, result: SendResult) -> None:
    assert_type(collector.add(result), None)
    assert_type(len(collector), int)
    assert_type(iter(collector), Iterator[SendResult])
    assert_type(collector.pairs, Mapping[str, str])
    assert_type(collector.message_id("A-1"), str | None)
    assert_type(collector.cus_message_id("wamid.1"), str | None)
    for results in (collector.accepted, collector.rejected, collector.not_sent, collector.unknown):
        assert_type(results, list[SendResult])
    assert_type(collector.duplicates, list[SendResult])
    assert_type(collector.failures, Counter[int | str])
    assert_type(collector.summary(), Summary)


def a_summary(summary: Summary) -> None:
    for count in (summary.total, summary.accepted, summary.rejected, summary.not_sent, summary.unknown):
        assert_type(count, int)
    assert_type((summary.retried, summary.attempts), tuple[int, int])


# ---------------------------------------------------------------------------------------------- the rest


def errors(error: NxOtpError, field: InvalidMessageError, api: ApiError, meta: MetaError, file: InputFileError) -> None:
    assert_type(error.hint, str | None)
    assert_type(error.cus_message_id, str | None)
    assert_type(error.attempts, int)
    assert_type((error.code, error.meta_code), tuple[int | None, int | None])
    assert_type(error.retry_after, float | None)
    assert_type(field.field, str)
    assert_type(field.reason, InvalidReason)
    assert_type(error.result, SendResult | None)
    assert_type(api.code, int | None)
    assert_type(api.vendor_message, str)
    assert_type(api.http_status, int)
    assert_type(api.raw, str)
    assert_type(api.retry_after, float | None)
    assert_type(meta.meta_code, int | None)
    assert_type(meta.meta_type, str)
    assert_type(meta.fbtrace_id, str)
    assert_type(meta.details, str)
    assert_type(file.line, int | None)
    assert_type(VerificationRefusedError("too soon").reason, RefusalReason)
    assert_type(NotSentError("no route").temporary, bool)


# A handler for a class takes those below it.
_ERRORS: tuple[type[NxOtpError], ...] = (
    ConfigurationError,
    CallbackVerificationError,
    InputFileError,
    LedgerError,
    OutboxFullError,
    StoreError,
    VerificationRefusedError,
)
_VALUE_ERROR: type[ValueError] = InvalidMessageError
_TRANSPORT: tuple[type[TransportError], ...] = (NotSentError, OutcomeUnknownError)
_API: tuple[type[ApiError], ...] = (
    AccountError,
    MetaError,
    OtpContentError,
    ParameterError,
    TemplateError,
    TransientApiError,
)
_AUTHENTICATION: tuple[type[AuthenticationError], ...] = (
    InvalidSignatureError,
    PermissionDeniedError,
    TimestampExpiredError,
)


def a_policy(policy: RetryPolicy, error: NxOtpError) -> None:
    assert_type(policy.max_attempts, int)
    assert_type(policy.transient_codes, frozenset[int])
    assert_type(policy.transient_meta_codes, frozenset[int])
    assert_type(policy.resend_unknown, bool)
    assert_type(policy.backoff_base, float)
    assert_type(policy.backoff_cap, float)
    assert_type(policy.retries(error), bool)
    assert_type(policy.backoff(error, 1, 0.5), float)
    RetryPolicy(transient_codes={-1, 9001}, transient_meta_codes=[130429])


def a_code() -> None:
    assert_type(ResponseCode.find(9005), ResponseCode | None)
    assert_type(MetaCode.find(131056), MetaCode | None)
    assert_type(MetaCode.PAIR_RATE_LIMIT.meaning, str)
    assert_type(MetaCode.PAIR_RATE_LIMIT.temporary, bool)
    assert_type(MetaCode.PAIR_RATE_LIMIT.throttling, bool)
    assert_type(ResponseCode.INSUFFICIENT_BALANCE.meaning, str)
    assert_type(ResponseCode.INSUFFICIENT_BALANCE.advice, str)
    assert_type(ResponseCode.INSUFFICIENT_BALANCE.error_class, type[ApiError])


def a_signature(keys: Credentials) -> None:
    assert_type(keys.access_key, str)
    assert_type(keys.access_secret, str)
    assert_type(keys.appkey, str)
    assert_type(Credentials.from_env(), Credentials)
    assert_type(Credentials.from_env({"NXOTP_ACCESS_KEY": "a"}), Credentials)
    assert_type(sign(b"{}", ts=1_655_710_885_431, credentials=keys), str)
    assert_type(verify("0" * 32, b"{}", ts=1_655_710_885_431, credentials=keys, action="send", biz_type="1"), bool)


def a_clock(clock: Clock) -> None:
    assert_type(clock.time, Callable[[], float])
    assert_type(clock.monotonic, Callable[[], float])
    assert_type(clock.sleep, Callable[[float], Awaitable[None]])
    assert_type(clock.random, Callable[[], float])
    assert_type(nxotp_async.__version__, str)
