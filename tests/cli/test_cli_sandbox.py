"""``nxotp sandbox``."""

import json
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from commands import CONTENT, KEYS, OTP, TO, Env, Start, finish, full_device, invoke, posix, read_until

from nxotp_async import ConfigurationError
from nxotp_async.cli import nxotp
from nxotp_async.sandbox import SANDBOX_BUSINESS_PHONE, CallbackPlan, Fault, FaultKind, Sandbox
from nxotp_async.settings import Settings

pytest_plugins = ["command_fixtures"]


def send(env: Env, to: str = TO) -> Result:
    return invoke("send", to, env=env, stdin=CONTENT)


@posix
def test_a_sandbox_tells_how_it_is_used_and_stops_when_asked(start: Start) -> None:
    process = start("sandbox", "--port", "0")
    said = read_until(process.stderr, "Ctrl-C stops it")
    assert process.stdout is not None
    address = process.stdout.readline()
    exported = dict(re.findall(r"export (\w+)=(\S+)", said))
    assert exported.keys() == {*KEYS, "NXOTP_BASE_URL", "NXOTP_BUSINESS_PHONE"}
    assert address == f"listening on {exported['NXOTP_BASE_URL']}\n"
    assert f"see the messages arrive: {exported['NXOTP_BASE_URL']}/\n" in said
    assert send(exported).exit_code == 0
    assert "99******00" in process.stdout.readline()  # at once
    assert send(exported, "999000009015").exit_code == 1
    assert send({**exported, "NXOTP_ACCESS_SECRET": "another"}).exit_code == 3
    process.send_signal(signal.SIGTERM)
    exit_code, out, err = finish(process)
    assert exit_code == 0
    refused, wrongly_signed = out.splitlines()
    assert refused.split("  ")[-1] == "refused with 9015, no OTP code could be extracted from content: a fault"
    assert "refused with 1003, invalid signature: the sign does not match: the access secret is wrong" in wrongly_signed
    assert "stopped; requests: 3, accepted: 1\n" in err


@posix
def test_a_sandbox_prints_the_codes_and_no_number(start: Start) -> None:
    process = start("sandbox", "--port", "0", "--until-eof", stdin=subprocess.PIPE)
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    sent = send({**KEYS, "NXOTP_BASE_URL": url})
    line = process.stdout.readline()
    assert re.fullmatch(rf"\d\d:\d\d:\d\d  99\*{{6}}00       {OTP}  accepted as {sent.stdout.split()[-1]}\n", line)
    assert finish(process)[:2] == (0, "")


@posix
@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_a_sandbox_prints_no_requests_where_it_shall_not(start: Start, option: str) -> None:
    process = start("sandbox", "--port", "0", "--until-eof", option, stdin=subprocess.PIPE)
    assert process.stdout is not None
    url = re.findall(r"http:[^\s\"]+", process.stdout.readline())[0]
    assert send({**KEYS, "NXOTP_BASE_URL": url}).exit_code == 0
    assert finish(process)[:2] == (0, "")


@posix
def test_a_sandbox_whose_reader_has_gone_goes_on_serving(start: Start) -> None:
    process = start("sandbox", "--port", "0", "--until-eof", stdin=subprocess.PIPE)
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    process.stdout.close()
    for _ in range(3):
        assert send({**KEYS, "NXOTP_BASE_URL": url}).exit_code == 0
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 0
    assert process.stderr is not None
    said = process.stderr.read()
    assert said.count("requests are not printed any more") == 1
    assert "stopped; requests: 3, accepted: 3" in said


@posix
def test_a_sandbox_on_all_addresses_says_what_that_means(start: Start) -> None:
    process = start("sandbox", "--port", "0", "--host", "0.0.0.0", "--until-eof", stdin=subprocess.PIPE)
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    assert url.startswith("http://127.0.0.1:")
    assert send({**KEYS, "NXOTP_BASE_URL": url}).exit_code == 0
    _, _, said = finish(process)
    port = url.rpartition(":")[2]
    assert "it listens on all addresses of this machine: whoever reaches one can use it" in said
    assert f"set NXOTP_BASE_URL=http://NAME:{port} and NXOTP_INSECURE_SANDBOX_HOST=NAME\n" in said
    assert f'eval "$(nxotp sandbox --env --port {port})"\n' in said
    assert re.search(rf"see the messages arrive: {url}/\?token=[\w-]{{24}}\n", said)


@posix
def test_a_sandbox_says_why_nothing_is_pushed(start: Start) -> None:
    process = start("sandbox", "--port", "0", "--callbacks", "--until-eof", stdin=subprocess.PIPE)
    assert process.stdout is not None
    env = {**KEYS, "NXOTP_BASE_URL": process.stdout.readline().split()[-1]}
    send(env)
    send({**env, "NXOTP_DR_WEBHOOK": "http://app:8000/"})
    lines = finish(process)[1].splitlines()
    assert lines[0].endswith("; no callbacks, because it has no dr_webhook, and there is no --webhook")
    assert "; no callbacks, because its dr_webhook is not loopback: --callback-host allows its host" in lines[1]


# ---------------------------------------------------------------------------------------------- its variables


def variables(*arguments: str) -> dict[str, str]:
    """Let a shell set what the command prints, and return the variables that were set."""
    shown = printed("sandbox", "--env", *arguments)
    shell = subprocess.run(
        ["sh", "-c", 'eval "$1"; env', "sh", shown], capture_output=True, text=True, check=True, env={}, timeout=30
    )
    return {name: value for name, _, value in (line.partition("=") for line in shell.stdout.splitlines())}


def printed(*arguments: str) -> str:
    """Return what the command prints; `invoke` would not let the sandbox's secret pass."""
    result = CliRunner().invoke(nxotp, arguments, prog_name="nxotp")
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


@posix
@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        ((), "http://127.0.0.1:8099"),
        (("--port", "8100"), "http://127.0.0.1:8100"),
        (("--host", "0.0.0.0"), "http://127.0.0.1:8099"),
        (("--host", "::"), "http://[::1]:8099"),
        (("--host", "localhost"), "http://localhost:8099"),
    ],
    ids=str,
)
def test_a_shell_can_set_the_variables_of_a_sandbox(arguments: tuple[str, ...], url: str) -> None:
    expected = {**KEYS, "NXOTP_BASE_URL": url, "NXOTP_BUSINESS_PHONE": SANDBOX_BUSINESS_PHONE}
    given = variables(*arguments)
    assert {name: value for name, value in given.items() if name.startswith("NXOTP_")} == expected
    assert Settings.resolve({}, given).base_url == url


@posix
def test_the_variables_of_a_sandbox_elsewhere_let_plain_http_go_there() -> None:
    given = variables("--host", "sandbox")
    assert given["NXOTP_INSECURE_SANDBOX_HOST"] == "sandbox"
    assert Settings.resolve({}, given).url == "http://sandbox:8099/api/wa/otp"


@posix
def test_a_variable_is_one_word_for_the_shell(tmp_path: Path) -> None:
    given = variables("--host", f"x$(touch {tmp_path}/made)")
    assert given["NXOTP_BASE_URL"].startswith("http://x$(touch")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("numbers", [(), ("--business-phone", "99955500001")], ids=str)
def test_the_variables_are_those_of_a_sandbox_with_the_same_options(numbers: tuple[str, ...], start: Start) -> None:
    arguments = ("sandbox", "--port", "0", "--token", "a b", "--until-eof", *numbers)
    process = start(*arguments, stdin=subprocess.PIPE)
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    said = finish(process)[2].replace("  export", "export")
    options = ("sandbox", "--env", "--port", url.rpartition(":")[2], *numbers)
    assert printed(*options) in said
    assert f'eval "$(nxotp {" ".join(options)})"\n' in said
    assert f"see the messages arrive: {url}/?token=a+b\n" in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--env", "--port", "0"), "--env needs the --port"),
        (("--env", "--json"), "choose one"),
        (("--webhook", "http://app:8000/callbacks"), "add --callback-host app"),
        (("--webhook", "https://example.com/x"), "callbacks go to loopback only, and nothing would be pushed there"),
        (("--webhook", "http://app/", "--callback-host", "other"), "add --callback-host app"),
        (("--callback-host", "http://app"), "name of a host without a scheme and a port"),
        (("--fault", "http:503"), "--fault needs a --fault-rate"),
        (("--callback-delay", "1"), "--callback-delay needs --callbacks or --webhook"),
        (("--new-connections",), "--new-connections needs --callbacks or --webhook"),
        (("--sender-limit", "0"), "--sender-limit"),
        (("--recipient-interval", "0"), "--recipient-interval"),
        (("--callback-cost", "free"), "--callback-cost"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_would_not_work_is_refused_at_the_start(arguments: tuple[str, ...], told: str) -> None:
    result = invoke("sandbox", *arguments)
    assert result.exit_code == 2
    assert told in " ".join((result.stdout if "--json" in arguments else result.stderr).split())


def test_the_options_make_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    def make(**options: Any) -> Sandbox:
        made.append(options)
        raise ConfigurationError("that is enough")

    monkeypatch.setattr("nxotp_async.cli.sandbox.Sandbox", make)
    options = ("--callback-host", "App", "--callback-delay", "2", "--failed-rate", "0.5", "--unsigned-callbacks")
    invoke("sandbox", "--webhook", "http://app:8000/", *options, "--new-connections", "--callback-cost", "costs")
    invoke("sandbox", "--callbacks", "--sender-limit", "80", "--recipient-interval", "6")
    invoke("sandbox")
    invoke("sandbox", "--code-life", "60", env={"NXOTP_SANDBOX_TOKEN": "my own token"})
    assert made[0]["callbacks"] == CallbackPlan(
        webhook="http://app:8000/",
        hosts=("app",),
        delay=2,
        failed=0.5,
        signed=False,
        reuse_connections=False,
        cost="costs",
    )
    assert made[1]["callbacks"] == CallbackPlan(hosts=())
    assert (made[1]["sender_limit"], made[1]["recipient_interval"]) == (80, 6)
    assert (made[2]["callbacks"], made[2]["sender_limit"], made[2]["recipient_interval"]) == (None, None, None)
    assert (made[2]["token"], made[2]["code_life"]) == (None, 300)
    assert (made[3]["token"], made[3]["code_life"]) == ("my own token", 60)


def test_a_sandbox_can_end_with_its_input(start: Start) -> None:
    options = ("--until-eof", "--fault-rate", "1", "--fault", "truncated", "--made-up-ids", "--clock-offset", "30")
    process = start("sandbox", "--port", "0", "--json", *options, stdin=subprocess.PIPE)
    assert process.stdout is not None
    shown = json.loads(process.stdout.readline())
    assert shown.keys() == {"url"}
    assert send({**KEYS, "NXOTP_BASE_URL": shown["url"]}).exit_code == 6
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


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b", "x" * 70], ids=["not ours", "no name", "too long"])
def test_a_host_that_cannot_be_listened_on_is_told_in_one_line(host: str) -> None:
    result = invoke("sandbox", "--host", host, "--port", "0")
    assert (result.exit_code, result.stdout) == (3, "")
    assert re.fullmatch(rf"nxotp: cannot listen on {re.escape(host)}:0: .+\n", result.stderr)


@full_device
def test_a_sandbox_whose_url_cannot_be_printed_does_not_run(start: Start) -> None:
    with Path("/dev/full").open("w") as full:
        code, _, err = finish(start("sandbox", "--port", "0", "--json", stdout=full))
    assert (code, err) == (2, "nxotp: cannot write to standard output: No space left on device\n")


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
    assert options_of_sandbox("--fault", spelling)["faults"] == (fault,)


def test_every_kind_of_fault_can_be_asked_for() -> None:
    assert {fault.kind for fault in SPELLINGS.values()} | {FaultKind.NONE} == set(FaultKind)


def test_several_faults_can_be_asked_for() -> None:
    assert options_of_sandbox("--fault", "-1", "--fault=hang")["faults"] == (Fault.answer(-1), Fault.hang())


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
        ("--webhook", "nowhere"),
        ("extra",),
    ],
    ids=" ".join,
)
def test_a_sandbox_refuses_wrong_usage(arguments: tuple[str, ...]) -> None:
    result = invoke("sandbox", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize("option", ["--latency", "--fault-rate", "--callback-delay", "--failed-rate", "--clock-offset"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_the_sandbox_refuses_what_is_no_finite_number(monkeypatch: pytest.MonkeyPatch, option: str, value: str) -> None:
    monkeypatch.setattr("nxotp_async.cli.sandbox.run", None)
    result = invoke("sandbox", option, value)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}': {value} is n" in result.stderr
