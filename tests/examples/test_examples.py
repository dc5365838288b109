"""Every program in ``examples``: run as its docstring says, asked over HTTP, told to stop."""

import json
import re
import signal
from collections.abc import Callable, Iterator

import pytest
from example_programs import (
    ACCEPTED,
    EXAMPLES,
    INVALID,
    LOST,
    REFUSED,
    Answer,
    Program,
    assert_clean,
    command,
    docstring,
    running,
)

from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import serve_in_thread

PROGRAMS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "logins")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve_in_thread(Sandbox()) as sandbox:
        yield sandbox


# ---------------------------------------------------------------------------------------------- what is there


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_docstring_and_the_table_tell_how_to_run_a_program(name: str) -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert f"`{command(name)}`" in readme
    sandbox = re.search(r"``(nxotp sandbox.*?)``", docstring(name))
    assert sandbox is not None
    assert f"`{sandbox[1]}`" in readme


def test_the_table_lists_every_file_and_no_other() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\[`([\w.]+)`\]\(\1\)", readme))
    assert listed == {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}


# ---------------------------------------------------------------------------------------------- logins


def ask_fastapi(program: Program, number: str) -> Answer:
    body = json.dumps({"number": number})
    return program.request("POST", "/login/code", body, **{"Content-Type": "application/json"})


def ask_aiohttp(program: Program, number: str) -> Answer:
    return program.post("/login/code", {"number": number})


def ask_django(program: Program, number: str) -> Answer:
    form = program.get("/")
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form.text)
    assert token is not None
    fields = {"number": number, "csrfmiddlewaretoken": token[1]}
    return program.post("/code", fields, Cookie=form.headers["Set-Cookie"].partition(";")[0])


@pytest.mark.parametrize(
    ("name", "ask", "exit_status"),
    [
        ("fastapi_login", ask_fastapi, -signal.SIGTERM),  # uvicorn stops in order, and then dies of the signal
        ("aiohttp_login", ask_aiohttp, 0),
        ("django_login", ask_django, -signal.SIGTERM),
    ],
)
def test_a_login_tells_the_truth_and_stops_in_order(
    name: str, ask: Callable[[Program, str], Answer], exit_status: int, sandbox: Sandbox
) -> None:
    with running(name, sandbox) as program:
        answers = {number: ask(program, number) for number in (INVALID, REFUSED, LOST, ACCEPTED)}
        stopped_with, output = program.stop()
    assert [answer.status for answer in answers.values()] == [422, 503, 202, 200]
    assert "may arrive" in answers[LOST].text
    assert "sent" in answers[ACCEPTED].text
    assert stopped_with == exit_status
    assert_clean(output + "".join(answer.text for answer in answers.values()), sandbox)
    assert [request.to for request in sandbox.requests] == [REFUSED, LOST, "9995550100"]
