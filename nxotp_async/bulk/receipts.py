"""Noting the vendor's status callbacks in a ledger: from a file of their bodies, or as they come."""

import asyncio
from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import Final

import attrs
import orjson

from ..callbacks import StatusEvent, advances, parse_callback
from ..errors import CallbackVerificationError, sensitive_variables
from .ledger import Ledger
from .money import Charge, charge_of

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

    Each line is the body of one callback, or one event as ``nxotp listen --json`` prints it.

    Raises:
        LedgerError: The ledger cannot be written.
    """
    callbacks = messages = 0
    bad_lines = []
    numbered = enumerate(lines, start=1)
    while batch := list(islice(numbered, _BATCH)):
        receipts: dict[str, str] = {}
        charges: dict[str, Charge] = {}
        for number, line in batch:
            if not line.strip():
                continue
            try:
                events = parse_callback(_body(line))
            except CallbackVerificationError:
                bad_lines.append(number)
                continue
            callbacks += 1
            for event in events:
                if advances(receipts.get(event.message_id, "queued"), event.status):
                    receipts[event.message_id] = event.status
                if (charge := charge_of(event)) is not None:
                    charges[event.message_id] = charge
        messages += ledger.resolve(receipts, by_callback=True, charges=charges)
    return Settled(callbacks, messages, bad_lines)


def _body(line: bytes) -> bytes:
    """Return the body of the callback that says what an event of ``nxotp listen --json`` does, or the line itself."""
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line
    if not isinstance(event, dict) or "message_id" not in event:
        return line
    return orjson.dumps({"statuses": [{**event, "id": event["message_id"]}]})


class ReceiptRecorder:
    """Notes callbacks in a ledger as they come: an `EventSink` for a receiver.

    A run may be sending from the same ledger meanwhile.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._receipts: dict[str, str] = {}
        self._charges: dict[str, Charge] = {}
        self._writing: asyncio.Task[None] | None = None

    async def record(self, event: StatusEvent) -> None:
        """Note an event, and return when it is durable.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        if advances(self._receipts.get(event.message_id, "queued"), event.status):
            self._receipts[event.message_id] = event.status
            if (charge := charge_of(event)) is not None:
                self._charges[event.message_id] = charge
            if self._writing is None:
                self._writing = asyncio.create_task(self._write(), name="nxotp_async: note callbacks")
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def _write(self) -> None:
        await asyncio.sleep(_LINGER)
        receipts, self._receipts, self._writing = self._receipts, {}, None
        charges, self._charges = self._charges, {}
        await asyncio.to_thread(partial(self._ledger.resolve, receipts, by_callback=True, charges=charges))
