"""The sandbox's page in a real browser."""

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from browsers import beside, browser, expect, needs_browser, receiver  # noqa: F401 - a fixture

from nxotp_async import OtpMessage
from nxotp_async.sandbox import CallbackPlan, Fault, Sandbox
from nxotp_async.testing import serve_in_thread

TO = "+999 555 0100"
CODE = "482913"

pytestmark = needs_browser


@pytest.fixture
def live() -> Iterator[Sandbox]:
    with (
        serve_in_thread(receiver()) as webhook,
        serve_in_thread(Sandbox(callbacks=CallbackPlan(webhook=webhook))) as sandbox,
    ):
        yield sandbox


@pytest.fixture
def page(browser: Any, live: Sandbox) -> Iterator[Any]:  # noqa: F811
    """The page, opened. A request to another host, or anything unexpected in its console, fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(15_000)
    troubles: list[str] = []
    requested: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(live.url)
    expect(page, "#state").to_have_text("live")
    yield page
    page.close()
    assert [each for each in requested if not each.startswith(f"{live.url}/")] == []
    assert [each for each in troubles if "400 (Bad Request)" not in each] == []  # Chromium's own note of a refusal


def send(sandbox: Sandbox, *messages: tuple[str, str], **options: Any) -> None:
    """Send messages, each with its number and content."""

    async def send_all() -> None:
        async with sandbox.client(**options) as client:
            async for _ in client.send_many(OtpMessage(to, content) for to, content in messages):
                pass

    beside(send_all())


# ---------------------------------------------------------------------------------------------- messages


def test_a_message_appears_with_its_code_and_the_code_is_copied(page: Any, live: Sandbox) -> None:
    expect(page, "#messages .empty").to_be_visible()
    send(live, (TO, f"Your code is {CODE}"))
    expect(page, ".message .otp").to_have_text(CODE)
    expect(page, ".message .left").to_have_text(re.compile("^(5:00|4:5[0-9]) left$"))
    expect(page, ".message .chip").to_have_count(3)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click(".message .copy")
    expect(page, "#said").to_have_text(f"Copied {CODE}")
    assert page.evaluate("navigator.clipboard.readText()") == CODE


def test_what_a_message_contains_is_text_and_no_markup(page: Any, live: Sandbox) -> None:
    content = f'<img src=x onerror="shown=1"><b>{CODE}</b><script>shown=1</script>'
    send(live, (TO, content))
    expect(page, ".message .content").to_have_text(content)
    page.click(".message .open")
    expect(page, "#detail .pairs").to_contain_text([content])
    assert page.locator("#messages img, #messages b, #detail script, #detail img").count() == 0
    assert not page.evaluate("'shown' in window")


def test_a_phone_is_selected_and_a_search_finds(page: Any, live: Sandbox) -> None:
    send(live, (TO, "Your code is 111111"), ("+999 555 0199", "Your code is 222222"), (TO, "Your code is 333333"))
    expect(page, ".message").to_have_count(3)
    page.click("#phones button:has-text('+9995550199')")
    expect(page, ".message .otp").to_have_text(["222222"])
    page.click("#phones button:has-text('All phones')")
    page.keyboard.press("/")
    page.keyboard.type("3333")
    expect(page, ".message .otp").to_have_text(["333333"])
    page.fill("#search", "no such thing")
    expect(page, "#messages .pane").to_have_class(re.compile("nothing"))


def test_everything_is_cleared(page: Any, live: Sandbox) -> None:
    send(live, (TO, CODE))
    expect(page, ".message").to_have_count(1)
    page.click("#clear")
    expect(page, ".message").to_have_count(0)
    expect(page, "#messages .empty").to_be_visible()
    assert not live.requests


def test_a_page_that_is_opened_late_shows_what_came_before(page: Any, live: Sandbox) -> None:
    send(live, (TO, CODE))
    page.reload()
    expect(page, ".message .otp").to_have_text(CODE)
    expect(page, ".message .chip").to_have_count(3)


def test_one_reads_on_while_a_thousand_messages_arrive(page: Any, live: Sandbox) -> None:
    send(live, *((TO, f"Your code is {index:06}") for index in range(60)))
    expect(page, "#messages-count").to_have_text("60")
    page.evaluate("document.querySelector('#messages-list').scrollTop = 2000")
    expect(page, ".message[data-number='45']").to_be_visible()
    reading = "[...document.querySelectorAll('.message')].find(row => row.getBoundingClientRect().top > 100)"
    read = page.evaluate(f"[{reading}.dataset.number, {reading}.getBoundingClientRect().top]")
    send(live, *((TO, f"Your code is {index:06}") for index in range(1000, 2000)))
    expect(page, "#messages-count").to_have_text("1,060")
    assert page.evaluate(f"[{reading}.dataset.number, {reading}.getBoundingClientRect().top]") == read
    assert page.locator(".message").count() < 30  # only what is seen is drawn
    expect(page, "#messages-new").to_have_text("1,000 new")
    page.click("#messages-new")
    expect(page, "#messages-new").to_be_hidden()
    expect(page, ".message >> nth=0").to_have_attribute("data-number", "1060")


# ---------------------------------------------------------------------------------------------- requests


def test_a_wrong_signature_is_shown_beside_the_right_one(page: Any, live: Sandbox) -> None:
    send(live, (TO, CODE), access_secret="another")
    page.keyboard.press("2")
    expect(page, ".request .verdict").to_have_text("refused 1003")
    page.click(".request .open")
    expect(page, "#detail .signs mark").to_have_count(2)
    expect(page, "#detail").to_contain_text("accessSecret=***")
    expect(page, "#detail .bad").to_have_text(re.compile("They differ from character [0-9]+ on"))
    assert live.credentials.access_secret not in page.content()


def test_the_tries_of_a_message_lead_to_each_other(page: Any, live: Sandbox) -> None:
    live.script(Fault.answer(9001))
    send(live, (TO, CODE))
    page.goto(f"{live.url}/#requests")
    expect(page, ".request .attempt").to_have_text("try 2")
    page.click(".request >> nth=1")
    expect(page, "#detail h2").to_have_text("Request 1")
    page.click("#detail .attempts button")
    expect(page, "#detail h2").to_have_text("Request 2")


def test_a_fault_is_switched_on_and_its_effect_is_seen(page: Any, live: Sandbox) -> None:
    page.keyboard.press("3")
    page.click("text=9005, balance too low")
    expect(page, ".rules li").to_have_count(1)
    send(live, (TO, CODE))
    page.keyboard.press("2")
    expect(page, ".request .verdict").to_have_text("refused 9005")
    page.keyboard.press("3")
    page.click(".rules button")
    expect(page, ".rules li").to_have_count(0)
    send(live, (TO, CODE))
    page.keyboard.press("2")
    expect(page, ".request .verdict >> nth=0").to_have_text("accepted")


def test_a_fault_that_cannot_be_is_refused_at_its_field(page: Any, live: Sandbox) -> None:
    page.goto(f"{live.url}/#faults")
    page.fill("#fault-to", "somebody")
    page.click("text=Never answered")
    expect(page, ".problem").to_contain_text("to ")
    expect(page, "#fault-to").to_have_attribute("aria-invalid", "true")
    expect(page, "#fault-to").to_be_focused()
    page.fill("#fault-to", TO)
    page.select_option("#fault-kind", "http")
    page.fill("#fault-code", "600")
    page.click("text=Switch on >> nth=-1")
    expect(page, "#fault-code").to_be_focused()
    page.fill("#fault-code", "503")
    page.keyboard.press("Enter")
    expect(page, ".rules li").to_contain_text(["+9995550100"])
    expect(page, ".problem").to_be_hidden()


# ---------------------------------------------------------------------------------------------- callbacks


def test_callbacks_are_held_reordered_dropped_and_forged(page: Any, live: Sandbox) -> None:
    send(live, (TO, CODE))
    page.click(".message .open")
    page.click("#detail .switch")
    expect(page, "#detail .switch").to_have_attribute("aria-checked", "true")
    send(live, (TO, "Your code is 555555"))
    page.click(".message:has-text('555555') .open")
    expect(page, "#detail .big .otp").to_have_text("555555")
    expect(page, "#detail .timeline li[data-state=held]").to_have_count(3)
    page.click("#detail .timeline li >> nth=2 >> text=Drop")
    expect(page, "#detail .timeline li[data-state=dropped]").to_have_count(1)
    page.click("#detail .timeline li >> nth=1 >> text=↑")
    expect(page, "#detail .timeline li >> nth=0").to_contain_text("delivered")
    page.click("#detail .timeline li >> nth=0 >> text=Push")
    expect(page, "#detail .timeline li >> nth=0").to_have_attribute("data-state", "taken")
    page.click("#detail .timeline li >> nth=0 >> text=Forge")
    expect(page, "#detail .timeline li").to_have_count(4)
    expect(page, "#detail .timeline li >> nth=3").to_contain_text("wrong signature")
    page.click("#detail .timeline li >> nth=0 >> text=Resend")
    expect(page, "#detail .timeline li[data-state=taken]").to_have_count(3)


# ---------------------------------------------------------------------------------------------- the page itself


def test_it_is_used_with_the_keyboard_alone(page: Any, live: Sandbox) -> None:
    send(live, *((TO, f"Your code is {index:06}") for index in range(40)))
    expect(page, "#messages-count").to_have_text("40")
    for _ in range(12):
        page.keyboard.press("j")
    page.keyboard.press("k")
    number = page.evaluate("document.activeElement.closest('.row').dataset.number")
    assert number == "30"
    page.keyboard.press("Enter")
    expect(page, "#detail h2").to_have_text("Request 30")
    page.keyboard.press("Escape")
    expect(page, "#detail").to_be_hidden()
    assert page.evaluate("document.activeElement.closest('.row').dataset.number") == "30"
    page.keyboard.press("?")
    expect(page, "#help").to_be_visible()
    page.keyboard.press("Escape")
    expect(page, "#help").to_be_hidden()


def test_it_survives_a_restart_of_the_sandbox_and_says_so(browser: Any) -> None:  # noqa: F811
    with serve_in_thread(Sandbox()) as first:
        port = int(first.url.rpartition(":")[2])
        page = browser.new_page()
        page.set_default_timeout(15_000)
        page.goto(first.url)
        send(first, (TO, CODE))
        expect(page, ".message").to_have_count(1)
    expect(page, "#state").to_have_text("no answer, trying again")
    with serve_in_thread(Sandbox(port=port)) as second:
        expect(page, "#notice").to_contain_text("The sandbox was restarted")
        expect(page, ".message").to_have_count(0)
        send(second, (TO, "Your code is 555555"))
        expect(page, ".message .otp").to_have_text(["555555"])
        page.close()


def test_a_token_opens_it_where_it_is_needed(browser: Any) -> None:  # noqa: F811
    with serve_in_thread(Sandbox(host="0.0.0.0", token="a token of my own")) as sandbox:
        context = browser.new_context()
        page = context.new_page()
        page.goto(sandbox.url)
        page.fill("input", "a token of my own")
        page.click("button")
        expect(page, "#state").to_have_text("live")
        assert "token" not in page.url
        context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_there_are_no_barriers(page: Any, live: Sandbox, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="it is in the group dev")
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    send(live, (TO, f"Your code is {CODE}"), ("+999 555 0199", f"<b>{CODE}</b>"))
    send(live, (TO, CODE), access_secret="another")
    expect(page, ".message .chip").to_have_count(6)
    found = {}

    def look(where: str) -> None:
        results = axe.Axe().run(page)
        assert results.response["passes"]
        found[where] = [(each["id"], each["nodes"][0]["html"]) for each in results.response["violations"]]
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    look("messages")
    page.click(".message .open >> nth=0")
    expect(page, "#detail").to_be_visible()
    look("details")
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    expect(page, ".request").to_have_count(3)
    page.click(".request .open >> nth=0")
    expect(page, "#detail mark").to_have_count(2)
    look("requests")
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    page.click("text=Never answered")
    expect(page, ".rules li").to_have_count(1)
    look("faults")
    page.keyboard.press("?")
    look("help")
    assert not any(found.values()), found


def test_nothing_on_it_is_of_another_host(live: Sandbox) -> None:
    for file in (files("nxotp_async.sandbox") / "page").iterdir():
        text = file.read_text(encoding="utf-8")
        addresses = set(re.findall(r"https?://[^\s\"'`)<]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg", "http://127.0.0.1:8099"}, file.name
