"""Sending a whole file of messages: read row by row, kept in a ledger that survives a crash, never sent twice."""

from .columns import Row
from .dispatcher import Dispatcher, Report
from .exporting import export
from .files import FileFormat, MessageFile, open_messages, read_messages
from .ledger import Ledger, Reason
from .loading import Loaded, load
from .money import Budget
from .receipts import ReceiptRecorder, Settled, settle
from .rejects import RejectsFile
from .schema import MessageState

__all__ = [
    "Budget",
    "Dispatcher",
    "FileFormat",
    "Ledger",
    "Loaded",
    "MessageFile",
    "MessageState",
    "Reason",
    "ReceiptRecorder",
    "RejectsFile",
    "Report",
    "Row",
    "Settled",
    "export",
    "load",
    "open_messages",
    "read_messages",
    "settle",
]
