"""Every Python and shell block of the README and the docs runs, and prints what the page says that it prints."""

import asyncio
import contextlib
import doctest
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import attrs
import pytest
import uvicorn
from aiohttp import web
from fastapi.testclient import TestClient

from nxotp_async.sandbox import CallbackPlan, Sandbox
from nxotp_async.testing import serve_in_thread

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "reference").glob("*.md"))]

RUN: Final = {"python", "pycon", "shell"}
SHOWN: Final = {"csv", "ini", "json", "text", "toml", "yaml"}
# A block that cannot run has its reason in a comment right above it. What a block prints may follow it.
BLOCK: Final = re.compile(
    r"^(?:<!-- not run: (?P<reason>\S[^\n]*) -->\n)?"
    r"```(?P<language>[\w-]+)\n(?P<code>.*?)^```$"
    r"(?:\n\nIt prints:\n\n```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


@attrs.frozen
class Block:
    """A block of a page, and what the page says that it prints, if it does."""

    page: str
    line: int
    language: str
    code: str
    reason: str | None
    output: str | None

    @classmethod
    def all_of(cls, page: Path) -> "list[Block]":
        text = page.read_text(encoding="utf-8")
        return [
            cls(page.name, text.count("\n", 0, match.start("code")), **match.groupdict())
            for match in BLOCK.finditer(text)
        ]


BLOCKS = [block for page in PAGES for block in Block.all_of(page)]


def to_run(language: str) -> list[Any]:
    return [
        pytest.param(block, id=f"{block.page}:{block.line}")
        for block in BLOCKS
        if block.language == language and block.reason is None
    ]


@pytest.fixture(scope="module")
def _sandbox() -> Iterator[Sandbox]:
    with serve_in_thread(Sandbox(callbacks=CallbackPlan())) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A sandbox that the environment points to, as it would to the vendor."""
    _sandbox.requests.clear()
    monkeypatch.setenv("NXOTP_BASE_URL", _sandbox.url)
    monkeypatch.setenv("NXOTP_ACCESS_KEY", _sandbox.credentials.access_key)
    monkeypatch.setenv("NXOTP_ACCESS_SECRET", _sandbox.credentials.access_secret)
    monkeypatch.setenv("NXOTP_APPKEY", _sandbox.credentials.appkey)
    monkeypatch.setenv("NXOTP_VERIFICATION_KEY", "the key of the tests and of nothing else")
    monkeypatch.setenv("NXOTP_STORE", "memory://")
    return _sandbox


@pytest.fixture
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty directory but for the file that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    Path("otps.csv").write_text("to,content,order\n+999 555 0100,Your code is 004213,A-1\n", encoding="utf-8")


def run(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(block, "block", "exec"), names)
    return names


def check_output(block: Block, printed: str) -> None:
    """Compare what was printed with what the page says, in which ... stands for anything."""
    if block.output is None:
        return
    if not doctest.OutputChecker().check_output(block.output, printed, doctest.ELLIPSIS):
        assert printed == block.output


@pytest.mark.usefixtures("sandbox", "_directory")
@pytest.mark.parametrize("block", to_run("python"))
def test_every_python_block_runs(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    run(block.code)
    printed = capsys.readouterr().out
    if block.output is None:
        assert "rejected:" not in printed
        assert "not sent:" not in printed
    check_output(block, printed)


@pytest.mark.usefixtures("sandbox", "_directory")
@pytest.mark.parametrize("block", to_run("shell"))
def test_every_shell_block_runs(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", block.code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        printed, complaints = process.communicate(timeout=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it may have left behind, too
    assert process.returncode == 0, complaints
    check_output(block, printed)


@pytest.mark.usefixtures("sandbox", "_directory")
@pytest.mark.parametrize("block", to_run("pycon"))
def test_every_interactive_block_prints_what_it_shows(block: Block) -> None:
    session = doctest.DocTestParser().get_doctest(block.code, {}, block.page, block.page, block.line)
    report: list[str] = []
    assert not doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(session, out=report.append).failed, report


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_goes_untested_without_a_reason(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = Block.all_of(page)
    assert {block.language for block in blocks} <= RUN | SHOWN  # nothing to run hides behind another language
    reasons = [block.reason for block in blocks if block.reason is not None]
    assert text.count("<!-- not run") == len(reasons)
    assert text.count("It prints:") == sum(block.output is not None for block in blocks)


def block_with(text: str, page: str = "README.md") -> str:
    (block,) = [block.code for block in BLOCKS if block.page == page and text in block.code]
    return block


def test_the_production_program_sends_to_what_the_environment_says(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    run(block_with("async with OtpClient() as client"))
    assert capsys.readouterr().out == f"accepted as {sandbox.messages[0].message_id}\n"
    assert sandbox.messages[0].otp == "004213"


# An accepted message, an invalid one, one that is refused, and one whose answer is lost.
STATUSES = {"+999 555 0100": 200, "12": 422, "999000009003": 503, "999300000003": 200}


async def _ask(url: str, **request: Any) -> int:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/login/code", **request) as response:
        return response.status


def test_the_fastapi_application_sends_codes(sandbox: Sandbox) -> None:
    app = run(block_with("FastAPI(lifespan"))["app"]
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", ws="none"))
    started = threading.Event()
    original = server.startup

    async def startup(sockets: Any = None) -> None:
        await original(sockets)
        started.set()

    server.startup = startup  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(20)
    try:
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        for number, status in STATUSES.items():
            assert asyncio.run(_ask(url, json={"number": number})) == status
    finally:
        server.should_exit = True
        thread.join()
    assert sandbox.messages[0].to == "9995550100"


def test_the_login_logs_people_in(sandbox: Sandbox) -> None:
    app = run(block_with("FastAPI(lifespan", "verification.md"))["app"]
    with TestClient(app, client=("127.0.0.1", 50000)) as browser:
        started = browser.post("/login", json={"number": "+999 555 0100"})
        login, code = started.json()["id"], sandbox.messages[0].otp or ""
        resent = browser.post("/login/resend", json={"id": login})
        assert (resent.status_code, resent.json()["reason"]) == (429, "too_soon")
        assert 29 < resent.json()["retry_after"] <= 30
        wrong = browser.post("/login/check", json={"id": login, "code": str((int(code) + 1) % 10**6)})
        assert (wrong.status_code, wrong.json()) == (401, {"detail": "wrong"})
        right = browser.post("/login/check", json={"id": login, "code": f"{code[:3]} {code[3:]}"})
        assert right.json() == {"number": "9995550100"}
        again = browser.post("/login/check", json={"id": login, "code": code})
        assert (again.status_code, again.json()) == (401, {"detail": "spent"})
        number = browser.post("/login", json={"number": "12"})
        assert (number.status_code, number.json()["reason"]) == (422, "invalid_number")
        foreign = browser.post("/login", json={"number": "+1 415 555 2671"})
        assert (foreign.status_code, foreign.json()["reason"]) == (429, "country")
        refused = browser.post("/login", json={"number": "999000009003"})
        assert refused.status_code == 503


async def test_the_aiohttp_application_sends_codes(sandbox: Sandbox) -> None:
    runner = web.AppRunner(run(block_with("web.AppKey"))["app"], access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    for number, status in STATUSES.items():
        assert await _ask(url, data={"number": number}) == status
    await runner.cleanup()
    assert sandbox.messages[0].to == "9995550100"
