import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bulk_ledgers import (
    ACCEPTED,
    CODE,
    NOT_SENT,
    NOW,
    QUEUED,
    REJECTED,
    SENDING,
    UNKNOWN,
    UPTIME,
    ProbedLedger,
    begin,
    claim,
    contents,
    entries,
    entry,
    keys,
    states,
    take,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nxotp_async.bulk import MessageState
from nxotp_async.bulk.schema import Transition

# ---------------------------------------------------------------------------------------------- any sequence of events


_INTERVALS = st.sampled_from([0.0, 5.0])


class _Rows(RuleBasedStateMachine):
    """Whatever happens to a ledger, in whatever order, its rows are in the states that the events lead to."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self.path = Path(self._directory.name, "run.ledger")
        self.ledger = self._opened()
        self.now = NOW
        self.monotonic = UPTIME
        self.expected: list[MessageState] = []  # of the rows in their order; row n has the key n + 1
        self.expires: list[float | None] = []
        self.erased: set[int] = set()
        self.not_before: dict[int, float] = {}
        self.interval = 0.0
        self.claimed_at: dict[str, float] = {}  # by recipient, in this run
        self.in_flight: list[int] = []
        self.requeued: set[int] = set()
        self.accepted: set[int] = set()

    def _opened(self) -> ProbedLedger:
        ledger = ProbedLedger(self.path)
        ledger.connection.execute("PRAGMA synchronous = OFF")  # nobody pulls the plug here
        return ledger

    def teardown(self) -> None:
        self.ledger.close()
        self._directory.cleanup()

    def _enter(self, key: int, state: MessageState) -> None:
        self.expected[key - 1] = state
        if state not in (QUEUED, SENDING, UNKNOWN):
            self.erased.add(key)
        if state is ACCEPTED:
            self.accepted.add(key)

    @initialize(expiries=st.lists(st.none() | st.integers(1, 60), min_size=1, max_size=6), interval=_INTERVALS)
    def load(self, expiries: list[int | None], interval: float) -> None:
        self.take(expiries)
        self.begin(interval)

    @rule(expiries=st.lists(st.none() | st.integers(1, 60), max_size=3), again=st.booleans())
    def take_more(self, expiries: list[int | None], again: bool) -> None:
        if again:
            assert len(take(self.ledger, *entries(len(self.expected)))) == len(self.expected)
        self.take(expiries)

    def take(self, expiries: list[int | None]) -> None:
        rows = []
        for seconds in expiries:
            self.expires.append(None if seconds is None else self.now + seconds)
            self.expected.append(QUEUED)
            number = len(self.expected)
            expires_at = None if seconds is None else datetime.fromtimestamp(self.now + seconds, UTC)
            rows.append(entry(number, to=f"999{number % 2:07}", expires_at=expires_at))
        assert take(self.ledger, *rows) == {}

    @rule(seconds=st.integers(1, 30))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.monotonic += seconds

    @rule(seconds=st.integers(-30, 30))
    def set_clock(self, seconds: int) -> None:
        self.now += seconds

    def _has_expired(self, key: int) -> bool:
        expires = self.expires[key - 1]
        return expires is not None and expires <= self.now

    @rule()
    def expire(self) -> None:
        queued = {key for key, state in enumerate(self.expected, start=1) if state is QUEUED}
        count = self.ledger.expire(self.now).total()
        left = {key for key in queued if states(self.ledger)[key - 1] != QUEUED}
        assert count == len(left)
        assert left >= {key for key in queued if self._has_expired(key)}
        assert all(self.expires[key - 1] is not None for key in left)  # the others would have before they are due
        self._expired(sorted(left))

    def _expired(self, queued: list[int]) -> None:
        actual = states(self.ledger)
        for key in queued:
            assert actual[key - 1] in ((UNKNOWN,) if key in self.requeued else (NOT_SENT, REJECTED))
            self._enter(key, MessageState(actual[key - 1]))
            self.erased.add(key)
        self.erased |= {key for key in range(1, len(self.expected) + 1) if self._has_expired(key)} - set(self.in_flight)

    @rule(interval=_INTERVALS)
    def begin(self, interval: float) -> None:
        self.interval = interval
        self.claimed_at.clear()
        self.not_before.clear()
        queued = [key for key, state in enumerate(self.expected, start=1) if state is QUEUED and self._has_expired(key)]
        begin(self.ledger, self.now, self.monotonic, per_recipient=interval)
        self._expired(queued)

    @rule(wanted=st.integers(0, 4), data=st.data())
    def exchange(self, wanted: int, data: st.DataObject) -> None:
        settled = data.draw(st.lists(st.sampled_from(self.in_flight), unique=True)) if self.in_flight else []
        transitions = []
        for key in settled:
            state = data.draw(st.sampled_from([QUEUED, ACCEPTED, REJECTED, NOT_SENT, UNKNOWN]))
            not_before = self.monotonic + data.draw(st.integers(0, 9)) if state is QUEUED else 0.0
            transitions.append(Transition(key, state, 1, not_before=not_before))
            self.in_flight.remove(key)
            may_have_arrived = state in (REJECTED, NOT_SENT) and key in self.requeued
            self._enter(key, UNKNOWN if may_have_arrived else state)
            self.not_before[key] = not_before
        claimed = claim(self.ledger, wanted, *transitions, now=self.now, monotonic=self.monotonic)
        assert len(claimed.messages) <= wanted
        assert len(set(keys(claimed))) == len(claimed.messages)
        for message in claimed.messages:
            key = message.key
            assert self.expected[key - 1] is QUEUED
            assert key not in self.accepted
            assert self.not_before.get(key, 0.0) <= self.monotonic
            assert not self._has_expired(key)
            assert self.monotonic - self.claimed_at.get(message.message.to, -100.0) >= self.interval
            self.claimed_at[message.message.to] = self.monotonic
            assert (message.message.cus_message_id, message.message.content) == (f"id-{key}", CODE)
            self._enter(key, SENDING)
            self.in_flight.append(key)
        if claimed.exhausted and wanted:
            fresh = [key for key, state in enumerate(self.expected, start=1) if state is QUEUED]
            assert all(self._has_expired(key) or self.not_before.get(key, self.now + 1) for key in fresh)

    @precondition(lambda self: UNKNOWN in self.expected or ACCEPTED in self.expected)
    @rule(data=st.data(), receipt=st.sampled_from(["sent", "delivered", "read", "failed"]))
    def resolve(self, data: st.DataObject, receipt: str) -> None:
        settled = [key for key, state in enumerate(self.expected, start=1) if state is not SENDING]
        key = data.draw(st.sampled_from(settled))
        self.ledger.resolve({f"id-{key}": receipt}, by_callback=True)
        before, after = self.expected[key - 1], MessageState(states(self.ledger)[key - 1])
        if before is UNKNOWN or (before is QUEUED and key in self.requeued):
            assert after is ACCEPTED
        else:
            assert after is before
        self._enter(key, after)

    @precondition(lambda self: UNKNOWN in self.expected)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        unknown = [key for key, state in enumerate(self.expected, start=1) if state is UNKNOWN]
        key = data.draw(st.sampled_from(unknown))
        # By the machine's clock, everything that ever expires has.
        may_be_sent = key not in self.erased and self.expires[key - 1] is None
        assert self.ledger.requeue([f"id-{key}"]) == may_be_sent
        if may_be_sent:
            self._enter(key, QUEUED)
            self.requeued.add(key)
            self.not_before.pop(key, None)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = self._opened()
        for key in self.in_flight:
            self._enter(key, UNKNOWN)
        self.in_flight.clear()
        self.begin(self.interval)

    @invariant()
    def every_row_is_where_the_events_have_led(self) -> None:
        assert states(self.ledger) == self.expected
        assert self.ledger.counts().total() == len(self.expected)
        assert all(self.expected[key - 1] is ACCEPTED for key in self.accepted)

    @invariant()
    def a_code_is_kept_as_long_as_it_may_be_needed_and_no_longer(self) -> None:
        kept = {key for key, content in enumerate(contents(self.ledger), start=1) if content is not None}
        assert kept == set(range(1, len(self.expected) + 1)) - self.erased


_Rows.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_any_sequence_of_events = _Rows.TestCase
