"""A login of an example, completed with the code that the sandbox's page shows."""

import json
from typing import Any

from browsers import browser, expect, needs_browser  # noqa: F401 - a fixture
from example_programs import ACCEPTED, running

from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import serve_in_thread


@needs_browser
def test_a_login_is_completed_with_the_code_on_the_page(browser: Any) -> None:  # noqa: F811
    with serve_in_thread(Sandbox()) as sandbox, running("aiohttp_login", sandbox) as example:
        page = browser.new_page()
        page.goto(sandbox.url)
        expect(page, "#state").to_have_text("live")
        told = example.post("/login/code", {"number": ACCEPTED})
        assert told.status == 200
        code = page.locator(".message .otp").inner_text()
        login = {name: value for name, value in json.loads(told.text).items() if isinstance(value, str)}
        assert example.post("/login/verify", {**login, "code": str(int(code) ^ 1).zfill(len(code))}).status == 401
        assert example.post("/login/verify", {**login, "code": code}).status == 200
        page.close()
