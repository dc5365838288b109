import hashlib
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nxotp_async import CallbackVerificationError, Credentials, NxOtpError
from nxotp_async.callbacks import (
    MAX_CALLBACK_BYTES,
    TERMINAL_STATUSES,
    CdrType,
    Cost,
    StatusEvent,
    advances,
    parse_callback,
    reaches,
    verify_callback,
)

NUMBER = "9995550100"


def status(name: object = "delivered", **fields: Any) -> dict[str, Any]:
    """Return one status as the vendor writes it."""
    return {
        "id": "wamid.1", "status": name, "timestamp": "1660019986", "recipient_id": NUMBER, **fields
    }  # fmt: skip


def body(*statuses: object, **fields: Any) -> bytes:
    """Return the body of a callback with these statuses."""
    return orjson.dumps(
        {"statuses": statuses, "business_phone": "9995550199", "messaging_product": "whatsapp", **fields}
    )


def only_event(*statuses: object, **fields: Any) -> StatusEvent:
    (event,) = parse_callback(body(*statuses, **fields))
    return event


# ---------------------------------------------------------------------------------------------- what the vendor sends


def test_the_vendors_own_example_is_read() -> None:
    example = (
        b'{"statuses":[{"id":"wamid.HBgM","status":"sent","timestamp":"1660019986","recipient_id":"86176xxxx0819",'
        b'"conversation":{"id":"c","expiration_timestamp":"1660106400","origin":{"type":"business_initiated"}}}],'
        b'"business_phone":"9995550199","messaging_product":"whatsapp"}'
    )
    (event,) = parse_callback(example)
    assert event.message_id == "wamid.HBgM"
    assert event.status == "sent"
    assert event.timestamp == datetime(2022, 8, 9, 4, 39, 46, tzinfo=UTC)
    assert event.recipient == "86176xxxx0819"
    assert event.errors == ()
    assert event.raw == orjson.loads(example)["statuses"][0]


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("sent", "sent"),
        ("delivered", "delivered"),
        ("read", "read"),
        ("failed", "failed"),
        ("deleted", "deleted"),
        ("played", "played"),
        ("DELIVERED", "delivered"),
        ("", ""),
    ],
)
def test_every_status_is_an_event_those_that_are_new_too(name: str, read: str) -> None:
    assert only_event(status(name)).status == read


def test_a_failure_carries_the_vendors_errors() -> None:
    event = only_event(status("failed", errors=[{"code": 470, "title": "Re-engagement message"}, {"code": 131026}]))
    assert event.errors == ({"code": 470, "title": "Re-engagement message"}, {"code": 131026})


@pytest.mark.parametrize("errors", [None, "no", 470, {"code": 470}, [], ["no", None, 470, [{"code": 470}]]], ids=repr)
def test_errors_of_another_form_are_left_out(errors: object) -> None:
    event = only_event(status("failed", errors=errors))
    assert event.errors == ()
    assert event.raw["errors"] == errors


def test_errors_of_another_form_do_not_hide_the_others() -> None:
    assert only_event(status("failed", errors=["no", {"code": 470}])).errors == ({"code": 470},)


def test_a_deleted_message_names_its_recipient_in_its_own_place() -> None:
    deleted = {
        "id": "wamid.1", "status": "deleted", "timestamp": "1660019986", "type": "message",
        "message": {"recipient_id": NUMBER},
    }  # fmt: skip
    event = only_event(deleted)
    assert event.status == "deleted"
    assert event.recipient == NUMBER
    assert event.raw == deleted


def test_newer_fields_do_not_matter_and_are_kept() -> None:
    newer = {
        "conversation": None,
        "biz_opaque_callback_data": "x",
        "cost": {"currency": "USD", "foreign_price": 0.02, "cdr_type": 1, "message_id": "wamid.1", "direction": 2},
    }
    around = {
        "app_id": "a",
        "channel": "whatsapp",
        "contacts": [{"wa_id": NUMBER}],
        "merchant_phone": "9995550199",
        "metadata": {"display_phone_number": "9995550199", "phone_number_id": "1"},
        "wabaId": "w",
    }
    event = only_event(status(**newer), **around)
    assert event.status == "delivered"
    assert event.raw == status(**newer)


def test_events_come_in_the_order_of_the_body_with_repetitions() -> None:
    callback = body(
        status("read", id="b"), status("sent", id="a"), status("delivered", id="b"), status("read", id="b")
    )  # fmt: skip
    events = [(event.message_id, event.status) for event in parse_callback(callback)]
    assert events == [("b", "read"), ("a", "sent"), ("b", "delivered"), ("b", "read")]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"messages": [{"from": NUMBER, "type": "button", "button": {"text": "Copy"}}]}, id="button click"),
        pytest.param({"statuses": None}, id="null"),
        pytest.param({"statuses": "sent"}, id="a text"),
        pytest.param({"statuses": {"id": "wamid.1", "status": "sent"}}, id="an object"),
        pytest.param({"statuses": []}, id="none"),
        pytest.param({}, id="nothing at all"),
    ],
)
def test_a_callback_without_statuses_has_no_events(fields: dict[str, Any]) -> None:
    assert parse_callback(orjson.dumps(fields)) == []


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(None, id="null"),
        pytest.param("sent", id="a text"),
        pytest.param(["wamid.1", "sent"], id="a list"),
        pytest.param({}, id="empty"),
        pytest.param({"status": "sent"}, id="no id"),
        pytest.param({"id": "wamid.1"}, id="no status"),
        pytest.param(status(id=""), id="empty id"),
        pytest.param(status(id=5), id="id is a number"),
        pytest.param(status(id=None), id="id is null"),
        pytest.param(status(None), id="status is null"),
        pytest.param(status(3), id="status is a number"),
        pytest.param(status(["sent"]), id="status is a list"),
    ],
)
def test_a_status_that_cannot_be_told_is_left_out_and_the_others_are_not(broken: object) -> None:
    events = parse_callback(body(status("sent", id="a"), broken, status("read", id="b")))
    assert [(event.message_id, event.status) for event in events] == [("a", "sent"), ("b", "read")]


@pytest.mark.parametrize("recipient", [None, 9995550100, [NUMBER], {"id": NUMBER}], ids=repr)
def test_a_recipient_of_another_form_is_left_out(recipient: object) -> None:
    assert only_event(status(recipient_id=recipient)).recipient == ""


# ---------------------------------------------------------------------------------------------- the time

MOMENT = datetime(2022, 8, 9, 4, 39, 46, tzinfo=UTC)


@pytest.mark.parametrize(
    ("timestamp", "moment"),
    [
        ("1660019986", MOMENT),
        (1660019986, MOMENT),
        ("1660019986.5", MOMENT + timedelta(seconds=0.5)),
        (1660019986.5, MOMENT + timedelta(seconds=0.5)),
        ("0", datetime(1970, 1, 1, tzinfo=UTC)),
        (None, None),
        ("", None),
        ("yesterday", None),
        ("2022-08-09T04:39:46Z", None),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
        ("9" * 400, None),
        ("1660019986000000000", None),
        (-(10**18), None),
        (True, None),
        ([1660019986], None),
        ({"seconds": 1660019986}, None),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_the_time_is_read_where_it_is_one(timestamp: object, moment: datetime | None) -> None:
    event = only_event(status(timestamp=timestamp))
    assert event.timestamp == moment
    assert moment is None or (event.timestamp is not None and event.timestamp.utcoffset() == timedelta(0))


def test_a_status_without_a_time_has_none() -> None:
    event = only_event({"id": "wamid.1", "status": "read"})
    assert event == StatusEvent("wamid.1", "read", raw={"id": "wamid.1", "status": "read"})
    assert (event.timestamp, event.recipient, event.errors) == (None, "", ())


# ---------------------------------------------------------------------------------------------- what is no callback


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" \n", id="blank"),
        pytest.param(b"statuses=sent", id="a form"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"sent"', id="a text"),
        pytest.param(b"null", id="null"),
        pytest.param(b"1", id="a number"),
        pytest.param(b'{"statuses":[', id="cut off"),
        pytest.param(b'{"statuses":[]} {}', id="two objects"),
        pytest.param(b'{"statuses":[{"id":"\xff","status":"sent"}]}', id="not UTF-8"),
        pytest.param(b'{"statuses":[{"id":"\\ud800","status":"sent"}]}', id="half a surrogate pair"),
        pytest.param(b'{"statuses":' + b"[" * 100_000, id="very deep"),
    ],
)
def test_what_is_no_json_object_is_refused_and_not_repeated(garbage: bytes) -> None:
    with pytest.raises(CallbackVerificationError) as caught:
        parse_callback(garbage)
    assert str(caught.value) == "the callback's body is not a JSON object"
    assert isinstance(caught.value, NxOtpError)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_numbers = st.from_regex(r"-?[0-9]{1,25}(\.[0-9]+)?([eE][-+]?[0-9]{1,25})?", fullmatch=True) | _json
_costs = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("currency", "price", "foreign_price", "cdr_type", "message_id", "direction"), _numbers),
)
_statuses = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=3) | _json,
        "status": st.sampled_from(["sent", "delivered", "read", "failed", "deleted"]) | _json,
        "timestamp": st.from_regex(r"-?[0-9]{1,25}", fullmatch=True) | _json,
        "recipient_id": _json,
        "errors": _json,
        "message": _json,
        "cost": _costs | _json,
        "costs": st.lists(_costs | _json, max_size=3) | _json,
    },
)


@settings(max_examples=100, deadline=None)
@given(st.lists(_statuses | _json, max_size=3) | _json, _costs | _json)
@example([{"id": "a", "status": "sent", "timestamp": 1e308}], {})
@example([{"id": "a", "status": "sent"}], {"direction": "-1E1000000", "cdr_type": "1E-1000000", "price": "1E1000000"})
@example([{"id": "a", "status": "sent", "cost": {"price": "1e999999999999999999", "cdr_type": "9e999999"}}], {})
def test_no_json_object_whatever_it_holds_makes_the_reader_fail(statuses: Any, cost: Any) -> None:
    for event in parse_callback(orjson.dumps({"statuses": statuses, "cost": cost})):
        assert event.message_id
        assert event.raw["id"] == event.message_id
        assert event.status == event.raw["status"].lower()
        assert event.timestamp is None or event.timestamp.tzinfo is UTC


# ---------------------------------------------------------------------------------------------- what is printed


def test_an_event_does_not_print_the_number() -> None:
    printed = repr(only_event(status(contacts=[{"wa_id": NUMBER}])))
    assert NUMBER not in printed
    assert "99******00" in printed
    assert "wamid.1" in printed
    assert "delivered" in printed


def test_an_event_without_a_number_prints_none() -> None:
    assert "recipient=''" in repr(only_event(status(recipient_id=None)))


# ---------------------------------------------------------------------------------------------- is it the vendor's

KEYS = Credentials(access_key="fme2na3kdi3ki", access_secret="abciiiko2k3")
TS = "1655710885431"
AT = 1655710885.431
BODY = body(status("sent"))


def signed(content: bytes = BODY, *, keys: Credentials = KEYS, **headers: str) -> dict[str, str]:
    """Return the headers of a callback, signed as the vendor's page says."""
    given = {"accesskey": keys.access_key, "action": "webhook", "biztype": "2", "ts": TS, "algorithm": "md5", **headers}
    text = f"accessKey={given['accesskey']}&action={given['action']}&bizType={given['biztype']}&ts={given['ts']}"
    signed_part = text.encode(errors="surrogateescape") + (b"&body=" + content if content else b"")
    hash_name = "sha256" if given["algorithm"].lower() == "sha256" else "md5"
    digest = hashlib.new(hash_name, signed_part + f"&accessSecret={keys.access_secret}".encode())
    return {"sign": digest.hexdigest(), **given}


def check(headers: Mapping[str, str], content: bytes = BODY, *, now: float = AT, **options: Any) -> None:
    verify_callback(headers, content, KEYS, now=now, **options)


def refusal(headers: Mapping[str, str], content: bytes = BODY, **options: Any) -> CallbackVerificationError:
    with pytest.raises(CallbackVerificationError) as caught:
        check(headers, content, **options)
    return caught.value


@pytest.mark.parametrize("algorithm", ["md5", "MD5", "sha256", "SHA256", "Sha256", "sha-256", "crc32"])
@pytest.mark.parametrize(
    "content", [BODY, b"", b'{"name":"\xe7\x89\x9b"}', b"\xff\x00"], ids=["status", "empty", "牛", "raw"]
)
def test_what_the_vendor_has_signed_is_taken_for_the_vendors(algorithm: str, content: bytes) -> None:
    check(signed(content, algorithm=algorithm), content)


@pytest.mark.parametrize(
    ("body_text", "sign"),
    [
        ('{"name":"牛小信","id":10001}', "87c3560d3331ae23f1021e2025722354"),
        ('{"id":10001,"name":"牛小信"}', "7750759da06333f20d0640be09355e34"),
        ('{"id": 10001, "name": "牛小信"}', "d0c24a9886c629330d7f3f2056c65bc2"),
    ],
)
def test_the_vendors_published_signatures_are_right(body_text: str, sign: str) -> None:
    headers = {"accessKey": KEYS.access_key, "action": "send", "bizType": "1", "ts": TS, "algorithm": "md5"}
    check({**headers, "sign": sign}, body_text.encode())
    check({**headers, "sign": sign.upper()}, body_text.encode())


@pytest.mark.parametrize("change", [str.upper, str.title, str.lower])
def test_the_letter_case_of_header_names_and_of_the_signature_does_not_matter(change: Any) -> None:
    for algorithm in ("md5", "sha256"):
        headers = signed(algorithm=algorithm)
        headers["sign"] = headers["sign"].upper()
        check({change(name): value for name, value in headers.items()})


@pytest.mark.parametrize("name", ["accesskey", "action", "biztype", "ts", "algorithm", "sign"])
@pytest.mark.parametrize("absent", [True, False], ids=["absent", "empty"])
def test_every_header_must_be_there(name: str, absent: bool) -> None:
    headers = signed() | {name: ""}
    if absent:
        del headers[name]
    assert str(refusal(headers)) == f"the header {name} is missing or empty"


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}], ids=["none", "others"])
def test_a_callback_without_a_signature_is_refused_as_such(headers: dict[str, str]) -> None:
    assert str(refusal(headers)) == "the callback is not signed"


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(signed() | {"action": "mt"}, id="action"),
        pytest.param(signed() | {"biztype": "1"}, id="bizType"),
        pytest.param(signed() | {"ts": "1655710885432"}, id="ts"),
        pytest.param(signed() | {"algorithm": "sha256"}, id="algorithm"),
        pytest.param(signed(algorithm="sha256") | {"algorithm": "md5"}, id="algorithm, the other way"),
        pytest.param(signed() | {"sign": "0" * 32}, id="sign"),
        pytest.param(signed() | {"sign": signed()["sign"][:-1]}, id="sign, cut off"),
        pytest.param(signed(BODY + b" "), id="body"),
        pytest.param(signed(b""), id="no body"),
        pytest.param(signed(keys=Credentials(access_key=KEYS.access_key, access_secret="other")), id="secret"),
    ],
)
def test_what_was_changed_on_its_way_is_refused(forged: dict[str, str]) -> None:
    assert str(refusal(forged)) == "the signature is wrong"


def test_a_callback_to_another_account_is_refused() -> None:
    other = Credentials(access_key="other", access_secret=KEYS.access_secret)
    assert str(refusal(signed(keys=other))) == "the access key is that of another account"


@pytest.mark.parametrize("name", ["accesskey", "action", "biztype", "ts", "algorithm", "sign"])
@pytest.mark.parametrize("value", ["\udcff", "é", "\uff11655710885431"])
def test_a_header_that_is_no_ascii_is_refused(name: str, value: str) -> None:
    # Servers hand bytes that are no text over as lone surrogates.
    assert str(refusal(signed() | {name: value})) == "a header is not ASCII"


@pytest.mark.parametrize("ts", ["now", "-1655710885431", "1655710885.431", "9" * 16, " ", "1e12"])
def test_a_ts_that_is_no_time_is_refused(ts: str) -> None:
    assert str(refusal(signed(ts=ts))) == "the header ts is not a number of milliseconds"


@pytest.mark.parametrize(("seconds", "window", "passes"), [
    (0, 300, True), (300, 300, True), (-300, 300, True), (300.1, 300, False), (-300.1, 300, False),
    (10.1, 10, False), (-10, 10, True), (1e9, float("inf"), True), (0, float("nan"), False),
])  # fmt: skip
def test_an_old_or_early_callback_is_refused(seconds: float, window: float, passes: bool) -> None:
    if passes:
        check(signed(), now=AT + seconds, window=window)
    else:
        error = refusal(signed(), now=AT + seconds, window=window)
        assert str(error) == (
            f"the callback's ts differs from this machine's clock by more than {window} s (set the clock (NTP))"
        )


def test_the_time_is_the_machines_unless_another_is_given() -> None:
    with pytest.raises(CallbackVerificationError, match="by more than 300 s"):
        verify_callback(signed(), BODY, KEYS)
    verify_callback(signed(), BODY, KEYS, window=float("inf"))


def test_only_the_vendor_learns_that_the_time_is_wrong() -> None:
    assert str(refusal(signed() | {"sign": "0" * 32}, now=AT + 1e6)) == "the signature is wrong"


def test_md5_can_be_refused() -> None:
    check(signed(algorithm="sha256"), require_sha256=True)
    assert str(refusal(signed(), require_sha256=True)) == "the callback is not signed with SHA-256"


def test_a_body_that_is_much_too_long_is_refused() -> None:
    longest = b" " * MAX_CALLBACK_BYTES
    check(signed(longest), longest)
    assert "longer than 262144 bytes" in str(refusal(signed(longest + b" "), longest + b" "))


@pytest.mark.parametrize(
    "headers",
    [signed() | {"sign": "0" * 32}, signed(keys=Credentials(access_key="k", access_secret="s")), {}],
    ids=["sign", "account", "none"],
)
def test_a_refusal_shows_neither_the_keys_nor_the_right_signature(headers: dict[str, str]) -> None:
    error = refusal(headers)
    for shown in (str(error), repr(error), "".join(traceback.format_exception(error))):
        for secret in (KEYS.access_key, KEYS.access_secret, signed()["sign"]):
            assert secret not in shown


# ---------------------------------------------------------------------------------------------- is it news

_ORDER = ["queued", "sent", "delivered", "read"]


@pytest.mark.parametrize("status_now", [*_ORDER, "failed", "deleted"])
@pytest.mark.parametrize("to", [*_ORDER, "failed", "deleted"])
def test_a_status_goes_on_to_another_as_the_table_says(status_now: str, to: str) -> None:
    follows = {
        "queued": {"sent", "delivered", "read", "failed", "deleted"},
        "sent": {"delivered", "read", "failed", "deleted"},
        "delivered": {"read", "deleted"},
        "read": {"deleted"},
        "failed": set(),
        "deleted": set(),
    }
    assert advances(status_now, to) == (to in follows[status_now])


@pytest.mark.parametrize("status_now", [*_ORDER, "failed", "deleted", "played", ""])
def test_a_status_that_is_not_known_changes_nothing(status_now: str) -> None:
    assert not advances(status_now, "played")


@pytest.mark.parametrize(
    ("status_now", "wanted", "has"),
    [
        ("sent", "sent", True),
        ("sent", "delivered", False),
        ("delivered", "delivered", True),
        ("read", "delivered", True),
        ("delivered", "read", False),
        ("queued", "sent", False),
        ("failed", "read", True),
        ("deleted", "read", True),
        ("read", "failed", False),
        ("failed", "failed", True),
        ("sent", "played", False),
        ("played", "played", True),
        ("played", "sent", False),
    ],
)
def test_a_message_has_come_as_far_as_wanted_or_will_come_no_further(status_now: str, wanted: str, has: bool) -> None:
    assert reaches(status_now, wanted) == has


@given(st.permutations(["queued", "sent", "delivered", "read"]))
def test_whatever_the_order_of_arrival_the_end_is_the_same(arrivals: list[str]) -> None:
    now = "queued"
    for arrival in arrivals:
        if advances(now, arrival):
            now = arrival
    assert now == "read"


def test_nothing_follows_an_end() -> None:
    assert frozenset({"failed", "deleted"}) == TERMINAL_STATUSES


def test_a_conversation_is_handed_on() -> None:
    conversation = {"id": "c-1", "expiration_timestamp": "1660106400", "origin": {"type": "business_initiated"}}
    assert only_event(status(conversation=conversation)).conversation == conversation


# ---------------------------------------------------------------------------------------------- what it costs

COST = {"currency": "USD", "foreign_price": 0.02, "cdr_type": 6, "message_id": "wamid.1", "direction": 2}
IN_CNY = {**COST, "price": "0.1434", "cdr_type": 9}
ODD_NUMBERS: list[Any] = [None, True, "", "x", 6.5, "1e400", 1e300, [6], {}]
NO_COSTS: list[Any] = [None, 3, "USD", [[]]]
READ = Cost("USD", Decimal("0.02"), None, CdrType.AUTHENTICATION, "wamid.1", 2)
READ_IN_CNY = Cost("USD", Decimal("0.02"), Decimal("0.1434"), CdrType.INTERNATIONAL_AUTHENTICATION, "wamid.1", 2)


@pytest.mark.parametrize("place", ["status", "body"])
@pytest.mark.parametrize(
    ("fields", "costs"),
    [
        pytest.param({"cost": COST}, (READ,), id="an object"),
        pytest.param({"costs": [COST, IN_CNY]}, (READ, READ_IN_CNY), id="an array of two"),
        pytest.param({"costs": [IN_CNY], "cost": COST}, (READ_IN_CNY,), id="both"),
        pytest.param({"costs": [], "cost": COST}, (READ,), id="an empty array"),
        pytest.param({"costs": [None, "x", 3, COST]}, (READ,), id="odd entries"),
        pytest.param({"cost": {}}, (Cost(),), id="an empty object"),
        *(pytest.param({name: value}, (), id=f"{name} {value!r}") for name in ("cost", "costs") for value in NO_COSTS),
    ],
)
def test_what_a_message_costs_is_read_in_both_notations(place: str, fields: Any, costs: tuple[Cost, ...]) -> None:
    event = only_event(status(**fields)) if place == "status" else only_event(status(), **fields)
    assert event.costs == costs


def test_the_costs_of_a_status_come_before_those_of_the_body() -> None:
    assert only_event(status(cost=IN_CNY), costs=[COST]).costs == (READ_IN_CNY,)


def test_what_is_in_the_body_is_in_each_of_its_events() -> None:
    events = parse_callback(body(status("sent"), status("delivered"), cost=COST))
    assert [event.costs for event in events] == [(READ,), (READ,)]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0, Decimal(0)),
        (0.02, Decimal("0.02")),
        ("0.020", Decimal("0.020")),
        (-1, Decimal(-1)),
        ("1e-7", Decimal("1e-7")),
        *((odd, None) for odd in (None, True, "", "free", "nan", "inf", "-inf", [0.02], {"USD": 0.02})),
    ],
    ids=repr,
)
def test_a_price_is_a_decimal_where_it_is_a_number(value: object, number: Decimal | None) -> None:
    (cost,) = only_event(status(cost={"price": value, "foreign_price": value})).costs
    assert (cost.price, cost.foreign_price) == (number, number)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        *((kind.value, kind) for kind in CdrType),
        ("6", CdrType.AUTHENTICATION),
        (6.0, CdrType.AUTHENTICATION),
        (1, 1),
        (11, 11),
        *((odd, None) for odd in ODD_NUMBERS),
    ],
    ids=repr,
)
def test_a_kind_of_charge_is_known_or_a_number(value: object, kind: int | None) -> None:
    (cost,) = only_event(status(cost={"cdr_type": value})).costs
    assert cost.cdr_type == kind
    assert isinstance(cost.cdr_type, CdrType) == isinstance(kind, CdrType)


def test_the_kinds_of_charge_are_those_of_the_vendors_page() -> None:
    assert {kind.name: kind.value for kind in CdrType} == {
        "MARKETING": 4,
        "NOTIFICATION": 5,
        "AUTHENTICATION": 6,
        "SERVICE": 7,
        "FREE": 8,
        "INTERNATIONAL_AUTHENTICATION": 9,
        "MM_LITE": 10,
    }


@pytest.mark.parametrize("value", [None, 3, "USD", [{}]])
def test_a_conversation_of_another_type_is_none(value: object) -> None:
    event = only_event(status(conversation=value))
    assert event.conversation is None
    assert event.raw["conversation"] == value
