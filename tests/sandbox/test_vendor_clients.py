"""Clients that share no code with the package: what they sign is accepted, and refused with one byte changed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import serve_in_thread

CLIENTS = Path(__file__).parent / "vendor_clients"
LANGUAGES = {
    "Python": ([sys.executable, "-I", "-S", str(CLIENTS / "client.py")], "by-hand-1"),
    "PHP": (["php", "-n", str(CLIENTS / "client.php")], "by/hand/1"),
}


@pytest.fixture(scope="module")
def live() -> Iterator[Sandbox]:
    with serve_in_thread(Sandbox()) as sandbox:
        yield sandbox


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(LANGUAGES[name][0][0]) is None:
        pytest.skip(f"there is no interpreter of {name} on PATH (on Debian: apt install php-cli)")
    return name


def answer_to(language: str, sandbox: Sandbox, spoil: str) -> Any:
    """Run the client, and return what it was answered."""
    command, _ = LANGUAGES[language]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [*command, sandbox.url, spoil], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    return json.loads(done.stdout)


def test_a_client_written_from_the_vendors_pages_is_accepted(language: str, live: Sandbox) -> None:
    message_id = LANGUAGES[language][1]
    answer = answer_to(language, live, "nothing")
    assert (answer["code"], answer["data"]["messages"]) == (0, [{"id": message_id}])
    message = live.messages[-1]
    assert (message.otp, message.content, message.message_id) == ("482913", "您的验证码是 482913", message_id)


@pytest.mark.parametrize("spoil", ["body", "sign", "ts", "secret"])
def test_with_one_byte_changed_its_signature_is_invalid(language: str, live: Sandbox, spoil: str) -> None:
    sent = len(live.messages)
    answer = answer_to(language, live, spoil)
    assert (answer["code"], answer["data"]) == (1003, None)
    assert len(live.messages) == sent
