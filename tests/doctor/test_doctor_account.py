"""What the doctor says of the account, as the sandbox tells it."""

from collections.abc import AsyncIterator, Mapping
from decimal import Decimal

import pytest

from nxotp_async import InvalidSignatureError
from nxotp_async.doctor import Check, Finding, Status, examine
from nxotp_async.sandbox import SANDBOX_BUSINESS_PHONE, Sandbox, SandboxAccount


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    """A sandbox that the variables lead to."""
    async with Sandbox() as sandbox:
        for name, value in sandbox.environ.items():
            monkeypatch.setenv(name, value)
        yield sandbox


async def account_findings() -> list[Finding]:
    return [finding for finding in await examine() if finding.check is Check.ACCOUNT]


def told(findings: list[Finding]) -> Mapping[str, Status]:
    return {finding.found: finding.status for finding in findings}


async def test_a_sound_account(sandbox: Sandbox) -> None:
    sandbox.account.credit = Decimal(500)
    assert told(await account_findings()) == {
        "balance 1,000.00 CNY, credit 500.00": Status.OK,
        "number 99*******00, quality GREEN, recipients in 24 hours: no limit, CONNECTED": Status.OK,
        "65 templates; approved in 65 languages": Status.OK,
    }


async def test_an_account_that_will_not_do(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.account = SandboxAccount(
        balance=Decimal("-2.5"),
        languages=["id", "pt_BR"],
        quality={SANDBOX_BUSINESS_PHONE: "RED"},
        current_limit="TIER_250",
    )
    monkeypatch.setenv("NXOTP_BUSINESS_PHONE", "99955500001")
    findings = await account_findings()
    # Templates are asked for with the number of the variable, which is not bound.
    assert told(findings) == {
        "could not be looked at: code 10003, business phone is not bound to the app": Status.WARNING,
        "balance -2.50 CNY": Status.WARNING,
        "number 99*******00, quality RED, recipients in 24 hours: 250, CONNECTED": Status.WARNING,
        "NXOTP_BUSINESS_PHONE, 99*******01, is none of the account's numbers": Status.WARNING,
    }
    assert all(finding.advice for finding in findings)


async def test_templates_in_other_languages(sandbox: Sandbox) -> None:
    sandbox.account.languages = ["id", "pt_BR"]
    found = "65 templates; approved in 2 languages: id, pt_BR; none is approved in en, the default language"
    assert told(await account_findings())[found] is Status.WARNING


async def test_keys_that_are_refused_fail_the_check(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NXOTP_ACCESS_SECRET", "another-secret")
    (finding,) = await account_findings()
    assert finding.status is Status.FAILED
    assert finding.found == "the vendor refuses the keys: code 1003, invalid signature"
    assert isinstance(finding.error, InvalidSignatureError)


async def test_nothing_is_asked_with_settings_that_are_wrong(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NXOTP_TIMEOUT", "long")
    (finding,) = await account_findings()
    assert (finding.status, finding.found) == (Status.SKIPPED, "not checked, because of settings")


async def test_the_keys_of_further_accounts_are_no_misspelt_settings(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NXOTP_SECOND_ACCESS_KEY", "key")
    monkeypatch.setenv("NXOTP_SENDERS", "senders.toml")
    settings = [finding for finding in await examine() if finding.check is Check.SETTINGS]
    assert {finding.status for finding in settings} == {Status.OK}
    assert "NXOTP_SENDERS: senders.toml" in told(settings)
