"""Settling what is unknown by the vendor's status callbacks, from a file of their bodies."""

from collections.abc import Iterable
from itertools import islice
from typing import Final

import attrs

from ..callbacks import advances, parse_callback
from ..errors import CallbackVerificationError
from .ledger import Ledger

__all__ = ["Settled", "settle"]

_BATCH: Final = 1000


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


def settle(ledger: Ledger, lines: Iterable[bytes]) -> Settled:
    """Note in a ledger what callbacks say of its messages, whatever their order, and however often they come.

    Args:
        ledger: The ledger.
        lines: The body of one callback each.

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
