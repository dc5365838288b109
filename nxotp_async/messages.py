"""The message to send."""

import re
from collections.abc import Callable
from datetime import datetime
from enum import IntEnum, StrEnum
from functools import partial
from typing import Any, NoReturn, Self, TypeVar

import attrs

from .checks import InvalidValueError, instance_of
from .errors import ConfigurationError, InvalidMessageError, InvalidReason, sensitive_variables
from .languages import Language
from .phone_numbers import VERIFICATION_EXTRA, load_numbering_plans, mask_number, parse_number, parse_region
from .urls import mask_url, parse_url

__all__ = ["ApiType", "Category", "OtpMessage", "check_field"]

_T = TypeVar("_T")


class Category(StrEnum):
    """The template category. The vendor takes an absent one for ``AUTHENTICATION``."""

    AUTHENTICATION = "AUTHENTICATION"
    UTILITY = "UTILITY"


class ApiType(IntEnum):
    """Meta's API the vendor sends through. The vendor takes an absent one for ``CLOUD``."""

    CLOUD = 0
    MM_LITE = 1


_MAX_CONTENT = 4096  # characters; the longest text WhatsApp takes
_DIGIT_RUN = re.compile(r"\d+")


def _parse_content(value: object) -> str:
    if not isinstance(value, str):
        why = ", which has lost its leading zeros" if isinstance(value, int) else ""
        problem = f"must be a str, not {type(value).__name__}{why}"
        raise InvalidValueError(problem, 'write "004213", not 4213', InvalidReason.WRONG_TYPE)
    if len(value) > _MAX_CONTENT:
        raise InvalidValueError(f"is longer than {_MAX_CONTENT} characters", reason=InvalidReason.TOO_LONG)
    runs = _DIGIT_RUN.findall(value)
    if len(runs) == 1 and 4 <= len(runs[0]) <= 8 and value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        problem = "holds half of a surrogate pair, which is no text"
        raise InvalidValueError(problem, reason=InvalidReason.INVALID_CHARACTER) from None
    runs = [run for run in runs if len(run) >= 4]
    if not runs:
        raise InvalidValueError("holds no code", "it must hold exactly one run of 4 to 8 digits", InvalidReason.NO_CODE)
    if not all(run.isascii() for run in runs):
        problem = "holds digits other than 0-9, which the vendor would not find"
        raise InvalidValueError(problem, reason=InvalidReason.INVALID_CHARACTER)
    if any(len(run) > 8 for run in runs):
        problem = "holds a run of more than 8 digits"
        raise InvalidValueError(problem, "the vendor would guess which of them are the code", InvalidReason.TOO_LONG)
    if len(runs) > 1:
        problem = f"holds {len(runs)} runs of 4 to 8 digits"
        raise InvalidValueError(
            problem, "the vendor would guess which of them is the code", InvalidReason.SEVERAL_CODES
        )
    return value


def _parse_category(value: object) -> Category:
    try:
        return Category(str(value).strip().upper())
    except ValueError:
        raise InvalidValueError("must be " + " or ".join(Category), reason=InvalidReason.UNKNOWN_VALUE) from None


def _parse_api_type(value: object) -> ApiType:
    if type(value) in (int, ApiType) and value in (0, 1):
        return ApiType(value)
    raise InvalidValueError("must be 0 (Cloud API) or 1 (MM Lite API)", reason=InvalidReason.UNKNOWN_VALUE)


def _parse_cus_message_id(value: object) -> str:
    if isinstance(value, str) and 1 <= len(value) <= 128 and value.isascii() and value.isprintable():
        return value
    is_too_long = isinstance(value, str) and len(value) > 128
    reason = InvalidReason.TOO_LONG if is_too_long else InvalidReason.INVALID_CHARACTER
    raise InvalidValueError("must be 1 to 128 printable ASCII characters", reason=reason)


def _parse_expires_at(value: object) -> datetime:
    expires_at = instance_of(datetime)(value)
    if expires_at.utcoffset() is None:
        hint = "datetime.now(timezone.utc) + timedelta(minutes=5)"
        raise InvalidValueError("has no time zone", hint, InvalidReason.INVALID_TIME)
    return expires_at


def check_field(field: str, check: Callable[[object], _T], value: object) -> _T:
    """Return what a check makes of a value for a field of `OtpMessage`.

    Raises:
        InvalidMessageError: The check refuses the value; ``error.field`` names the field.
    """
    try:
        return check(value)
    except InvalidValueError as refused:
        text = f"{field} {refused.problem}"
        raise InvalidMessageError(text, field=field, hint=refused.hint, reason=refused.reason) from None


@sensitive_variables
@attrs.frozen(init=False)
class OtpMessage:
    """One OTP to send. Validated at construction, immutable, and masked in its ``repr``.

    Args:
        to: The recipient's WhatsApp number as people write it, with + and its country code; stored as E.164 digits.
            Digits alone are taken for such a number, too.
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
        default_region: Whose national numbers to expect in ``to`` where there is no +: the two letters of a country,
            ``US`` for example. It needs the extra ``verification``, and is not part of the message.

    Raises:
        InvalidMessageError: A value cannot be sent; ``error.field`` names it, and ``error.reason`` says why.
        ConfigurationError: ``default_region`` is given, and the phonenumbers package is not installed.
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
        default_region: str | None = None,
    ) -> None:
        if default_region is not None and load_numbering_plans() is None:
            raise ConfigurationError("default_region needs the phonenumbers package", hint=VERIFICATION_EXTRA)
        region = None if default_region is None else check_field("default_region", parse_region, default_region)
        self.__attrs_init__(
            check_field("to", parse_number if region is None else partial(parse_number, default_region=region), to),
            check_field("content", _parse_content, content),
            None if language_code is None else check_field("language_code", Language.parse, language_code),
            None if category is None else check_field("category", _parse_category, category),
            None if cus_message_id is None else check_field("cus_message_id", _parse_cus_message_id, cus_message_id),
            None if dr_webhook is None else check_field("dr_webhook", parse_url, dr_webhook),
            None if api_type is None else check_field("api_type", _parse_api_type, api_type),
            None if business_phone is None else check_field("business_phone", parse_number, business_phone),
            None if expires_at is None else check_field("expires_at", _parse_expires_at, expires_at),
        )

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
