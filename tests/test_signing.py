import copy
import hashlib
import json
import pickle
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nxotp_async import ConfigurationError, Credentials, OtpMessage, sign, verify
from nxotp_async.protocol import encode, fixed_headers, request_headers
from nxotp_async.signing import signed_text

# --------------------------------------------------------------------------------------- the vendor's own vectors

VENDOR = Credentials(access_key="fme2na3kdi3ki", access_secret="abciiiko2k3")
VENDOR_TS = 1655710885431
VECTORS = [
    ('{"name":"牛小信","id":10001}', "87c3560d3331ae23f1021e2025722354"),
    ('{"id":10001,"name":"牛小信"}', "7750759da06333f20d0640be09355e34"),
    ('{"id": 10001, "name": "牛小信"}', "d0c24a9886c629330d7f3f2056c65bc2"),
]


@pytest.mark.parametrize(("body", "expected"), VECTORS)
def test_the_vendors_vectors_are_met(body: str, expected: str) -> None:
    signature = sign(body.encode(), ts=VENDOR_TS, credentials=VENDOR, action="send", biz_type="1")
    assert signature == expected


@pytest.mark.parametrize(("body", "expected"), VECTORS)
def test_the_vendors_vectors_are_verified(body: str, expected: str) -> None:
    assert verify(expected, body.encode(), ts=VENDOR_TS, credentials=VENDOR, action="send", biz_type="1")


# --------------------------------------------------------------------------------------- what is signed

OURS = Credentials(access_key="key", access_secret="secret", appkey="app")


def test_the_parts_come_in_the_vendors_order() -> None:
    text = signed_text(b'{"a":1}', ts=17, credentials=OURS)
    assert text == b'accessKey=key&action=mt&bizType=2&ts=17&body={"a":1}&accessSecret=secret'


def test_an_empty_body_leaves_out_its_part() -> None:
    text = signed_text(b"", ts=17, credentials=OURS)
    assert text == b"accessKey=key&action=mt&bizType=2&ts=17&accessSecret=secret"
    assert sign(b"", ts=17, credentials=OURS) == hashlib.md5(text).hexdigest()


def test_the_body_is_signed_byte_for_byte() -> None:
    body = b'\xff\x00 {"a" :\t1}\r\n'
    assert b"&body=" + body + b"&accessSecret=" in signed_text(body, ts=17, credentials=OURS)


# --------------------------------------------------------------------------------------- verifying

BODY = b'{"to":"9995550100"}'
SIGNATURE = sign(BODY, ts=17, credentials=OURS)


def test_the_right_signature_is_verified() -> None:
    assert verify(SIGNATURE, BODY, ts=17, credentials=OURS)


@pytest.mark.parametrize(
    "changed",
    [
        {"body": BODY + b" "},
        {"body": b""},
        {"ts": 18},
        {"credentials": Credentials("key", "other secret")},
        {"credentials": Credentials("other key", "secret")},
        {"action": "send"},
        {"biz_type": "1"},
    ],
    ids=str,
)
def test_a_signature_is_of_one_request_only(changed: dict[str, Any]) -> None:
    request: dict[str, Any] = {"body": BODY, "ts": 17, "credentials": OURS}
    assert not verify(SIGNATURE, **(request | changed))


@pytest.mark.parametrize(
    "signature",
    ["", SIGNATURE[:-1], SIGNATURE + "0", SIGNATURE.upper(), f" {SIGNATURE}", "0" * 32, "\u00e9" * 32, "\ud800" * 32],
    ids=ascii,
)
def test_anything_else_is_rejected(signature: str) -> None:
    assert not verify(signature, BODY, ts=17, credentials=OURS)


# --------------------------------------------------------------------------------------- the keys


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{0!r}".format, lambda keys: f"{[keys]}"])
def test_credentials_show_none_of_the_keys(show: Any) -> None:
    shown = show(Credentials(access_key="KEY-1", access_secret="SECRET-2", appkey="APP-3"))
    assert "Credentials" in shown
    assert not any(key in shown for key in ("KEY-1", "SECRET-2", "APP-3"))


def test_credentials_show_which_of_them_are_missing() -> None:
    assert "appkey=''" in repr(Credentials("key", "secret"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_credentials_refuse_to_be_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="refuse to be pickled"):
        pickle.dumps(OURS, protocol)


def test_credentials_cannot_be_taken_along_by_a_copy() -> None:
    for taken_along in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            taken_along(OURS)


def test_credentials_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        OURS.access_secret = "other"  # type: ignore[misc]


# --------------------------------------------------------------------------------------- against a second signer


def second_signer(headers: dict[str, str], body: str, secret: str) -> str:
    """Sign as the vendor's page tells it: the headers in ASCII order, then the body, then the secret."""
    common = {name: headers[name] for name in ("ts", "bizType", "action", "accessKey")}
    text = "&".join("=".join(pair) for pair in sorted(common.items()))
    if body != "":
        text = "&body=".join([text, body])
    text += "&accessSecret={}".format(secret)  # noqa: UP032 - unlike the library on purpose
    digest = hashlib.new("md5")
    digest.update(text.encode("utf-8"))
    return "".join(f"{byte:02x}" for byte in digest.digest())


awkward = st.sampled_from("\"\\/'`{}[]:,&=%+ \n\r\t\b\f\x00\x1f\x7f\x85\u2028\u2029\ufeff\ufffd<>")
foreign = st.sampled_from("äßñ牛小信あ한אبไ😀👍\U0001f1e9\U0001f1ea\u200d\u0301\u202e\U0010ffff")
anything = st.characters(exclude_categories=["Nd", "Cs"])
texts = st.text(awkward | foreign | anything, max_size=30)
codes = st.text(string.digits, min_size=4, max_size=8)
keys = st.text(string.ascii_letters + string.digits + string.punctuation, min_size=1, max_size=24)


@settings(max_examples=2_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    content=st.builds("".join, st.tuples(texts, codes, texts)),
    to=st.from_regex(r"999[0-9]{4,12}", fullmatch=True),
    cus_message_id=st.none() | st.text(string.ascii_letters + string.punctuation + " ", min_size=1, max_size=20),
    category=st.sampled_from([None, "AUTHENTICATION", "UTILITY"]),
    api_type=st.sampled_from([None, 0, 1]),
    ts=st.integers(0, 10**13),
    account=st.builds(Credentials, keys, keys, keys),
)
def test_two_signers_agree_on_every_message(
    content: str,
    to: str,
    cus_message_id: str | None,
    category: str | None,
    api_type: int | None,
    ts: int,
    account: Credentials,
) -> None:
    message = OtpMessage(
        to, content, language_code="en", category=category, cus_message_id=cus_message_id, api_type=api_type
    )
    body = encode(message, account.appkey)
    headers = request_headers(body, ts=ts, credentials=account, fixed=fixed_headers(account))
    assert sign(body, ts=ts, credentials=account) == headers["sign"]
    assert headers["sign"] == second_signer(headers, body.decode("utf-8"), account.access_secret)
    expected = {
        "appkey": account.appkey,
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": to,
        "content": content,
        "language_code": "en",
        "category": category,
        "cus_message_id": cus_message_id,
        "api_type": api_type,
    }
    assert json.loads(body) == {name: value for name, value in expected.items() if value is not None}


KEYS = {"NXOTP_ACCESS_KEY": "a", "NXOTP_ACCESS_SECRET": "b", "NXOTP_APPKEY": "c"}


def test_credentials_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    assert Credentials.from_env() == Credentials("a", "b", "c")
    assert Credentials.from_env(KEYS | {"NXOTP_APPKEY": ""}) == Credentials("a", "b")


def test_credentials_that_the_environment_lacks_are_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Credentials.from_env({"NXOTP_ACCESS_KEY": "", "NXOTP_APPKEY": "c"})
    assert str(caught.value).startswith("NXOTP_ACCESS_KEY is not set; NXOTP_ACCESS_SECRET is not set (no account yet?")
    with pytest.raises(ConfigurationError, match=r"^NXOTP_ACCESS_SECRET must be printable ASCII") as caught:
        Credentials.from_env(KEYS | {"NXOTP_ACCESS_SECRET": " private"})
    assert "private" not in str(caught.value)
