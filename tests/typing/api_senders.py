"""The types of several senders, and of the account, as users write them. Never run."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, assert_type

from nxotp_async import Credentials, NxOtpError, OtpClient, OtpMessage, SendResult
from nxotp_async.account import Account, AccountOverview, Balance, Quality, SendingNumber, Template
from nxotp_async.bulk import Dispatcher, Ledger
from nxotp_async.pacing import SharedRate
from nxotp_async.sandbox import Sandbox, SandboxAccount
from nxotp_async.senders import Sender, SenderAccount, SenderPool, SenderState, StepBack, read_senders


async def several(client: OtpClient, rate: SharedRate, ledger: Ledger, messages: list[OtpMessage]) -> None:
    account = SenderAccount(credentials=Credentials("key", "secret", "appkey"), daily_limit=10_000)
    assert_type(account.credentials, Credentials | None)
    assert_type(account.daily_limit, int | None)
    first = Sender("+999 555 00001", rate=160, weight=2)
    assert_type(first.business_phone, str | None)
    assert_type(first.rate, float | SharedRate)
    assert_type(first.weight, float)
    assert_type(first.account, SenderAccount)
    assert_type(first.per_second, float)
    assert_type(first.label, str)
    assert_type(read_senders("senders.toml"), list[Sender])
    read_senders(Path("senders.toml"), {"NXOTP_SECOND_ACCESS_KEY": "key"})
    pool = SenderPool(client, [first, Sender(None, rate=rate, account=account)])
    result = await pool.send(messages[0])
    assert_type(result.history, tuple[SendResult, ...])
    assert_type(result.status.precedence, int)
    assert_type(client.settings.credentials, Credentials)
    assert_type(pool.max_concurrency, int)
    assert_type(pool.senders, list[SenderState])
    state = pool.senders[0]
    assert_type(state.sender, Sender)
    assert_type(state.reason, StepBack | None)
    assert_type(state.returns_in, float)
    assert_type(state.sent, int)
    Dispatcher(ledger, pool)
    match state.reason:
        case StepBack.THROTTLED | StepBack.UNBOUND | StepBack.EXHAUSTED | StepBack.REFUSED | None:
            pass


async def the_account(client: OtpClient) -> None:
    assert_type(client.account, Account)
    balance = await client.account.balance()
    assert_type(balance, Balance)
    assert_type(balance.currency, str)
    assert_type(balance.amount, Decimal)
    assert_type(balance.credit, Decimal)
    assert_type(balance.available, Decimal)
    assert_type(balance.raw, Mapping[str, Any])
    numbers = await client.account.numbers()
    assert_type(numbers, list[SendingNumber])
    assert_type(numbers[0].number, str)
    assert_type(numbers[0].quality, Quality)
    assert_type(numbers[0].daily_limit, float | None)
    templates = await client.account.templates("99955500001")
    assert_type(templates, list[Template])
    assert_type(templates[0].is_approved, bool)
    overview = await client.account.overview()
    assert_type(overview, AccountOverview)
    assert_type(overview.balance, Balance | NxOtpError)
    assert_type(overview.numbers, list[SendingNumber] | NxOtpError)
    assert_type(overview.templates, list[Template] | NxOtpError)
    assert_type(overview.errors, list[NxOtpError])
    match numbers[0].quality:
        case Quality.GREEN | Quality.YELLOW | Quality.RED | Quality.UNKNOWN:
            pass


async def the_sandbox(sandbox: Sandbox) -> None:
    sandbox.account.balance = Decimal(5)
    assert_type(sandbox.account, SandboxAccount)
    sandbox.business_phones.remove("99955500001")
    assert_type(sandbox.account.refuse("en") is None, bool)
    assert_type(sandbox.answer_query("/api/wa/getPhone", {}, b""), bytes)
