"""The message to send and the result that comes back."""

import re
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, NoReturn, Self

import attrs

from .errors import InvalidMessageError, NotSentError, NxOtpError, OutcomeUnknownError, without_frames
from .languages import Language
from .urls import is_http_url, mask_url

__all__ = ["ApiType", "Category", "OtpMessage", "SendResult", "SendStatus", "mask_number", "parse_number", "parse_url"]


class Category(StrEnum):
    """The template category. The vendor takes an absent one for ``AUTHENTICATION``."""

    AUTHENTICATION = "AUTHENTICATION"
    UTILITY = "UTILITY"


class ApiType(IntEnum):
    """Meta's API the vendor sends through. The vendor takes an absent one for ``CLOUD``."""

    CLOUD = 0
    MM_LITE = 1


class SendStatus(StrEnum):
    """What is known of a message after its last attempt."""

    ACCEPTED = "accepted"
    """The vendor accepted it and named its message id."""
    REJECTED = "rejected"
    """The vendor answered no."""
    NOT_SENT = "not_sent"
    """It provably never left this machine."""
    UNKNOWN = "unknown"
    """It may have been accepted: sending it again may deliver it twice."""

    @classmethod
    def of(cls, error: NxOtpError) -> "SendStatus":
        """Return what an error says of the message it was raised for."""
        match error:
            case OutcomeUnknownError():
                return cls.UNKNOWN
            case NotSentError() | InvalidMessageError():
                return cls.NOT_SENT
        return cls.REJECTED


def mask_number(number: str) -> str:
    """Return the number with all but its first two and last two characters starred."""
    return f"{number[:2]}{'*' * max(len(number) - 4, 3)}{number[-2:]}"


# What people put between the digits of a number: spaces (no-break and thin ones too), dots, hyphens and
# dashes, parentheses, and the invisible direction marks that come along when a number is copied from a contact.
_NUMBER_PUNCTUATION = str.maketrans(
    "", "", " \t\u00a0\u2007\u2009\u202f.-\u2010\u2011\u2012\u2013\u2212()\u200e\u200f\u202a\u202c"
)
_NUMBER_EXAMPLE = "write it with its country code, +86 139 1234 5678 for example"


def parse_number(value: object, field: str = "to") -> str:
    """Turn a phone number as people write it into E.164 digits, without the plus sign.

    Raises:
        InvalidMessageError: It is no E.164 number: 7 to 15 ASCII digits, the first of them not 0.
    """
    if not isinstance(value, str):
        raise InvalidMessageError(f"{field} must be a str, not {type(value).__name__}", field=field)
    if value.isascii() and value.isdigit() and 7 <= len(value) <= 15 and value[0] != "0":
        return value
    if "(0)" in value:
        raise InvalidMessageError(
            f"{field} holds a trunk prefix '(0)', which is not dialled from abroad", field=field, hint="leave it out"
        )
    digits = value.translate(_NUMBER_PUNCTUATION).removeprefix("+")
    if not digits:
        raise InvalidMessageError(f"{field} is empty", field=field, hint=_NUMBER_EXAMPLE)
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidMessageError(
            f"{field} holds something other than the ASCII digits 0-9 and number punctuation",
            field=field,
            hint=_NUMBER_EXAMPLE,
        )
    if digits.startswith("00"):
        raise InvalidMessageError(
            f"{field} starts with the dialling prefix 00", field=field, hint="write + in place of 00"
        )
    if digits.startswith("0"):
        raise InvalidMessageError(
            f"{field} starts with 0: the country code is missing", field=field, hint=_NUMBER_EXAMPLE
        )
    if not 7 <= len(digits) <= 15:
        raise InvalidMessageError(
            f"{field} has {len(digits)} digits; an E.164 number has 7 to 15", field=field, hint=_NUMBER_EXAMPLE
        )
    return digits


_MAX_CONTENT = 4096  # characters; the longest text WhatsApp takes
_DIGIT_RUN = re.compile(r"\d+")


def _parse_content(value: object) -> str:
    if not isinstance(value, str):
        why = ", which has lost its leading zeros" if isinstance(value, int) else ""
        raise InvalidMessageError(
            f"content must be a str, not {type(value).__name__}{why}", field="content", hint='write "004213", not 4213'
        )
    if len(value) > _MAX_CONTENT:
        raise InvalidMessageError(f"content is longer than {_MAX_CONTENT} characters", field="content")
    runs = _DIGIT_RUN.findall(value)
    if len(runs) == 1 and 4 <= len(runs[0]) <= 8 and value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidMessageError("content holds half of a surrogate pair, which is no text", field="content") from None
    runs = [run for run in runs if len(run) >= 4]
    if not runs:
        raise InvalidMessageError(
            "content holds no code", field="content", hint="it must hold exactly one run of 4 to 8 digits"
        )
    if any(not run.isascii() for run in runs):
        raise InvalidMessageError(
            "content holds digits other than 0-9, which the vendor would not find", field="content"
        )
    if any(len(run) > 8 for run in runs):
        raise InvalidMessageError(
            "content holds a run of more than 8 digits",
            field="content",
            hint="the vendor would guess which of them are the code",
        )
    if len(runs) > 1:
        raise InvalidMessageError(
            f"content holds {len(runs)} runs of 4 to 8 digits",
            field="content",
            hint="the vendor would guess which of them is the code",
        )
    return value


def _parse_language(value: object) -> Language:
    if isinstance(value, Language):
        return value
    if not isinstance(value, str):
        raise InvalidMessageError(f"language_code must be a str, not {type(value).__name__}", field="language_code")
    try:
        return Language.parse(value)
    except ValueError as error:
        raise InvalidMessageError(str(error), field="language_code") from None


def _parse_category(value: object) -> Category:
    if isinstance(value, Category):
        return value
    try:
        return Category(str(value).strip().upper())
    except ValueError:
        raise InvalidMessageError("category must be " + " or ".join(Category), field="category") from None


def _parse_api_type(value: object) -> ApiType:
    if isinstance(value, ApiType):
        return value
    if type(value) is int and value in (0, 1):
        return ApiType(value)
    raise InvalidMessageError("api_type must be 0 (Cloud API) or 1 (MM Lite API)", field="api_type")


def _parse_cus_message_id(value: object) -> str:
    if isinstance(value, str) and 1 <= len(value) <= 128 and value.isascii() and value.isprintable():
        return value
    raise InvalidMessageError("cus_message_id must be 1 to 128 printable ASCII characters", field="cus_message_id")


def parse_url(value: object, field: str = "dr_webhook") -> str:
    """Check that the value is an absolute http or https URL, and return it.

    Raises:
        InvalidMessageError: It is not.
    """
    if isinstance(value, str) and is_http_url(value):
        return value
    raise InvalidMessageError(
        f"{field} must be an absolute http or https URL", field=field, hint="https://example.com/a for example"
    )


def _parse_expires_at(value: object) -> datetime:
    if not isinstance(value, datetime):
        raise InvalidMessageError(f"expires_at must be a datetime, not {type(value).__name__}", field="expires_at")
    if value.utcoffset() is None:
        raise InvalidMessageError(
            "expires_at has no time zone", field="expires_at", hint="datetime.now(timezone.utc) + timedelta(minutes=5)"
        )
    return value


@attrs.frozen(init=False)
class OtpMessage:
    """One OTP to send. Validated at construction, immutable, and masked in its ``repr``.

    Args:
        to: The recipient's WhatsApp number as people write it; stored as E.164 digits.
        content: Text that holds the code: exactly one run of 4 to 8 ASCII digits. The vendor extracts it. At most
            4096 characters.
        language_code: The template's language; ``None`` takes the client's default.
        category: The template category; ``None`` leaves it to the vendor (``AUTHENTICATION``).
        cus_message_id: Your own id, 1 to 128 printable ASCII characters, globally unique. It comes back as the
            message id and in every status callback. ``None`` lets the client generate an unguessable one.
        dr_webhook: The absolute URL for this message's status callbacks; ``None`` takes the client's default.
        api_type: 0 for Meta's Cloud API, 1 for MM Lite; ``None`` leaves it to the vendor (0).
        business_phone: The sending WhatsApp number; ``None`` takes the client's default.
        expires_at: When the code stops being valid, with a time zone. It is not sent after that.

    Raises:
        InvalidMessageError: A value cannot be sent; ``error.field`` names it.
    """

    to: str = attrs.field(repr=mask_number)
    content: str = attrs.field(repr=lambda _: "'***'")
    language_code: Language | None = attrs.field(default=None, repr=lambda value: repr(value and str(value)))
    category: Category | None = attrs.field(default=None, repr=lambda value: repr(value and str(value)))
    cus_message_id: str | None = None
    # The path may be a secret token: it is what keeps strangers out of an unsigned callback receiver.
    dr_webhook: str | None = attrs.field(default=None, repr=lambda value: repr(value and mask_url(value)))
    api_type: ApiType | None = None
    business_phone: str | None = attrs.field(default=None, repr=lambda value: repr(value and mask_number(value)))
    expires_at: datetime | None = None

    def __init__(
        self,
        to: str,
        content: str,
        *,
        language_code: Language | str | None = None,
        category: Category | str | None = None,
        cus_message_id: str | None = None,
        dr_webhook: str | None = None,
        api_type: ApiType | int | None = None,
        business_phone: str | None = None,
        expires_at: datetime | None = None,
    ) -> None:
        try:
            self.__attrs_init__(
                parse_number(to),
                _parse_content(content),
                None if language_code is None else _parse_language(language_code),
                None if category is None else _parse_category(category),
                None if cus_message_id is None else _parse_cus_message_id(cus_message_id),
                None if dr_webhook is None else parse_url(dr_webhook),
                None if api_type is None else _parse_api_type(api_type),
                None if business_phone is None else parse_number(business_phone, "business_phone"),
                None if expires_at is None else _parse_expires_at(expires_at),
            )
            return
        except InvalidMessageError as error:
            failure = without_frames(error)
        # This frame is in the error's traceback too, and a code may have come as any of its arguments.
        del self, to, content, language_code, category, cus_message_id
        del dr_webhook, api_type, business_phone, expires_at
        raise failure

    @property
    def code(self) -> str:
        """The OTP code: the one run of 4 to 8 digits in the content."""
        return next(run.group() for run in _DIGIT_RUN.finditer(self.content) if len(run.group()) >= 4)

    @classmethod
    def restored(
        cls,
        to: str,
        content: str,
        *,
        language_code: Language | None = None,
        category: Category | None = None,
        cus_message_id: str | None = None,
        dr_webhook: str | None = None,
        api_type: ApiType | None = None,
        business_phone: str | None = None,
        expires_at: datetime | None = None,
    ) -> Self:
        """Return a message with the attributes of one that was validated before, without validating them again.

        For a store that reads back what it has written itself. Everything else belongs into the constructor.
        """
        message = object.__new__(cls)
        message.__attrs_init__(
            to, content, language_code, category, cus_message_id, dr_webhook, api_type, business_phone, expires_at
        )
        return message

    def with_defaults(
        self, *, cus_message_id: str, language_code: Language, dr_webhook: str | None, business_phone: str | None
    ) -> "OtpMessage":
        """Return the message with its absent fields filled in from values that are already valid."""
        # attrs.evolve would check every field again, which takes longer than to sign the message.
        completed: OtpMessage = object.__new__(OtpMessage)
        completed.__attrs_init__(
            self.to,
            self.content,
            self.language_code or language_code,
            self.category,
            self.cus_message_id or cus_message_id,
            self.dr_webhook or dr_webhook,
            self.api_type,
            self.business_phone or business_phone,
            self.expires_at,
        )
        return completed

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("an OtpMessage holds a live code and refuses to be pickled; pass its cus_message_id on instead")


@attrs.frozen
class SendResult:
    """What became of one message.

    Attributes:
        message: The message as it was sent: with its ``cus_message_id`` and the client's defaults filled in.
        status: What is known of it.
        message_id: The vendor's id for it, or ``None`` unless accepted.
        attempts: How many POSTs were begun for it.
        elapsed: Seconds from the call to the outcome, waiting included.
        error: Why it was not accepted, or ``None``.
    """

    message: OtpMessage
    status: SendStatus
    message_id: str | None = None
    attempts: int = 0
    elapsed: float = 0.0
    error: NxOtpError | None = None
