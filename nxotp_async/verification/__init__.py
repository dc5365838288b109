"""Phone numbers verified: a code is sent, checked and sent again, within limits.

It needs the extra: ``pip install "nxotp_async[verification]"``.
"""

from .limits import Limits
from .state import CheckStatus, VerificationStatus
from .verifier import Check, Verification, Verifier

__all__ = ["Check", "CheckStatus", "Limits", "Verification", "VerificationStatus", "Verifier"]
