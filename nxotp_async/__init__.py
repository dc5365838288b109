"""An asyncio-native client for sending one-time passwords over WhatsApp through NXCloud's OTP API."""

from ._version import __version__
from .client import OtpClient
from .clocks import Clock
from .codes import MetaCode, ResponseCode
from .errors import (
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
)
from .hooks import Attempt
from .languages import Language
from .messages import ApiType, Category, OtpMessage
from .results import ResultCollector, SendResult, SendStatus, Summary
from .retry import RetryPolicy
from .signing import Credentials, sign, verify
from .transports import Answer, Transport

__all__ = [
    "AccountError",
    "Answer",
    "ApiError",
    "ApiType",
    "Attempt",
    "AuthenticationError",
    "CallbackVerificationError",
    "Category",
    "Clock",
    "ConfigurationError",
    "Credentials",
    "InputFileError",
    "InvalidMessageError",
    "InvalidReason",
    "InvalidSignatureError",
    "Language",
    "LedgerError",
    "MetaCode",
    "MetaError",
    "NotSentError",
    "NxOtpError",
    "OtpClient",
    "OtpContentError",
    "OtpMessage",
    "OutboxFullError",
    "OutcomeUnknownError",
    "ParameterError",
    "PermissionDeniedError",
    "RefusalReason",
    "ResponseCode",
    "ResultCollector",
    "RetryPolicy",
    "SendResult",
    "SendStatus",
    "StoreError",
    "Summary",
    "TemplateError",
    "TimestampExpiredError",
    "TransientApiError",
    "Transport",
    "TransportError",
    "VerificationRefusedError",
    "__version__",
    "sign",
    "verify",
]
