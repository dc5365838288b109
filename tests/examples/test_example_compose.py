"""The example with containers: its commands and variables are those that work together. No container is run."""

import shlex
from typing import Any

import pytest
from example_programs import EXAMPLES

from nxotp_async import OtpClient
from nxotp_async.cli import nxotp
from nxotp_async.sandbox import CallbackPlan, Sandbox, sandbox_client
from nxotp_async.sandbox.account import client_settings, environ_of

ROOT = EXAMPLES.parent
SANDBOX = "http://sandbox:8099"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the group docs")
    with (EXAMPLES / "sandbox" / "compose.yaml").open(encoding="utf-8") as file:
        loaded: dict[str, Any] = yaml.safe_load(file)
    return loaded


def options_of(command: str) -> dict[str, Any]:
    """Return the options of a command of ours, as click reads them."""
    program, name, *arguments = shlex.split(command)
    assert program == "nxotp"
    return nxotp.commands[name].make_context(name, arguments).params


def test_there_are_an_application_a_sandbox_and_a_receiver(compose: dict[str, Any]) -> None:
    assert compose["services"].keys() == {"application", "sandbox", "receiver"}
    for service in compose["services"].values():
        assert service["build"] == compose["x-image"]["build"]


def test_what_is_copied_into_the_image_is_there_and_is_what_the_build_needs(compose: dict[str, Any]) -> None:
    lines = compose["x-image"]["build"]["dockerfile_inline"].splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert {"pyproject.toml", "README.md", "LICENSE", "_nxotp_async_pytestplugin.py", "nxotp_async"} <= {*copied}


def test_the_clients_variables_are_those_that_the_sandbox_prints(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("application", "receiver"):
        assert compose["services"][name]["environment"] == environ_of(client_settings(SANDBOX))
    for name, value in compose["services"]["application"]["environment"].items():
        monkeypatch.setenv(name, value)
    assert OtpClient().url == sandbox_client(SANDBOX).url


def test_the_sandbox_is_where_the_clients_look_and_pushes_to_the_receiver(compose: dict[str, Any]) -> None:
    sandbox, receiver = (options_of(compose["services"][name]["command"]) for name in ("sandbox", "receiver"))
    assert (sandbox["host"], sandbox["port"]) == ("0.0.0.0", 8099)
    assert compose["services"]["sandbox"]["ports"] == ["127.0.0.1:8099:8099"]
    assert (receiver["host"], sandbox["webhook"]) == ("0.0.0.0", f"http://receiver:{receiver['port']}/")
    Sandbox(callbacks=CallbackPlan(webhook=sandbox["webhook"], hosts=sandbox["hosts"]))


def test_the_application_is_an_example(compose: dict[str, Any]) -> None:
    (program,) = [word for word in compose["services"]["application"]["command"].split() if word.endswith(".py")]
    assert (ROOT / program).is_file()
