"""An emulator of the OTP API: no account and no network needed."""

from .account import SANDBOX_BUSINESS_PHONE, SANDBOX_CREDENTIALS, sandbox_client
from .account_queries import SandboxAccount
from .answers import Reply
from .faults import MAGIC_RECIPIENTS, Fault, FaultKind
from .pusher import CallbackPlan
from .requests import ReceivedRequest
from .sandbox import Sandbox

__all__ = [
    "MAGIC_RECIPIENTS",
    "SANDBOX_BUSINESS_PHONE",
    "SANDBOX_CREDENTIALS",
    "CallbackPlan",
    "Fault",
    "FaultKind",
    "ReceivedRequest",
    "Reply",
    "Sandbox",
    "SandboxAccount",
    "sandbox_client",
]
