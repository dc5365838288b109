"""Noting the vendor's status callbacks in a ledger: from a file of their bodies, or as they come."""

import asyncio
from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import Final

import attrs

from ..callbacks import StatusEvent, advances, parse_callback
from ..errors import CallbackVerificationError, sensitive_variables
from .ledger import Ledger

__all__ = ["ReceiptRecorder", "Settled", "settle"]

_BATCH: Final = 1000
_LINGER: Final = 0.005  # seconds a callback may wait for others, to be written with them


@attrs.frozen
class Settled:
    """What a file of callbacks did.

    Attributes:
        callbacks: How many were read.
        messages: How many times a message of the ledger learnt something new.
        bad_lines: The lines that are no callback.
    """

    callbacks: int
    messages: int
    bad_lines: list[int]


@sensitive_variables
def settle(ledger: Ledger, lines: Iterable[bytes]) -> Settled:
    """Note in a ledger what callbacks say of its messages, whatever their order, and however often they come.

    Each line is the body of one callback.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    callbacks = messages = 0
    bad_lines = []
    numbered = enumerate(lines, start=1)
    while batch := list(islice(numbered, _BATCH)):
        receipts: dict[str, str] = {}
        for number, line in batch:
            if not line.strip():
                continue
            try:
                events = parse_callback(line)
            except CallbackVerificationError:
                bad_lines.append(number)
                continue
            callbacks += 1
            for event in events:
                if advances(receipts.get(event.message_id, "queued"), event.status):
                    receipts[event.message_id] = event.status
        messages += ledger.resolve(receipts, by_callback=True)
    return Settled(callbacks, messages, bad_lines)


class ReceiptRecorder:
    """Notes callbacks in a ledger as they come: an `EventSink` for a receiver.

    A run may be sending from the same ledger meanwhile.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._receipts: dict[str, str] = {}
        self._writing: asyncio.Task[None] | None = None

    async def record(self, event: StatusEvent) -> None:
        """Note an event, and return when it is durable.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        if advances(self._receipts.get(event.message_id, "queued"), event.status):
            self._receipts[event.message_id] = event.status
            if self._writing is None:
                self._writing = asyncio.create_task(self._write(), name="nxotp_async: note callbacks")
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def _write(self) -> None:
        await asyncio.sleep(_LINGER)
        receipts, self._receipts, self._writing = self._receipts, {}, None
        await asyncio.to_thread(partial(self._ledger.resolve, receipts, by_callback=True))
