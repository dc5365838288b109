"""``nxotp doctor``."""

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from click.testing import Result
from commands import KEYS, TO, Env, Start, invoke, posix

from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import serve_in_thread

pytest_plugins = ["command_fixtures"]


WAY = ("dns", "connection", "http", "clock")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with serve_in_thread(Sandbox()) as sandbox:
        yield sandbox


@pytest.fixture
def account(sandbox: Sandbox, authorities: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables that lead to the sandbox, of which nothing is remembered from other tests."""
    sandbox.requests.clear()
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return {**KEYS, "NXOTP_BASE_URL": sandbox.url, "SSL_CERT_FILE": str(authorities)}


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("authorities") / "authorities.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def through_a_proxy(account: dict[str, str], sandbox: Sandbox) -> dict[str, str]:
    """The same through a proxy, the sandbox itself: where that leads nobody knows, so one is asked before sending."""
    return {**account, "NXOTP_PROXY": sandbox.url}


def doctor(*arguments: str, env: Env) -> Result:
    return invoke("doctor", *arguments, env=env)


def text(result: Result) -> str:
    """Return what was printed as running text, without its wrapping."""
    return " ".join(result.stdout.split())


def sent(sandbox: Sandbox) -> int:
    return len(sandbox.messages)


# ---------------------------------------------------------------------------------------------- what it says


def test_all_is_well_with_the_sandbox(account: dict[str, str], sandbox: Sandbox) -> None:
    result = doctor(env=account)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.endswith("\nready to send\n")
    for check in ("environment", "settings", *WAY):
        assert re.search(rf"^{check} +ok  ", result.stdout, re.MULTILINE)
    assert "FAILED" not in result.stdout
    assert "\x1b" not in result.stdout
    assert not any(line != line.rstrip() for line in result.stdout.splitlines())
    assert not sandbox.requests


def test_what_failed_comes_with_what_to_do(account: dict[str, str]) -> None:
    del account["NXOTP_APPKEY"]
    result = doctor(env={**account, "NXOTP_APKEY": "sandbox-appkey"})
    assert result.exit_code == 3
    assert "FAILED missing: NXOTP_APPKEY -> set them to the keys in NXCloud's console" in text(result)
    assert "warning NXOTP_APKEY is set, but not used -> did you mean NXOTP_APPKEY?" in text(result)
    assert result.stdout.endswith("\nnot ready: fix the first FAILED check first\n")


def test_a_warning_does_not_keep_from_sending(account: dict[str, str]) -> None:
    result = doctor(env={**account, "HTTPS_PROXY": "http://proxy.example:3128"})
    assert result.exit_code == 0
    assert "warning HTTPS_PROXY: set, but deliberately not used" in text(result)


def test_what_comes_after_a_failure_is_skipped(account: dict[str, str]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        result = doctor(env={**account, "NXOTP_BASE_URL": f"https://127.0.0.1:{port}"})
    assert result.exit_code == 1
    assert f"connection FAILED no connection to 127.0.0.1:{port}: Connection refused ->" in text(result)
    assert "clock skipped not checked, because of connection" in text(result)


def test_the_clock_is_the_machines_configuration(account: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nxotp_async.clock_skew.server_time", lambda _: 0.0)
        result = doctor(env=account)
    assert result.exit_code == 3
    assert "timedatectl set-ntp true" in text(result)


def test_it_is_told_as_json_too(account: dict[str, str]) -> None:
    result = doctor("--json", env={**account, "NXOTP_TIMEOUT": "soon"})
    report = json.loads(result.stdout)
    assert result.exit_code == 3
    assert report["ready"] is False
    (failed,) = [finding for finding in report["findings"] if finding["status"] == "failed"]
    assert failed == {
        "check": "settings",
        "status": "failed",
        "found": "timeout (or NXOTP_TIMEOUT) must be a number",
        "advice": "correct NXOTP_TIMEOUT, or unset it",
    }
    assert {finding["check"] for finding in report["findings"]} == {"environment", "settings", *WAY, "account"}


def test_with_json_it_is_ready_too(account: dict[str, str]) -> None:
    result = doctor("--json", "--send-to", TO, env=account)
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ready"], report["findings"][-1]["check"]) == (0, True, "send")


def test_the_timeout_is_passed_on(account: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts, and never answers
        silent = f"http://127.0.0.1:{listener.getsockname()[1]}"
        result = doctor("--timeout", "1", env={**account, "NXOTP_BASE_URL": silent})
    assert result.exit_code == 1
    assert "connected, but no answer within 1 s" in text(result)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--timeout", "0"], "'--timeout': 0.0 is not in the range"),
        (["--send-to", "0123456789"], "'--send-to': starts with 0"),
        (["--send-to", ""], "'--send-to': is empty"),
        (["somewhere"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_refused(arguments: list[str], complaint: str, account: dict[str, str]) -> None:
    result = doctor(*arguments, env=account)
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_help_teaches(account: dict[str, str]) -> None:
    help_text = text(doctor("--help", env=account))
    assert 'nxotp doctor --send-to "+999 555 0100"' in help_text
    for meaning in ("0 sending should work", "1 the network", "3 the settings", "6 the OTP", "130 interrupted"):
        assert meaning in help_text


# ---------------------------------------------------------------------------------------------- one real message


def test_a_sandbox_is_sent_to_without_being_asked(account: dict[str, str], sandbox: Sandbox) -> None:
    result = doctor("--send-to", TO, env=account)
    assert result.exit_code == 0
    assert sent(sandbox) == 1
    assert re.search(r"send ok accepted for 99\*{6}00 in \d+ ms, as [0-9a-f]{32}", text(result))
    assert "9995550100" not in result.output
    assert str(sandbox.messages[0].otp) not in re.sub(r"[0-9a-f]{32}", "", result.output)


def test_nothing_is_sent_after_a_failure(account: dict[str, str], sandbox: Sandbox) -> None:
    result = doctor("--send-to", TO, "--yes", env={**account, "NXOTP_TIMEOUT": "soon"})
    assert result.exit_code == 3
    assert "send skipped not sent, because a check failed" in text(result)
    assert not sandbox.requests


def test_where_nobody_can_be_asked_nothing_is_sent(through_a_proxy: dict[str, str], sandbox: Sandbox) -> None:
    result = doctor("--send-to", TO, env=through_a_proxy)
    assert result.exit_code == 2
    assert result.output.endswith("nothing was sent\n")
    assert "send skipped not sent, because it was not confirmed -> confirm it with --yes" in text(result)
    assert not sandbox.requests


def test_yes_can_be_said_before(through_a_proxy: dict[str, str], sandbox: Sandbox) -> None:
    assert doctor("--send-to", TO, "--yes", env=through_a_proxy).exit_code == 0
    assert sent(sandbox) == 1


@pytest.mark.parametrize(
    ("number", "exit_code", "found"),
    [
        ("999000009005", 3, "rejected: code 9005, insufficient account balance -> recharge the account"),
        ("999000001003", 3, "rejected: code 1003, invalid signature"),
        ("999100131026", 1, "rejected: code 9099"),
        ("999300000002", 6, "-> the message may have been accepted"),
    ],
)
def test_a_refusal_has_its_exit_code_and_advice(
    number: str, exit_code: int, found: str, account: dict[str, str]
) -> None:
    result = doctor("--send-to", number, env=account)
    assert result.exit_code == exit_code
    assert "send FAILED" in text(result)
    assert found in text(result)


# ---------------------------------------------------------------------------------------------- at a terminal


@posix
@pytest.mark.parametrize(("typed", "messages"), [("y\n", 1), ("n\n", 0), ("\n", 0)])
def test_one_is_asked_before_a_real_message(
    typed: str, messages: int, through_a_proxy: dict[str, str], sandbox: Sandbox, start: Start
) -> None:
    ours, terminal = os.openpty()
    os.write(ours, typed.encode())
    process = start("doctor", "--send-to", TO, env=through_a_proxy, stdin=terminal)
    out, err = process.communicate(timeout=30)
    os.close(ours)
    os.close(terminal)
    assert "Send one real OTP to 99******00? [y/N]:" in err
    assert process.returncode == (0 if messages else 2)
    assert sent(sandbox) == messages
    assert ("not confirmed" in out) == (messages == 0)


@posix
def test_ctrl_c_ends_it(account: dict[str, str], start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = start("doctor", env={**account, "NXOTP_BASE_URL": f"http://127.0.0.1:{listener.getsockname()[1]}"})
        with listener.accept()[0] as connection:
            assert connection.recv(65_536).startswith(b"GET / ")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "nxotp: interrupted\n")


@posix
def test_ctrl_c_while_the_message_is_on_its_way(account: dict[str, str], start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = start("doctor", "--send-to", TO, env={**account, "NXOTP_BASE_URL": url})
        with listener.accept()[0] as connection:
            assert connection.recv(65_536).startswith(b"GET / ")
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        while True:
            connection = listener.accept()[0]
            if connection.recv(65_536).startswith(b"POST /api/wa/otp "):
                break
            with connection:  # a question about the account
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        with connection:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "nxotp: interrupted; the OTP may have been accepted\n"


# ---------------------------------------------------------------------------------------------- nothing secret


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "JSON"])
def test_no_secret_is_printed(as_json: list[str], account: dict[str, str], sandbox: Sandbox) -> None:
    secrets = {name: f"c4n4ry-{name}" for name in KEYS}
    secrets["NXOTP_PROXY"] = sandbox.url.replace("//", "//us3r-c4n4ry:p4ss-c4n4ry@")
    secrets["NXOTP_DR_WEBHOOK"] = "https://hooks.example/w3bh00k-c4n4ry"
    secrets["NXOTP_ACCES_SECRET"] = "typ0-c4n4ry"
    result = doctor(*as_json, "--send-to", TO, "--yes", env={**account, **secrets})
    assert result.exit_code == 3
    assert "1005" in result.stdout
    assert "c4n4ry" not in result.output
