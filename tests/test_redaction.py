"""What an error of the vendor's may show: no secret, code or number, and nothing that drives a terminal."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vendor_answers import CODE, FAILED, NUMBER, every_text, refusal, refused

from nxotp_async import (
    MetaError,
    OutcomeUnknownError,
)
from nxotp_async.protocol import decode, redact


def everywhere(text: str) -> bytes:
    """Return a refusal that has the text in every place for one."""
    error = {
        "code": 100,
        "message": f"a {text} b",
        "type": f"a {text} b",
        "fbtrace_id": f"a {text} b",
        "error_data": {"details": f"a {text} b"},
    }
    return json.dumps({"code": 9099, "message": f"a {text} b", "data": {"error": error}}, ensure_ascii=False).encode()


@pytest.mark.parametrize("hidden", [CODE, "s3cr3t/+==", f"Your code is {CODE}", "牛小信", "$&*(["])
def test_hidden_texts_appear_nowhere(hidden: str) -> None:
    error = refusal(everywhere(hidden), hide=(hidden, CODE))
    assert isinstance(error, MetaError)
    assert [text for text in every_text(error) if hidden in text] == []
    for text in (error.vendor_message, error.meta_type, error.fbtrace_id, error.details):
        assert text == "a *** b"
    assert error.raw.count("a *** b") == 5


@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_a_hidden_text_appears_nowhere_as_json_spells_it_either(ensure_ascii: bool) -> None:
    secret = 'pä"ss\\word'
    body = json.dumps({"code": 9005, "message": f"a {secret} b"}, ensure_ascii=ensure_ascii).encode()
    error = refusal(body, hide=(secret,))
    assert [text for text in every_text(error) if "word" in text] == []
    assert "a *** b" in error.raw


def test_the_code_inside_a_hidden_content_is_hidden_on_its_own() -> None:
    error = refusal(everywhere(CODE), hide=(f"Your code is {CODE}.",))
    assert [text for text in every_text(error) if CODE in text] == []


def test_a_number_that_is_the_messages_code_is_no_vendor_code() -> None:
    hide = ("Your code is 482913.",)
    outcome = decode(200, {}, refused(482913), hide=hide)
    assert isinstance(outcome, OutcomeUnknownError)
    assert "482913" not in str(outcome)
    meta = {"error": {"code": "482913", "message": "no"}}
    error = refusal(refused(9099, data=meta), hide=hide)
    assert isinstance(error, MetaError)
    assert error.meta_code is None
    assert "482913" not in str(error)


def test_a_documented_code_counts_also_where_it_is_the_messages_code() -> None:
    assert refusal(refused(9005), hide=("Your code is 9005.",)).code == 9005


@pytest.mark.parametrize("code", [1_000_000, "1000000", -1_000_000])
def test_what_could_be_a_number_is_no_code_of_metas(code: int | str) -> None:
    error = refusal(refused(9099, data={"error": {"code": code, "message": "no"}}))
    assert isinstance(error, MetaError)
    assert error.meta_code is None


def test_hidden_texts_are_starred_in_a_page_of_html() -> None:
    assert refusal(f"<p>no route for {CODE}, {NUMBER}</p>".encode(), 404, hide=(CODE,)).raw == (
        "<p>no route for ***, ***</p>"
    )


def test_the_longer_of_two_hidden_texts_goes_first() -> None:
    for hide in [("4213", CODE), (CODE, "4213")]:
        assert refusal(everywhere(CODE), hide=hide).vendor_message == "a *** b"


def test_an_empty_text_hides_nothing() -> None:
    assert refusal(FAILED, hide=("", "")).vendor_message == "Request failed"


@pytest.mark.parametrize(
    "number",
    [
        NUMBER,
        f"+{NUMBER}",
        "999 555 0100",
        "999-555-0100",
        "999.555.0100",
        "(999) 555-0100",
        "999 - 555 0100",
        "9 9 9 5 5 5 0 1 0 0",
        "999\u00a0555\u00a00100",
        "999\u2011555\u20110100",
        "999\t555\t0100",
        "999\x00555\x000100",
        "9995550",
        "999555010012345",
        "\uff19\uff19\uff19\uff15\uff15\uff15\uff10\uff11\uff10\uff10",
    ],
    ids=ascii,
)
def test_a_phone_number_appears_nowhere_however_it_is_written(number: str) -> None:
    error = refusal(everywhere(number))
    assert isinstance(error, MetaError)
    for text in (error.vendor_message, error.meta_type, error.fbtrace_id, error.details, str(error)):
        assert not any(part in text for part in ("555", "0100", "5 5 5", "\uff15"))


@pytest.mark.parametrize("text", ["(#131056) Pair rate limit hit", "code 10003", "2030-01", "1.25 s", "in 60 000 ms"])
def test_shorter_numbers_stay_readable(text: str) -> None:
    assert refusal(refused(9005, message=text)).vendor_message == text


def test_a_private_text_is_starred_before_a_long_one_is_cut() -> None:
    for filler in range(480, 501):
        error = refusal(refused(9005, message="x" * filler + f" {NUMBER} {CODE}"), hide=(CODE,))
        assert not any(char.isdigit() for char in error.vendor_message)
    for filler in range(4050, 4097):
        assert not any(char.isdigit() for char in refusal(b"x" * filler + NUMBER.encode(), 404).raw)


TERMINAL = "\x1b]0;title\x07\x1b[2J\x00\r\n\x7f\x9b31m\u202e\u2066\u2028\u2029\ufeff\u200b\ue000"


def test_nothing_in_an_error_can_drive_a_terminal() -> None:
    html = refusal(TERMINAL.encode(), 404)
    plain = refusal(json.dumps({"code": 9005, "message": TERMINAL}).encode())
    unlisted = refusal(json.dumps({"code": 4711, "msg": TERMINAL}).encode())
    for error in (
        html,
        plain,
        unlisted,
        refusal(everywhere(json.dumps(TERMINAL)[1:-1])),
        refusal(everywhere("\u202e")),
    ):
        assert [text for text in every_text(error) if not text.isprintable()] == []
    assert "[2J" in plain.vendor_message


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(exclude_categories=["Cs"])), st.text("0123456789", min_size=4, max_size=8))
def test_redacting_leaves_neither_secrets_nor_control_characters(text: str, secret: str) -> None:
    for around in (text, f"{text}{secret}", f"{secret}{text}{secret}", f"{text}\x1b{secret}"):
        redacted = redact(around, (secret,))
        assert secret not in redacted
        assert redacted.isprintable()
