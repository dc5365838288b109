"""The examples of a fleet, with containers and under systemd: their commands and variables work together."""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from example_programs import EXAMPLES

from nxotp_async.cli import nxotp
from nxotp_async.cli.exit_codes import ExitCode
from nxotp_async.fleet import Outbox
from nxotp_async.sandbox import Sandbox, sandbox_client
from nxotp_async.sandbox.account import client_settings, environ_of
from nxotp_async.testing import serve_in_thread

ROOT = EXAMPLES.parent
UNIT = EXAMPLES / "fleet" / "nxotp-worker.service"


def loaded(path: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the group docs")
    content: dict[str, Any] = yaml.safe_load((EXAMPLES / path).read_text(encoding="utf-8"))["services"]
    return content


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return loaded("fleet/compose.yaml")


@pytest.fixture(scope="module")
def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # systemd's names have capitals
    parser.read(UNIT, encoding="utf-8")
    return parser


def options_of(command: str) -> dict[str, Any]:
    """Return the options of a command of the fleet, as click reads them."""
    program, group, name, *arguments = shlex.split(command)
    assert (Path(program).name, group) == ("nxotp", "fleet")
    fleet = nxotp.commands[group]
    assert isinstance(fleet, click.Group)
    return fleet.commands[name].make_context(name, arguments).params


def test_the_image_is_that_of_the_sandboxs_example_with_the_fleet(services: dict[str, Any]) -> None:
    plain = loaded("sandbox/compose.yaml")["application"]["build"]["dockerfile_inline"]
    for name in ("migrate", "sandbox", "worker"):
        assert services[name]["build"]["dockerfile_inline"] == plain.replace('".[cli]"', '".[cli,fleet]"')


def test_the_variables_are_those_that_the_sandbox_prints_and_one_outbox(services: dict[str, Any]) -> None:
    variables = dict(services["worker"]["environment"])
    outbox = {name: variables.pop(name) for name in ("NXOTP_DATABASE_URL", "NXOTP_OUTBOX_KEYS")}
    assert services["migrate"]["environment"] == outbox
    assert variables == environ_of(client_settings("http://sandbox:8099"))
    assert f":{services['database']['environment']['POSTGRES_PASSWORD']}@database:5432/" in outbox["NXOTP_DATABASE_URL"]
    Outbox(environment=outbox)


def test_nothing_starts_before_what_it_needs(services: dict[str, Any]) -> None:
    assert services["migrate"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert services["worker"]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "sandbox": {"condition": "service_started"},
    }


def test_the_workers_are_asked_where_they_answer(services: dict[str, Any], unit: configparser.ConfigParser) -> None:
    address = options_of(services["worker"]["command"])["health"]
    assert f"http://{address[0]}:{address[1]}/ready" in services["worker"]["healthcheck"]["test"][-1]
    assert options_of(unit["Service"]["ExecStart"])["health"] == ("127.0.0.1", 8080)


def test_a_stop_waits_for_what_is_in_flight(services: dict[str, Any], unit: configparser.ConfigParser) -> None:
    deadline = sandbox_client("http://127.0.0.1:1").settings.deadline
    assert float(services["worker"]["stop_grace_period"].removesuffix("s")) > deadline
    assert float(unit["Service"]["TimeoutStopSec"]) > deadline


def test_the_unit_is_not_started_again_where_that_cannot_help(unit: configparser.ConfigParser) -> None:
    codes = {int(code) for code in unit["Service"]["RestartPreventExitStatus"].split()}
    assert codes == {ExitCode.USAGE, ExitCode.CONFIGURATION}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = UNIT.read_text(encoding="utf-8")
    copy = tmp_path / UNIT.name  # with a program that exists on this machine
    copy.write_text(re.sub("(?m)^ExecStart=[^ ]+", f"ExecStart={sys.executable}", unit), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []


def test_its_commands_work_together(services: dict[str, Any], schema_url: str) -> None:
    """The tables are made, recipients are loaded, and a worker sends to them until it is told to stop."""
    comments = (EXAMPLES / "fleet" / "compose.yaml").read_text(encoding="utf-8")
    (load,) = re.findall(r"exec worker (nxotp fleet load .+)", comments)
    work = services["worker"]["command"].replace("8080", "0")
    with serve_in_thread(Sandbox()) as sandbox:
        outbox = {**services["worker"]["environment"], **sandbox.environ, "NXOTP_DATABASE_URL": schema_url}
        environment = {**os.environ, **outbox}

        def run(command: str) -> "subprocess.Popen[str]":
            program = [sys.executable, "-m", "nxotp_async", *shlex.split(command)[1:]]
            return subprocess.Popen(program, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

        for command in (services["migrate"]["command"], load):
            with run(command) as done:
                _, said = done.communicate(timeout=60)
            assert done.returncode == 0, said
        with run(work) as worker:
            try:
                assert sandbox.messages_to(first_recipient(), within=30)
                worker.terminate()
                assert worker.wait(60) == 0
            finally:
                worker.kill()


def first_recipient() -> str:
    return (EXAMPLES / "recipients.csv").read_text(encoding="utf-8").splitlines()[1].split(",")[0].strip('"')
