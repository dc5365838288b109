"""A verifier: what it sends, approves and refuses."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from verifier_support import KEY, UNLIMITED, NewVerifier, code_of, wrong

from nxotp_async import (
    ApiError,
    ConfigurationError,
    InvalidMessageError,
    InvalidReason,
    NotSentError,
    OtpClient,
    RefusalReason,
    RetryPolicy,
    SendStatus,
    StoreError,
    VerificationRefusedError,
)
from nxotp_async.sandbox import Fault, Sandbox
from nxotp_async.stores import MemoryStore
from nxotp_async.stores.base import BaseStore
from nxotp_async.testing import FakeClock
from nxotp_async.verification import Check, CheckStatus, Limits, VerificationStatus, Verifier

NUMBER, DIGITS = "+62 812-3456-7890", "6281234567890"


@pytest.fixture
def store_kind() -> str:
    return "memory"


@pytest.fixture
def new_store(clock: FakeClock) -> Any:
    store = MemoryStore(clock=clock)
    return lambda: store


@pytest.fixture
def verifier(new_verifier: NewVerifier) -> Verifier:
    return new_verifier(limits=Limits())


async def refused(call: Any) -> VerificationRefusedError:
    with pytest.raises(VerificationRefusedError) as caught:
        await call
    return caught.value


# ---------------------------------------------------------------------------------------------- a login


async def test_a_number_is_verified(sandbox: Sandbox, verifier: Verifier, clock: FakeClock) -> None:
    started = await verifier.start("0812-3456-7890", region="ID", ip="192.0.2.1", language_code="id")
    assert started.status is VerificationStatus.PENDING
    assert started.send_status is SendStatus.ACCEPTED
    assert started.expires_at == datetime.fromtimestamp(clock.time() + 300, UTC)
    assert started.resend_at == datetime.fromtimestamp(clock.time() + 30, UTC)
    (message,) = sandbox.messages
    assert (message.to, message.message_id) == (DIGITS, started.message_id)
    assert message.fields["language_code"] == "id"
    code = code_of(sandbox, DIGITS)
    assert await verifier.check(started.id, wrong(code)) == Check(CheckStatus.WRONG, None, 4)
    check = await verifier.check(started.id, f" {code[:3]} {code[3:]}")
    assert check.approved
    assert check == Check(CheckStatus.APPROVED, DIGITS, 4)
    assert await verifier.check(started.id, code) == Check(CheckStatus.SPENT, None, 4)
    ended = await verifier.get(started.id)
    assert ended is not None
    assert ended.status is VerificationStatus.APPROVED


async def test_a_code_expires(sandbox: Sandbox, verifier: Verifier, clock: FakeClock) -> None:
    started = await verifier.start(NUMBER)
    clock.advance(300)
    assert (await verifier.check(started.id, code_of(sandbox, DIGITS))).status is CheckStatus.EXPIRED
    clock.advance(3601)
    assert (await verifier.check(started.id, code_of(sandbox, DIGITS))).status is CheckStatus.UNKNOWN
    assert await verifier.get(started.id) is None


@pytest.mark.parametrize("typed", ["", "48291", "48291a", "4" * 10_000, "\ud800", None, 482913])
async def test_what_cannot_be_a_code_is_wrong(verifier: Verifier, typed: Any) -> None:
    started = await verifier.start(NUMBER)
    assert await verifier.check(started.id, typed) == Check(CheckStatus.WRONG, None, 4)


@pytest.mark.parametrize("name", ["", "an-id", "\ud800", "x" * 100_000, None, 5, b"an-id"])
async def test_an_id_that_never_was_is_unknown_everywhere(verifier: Verifier, name: Any) -> None:
    assert await verifier.check(name, "482913") == Check(CheckStatus.UNKNOWN)
    assert await verifier.get(name) is None
    await verifier.cancel(name)
    assert (await refused(verifier.resend(name))).reason is RefusalReason.NOT_PENDING


async def test_a_cancelled_verification_is_not_approved(sandbox: Sandbox, verifier: Verifier) -> None:
    started = await verifier.start(NUMBER)
    await verifier.cancel(started.id)
    assert (await verifier.check(started.id, code_of(sandbox, DIGITS))).status is CheckStatus.SPENT
    assert (await refused(verifier.resend(started.id))).reason is RefusalReason.NOT_PENDING


async def test_what_expires_in_the_store_meanwhile_has_ended(
    sandbox: Sandbox, verifier: Verifier, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = await verifier.start(NUMBER)
    state = await verifier._verifications.get(started.id)
    await verifier._verifications.remove(started.id)

    async def get(_: object) -> object:
        return state

    monkeypatch.setattr(verifier._verifications, "get", get)
    await verifier.cancel(started.id)
    clock.advance(30)
    assert (await refused(verifier.resend(started.id))).reason is RefusalReason.NOT_PENDING
    assert len(sandbox.messages) == 1


# ---------------------------------------------------------------------------------------------- resends


async def test_a_resend_has_the_same_code_language_and_expiry_and_an_id_of_its_own(
    sandbox: Sandbox, new_verifier: NewVerifier, clock: FakeClock
) -> None:
    verifier = new_verifier(language_code="id")
    started = await verifier.start(NUMBER)
    error = await refused(verifier.resend(started.id))
    assert (error.reason, error.retry_after) == (RefusalReason.TOO_SOON, 30)
    clock.advance(30)
    resent = await verifier.resend(started.id)
    assert (resent.id, resent.expires_at) == (started.id, started.expires_at)
    assert resent.resend_at == datetime.fromtimestamp(clock.time() + 60, UTC)
    first, second = sandbox.messages
    assert (first.otp, first.fields["language_code"]) == (second.otp, second.fields["language_code"])
    assert [first.message_id, second.message_id] == [started.message_id, resent.message_id]
    assert started.message_id != resent.message_id
    assert (await verifier.check(started.id, first.otp or "")).approved


async def test_resends_end(sandbox: Sandbox, new_verifier: NewVerifier, clock: FakeClock) -> None:
    started = await (verifier := new_verifier()).start(NUMBER)
    for pause in (30, 60, 120):
        clock.advance(pause)
        await verifier.resend(started.id)
    assert (await refused(verifier.resend(started.id))).reason is RefusalReason.NO_RESENDS_LEFT
    assert len(sandbox.messages) == 4
    once = new_verifier(limits=Limits(resend_after=()))
    started = await once.start(NUMBER)
    assert started.resend_at is None
    assert (await refused(once.resend(started.id))).reason is RefusalReason.NO_RESENDS_LEFT


# ---------------------------------------------------------------------------------------------- keys


async def test_keys_rotate(sandbox: Sandbox, new_verifier: NewVerifier, clock: FakeClock) -> None:
    old, new = new_verifier(key=KEY), new_verifier(key=["the new key, which makes codes from now on", KEY])
    only_new = new_verifier(key="the new key, which makes codes from now on")
    before = await old.start(NUMBER)
    code = code_of(sandbox, DIGITS)
    assert (await only_new.check(before.id, code)).status is CheckStatus.WRONG
    assert (await refused(only_new.resend(before.id))).reason is RefusalReason.NOT_PENDING
    clock.advance(30)
    await new.resend(before.id)
    assert code_of(sandbox, DIGITS) == code
    assert (await new.check(before.id, code)).number == DIGITS
    after = await new.start(NUMBER)
    assert (await old.check(after.id, code_of(sandbox, DIGITS))).status is CheckStatus.WRONG
    assert (await only_new.check(after.id, code_of(sandbox, DIGITS))).approved


async def test_the_key_comes_from_its_variable(
    client: OtpClient, clock: FakeClock, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="NXOTP_VERIFICATION_KEY"):
        Verifier(client, store=MemoryStore(), countries="any")
    monkeypatch.setenv("NXOTP_VERIFICATION_KEY", KEY)
    verifier = Verifier(client, store=MemoryStore(), countries="any", clock=clock)
    started = await verifier.start(NUMBER)
    assert (await verifier.check(started.id, code_of(sandbox, DIGITS))).approved


# ---------------------------------------------------------------------------------------------- what a send becomes


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    caplog.set_level(logging.DEBUG)
    yield caplog
    for record in caplog.records:
        assert DIGITS not in f"{record.getMessage()} {vars(record)!r}"


async def test_a_verification_goes_on_if_it_is_not_known_whether_its_message_was_accepted(
    sandbox: Sandbox, verifier: Verifier, clock: FakeClock
) -> None:
    sandbox.script(Fault.disconnect_after_reading())
    started = await verifier.start(NUMBER)
    assert started.send_status is SendStatus.UNKNOWN
    clock.advance(30)
    assert (await verifier.resend(started.id)).send_status is SendStatus.ACCEPTED
    assert (await verifier.check(started.id, code_of(sandbox, DIGITS))).approved


@pytest.mark.usefixtures("logs")
async def test_a_number_that_is_not_on_whatsapp_is_reported_as_such_and_counted(
    sandbox: Sandbox, new_verifier: NewVerifier
) -> None:
    verifier = new_verifier(limits=Limits(number_per_hour=1))
    sandbox.script(Fault.meta(131026))
    error = await refused(verifier.start(NUMBER))
    assert (error.reason, error.code, error.meta_code) == (RefusalReason.UNDELIVERABLE, 9099, 131026)
    assert error.result is not None
    assert (await refused(verifier.start(NUMBER))).reason is RefusalReason.NUMBER_LIMIT


@pytest.mark.parametrize("code", [9005, -1])
async def test_what_the_vendor_refuses_for_another_reason_is_raised_and_not_counted(
    sandbox: Sandbox, new_verifier: NewVerifier, code: int
) -> None:
    verifier = new_verifier(limits=Limits(number_per_hour=1, messages_per_day=1, prefix_per_hour=1))
    for _ in range(3):
        sandbox.script(*[Fault.answer(code)] * (3 if code == -1 else 1))
        with pytest.raises(ApiError) as caught:
            await verifier.start(NUMBER)
        assert caught.value.code == code
    assert not sandbox.messages


async def test_what_never_left_is_not_counted_and_cannot_be_approved(
    sandbox: Sandbox, clock: FakeClock, new_store: Any
) -> None:
    client = sandbox.client(base_url="http://127.0.0.1:9", clock=clock, retry=RetryPolicy(max_attempts=1))
    store = new_store()
    verifier = Verifier(client, store=store, key=KEY, countries="any", limits=Limits(number_per_hour=1), clock=clock)
    async with client:
        for _ in range(3):
            with pytest.raises(NotSentError):
                await verifier.start(NUMBER)
    assert not len(store)


async def test_a_resend_that_fails_leaves_the_first_message_valid(
    sandbox: Sandbox, verifier: Verifier, clock: FakeClock
) -> None:
    started = await verifier.start(NUMBER)
    clock.advance(30)
    sandbox.script(Fault.answer(9005))
    with pytest.raises(ApiError):
        await verifier.resend(started.id)
    assert (await verifier.check(started.id, code_of(sandbox, DIGITS))).approved


class BrokenStore(BaseStore):
    """A store that fails from some call on."""

    def __init__(self, calls: int) -> None:
        super().__init__(5.0, None)
        self.calls = calls
        self._inner = MemoryStore()

    async def _read(self, key: str) -> bytes | None:
        self.calls -= 1
        if self.calls < 0:
            raise StoreError("down")
        return await self._inner._read(key)

    async def _replace(self, key: str, seen: bytes | None, value: bytes | None, ttl: float) -> bool:
        return await self._inner._replace(key, seen, value, ttl)

    async def _reserve(self, *_: Any) -> float | None:
        raise NotImplementedError

    def _watchers(self) -> Any:
        raise NotImplementedError

    async def aclose(self) -> None: ...


@pytest.mark.parametrize("calls", range(6))
async def test_nothing_is_sent_while_the_store_is_away(sandbox: Sandbox, new_verifier: NewVerifier, calls: int) -> None:
    verifier = new_verifier(store=BrokenStore(calls), limits=Limits())
    with pytest.raises(StoreError):
        await verifier.start(NUMBER, ip="192.0.2.1")
    assert not sandbox.requests


async def test_an_approval_stands_although_it_was_not_counted(
    sandbox: Sandbox, new_verifier: NewVerifier, logs: pytest.LogCaptureFixture
) -> None:
    store = BrokenStore(100)
    verifier = new_verifier(store=store, limits=Limits())
    started = await verifier.start(NUMBER)
    store.calls = 1
    assert (await verifier.check(started.id, code_of(sandbox, DIGITS))).approved
    assert "an approval was not counted for the conversion: StoreError" in logs.messages


# ---------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("number", "region", "reason"),
    [
        ("0812 3456 7890", None, InvalidReason.NATIONAL_NUMBER),
        ("+62 0812 3456 7890", None, InvalidReason.TRUNK_PREFIX),
        ("0812 3456 789a", "ID", InvalidReason.INVALID_CHARACTER),
        ("+62 1", "ID", InvalidReason.WRONG_LENGTH),
        ("", "ID", InvalidReason.EMPTY),
        (None, "ID", InvalidReason.WRONG_TYPE),
    ],
)
async def test_what_is_no_number_is_refused_with_a_reason(
    verifier: Verifier, number: Any, region: str | None, reason: InvalidReason
) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        await verifier.start(number, region=region)
    assert (caught.value.field, caught.value.reason) == ("number", reason)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("region", {"region": "XX"}),
        ("language_code", {"language_code": "klingon"}),
        *(("ip", {"ip": ip}) for ip in ("testclient", "", "192.0.2.1:80", "192.0.2.1, 192.0.2.2", "::1::", 5)),
    ],
)
async def test_a_wrong_argument_is_named(
    sandbox: Sandbox, verifier: Verifier, field: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidMessageError, match=f"^{field} ") as caught:
        await verifier.start(NUMBER, **options)
    assert caught.value.field == field
    assert not sandbox.requests


@pytest.mark.parametrize(
    ("number", "countries", "reason"),
    [
        ("+65 9123 4567", {"ID"}, RefusalReason.COUNTRY),
        ("+1 876 555 1234", {"US"}, RefusalReason.COUNTRY),  # Jamaica
        ("18765551234", {"US"}, RefusalReason.COUNTRY),
        ("19995551234", {"US"}, RefusalReason.COUNTRY),  # nobody's: so it may be anywhere that has the country code 1
        ("+62 21 350 1234", {"ID"}, RefusalReason.NOT_MOBILE),
        ("+1 800 555 1234", "any", RefusalReason.NOT_MOBILE),
    ],
)
async def test_numbers_that_are_not_allowed_are_refused(
    sandbox: Sandbox, new_verifier: NewVerifier, number: str, countries: Any, reason: RefusalReason
) -> None:
    assert (await refused(new_verifier(countries=countries).start(number))).reason is reason
    assert not sandbox.requests


@pytest.mark.parametrize(
    ("number", "countries"),
    [("+65 9123 4567", {"ID", "sg"}), ("+1 415 555 2671", ["US"]), ("+62 812 3456 7890", "any")],
)
async def test_numbers_of_the_named_countries_are_verified(
    sandbox: Sandbox, new_verifier: NewVerifier, number: str, countries: Any
) -> None:
    await new_verifier(countries=countries).start(number)
    assert len(sandbox.messages) == 1


async def test_test_numbers_are_for_a_sandbox_only(sandbox: Sandbox, new_verifier: NewVerifier) -> None:
    await new_verifier().start("+999 555 0100")
    assert len(sandbox.messages) == 1
    async with sandbox.client(base_url="https://otp.invalid") as client:
        for countries in ({"ID"}, "any"):
            verifier = Verifier(client, store=MemoryStore(), key=KEY, countries=countries)
            assert (await refused(verifier.start("+999 555 0100"))).reason is RefusalReason.COUNTRY


# ---------------------------------------------------------------------------------------------- limits


def numbers(count: int, prefix: str = "62812345") -> list[str]:
    return [f"+{prefix}{index:05}" for index in range(count)]


async def test_a_number_is_limited_also_with_another_address(verifier: Verifier, clock: FakeClock) -> None:
    for index in range(5):
        await verifier.start(NUMBER, ip=f"192.0.2.{index}")
    error = await refused(verifier.start("0812 3456 7890", region="ID", ip="192.0.2.9"))
    assert error.reason is RefusalReason.NUMBER_LIMIT
    assert error.retry_after is not None
    clock.advance(error.retry_after)
    await verifier.start(NUMBER, ip="192.0.2.9")


async def test_ipv6_is_limited_by_network_and_ipv4_within_it_by_address(new_verifier: NewVerifier) -> None:
    verifier = new_verifier(limits=Limits(ip_per_hour=2, prefix_per_hour=None))
    one, two, three, *others = numbers(10)
    await verifier.start(one, ip="2001:db8::1")
    await verifier.start(two, ip="2001:db8::2")
    assert (await refused(verifier.start(three, ip="2001:db8:0:0:ffff::3"))).reason is RefusalReason.IP_LIMIT
    await verifier.start(three, ip="2001:db8:0:1::1")
    await verifier.start(others[0], ip="::ffff:192.0.2.1")
    await verifier.start(others[1], ip="192.0.2.1")
    assert (await refused(verifier.start(others[2], ip="192.0.2.1"))).reason is RefusalReason.IP_LIMIT
    await verifier.start(others[2], ip="192.0.2.2")
    await verifier.start(others[3])


async def test_a_prefix_a_country_and_the_day_are_limited(sandbox: Sandbox, new_verifier: NewVerifier) -> None:
    for limits, reason in (
        (Limits(prefix_per_hour=3), RefusalReason.PREFIX_LIMIT),
        (Limits(country_per_hour=3), RefusalReason.COUNTRY_LIMIT),
        (Limits(messages_per_day=3), RefusalReason.BUDGET),
    ):
        verifier = new_verifier(store=MemoryStore(), limits=limits)
        for number in numbers(3):
            await verifier.start(number)
        assert (await refused(verifier.start("+62 812 3450 3333"))).reason is reason
    assert len(sandbox.messages) == 9


async def test_what_one_limit_refuses_counts_for_no_other(new_verifier: NewVerifier) -> None:
    verifier = new_verifier(limits=Limits(ip_per_hour=1, number_per_hour=1))
    await verifier.start(numbers(1)[0], ip="192.0.2.1")
    for _ in range(5):
        assert (await refused(verifier.start(NUMBER, ip="192.0.2.1"))).reason is RefusalReason.IP_LIMIT
    await verifier.start(NUMBER, ip="192.0.2.2")


async def test_a_resend_is_a_message_but_no_other_verification(new_verifier: NewVerifier, clock: FakeClock) -> None:
    verifier = new_verifier(limits=Limits(number_per_hour=2, messages_per_day=3))
    started = await verifier.start(NUMBER)
    clock.advance(30)
    await verifier.resend(started.id)
    await verifier.start(NUMBER)
    clock.advance(60)
    assert (await refused(verifier.resend(started.id))).reason is RefusalReason.BUDGET


async def test_a_prefix_that_approves_too_little_is_refused_and_others_are_not(
    sandbox: Sandbox, new_verifier: NewVerifier, clock: FakeClock
) -> None:
    verifier = new_verifier(limits=Limits(prefix_per_hour=None))
    for attacked, honest in zip(numbers(20, "62812345"), numbers(20, "62813999"), strict=True):
        await verifier.start(attacked)
        started = await verifier.start(honest)
        assert (await verifier.check(started.id, code_of(sandbox, honest))).approved
    clock.advance(86_400 / 60 + 600)
    assert (await refused(verifier.start("+62 812 3450 9999"))).reason is RefusalReason.LOW_CONVERSION
    await verifier.start("+62 813 9990 9999")


# ---------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("countries", value) for value in ([], set(), "ID", b"ID", None, {"XX"}, [5], "ANY")),
        ("key", "short"),
        ("key", 5),
        ("limits", 5),
        ("limits", {}),
        ("clock", 5),
        ("test_numbers", []),
        ("language_code", "klingon"),
        ("client", object()),
        ("store", None),
        ("store", "redis://127.0.0.1"),
        ("store", {}),
    ],
)
def test_a_wrong_option_is_named(client: OtpClient, name: str, value: Any) -> None:
    options: dict[str, Any] = {"client": client, "store": MemoryStore(), "key": KEY, "countries": {"ID"}, name: value}
    with pytest.raises(ConfigurationError, match=f"^{name} "):
        Verifier(options.pop("client"), **options)


async def test_nothing_shows_a_code_a_number_or_a_key(
    sandbox: Sandbox, verifier: Verifier, logs: pytest.LogCaptureFixture
) -> None:
    started = await verifier.start(NUMBER)
    code = code_of(sandbox, DIGITS)
    check = await verifier.check(started.id, code)
    shown = repr((verifier, started, check, await verifier.get(started.id), *logs.messages))
    assert check.approved
    for secret in (code, DIGITS, KEY, started.id):
        assert secret not in shown
    assert "62*********90" in repr(check)
    assert repr(verifier).endswith("countries=['ID'])")


async def test_without_limits_nothing_is_counted(new_verifier: NewVerifier) -> None:
    store = MemoryStore()
    verifier = new_verifier(store=store, limits=UNLIMITED)
    for _ in range(20):
        await verifier.start(NUMBER, ip="192.0.2.1")
    assert len(store) == 20
