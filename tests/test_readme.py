"""Every Python and shell block of the README and the docs runs, and prints what the page says that it prints."""

import contextlib
import doctest
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

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
    monkeypatch.setenv("SESSION_KEY", "the key of the tests and of nothing else")
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
