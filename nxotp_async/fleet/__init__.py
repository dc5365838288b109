"""Messages that are committed with the caller's own rows, and sent by workers on any number of machines.

It needs the extra: ``pip install "nxotp_async[fleet]"``.
"""

from ..bulk import MessageState
from .entries import Enqueued, OutboxCount, OutboxMessage
from .outbox import Outbox
from .queues import Queue
from .schema import FleetMigration
from .status import FleetStatus, SenderStatus, fleet_status
from .worker import Worker

__all__ = [
    "Enqueued",
    "FleetMigration",
    "FleetStatus",
    "MessageState",
    "Outbox",
    "OutboxCount",
    "OutboxMessage",
    "Queue",
    "SenderStatus",
    "Worker",
    "fleet_status",
]
