"""The plugin: its fixtures in every kind of test, what it costs everybody else, and the page that shows it."""

import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
PLUGIN = ROOT / "_nxotp_async_pytestplugin.py"
CODE = "482913"
NUMBER = "9995550100"


class Runner:
    """Runs tests in a pytest of their own, with the plugins that run coroutines."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester

    def write(self, name: str, code: str) -> None:
        (self._pytester.path / name).write_text(dedent(code), encoding="utf-8")

    def run(self, *arguments: str) -> pytest.RunResult:
        plugins = ("pytest_asyncio.plugin", "anyio.pytest_plugin", PLUGIN.stem)
        options = [option for plugin in plugins for option in ("-p", plugin)]
        return self._pytester.runpytest_inprocess("-W", "error", *options, *arguments)

    def passes(self, code: str, count: int, *arguments: str) -> None:
        self.write("test_app.py", code)
        self.run(*arguments).assert_outcomes(passed=count)


@pytest.fixture
def runner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    return Runner(pytester)


# ---------------------------------------------------------------------------------------------- cost


def test_loading_the_plugin_loads_nothing_but_pytest() -> None:
    probe = f"import sys, pytest; before = {{*sys.modules}}; import {PLUGIN.stem}; print(*({{*sys.modules}} - before))"
    loaded = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded.split() == [PLUGIN.stem]


def test_pytest_finds_it_in_what_is_published() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["entry-points"]["pytest11"] == {"nxotp_async": PLUGIN.stem}
    targets = project["tool"]["hatch"]["build"]["targets"]
    assert PLUGIN.name in targets["wheel"]["packages"]
    assert f"/{PLUGIN.name}" in targets["sdist"]["include"]


# ---------------------------------------------------------------------------------------------- kinds of tests

SYNCHRONOUS = """
    import asyncio, os, pytest, threading
    from nxotp_async import NotSentError, OtpClient
    from nxotp_async.testing import assert_nothing_sent, assert_otp_sent

    TOO_EARLY = OtpClient(access_key="a", access_secret="s", appkey="k", base_url="https://otp.invalid")

    def test_an_application_in_this_thread(nxotp_sandbox):
        asyncio.run(OtpClient().send_otp("+999 555 0100", "482913"))
        assert_otp_sent(nxotp_sandbox, "+999 555 0100", code="482913")

    def test_an_application_in_another_thread(nxotp_sandbox):
        assert_nothing_sent(nxotp_sandbox)  # the sandbox of the first test is not that of this one
        application = threading.Thread(target=lambda: asyncio.run(OtpClient().send_otp("+999 555 0100", "482913")))
        application.start()
        assert_otp_sent(nxotp_sandbox, "+999 555 0100", within=20)
        application.join()

    def test_a_client_made_too_early_reaches_nobody(nxotp_sandbox):
        with pytest.raises(NotSentError, match="was made before the test began"):
            asyncio.run(TOO_EARLY.send_otp("+999 555 0100", "482913"))

    def test_a_client_in_one_loop_after_the_other(nxotp_sandbox, nxotp_client):
        for _ in range(2):
            asyncio.run(nxotp_client.send_otp("+999 555 0100", "482913"))
        assert len(nxotp_sandbox.messages) == 2
"""

COROUTINES = """
    import asyncio, gc, pytest
    from nxotp_async import OtpClient
    from nxotp_async.sandbox import Fault
    from nxotp_async.testing import assert_otp_sent

    {mark}

    async def test_the_client(nxotp_client, nxotp_sandbox):
        nxotp_sandbox.script(Fault.http(429, retry_after=20))
        async with asyncio.timeout(10):
            assert (await nxotp_client.send_otp("+999 555 0100", "482913")).attempts == 2
        assert_otp_sent(nxotp_sandbox, "+999 555 0100", code="482913")

    async def test_an_application_in_the_same_loop(nxotp_sandbox):
        gc.collect()  # whatever the client has left open would warn now
        async with OtpClient() as client:
            task = asyncio.create_task(client.send_otp("+999 555 0100", "482913"))
            await asyncio.to_thread(assert_otp_sent, nxotp_sandbox, "+999 555 0100", within=20)
            await task
"""


def test_it_serves_synchronous_tests(runner: Runner) -> None:
    runner.passes(SYNCHRONOUS, 4)


MARKS = {
    "asyncio, auto": "",
    "asyncio, strict": "pytestmark = pytest.mark.asyncio",
    "asyncio, one loop for all": "pytestmark = pytest.mark.asyncio(loop_scope='module')",
    "anyio": "anyio_backend, pytestmark = pytest.fixture(lambda: 'asyncio'), pytest.mark.anyio",
}


@pytest.mark.parametrize("kind", MARKS)
def test_it_serves_coroutines(runner: Runner, kind: str) -> None:
    mode = "auto" if kind.endswith("auto") else "strict"
    runner.passes(COROUTINES.format(mark=MARKS[kind]), 2, f"--asyncio-mode={mode}")


def test_the_environment_is_the_sandbox_s_during_the_test_only(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NXOTP_ACCESS_KEY", "a-real-one")
    monkeypatch.setenv("NXOTP_PROXY", "http://127.0.0.1:1")
    code = """
    import os
    REAL = {"NXOTP_ACCESS_KEY": "a-real-one", "NXOTP_PROXY": "http://127.0.0.1:1"}

    def variables():
        return {name: value for name, value in os.environ.items() if name.startswith("NXOTP_")}

    def test_before():
        assert variables() == REAL

    def test_during(nxotp_sandbox, monkeypatch):
        monkeypatch.undo()
        more = {"NXOTP_VERIFICATION_KEY", "NXOTP_STORE"}
        assert {name: value for name, value in variables().items() if name not in more} == nxotp_sandbox.environ
        assert set(variables()) > {"NXOTP_BASE_URL", "NXOTP_ACCESS_KEY", *more}

    def test_after():
        assert variables() == REAL
    """
    runner.passes(code, 3)


def test_a_failing_assertion_shows_neither_code_nor_number(runner: Runner) -> None:
    code = """
    import pytest
    from nxotp_async.sandbox import Sandbox
    from nxotp_async.testing import MemoryTransport, assert_otp_sent, assert_nothing_sent, code_for
    DIGITS = "482" "913"
    PREFIX = "+999 555 0"

    async def send(sandbox):
        await MemoryTransport(sandbox).client().send_otp(PREFIX + "100", DIGITS)

    async def test_missing():
        sandbox = Sandbox()
        await send(sandbox)
        assert_otp_sent(sandbox, to=PREFIX + "199", code=DIGITS)

    async def test_another_code():
        sandbox = Sandbox()
        await send(sandbox)
        assert_otp_sent(sandbox, PREFIX + "100", code=DIGITS[::-1])

    async def test_nothing():
        sandbox = Sandbox()
        await send(sandbox)
        assert_nothing_sent(sandbox)

    async def test_no_code():
        sandbox = Sandbox()
        await send(sandbox)
        code_for(sandbox, PREFIX + "199")
    """
    runner.write("test_app.py", code)
    result = runner.run("--asyncio-mode=auto", "--showlocals", "-vv")
    result.assert_outcomes(failed=4)
    printed = result.stdout.str() + result.stderr.str()
    assert "no OTP was sent to 99******99" in printed
    for secret in (CODE, CODE[::-1], NUMBER, "9995550199", "+999 555 0100"):
        assert secret not in printed
    assert "testing.py" not in printed  # the caller's line is what is shown


TRANSPORTS = """
    import asyncio, pytest
    from nxotp_async import NotSentError, OtpClient
    from nxotp_async.sandbox import Sandbox
    from nxotp_async.testing import MemoryTransport, UnpooledTransport

    class Recording:
        posts = []

        async def post(self, url, body, headers, timeout):
            self.posts.append(url)
            raise NotSentError("no such network")

        async def aclose(self):
            pass

    KEYS = {"access_key": "a", "access_secret": "s", "appkey": "k", "base_url": "https://otp.invalid"}
    TOO_EARLY = [OtpClient(**KEYS, transport=transport) for transport in (Recording(), UnpooledTransport())]

    @pytest.mark.parametrize("client", [*TOO_EARLY, TOO_EARLY[0].with_options(timeout=1)])
    def test_no_transport_reaches_another_machine(nxotp_sandbox, client):
        with pytest.raises(NotSentError, match="would send to otp.invalid: it was made before"):
            asyncio.run(client.send_otp("+999 555 0100", "482913"))
        assert not Recording.posts

    def test_a_sandbox_in_memory_has_any_url(nxotp_sandbox):
        memory = Sandbox()
        asyncio.run(MemoryTransport(memory).client().send_otp("+999 555 0100", "482913"))
        assert len(memory.messages) == 1

    def test_afterwards_it_does():
        with pytest.raises(NotSentError, match="no such network"):
            asyncio.run(TOO_EARLY[0].send_otp("+999 555 0100", "482913"))
        assert Recording.posts
"""


def test_no_transport_reaches_another_machine_during_a_test(runner: Runner) -> None:
    runner.passes(TRANSPORTS, 5)


CLOCKS = """
    import asyncio, pytest, time
    from datetime import UTC, datetime, timedelta
    from nxotp_async import NotSentError, OtpClient, OtpMessage, TransientApiError
    from nxotp_async.sandbox import Fault
    from nxotp_async.testing import NO_PAUSES, assert_nothing_sent

    def send(client, **options):
        return asyncio.run(client.send(OtpMessage("+999 555 0100", "482913", **options)))

    @pytest.fixture(params=["the application's", "the fixture's"])
    def client(request, nxotp_clock, nxotp_client):
        return OtpClient(deadline=8) if request.param == "the application's" else nxotp_client.with_options(deadline=8)

    def test_requests_are_signed_at_its_time(client, nxotp_clock, nxotp_sandbox):
        nxotp_clock.advance(86_400)
        send(client)  # the sandbox has the same day
        assert nxotp_sandbox.messages[0].headers["ts"] == str(int(nxotp_clock.time() * 1000))

    def test_a_code_expires_without_waiting(client, nxotp_clock, nxotp_sandbox):
        soon = datetime.now(UTC) + timedelta(minutes=5)  # the clock begins at the present time
        send(client, expires_at=soon)
        nxotp_clock.advance(301)
        with pytest.raises(NotSentError, match="expires_at"):
            send(client, expires_at=soon)
        assert len(nxotp_sandbox.messages) == 1

    def test_a_deadline_ends_without_waiting(client, nxotp_clock, nxotp_sandbox):
        nxotp_sandbox.script(Fault.http(429, retry_after=7), Fault.http(429, retry_after=7))
        with pytest.raises(TransientApiError, match="deadline of 8 s left no time"):
            send(client)
        assert nxotp_clock.slept == [7.5]

    def test_its_own_clock_is_left_to_a_client(nxotp_clock, nxotp_sandbox):
        assert OtpClient(clock=NO_PAUSES).state.clock is NO_PAUSES

    def test_without_it_time_passes(nxotp_sandbox):
        assert OtpClient().state.clock.time is time.time
"""


def test_a_clock_that_stands_still_serves_the_sandbox_and_every_client(runner: Runner) -> None:
    runner.passes(CLOCKS, 8)


VERIFIERS = """
    import asyncio, pytest
    from nxotp_async import OtpClient, VerificationRefusedError
    from nxotp_async.stores import store_from_url
    from nxotp_async.testing import code_for
    from nxotp_async.verification import Verifier

    NUMBER = "+999 555 0100"

    @pytest.fixture(params=["the application's", "the fixture's"])
    def verifier(request, nxotp_verifier):
        if request.param == "the fixture's":
            return nxotp_verifier
        return Verifier(OtpClient(), store=store_from_url(), countries={"ID"})

    def test_a_login(verifier, nxotp_sandbox):
        started = asyncio.run(verifier.start(NUMBER))
        check = asyncio.run(verifier.check(started.id, code_for(nxotp_sandbox, NUMBER)))
        assert check.number == "9995550100"

    async def test_expiry(nxotp_clock, verifier, nxotp_sandbox):
        started = await verifier.start(NUMBER)
        nxotp_clock.advance(301)
        assert (await verifier.check(started.id, code_for(nxotp_sandbox, NUMBER))).status == "expired"

    async def test_resend(nxotp_clock, verifier, nxotp_sandbox):
        started = await verifier.start(NUMBER)
        first = code_for(nxotp_sandbox, NUMBER)
        with pytest.raises(VerificationRefusedError):
            await verifier.resend(started.id)
        nxotp_clock.advance(30)
        await verifier.resend(started.id)
        assert code_for(nxotp_sandbox, NUMBER) == first
        assert len(nxotp_sandbox.messages) == 2

    def test_no_code(nxotp_sandbox):
        with pytest.raises(AssertionError, match=r"no OTP was sent to 99\\*\\*\\*\\*\\*\\*00; no request was received"):
            code_for(nxotp_sandbox, NUMBER)
"""


def test_a_login_is_tested_with_the_sandbox_s_codes_and_a_clock(runner: Runner) -> None:
    runner.passes(VERIFIERS, 7, "--asyncio-mode=auto")


# ---------------------------------------------------------------------------------------------- the page

FILE = re.compile(r"^```python\n# (?P<name>\w+\.py)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = dict(FILE.findall((ROOT / "docs" / "testing.md").read_text(encoding="utf-8")))
TESTS = [name for name in FILES if name.startswith("test_")]


@pytest.mark.parametrize("name", TESTS)
def test_the_tests_of_the_page_pass(runner: Runner, name: str) -> None:
    if "TestClient" in FILES[name] and find_spec("httpx2") is None:
        pytest.skip("FastAPI's TestClient needs httpx2")
    runner.write("login.py", FILES["login.py"])
    runner.write(name, FILES[name])
    assert set(runner.run(name).parseoutcomes()) == {"passed"}


def test_the_first_test_of_the_page_is_short() -> None:
    assert len([line for line in FILES["test_login.py"].splitlines() if line]) <= 10
