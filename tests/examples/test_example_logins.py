"""Each login of the examples, and that of the page, in two processes over PostgreSQL."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import attrs
import psycopg
import pytest
from example_programs import (
    ACCEPTED,
    ACCEPTED_DIGITS,
    INVALID,
    LOST,
    REFUSED,
    ROOT,
    Answer,
    Program,
    arguments,
    assert_clean,
    environment,
    serving,
)
from store_fixtures import schema_of
from verifier_support import code_of, wrong

from nxotp_async.sandbox import Sandbox
from nxotp_async.stores import hashed_key, store_from_url
from nxotp_async.testing import serve_in_thread
from nxotp_async.verification.state import VerificationState

LOGINS: Final = ["fastapi_login", "aiohttp_login", "django_login", "the page"]


def page_block(page: str) -> str:
    """Return the login of a page, which is its first block with a router."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(next(block for block in blocks if "verification_router" in block))


def command_of(name: str, directory: Path) -> list[str]:
    if name != "the page":
        return arguments(name)
    (directory / "login.py").write_text(page_block("docs/verification.md"), encoding="utf-8")
    uvicorn = [sys.executable, "-X", "dev", "-W", "error", "-m", "uvicorn", "--port", "0"]
    return [*uvicorn, "--app-dir", str(directory), "login:app"]


@attrs.frozen
class Login:
    """A login in two processes.

    Attributes:
        name: Which one.
        workers: The processes.
        sandbox: Where they send to.
        store_url: What they share.
    """

    name: str
    workers: tuple[Program, Program]
    sandbox: Sandbox
    store_url: str


class Browser:
    """A person's browser, whose requests come to either process."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self.cookies: dict[str, str] = {}
        self._ask("GET", 0, "/")

    def _ask(self, method: str, worker: int, path: str, body: str | None = None, **headers: str) -> Answer:
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = self._login.workers[worker].request(method, path, body, **headers)
        self.cookies.update(answer.cookies)
        return answer

    def post(self, worker: int, path: str, **fields: object) -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": "application/json"}
        if token := self.cookies.get("csrftoken"):
            headers["X-CSRFToken"] = token
        answer = self._ask("POST", worker, path, json.dumps(fields), **headers)
        return answer.status, json.loads(answer.text)

    def get(self, worker: int, path: str) -> Answer:
        return self._ask("GET", worker, path)

    def start(self, worker: int, number: str) -> str:
        status, content = self.post(worker, "/login/start", number=number)
        assert status == 200, content
        return str(content["id"])


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with serve_in_thread(Sandbox()) as sandbox:
        yield sandbox


@pytest.fixture(scope="module", params=LOGINS)
def login(
    request: pytest.FixtureRequest, sandbox: Sandbox, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Login]:
    name = str(request.param)
    command = command_of(name, tmp_path_factory.mktemp("page"))
    store_url = schema_of(postgres_url)
    asyncio.run(migrate(store_url))
    with (
        serving(command, sandbox, NXOTP_STORE=store_url) as first,
        serving(command, sandbox, NXOTP_STORE=store_url) as second,
    ):
        yield Login(name, (first, second), sandbox, store_url)
        for worker in (first, second):
            exit_status, output = worker.stop()
            assert exit_status == (0 if name == "aiohttp_login" else -signal.SIGTERM)  # uvicorn dies of it in the end
            assert_clean(output, sandbox)


@pytest.fixture
def browser(login: Login) -> Browser:
    with psycopg.connect(login.store_url, autocommit=True) as connection:
        connection.execute("DELETE FROM nxotp_entries")  # what earlier tests count in the limits
    login.sandbox.requests.clear()
    return Browser(login)


async def migrate(store_url: str) -> None:
    async with store_from_url(store_url):
        pass


def let_the_pause_pass(login: Login, verification_id: str) -> None:
    """Have the pause before the next resend end now."""

    async def change() -> None:
        def end_pause(value: bytes | None) -> bytes:
            assert value is not None
            return attrs.evolve(VerificationState.load(value), resend_at=time.time()).dump()

        async with store_from_url(login.store_url) as store:
            await store.update(hashed_key("verification", verification_id), end_pause, ttl=300)

    asyncio.run(change())


def test_a_person_logs_in_over_both_workers(login: Login, browser: Browser) -> None:
    started = browser.start(0, ACCEPTED)
    status, content = browser.post(1, "/login/resend", id=started)
    assert (status, content["reason"]) == (429, "too_soon")
    let_the_pause_pass(login, started)
    status, content = browser.post(1, "/login/resend", id=started)
    assert (status, content["id"]) == (200, started)
    first, second = (message.otp or "" for message in login.sandbox.messages)
    assert first == second
    status, content = browser.post(1, "/login/check", id=started, code=wrong(first))
    assert (status, content["reason"], content["checks_left"]) == (403, "wrong", 4)
    assert browser.get(0, "/me").status == 401
    status, content = browser.post(0, "/login/check", id=started, code=f"{first[:3]} {first[3:]}")
    assert (status, content) == (200, {"status": "logged in"})
    me = browser.get(1, "/me")
    assert (me.status, json.loads(me.text)) == (200, {"number": ACCEPTED_DIGITS})
    status, content = browser.post(1, "/login/check", id=started, code=first)
    assert (status, content["reason"]) == (403, "spent")


def test_the_session_is_of_one_browser_and_ends(login: Login, browser: Browser) -> None:
    started = browser.start(0, ACCEPTED)
    browser.post(1, "/login/check", id=started, code=code_of(login.sandbox, ACCEPTED_DIGITS))
    assert browser.get(0, "/me").status == 200
    assert Browser(login).get(0, "/me").status == 401
    forged = Browser(login)
    forged.cookies |= {"session": "x", "sessionid": "x"}
    assert forged.get(0, "/me").status == 401
    if login.name == "the page":
        return
    browser.post(1, "/logout")
    assert browser.get(0, "/me").status == 401


def test_of_ten_right_codes_at_once_one_is_approved(login: Login, browser: Browser) -> None:
    started = browser.start(1, ACCEPTED)
    code = code_of(login.sandbox, ACCEPTED_DIGITS)
    browsers = [Browser(login) for _ in range(10)]

    def check(index: int) -> int:
        return browsers[index].post(index % 2, "/login/check", id=started, code=code)[0]

    with ThreadPoolExecutor(10) as threads:
        assert sorted(threads.map(check, range(10))) == [200] + 9 * [403]


def test_it_says_what_became_of_a_message(login: Login, browser: Browser) -> None:
    status, content = browser.post(0, "/login/start", number=INVALID)
    assert (status, content["field"]) == (422, "number")
    status, content = browser.post(0, "/login/start", number="+1 415 555 2671")
    assert (status, content["reason"]) == (422, "country")
    assert not login.sandbox.requests
    status, content = browser.post(0, "/login/start", number=REFUSED)
    assert (status, content["reason"]) == (503, "unavailable")
    started = browser.start(0, LOST)  # its answer is lost, and the code arrives
    code = code_of(login.sandbox, LOST)
    assert browser.post(1, "/login/check", id=started, code=code)[0] == 200


def test_its_page_asks_for_what_the_endpoints_take(login: Login, browser: Browser) -> None:
    page = browser.get(0, "/")
    if login.name == "the page":
        assert page.status == 404
        return
    assert (page.status, page.text.startswith("<!doctype html>")) == (200, True)
    for path in ("/login/start", "/login/resend", "/login/check"):
        assert f'post("{path}", ' in page.text


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        *((name, "NXOTP_VERIFICATION_KEY") for name in LOGINS),
        ("django_login", "NXOTP_ACCESS_KEY"),
        ("django_login", "NXOTP_STORE"),
    ],
)
def test_without_a_setting_it_does_not_start_and_says_which(
    name: str, variable: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    done = subprocess.run(
        command_of(name, tmp_path),
        cwd=ROOT,
        env=environment(sandbox, **{"NXOTP_STORE": "memory://", variable: ""}),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert variable in done.stderr


def test_the_login_of_the_page_is_short_and_that_of_the_readme() -> None:
    block = page_block("docs/verification.md")
    assert len([line for line in block.splitlines() if line.strip()]) <= 25
    assert block == page_block("README.md")
