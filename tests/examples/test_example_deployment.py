"""The example of a deployment with two workers: its commands and variables work together. No container is run, but the
same commands are, as processes of this machine."""

import asyncio
import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from example_programs import ACCEPTED, EXAMPLES
from store_servers import free_port
from verifier_support import code_of

from nxotp_async.cli import nxotp
from nxotp_async.phone_numbers import parse_number
from nxotp_async.sandbox import CallbackPlan, Sandbox
from nxotp_async.sandbox.account import client_settings, environ_of
from nxotp_async.stores import PostgresStore, store_from_url

ROOT = EXAMPLES.parent
EXAMPLE_KEY = "for this example only: openssl rand -hex 32"


def loaded(path: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the group docs")
    content: dict[str, Any] = yaml.safe_load((EXAMPLES / path).read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services: dict[str, Any] = loaded("deployment/compose.yaml")["services"]
    return services


def test_the_image_is_that_of_the_sandboxs_example_with_what_the_login_needs(services: dict[str, Any]) -> None:
    image = services["application"]["build"]["dockerfile_inline"]
    plain = loaded("sandbox/compose.yaml")["services"]["application"]["build"]["dockerfile_inline"]
    assert image == plain.replace('".[cli]"', '".[cli,postgres,verification]" fastapi itsdangerous uvicorn')
    for name in ("migrate", "sandbox", "application"):
        assert services[name]["build"] == services["application"]["build"]


def test_the_variables_are_those_that_the_sandbox_prints_and_one_store(services: dict[str, Any]) -> None:
    variables = dict(services["application"]["environment"])
    url = variables.pop("NXOTP_STORE")
    assert {variables.pop("NXOTP_VERIFICATION_KEY"), variables.pop("SESSION_KEY")} == {EXAMPLE_KEY}
    assert services["migrate"]["environment"] == {"NXOTP_STORE": url}
    assert variables == environ_of(client_settings("http://sandbox:8099"))
    assert f":{services['store']['environment']['POSTGRES_PASSWORD']}@store:5432/" in url
    assert isinstance(store_from_url(url), PostgresStore)


def test_the_sandbox_pushes_to_the_application_over_new_connections(services: dict[str, Any]) -> None:
    _, name, *arguments = shlex.split(services["sandbox"]["command"])
    assert "--new-connections" in arguments
    options = nxotp.commands[name].make_context(name, arguments).params
    assert (options["host"], options["port"], options["webhook"]) == (
        "0.0.0.0",
        8099,
        "http://application:8000/nxcloud/",
    )
    Sandbox(callbacks=CallbackPlan(webhook=options["webhook"], hosts=options["hosts"]))
    assert "--port 8000" in services["application"]["command"]


def test_nothing_starts_before_what_it_needs(services: dict[str, Any]) -> None:
    assert services["migrate"]["depends_on"] == {"store": {"condition": "service_healthy"}}
    assert services["application"]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "sandbox": {"condition": "service_started"},
    }


# ---------------------------------------------------------------------------------------------- the same, by hand


@contextlib.contextmanager
def run(command: str, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a command of the example for as long as the block runs."""
    program = [str(Path(sys.executable).parent / shlex.split(command)[0]), *shlex.split(command)[1:]]
    environment = {**os.environ, **variables}
    with subprocess.Popen(
        program, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextlib.asynccontextmanager
async def asked(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(force_close=True)) as session:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with session.get("/nxcloud/") as answer:
                        if answer.status == 405:
                            break
                await asyncio.sleep(0)
        yield session


async def test_its_commands_work_together(services: dict[str, Any], schema_url: str) -> None:
    """Two workers log people in through the sandbox, and take the callbacks of each message."""
    with run(services["migrate"]["command"], NXOTP_STORE=schema_url) as migrate:
        assert migrate.communicate(timeout=30)[0] == "the tables were migrated from version 0 to 1\n"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    plan = CallbackPlan(webhook=f"{url}/nxcloud/", reuse_connections=False)
    command = services["application"]["command"].replace("0.0.0.0", "127.0.0.1").replace("8000", str(port))
    async with Sandbox(callbacks=plan) as sandbox:
        keys = dict.fromkeys(["NXOTP_VERIFICATION_KEY", "SESSION_KEY"], EXAMPLE_KEY)
        with run(command, **{**sandbox.environ, **keys, "NXOTP_STORE": schema_url}):
            async with asked(url) as session:
                for index in range(10):
                    number = f"{ACCEPTED[:-1]}{index}"
                    async with session.post("/login/start", json={"number": number}) as answer:
                        assert answer.status == 200, await answer.text()
                        fields = {"id": (await answer.json())["id"], "code": code_of(sandbox, parse_number(number))}
                    async with session.post("/login/check", json=fields) as answer:
                        assert await answer.json() == {"status": "logged in"}
                async with asyncio.timeout(30):
                    await sandbox.callbacks_settled()
        assert sandbox.counts["callbacks taken"] == 30
