"""What type checkers see of `verification`. Nothing here is ever run."""

from datetime import datetime
from typing import assert_type

from nxotp_async import Clock, OtpClient, SendStatus
from nxotp_async.stores import Store
from nxotp_async.verification import Check, CheckStatus, Limits, Verification, VerificationStatus, Verifier


def verifiers(client: OtpClient, store: Store, clock: Clock) -> None:
    Verifier(client, store=store, countries={"ID", "SG"})
    Verifier(client, store=store, countries="any", key="key", language_code="id", clock=clock, limits=Limits())
    Verifier(client, store=store, countries=["ID"], key=[b"new", "old"])


def limits() -> None:
    Limits(lifetime=300, checks=3, resend_after=[30, 60])
    Limits(number_per_hour=None, number_per_day=None, ip_per_hour=None, prefix_per_hour=None, country_per_hour=None)
    Limits(messages_per_day=None, min_prefix_conversion=None, min_country_conversion=0.1)


async def a_login(verifier: Verifier) -> None:
    started = await verifier.start("+62 812 3456 7890")
    await verifier.start("0812 3456 7890", region="ID", ip="192.0.2.1", language_code="id")
    assert_type(started, Verification)
    assert_type(started.id, str)
    assert_type(started.status, VerificationStatus)
    assert_type(started.expires_at, datetime)
    assert_type(started.resend_at, datetime | None)
    assert_type(started.checks_left, int)
    assert_type(started.message_id, str)
    assert_type(started.send_status, SendStatus | None)
    check = await verifier.check(started.id, "482913")
    assert_type(check, Check)
    assert_type(check.status, CheckStatus)
    assert_type(check.approved, bool)
    assert_type(check.number, str | None)
    assert_type(check.checks_left, int)
    assert_type(await verifier.resend(started.id), Verification)
    assert_type(await verifier.cancel(started.id), None)
    assert_type(await verifier.get(started.id), Verification | None)
