"""A login of an example, completed with the code that the sandbox's page shows."""

import json
from typing import Any

from browsers import browser, expect, needs_browser  # noqa: F401 - a fixture
from example_programs import ACCEPTED, Program, running

from nxotp_async.sandbox import Sandbox
from nxotp_async.testing import serve_in_thread


def post(example: Program, path: str, **fields: str) -> tuple[int, Any]:
    answer = example.request("POST", path, json.dumps(fields), **{"Content-Type": "application/json"})
    return answer.status, json.loads(answer.text)


@needs_browser
def test_a_login_is_completed_with_the_code_on_the_page(browser: Any) -> None:  # noqa: F811
    with serve_in_thread(Sandbox()) as sandbox, running("aiohttp_login", sandbox, NXOTP_STORE="memory://") as example:
        page = browser.new_page()
        page.goto(sandbox.url)
        expect(page, "#state").to_have_text("live")
        status, started = post(example, "/login/start", number=ACCEPTED)
        assert status == 200
        code = page.locator(".message .otp").inner_text()
        wrong = str((int(code) + 1) % 10 ** len(code)).zfill(len(code))
        assert post(example, "/login/check", id=started["id"], code=wrong)[0] == 403
        assert post(example, "/login/check", id=started["id"], code=code)[0] == 200
        page.close()
