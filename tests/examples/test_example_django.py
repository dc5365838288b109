"""``examples/django_login.py`` in a process of its own: Django can be configured once only in a process."""

import re
import subprocess
from collections.abc import Iterator

import attrs
import pytest
from example_programs import ACCEPTED, LOST, ROOT, Answer, Program, arguments, assert_clean, environment, running

from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import serve_in_thread


@attrs.frozen
class Browser:
    """Somebody who fills in the forms.

    Attributes:
        program: The running example.
        cookie: What it has set.
        token: What its forms hold.
    """

    program: Program
    cookie: str
    token: str

    @classmethod
    def open(cls, program: Program) -> "Browser":
        form = program.get("/")
        return cls(program, form.headers["Set-Cookie"].partition(";")[0], field(form, "csrfmiddlewaretoken"))

    def post(self, path: str, **fields: str) -> Answer:
        return self.program.post(path, {**fields, "csrfmiddlewaretoken": self.token}, Cookie=self.cookie)


def field(page: Answer, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page.text)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with serve_in_thread(Sandbox()) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def program(sandbox: Sandbox) -> Iterator[Program]:
    with running("django_login", sandbox) as program:
        yield program
        _, output = program.stop()
        assert_clean(output, sandbox)


@pytest.fixture
def browser(program: Program) -> Browser:
    return Browser.open(program)


@pytest.mark.parametrize("number", [ACCEPTED, LOST], ids=["answered", "lost"])
def test_the_right_code_logs_in_once(number: str, browser: Browser, sandbox: Sandbox) -> None:
    login = field(browser.post("/code", number=number), "login")
    code = sandbox.messages[-1].otp
    assert code is not None
    logged_in = browser.post("/verify", login=login, code=code)
    assert (logged_in.status, "You are logged in." in logged_in.text) == (200, True)
    assert browser.post("/verify", login=login, code=code).status == 401


def test_a_wrong_code_may_be_followed_by_the_right_one(browser: Browser, sandbox: Sandbox) -> None:
    login = field(browser.post("/code", number=ACCEPTED), "login")
    code = sandbox.messages[-1].otp
    assert code is not None
    wrong = browser.post("/verify", login=login, code=f"{(int(code) + 1) % 1_000_000:06}")
    assert (wrong.status, field(wrong, "login")) == (401, login)
    assert browser.post("/verify", login=login, code=code).status == 200


@pytest.mark.parametrize("path", ["/code", "/verify"])
def test_a_forged_request_is_refused(path: str, program: Program, sandbox: Sandbox) -> None:
    browser, another = Browser.open(program), Browser.open(program)
    before = len(sandbox.requests)
    without_token = attrs.evolve(browser, token="")
    without_cookie = attrs.evolve(browser, cookie="")
    of_another = attrs.evolve(browser, token=another.token)
    for forged in (without_token, without_cookie, of_another):
        assert forged.post(path, number=ACCEPTED, login="", code="").status == 403
    assert len(sandbox.requests) == before


def test_what_was_typed_is_never_markup(browser: Browser) -> None:
    login = '"><script>alert(1)</script>'
    assert "<script>" not in browser.post("/verify", login=login, code="").text
    assert "<script>" not in browser.post("/code", number=login).text


def test_pages_are_neither_framed_nor_served_for_another_method(program: Program, browser: Browser) -> None:
    assert program.get("/").headers["X-Frame-Options"] == "DENY"
    assert program.get("/code").status == 405
    assert browser.post("/").status == 405
    assert program.get("/nothing").status == 404


def test_without_settings_it_does_not_start_and_says_which(sandbox: Sandbox) -> None:
    done = subprocess.run(
        arguments("django_login"),
        cwd=ROOT,
        env=environment(sandbox, NXOTP_ACCESS_KEY=""),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "access_key is missing: pass access_key=... or set NXOTP_ACCESS_KEY" in done.stderr
