"""The codes of the vendor's answers, and Meta's inside them: what each means, and what follows from it."""

from enum import IntEnum
from typing import Final, Literal, Self

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

__all__ = ["AUTHENTICATION_CODES", "MetaCode", "ResponseCode", "SmsCode", "VendorCode"]


class _Code(IntEnum):
    """A code, with what is known of it.

    Attributes:
        meaning: What it means, in the words of whoever answers with it.
    """

    meaning: str

    @classmethod
    def find(cls, code: int | None) -> Self | None:
        """Return the member with this code, or ``None`` where no table lists it."""
        return next((member for member in cls if member == code), None)


class VendorCode(_Code):
    """A code of one of the vendor's tables.

    Attributes:
        meaning: The vendor's meaning of it.
        advice: What to do about it, one sentence without a full stop.
        error_class: The error it becomes.
    """

    advice: str
    error_class: type[ApiError]

    def __new__(cls, code: int, error: type[ApiError], meaning: str, advice: str) -> Self:  # noqa: D102 - how an enum is constructed is its own affair
        member = int.__new__(cls, code)
        member._value_ = code
        member.error_class = error
        member.meaning = meaning
        member.advice = advice
        return member


class ResponseCode(VendorCode):
    """A code of the vendor's tables "WhatsApp API otp" and "WhatsApp API mt".

    Attributes:
        meaning: The vendor's meaning of it.
        advice: What to do about it, one sentence without a full stop.
        error_class: The error it becomes.
    """

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


class SmsCode(VendorCode):
    """A code of the vendor's SMS service, as far as its page says what it means. `nxotp_async.sms` uses it.

    Attributes:
        meaning: The vendor's meaning of it.
        advice: What to do about it, one sentence without a full stop.
        error_class: The error it becomes.
    """

    INSUFFICIENT_BALANCE = 3, AccountError, "insufficient account balance", "recharge the account"
    WRONG_NUMBER = 6, ApiError, "wrong number", "check that it is a mobile number of a country with SMS"
    IP_NOT_ALLOWED = 9, AccountError, "IP address not allowed", "have the vendor allow this machine's address"
    NUMBER_LIMIT = 27, ApiError, "five messages an hour to one number", "wait an hour, or use another channel"
    RATE_LIMIT = 28, TransientApiError, "too many messages a second", "usually passes by itself; send more slowly"


AUTHENTICATION_CODES: Final = range(1000, 1010)
"""The vendor's family of codes about authentication; its tables do not list all of them."""


_Kind = Literal["lasting", "temporary", "throttling", "recipient"]


class MetaCode(_Code):
    """A code of Meta's, as it stands inside the vendor's 9099.

    Meta has many more. Here are those that something follows from, and two frequent ones.

    Attributes:
        meaning: Meta's meaning of it.
        temporary: Whether Meta documents it as one that passes, so that another attempt may help.
        throttling: Whether everything is sent too fast, and not only what goes to this one recipient.
        undeliverable: Whether this one recipient cannot be reached, and others can.
    """

    temporary: bool
    throttling: bool
    undeliverable: bool

    def __new__(cls, code: int, kind: _Kind, meaning: str) -> Self:  # noqa: D102 - how an enum is constructed is its own affair
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        member.temporary = kind in ("temporary", "throttling")
        member.throttling = kind == "throttling"
        member.undeliverable = kind == "recipient"
        return member

    APPLICATION_RATE_LIMIT = 4, "throttling", "Application request limit reached"
    INVALID_PARAMETER = 100, "lasting", "Invalid parameter"
    ACCOUNT_RATE_LIMIT = 80007, "throttling", "Rate limit issues"
    THROUGHPUT_LIMIT = 130429, "throttling", "Rate limit hit"
    SERVICE_UNAVAILABLE = 131016, "temporary", "Service unavailable"
    RECIPIENT_IS_SENDER = 131021, "recipient", "Recipient cannot be sender"
    UNDELIVERABLE = 131026, "recipient", "Message undeliverable"
    RECIPIENT_NOT_ALLOWED = 131030, "recipient", "Recipient phone number not in allowed list"
    PAIR_RATE_LIMIT = 131056, "temporary", "Pair rate limit hit"
    MAINTENANCE = 131057, "temporary", "Business account is in maintenance mode"
    SERVER_UNAVAILABLE = 133004, "temporary", "Server temporarily unavailable"
