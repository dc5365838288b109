"""The examples that are run once: ``examples/send_one.py`` and ``examples/notebook.py``."""

import ast
import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from example_programs import (
    ACCEPTED,
    EXAMPLES,
    INVALID,
    LOST,
    REFUSED,
    ROOT,
    arguments,
    assert_clean,
    environment,
    load,
)

from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import serve_in_thread


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve_in_thread(Sandbox()) as sandbox:
        yield sandbox


def run(*program: str, sandbox: Sandbox, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end."""
    done = subprocess.run(
        program,
        cwd=ROOT,
        env=environment(sandbox, **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert_clean(done.stdout + done.stderr, sandbox)
    return done


# ---------------------------------------------------------------------------------------------- a script


@pytest.mark.parametrize(
    ("number", "variables", "exit_status", "told"),
    [
        (ACCEPTED, {}, 0, "accepted as "),
        (REFUSED, {}, 1, "rejected by the vendor: code 9003"),
        (INVALID, {}, 2, "nothing was sent: to has 2 digits"),
        (ACCEPTED, {"NXOTP_APPKEY": ""}, 3, "set NXOTP_APPKEY"),
        (ACCEPTED, {"NXOTP_BASE_URL": "http://127.0.0.1:9", "NXOTP_DEADLINE": "0.01"}, 4, "not sent; "),
        (LOST, {}, 6, "unknown; the code may arrive, so do not send another one yet"),
    ],
    ids=["accepted", "refused", "invalid", "misconfigured", "not-sent", "unknown"],
)
def test_the_script_exits_with_what_became_of_the_code(
    number: str, variables: dict[str, str], exit_status: int, told: str, sandbox: Sandbox
) -> None:
    done = run(*arguments("send_one")[:-1], number, sandbox=sandbox, **variables)
    assert done.returncode == exit_status
    first, *rest = done.stdout.splitlines()
    assert told in "".join(rest) + done.stderr
    message_id = first.removeprefix("sending ")
    assert [request.cus_message_id for request in sandbox.requests] == (
        [message_id] if exit_status in (0, 1, 6) else []
    )


def test_the_script_asks_for_a_number(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["send_one.py"])
    assert load("send_one").main() == 2
    assert capsys.readouterr() == ("", 'usage: python send_one.py "+999 555 0100"\n')


# ---------------------------------------------------------------------------------------------- a notebook

SHOWN = """accepted
Summary(total=100, accepted=100, rejected=0, not_sent=0, unknown=0, retried=0, attempts=100)
rejected
unknown
"""


def cells() -> list[str]:
    _, *cells = re.split(r"^# %%.*\n", (EXAMPLES / "notebook.py").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return cells


def test_the_notebook_runs_as_a_script_in_several_loops(sandbox: Sandbox) -> None:
    done = run(*arguments("notebook"), sandbox=sandbox)
    assert (done.returncode, done.stdout) == (0, SHOWN)
    assert sum(cell.count("asyncio.run(") for cell in cells()) > 2


def test_its_cells_run_in_a_loop_that_is_running_already(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, value in sandbox.environ.items():
        monkeypatch.setenv(variable, value)
    names: dict[str, Any] = {"__name__": "__main__"}

    def execute(cell: str) -> Any:
        code = compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return eval(code, names)

    async def notebook() -> None:
        for cell in others:
            awaiting = execute(cell.replace("asyncio.run(", "await ("))
            if awaiting is not None:
                await awaiting

    first, *others = cells()
    execute(first)
    asyncio.run(names["the_client"]().send(names["new_message"](ACCEPTED)))  # in a loop that has ended by then
    asyncio.run(notebook())
    assert capsys.readouterr().out == SHOWN
    assert sandbox.counts["messages"] == 103
