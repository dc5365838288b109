"""Every error the library raises.

    NxOtpError                      .cus_message_id .attempts .hint .code .result
    ├── ConfigurationError          a setting is missing or wrong
    ├── InvalidMessageError         (also a ValueError) .field .reason
    ├── ApiError                    .code .vendor_message .http_status .raw: the vendor said no
    │   ├── AuthenticationError     1000-1009
    │   │   ├── InvalidSignatureError   1003
    │   │   ├── TimestampExpiredError   1004
    │   │   └── PermissionDeniedError   1005
    │   ├── ParameterError          1002, 9000
    │   ├── TransientApiError       -1, 9001, HTTP 429: after the last attempt
    │   ├── AccountError            no message of this account can pass
    │   ├── TemplateError           9014, 10005
    │   ├── OtpContentError         9015
    │   └── MetaError               9099: WhatsApp's own error
    ├── TransportError
    │   ├── NotSentError            it provably never left
    │   └── OutcomeUnknownError     it may have been accepted
    ├── CallbackVerificationError   a status callback is not the vendor's
    ├── InputFileError              .line: a file of messages is refused as a whole
    ├── LedgerError                 .in_use: a bulk run's ledger cannot be used
    ├── VerificationRefusedError    .reason: no message is sent to verify a number
    ├── OutboxFullError             too many messages of a sender are queued
    └── StoreError                  a store that processes share did not do what was asked

All of them are plain exceptions that pickle, without their ``result``. They hold plain data only, and never a secret,
an OTP code or a full phone number.
"""

import functools
import traceback
from collections.abc import Callable
from enum import StrEnum
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from .results import SendResult

__all__ = [
    "AccountError",
    "ApiError",
    "AuthenticationError",
    "CallbackVerificationError",
    "ConfigurationError",
    "InputFileError",
    "InvalidMessageError",
    "InvalidReason",
    "InvalidSignatureError",
    "LedgerError",
    "MetaError",
    "NotSentError",
    "NxOtpError",
    "OtpContentError",
    "OutboxFullError",
    "OutcomeUnknownError",
    "ParameterError",
    "PermissionDeniedError",
    "RefusalReason",
    "StoreError",
    "TemplateError",
    "TimestampExpiredError",
    "TransientApiError",
    "TransportError",
    "VerificationRefusedError",
    "sensitive_variables",
    "without_frames",
]


_Error = TypeVar("_Error", bound="NxOtpError")
_Function = TypeVar("_Function", bound=Callable[..., Any])


class NxOtpError(Exception):
    """Base of every error of this library. It is made of a text, and of values for its attributes by name.

    Attributes:
        hint: What to do next, or ``None``. It is part of ``str(error)``.
        cus_message_id: The message's own id, or ``None`` where no message was concerned.
        attempts: How many POSTs were begun for the message.
        code: The vendor's code, or ``None`` where the answer had none, or there was none.
        meta_code: Meta's own code inside the vendor's 9099, or ``None`` where the answer had none.
        retry_after: Seconds to wait before the next try, as the server or a limit says, or ``None``.
        result: The whole result of the send that raised it, or ``None`` where nothing was sent. It is lost in a pickle.
    """

    hint: str | None = None
    cus_message_id: str | None = None
    attempts: int = 0
    code: int | None = None
    meta_code: int | None = None
    retry_after: float | None = None
    result: "SendResult | None" = None

    def __init__(self, message: str = "", **attributes: Any) -> None:  # noqa: ANN401 - each has its own type
        super().__init__(message)
        for name, value in attributes.items():
            if name.startswith("_") or not hasattr(self, name):
                raise TypeError(f"{type(self).__name__} has no attribute {name!r}")
            setattr(self, name, value)

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.hint})" if self.hint else message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {name: value for name, value in self.__dict__.items() if name != "result"}


class ConfigurationError(NxOtpError):
    """A client setting is missing or wrong. The text names the argument and its environment variable."""


class InvalidReason(StrEnum):
    """Why a message cannot be sent: codes that stay the same, for an application to translate."""

    MISSING = "missing"
    """There is no value."""
    WRONG_TYPE = "wrong_type"
    """The value has the wrong Python type."""
    UNKNOWN_VALUE = "unknown_value"
    """The value is none of those there are: a language, a category, a region."""
    EMPTY = "empty"
    """A number without a digit."""
    INVALID_CHARACTER = "invalid_character"
    """Something that does not belong into a number, an id or a text."""
    NATIONAL_NUMBER = "national_number"
    """A number without its country code, as far as can be told."""
    DIALLING_PREFIX = "dialling_prefix"
    """A number with 00 in place of the plus sign."""
    TRUNK_PREFIX = "trunk_prefix"
    """A number with a prefix that is dialled only within its country."""
    WRONG_LENGTH = "wrong_length"
    """A number with too few or too many digits."""
    INVALID_NUMBER = "invalid_number"
    """No such number can exist; told only where the phonenumbers package is installed."""
    AMBIGUOUS_NUMBER = "ambiguous_number"
    """A number that is valid with and without its first digits as a country code."""
    NO_CODE = "no_code"
    """A content without a run of 4 to 8 digits."""
    SEVERAL_CODES = "several_codes"
    """A content with more than one run of digits that could be the code."""
    TOO_LONG = "too_long"
    """A content of more than 4096 characters, an id of more than 128, a code of more than 8 digits."""
    INVALID_URL = "invalid_url"
    """No absolute http or https URL."""
    INVALID_TIME = "invalid_time"
    """No time, or one without a time zone."""
    DUPLICATE = "duplicate"
    """The id of another message."""
    INVALID = "invalid"
    """Another reason."""


class InvalidMessageError(NxOtpError, ValueError):
    """A message cannot be sent as it stands; nothing of it left.

    Attributes:
        field: The field of `OtpMessage`, or the argument, at fault.
        reason: Why, as a code for the application; the text is for its developers.
    """

    field: str = ""
    reason: InvalidReason = InvalidReason.INVALID


class ApiError(NxOtpError):
    """The vendor answered, and the answer is no: the message was not accepted.

    Attributes:
        vendor_message: The vendor's own text, redacted.
        http_status: The HTTP status of the answer.
        raw: The body of the answer as text, redacted and cut to a few kilobytes.
    """

    vendor_message: str = ""
    http_status: int = 0
    raw: str = ""


class AuthenticationError(ApiError):
    """Codes 1000-1009: the vendor does not accept the request's key, time or signature."""


class InvalidSignatureError(AuthenticationError):
    """Code 1003: the signature does not match the body and the secret."""


class TimestampExpiredError(AuthenticationError):
    """Code 1004: the timestamp is more than 60 seconds away from the vendor's clock.

    Attributes:
        clock_corrected: Whether the client has learnt the vendor's clock from this refusal, so that the next timestamp
            may pass.
    """

    clock_corrected: bool = False


class PermissionDeniedError(AuthenticationError):
    """Code 1005: the access key is wrong, or the account lacks the OTP business."""


class ParameterError(ApiError):
    """Codes 1002 and 9000: the vendor misses a parameter or refuses one."""


class TransientApiError(ApiError):
    """Codes -1 and 9001, and HTTP 429: the vendor was briefly unwell, and still was at the last attempt."""


class AccountError(ApiError):
    """Codes 9002-9006, 9013 and 10003: no message of this account can pass until it is mended."""


class TemplateError(ApiError):
    """Codes 9014 and 10005: the account has no usable template for this category or language."""


class OtpContentError(ApiError):
    """Code 9015: the vendor found no code in the content."""


class MetaError(ApiError):
    """Code 9099: WhatsApp itself refused the message.

    Attributes:
        meta_type: Meta's error type, ``OAuthException`` for example.
        fbtrace_id: The id to quote to Meta's support.
        details: Meta's explanation, redacted.
    """

    meta_type: str = ""
    fbtrace_id: str = ""
    details: str = ""


class TransportError(NxOtpError):
    """No usable answer came. The two subclasses say whether the message may have gone out."""


class NotSentError(TransportError):
    """No byte of the request left this machine: DNS, refused, TLS, connect timeout, or no time was left.

    Attributes:
        temporary: Whether another attempt may help. It may not where a certificate is wrong or time ran out.
    """

    temporary: bool = False


class OutcomeUnknownError(TransportError):
    """Bytes of the request may have left, and no trustworthy answer came: the message may have been accepted.

    It is never sent again by itself. A status callback for its ``cus_message_id`` proves that it went out.
    """

    hint = "the message may have been accepted; wait for its status callback before you send another"


class CallbackVerificationError(NxOtpError):
    """A status callback could not be verified as the vendor's."""


class InputFileError(NxOtpError):
    """A file of messages is of no known format, or cannot be read to its end; it is refused as a whole.

    Attributes:
        line: The line at fault, from 1, or ``None`` where it is not a line's.
    """

    line: int | None = None


class LedgerError(NxOtpError):
    """A bulk run's ledger cannot be used: another process has it, it is no ledger, or it cannot be written.

    Attributes:
        in_use: Whether that is because another process has it.
    """

    in_use: bool = False


class RefusalReason(StrEnum):
    """Why no message is sent to verify a number: codes that stay the same, for an application to translate."""

    COUNTRY = "country"
    """A number of a country that is not named in ``countries``, or whose country cannot be told."""
    NOT_MOBILE = "not_mobile"
    """A number of a fixed line, or another one that no person receives messages on."""
    UNDELIVERABLE = "undeliverable"
    """WhatsApp cannot deliver to this number: it is not on WhatsApp, for example. Offer another way."""
    NUMBER_LIMIT = "number_limit"
    """Too many verifications of this number."""
    IP_LIMIT = "ip_limit"
    """Too many verifications from this IP address."""
    PREFIX_LIMIT = "prefix_limit"
    """Too many messages to numbers that differ in the last four digits only."""
    COUNTRY_LIMIT = "country_limit"
    """Too many messages to this country."""
    BUDGET = "budget"
    """The messages of the day are used up."""
    LOW_CONVERSION = "low_conversion"
    """Too few of the verifications of this prefix or country were approved lately."""
    TOO_SOON = "too_soon"
    """The message was sent a moment ago."""
    NO_RESENDS_LEFT = "no_resends_left"
    """The message was sent again as often as it may be."""
    NOT_PENDING = "not_pending"
    """The verification has ended, or there is none with this id."""


class VerificationRefusedError(NxOtpError):
    """No message is sent to verify a number. ``retry_after`` says in how many seconds one could be, if that is known.

    Attributes:
        reason: Why, as a code for the application; the text is for its developers.
    """

    reason: RefusalReason = RefusalReason.NOT_PENDING


class OutboxFullError(NxOtpError):
    """Too many messages of this sender are queued already. Nothing was enqueued; the caller's transaction goes on."""


class StoreError(NxOtpError):
    """A store did not answer in time, or could not be reached: what was asked of it may have been done or not.

    Nothing that was stored is lost by it. A receiver of callbacks answers 503, so that the vendor sends them again.
    """


# ---------------------------------------------------------------------------------------------- tracebacks

# Error reporters print the local variables of every frame that an error has come through, and some of ours hold a code,
# a number or a secret.


def without_frames(error: _Error) -> _Error:
    """Return the error without its traceback and what it came from."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def sensitive_variables(function: _Function) -> _Function:
    """Keep the variables of a function, and of all that it calls, out of the traceback of what it raises.

    An error of the library's own leaves as if the caller had raised it, and a cancellation or any other error with the
    frames of what was called, but without their variables. Of a class, the constructor is meant.
    """
    if isinstance(function, type):  # mypy would take an attrs class with a decorated constructor for another class
        function.__init__ = sensitive_variables(function.__init__)  # type: ignore[misc] # that is what a decorator does
        return function

    async def call_coroutine(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - those of the function
        try:
            return await function(*args, **kwargs)
        except BaseException as error:
            _hide_variables(error)
            raise

    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - those of the function
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            _hide_variables(error)
            raise

    return cast("_Function", functools.wraps(function)(call_coroutine if iscoroutinefunction(function) else call))


def _hide_variables(error: BaseException) -> None:
    if isinstance(error, NxOtpError):
        without_frames(error)
    elif error.__traceback__ is not None:
        error.__traceback__ = error.__traceback__.tb_next  # without the frame above, which cannot be cleared yet
        traceback.clear_frames(error.__traceback__)
