"""What type checkers refuse: each of these lines is a mistake. Nothing here is ever run.

Both checkers report a comment that suppresses nothing, so that a mistake they no longer see is itself an error.
"""

from collections.abc import AsyncIterator

from nxotp_async import (
    Clock,
    Credentials,
    OtpClient,
    OtpMessage,
    ResultCollector,
    RetryPolicy,
    SendResult,
    sign,
    verify,
)
from nxotp_async.bulk import Dispatcher, FileFormat, Ledger, export, load, open_messages, settle
from nxotp_async.callbacks import parse_callback, verify_callback
from nxotp_async.otel import instrument
from nxotp_async.receivers import AsgiReceiver, aiohttp_receiver
from nxotp_async.sandbox import CallbackPlan, Fault, Sandbox
from nxotp_async.testing import assert_otp_sent
from nxotp_async.tracking import DeliveryTracker


def a_client() -> None:
    OtpClient("key", "secret", "app")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    OtpClient(timeout="10")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    OtpClient(retry=3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    OtpClient(transport=object())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    OtpClient(retries=3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    OtpClient().with_options(access_key="key")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    with OtpClient():  # type: ignore[attr-defined] # pyright: ignore[reportGeneralTypeIssues]
        pass


async def an_asynchronous_hook(result: SendResult) -> None:
    """Nobody would await it."""


def hooks(client: OtpClient) -> None:
    client.add_hooks(on_result=an_asynchronous_hook)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    client.add_hooks(on_attempt=lambda: None)  # type: ignore[arg-type, misc] # pyright: ignore[reportArgumentType]
    instrument(client, meter_provider=client)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def sending(client: OtpClient, message: OtpMessage, numbers: list[str]) -> None:
    await client.send_otp(9995550100, "004213")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await client.send_otp("9995550100", 4213)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await client.send_otp("9995550100")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await client.send_otp("9995550100", "004213", "en")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    await client.send_otp("9995550100", "004213", expires_at=60)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await client.send("9995550100")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    client.send(message)  # type: ignore[unused-coroutine] # pyright: ignore[reportUnusedCoroutine]
    client.send_many(numbers)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    list(client.send_many([message]))  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    await client.send_batch([message], ResultCollector())  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def values(message: OtpMessage, result: SendResult, collector: ResultCollector) -> None:
    message.to = "9995550100"  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
    result.message_id.upper()  # type: ignore[union-attr] # pyright: ignore[reportOptionalMemberAccess]
    collector.pairs["A-1"] = "wamid.1"  # type: ignore[index] # pyright: ignore[reportIndexIssue]
    collector.add(message)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    RetryPolicy(3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    RetryPolicy(transient_codes=9001)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Clock(sleep=lambda seconds: None)  # type: ignore[arg-type, return-value] # pyright: ignore[reportArgumentType]
    Credentials("key")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def signatures(keys: Credentials) -> None:
    sign("{}", ts=1, credentials=keys)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    verify("0" * 32, b"{}", ts=1.5, credentials=keys)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    verify_callback({}, "{}", keys)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    parse_callback("{}")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


class NotASink:
    """Its method is not asynchronous."""

    def record(self, event: object) -> None: ...


async def callbacks(tracker: DeliveryTracker, keys: Credentials, results: AsyncIterator[SendResult]) -> None:
    await tracker.add(results)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await tracker.wait("A-1", "delivered", 20)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    aiohttp_receiver(NotASink(), keys)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    AsgiReceiver(NotASink(), keys)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def bulk(ledger: Ledger, client: OtpClient) -> None:
    load(ledger, "otps.csv")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    open_messages("otps.csv", "csv")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    export(ledger, "results.csv", FileFormat.CSV)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    settle(ledger, ["{}"])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    Dispatcher(ledger, client, 80)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    ledger.resolve(["A-1"])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def tests(sandbox: Sandbox) -> None:
    Sandbox(faults=["hang"])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    Sandbox(callbacks=True)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    CallbackPlan(algorithm="sha1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    sandbox.script([Fault.hang()])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert_otp_sent("9995550100")  # type: ignore[call-arg, arg-type] # pyright: ignore[reportCallIssue]
