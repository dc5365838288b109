"""The life of a verification, event by event and in any order."""

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nxotp_async import RefusalReason, StoreError, VerificationRefusedError
from nxotp_async.verification.state import CheckStatus, VerificationState, VerificationStatus

NOW = 1_800_000_000.0
PAUSES = (30.0, 60.0, 120.0)
STARTED = VerificationState(b"sealed", NOW + 300, NOW + PAUSES[0], 5)


def check(state: VerificationState, at: float = NOW, *, is_right: bool = True) -> tuple[VerificationState, CheckStatus]:
    return state.checked(at, is_right=is_right)


def test_the_right_code_approves_once() -> None:
    approved, found = check(STARTED)
    assert found is CheckStatus.APPROVED
    assert approved.status_at(NOW) is VerificationStatus.APPROVED
    assert check(approved) == (approved, CheckStatus.SPENT)
    assert check(approved, NOW + 1000) == (approved, CheckStatus.SPENT)


def test_a_wrong_code_takes_a_check_and_the_sixth_is_none() -> None:
    state = STARTED
    for left in (4, 3, 2, 1, 0):
        state, found = check(state, is_right=False)
        assert (found, state.checks_left) == (CheckStatus.WRONG, left)
    assert state.status_at(NOW) is VerificationStatus.SPENT
    assert check(state) == (state, CheckStatus.SPENT)


@pytest.mark.parametrize("is_right", [True, False])
def test_nothing_is_approved_from_the_moment_of_expiry_on(is_right: bool) -> None:
    assert check(STARTED, NOW + 299.999)[1] is CheckStatus.APPROVED
    assert check(STARTED, NOW + 300, is_right=is_right) == (STARTED, CheckStatus.EXPIRED)
    assert STARTED.status_at(NOW + 300) is VerificationStatus.EXPIRED


def test_a_resend_comes_after_its_pause_and_three_times_at_most() -> None:
    state, at = STARTED, NOW
    for count, pause in enumerate(PAUSES, 1):
        with pytest.raises(VerificationRefusedError) as refused:
            state.resent(at + pause - 0.5, PAUSES)
        assert refused.value.reason is RefusalReason.TOO_SOON
        assert refused.value.retry_after == 0.5
        at += pause
        state = state.resent(at, PAUSES)
        assert state.resends == count
    with pytest.raises(VerificationRefusedError) as refused:
        state.resent(NOW + 299, PAUSES)
    assert refused.value.reason is RefusalReason.NO_RESENDS_LEFT


def test_a_resend_changes_neither_the_checks_nor_the_expiry() -> None:
    resent = check(STARTED, is_right=False)[0].resent(NOW + 30, PAUSES)
    assert (resent.checks_left, resent.expires_at) == (4, STARTED.expires_at)


def test_what_has_ended_is_not_sent_again() -> None:
    spent = attrs.evolve(STARTED, checks_left=0)
    for state, at in ((check(STARTED)[0], 60), (STARTED.cancelled(), 60), (spent, 60), (STARTED, 300)):
        with pytest.raises(VerificationRefusedError) as refused:
            state.resent(NOW + at, PAUSES)
        assert refused.value.reason is RefusalReason.NOT_PENDING
        assert refused.value.retry_after is None


def test_what_was_cancelled_cannot_be_approved_and_what_was_approved_stays_so() -> None:
    assert check(STARTED.cancelled())[1] is CheckStatus.SPENT
    approved, _ = check(STARTED)
    assert approved.cancelled() == approved


def test_an_end_erases_the_number() -> None:
    assert check(STARTED)[0].sealed == STARTED.cancelled().sealed == b""


@pytest.mark.parametrize("state", [STARTED, STARTED.cancelled(), attrs.evolve(STARTED, sealed=bytes(range(256)))])
def test_a_state_is_the_same_after_it_was_stored(state: VerificationState) -> None:
    assert VerificationState.load(state.dump()) == state


def test_a_newer_form_is_left_alone() -> None:
    with pytest.raises(StoreError, match="newer version"):
        VerificationState.load(attrs.evolve(STARTED, version=2).dump())


class Life(RuleBasedStateMachine):
    """Any events in any order, with any time between them."""

    @initialize(checks=st.integers(1, 7), lifetime=st.floats(30, 600), pauses=st.lists(st.floats(1, 200), max_size=4))
    def start(self, checks: int, lifetime: float, pauses: list[float]) -> None:
        self.now = NOW
        self.pauses = pauses
        self.checks = checks
        self.expires_at = NOW + lifetime
        self.state = VerificationState(b"x", self.expires_at, NOW + pauses[0] if pauses else None, checks)
        self.sent_at = [NOW]
        self.approvals = self.wrong = 0
        self.was_cancelled = False

    @rule(seconds=st.one_of(st.floats(0, 700), st.sampled_from([0.0, 30.0, 60.0, 120.0, 300.0])))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(is_right=st.booleans())
    def check(self, is_right: bool) -> None:
        self.state, found = self.state.checked(self.now, is_right=is_right)
        if found is CheckStatus.APPROVED:
            assert is_right
            assert self.now < self.expires_at
            assert not self.was_cancelled
            assert self.wrong < self.checks
            self.approvals += 1
        elif found is CheckStatus.WRONG:
            assert not is_right
            assert self.approvals == 0
            self.wrong += 1

    @rule()
    def resend(self) -> None:
        try:
            self.state = self.state.resent(self.now, self.pauses)
        except VerificationRefusedError as refused:
            wait = refused.retry_after
            assert wait is None or self.now + wait == pytest.approx(self.sent_at[-1] + self.pauses[self.state.resends])
            return
        assert self.now >= self.sent_at[-1] + self.pauses[len(self.sent_at) - 1]
        assert self.now < self.expires_at
        assert self.approvals == 0
        assert not self.was_cancelled
        self.sent_at.append(self.now)

    @rule()
    def cancel(self) -> None:
        self.state = self.state.cancelled()
        self.was_cancelled = self.approvals == 0

    @rule()
    def store(self) -> None:
        self.state = VerificationState.load(self.state.dump())

    @invariant()
    def no_limit_is_passed(self) -> None:
        assert self.approvals <= 1
        assert self.wrong <= self.checks
        assert len(self.sent_at) <= len(self.pauses) + 1
        assert (self.state.status_at(self.now) is VerificationStatus.APPROVED) == (self.approvals == 1)


TestLife = Life.TestCase
