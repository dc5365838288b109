"""Running the command in tests: in this process, or as one of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, BinaryIO

import pytest
from click.testing import CliRunner, Result

from nxotp_async.cli import nxotp
from nxotp_async.sandbox import SANDBOX_CREDENTIALS, Sandbox

Env = Mapping[str, str]
Start = Callable[..., "subprocess.Popen[str]"]

TO = "+999 555 0100"
OTP = "73915508"
CONTENT = f"Your code is {OTP}"
SECRET = SANDBOX_CREDENTIALS.access_secret
KEYS = {
    "NXOTP_ACCESS_KEY": SANDBOX_CREDENTIALS.access_key,
    "NXOTP_ACCESS_SECRET": SECRET,
    "NXOTP_APPKEY": SANDBOX_CREDENTIALS.appkey,
}

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals, modes and terminals as POSIX has them")
full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")


def account_of(sandbox: Sandbox) -> dict[str, str]:
    return {**KEYS, "NXOTP_BASE_URL": sandbox.url}


def invoke(*arguments: str, env: Env | None = None, stdin: str | bytes | BinaryIO = b"") -> Result:
    """Run the command in this process, and check that nothing it prints holds what must not be seen."""
    result = CliRunner().invoke(nxotp, arguments, input=stdin, env=env, prog_name="nxotp")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert_clean(
        result.stdout,
        numbers_may_show=arguments[:2] == ("bulk", "export") or bool({"-h", "--help", "--reveal"} & {*arguments}),
    )
    assert_clean(result.stderr)
    return result


def assert_clean(text: str, *, numbers_may_show: bool = False) -> None:
    assert numbers_may_show or OTP not in text
    assert SECRET not in text
    # What follows a decimal point is a measured figure: a share of 0.9991327 is no telephone number.
    assert numbers_may_show or not re.search(r"(?<!\.)\b999(?:[ -]?\d){7}", text), text


def end_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def read_until(stream: IO[str] | None, pattern: str) -> str:
    """Read no further than to the first match."""
    assert stream is not None
    text = ""
    while not re.search(pattern, text):
        char = stream.read(1)
        assert char, f"it ended, having said {text!r}"
        text += char
    return text


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Close the process's input, and wait until everybody who could still write to its outputs has ended."""
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def without_styles(text: str) -> str:
    """Return what a terminal shows, without its escape sequences."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)


class DueClock:
    """A sandbox's clock, which it reads at every request and answer: it acts when one of them is due."""

    def __init__(self, due: int, act: Callable[[], object]) -> None:
        self._left = due
        self._act = act

    def __call__(self) -> float:
        self._left -= 1
        if self._left == 0:
            self._act()
        return time.time()
