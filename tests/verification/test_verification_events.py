"""What a verifier tells of its decisions: to hooks, to the log, and to OpenTelemetry."""

import logging
from collections import Counter
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from verifier_support import NewVerifier, code_of, wrong

from nxotp_async import ApiError, ConfigurationError, OtpClient, RefusalReason, SendStatus, VerificationRefusedError
from nxotp_async.otel import instrument_verifier
from nxotp_async.sandbox import Fault, Sandbox
from nxotp_async.stores import MemoryStore
from nxotp_async.testing import FakeClock
from nxotp_async.verification import Action, CheckStatus, Limits, VerificationEvent, Verifier

NUMBER, DIGITS = "+62 812-3456-7890", "6281234567890"


@pytest.fixture
def store_kind() -> str:
    return "memory"


@pytest.fixture
def new_store(clock: FakeClock) -> Any:
    store = MemoryStore(clock=clock)
    return lambda: store


@pytest.fixture
def events() -> list[VerificationEvent]:
    return []


@pytest.fixture
def verifier(new_verifier: NewVerifier, events: list[VerificationEvent]) -> Verifier:
    return new_verifier(limits=Limits(number_per_hour=3), on_event=events.append)


def what(events: list[VerificationEvent]) -> list[tuple[Any, ...]]:
    return [(event.action, event.status or event.reason) for event in events]


async def test_every_decision_is_an_event(
    sandbox: Sandbox, verifier: Verifier, clock: FakeClock, events: list[VerificationEvent]
) -> None:
    started = await verifier.start(NUMBER)
    code = code_of(sandbox, DIGITS)
    await verifier.check(started.id, wrong(code))
    with pytest.raises(VerificationRefusedError):
        await verifier.resend(started.id)
    clock.advance(30)
    sandbox.script(Fault.disconnect_after_reading())
    resent = await verifier.resend(started.id)
    await verifier.check(started.id, code)
    await verifier.check(started.id, code)
    await verifier.check("no such id", code)
    cancelled = await verifier.start(NUMBER)
    for _ in range(2):
        await verifier.cancel(cancelled.id)
    await verifier.cancel("no such id")
    with pytest.raises(VerificationRefusedError):
        await verifier.start("+65 9123 4567")
    with pytest.raises(VerificationRefusedError):
        await verifier.resend("no such id")
    assert what(events) == [
        (Action.START, SendStatus.ACCEPTED),
        (Action.CHECK, CheckStatus.WRONG),
        (Action.RESEND, RefusalReason.TOO_SOON),
        (Action.RESEND, SendStatus.UNKNOWN),
        (Action.CHECK, CheckStatus.APPROVED),
        (Action.CHECK, CheckStatus.SPENT),
        (Action.CHECK, CheckStatus.UNKNOWN),
        (Action.START, SendStatus.ACCEPTED),
        (Action.CANCEL, None),
        (Action.START, RefusalReason.COUNTRY),
        (Action.RESEND, RefusalReason.NOT_PENDING),
    ]
    about = {(event.number, event.prefix, event.country) for event in events[:5]}
    assert about == {("62*********90", "62*****56", "ID")}
    assert [events[0].message_id, events[3].message_id] == [started.message_id, resent.message_id]
    shown = repr(events)
    assert code not in shown
    assert DIGITS not in shown
    assert started.id not in shown


async def test_what_became_of_a_message_that_was_not_accepted_is_an_event(
    sandbox: Sandbox, verifier: Verifier, events: list[VerificationEvent]
) -> None:
    sandbox.script(Fault.answer(9005), Fault.meta(131026))
    with pytest.raises(ApiError):
        await verifier.start(NUMBER)
    with pytest.raises(VerificationRefusedError):
        await verifier.start(NUMBER)
    for _ in range(2):
        await verifier.start(NUMBER)
    with pytest.raises(VerificationRefusedError):
        await verifier.start(NUMBER)
    assert [(event.status, event.reason) for event in events] == [
        (SendStatus.REJECTED, None),
        (SendStatus.REJECTED, RefusalReason.UNDELIVERABLE),
        (SendStatus.ACCEPTED, None),
        (SendStatus.ACCEPTED, None),
        (None, RefusalReason.NUMBER_LIMIT),
    ]


async def test_a_hook_that_raises_is_logged_and_changes_nothing(
    sandbox: Sandbox, verifier: Verifier, events: list[VerificationEvent], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: VerificationEvent) -> None:
        raise RuntimeError(event.action)

    verifier.add_hook(fail)
    verifier.add_hook(events.append)
    started = await verifier.start(NUMBER)
    assert (await verifier.check(started.id, code_of(sandbox, DIGITS))).approved
    assert len(events) == 4
    assert caplog.text.count("a hook raised an exception; nothing else is affected") == 2


async def coroutine(_: object) -> None: ...


@pytest.mark.parametrize("hook", [5, "print", coroutine])
@pytest.mark.parametrize("name", ["on_event", "on_low_conversion"])
def test_what_cannot_be_a_hook_is_refused(new_verifier: NewVerifier, name: str, hook: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} must"):
        new_verifier(**{name: hook})


async def test_decisions_are_logged(
    sandbox: Sandbox, new_verifier: NewVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    verifier = new_verifier()
    started = await verifier.start(NUMBER)
    code = code_of(sandbox, DIGITS)
    await verifier.check(started.id, wrong(code))
    await verifier.check(started.id, code)
    records = [record for record in caplog.records if hasattr(record, "action")]
    assert [(record.levelname, record.getMessage()) for record in records] == [
        ("DEBUG", "verification, start of 62*********90: accepted"),
        ("INFO", "verification, check of 62*********90: wrong"),
        ("DEBUG", "verification, check of 62*********90: approved"),
    ]
    assert [vars(record)["cus_message_id"] for record in records] == [started.message_id, None, None]
    shown = repr([vars(record) for record in caplog.records])
    for secret in (code, DIGITS, started.id):
        assert secret not in shown


async def test_decisions_are_counted(
    sandbox: Sandbox, verifier: Verifier, client: OtpClient, caplog: pytest.LogCaptureFixture
) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    instrument_verifier(verifier, meter_provider=provider)
    instrument_verifier(verifier, meter_provider=provider)
    assert "is instrumented already" in caplog.text
    for _ in range(2):
        started = await verifier.start(NUMBER)
        await verifier.check(started.id, code_of(sandbox, DIGITS))
    with pytest.raises(VerificationRefusedError):
        await verifier.start("+65 9123 4567")
    data: Any = reader.get_metrics_data()
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    assert (metric.name, metric.unit) == ("nxotp.verifier.decisions", "{decision}")
    counts = {tuple(sorted(point.attributes.items())): point.value for point in metric.data.data_points}
    assert counts == {
        (("nxotp.action", "start"), ("nxotp.country", "ID"), ("nxotp.status", "accepted")): 2,
        (("nxotp.action", "check"), ("nxotp.country", "ID"), ("nxotp.status", "approved")): 2,
        (("nxotp.action", "start"), ("nxotp.country", "SG"), ("nxotp.reason", "country")): 1,
    }
    with pytest.raises(TypeError, match="must be a Verifier"):
        instrument_verifier(client)  # type: ignore[arg-type] # that is the test


# ---------------------------------------------------------------------------------------------- low conversion


async def exhaust(verifier: Verifier, clock: FakeClock) -> None:
    """Have twenty messages to a prefix that nobody answers."""
    for index in range(20):
        await verifier.start(f"+62812345{index:05}")
    clock.advance(86_400 / 60 + 600)


async def test_an_application_may_send_in_spite_of_a_low_conversion(
    sandbox: Sandbox, new_verifier: NewVerifier, clock: FakeClock
) -> None:
    asked: list[VerificationEvent] = []

    def allow(event: VerificationEvent) -> bool:
        asked.append(event)
        return event.country == "ID"

    verifier = new_verifier(limits=Limits(prefix_per_hour=21), on_low_conversion=allow)
    await exhaust(verifier, clock)
    await verifier.start("+62 812 3450 9999")
    assert [(event.action, event.reason, event.prefix) for event in asked] == [
        (Action.START, RefusalReason.LOW_CONVERSION, "62*****50")
    ]
    with pytest.raises(VerificationRefusedError) as caught:  # the other limits stay
        await verifier.start("+62 812 3450 8888")
    assert caught.value.reason is RefusalReason.PREFIX_LIMIT
    assert len(sandbox.messages) == 21


@pytest.mark.parametrize("answer", [False, None, "yes", ZeroDivisionError])
async def test_otherwise_it_is_refused(new_verifier: NewVerifier, clock: FakeClock, answer: Any) -> None:
    def hook(_: VerificationEvent) -> Any:
        return answer if answer is not ZeroDivisionError else 1 / 0

    verifier = new_verifier(limits=Limits(prefix_per_hour=None), on_low_conversion=hook)
    await exhaust(verifier, clock)
    with pytest.raises(VerificationRefusedError) as caught:
        await verifier.start("+62 812 3450 9999")
    assert caught.value.reason is RefusalReason.LOW_CONVERSION


# ---------------------------------------------------------------------------------------------- test numbers


async def test_a_test_number_has_a_fixed_code(sandbox: Sandbox, new_verifier: NewVerifier, clock: FakeClock) -> None:
    verifier = new_verifier(test_numbers={"+999 555 0100": "123 456"})
    started = await verifier.start("+999 555 0100")
    clock.advance(30)
    await verifier.resend(started.id)
    assert [message.otp for message in sandbox.messages] == ["123456"] * 2
    assert (await verifier.check(started.id, "654321")).status is CheckStatus.WRONG
    assert (await verifier.check(started.id, "123456")).number == "9995550100"
    codes: Counter[str] = Counter()
    for _ in range(3):
        await verifier.start(NUMBER)
        codes[code_of(sandbox, DIGITS)] += 1
    assert len(codes) == 3


async def test_test_numbers_are_refused_unless_the_client_sends_to_loopback(
    sandbox: Sandbox, new_verifier: NewVerifier
) -> None:
    codes = {"+999 555 0100": "123456"}
    for url, options in (
        ("https://otp.invalid", {}),
        ("http://sandbox", {"insecure_sandbox_host": "sandbox"}),
    ):
        async with sandbox.client(base_url=url, **options) as client:
            with pytest.raises(ConfigurationError, match=r"^test_numbers must not be set unless"):
                Verifier(client, store=MemoryStore(), key="k" * 32, countries="any", test_numbers=codes)
    for wrong_codes in (5, ["+999 555 0100"], {"+999 555 0100": "12345"}, {"+999 555 0100": "12345a"}, {"x": "123456"}):
        with pytest.raises(ConfigurationError, match=r"^test_numbers "):
            new_verifier(test_numbers=wrong_codes)
