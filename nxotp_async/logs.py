"""What is written into the log about a message: its facts, and neither its code nor its whole number."""

import logging

from .phone_numbers import mask_number
from .results import SendResult

__all__ = ["log_result"]

_log = logging.getLogger("nxotp_async")


def log_result(result: SendResult) -> None:
    """Log the result of a send, with its facts as attributes of the record: a failure as INFO, a success as DEBUG."""
    error, cus_message_id = result.error, result.message.cus_message_id
    level = logging.DEBUG if error is None else logging.INFO
    if not _log.isEnabledFor(level):
        return
    facts = {
        "cus_message_id": cus_message_id,
        "recipient": mask_number(result.message.to),
        "status": result.status.value,
        "vendor_code": None if error is None else error.code,
        "attempts": result.attempts,
        "elapsed": result.elapsed,
    }
    _log.log(level, "%s: %s", cus_message_id, result.status.value if error is None else error, extra=facts)
