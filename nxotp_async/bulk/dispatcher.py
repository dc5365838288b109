"""Sending what a ledger has queued: at a steady rate, never twice, and so that it can stop at any moment."""

import asyncio
from collections import Counter
from collections.abc import Collection
from contextlib import aclosing

import attrs

from ..checks import instance_of, integer, integers, number, optional, validate
from ..client import OtpClient
from ..clocks import Clock
from ..errors import ConfigurationError, NxOtpError
from ..pacing import SharedRate
from ..retry import RetryPolicy
from .exchange import LedgerExchange
from .flow import FlowControl
from .ledger import Ledger
from .ledger_queue import LedgerQueue
from .money import Budget
from .pacing import SendRate
from .schema import MessageState

__all__ = ["Dispatcher", "Report"]


@attrs.frozen
class Report:
    """How a run ended.

    Attributes:
        counts: How many messages of the ledger are in which state.
        paused: What has to be put right before it can go on, or ``None``.
        stopped: Whether it was stopped before its end.
    """

    counts: Counter[MessageState]
    paused: NxOtpError | None
    stopped: bool


class Dispatcher:
    """Sends what a ledger has queued, once.

    The ledger writes the intent to send before the first byte leaves, and the outcome soon after. What a ledger has in
    flight is never more than the client's ``max_concurrency``.

    Args:
        ledger: What to send. Nobody else may use it meanwhile.
        client: Sends it. Its retries are left to the dispatcher.
        rate: Messages a second at the most, retries included; ``None`` for no limit. It halves when the vendor
            throttles, and grows back by 5 % a second. Of a `SharedRate`, every message takes a permit; it should be one
            in the ``background``.
        per_recipient: Seconds between two messages to one recipient; Meta asks for 6. By default only those that the
            vendor has throttled wait.
        max_per_recipient: How many messages of the ledger one recipient may get; the rest is not sent.
        retry: What is sent again. What is throttled, cannot leave, or is refused for a wrong clock does not count
            against its ``max_attempts``; what may have been accepted is never sent again.
        reject_on: Codes of the vendor's, or HTTP statuses without one, that refuse their message at once, although they
            look like the whole account's.
        budget: What the messages of the ledger may cost together; the run ends before it is passed.
        keep_codes: Whether the ledger keeps the codes of messages that are rejected, until they expire, so that
            `Ledger.requeue_rejected` can queue them again. The next run without it erases them.
        patience: Seconds that the run waits for a vendor, or a store, that is away, until it ends as paused.
        clock: Sources of time and chance for tests.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        ledger: Ledger,
        client: OtpClient,
        *,
        rate: float | SharedRate | None = None,
        per_recipient: float | None = None,
        max_per_recipient: int | None = None,
        retry: RetryPolicy | None = None,
        reject_on: Collection[int] = (),
        budget: Budget | None = None,
        keep_codes: bool = False,
        patience: float = 900.0,
        clock: Clock | None = None,
    ) -> None:
        shared_rate = rate if isinstance(rate, SharedRate) else None
        limit = rate.per_second if isinstance(rate, SharedRate) else rate
        for name, check, value in (
            ("rate", optional(number(above=0)), limit),
            ("per_recipient", optional(number(above=0)), per_recipient),
            ("max_per_recipient", optional(integer(at_least=1)), max_per_recipient),
            ("retry", optional(instance_of(RetryPolicy)), retry),
            ("reject_on", integers, reject_on),
            ("budget", optional(instance_of(Budget)), budget),
            ("patience", number(at_least=0), patience),
        ):
            validate(name, check, value, ConfigurationError)
        clock, policy = clock or Clock(), retry or RetryPolicy(max_attempts=5)
        self._clock = clock
        self._shared_limit = limit if isinstance(rate, SharedRate) else None
        self._most = client.max_concurrency
        self._client = client.with_options(retry=RetryPolicy(max_attempts=1))
        self._pace = SendRate(limit, clock.monotonic(), ahead=SendRate.AHEAD if shared_rate else 0.0)
        self._flow = FlowControl(
            self._pace, policy, reject_on, client.settings.max_concurrency, patience, clock, budget
        )
        exchange = LedgerExchange(ledger, per_recipient or 0.0, max_per_recipient, keep_codes=keep_codes, budget=budget)
        self._queue = LedgerQueue(exchange, self._flow, self._pace, shared_rate, client.max_concurrency, clock)
        self._drain: asyncio.Timeout | None = None
        self._has_run = False

    @property
    def counts(self) -> Counter[MessageState]:
        """How many messages are in which state, for showing progress. In flight counts as queued."""
        return self._queue.counts

    @property
    def in_flight(self) -> int:
        """How many messages the ledger has in flight."""
        return len(self._queue.in_flight)

    @property
    def rate(self) -> float:
        """Messages a second at the most, at present; infinite where nothing limits them."""
        return self._pace.rate

    @property
    def concurrency(self) -> int:
        """How many messages may be in flight at present."""
        return self._queue.concurrency

    @property
    def is_stopping(self) -> bool:
        """Whether nothing more is sent."""
        return self._queue.is_stopping

    @property
    def is_paused(self) -> bool:
        """Whether nothing is sent until `resume`."""
        return self._queue.is_paused

    def pause(self) -> None:
        """Send nothing more until `resume`. What is in flight has its outcome written meanwhile."""
        self._queue.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._flow.forgive()
        self._queue.resume()

    def set_rate(self, rate: float | None) -> None:
        """Change the limit of the rate, at any time.

        Args:
            rate: Messages a second at the most; ``None`` for no limit. With a `SharedRate`, no more than that.

        Raises:
            ConfigurationError: It is not more than 0, or more than the shared rate.
        """
        validate("rate", optional(number(above=0)), rate, ConfigurationError)
        if self._shared_limit is not None and (rate is None or rate > self._shared_limit):
            raise ConfigurationError(f"rate must be at most the shared rate, {self._shared_limit:g} a second")
        self._pace.limit_to(rate, self._clock.monotonic())
        self._queue.wake()

    def set_concurrency(self, concurrency: int) -> None:
        """Change how many messages may be in flight, at any time.

        Args:
            concurrency: From 1 to the client's ``max_concurrency``.

        Raises:
            ConfigurationError: It is another number.
        """
        validate("concurrency", integer(at_least=1), concurrency, ConfigurationError)
        if concurrency > self._most:
            raise ConfigurationError(f"concurrency must be at most {self._most}, the client's max_concurrency")
        self._queue.concurrency = concurrency
        self._queue.wake()

    def stop(self, *, within: float = 30.0) -> None:
        """Send nothing more; `run` returns when what is in flight has its outcome.

        Args:
            within: Seconds after which what is still in flight is given up, and is unknown.
        """
        self._queue.stop()
        if self._drain is not None and self._drain.when() is None:
            self._drain.reschedule(asyncio.get_running_loop().time() + within)

    async def run(self) -> Report:
        """Send what is queued, and return when nothing is left that could be sent, or when it was stopped.

        Where this is cancelled, what is in flight is given up: it is unknown then, and the rest stays queued.

        Raises:
            LedgerError: The ledger cannot be written. Nothing was sent that it does not know of.
            RuntimeError: It has run before, or the client was closed meanwhile.
        """
        if self._has_run:
            raise RuntimeError("a Dispatcher runs once; make another for what is queued now")
        self._has_run = True
        drain = asyncio.timeout(None)
        try:
            await self._queue.begin()
            async with drain as self._drain, aclosing(self._client.send_many(self._queue.messages())) as results:
                async for result in results:
                    claimed = self._queue.in_flight.pop(str(result.message.cus_message_id))
                    self._queue.settle(self._flow.transition(claimed, result))
                    if self._flow.paused is not None:
                        self._queue.stop()
        except TimeoutError:
            if not drain.expired():
                raise
        finally:
            self._drain = None
            self._queue.finish()
        paused = self._flow.paused
        return Report(self.counts, paused, stopped=self.is_stopping and paused is None)
