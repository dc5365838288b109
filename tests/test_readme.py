"""Every Python block of the README and the docs runs."""

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from aiohttp import web
from support import sandbox_in_a_thread

from nxotp_async.sandbox import Sandbox

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

BLOCKS = [
    pytest.param(block, id=f"{page.name}:{index}")
    for page in PAGES
    for index, block in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
]


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A sandbox that the environment points to, as it would to the vendor."""
    with sandbox_in_a_thread() as sandbox:
        monkeypatch.setenv("NXOTP_BASE_URL", sandbox.url)
        monkeypatch.setenv("NXOTP_ACCESS_KEY", sandbox.credentials.access_key)
        monkeypatch.setenv("NXOTP_ACCESS_SECRET", sandbox.credentials.access_secret)
        monkeypatch.setenv("NXOTP_APPKEY", sandbox.credentials.appkey)
        yield sandbox


def run(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(block, "block", "exec"), names)
    return names


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_runs(
    block: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("otps.csv").write_text("to,content,order\n+999 555 0100,Your code is 004213,A-1\n", encoding="utf-8")
    run(block)
    printed = capsys.readouterr().out
    assert "refused" not in printed
    assert "never left" not in printed


def block_with(text: str) -> str:
    (block,) = [block for block in BLOCK.findall(PAGES[0].read_text(encoding="utf-8")) if text in block]
    return str(block)


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


async def test_the_aiohttp_application_sends_codes(sandbox: Sandbox) -> None:
    runner = web.AppRunner(run(block_with("web.AppKey"))["app"], access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    for number, status in STATUSES.items():
        assert await _ask(url, data={"number": number}) == status
    await runner.cleanup()
    assert sandbox.messages[0].to == "9995550100"
