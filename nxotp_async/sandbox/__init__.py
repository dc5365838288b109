"""An emulator of the OTP API: no account and no network needed."""

from .callbacks import CallbackPlan
from .emulator import SANDBOX_BUSINESS_PHONE, SANDBOX_CREDENTIALS, ReceivedRequest
from .faults import MAGIC_RECIPIENTS, Fault, FaultKind
from .server import Sandbox

__all__ = [
    "MAGIC_RECIPIENTS",
    "SANDBOX_BUSINESS_PHONE",
    "SANDBOX_CREDENTIALS",
    "CallbackPlan",
    "Fault",
    "FaultKind",
    "ReceivedRequest",
    "Sandbox",
]
