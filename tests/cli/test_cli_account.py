"""``nxotp account``."""

import json
import re
from decimal import Decimal

import pytest
from commands import Env, invoke

from nxotp_async.sandbox import SANDBOX_BUSINESS_PHONE, Sandbox

pytest_plugins = ["command_fixtures"]


def test_it_shows_balance_numbers_and_templates(live: Sandbox, account: Env) -> None:
    live.account.balance, live.account.languages = Decimal("1234.5"), ["en", "id"]
    live.account.current_limit = "TIER_10K"
    result = invoke("account", env=account)
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[:5] == [
        "balance: 1,234.50 CNY",
        "number quality status name recipients in 24 hours",
        "99*******00 GREEN CONNECTED Sandbox 10,000",
        "template category status languages",
        "otp AUTHENTICATION REJECTED af sq ar az bn bg ca zh_CN zh_HK zh_TW hr cs da nl en_GB en_US",
    ]
    assert "otp AUTHENTICATION APPROVED en id" in lines
    assert result.stderr == ""


def test_as_json(live: Sandbox, account: Env) -> None:
    result = invoke("account", "--json", env=account)
    shown = json.loads(result.stdout)
    assert shown["balance"] == {"currency": "CNY", "amount": "1000.00", "credit": "0.00"}
    assert shown["numbers"] == [
        {
            "number": "99*******00",
            "quality": "GREEN",
            "name": "Sandbox",
            "name_status": "APPROVED",
            "status": "CONNECTED",
            "daily_limit": None,
            "is_unlimited": True,
        }
    ]
    assert len(shown["templates"]) == 65
    assert shown["errors"] == []
    assert SANDBOX_BUSINESS_PHONE not in result.stdout


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_keys_that_are_refused(as_json: tuple[str, ...], live: Sandbox, account: Env) -> None:
    result = invoke("account", *as_json, env={**account, "NXOTP_ACCESS_SECRET": "another"})
    assert result.exit_code == 3
    assert "code 1003, invalid signature" in result.output


def test_what_cannot_be_asked_is_told_beside_the_rest(live: Sandbox, account: Env) -> None:
    result = invoke("account", "--business-phone", "+999 555 00009", env=account)
    assert result.exit_code == 3
    assert "balance: 1,000.00 CNY" in result.stdout
    assert "nxotp: templates could not be looked at: code 10003" in result.stderr


def test_a_vendor_out_of_reach(account: Env) -> None:
    result = invoke("account", "--base-url", "http://127.0.0.1:1", env=account)
    assert result.exit_code == 1
    assert re.findall(r"nxotp: (\w+) could not be looked at", result.stderr) == ["balance", "numbers", "templates"]
    assert result.stdout == ""
