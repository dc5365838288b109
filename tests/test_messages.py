import copy
import pickle
import re
import string
import traceback
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nxotp_async import (
    ApiType,
    Category,
    InvalidMessageError,
    InvalidReason,
    Language,
    OtpMessage,
    SendResult,
    SendStatus,
)

NUMBER = "+999 555 0100"
CONTENT = "Your code is 004213."


def _made(**fields: Any) -> OtpMessage | InvalidMessageError:
    try:
        return OtpMessage(**fields)
    except InvalidMessageError as error:
        return error


def _refusal(**fields: Any) -> InvalidMessageError:
    """Return the error of a message that is good but for these fields."""
    error = _made(**({"to": NUMBER, "content": CONTENT} | fields))
    assert isinstance(error, InvalidMessageError), "the message was accepted"
    return error


# --------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("field", ["to", "business_phone"])
def test_a_number_is_checked_and_normalised(field: str) -> None:
    assert getattr(OtpMessage(NUMBER, CONTENT, business_phone=NUMBER), field) == "9995550100"
    error = _refusal(**{field: "009995550100"})
    assert str(error) == f"{field} starts with the dialling prefix 00 (write + in place of 00)"
    assert (error.field, error.hint) == (field, "write + in place of 00")


# --------------------------------------------------------------------------------------- content


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("0000", "0000"),
        ("004213", "004213"),
        ("12345678", "12345678"),
        ("Your code is 004213.", "004213"),
        ("004213 is your code", "004213"),
        ("G-004213", "004213"),
        ("a0042b", "0042"),
        ("Valid for 5 minutes, step 1 of 123: 004213", "004213"),
        ("12-34 5678", "5678"),
        ("ваш код: 004213 😀", "004213"),
        ("line\nbreak\t004213\x00", "004213"),
        ("'\"\\004213", "004213"),
        ("\u0663 and 004213", "004213"),
    ],
    ids=ascii,
)
def test_the_code_is_the_one_run_of_4_to_8_digits(content: str, code: str) -> None:
    message = OtpMessage(NUMBER, content)
    assert message.content == content
    assert message.code == code


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no code"),
        ("no digits at all", "no code"),
        ("123", "no code"),
        ("12-34", "no code"),
        ("1 2 3 4 5 6", "no code"),
        ("123 456", "no code"),
        ("123456789", "more than 8 digits"),
        ("123456789 or 1234", "more than 8 digits"),
        ("call 9995550100", "more than 8 digits"),
        ("1234 5678", "2 runs"),
        ("004213 004213", "2 runs"),
        ("1234 5678 9012", "3 runs"),
        ("004213, valid until 2030", "2 runs"),
        ("\u0661\u0662\u0663\u0664", "digits other than 0-9"),
        ("\uff10\uff10\uff14\uff12\uff11\uff13", "digits other than 0-9"),
        ("12\u06634", "digits other than 0-9"),
        ("\ud800 004213", "surrogate"),
    ],
    ids=ascii,
)
def test_content_without_exactly_one_code_is_refused_with_the_reason(content: str, reason: str) -> None:
    error = _refusal(content=content)
    assert error.field == "content"
    assert reason in str(error)


@pytest.mark.parametrize("number", [4213, 0, -1234, True, 10**30])
def test_an_int_is_no_content_because_it_has_lost_its_zeros(number: int) -> None:
    error = _refusal(content=number)
    assert error.field == "content"
    assert "lost its leading zeros" in str(error)
    assert '"004213"' in (error.hint or "")


without_digits = st.text(st.characters(exclude_categories=["Nd", "Cs"]), max_size=40)
codes = st.text(string.digits, min_size=4, max_size=8)
short_runs = st.text(string.digits, max_size=3)


@settings(deadline=None)
@given(before=without_digits, code=codes, after=without_digits, short=short_runs)
def test_any_text_with_a_single_run_yields_that_code(before: str, code: str, after: str, short: str) -> None:
    assert OtpMessage(NUMBER, f"{before}{code}{after}").code == code
    assert OtpMessage(NUMBER, f"{short}:{before}{code}{after}:{short}").code == code


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from("0123456789 -x\u0663\uff13")))
def test_content_is_accepted_only_where_the_code_is_beyond_doubt(content: str) -> None:
    candidates = [run for run in re.split("[^0-9]+", content) if len(run) >= 4]
    made = _made(to=NUMBER, content=content)
    if isinstance(made, OtpMessage):
        assert candidates == [made.code]
        assert 4 <= len(made.code) <= 8
    else:
        assert made.field == "content"
        # Digits of other scripts are reason enough; of ASCII ones there must be a reason that the vendor would have.
        assert not content.isascii() or len(candidates) != 1 or len(candidates[0]) > 8


# --------------------------------------------------------------------------------------- the other fields


def test_what_is_not_given_is_absent() -> None:
    message = OtpMessage(NUMBER, CONTENT)
    optional = attrs.asdict(message, filter=lambda field, _: field.name not in ("to", "content"))
    assert optional == {
        "language_code": None,
        "category": None,
        "cus_message_id": None,
        "dr_webhook": None,
        "api_type": None,
        "business_phone": None,
        "expires_at": None,
    }


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"to": 9995550100}, InvalidReason.WRONG_TYPE),
        ({"content": 482913}, InvalidReason.WRONG_TYPE),
        ({"content": "no digits"}, InvalidReason.NO_CODE),
        ({"content": "4829 4830"}, InvalidReason.SEVERAL_CODES),
        ({"content": "482913000"}, InvalidReason.TOO_LONG),
        ({"content": f"482913{'.' * 4096}"}, InvalidReason.TOO_LONG),
        ({"content": "\uff14\uff18\uff12\uff19"}, InvalidReason.INVALID_CHARACTER),
        ({"content": "482913 \ud800"}, InvalidReason.INVALID_CHARACTER),
        ({"language_code": "xx"}, InvalidReason.UNKNOWN_VALUE),
        ({"category": "MARKETING"}, InvalidReason.UNKNOWN_VALUE),
        ({"api_type": 2}, InvalidReason.UNKNOWN_VALUE),
        ({"cus_message_id": "x" * 129}, InvalidReason.TOO_LONG),
        ({"cus_message_id": "a\nb"}, InvalidReason.INVALID_CHARACTER),
        ({"dr_webhook": "/status"}, InvalidReason.INVALID_URL),
        ({"expires_at": "tomorrow"}, InvalidReason.WRONG_TYPE),
        ({"expires_at": datetime(2030, 1, 1)}, InvalidReason.INVALID_TIME),  # noqa: DTZ001 - that is what is wrong
    ],
    ids=ascii,
)
def test_the_reason_of_a_refusal_is_a_code(fields: dict[str, Any], reason: InvalidReason) -> None:
    error = _refusal(**fields)
    assert error.field in fields
    assert error.reason is reason


@pytest.mark.parametrize("language", ["pt-BR", "PT_br", " pt_BR ", Language.PT_BR], ids=repr)
def test_a_language_is_normalised(language: str) -> None:
    assert OtpMessage(NUMBER, CONTENT, language_code=language).language_code is Language.PT_BR


def test_an_unknown_language_is_refused_with_its_neighbours() -> None:
    error = _refusal(language_code="german")
    assert error.field == "language_code"
    assert "did you mean de (German)" in str(error)


@pytest.mark.parametrize("category", ["UTILITY", "utility", " Utility ", Category.UTILITY], ids=repr)
def test_a_category_is_normalised(category: str) -> None:
    assert OtpMessage(NUMBER, CONTENT, category=category).category is Category.UTILITY


@pytest.mark.parametrize("category", ["MARKETING", "", "UTILITY,AUTHENTICATION", 5, True, b"UTILITY"], ids=repr)
def test_other_categories_are_refused_with_the_choice(category: Any) -> None:
    error = _refusal(category=category)
    assert error.field == "category"
    assert str(error) == "category must be AUTHENTICATION or UTILITY"


@pytest.mark.parametrize(
    ("api_type", "member"), [(0, ApiType.CLOUD), (1, ApiType.MM_LITE), (ApiType.MM_LITE, ApiType.MM_LITE)]
)
def test_an_api_type_is_0_or_1(api_type: int, member: ApiType) -> None:
    assert OtpMessage(NUMBER, CONTENT, api_type=api_type).api_type is member


@pytest.mark.parametrize("api_type", [2, -1, True, False, 1.0, "0", b"1"], ids=repr)
def test_other_api_types_are_refused(api_type: Any) -> None:
    assert _refusal(api_type=api_type).field == "api_type"


@pytest.mark.parametrize("own_id", ["x", "order 17/a~", "x" * 128, "0042", " "], ids=lambda own_id: own_id[:12])
def test_an_own_id_of_printable_ascii_is_kept_as_it_is(own_id: str) -> None:
    assert OtpMessage(NUMBER, CONTENT, cus_message_id=own_id).cus_message_id == own_id


@pytest.mark.parametrize("own_id", ["", "x" * 129, "a\nb", "a\x7f", "a\x00", "\u00e9", "\uff11", 17, b"a"], ids=ascii)
def test_other_own_ids_are_refused(own_id: Any) -> None:
    error = _refusal(cus_message_id=own_id)
    assert error.field == "cus_message_id"
    assert "1 to 128 printable ASCII" in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com/otp?token=abc#part",
        "http://127.0.0.1:8080/status",
        "https://[2001:db8::1]:8443/",
        "HTTPS://EXAMPLE.COM/",
        "https://b\u00fccher.example/",
    ],
    ids=ascii,
)
def test_a_webhook_is_an_absolute_url_and_kept_as_it_is(url: str) -> None:
    assert OtpMessage(NUMBER, CONTENT, dr_webhook=url).dr_webhook == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/status",
        "//example.com/status",
        "/status",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https:///status",
        "https://:443/",
        "https:example.com",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:port/",
        "https://[2001:db8::1/",
        "https://exam ple.com/",
        " https://example.com/",
        "https://example.com/\n",
        "https://example.com/\x00",
        "https://example.com/\ud800",
        8080,
        b"https://example.com/",
    ],
    ids=ascii,
)
def test_other_webhooks_are_refused(url: Any) -> None:
    error = _refusal(dr_webhook=url)
    assert error.field == "dr_webhook"
    assert "absolute http or https URL" in str(error)


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-9, minutes=-30))], ids=str)
def test_an_expiry_with_a_time_zone_is_kept_as_it_is(zone: tzinfo) -> None:
    expires_at = datetime(2030, 1, 1, 12, 30, tzinfo=zone)
    assert OtpMessage(NUMBER, CONTENT, expires_at=expires_at).expires_at is expires_at


class _NoOffset(tzinfo):
    """A time zone that does not know how far it is from UTC: a time in it is as naive as without."""

    def utcoffset(self, dt: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


@pytest.mark.parametrize("zone", [None, _NoOffset()])
def test_an_expiry_without_a_time_zone_is_refused_with_a_hint(zone: tzinfo | None) -> None:
    error = _refusal(expires_at=datetime(2030, 1, 1, tzinfo=zone))
    assert error.field == "expires_at"
    assert "no time zone" in str(error)
    assert "timezone.utc" in (error.hint or "")


@pytest.mark.parametrize("expires_at", ["2030-01-01T00:00:00Z", 1_900_000_000, date(2030, 1, 1), timedelta(minutes=5)])
def test_an_expiry_is_a_datetime(expires_at: Any) -> None:
    error = _refusal(expires_at=expires_at)
    assert error.field == "expires_at"
    assert f"not {type(expires_at).__name__}" in str(error)


# --------------------------------------------------------------------------------------- whatever is passed

FIELDS = [field.name for field in attrs.fields(OtpMessage)]
REQUIRED = ["to", "content"]


@pytest.mark.parametrize("value", [9995550100, 90421.3, b"90421355501", ["90421355501"], {"90421355501": 1}], ids=repr)
@pytest.mark.parametrize("field", FIELDS)
def test_a_wrong_type_is_refused_by_name_without_the_value(field: str, value: Any) -> None:
    error = _refusal(**{field: value})
    assert error.field == field
    assert field in str(error)
    assert not re.search("9995550100|90421", repr(error))


@pytest.mark.parametrize("field", REQUIRED)
def test_a_required_field_is_not_none(field: str) -> None:
    error = _refusal(**{field: None})
    assert error.field == field
    assert "not NoneType" in str(error)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("to", "+999 555 0100 private"),
        ("content", "private 004213 and 9021"),
        ("category", "private"),
        ("cus_message_id", "private\n"),
        ("dr_webhook", "ftp://example.com/private"),
        ("business_phone", "private 9995550100"),
        ("expires_at", "private"),
        ("api_type", "private"),
    ],
)
def test_a_wrong_value_is_not_quoted(field: str, value: str) -> None:
    error = _refusal(**{field: value})
    assert error.field == field
    assert not re.search("private|004213|9021|555 ?0100", repr(error) + str(error))


class _Text(str):
    __slots__ = ()


def test_a_subclass_of_str_is_a_str() -> None:
    message = OtpMessage(_Text(NUMBER), _Text("004213"), language_code=_Text("pt-BR"), cus_message_id=_Text("a"))
    assert (message.to, message.code, message.cus_message_id) == ("9995550100", "004213", "a")
    assert message.language_code is Language.PT_BR


garbage = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.binary(max_size=20),
    st.text(max_size=20),
    st.text(st.characters(), max_size=20),  # half surrogates too
    st.text("0123456789+-() \u0663", max_size=20),
    st.sampled_from(["en", "pt-BR", "utility", "https://example.com", "https://[", NUMBER, CONTENT]),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
)


@settings(max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.fixed_dictionaries(dict.fromkeys(REQUIRED, garbage), optional=dict.fromkeys(FIELDS[2:], garbage)))
def test_garbage_gives_a_valid_message_or_an_invalid_message_error(fields: dict[str, Any]) -> None:
    made = _made(**fields)
    if isinstance(made, OtpMessage):
        assert re.fullmatch("[1-9][0-9]{6,14}", made.to)
        assert re.fullmatch("[0-9]{4,8}", made.code)
        assert OtpMessage(**{name: getattr(made, name) for name in FIELDS}) == made
    else:
        assert made.field in fields


# --------------------------------------------------------------------------------------- as a value

FULL = OtpMessage(
    NUMBER,
    CONTENT,
    language_code="pt-BR",
    category="utility",
    cus_message_id="order-17",
    dr_webhook="https://user:pass@example.com:8443/hook/TOKEN?key=TOKEN",
    api_type=1,
    business_phone="+44 7400 123456",
    expires_at=datetime(2030, 1, 1, tzinfo=UTC),
)


@pytest.mark.parametrize("name", [*FIELDS, "code", "something_new"])
def test_a_message_cannot_be_changed(name: str) -> None:
    before = attrs.asdict(FULL)
    with pytest.raises(AttributeError):
        setattr(FULL, name, "1234")
    assert attrs.asdict(FULL) == before
    assert not hasattr(FULL, "__dict__")


def test_messages_compare_and_hash_by_value() -> None:
    same = OtpMessage("9995550100", CONTENT, language_code="PT_br")
    assert OtpMessage(NUMBER, CONTENT, language_code=Language.PT_BR) == same
    assert len({same, OtpMessage(NUMBER, CONTENT, language_code="pt-BR"), OtpMessage(NUMBER, CONTENT)}) == 2


def test_only_the_number_and_the_content_go_by_position() -> None:
    with pytest.raises(TypeError):
        OtpMessage(NUMBER, CONTENT, "en")  # type: ignore[call-arg]


@pytest.mark.parametrize("show", [repr, str, lambda message: f"{[message]}"], ids=["repr", "str", "in a list"])
@pytest.mark.parametrize("wrap", [lambda message: message, lambda message: SendResult(message, SendStatus.UNKNOWN)])
def test_a_message_shows_neither_code_nor_number_nor_webhook(show: Any, wrap: Any) -> None:
    shown = show(wrap(FULL))
    for private in ("9995550100", "555010", "004213", "Your code", "TOKEN", "pass", "447400123456", "740012"):
        assert private not in shown


def test_a_message_shows_what_helps_to_find_it() -> None:
    shown = repr(FULL)
    for useful in ("99******00", "order-17", "pt_BR", "UTILITY", "example.com", "44********56", "2030"):
        assert useful in shown


def test_the_shortest_number_is_masked_too() -> None:
    assert "to=99***50," in repr(OtpMessage("9995550", CONTENT))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_message_refuses_to_be_pickled(protocol: int) -> None:
    for holder in (FULL, [FULL], SendResult(FULL, SendStatus.ACCEPTED, "wamid.1")):
        with pytest.raises(TypeError, match="refuses to be pickled"):
            pickle.dumps(holder, protocol)


def test_a_copy_of_a_message_is_the_message() -> None:
    assert copy.copy(FULL) is FULL
    assert copy.deepcopy(FULL) is FULL
    assert copy.deepcopy([FULL])[0] is FULL


def test_evolve_changes_a_field_and_normalises_it() -> None:
    evolved = attrs.evolve(FULL, to="+44 7400 123-457", language_code="zh-cn")
    assert (evolved.to, evolved.language_code) == ("447400123457", Language.ZH_CN)
    assert attrs.evolve(evolved, to=FULL.to, language_code=FULL.language_code) == FULL


@pytest.mark.parametrize(("field", "value"), [("to", "0"), ("content", "none"), ("api_type", 7), ("category", "x")])
def test_evolve_validates(field: str, value: Any) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        attrs.evolve(FULL, **{field: value})
    assert caught.value.field == field


DEFAULTS: dict[str, Any] = {
    "cus_message_id": "generated",
    "language_code": Language.DE,
    "dr_webhook": "https://example.com/default",
    "business_phone": "447700900999",
}


def test_defaults_fill_what_is_absent() -> None:
    message = OtpMessage(NUMBER, CONTENT, api_type=1, expires_at=FULL.expires_at)
    completed = message.with_defaults(**DEFAULTS)
    assert completed == attrs.evolve(message, **DEFAULTS)
    assert message.cus_message_id is None


def test_a_complete_message_needs_no_defaults() -> None:
    assert FULL.with_defaults(**DEFAULTS) == FULL


@pytest.mark.parametrize("field", DEFAULTS)
def test_a_default_does_not_replace_what_is_there(field: str) -> None:
    own = {field: getattr(FULL, field)}
    completed = OtpMessage(NUMBER, CONTENT, **own).with_defaults(**DEFAULTS)
    assert completed == OtpMessage(NUMBER, CONTENT, **(DEFAULTS | own))


# --------------------------------------------------------------------------------------- what a crash report shows

# Written backwards, so that no frame of a test holds the texts that are looked for.
PRIVATE_BACKWARDS = ["0010555999", "312400", "edoc tnerruc ruoy", "NEKOT", "321009007744"]
FULL_BACKWARDS = {
    "to": "0010555999",
    "content": "312400 si edoc tnerruc ruoy",
    "dr_webhook": "NEKOT/moc.elpmaxe//:sptth",
    "business_phone": "321009007744",
}
BAD_BACKWARDS = [
    ("to", "x0010555999"),
    ("to", "00105559990"),
    ("content", "312400 312400 edoc tnerruc ruoy"),
    ("content", "\ud800 312400 edoc tnerruc ruoy"),
    ("language_code", "312400"),
    ("category", "312400"),
    ("cus_message_id", "\n0010555999"),
    ("dr_webhook", "NEKOT/moc.elpmaxe//:ptf"),
    ("dr_webhook", "NEKOT/[//:sptth"),
    ("api_type", "312400"),
    ("business_phone", "x321009007744"),
    ("expires_at", "312400"),
]


def _fail(**backwards: str) -> InvalidMessageError:
    error = _made(**{name: value[::-1] for name, value in backwards.items()})
    assert isinstance(error, InvalidMessageError), "the message was accepted"
    return error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Follow an error to those behind it, the suppressed ones included: some crash reporters follow them too."""
    if error is not None:
        yield error
        yield from _chain(error.__cause__)
        yield from _chain(error.__context__)


def _library_locals(error: BaseException) -> str:
    """Return the local variables of the traceback's frames, without those of this module's own."""
    return "\n".join(
        f"{name} = {value!r}"
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_globals is not globals()
        for name, value in frame.f_locals.items()
    )


def _private(text: str) -> list[str]:
    return [private[::-1] for private in PRIVATE_BACKWARDS if private[::-1] in text]


@pytest.mark.parametrize(("field", "value"), BAD_BACKWARDS, ids=ascii)
def test_a_traceback_with_local_variables_shows_nothing_private(field: str, value: str) -> None:
    error = _fail(**(FULL_BACKWARDS | {field: value}))
    assert error.field == field
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert {frame.filename for frame in report.stack} == {__file__}, "no frame is the library's"
    report.stack.clear()
    assert _private("".join(report.format())) == []


@pytest.mark.parametrize(("field", "value"), BAD_BACKWARDS, ids=ascii)
def test_nothing_private_hangs_on_the_error_out_of_sight(field: str, value: str) -> None:
    error = _fail(**(FULL_BACKWARDS | {field: value}))
    for link in _chain(error):
        assert _private(repr(link) + repr(vars(link))) == []
        assert _private(_library_locals(link)) == []


@pytest.mark.parametrize("field", ["language", "to"])
def test_a_call_that_is_wrong_is_as_private(field: str) -> None:
    values: dict[str, Any] = {name: value[::-1] for name, value in FULL_BACKWARDS.items()}
    wrong: dict[str, Any] = {field: "en"}
    with pytest.raises(TypeError) as caught:
        OtpMessage(values.pop("to"), **values, **wrong)
    assert _private(str(caught.value) + _library_locals(caught.value)) == []


def test_swapped_arguments_are_as_private() -> None:
    error = _fail(to=FULL_BACKWARDS["to"], content="ne", language_code=FULL_BACKWARDS["content"])
    assert error.field == "content"
    assert _private(_library_locals(error)) == []


def test_a_content_longer_than_whatsapp_takes_is_refused() -> None:
    assert OtpMessage("9995550100", "482913".rjust(4096)).code == "482913"
    with pytest.raises(InvalidMessageError, match="longer than 4096 characters"):
        OtpMessage("9995550100", "482913".rjust(4097))
