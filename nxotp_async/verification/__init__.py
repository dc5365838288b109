"""Phone numbers verified: a code is sent, checked and sent again, within limits.

It needs the extra: ``pip install "nxotp_async[verification]"``.
"""

from .events import Action, EventHook, VerificationEvent
from .fallback import Fallback
from .limits import Limits
from .results import Check, Verification
from .state import CheckStatus, VerificationStatus
from .verifier import Verifier

__all__ = [
    "Action",
    "Check",
    "CheckStatus",
    "EventHook",
    "Fallback",
    "Limits",
    "Verification",
    "VerificationEvent",
    "VerificationStatus",
    "Verifier",
]
