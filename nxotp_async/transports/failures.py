"""The errors of attempts that failed: one for each way to fail, the same for every transport."""

import os
import ssl

from ..errors import NotSentError, OutcomeUnknownError

__all__ = [
    "answered_too_early",
    "certificate_refused",
    "lost_before_sending",
    "name_not_found",
    "no_connection",
    "no_connection_in_time",
    "no_tls",
    "not_possible",
    "reason",
    "unknown",
]


def unknown(what: str) -> OutcomeUnknownError:
    """Return the error for a request of which bytes may have left."""
    return OutcomeUnknownError(f"{what}, after the request was sent")


def name_not_found(host: str) -> NotSentError:
    """Return the error for a name that the DNS does not know."""
    return NotSentError(f"the name {host} was not found", temporary=True, hint="check base_url, any proxy, and the DNS")


def certificate_refused(peer: str, why: str) -> NotSentError:
    """Return the error for a certificate that is not to be trusted."""
    return NotSentError(
        f"the certificate of {peer} was refused: {why}",
        hint="check base_url, this machine's clock and its certificate authorities",
    )


def no_tls(peer: str, why: str) -> NotSentError:
    """Return the error for a failed TLS handshake."""
    return NotSentError(f"no TLS connection to {peer}: {why}", temporary=True)


def no_connection(peer: str, why: str) -> NotSentError:
    """Return the error for a connection that could not be opened."""
    return NotSentError(
        f"no connection to {peer}: {why}", temporary=True, hint="check base_url, and what listens there"
    )


def no_connection_in_time(peer: str, timeout: float) -> NotSentError:
    """Return the error for a connection that took too long to open."""
    return NotSentError(f"no connection to {peer} within {timeout:.3g} s", temporary=True)


def answered_too_early(peer: str) -> NotSentError:
    """Return the error for a new connection on which the server spoke first."""
    return NotSentError(f"{peer} answered before the request was sent", temporary=True)


def lost_before_sending(peer: str) -> NotSentError:
    """Return the error for a connection that was lost before anything was written to it."""
    return NotSentError(f"the connection to {peer} was lost before the request left", temporary=True)


def not_possible(peer: str, why: str) -> NotSentError:
    """Return the error for a request that cannot be made at all."""
    return NotSentError(f"the request to {peer} could not be made: {why}")


def reason(error: Exception) -> str:
    """Return the reason without the error's text, which could contain the answer or a proxy's password."""
    if isinstance(error, ssl.SSLError):
        # Only errors that OpenSSL raises have these attributes.
        return str(getattr(error, "verify_message", None) or getattr(error, "reason", None) or type(error).__name__)
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
