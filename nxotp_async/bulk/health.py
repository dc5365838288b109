"""Whether the vendor still gives good answers."""

from typing import Final

__all__ = ["Health"]

_MANY_REFUSALS: Final = 100  # in a row, with the same code
_MANY_ROUNDS: Final = 5  # in a row, in which no message was processed


class Health:
    """Notices when the vendor has no good answer to anything any more.

    All times are seconds of one clock that never jumps.

    Args:
        concurrency: How many messages are in flight at the most: so many may fail together for one reason.
        patience: Seconds without a good answer after which there is no hope.
    """

    def __init__(self, concurrency: int, patience: float) -> None:
        self._patience = patience
        self._many = 2 * concurrency
        self._failures = 0  # in a row
        self._failing_since = 0.0
        self._unknowns = 0  # in a row
        self._refusals = 0  # in a row, with the same code
        self._code: int | None = None
        self._rounds = 0  # in a row, in which nothing was processed

    def accepted(self) -> None:
        """Note that the vendor accepted a message."""
        self._failures = self._unknowns = self._refusals = self._rounds = 0

    def refused(self, code: int | None) -> None:
        """Note that the vendor refused a message for a reason of its own."""
        refusals = self._refusals + 1 if code == self._code else 1
        self.accepted()  # what it has processed, it has answered well
        self._refusals, self._code = refusals, code

    def failed(self, now: float) -> None:
        """Note that the vendor had no good answer."""
        self._rounds = 0
        self._count_failure(now)

    def unknown(self, now: float) -> None:
        """Note that a message's outcome is unknown."""
        self.failed(now)
        self._unknowns += 1

    def not_processed(self, now: float, *, tried_again: bool) -> None:
        """Note that the vendor did not look at a message itself.

        Something else has answered, the timestamp was wrong, or the whole account is refused.

        What was not tried again since the last one was sent together with it, and fails for the same reason.
        """
        self._count_failure(now)
        if tried_again or not self._rounds:
            self._rounds += 1

    def _count_failure(self, now: float) -> None:
        if not self._failures:
            self._failing_since = now
        self._failures += 1

    @property
    def is_down(self) -> bool:
        """Whether nothing has gone well for so long that the messages cannot be the reason."""
        return self._failures > self._many or self._rounds > 1

    def is_hopeless(self, now: float) -> bool:
        """Return whether to go on would only do harm.

        That is so when its patience is over, and when unknown outcomes, equal refusals, or answers that concern no
        message, have come too often in a row.
        """
        impatient = self._failures >= 3 and now - self._failing_since >= self._patience
        too_many = self._unknowns > self._many or self._refusals > max(self._many, _MANY_REFUSALS)
        return impatient or too_many or self._rounds >= _MANY_ROUNDS
