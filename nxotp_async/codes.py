"""The vendor's response codes: what each means, what to do about it, and which error it becomes."""

from enum import IntEnum
from typing import Self

from .errors import (
    AccountError,
    ApiError,
    AuthenticationError,
    InvalidSignatureError,
    MetaError,
    OtpContentError,
    ParameterError,
    PermissionDeniedError,
    TemplateError,
    TimestampExpiredError,
    TransientApiError,
)

__all__ = ["ResponseCode", "error_class"]


class ResponseCode(IntEnum):
    """A code of the vendor's tables ("WhatsApp API otp" and "WhatsApp API mt").

    Attributes:
        meaning: The vendor's meaning of it.
        advice: What to do about it, one sentence without a full stop.
        error_class: The error it becomes.
    """

    meaning: str
    advice: str
    error_class: type[ApiError]

    def __new__(cls, code: int, error: type[ApiError], meaning: str, advice: str) -> Self:  # noqa: D102 - how an enum is constructed is its own affair
        member = int.__new__(cls, code)
        member._value_ = code
        member.error_class = error
        member.meaning = meaning
        member.advice = advice
        return member

    @classmethod
    def find(cls, code: int) -> "ResponseCode | None":
        """Return the member with this code, or ``None`` where no table of the vendor lists it."""
        return _BY_CODE.get(code)

    SUCCESS = 0, ApiError, "request successful", "nothing to do"
    REQUEST_FAILED = (
        -1,
        TransientApiError,
        "request failed",
        "usually passes by itself; contact NXCloud support where it stays",
    )
    MISSING_PARAMETERS = (
        1001,
        AuthenticationError,
        "missing parameters",
        "all of the headers accessKey, ts, bizType, action and sign must arrive; look for a proxy that drops headers",
    )
    PARAMETER_ERROR = 1002, ParameterError, "parameter error", "check bizType and action, and the body's fields"
    INVALID_SIGNATURE = (
        1003,
        InvalidSignatureError,
        "invalid signature",
        "check the access secret first; then look for a proxy that alters the body or the Content-Type",
    )
    TIMESTAMP_EXPIRED = (
        1004,
        TimestampExpiredError,
        "timestamp expired",
        "set this machine's clock (NTP): it must be within 60 seconds of the vendor's",
    )
    INSUFFICIENT_PERMISSIONS = (
        1005,
        PermissionDeniedError,
        "insufficient permissions",
        "check the access key, and that the account has the WhatsApp OTP business",
    )
    PARAMETER_EXCEPTION = 9000, ParameterError, "parameter exception", "a required field of the body is missing"
    SYSTEM_ERROR = (
        9001,
        TransientApiError,
        "system business error",
        "usually passes by itself; contact NXCloud support where it stays",
    )
    MERCHANT_PHONE_ERROR = (
        9002,
        AccountError,
        "merchant phone number error",
        "check that business_phone is a WhatsApp number of the account",
    )
    APPLICATION_UNAVAILABLE = (
        9003,
        AccountError,
        "application does not exist or is unavailable",
        "check the appkey; contact NXCloud's business staff where it is right",
    )
    NO_PRICING = 9004, AccountError, "no pricing for the country", "contact NXCloud's business staff"
    INSUFFICIENT_BALANCE = 9005, AccountError, "insufficient account balance", "recharge the account"
    NUMBER_NOT_BOUND = (
        9006,
        AccountError,
        "number not bound to the application",
        "bind the sending number to the application in NXCloud's console",
    )
    DOWNSTREAM_ERROR = 9007, ApiError, "downstream endpoint exception", "contact NXCloud support"
    NO_GROUP = 9013, AccountError, "the customer's app does not have a group", "contact NXCloud's business staff"
    CATEGORY_MISSING = (
        9014,
        TemplateError,
        "category does not exist",
        "send category AUTHENTICATION or UTILITY, and check which of them the account has templates for",
    )
    NO_OTP_CODE = (
        9015,
        OtpContentError,
        "no OTP code could be extracted from content",
        "the content must hold exactly one run of 4 to 8 digits",
    )
    WHATSAPP_ERROR = (
        9099,
        MetaError,
        "WhatsApp error",
        "look up Meta's code in the WhatsApp Business Platform's error list, and quote fbtrace_id to support",
    )
    BUSINESS_PHONE_NOT_BOUND = (
        10003,
        AccountError,
        "business phone is not bound to the app",
        "contact NXCloud's business staff to bind it, or send another business_phone",
    )
    TEMPLATE_MISSING = (
        10005,
        TemplateError,
        "template does not exist or is of low quality",
        "check that the account has an approved template for this language and category",
    )


_BY_CODE = {member.value: member for member in ResponseCode}
_AUTHENTICATION_FAMILY = range(1000, 1010)


def error_class(code: int) -> type[ApiError]:
    """Return the class of error a non-zero code becomes; `ApiError` for codes no table lists."""
    known = ResponseCode.find(code)
    if known is not None:
        return known.error_class
    return AuthenticationError if code in _AUTHENTICATION_FAMILY else ApiError
