"""The command where standard input, output or error is closed: ``nxotp ... 2>&-``."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nxotp_async.bulk import Ledger, MessageState, load, open_messages
from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import serve_in_thread

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="streams are closed as POSIX shells do")

CONTENT = "Your code is 482913"
STDIN, STDOUT, STDERR, ALL = "<&-", ">&-", "2>&-", "<&- >&- 2>&-"


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A sandbox, and the files that the commands read."""
    monkeypatch.chdir(tmp_path)
    Path("otps.csv").write_text(f"to,content\n9995550100,{CONTENT}\n9995550101,{CONTENT}\n")
    with Ledger("old.db") as ledger, open_messages("otps.csv") as file:
        load(ledger, file)
    with serve_in_thread(Sandbox()) as sandbox:
        yield sandbox


def start(program: str, arguments: str, closed: str, sandbox: Sandbox) -> "subprocess.Popen[str]":
    """Start Python with these streams closed."""
    return subprocess.Popen(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, *program.split(maxsplit=1), *arguments.split()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **sandbox.environ},
        text=True,
    )


# The more that is closed, the more may go wrong; the exit code is that of an open terminal.
@pytest.mark.parametrize(
    ("closed", "commands"),
    [
        (STDIN, {"send 9995550100": 2, "bulk export old.db": 0}),  # a content that cannot be read is wrong usage
        (STDOUT, {"send 9995550100": 0, "bulk export old.db": 0}),
        (STDERR, {"--help": 0, "no-such-command": 2, "demo --count 20": 0, "sandbox --port 0 --until-eof": 0}),
        (ALL, {"--help": 0, "demo --count 20": 0, "bulk run otps.csv": 0, "bulk export old.db -o results.csv": 0}),
    ],
    ids=["stdin", "stdout", "stderr", "all"],
)
def test_a_command_works_without_its_streams(sandbox: Sandbox, closed: str, commands: dict[str, int]) -> None:
    with ExitStack() as stack:
        running = {command: start("-m nxotp_async", command, closed, sandbox) for command in commands}
        for process in running.values():
            stack.enter_context(process)
            stack.callback(process.kill)
        for command, process in running.items():
            out, err = process.communicate(CONTENT, timeout=60)
            assert (command, process.returncode) == (command, commands[command]), out + err
            assert "Traceback" not in out + err
    if closed == ALL:
        assert len(Path("results.csv").read_text().splitlines()) == 3
        with Ledger("otps.csv.ledger") as ledger:
            assert ledger.counts() == {MessageState.ACCEPTED: 2}


WHAT_IS_OPEN = """-c
import os, stat, sys
from nxotp_async.__main__ import main
sys.argv = ["nxotp", "--version"]
main()
null = os.stat(os.devnull)
for stream in (sys.stdin, sys.stdout, sys.stderr):
    found = os.fstat(stream.fileno())
    print(stream.fileno(), found.st_rdev == null.st_rdev, os.get_inheritable(stream.fileno()), file=open("seen", "a"))
"""


def test_a_closed_streams_number_goes_to_the_null_device_and_not_to_the_next_file(sandbox: Sandbox) -> None:
    with start(WHAT_IS_OPEN, "", ALL, sandbox) as process:
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert Path("seen").read_text() == "0 True True\n1 True True\n2 True True\n"
