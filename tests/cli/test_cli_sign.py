"""``nxotp sign``."""

import contextlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import pytest
from click.testing import Result
from commands import CONTENT, KEYS, OTP, SECRET, invoke

from nxotp_async.sandbox import Sandbox

pytest_plugins = ["command_fixtures"]


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
    for digits in ("9995550100", OTP):
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
    assert set(re.findall(r"NXOTP_\w+", result.stderr)) == VENDOR_KEYS.keys() - given.keys()


@pytest.mark.parametrize("arguments", [(), ("no-such-file.json",), ("-", "--ts", "now")], ids=str)
def test_sign_refuses_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = invoke("sign", *arguments, env=KEYS)
    assert (result.exit_code, result.stdout) == (2, "")
