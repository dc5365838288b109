"""Takes the pictures of the sandbox's page in the documentation: ``make screenshots``.

python tests/screenshots.py docs
"""

import io
import sys
from pathlib import Path
from typing import Any

from browsers import beside, chromium, receiver
from PIL import Image

from nxotp_async import NxOtpError
from nxotp_async.sandbox import CallbackPlan, Fault, Sandbox
from nxotp_async.testing import serve_in_thread

MESSAGES = (
    ("+999 555 0100", "Your code is 482913", "en"),
    ("+999 555 0123", "Votre code est 004218. Ne le donnez à personne.", "fr"),
    ("+999 555 0177", "Dein Code: 77413355", "de"),
    ("+999 555 0123", "620481 is your verification code.", "en"),
)


async def send(sandbox: Sandbox) -> None:
    """Send what is to be seen: messages, one of them after a retry, and a request with a wrong signature."""
    async with sandbox.client() as client:
        sandbox.script(Fault.answer(9001))
        for index, (to, content, language) in enumerate(MESSAGES, 1):
            await client.send_otp(to, content, language_code=language, cus_message_id=f"login-{index}")
    async with sandbox.client(access_secret="another") as client:
        try:
            await client.send_otp("+999 555 0144", "Your code is 111222", cus_message_id="login-5")
        except NxOtpError:
            return


def take(browser: Any, url: str, directory: Path) -> None:
    def opened(view: str, scheme: str, width: int, height: int) -> Any:
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=2)
        page.goto(f"{url}/#{view}")
        page.wait_for_selector("#state[data-state=live]")
        return page

    def save(page: Any, name: str) -> None:
        page.wait_for_timeout(500)  # milliseconds, until the last switch has moved
        picture = Image.open(io.BytesIO(page.screenshot()))
        picture.quantize(160).save(directory / f"sandbox-{name}.png", optimize=True)  # a third of the bytes

    page = opened("messages", "light", 1120, 640)
    page.click(".message .open >> nth=1")
    page.wait_for_selector("#detail .timeline")
    save(page, "messages")
    page = opened("requests", "dark", 1120, 560)
    page.click(".request .open >> nth=0")
    page.wait_for_selector("#detail mark")
    page.evaluate("document.querySelector('#detail .signs').closest('section').scrollIntoView()")
    save(page, "requests")
    page = opened("faults", "light", 1120, 640)
    page.click("text=Cut after reading")
    page.fill("#fault-to", "+999 555 0100")
    page.fill("#fault-probability", "20")
    page.click("text=9001, system error")
    page.wait_for_selector(".rules li >> nth=1")
    page.mouse.move(0, 0)
    save(page, "faults")
    save(opened("messages", "dark", 390, 640), "phone")


def main() -> None:
    directory = Path(sys.argv[1])
    with (
        serve_in_thread(receiver()) as webhook,
        serve_in_thread(Sandbox(callbacks=CallbackPlan(webhook=webhook))) as sandbox,
        chromium() as browser,
    ):
        beside(send(sandbox))
        take(browser, sandbox.url, directory)


if __name__ == "__main__":
    main()
