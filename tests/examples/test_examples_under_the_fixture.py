"""Every program in ``examples``, imported by a test of its own and used twice with the fixtures of the package."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import pytest
from example_programs import EXAMPLES, KEY, ROOT

TESTS = {
    "aiohttp_login": """
        from aiohttp.test_utils import TestClient, TestServer
        from aiohttp_login import make_app

        async def use(sandbox):
            async with TestClient(TestServer(make_app())) as browser:
                started = await (await browser.post("/login/start", json={"number": NUMBER})).json()
                code = code_for(sandbox, NUMBER)
                answer = await browser.post("/login/check", json={"id": started["id"], "code": code})
                assert await answer.json() == {"status": "logged in"}
                assert answer.cookies["session"]["httponly"]
    """,
    "background": """
        import asyncio
        from aiohttp.test_utils import TestClient, TestServer
        from background import make_app

        async def use(sandbox):
            async with TestClient(TestServer(make_app())) as browser:
                assert (await browser.post("/codes", data={"number": NUMBER})).status == 202
                await asyncio.to_thread(assert_otp_sent, sandbox, NUMBER, within=20)
    """,
    "fastapi_login": """
        from fastapi.testclient import TestClient
        from fastapi_login import make_app
        from nxotp_async.testing import signed_callback

        def use(sandbox):
            with TestClient(make_app(), base_url="https://testserver") as browser:
                login = browser.post("/login/start", json={"number": NUMBER}).json()["id"]
                message = assert_otp_sent(sandbox, NUMBER)
                headers, body = signed_callback(message.message_id, "delivered")
                assert browser.post("/nxcloud/", content=body, headers=headers).status_code == 200
                answer = browser.post("/login/check", json={"id": login, "code": message.otp})
                assert answer.json() == {"status": "logged in"}
                assert browser.get("/me").json() == {"number": "9995550100"}
    """,
    "django_login": """
        from starlette.testclient import TestClient
        from django_login import make_application

        def use(sandbox):
            browser = TestClient(make_application(), base_url="https://127.0.0.1")  # 'with' runs the lifespan
            browser.get("/")
            browser.headers["X-CSRFToken"] = browser.cookies["csrftoken"]
            browser.headers["Referer"] = "https://127.0.0.1/"
            login = browser.post("/login/start", json={"number": NUMBER}).json()["id"]
            code = code_for(sandbox, NUMBER)
            answer = browser.post("/login/check", json={"id": login, "code": code})
            assert answer.json() == {"status": "logged in"}
            assert browser.get("/me").json() == {"number": "9995550100"}
    """,
    "notebook": """
        from notebook import send_code, send_codes
        from nxotp_async import OtpClient

        async def use(sandbox):
            async with OtpClient() as client:
                assert await send_code(client, NUMBER) == "accepted"
                assert (await send_codes(client, 3)).summary().accepted == 3
            assert len(sandbox.messages) == 4
    """,
    "send_one": """
        from send_one import send_code

        async def use(sandbox):
            assert await send_code(NUMBER, "some-id") == 0
            assert assert_otp_sent(sandbox, NUMBER).cus_message_id == "some-id"
    """,
}

FILE = """
import asyncio
import pytest
from nxotp_async.testing import assert_otp_sent, code_for

NUMBER = "+999 555 0100"

@pytest.mark.parametrize("time", ["first", "second"])
def test_it(time, nxotp_sandbox):
    used = use(nxotp_sandbox)
    if used is not None:
        asyncio.run(used)
"""


def test_every_program_is_used() -> None:
    assert TESTS.keys() == {path.stem for path in EXAMPLES.glob("*.py")}


@pytest.mark.skipif(find_spec("httpx2") is None, reason="Starlette's TestClient needs httpx2")
def test_every_example_works_twice_under_the_fixture(tmp_path: Path) -> None:
    for name, test in TESTS.items():
        (tmp_path / f"test_{name}.py").write_text(dedent(test) + FILE, encoding="utf-8")
    # The imports come before the fixture, with variables that no example may have read by then.
    variables = {"NXOTP_BASE_URL": "not a url", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    variables |= dict.fromkeys(["SESSION_KEY", "DJANGO_SECRET_KEY"], KEY)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "_nxotp_async_pytestplugin"],
        cwd=tmp_path,
        env={**os.environ, **variables, "PYTHONPATH": f"{EXAMPLES}{os.pathsep}{ROOT}"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert (done.returncode, "12 passed" in done.stdout) == (0, True), done.stdout + done.stderr
