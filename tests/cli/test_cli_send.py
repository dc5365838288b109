"""``nxotp send``."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from commands import CONTENT, KEYS, OTP, SECRET, TO, Env, Start, finish, full_device, invoke, posix, read_until

from nxotp_async.sandbox import SANDBOX_BUSINESS_PHONE, Fault, Sandbox

pytest_plugins = ["command_fixtures"]


def send(*arguments: str, env: Env, to: str = TO, content: str | bytes = CONTENT + "\n") -> Result:
    """Send one, and check that nothing printed holds what must not be seen."""
    result = invoke("send", to, *arguments, env=env, stdin=content)
    digits = "".join(re.findall(r"\d+", to))
    for hidden in filter(None, (to, digits)):
        assert hidden not in result.output
    return result


def test_an_accepted_message_prints_its_id_and_nothing_else(live: Sandbox, account: dict[str, str]) -> None:
    result = send(env=account)
    (message,) = live.messages
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"accepted: {message.message_id}\n", "")
    assert (message.to, message.content) == ("9995550100", CONTENT)


def test_an_accepted_message_as_json(live: Sandbox, account: dict[str, str]) -> None:
    result = send("--json", env=account)
    shown = json.loads(result.stdout)
    (message,) = live.messages
    assert (result.exit_code, result.stderr) == (0, "")
    assert 0 < shown.pop("elapsed") < 30  # seconds
    assert shown == {
        "status": "accepted",
        "to": "99******00",
        "cus_message_id": message.cus_message_id,
        "message_id": message.message_id,
        "attempts": 1,
        "error": None,
    }


def test_every_option_of_send_reaches_the_vendor(live: Sandbox, account: dict[str, str]) -> None:
    options = {
        "--language": "pt-BR",
        "--category": "utility",
        "--cus-message-id": "order-1",
        "--dr-webhook": "https://example.com/status",
        "--business-phone": f"+{SANDBOX_BUSINESS_PHONE}",
        "--base-url": live.url,
    }
    result = send(
        *(part for pair in options.items() for part in pair),
        env={**account, "NXOTP_BASE_URL": "https://example.invalid"},
    )
    assert result.stdout == "accepted: order-1\n"
    fields = live.messages[0].fields
    assert {name: fields[name] for name in ("language_code", "category", "cus_message_id", "dr_webhook")} == {
        "language_code": "pt_BR",
        "category": "UTILITY",
        "cus_message_id": "order-1",
        "dr_webhook": "https://example.com/status",
    }
    assert fields["business_phone"] == SANDBOX_BUSINESS_PHONE


def test_a_content_keeps_its_own_lines_and_letters(live: Sandbox, account: dict[str, str]) -> None:
    assert send(env=account, content=f"\n認証コードは\n{OTP}です。 \n\n").exit_code == 0
    assert live.messages[0].content == f"認証コードは\n{OTP}です。"


@pytest.mark.parametrize(
    ("number", "exit_code", "said"),
    [
        ("999000001002", 1, "rejected: code 1002"),
        ("999000009015", 1, "rejected: code 9015"),
        ("999100000100", 1, "rejected: code 9099"),
        ("999200000404", 1, "rejected: HTTP 404"),
        ("999000001003", 3, "rejected: code 1003"),
        ("999000001005", 3, "rejected: code 1005"),
        ("999000009005", 3, "rejected: code 9005"),
        ("999000010003", 3, "rejected: code 10003"),
        ("999200000500", 6, "unknown: HTTP 500"),
        ("999300000002", 6, "unknown: "),
        ("999300000003", 6, "unknown: HTTP 200"),
    ],
)
def test_a_failure_has_its_exit_code_and_is_told_on_stderr(
    account: dict[str, str], number: str, exit_code: int, said: str
) -> None:
    result = send(env=account, to=number)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr.startswith(said)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "exit_code", "status", "error"),
    [
        ("999000009015", 1, "rejected", {"type": "OtpContentError", "code": 9015}),
        ("999000009005", 3, "rejected", {"type": "AccountError", "code": 9005}),
        ("999200000403", 1, "rejected", {"type": "ApiError", "code": None}),
        ("999300000003", 6, "unknown", {"type": "OutcomeUnknownError", "code": None}),
    ],
)
def test_a_failure_as_json_is_on_stdout_alone(
    account: dict[str, str], number: str, exit_code: int, status: str, error: dict[str, Any]
) -> None:
    result = send("--json", env=account, to=number)
    shown = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (exit_code, "")
    assert (shown["status"], shown["message_id"], shown["attempts"]) == (status, None, 1)
    assert shown["error"].keys() == {"type", "message", "hint", "field", "code", "cus_message_id"}
    assert shown["error"]["cus_message_id"] == shown["cus_message_id"]
    assert {name: shown["error"][name] for name in error} == error


def test_a_message_that_could_not_leave_is_not_sent(account: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    # The deadline leaves no time for a second attempt.
    result = send(env={**account, "NXOTP_BASE_URL": f"http://127.0.0.1:{port}", "NXOTP_DEADLINE": "0.01"})
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("not sent: ")


@pytest.mark.parametrize("option", [(), ("--json",)], ids=["text", "json"])
def test_an_error_names_variables_and_no_arguments(account: dict[str, str], option: tuple[str, ...]) -> None:
    result = send("--deadline", "0.3", *option, env={**account, "NXOTP_BASE_URL": "http://127.0.0.1:1"})
    assert "check NXOTP_BASE_URL" in result.output
    assert "base_url" not in result.output


@pytest.mark.parametrize(
    ("arguments", "to", "content", "said"),
    [
        ((), "0555 0100", CONTENT, "'TO': starts with 0"),
        ((), "+999 555 0100 555 0100", CONTENT, "'TO': has 17 digits"),
        ((), "", CONTENT, "'TO': is empty"),
        ((), TO, "no code", "'content': holds no code"),
        ((), TO, f"{OTP} or {OTP}", "'content': holds 2 runs of 4 to 8 digits"),
        ((), "(415) 555-2671", CONTENT, "'TO': has no + before its country code"),
        (("--default-region", "GB"), "(415) 555-2671", CONTENT, "'TO': is not a valid number of GB"),
        (("--default-region", "Britain"), TO, CONTENT, "'--default-region': must be the two letters of a country"),
        (("--language", "tlh"), TO, CONTENT, "'--language': "),
        (("--category", "MARKETING"), TO, CONTENT, "'--category': must be AUTHENTICATION or UTILITY"),
        (("--cus-message-id", ""), TO, CONTENT, "'--cus-message-id': must be 1 to 128"),
        (("--dr-webhook", "example.com"), TO, CONTENT, "'--dr-webhook': must be an absolute http or https URL"),
        (("--business-phone", "0"), TO, CONTENT, "'--business-phone': starts with 0"),
    ],
)
def test_an_invalid_message_is_wrong_usage_and_names_the_option(
    live: Sandbox, account: dict[str, str], arguments: tuple[str, ...], to: str, content: str, said: str
) -> None:
    result = send(*arguments, env=account, to=to, content=content)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Error: Invalid value for {said}" in result.stderr
    assert not live.requests


@pytest.mark.parametrize("stdin", ["", " \n\n"], ids=["empty", "blank"])
def test_without_a_content_nothing_is_sent(live: Sandbox, account: dict[str, str], stdin: str) -> None:
    result = send(env=account, content=stdin)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "standard input, which is empty" in result.stderr
    assert not live.requests


def test_a_content_that_is_not_utf_8_is_wrong_usage(live: Sandbox, account: dict[str, str]) -> None:
    result = send(env=account, content=f"Votre code sécurisé: {OTP}".encode("latin-1"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: the content on standard input is not UTF-8" in result.stderr
    assert not live.requests


def test_a_content_given_as_an_argument_is_refused_and_not_repeated(live: Sandbox, account: dict[str, str]) -> None:
    result = send(CONTENT, env=account)
    assert (result.exit_code, result.stdout) == (2, "")
    assert not live.requests


@pytest.mark.parametrize("missing", [{name} for name in KEYS] + [set(KEYS)], ids=lambda names: " ".join(sorted(names)))
def test_a_missing_key_is_named_by_its_variable(live: Sandbox, account: dict[str, str], missing: set[str]) -> None:
    result = send(env={name: value for name, value in account.items() if name not in missing})
    assert (result.exit_code, result.stdout) == (3, "")
    assert set(re.findall(r"NXOTP_\w+", result.stderr)) == missing
    assert not live.requests


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NXOTP_BASE_URL", "http://example.com"),
        ("NXOTP_ACCESS_SECRET", f"{SECRET}\n"),
        ("NXOTP_TIMEOUT", "soon"),
        ("NXOTP_LANGUAGE_CODE", "tlh"),
    ],
)
def test_a_wrong_setting_is_named_by_its_variable(
    live: Sandbox, account: dict[str, str], variable: str, value: str
) -> None:
    result = send(env={**account, variable: value})
    assert (result.exit_code, result.stdout) == (3, "")
    assert variable in result.stderr
    assert not live.requests


def test_uvloop_is_not_needed(live: Sandbox, account: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert send(env=account).exit_code == 0
    assert len(live.messages) == 1


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_signal_during_a_send_tells_which_message_may_have_gone_out(
    start: Start, live: Sandbox, account: dict[str, str], number: signal.Signals, as_json: bool
) -> None:
    process = start("send", "999300000008", *["--json"] * as_json, env=account, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(CONTENT)
    process.stdin.close()
    process.stdin = None
    while not live.messages:
        assert process.poll() is None
    process.send_signal(number)
    code, stdout, stderr = finish(process)
    own_id = live.messages[0].cus_message_id
    lost = f"interrupted; message {own_id} may have been accepted"
    assert code == 130
    if as_json:
        error = {"type": "OutcomeUnknownError", "message": lost, "hint": "wait for its status callback", "field": None}
        assert json.loads(stdout) == {"error": {**error, "code": None, "cus_message_id": own_id}}
        assert stderr == ""
    else:
        assert (stdout, stderr) == ("", f"nxotp: {lost} (wait for its status callback)\n")


@posix
def test_sigterm_before_the_send_is_ctrl_c_too(start: Start, live: Sandbox) -> None:
    terminal, its_side = os.openpty()
    process = start("send", TO, stdin=its_side, env={"NXOTP_BASE_URL": live.url})
    os.close(its_side)
    read_until(process.stderr, "Access key: ")
    process.send_signal(signal.SIGTERM)
    code, stdout, stderr = finish(process)
    os.close(terminal)
    assert (code, stdout, stderr.strip()) == (130, "", "nxotp: interrupted")
    assert not live.requests


def test_the_time_limits_of_a_send_are_options(live: Sandbox, account: dict[str, str]) -> None:
    live.script(Fault.hang())
    result = send("--timeout", "0.05", env={**account, "NXOTP_TIMEOUT": "60"})
    assert (result.exit_code, "no answer within 0.05 s" in result.stderr) == (6, True)
    live.script(*[Fault.answer(-1)] * 5)
    result = send("--deadline", "0.01", env={**account, "NXOTP_DEADLINE": "60"})
    assert (result.exit_code, "the deadline of 0.01 s" in result.stderr) == (1, True)


@full_device
@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["text", "json"])
def test_a_result_that_cannot_be_printed_keeps_its_exit_code(
    live: Sandbox, account: dict[str, str], arguments: tuple[str, ...]
) -> None:
    with Path("/dev/full").open("w") as full:
        finished = subprocess.run(
            [sys.executable, "-m", "nxotp_async", "send", TO, *arguments],
            input=CONTENT,
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, **account},
            text=True,
            timeout=30,
            check=False,
        )
    assert finished.returncode == 0
    assert "cannot write to standard output: No space left on device" in finished.stderr
    assert len(live.messages) == 1


@posix
def test_at_a_terminal_everything_is_asked_for_without_echo(start: Start, live: Sandbox) -> None:
    terminal, its_side = os.openpty()
    process = start("send", TO, stdin=its_side, env={"NXOTP_BASE_URL": live.url})
    os.close(its_side)
    answers = ("sandbox-access-key", SECRET, "sandbox-appkey", CONTENT)
    for prompt, answer in zip(("Access key: ", "Access secret: ", "Appkey: ", "Content: "), answers, strict=True):
        read_until(process.stderr, prompt)
        os.write(terminal, answer.encode() + b"\n")
    assert finish(process)[:2] == (0, f"accepted: {live.messages[0].message_id}\n")
    with contextlib.suppress(OSError):  # nobody is at the other side any more, which is an error on some systems
        echoed = os.read(terminal, 10_000).decode()
        assert not any(answer in echoed for answer in answers)
    os.close(terminal)


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [(("--default-region", "us"), {}), ((), {"NXOTP_DEFAULT_REGION": "US"})],
    ids=["option", "variable"],
)
def test_a_region_tells_whose_national_number_is_meant(
    live: Sandbox, account: dict[str, str], arguments: tuple[str, ...], variables: dict[str, str]
) -> None:
    result = send(*arguments, env={**account, **variables}, to="(415) 555-2671")
    assert result.exit_code == 0
    assert live.messages[-1].to == "14155552671"
