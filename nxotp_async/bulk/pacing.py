"""How fast a run may go: as a whole, and to one recipient."""

import math
from collections import deque
from collections.abc import Iterable
from typing import Final

from ..retry import PAIR_INTERVAL
from ..throttling import AdaptiveRate
from .schema import StoredMessage

__all__ = ["RecipientPacing", "SendRate"]

_RECENT: Final = 2.0  # seconds over which the rate is measured where nothing limits it
_FORGET_AT: Final = 10_000  # recipients


class SendRate:
    """A token bucket whose rate halves when the vendor throttles, and grows back by itself up to the limit, if any.

    The limit is in messages a second; all times are seconds of one clock that never jumps. ``ahead`` is how many
    seconds' worth may go at once, also at the start, because something else spaces them.
    """

    BURST: Final = 0.1  # seconds' worth that may go at once after a lull
    AHEAD: Final = 0.3  # the same where messages wait for the permits of a shared rate

    def __init__(self, limit: float | None, now: float, *, ahead: float = 0.0) -> None:
        limit = math.inf if limit is None else limit
        self._adaptive = AdaptiveRate(limit, limit, now)
        self._burst = max(self.BURST, ahead)
        self._tokens = max(1.0, ahead * limit if ahead else 0.0)
        self._counted_at = now
        self._held_until = -math.inf
        self._taken: deque[tuple[float, int]] = deque()  # when, and how many, of late

    @property
    def rate(self) -> float:
        """Messages a second at present; infinite where nothing limits them."""
        return self._adaptive.present(self._counted_at)

    def limit_to(self, limit: float | None, now: float) -> None:
        """Change the limit. A rate that is lower because the vendor throttles stays lower, and grows back to it."""
        self._advance(now)
        self._adaptive = self._adaptive.limited_to(math.inf if limit is None else limit, now)
        self._tokens = min(self._tokens, 1.0)

    def take(self, wanted: int, now: float) -> int:
        """Return how many of the wanted messages may go now, and count them as gone."""
        self._advance(now)
        if now < self._held_until:
            return 0
        if math.isinf(self.rate):
            granted = wanted
        else:
            granted = min(wanted, int(self._tokens))
            self._tokens -= granted
        self._taken.append((now, granted))
        while self._taken[0][0] < now - _RECENT:
            self._taken.popleft()
        return granted

    def give_back(self, count: int) -> None:
        """Take back what was granted last and did not go."""
        self._tokens += count
        at, taken = self._taken.pop()
        self._taken.append((at, taken - count))

    def wait(self, now: float) -> float:
        """Return the seconds until a message may go."""
        self._advance(now)
        for_token = 0.0 if math.isinf(self.rate) else max(0.0, (1.0 - self._tokens) / self.rate)
        return max(for_token, self._held_until - now)

    def hold(self, until: float) -> None:
        """Let nothing go before this time."""
        self._held_until = max(self._held_until, until)

    def throttled(self, sent_at: float, now: float) -> bool:
        """Halve the rate, unless it was lowered after the throttled message was sent. Return whether it fell much."""
        self._advance(now)
        present = sum(count for _, count in self._taken) / _RECENT if math.isinf(self.rate) else self.rate
        lowered = self._adaptive.throttled(sent_at, now, measured=present)
        if lowered is self._adaptive:
            return False
        self._adaptive, self._tokens = lowered, 0.0
        return self.rate < 0.9 * present

    def _advance(self, now: float) -> None:
        elapsed, rate = now - self._counted_at, self.rate
        self._counted_at = now
        if not math.isinf(rate):
            self._tokens = min(self._tokens + elapsed * rate, max(1.0, rate * self._burst))


class RecipientPacing:
    """Keeps messages to one recipient apart.

    All times are seconds of one clock that never jumps.

    Args:
        interval: Seconds between two messages to one recipient; 0.0 keeps apart only those to a recipient that the
            vendor has throttled.
        sent: When recipients were last sent to, as far as that still matters.
    """

    def __init__(self, interval: float = 0.0, sent: dict[str, float] | None = None) -> None:
        self._interval = interval
        self._last = dict(sent or {})
        self._next_slot: dict[str, float] = {}
        self._forget_at = _FORGET_AT

    def split(
        self, rows: Iterable[StoredMessage], now: float, *, waited: bool
    ) -> tuple[list[StoredMessage], list[tuple[int, float]]]:
        """Part messages into those that may go now, and the keys of the others, each with when it may go.

        Those that have waited have had slots of their own, and do not go behind those that came later.
        """
        ready, later = [], []
        for row in rows:
            earliest = self._last.get(row.message.to, -math.inf) + self._interval
            if not waited:
                earliest = max(earliest, self._next_slot.get(row.message.to, -math.inf))
            if earliest > now:
                later.append((row.key, earliest))
                if not waited:
                    self._next_slot[row.message.to] = earliest + (self._interval or PAIR_INTERVAL)
            else:
                ready.append(row)
                if self._interval:
                    self._last[row.message.to] = now
        self._forget(now)
        return ready, later

    def throttled(self, recipient: str, earliest: float, now: float) -> float:
        """Return a slot of its own for a message that the vendor has throttled; what comes later waits behind it."""
        slot = max(earliest, self._next_slot.get(recipient, -math.inf))
        self._next_slot[recipient] = slot + (self._interval or PAIR_INTERVAL)
        self._forget(now)
        return slot

    def _forget(self, now: float) -> None:
        """Drop what no longer matters, now and then, so that memory stays bounded by the rate."""
        if len(self._last) + len(self._next_slot) < self._forget_at:
            return
        self._last = {number: at for number, at in self._last.items() if at + self._interval > now}
        self._next_slot = {number: at for number, at in self._next_slot.items() if at > now}
        self._forget_at = max(_FORGET_AT, 2 * (len(self._last) + len(self._next_slot)))
