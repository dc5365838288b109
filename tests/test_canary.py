"""A secret, a code and a number that the tests know appear nowhere but in the request itself."""

import asyncio
import itertools
import logging
import pickle
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from fleet_support import KEYS, rows, running, until, worker_of
from support import raw_server

from nxotp_async import (
    ConfigurationError,
    Credentials,
    NxOtpError,
    OtpClient,
    OtpMessage,
    RetryPolicy,
    SendResult,
)
from nxotp_async.cli import nxotp
from nxotp_async.codes import ResponseCode
from nxotp_async.doctor import send_one
from nxotp_async.fleet import MessageState, Outbox
from nxotp_async.sandbox import SANDBOX_CREDENTIALS
from nxotp_async.stores import MemoryStore
from nxotp_async.testing import NO_PAUSES, serve_in_thread
from nxotp_async.verification import Limits, Verifier
from nxotp_async.verification.codes import VerificationKey
from nxotp_async.verification.state import VerificationState


class _Canary:
    """Values that are only ever read from here, so that no frame of a test holds them as a local variable."""

    secret = "s3cr3t-c4n4ry"
    otp = "73915508"
    number = "999555017342"
    written = "+999 555-017-342"
    content = f"Your code is {otp}"


def assert_clean(text: str, where: str) -> None:
    for name in ("secret", "otp", "number", "written"):
        leaked = getattr(_Canary, name) in text
        assert not leaked, f"the {name} is in {where}"


def inspect_error(error: BaseException) -> None:
    """Look everywhere an error may carry something to: what is printed, what is reported, what is pickled."""
    assert_clean(str(error), "str(error)")
    assert_clean(repr(error), "repr(error)")
    assert_clean(repr(vars(error)), "the error's attributes")
    chained: BaseException | None = error
    while chained is not None:
        assert_clean(_report(chained), "the traceback")
        chained = chained.__cause__ or chained.__context__
    if isinstance(error, NxOtpError):
        assert_clean(pickle.dumps(error, protocol=0).decode("latin-1"), "the pickled error")


def _report(error: BaseException) -> str:
    """Format the error's frames with their local variables, those of the tests left out."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    report.stack[:] = [frame for frame in report.stack if not frame.filename.startswith(f"{_TESTS}/")]
    return "".join(report.format(chain=False))


_TESTS = __file__.rpartition("/")[0]


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.DEBUG)
    yield
    for record in caplog.records:
        assert_clean(f"{record.getMessage()} {vars(record)!r}", f"a log record of {record.name}")


# ---------------------------------------------------------------------------------------------- what a server says


def _json(answer: object) -> Callable[[bytes], bytes]:
    def respond(echo: bytes) -> bytes:
        body = orjson.dumps(answer).replace(b"ECHO", orjson.dumps(echo.decode())[1:-1])
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    return respond


def _html(status: bytes) -> Callable[[bytes], bytes]:
    return lambda echo: b"HTTP/1.1 %s\r\nX-Echo: %s\r\nContent-Length: %d\r\n\r\n%s" % (status, echo, len(echo), echo)


ANSWERS = {
    **{
        f"code {code.value}": _json({"code": code.value, "message": "cannot send ECHO", "data": None})
        for code in ResponseCode
    },
    "unknown code": _json({"code": 4711, "message": "ECHO", "data": None}),
    "Meta": _json(
        {
            "code": 9099,
            "message": "ECHO",
            "data": {
                "error": {
                    "code": 100,
                    "message": "ECHO",
                    "type": "ECHO",
                    "fbtrace_id": "ECHO",
                    "error_data": {"details": "ECHO"},
                }
            },
        }
    ),
    "a success without id": _json({"code": 0, "message": "ECHO", "data": {"messages": []}}),
    "502": _html(b"502 Bad Gateway"),
    "403": _html(b"403 Forbidden"),
    "429": _html(b"429 Too Many Requests"),
    "not HTTP": lambda echo: echo + b"\r\n\r\n",
    "nothing": lambda _: b"",
}


@asynccontextmanager
async def echoing(respond: Callable[[bytes], bytes]) -> AsyncIterator[Any]:
    """Run a server that puts what it received, in several notations, into its answer."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        body = server.requests[-1].partition(b"\r\n\r\n")[2]
        notations = [body, _Canary.written.encode(), _Canary.number[3:].encode(), _Canary.content.encode()]
        writer.write(respond(b" ".join(notations)))
        writer.close()

    async with raw_server(answer) as server:
        yield server


def canary_client(url: str, **options: Any) -> OtpClient:
    keys = {"access_key": "key", "access_secret": _Canary.secret, "appkey": "app"}
    defaults = {**keys, "base_url": url, "clock": NO_PAUSES, "retry": RetryPolicy(max_attempts=2)}
    return OtpClient(**{**defaults, **options})


async def failure_of(sending: Awaitable[SendResult]) -> NxOtpError:
    with pytest.raises(NxOtpError) as caught:
        await sending
    return caught.value


@pytest.mark.parametrize("respond", ANSWERS.values(), ids=ANSWERS.keys())
async def test_an_answer_that_echoes_the_request_leaks_nothing(respond: Callable[[bytes], bytes]) -> None:
    async with echoing(respond) as server, canary_client(server.url) as client:
        asyncio.get_running_loop().set_debug(True)
        inspect_error(await failure_of(client.send_otp(_Canary.written, _Canary.content)))
        (result,) = [result async for result in client.send_many([OtpMessage(_Canary.written, _Canary.content)])]
        assert_clean(repr(result), "repr(result)")
        assert result.error is not None
        inspect_error(result.error)


# ---------------------------------------------------------------------------------------------- other failures


async def _hang(_: asyncio.StreamWriter) -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_timeout_leaks_nothing() -> None:
    async with raw_server(_hang) as server, canary_client(server.url, timeout=0.05) as client:
        inspect_error(await failure_of(client.send_otp(_Canary.written, _Canary.content)))


async def test_a_cancelled_send_leaks_nothing() -> None:
    async with raw_server(_hang) as server, canary_client(server.url) as client:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await client.send_otp(_Canary.written, _Canary.content)
    inspect_error(caught.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "https://127.0.0.1:1", "https://otp.invalid"], ids=["refused", "refused TLS", "DNS"]
)
async def test_an_unreachable_server_leaks_nothing(url: str) -> None:
    async with canary_client(url) as client:
        inspect_error(await failure_of(client.send_otp(_Canary.written, _Canary.content)))


async def test_an_expired_code_leaks_nothing() -> None:
    async with canary_client("https://otp.invalid") as client:
        past = datetime.now(UTC) - timedelta(seconds=1)
        inspect_error(await failure_of(client.send_otp(_Canary.written, _Canary.content, expires_at=past)))


async def test_a_transport_that_raises_with_the_request_in_hand_leaks_nothing() -> None:
    class Careless:
        async def post(self, url: str, body: bytes, headers: object, timeout: float) -> Any:
            raise ValueError(body)

        async def aclose(self) -> None:
            pass

    async with canary_client("https://otp.invalid", transport=Careless()) as client:
        inspect_error(await failure_of(client.send_otp(_Canary.written, _Canary.content)))


_WRONG_FIELDS: list[dict[str, Any]] = [
    {"to": _Canary.number + "0000"},
    {"to": "00" + _Canary.number},
    {"to": _Canary.number + "x"},
    {"to": int(_Canary.number)},
    {"to": _Canary.content},
    {"content": _Canary.content + _Canary.otp},
    {"content": f"{_Canary.content} or {_Canary.otp}"},
    {"content": int(_Canary.otp)},
    {"content": _Canary.otp.encode()},
    {"language_code": _Canary.otp},
    {"language_code": _Canary.number},
    {"category": _Canary.otp},
    {"cus_message_id": f"{_Canary.otp}\n"},
    {"dr_webhook": f"ftp://{_Canary.otp}"},
    {"business_phone": f"0{_Canary.number}"},
    {"api_type": int(_Canary.otp)},
    {"expires_at": _Canary.otp},
]


@pytest.mark.parametrize("index", range(len(_WRONG_FIELDS)))
async def test_an_invalid_message_leaks_nothing(index: int) -> None:
    async with canary_client("https://otp.invalid") as client:
        with pytest.raises(NxOtpError) as caught:
            await client.send_otp(**{"to": _Canary.written, "content": _Canary.content, **_WRONG_FIELDS[index]})
        inspect_error(caught.value)
    with pytest.raises(NxOtpError) as caught:
        OtpMessage(**{"to": _Canary.written, "content": _Canary.content, **_WRONG_FIELDS[index]})
    inspect_error(caught.value)


@pytest.mark.parametrize(
    "name", ["access_key", "access_secret", "appkey", "base_url", "timeout", "business_phone", "proxy"]
)
def test_a_wrong_setting_leaks_nothing(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        canary_client(**{"url": "https://otp.invalid", name: f" {_Canary.secret}\n"})
    inspect_error(caught.value)


def test_a_wrong_option_of_a_view_leaks_nothing() -> None:
    with pytest.raises(ConfigurationError) as caught:
        canary_client("https://otp.invalid").with_options(business_phone=f"0{_Canary.number}")
    inspect_error(caught.value)


async def test_a_wrong_number_for_the_doctor_leaks_nothing() -> None:
    with pytest.raises(NxOtpError) as caught:
        await send_one(f"0{_Canary.number}")
    inspect_error(caught.value)


def test_a_policy_that_is_refused_can_be_reported() -> None:
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(max_attempts="x")  # type: ignore[arg-type]
    inspect_error(caught.value)


# ---------------------------------------------------------------------------------------------- verifications


class BrokenStore(MemoryStore):
    """A store that fails as a broken client of a database might: with an error that is not the library's."""

    async def update(self, key: str, change: Callable[[bytes | None], bytes | None], *, ttl: float) -> bytes | None:
        change(None)
        change(self.state)
        raise OSError("the store is broken")

    state = VerificationState(b"", 2e9, 2e9, 5).dump()


def canary_verifier(client: OtpClient, **options: Any) -> Verifier:
    defaults: dict[str, Any] = {"store": MemoryStore(), "key": _Canary.secret * 3, "countries": "any"}
    return Verifier(client, **{**defaults, **options})


@pytest.fixture
def canary_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VerificationKey, "code", lambda *_: _Canary.otp)


@pytest.mark.usefixtures("canary_code")
@pytest.mark.parametrize("respond", ANSWERS.values(), ids=ANSWERS.keys())
async def test_a_verification_whose_message_fails_leaks_nothing(respond: Callable[[bytes], bytes]) -> None:
    async with echoing(respond) as server, canary_client(server.url) as client:
        verifier = canary_verifier(client, limits=Limits(number_per_hour=1))
        try:
            started = await verifier.start(_Canary.written, ip="192.0.2.1")
        except NxOtpError as error:
            inspect_error(error)
        else:
            assert_clean(repr(started), "the verification")
            for refused in (verifier.resend(started.id), verifier.start(_Canary.written)):
                with pytest.raises(NxOtpError) as caught:
                    await refused
                inspect_error(caught.value)


@pytest.mark.usefixtures("canary_code")
async def test_a_verification_whose_store_breaks_leaks_nothing() -> None:
    async with canary_client("http://127.0.0.1:1") as client:
        verifier = canary_verifier(client, store=BrokenStore())
        for broken in (verifier.start(_Canary.written), verifier.check("an-id", _Canary.otp)):
            with pytest.raises(OSError, match="the store is broken") as caught:
                await broken
            inspect_error(caught.value)


async def test_a_wrong_number_or_option_of_a_verification_leaks_nothing() -> None:
    async with canary_client("https://otp.invalid") as client:
        verifier = canary_verifier(client)
        wrong: list[dict[str, Any]] = [
            {"number": f"0{_Canary.number}"},
            {"number": _Canary.written},  # a test number, but no sandbox
            {"number": "+62 812 3456 7890", "ip": _Canary.number},
            {"number": "+62 812 3456 7890", "region": _Canary.number},
            {"number": "+62 812 3456 7890", "language_code": _Canary.otp},
        ]
        for arguments in wrong:
            with pytest.raises(NxOtpError) as caught:
                await verifier.start(**arguments)
            inspect_error(caught.value)
        for options in ({"key": _Canary.secret}, {"key": [_Canary.secret * 3, 5]}, {"countries": {_Canary.number}}):
            with pytest.raises(ConfigurationError) as refused:
                canary_verifier(client, **options)
            inspect_error(refused.value)


# ---------------------------------------------------------------------------------------------- a fleet


async def test_a_fleet_whose_answers_echo_the_request_leaks_nothing(schema_url: str) -> None:
    await Outbox(schema_url, keys=KEYS).migrate()
    left: list[Callable[[bytes], bytes]] = list(ANSWERS.values())

    def respond(echo: bytes) -> bytes:
        return left.pop()(echo)

    async with (
        echoing(respond) as server,
        canary_client(server.url) as client,
        Outbox(schema_url, keys=KEYS) as outbox,
    ):
        codes = [*(code.value for code in ResponseCode), 4711, 403, 502]
        async with running(worker_of(outbox, client, retry=RetryPolicy(max_attempts=1), reject_on=codes)) as worker:
            ids = [f"m{index}" for index in range(len(ANSWERS))]
            for id_ in ids:
                await outbox.enqueue(OtpMessage(_Canary.written, _Canary.content, cus_message_id=id_))

            async def are_settled() -> bool:
                states = await outbox.states()
                return not states[MessageState.QUEUED] + states[MessageState.SENDING]

            await until(are_settled)
            assert left == []
            assert_clean(f"{outbox!r} {worker!r} {worker.condition}", "the outbox or its worker")
        messages = [message async for message in outbox.results()]
        assert [message.cus_message_id for message in messages] == ids
        assert_clean(
            repr([messages, await outbox.counts(), await outbox.find(_Canary.written)]), "what is told of them"
        )
        for table in ("nxotp_outbox", "procrastinate_jobs", "nxotp_entries", "nxotp_rates"):
            assert_clean(repr(await rows(schema_url, f"SELECT * FROM {table}")), table)


async def test_an_outbox_that_refuses_a_message_leaks_nothing(schema_url: str) -> None:
    await Outbox(schema_url, keys=KEYS).migrate()
    message = OtpMessage(_Canary.written, _Canary.content, cus_message_id="m1")
    async with Outbox(schema_url, keys=KEYS, max_queued=1) as outbox:
        await outbox.enqueue(OtpMessage("+999 555 0100", "Your code is 482913", cus_message_id="m1"))
        for refused in (message, OtpMessage(_Canary.written, _Canary.content)):  # another with its id, and one too many
            with pytest.raises(NxOtpError) as caught:
                await outbox.enqueue(refused)
            inspect_error(caught.value)
        with pytest.raises(ValueError) as wrong:
            await outbox.find(f"0{_Canary.number}")
        inspect_error(wrong.value)


async def test_an_outbox_that_cannot_be_used_leaks_nothing() -> None:
    outbox = Outbox(f"postgresql://user:{_Canary.secret}@127.0.0.1:1/app", keys=KEYS, timeout=2)
    assert_clean(repr(outbox), "repr")
    with pytest.raises(NxOtpError) as caught:
        await outbox.enqueue(OtpMessage(_Canary.written, _Canary.content))
    inspect_error(caught.value)
    await outbox.aclose()
    with pytest.raises(ConfigurationError) as refused:
        Outbox("postgresql://127.0.0.1:1/app", keys=[_Canary.secret])
    inspect_error(refused.value)


# ---------------------------------------------------------------------------------------------- pickles


def test_what_holds_a_secret_or_a_code_refuses_to_be_pickled() -> None:
    message = OtpMessage(_Canary.written, _Canary.content)
    for value in (Credentials("key", _Canary.secret), message, canary_client("https://otp.invalid")):
        assert_clean(repr(value), "repr")
        with pytest.raises(TypeError, match="pickle") as caught:
            pickle.dumps(value)
        inspect_error(caught.value)


# ---------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["text", "JSON"])
@pytest.mark.parametrize("respond", ANSWERS.values(), ids=ANSWERS.keys())
def test_the_command_line_leaks_nothing(
    respond: Callable[[bytes], bytes], arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NXOTP_ACCESS_KEY", SANDBOX_CREDENTIALS.access_key)
    monkeypatch.setenv("NXOTP_ACCESS_SECRET", _Canary.secret)
    monkeypatch.setenv("NXOTP_APPKEY", SANDBOX_CREDENTIALS.appkey)
    monkeypatch.setenv("NXOTP_DEADLINE", "0.4")
    with serve_in_thread(echoing(respond)) as server:
        result = CliRunner().invoke(
            nxotp,
            ["send", _Canary.written, "--base-url", server.url, *arguments],
            input=_Canary.content,
            catch_exceptions=False,
        )
    assert result.exit_code in (1, 3, 6)
    assert_clean(result.output, "the output")


@pytest.mark.parametrize("index", range(len(_WRONG_FIELDS)))
def test_the_command_line_does_not_repeat_what_is_wrong(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NXOTP_ACCESS_SECRET", _Canary.secret)
    fields = {"to": _Canary.written, "content": _Canary.content, **_WRONG_FIELDS[index]}
    names = {"language_code": "--language"}
    options = itertools.chain.from_iterable(
        (names.get(name, f"--{name.replace('_', '-')}"), str(value))
        for name, value in fields.items()
        if name in ("language_code", "category", "dr_webhook", "business_phone", "cus_message_id")
    )
    result = CliRunner().invoke(nxotp, ["send", *options, str(fields["to"])], input=str(fields["content"]))
    assert result.exit_code in (2, 3)
    assert_clean(result.output, "the output")
