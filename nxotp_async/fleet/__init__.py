"""Messages that are committed with the caller's own rows, and sent by workers on any number of machines.

It needs the extra: ``pip install "nxotp_async[fleet]"``.
"""

from ..bulk import MessageState
from .entries import Enqueued, OutboxCount, OutboxMessage
from .outbox import Outbox
from .queues import Queue
from .schema import FleetMigration
from .worker import Worker

__all__ = ["Enqueued", "FleetMigration", "MessageState", "Outbox", "OutboxCount", "OutboxMessage", "Queue", "Worker"]
