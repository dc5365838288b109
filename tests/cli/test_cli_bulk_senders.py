"""``nxotp bulk run --senders``, and what a run says beforehand of the account."""

from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from bulk_commands import GOOD, bulk, counts_of, ledger_of, otps, write
from commands import CONTENT, Env

from nxotp_async.sandbox import SANDBOX_BUSINESS_PHONE, Sandbox, SandboxAccount

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")

A, B = "99955500001", "99955500002"
SENDERS = f"""
[[senders]]
business_phone = "+{A}"
rate = 1000

[[senders]]
business_phone = "+{B}"
rate = 1000
"""


def senders(text: str = SENDERS) -> str:
    Path("senders.toml").write_text(text)
    return "senders.toml"


def by_number(sandbox: Sandbox) -> Counter[str]:
    return Counter(request.fields["business_phone"] for request in sandbox.messages)


def beforehand(stderr: str) -> list[str]:
    return [line.removeprefix("beforehand: ") for line in stderr.splitlines() if line.startswith("beforehand: ")]


# ---------------------------------------------------------------------------------------------- several senders


def test_a_file_goes_by_the_numbers_of_a_file(live: Sandbox, account: Env) -> None:
    live.business_phones[:] = [A, B]
    result = bulk("run", otps(*GOOD[:60]), "--senders", senders(), env=account)
    assert result.exit_code == 0
    assert set(by_number(live)) == {A, B}
    assert sum(by_number(live).values()) == 60


def test_the_file_may_be_a_setting_and_a_resumed_run_has_it_too(live: Sandbox, account: Env) -> None:
    live.business_phones[:] = [A, B]
    ledger = ledger_of(*(f"{number},{CONTENT},{number}" for number in GOOD[:40]))
    assert bulk("resume", ledger, env={**account, "NXOTP_SENDERS": senders()}).exit_code == 0
    assert set(by_number(live)) == {A, B}


def test_rows_with_a_number_go_by_it(live: Sandbox, account: Env) -> None:
    live.business_phones[:] = [A, B, "99955500003"]
    rows = [f"{number},{CONTENT},{B if place % 2 else '99955500003'}" for place, number in enumerate(GOOD[:20])]
    file = write(*rows, header="to,content,business_phone")
    assert bulk("run", file, "--senders", senders(), env=account).exit_code == 0
    assert by_number(live) == {B: 10, "99955500003": 10}


def test_one_that_is_not_bound_steps_back(live: Sandbox, account: Env, caplog: pytest.LogCaptureFixture) -> None:
    live.business_phones[:] = [B]
    result = bulk("run", otps(*GOOD[:60]), "--senders", senders(), env=account)
    assert result.exit_code == 0
    assert by_number(live) == {B: 60}
    assert caplog.text.count("99*******01 steps back for 60 s, unbound") == 1


def test_another_account_has_its_keys_from_variables_of_its_own(
    live: Sandbox, account: Env, caplog: pytest.LogCaptureFixture
) -> None:
    live.business_phones[:] = [A, B]
    file = senders(SENDERS + 'account = "second"\n')
    keys = {
        "NXOTP_SECOND_ACCESS_KEY": account["NXOTP_ACCESS_KEY"],
        "NXOTP_SECOND_ACCESS_SECRET": "wr0ng-secret",
        "NXOTP_SECOND_APPKEY": account["NXOTP_APPKEY"],
    }
    result = bulk("run", otps(*GOOD[:40]), "--senders", file, env={**account, **keys})
    assert result.exit_code == 0
    assert by_number(live) == {A: 40}
    assert "the account of 99*******02 steps back for 60 s, refused" in caplog.text
    assert "wr0ng-secret" not in result.output + caplog.text


ONE = f'[[senders]]\nbusiness_phone = "{A}"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("senders = [", "senders.toml is not TOML"),
        ("", "there must be a table [[senders]] for each sender"),
        ("senders = 5", "there must be a table [[senders]] for each sender"),
        ("[[senders]]\nrate = 5", "a sender has no business_phone"),
        (
            ONE + "speed = 5",
            "a sender has a speed, which is none of business_phone, rate",
        ),
        (ONE + 'rate = "5"', "rate of a sender must be a number, not str"),
        ('[[senders]]\nbusiness_phone = "0555"', "business_phone of a sender starts with 0"),
        (f"[[senders]]\nbusiness_phone = {A}", "business_phone of a sender must be a str, not int"),
        (ONE * 2, "two senders are 99*******01"),
        (
            ONE + 'account = "second"',
            "keys of the account second are missing: set NXOTP_SECOND_",
        ),
        (ONE + 'account = "x-1"', "the name of an account must be letters"),
        (
            ONE + "[accounts.third]\ndaily_limit = 5",
            "no sender is of the account third",
        ),
        (
            ONE + "[accounts.default]\nlimit = 5",
            "accounts.default has a limit, which is none",
        ),
        (
            ONE + "[accounts.default]\ndaily_limit = 0",
            "daily_limit of a sender must be 1",
        ),
    ],
)
def test_a_file_of_senders_that_is_wrong_says_so_and_nothing_is_sent(
    text: str, said: str, live: Sandbox, account: Env
) -> None:
    result = bulk("run", otps(*GOOD[:3]), "--senders", senders(text), env=account)
    assert result.exit_code == 3
    assert said in result.stderr
    assert not live.requests


def test_a_rate_limit_of_the_client_is_refused(live: Sandbox, account: Env) -> None:
    result = bulk("run", otps(*GOOD[:3]), "--senders", senders(), env={**account, "NXOTP_RATE_LIMIT": "80"})
    assert result.exit_code == 3
    assert "leave NXOTP_RATE_LIMIT of the client out" in result.stderr


def test_a_daily_limit_ends_what_an_account_sends(live: Sandbox, account: Env) -> None:
    live.business_phones[:] = [A, B]
    file = senders(SENDERS + "[accounts.default]\ndaily_limit = 5\n")
    Path("otps.ledger").unlink(missing_ok=True)
    result = bulk("run", otps(*GOOD[:5]), "--senders", file, env=account)
    assert result.exit_code == 0


# ---------------------------------------------------------------------------------------------- beforehand


def test_nothing_is_said_where_nothing_is_wrong(live: Sandbox, account: Env) -> None:
    result = bulk("run", otps(*GOOD[:3]), "--price", "0.4", env=account)
    assert (result.exit_code, beforehand(result.stderr)) == (0, [])


@pytest.mark.parametrize(("budget", "said"), [("99CNY", 1), ("99", 1), ("99USD", 0)])
def test_a_price_in_another_currency_says_nothing_of_the_balance(
    budget: str, said: int, live: Sandbox, account: Env
) -> None:
    live.account.balance = Decimal(1)
    result = bulk("run", otps(*GOOD[:3]), "--price", "0.5", "--budget", budget, env=account)
    assert (result.exit_code, len(beforehand(result.stderr))) == (0, said)


def test_what_may_go_wrong_is_said_and_the_run_goes_on(live: Sandbox, account: Env) -> None:
    live.account = SandboxAccount(
        balance=Decimal(1), languages=["en", "id"], quality={SANDBOX_BUSINESS_PHONE: "RED"}, current_limit="2"
    )
    rows = [
        f"{number},{CONTENT},{language}" for number, language in zip(GOOD, ["", "fr", "id", "de", "de"], strict=False)
    ]
    result = bulk("run", write(*rows, header="to,content,language_code"), "--price", "0.3", env=account)
    assert beforehand(result.stderr) == [
        "the balance, 1.00 CNY, lasts for 3 of 5 messages at 0.3 each",
        "WhatsApp allows this business 2 recipients in 24 hours; 5 messages are queued",
        "the quality of 99*******00 is RED: WhatsApp may lower its limits",
        "no template is approved in de (2 messages), fr (1 messages)",
    ]
    assert counts_of()["accepted"] == 2


def test_without_a_balance_nothing_is_sent_unless_one_insists(live: Sandbox, account: Env) -> None:
    live.account.balance = Decimal(0)
    result = bulk("run", otps(*GOOD[:3]), env=account)
    assert result.exit_code == 3
    assert "the account has no balance left; nothing was sent" in result.stderr
    assert "nxotp bulk resume otps.csv.ledger" in result.stderr
    assert counts_of() == {"queued": 3}
    assert not live.requests
    assert bulk("resume", "otps.csv.ledger", "--yes", env=account).exit_code == 0


def test_credit_counts_as_balance(live: Sandbox, account: Env) -> None:
    live.account.balance, live.account.credit = Decimal(-3), Decimal(100)
    assert bulk("run", otps(*GOOD[:3]), env=account).exit_code == 0


def test_an_account_that_cannot_be_looked_at_holds_nothing_up(live: Sandbox, account: Env) -> None:
    live.account.balance = Decimal("Infinity")
    result = bulk("run", otps(*GOOD[:3]), env=account)
    assert result.exit_code == 0
    assert beforehand(result.stderr) == [
        "the account could not be looked at: the answer has no balance that could be understood"
    ]


def test_where_nothing_is_queued_nothing_is_asked(live: Sandbox, account: Env) -> None:
    file = otps(*GOOD[:3])
    assert bulk("run", file, env=account).exit_code == 0
    live.account.balance = Decimal(0)
    assert bulk("run", file, env=account).exit_code == 0


@pytest.mark.parametrize("price", ["0", "0.000000", "-1", "much", "nan", "0.05USD"])
def test_a_price_that_is_none(price: str, account: Env) -> None:
    result = bulk("run", otps(GOOD[0]), "--price", price, env=account)
    assert result.exit_code == 2
