import asyncio
import copy
import inspect
import pickle
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import nxotp_async
from nxotp_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    CallbackVerificationError,
    ConfigurationError,
    InputFileError,
    InvalidMessageError,
    InvalidReason,
    InvalidSignatureError,
    LedgerError,
    MetaError,
    NotSentError,
    NxOtpError,
    OtpContentError,
    OutboxFullError,
    OutcomeUnknownError,
    ParameterError,
    PermissionDeniedError,
    RefusalReason,
    StoreError,
    TemplateError,
    TimestampExpiredError,
    TransientApiError,
    TransportError,
    VerificationRefusedError,
    errors,
)
from nxotp_async.errors import sensitive_variables

TREE: dict[type[NxOtpError], tuple[type[Exception], ...]] = {
    NxOtpError: (Exception,),
    ConfigurationError: (NxOtpError,),
    InvalidMessageError: (NxOtpError, ValueError),
    ApiError: (NxOtpError,),
    AuthenticationError: (ApiError,),
    InvalidSignatureError: (AuthenticationError,),
    TimestampExpiredError: (AuthenticationError,),
    PermissionDeniedError: (AuthenticationError,),
    ParameterError: (ApiError,),
    TransientApiError: (ApiError,),
    AccountError: (ApiError,),
    TemplateError: (ApiError,),
    OtpContentError: (ApiError,),
    MetaError: (ApiError,),
    TransportError: (NxOtpError,),
    NotSentError: (TransportError,),
    OutcomeUnknownError: (TransportError,),
    CallbackVerificationError: (NxOtpError,),
    InputFileError: (NxOtpError,),
    LedgerError: (NxOtpError,),
    VerificationRefusedError: (NxOtpError,),
    OutboxFullError: (NxOtpError,),
    StoreError: (NxOtpError,),
}

# Every attribute, with a value that is not its default.
_CONTEXT: dict[str, Any] = {
    "hint": "do this next",
    "cus_message_id": "order-17",
    "attempts": 3,
    "code": 9099,
    "meta_code": 131056,
    "retry_after": 2.5,
}
_INVALID = {"field": "to", "reason": InvalidReason.EMPTY}
_API: dict[str, Any] = {"vendor_message": "WhatsApp error", "http_status": 418, "raw": '{"code":9099}'}
_META = {"meta_type": "OAuthException", "fbtrace_id": "AmCuD7s", "details": "Pair rate limit hit"}
_TIMESTAMP = {"clock_corrected": True}
_NOT_SENT = {"temporary": True}
_INPUT_FILE = {"line": 7}
_REFUSED = {"reason": RefusalReason.TOO_SOON}


def _attributes(kind: type[NxOtpError]) -> dict[str, Any]:
    """Return the attributes that an error of this class has."""
    own = {
        InvalidMessageError: _INVALID,
        ApiError: _API,
        MetaError: _META,
        TimestampExpiredError: _TIMESTAMP,
        NotSentError: _NOT_SENT,
        InputFileError: _INPUT_FILE,
        VerificationRefusedError: _REFUSED,
    }
    attributes = dict(_CONTEXT)
    for base, more in own.items():
        if issubclass(kind, base):
            attributes |= more
    return attributes


every_class = pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)


@every_class
def test_the_tree_is_as_drawn(kind: type[NxOtpError]) -> None:
    assert kind.__bases__ == TREE[kind]


def test_every_error_is_public_and_in_the_tree() -> None:
    public = {value for value in vars(nxotp_async).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert public == set(TREE)
    assert {kind.__name__ for kind in TREE} <= set(nxotp_async.__all__)
    assert all(kind is getattr(errors, kind.__name__) for kind in TREE)


@every_class
def test_an_error_holds_what_it_was_given(kind: type[NxOtpError]) -> None:
    error = kind("it went wrong", **_attributes(kind))
    assert vars(error) == _attributes(kind)
    assert error.args == ("it went wrong",)


@every_class
def test_an_error_needs_no_arguments(kind: type[NxOtpError]) -> None:
    error = kind()
    assert all(hasattr(error, name) for name in _attributes(kind))
    assert (error.cus_message_id, error.attempts) == (None, 0)
    assert (error.code, error.meta_code, error.retry_after) == (None, None, None)
    assert (error.hint is None) == (kind is not OutcomeUnknownError)
    assert str(error) == (f" ({error.hint})" if error.hint else "")


@every_class
def test_an_error_takes_no_attributes_of_others(kind: type[NxOtpError]) -> None:
    for name in {*_API, *_META, *_INVALID, *_TIMESTAMP, *_NOT_SENT, *_INPUT_FILE, "why", "_x"} - {*_attributes(kind)}:
        with pytest.raises(TypeError, match=f"^{kind.__name__} has no attribute '{name}'$"):
            kind("it went wrong", **{name: 1})


def test_the_defaults_claim_nothing() -> None:
    error = MetaError()
    assert (error.vendor_message, error.http_status, error.raw) == ("", 0, "")
    assert (error.meta_type, error.fbtrace_id, error.details) == ("", "", "")
    assert not TimestampExpiredError().clock_corrected
    assert not NotSentError().temporary
    assert InvalidMessageError().field == ""


@every_class
def test_the_text_includes_the_hint(kind: type[NxOtpError]) -> None:
    assert str(kind("it went wrong", hint=None)) == "it went wrong"
    assert str(kind("it went wrong", hint="do this next")) == "it went wrong (do this next)"


def test_an_unknown_outcome_says_what_to_do() -> None:
    assert "wait for its status callback before you send another" in str(OutcomeUnknownError("no answer"))


def test_a_hint_that_is_set_later_is_in_the_text_too() -> None:
    error = NotSentError("refused")
    error.hint = "start the server"
    assert str(error) == "refused (start the server)"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@every_class
def test_a_pickled_error_comes_back_whole(kind: type[NxOtpError], protocol: int) -> None:
    error = kind("it went wrong", **_attributes(kind))
    _assert_twins(error, pickle.loads(pickle.dumps(error, protocol)))


@every_class
def test_a_copied_error_is_whole(kind: type[NxOtpError]) -> None:
    error = kind("it went wrong", **_attributes(kind))
    _assert_twins(error, copy.copy(error))
    _assert_twins(error, copy.deepcopy(error))


def _assert_twins(error: NxOtpError, twin: NxOtpError) -> None:
    assert twin is not error
    assert type(twin) is type(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error)
    assert str(twin) == str(error)


@every_class
def test_an_error_passes_through_a_context_manager(kind: type[NxOtpError]) -> None:
    # contextlib sets the traceback of what it lets through, and that fails on exceptions that are frozen.
    @contextmanager
    def passage() -> Iterator[None]:
        yield

    error = kind("it went wrong", **_attributes(kind))
    with pytest.raises(kind) as caught, passage():
        raise error
    assert caught.value is error


def test_an_invalid_message_is_also_a_value_error() -> None:
    with pytest.raises(ValueError, match="it went wrong"):
        raise InvalidMessageError("it went wrong", field="to")


# ---------------------------------------------------------------------------------------------- tracebacks


@sensitive_variables
def _fail(secret: str, error: type[Exception]) -> None:
    copied = secret.upper()
    raise error(len(copied))


@sensitive_variables
async def _fail_later(secret: str, error: type[Exception]) -> None:
    """A docstring."""
    copied = secret.upper()
    await asyncio.sleep(0)
    raise error(len(copied))


@sensitive_variables
class _Fragile:
    def __init__(self, secret: str, error: type[Exception]) -> None:
        _fail(secret, error)


def _fail_in_a_loop(secret: str, error: type[Exception]) -> None:
    asyncio.run(_fail_later(secret, error))


def _frames(error: BaseException) -> dict[str, dict[str, Any]]:
    """Return the local variables of the frames that an error came through, those of this test left out."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = ("test_", "_fail_in_a_loop", "run")
    return {f.f_code.co_name: f.f_locals for f in frames if not f.f_code.co_name.startswith(own)}


every_kind_of_function = pytest.mark.parametrize("function", [_fail, _fail_in_a_loop, _Fragile])


@every_kind_of_function
def test_an_error_of_the_librarys_own_leaves_a_function_as_if_its_caller_had_raised_it(function: Any) -> None:
    with pytest.raises(NxOtpError) as caught:
        function("secret", NxOtpError)
    assert _frames(caught.value) == {}
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)


@every_kind_of_function
def test_any_other_error_leaves_it_with_its_frames_but_without_their_variables(function: Any) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        function("secret", ZeroDivisionError)
    frames = _frames(caught.value)
    assert frames
    assert all(variables == {} for variables in frames.values())


def test_a_wrong_call_shows_no_arguments() -> None:
    with pytest.raises(TypeError) as caught:
        _fail("secret", wrong=1)  # type: ignore[call-arg]
    assert _frames(caught.value) == {}


def test_a_decorated_function_is_still_the_same_to_look_at() -> None:
    assert inspect.iscoroutinefunction(_fail_later)
    assert (_fail_later.__name__, _fail_later.__doc__) == ("_fail_later", "A docstring.")
    assert [*inspect.signature(_fail_later).parameters] == ["secret", "error"]
