"""``nxotp bench`` with a real host."""

from pathlib import Path

import pytest
from bench_commands import ACCOUNT, NUMBERS, REAL, bench, write_recipients
from commands import OTP, assert_clean

from nxotp_async import OtpClient
from nxotp_async.bench import Plan
from nxotp_async.cli.bench.target import choose_target
from nxotp_async.recipients import read_recipients
from nxotp_async.sandbox import Sandbox

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")


# ---------------------------------------------------------------------------------------------- real hosts


@pytest.mark.parametrize(
    "url",
    [
        REAL,
        "https://127.0.0.1.example.com",
        "http://example.com",
        "https://localhost.example.com",
        "https://0x7f.1",
        "https://10.0.0.1",
    ],
)
def test_a_real_host_is_refused_with_what_would_happen(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr("nxotp_async.cli.bench.run.run", None)
    result = bench("--base-url", url, "--count", "5", env=ACCOUNT)
    assert (result.exit_code, result.stdout) == (2, "")
    said = " ".join(result.stderr.split())
    for words in ("is not loopback", "real WhatsApp message to a real person", "cost money"):
        assert words in said
    for option in ("--yes-send-real-messages", "--recipients FILE", "--count", "--rate"):
        assert option in said


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--count", "2", "--rate", "1"), "require --recipients FILE, --count and --rate"),
        (("--recipients", "people.csv", "--rate", "1"), "real messages require"),
        (("--recipients", "people.csv", "--rate", "1", "--duration", "2"), "real messages require"),
        (("--recipients", "people.csv", "--count", "2"), "real messages require"),
        (("--recipients", "people.csv", "--count", "2", "--rate", "1", "--warm-up", "1"), "omit it"),
        (("--recipients", "people.csv", "--count", "3", "--rate", "1"), "contains 2: real messages are sent once"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_real_messages_need_to_know_who_gets_how_many(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], problem: str
) -> None:
    write_recipients()
    monkeypatch.setattr("nxotp_async.cli.bench.run.run", None)
    result = bench("--base-url", REAL, "--yes-send-real-messages", *arguments, env=ACCOUNT)
    assert (result.exit_code, result.stdout) == (2, "")
    assert problem in result.stderr


def test_nobody_gets_a_real_message_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nxotp_async.cli.bench.run.run", None)
    again = f"+{NUMBERS[0][:3]} {NUMBERS[0][3:]},Your code is {OTP},en,"
    asked = ("--recipients", write_recipients(again), "--count", "1", "--rate", "1", "--yes-send-real-messages")
    result = bench("--base-url", REAL, *asked, env=ACCOUNT)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--recipients repeats numbers (1, 99********42 for example): real messages are sent once" in " ".join(
        result.stderr.split()
    )


def test_real_messages_need_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nxotp_async.cli.bench.run.run", None)
    asked = ("--recipients", write_recipients(), "--count", "2", "--rate", "1", "--yes-send-real-messages")
    result = bench("--base-url", REAL, *asked)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith(
        "nxotp: keys are missing: set NXOTP_ACCESS_KEY and NXOTP_ACCESS_SECRET and NXOTP_APPKEY"
    )


def test_with_all_that_real_messages_go_to_the_recipients_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ACCOUNT.items():
        monkeypatch.setenv(name, value)
    plan = Plan(rate=1, count=2, warm_up=0)
    target = choose_target(
        plan,
        concurrency=3,
        base_url=f"{REAL}/",
        real=True,
        recipients=read_recipients(Path(write_recipients())),
        sandbox={"latency": None},
    )
    assert isinstance(target.client, OtpClient)
    assert (repr(target.client), target.client.max_concurrency) == (f"<OtpClient {REAL}/api/wa/otp>", 3)
    assert tuple(message.to for message in target.messages) == NUMBERS
    assert target.name == REAL
    assert_clean(repr(target.client))


def test_real_messages_are_announced_and_not_preceded_by_a_warm_up(
    monkeypatch: pytest.MonkeyPatch, live: Sandbox
) -> None:
    monkeypatch.setattr("nxotp_async.cli.bench.target.is_loopback", lambda _: False)
    env = {
        "NXOTP_ACCESS_KEY": live.credentials.access_key,
        "NXOTP_ACCESS_SECRET": live.credentials.access_secret,
        "NXOTP_APPKEY": live.credentials.appkey,
    }
    asked = ("--recipients", write_recipients(), "--count", "2", "--rate", "100", "--yes-send-real-messages")
    result = bench("--base-url", live.url, *asked, env=env)
    assert result.exit_code == 0
    assert f"sending 2 real messages to {live.url}\n" in result.stderr
    assert tuple(sorted(message.to for message in live.messages)) == NUMBERS
