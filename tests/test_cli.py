import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, Any

import click
import pytest
from click.testing import CliRunner, Result

from nxotp_async import __main__, __version__
from nxotp_async.cli import nxotp
from nxotp_async.sandbox import MAGIC_RECIPIENTS, SANDBOX_BUSINESS_PHONE, Fault, FaultKind, Sandbox
from nxotp_async.testing import serve_in_thread

COMMANDS = ("bench", "bulk", "demo", "doctor", "listen", "sandbox", "send", "sign")
TO = "+999 555 0100"
CONTENT = "Your code is 482913"
SECRET = "sandbox-access-secret"
KEYS = {
    "NXOTP_ACCESS_KEY": "sandbox-access-key",
    "NXOTP_ACCESS_SECRET": SECRET,
    "NXOTP_APPKEY": "sandbox-appkey",
}

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals as POSIX has them")


@pytest.fixture
def live() -> Iterator[Sandbox]:
    """A sandbox beside the test, for commands that run a loop of their own."""
    with serve_in_thread(Sandbox()) as sandbox:
        yield sandbox


@pytest.fixture
def account(live: Sandbox) -> dict[str, str]:
    """The variables that lead to the live sandbox."""
    return {**KEYS, "NXOTP_BASE_URL": live.url}


def invoke(*arguments: str, env: dict[str, str] | None = None, stdin: str | bytes = "") -> Result:
    result = CliRunner().invoke(nxotp, arguments, input=stdin, env=env, prog_name="nxotp")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command as a process of its own, in a process group of its own, and leave none of it behind."""
    with contextlib.ExitStack() as stack:
        # A shell has its background jobs ignore Ctrl-C, and what they start would ignore it too.
        stack.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))

        def start(*arguments: str, env: dict[str, str] | None = None, stdin: int = subprocess.DEVNULL) -> Any:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "nxotp_async", *arguments],
                    env={**os.environ, **(env or {})},
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    encoding="utf-8",
                    errors="replace",
                    start_new_session=True,
                )
            )
            watchdog = threading.Timer(60, end_group, [process.pid])
            watchdog.start()
            stack.callback(watchdog.cancel)
            stack.callback(end_group, process.pid)
            return process

        yield start


def end_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def read_until(stream: IO[str] | None, pattern: str) -> str:
    """Read no further than to the first match."""
    assert stream is not None
    text = ""
    while not re.search(pattern, text):
        char = stream.read(1)
        assert char, f"it ended, having said {text!r}"
        text += char
    return text


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Close the process's input, and wait until everybody who could still write to its outputs has ended."""
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


# ---------------------------------------------------------------------------------------------- the command as such


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda command: " ".join(command) or "-")
def test_help_is_to_be_had_everywhere(command: tuple[str, ...], flag: str) -> None:
    result = invoke(*command, flag)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: {' '.join(('nxotp', *command))} ")
    assert result.stderr == ""


def test_the_first_help_tells_what_one_needs_to_begin() -> None:
    text = " ".join(invoke("--help").stdout.split())
    for name in (*KEYS, "NXOTP_BASE_URL", *(f"nxotp {name}" for name in ("demo", "send", "sign")), *COMMANDS):
        assert name in text
    for meaning in ("0 accepted", "1 rejected", "2 wrong usage", "3 configuration", "6 unknown", "130 interrupted"):
        assert meaning in text


def test_every_option_explains_itself() -> None:
    assert sorted(nxotp.commands) == sorted(COMMANDS)
    bulk = nxotp.commands["bulk"]
    assert isinstance(bulk, click.Group)
    for command in (*nxotp.commands.values(), *bulk.commands.values()):
        assert command.help
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, (command.name, parameter.name)


@pytest.mark.parametrize(
    ("command", "example"),
    [
        ((), r"Try it without an account: +nxotp demo"),
        ((), r'Send one: +nxotp send "\+999 555 0100"'),
        (("send",), r'echo "Your code is 482913" \| nxotp send "\+999 555 0100"'),
    ],
)
def test_an_example_in_the_help_has_a_line_of_its_own(command: tuple[str, ...], example: str) -> None:
    assert re.search(rf"^ *{example}$", invoke(*command, "--help").stdout, re.MULTILINE)


def test_the_magic_numbers_in_the_help_are_magic() -> None:
    numbers = re.findall(r"\b999\d{9}\b", invoke("sandbox", "--help").stdout)
    assert len(numbers) >= 4
    assert set(numbers) <= MAGIC_RECIPIENTS.keys()


def test_the_version_is_the_packages() -> None:
    assert invoke("--version").stdout == f"nxotp, version {__version__}\n"


def test_an_unknown_command_is_wrong_usage() -> None:
    assert invoke("sned").exit_code == 2


def test_wrong_usage_has_its_exit_code_outside_of_tests_too() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "nxotp_async", "demo", "--count", "x"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert finished.returncode == 2
    assert "Invalid value for '--count'" in finished.stderr


def test_the_command_is_installed_under_its_name() -> None:
    (script,) = entry_points(group="console_scripts", name="nxotp")
    assert script.load() is __main__.main


WITHOUT_A_MODULE = """
import runpy, sys

class Missing:
    def find_spec(name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing)
runpy.run_module("nxotp_async", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["click", "rich"])
def test_without_its_extra_the_command_says_what_to_install(module: str) -> None:
    program = [sys.executable, "-c", WITHOUT_A_MODULE, module]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(rf'{module} is not installed: .*pip install "nxotp_async\[cli\]"\n', done.stderr)


def test_another_module_that_is_missing_is_not_explained_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nxotp_async.cli", None)
    with pytest.raises(ModuleNotFoundError, match=r"nxotp_async\.cli"):
        __main__.main()


# ---------------------------------------------------------------------------------------------- send


def send(*arguments: str, env: dict[str, str], to: str = TO, content: str | bytes = CONTENT + "\n") -> Result:
    """Send one, and check that nothing printed holds what must not be seen."""
    result = invoke("send", to, *arguments, env=env, stdin=content)
    digits = "".join(re.findall(r"\d+", to))
    for hidden in filter(None, (to, digits, "482913", SECRET)):
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
    assert shown.pop("elapsed_ms") > 0
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
    assert send(env=account, content="\n認証コードは\n482913です。 \n\n").exit_code == 0
    assert live.messages[0].content == "認証コードは\n482913です。"


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
    assert shown["error"].pop("message")
    assert shown["error"] == error


def test_a_message_that_could_not_leave_is_not_sent(account: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    # The deadline leaves no time for a second attempt.
    result = send(env={**account, "NXOTP_BASE_URL": f"http://127.0.0.1:{port}", "NXOTP_DEADLINE": "0.01"})
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("not_sent: ")


@pytest.mark.parametrize(
    ("arguments", "to", "content", "field"),
    [
        ((), "0555 0100", CONTENT, "to"),
        ((), "+999 555 0100 555 0100", CONTENT, "to"),
        ((), "", CONTENT, "to"),
        ((), TO, "no code", "content"),
        ((), TO, "482913 or 482914", "content"),
        (("--language", "tlh"), TO, CONTENT, "tlh"),
        (("--category", "MARKETING"), TO, CONTENT, "category"),
        (("--cus-message-id", ""), TO, CONTENT, "cus_message_id"),
        (("--dr-webhook", "example.com"), TO, CONTENT, "dr_webhook"),
        (("--business-phone", "0"), TO, CONTENT, "business_phone"),
    ],
)
def test_a_message_that_is_none_is_wrong_usage_and_names_the_field(
    live: Sandbox, account: dict[str, str], arguments: tuple[str, ...], to: str, content: str, field: str
) -> None:
    result = send(*arguments, env=account, to=to, content=content)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("nxotp: ")
    assert field in result.stderr
    assert not live.requests


@pytest.mark.parametrize("stdin", ["", " \n\n"], ids=["empty", "blank"])
def test_without_a_content_nothing_is_sent(live: Sandbox, account: dict[str, str], stdin: str) -> None:
    result = send(env=account, content=stdin)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "standard input, which is empty" in result.stderr
    assert not live.requests


def test_a_content_that_is_not_utf_8_is_wrong_usage(live: Sandbox, account: dict[str, str]) -> None:
    result = send(env=account, content="Votre code sécurisé: 482913".encode("latin-1"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("nxotp: ")
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
def test_ctrl_c_during_a_send_tells_which_message_may_have_gone_out(
    start: Start, live: Sandbox, account: dict[str, str]
) -> None:
    process = start("send", "999300000008", env=account, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(CONTENT)
    process.stdin.close()
    process.stdin = None
    while not live.messages:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    code, stdout, stderr = finish(process)
    assert (code, stdout) == (130, "")
    assert f"message {live.messages[0].cus_message_id} may have been accepted" in stderr


@posix
@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["text", "json"])
def test_a_result_that_cannot_be_printed_keeps_its_exit_code(
    live: Sandbox, account: dict[str, str], arguments: tuple[str, ...]
) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
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


# ---------------------------------------------------------------------------------------------- sign

VENDOR_KEYS = {"NXOTP_ACCESS_KEY": "fme2na3kdi3ki", "NXOTP_ACCESS_SECRET": "abciiiko2k3"}
VENDOR_OPTIONS = ("--action", "send", "--biz-type", "1", "--ts", "1655710885431")
VENDOR_VECTORS = [
    ('{"name":"牛小信","id":10001}', "87c3560d3331ae23f1021e2025722354"),
    ('{"id":10001,"name":"牛小信"}', "7750759da06333f20d0640be09355e34"),
    ('{"id": 10001, "name": "牛小信"}', "d0c24a9886c629330d7f3f2056c65bc2"),
]
BODY = json.dumps(
    {
        "appkey": "sandbox-appkey",
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "9995550100",
        "language_code": "en",
        "content": CONTENT,
        "cus_message_id": "order-1",
    }
)


SignBody = Callable[..., Result]


@pytest.fixture
def sign_body(tmp_path: Path) -> SignBody:
    """Sign a body that is in a file."""
    file = tmp_path / "the body.json"

    def sign_body(body: str | bytes, *options: str, env: dict[str, str] = KEYS) -> Result:
        file.write_bytes(body if isinstance(body, bytes) else body.encode())
        return invoke("sign", str(file), *options, env=env)

    return sign_body


@pytest.mark.parametrize(("body", "signature"), VENDOR_VECTORS)
def test_sign_agrees_with_the_vendors_examples(sign_body: SignBody, body: str, signature: str) -> None:
    as_text = sign_body(body, *VENDOR_OPTIONS, env=VENDOR_KEYS)
    as_json = sign_body(body, *VENDOR_OPTIONS, "--json", env=VENDOR_KEYS)
    assert (as_text.exit_code, as_json.exit_code) == (0, 0)
    assert f"\nsign: {signature}\n" in as_text.stdout
    assert json.loads(as_json.stdout)["sign"] == signature


@pytest.mark.parametrize(("body", "signature"), VENDOR_VECTORS)
def test_sign_reads_standard_input_too(body: str, signature: str) -> None:
    result = invoke("sign", "-", *VENDOR_OPTIONS, env=VENDOR_KEYS, stdin=body)
    assert f"\nsign: {signature}\n" in result.stdout


def test_sign_shows_the_signed_text_without_secret_and_digits(sign_body: SignBody) -> None:
    result = sign_body(VENDOR_VECTORS[0][0], *VENDOR_OPTIONS, env=VENDOR_KEYS)
    assert result.stdout.splitlines()[0] == (
        "signed text: accessKey=fme2na3kdi3ki&action=send&bizType=1&ts=1655710885431"
        '&body={"name":"牛小信","id":*****}&accessSecret=***'
    )


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_sign_hides_number_code_and_secret_and_reveals_all_but_the_secret(
    sign_body: SignBody, form: tuple[str, ...]
) -> None:
    hidden, revealed = sign_body(BODY, *form), sign_body(BODY, "--reveal", *form)
    assert (hidden.exit_code, revealed.exit_code) == (0, 0)
    for digits in ("9995550100", "482913"):
        assert digits not in hidden.output
        assert digits in revealed.stdout
    for result in (hidden, revealed):
        assert SECRET not in result.output


def test_sign_hides_a_number_with_punctuation_too(sign_body: SignBody) -> None:
    result = sign_body('{"to": "+999 555 0100"}')
    shown_body = result.stdout.partition("&body=")[2].partition("&accessSecret")[0]
    assert shown_body.startswith('{"to": ')
    assert not re.search("999|555|0100", shown_body)


def test_sign_shows_what_cannot_be_seen(sign_body: SignBody) -> None:
    result = sign_body(b'{\r\n\t"a": "\x1b[2J\xc2\xa0\xe2\x80\x8b\xff"}', "--reveal")
    assert r'&body={\r\n\t"a": "\x1b[2J\xa0\u200b' in result.stdout.splitlines()[0]
    assert "\x1b" not in result.stdout


def test_sign_as_json_has_everything_a_request_needs(sign_body: SignBody) -> None:
    shown = json.loads(sign_body(BODY, "--json", "--ts", "1800000000000").stdout)
    assert shown.keys() == {"signed_text", "sign", "ts", "headers", "curl"}
    assert shown["ts"] == 1800000000000
    assert shown["headers"] == {
        "accessKey": "sandbox-access-key",
        "ts": "1800000000000",
        "bizType": "2",
        "action": "mt",
        "sign": shown["sign"],
        "Content-Type": "application/json",
    }


def curl_of(result: Result) -> list[str]:
    return shlex.split(result.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("options", "env", "host"),
    [
        ((), {}, "https://api2.nxcloud.com"),
        ((), {"NXOTP_BASE_URL": "https://example.com/"}, "https://example.com"),
        (("--base-url", "https://example.org"), {"NXOTP_BASE_URL": "https://example.com"}, "https://example.org"),
    ],
    ids=["default", "variable", "option"],
)
def test_the_curl_line_goes_to_the_base_url(
    sign_body: SignBody, options: tuple[str, ...], env: dict[str, str], host: str
) -> None:
    assert curl_of(sign_body(BODY, *options, env={**KEYS, **env}))[:2] == ["curl", f"{host}/api/wa/otp"]


@pytest.mark.parametrize("body", [BODY, BODY + "\n"], ids=["as it is", "with a newline at its end"])
@pytest.mark.parametrize("source", ["file", "stdin"])
def test_the_curl_line_sends_what_was_signed(
    live: Sandbox, account: dict[str, str], sign_body: SignBody, source: str, body: str
) -> None:
    signed = sign_body(body, env=account) if source == "file" else invoke("sign", "-", env=account, stdin=body)
    answer = run_curl(curl_of(signed), body.encode())
    assert json.loads(answer)["code"] == 0
    assert live.messages[0].body == body.encode()


def run_curl(line: list[str], stdin: bytes) -> bytes:
    """Run the line, or do what curl would where there is none."""
    program, url, option, source, *options = line
    assert (program, option, source[0]) == ("curl", "--data-binary", "@")
    if shutil.which(program):
        line = [*line, "--silent", "--show-error", "--noproxy", "*", "--max-time", "10"]
        return subprocess.run(line, input=stdin, capture_output=True, timeout=30, check=True).stdout
    assert options[::2] == ["-H"] * (len(options) // 2)
    headers = dict(header.split(": ", 1) for header in options[1::2])
    body = stdin if source == "@-" else Path(source[1:]).read_bytes()
    host, _, path = url.removeprefix("http://").partition("/")
    with contextlib.closing(HTTPConnection(host, timeout=10)) as connection:
        connection.request("POST", f"/{path}", body, headers)
        return connection.getresponse().read()


def test_sign_notes_a_newline_at_the_end(sign_body: SignBody) -> None:
    assert sign_body(BODY).stderr == ""
    noted = sign_body(BODY + "\n")
    assert noted.exit_code == 0
    assert "ends with a newline" in noted.stderr
    assert noted.stdout.splitlines()[0].endswith(r"}\n&accessSecret=***")


def test_sign_leaves_the_body_out_where_it_is_empty(sign_body: SignBody) -> None:
    assert "&ts=1655710885431&accessSecret=***\n" in sign_body("", *VENDOR_OPTIONS, env=VENDOR_KEYS).stdout


@pytest.mark.parametrize("given", [{}, *({name: value} for name, value in VENDOR_KEYS.items())], ids=str)
def test_sign_without_its_keys_names_them(sign_body: SignBody, given: dict[str, str]) -> None:
    result = sign_body(BODY, env=given)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.count("\n") == 1
    for name in VENDOR_KEYS:
        assert name in result.stderr


@pytest.mark.parametrize("arguments", [(), ("no-such-file.json",), ("-", "--ts", "now")], ids=str)
def test_sign_refuses_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = invoke("sign", *arguments, env=KEYS)
    assert (result.exit_code, result.stdout) == (2, "")


# ---------------------------------------------------------------------------------------------- sandbox


@posix
def test_a_sandbox_tells_how_it_is_used_and_stops_when_asked(start: Start) -> None:
    process = start("sandbox", "--port", "0")
    said = read_until(process.stderr, "Ctrl-C stops it")
    assert process.stdout is not None
    address = process.stdout.readline()
    exported = dict(re.findall(r"export (\w+)=(\S+)", said))
    assert exported.keys() == {*KEYS, "NXOTP_BASE_URL", "NXOTP_BUSINESS_PHONE"}
    assert address == f"listening on {exported['NXOTP_BASE_URL']}\n"
    assert send(env=exported).exit_code == 0
    assert send(env=exported, to="999000009015").exit_code == 1
    process.send_signal(signal.SIGTERM)
    exit_code, out, err = finish(process)
    assert (exit_code, out) == (0, "")
    assert "stopped; requests: 2, accepted: 1" in err


def test_a_sandbox_can_end_with_its_input(start: Start) -> None:
    options = ("--until-eof", "--fault-rate", "1", "--fault", "truncated", "--made-up-ids", "--clock-offset", "30")
    process = start("sandbox", "--port", "0", "--json", *options, stdin=subprocess.PIPE)
    assert process.stdout is not None
    shown = json.loads(process.stdout.readline())
    assert shown.keys() == {"url"}
    assert send(env={**KEYS, "NXOTP_BASE_URL": shown["url"]}).exit_code == 6
    assert finish(process) == (0, "", "")


def test_a_sandbox_ends_at_once_where_there_is_no_input(start: Start) -> None:
    exit_code, out, err = finish(start("sandbox", "--port", "0", "--json", "--until-eof", stdin=subprocess.DEVNULL))
    assert (exit_code, err) == (0, "")
    assert json.loads(out).keys() == {"url"}


def test_a_taken_port_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = invoke("sandbox", "--port", str(port))
    assert (result.exit_code, result.stdout) == (3, "")
    assert re.fullmatch(rf"nxotp: cannot listen on 127\.0\.0\.1:{port}: .*in use.*\n", result.stderr)


def options_of_sandbox(*arguments: str) -> dict[str, Any]:
    return nxotp.commands["sandbox"].make_context("sandbox", list(arguments)).params


SPELLINGS = {
    "-1": Fault.answer(-1),
    "9001": Fault.answer(9001),
    "meta:131056": Fault.meta(131056),
    "http:503": Fault.http(503),
    "disconnect-before-reading": Fault.disconnect_before_reading(),
    "disconnect-after-reading": Fault.disconnect_after_reading(),
    "truncated": Fault.truncated(),
    "wrong-types": Fault.wrong_types(),
    "without-id": Fault.without_id(),
    "drip": Fault.drip(),
    "huge": Fault.huge(),
    "hang": Fault.hang(),
}


@pytest.mark.parametrize(("spelling", "fault"), SPELLINGS.items())
def test_a_fault_is_written_as_the_help_says(spelling: str, fault: Fault) -> None:
    assert options_of_sandbox("--fault", spelling)["faults"] == [fault]


def test_every_kind_of_fault_can_be_asked_for() -> None:
    assert {fault.kind for fault in SPELLINGS.values()} | {FaultKind.NONE} == set(FaultKind)


def test_several_faults_can_be_asked_for() -> None:
    assert options_of_sandbox("--fault", "-1", "--fault=hang")["faults"] == [Fault.answer(-1), Fault.hang()]


@pytest.mark.parametrize(
    "fault", ["timeout", "", "meta:", "meta:x", "http:", "http:teapot", "disconnect_after_reading"]
)
def test_a_fault_there_is_not_is_refused_with_those_there_are(fault: str) -> None:
    result = invoke("sandbox", "--fault", fault)
    assert (result.exit_code, result.stdout) == (2, "")
    choices = " ".join(result.stderr.split())
    assert "--fault" in choices
    for spelling in SPELLINGS:
        assert spelling.partition(":")[0] in choices.replace("(-1)", "-1 9001")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--port", "65536"),
        ("--port", "-1"),
        ("--fault-rate", "1.5"),
        ("--latency", "-1"),
        ("--clock-offset", "now"),
        ("--seed", "x"),
        ("extra",),
    ],
    ids=" ".join,
)
def test_a_sandbox_refuses_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = invoke("sandbox", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


# ---------------------------------------------------------------------------------------------- demo


def test_a_demo_as_json_is_a_report_and_nothing_else(start: Start) -> None:
    exit_code, out, err = finish(start("demo", "--count", "50", "--json"))
    report = json.loads(out)
    assert (exit_code, err) == (0, "")
    summary = report.pop("summary")
    assert summary["total"] == summary["accepted"] + summary["rejected"] == 50
    assert report.keys() == {"failures", "seconds", "p50", "p99", "pairs", "problems", "throughput"}
    assert report["problems"] == []
    assert report["throughput"] == pytest.approx(50 / report["seconds"], abs=0.1)


@pytest.fixture
def people(tmp_path: Path) -> Callable[..., str]:
    def write(*numbers: str) -> str:
        file = tmp_path / "people.csv"
        file.write_text("to,content\n" + "".join(f"{number},482913\n" for number in numbers), "utf-8")
        return str(file)

    return write


def test_a_demo_prints_a_report(people: Callable[..., str]) -> None:
    recipients = people("+999 555 0100", "999000009005")
    result = invoke("demo", "--count", "5", "--fault-rate", "0", "--recipients", recipients)
    figures = dict(re.findall(r"│ (\S.*?) +│ +(\S+)", result.stdout))
    assert (result.exit_code, result.stderr) == (0, "")
    assert "5 OTPs in" in result.stdout
    assert {name: figures[name] for name in ("accepted", "rejected", "requests made", "failed with 9005")} == {
        "accepted": "3",
        "rejected": "2",
        "requests made": "5",
        "failed with 9005": "2",
    }
    assert len(re.findall(r"│ [0-9a-f]{32} │ wamid\.\S+ │", result.stdout)) == 3


def test_a_demo_with_a_problem_fails(people: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def miscounted(_: str) -> int:
        return 2

    monkeypatch.setattr("nxotp_async.demo._count_accepted", miscounted)
    result = invoke("demo", "--count", "1", "--fault-rate", "0", "--json", "--recipients", people("+999 555 0100"))
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)["problems"]) == 1
    assert "nxotp: 1 were reported as accepted, but the sandbox accepted 2" in " ".join(result.stderr.split())


def test_a_demo_whose_answer_is_lost_is_no_problem(people: Callable[..., str]) -> None:
    # The sandbox counts the message, and its outcome is truthfully unknown.
    result = invoke("demo", "--count", "1", "--fault-rate", "0", "--json", "--recipients", people("999300000002"))
    assert result.exit_code == 0
    assert json.loads(result.stdout)["summary"]["unknown"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--count", "0"),
        ("--count", "1000001"),
        ("--count", "many"),
        ("--concurrency", "0"),
        ("--fault-rate", "-0.1"),
        ("--fault-rate", "1.1"),
        ("--fault-rate", "nan"),
        ("--seed", "x"),
        ("--recipients", "no-such-file.csv"),
        ("--recipients", "."),
        ("extra",),
    ],
    ids=" ".join,
)
def test_a_demo_refuses_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = invoke("demo", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: nxotp demo ")


def test_a_demo_with_bad_recipients_names_the_line(people: Callable[..., str]) -> None:
    result = invoke("demo", "--recipients", people("+999 555 0100", "0555 0100"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"nxotp: people\.csv, line 3: to starts with 0.*\n", result.stderr)


@posix
def test_a_demo_whose_sandbox_does_not_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    result = invoke("demo", "--count", "1")
    assert (result.exit_code != 0, result.stdout) == (True, "")
    assert re.fullmatch("nxotp: the sandbox process did not start.*\n", result.stderr)


def a_demo_at_work(start: Start) -> "subprocess.Popen[str]":
    """Start a long demo, and return when it has had answers. Its progress is shown as at a terminal."""
    process = start("demo", "--count", "1000000", "--fault-rate", "0", env={"FORCE_COLOR": "1", "COLUMNS": "100"})
    read_until(process.stderr, "accepted [1-9]")
    return process


@posix
@pytest.mark.parametrize("interrupt", [os.kill, os.killpg], ids=["itself", "its group, as a terminal does"])
def test_ctrl_c_ends_a_demo_and_its_sandbox(start: Start, interrupt: Callable[[int, int], None]) -> None:
    process = a_demo_at_work(start)
    interrupt(process.pid, signal.SIGINT)
    exit_code, out, err = finish(process)
    assert (exit_code, out) == (130, "")
    assert "nxotp: interrupted" in err
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):  # its group is empty
        os.killpg(process.pid, 0)


@posix
def test_a_demo_that_is_killed_takes_its_sandbox_along(start: Start) -> None:
    process = a_demo_at_work(start)
    process.kill()
    # The sandbox has the same stderr, which ends when the last of the two has.
    exit_code, _, err = finish(process)
    assert exit_code == -signal.SIGKILL
    assert "Traceback" not in err
