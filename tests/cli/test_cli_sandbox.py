"""``nxotp sandbox``."""

import json
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from commands import CONTENT, KEYS, TO, Env, Start, finish, full_device, invoke, posix, read_until

from nxotp_async.cli import nxotp
from nxotp_async.sandbox import Fault, FaultKind

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
    assert send(exported).exit_code == 0
    assert send(exported, "999000009015").exit_code == 1
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
