import math
import tracemalloc
from itertools import pairwise

import pytest

from nxotp_async import OtpMessage
from nxotp_async.bulk.pacing import RecipientPacing, SendRate
from nxotp_async.bulk.schema import StoredMessage

ALICE, BOB = "9995550100", "9995550101"


# ---------------------------------------------------------------------------------------------- the rate


def test_without_a_limit_everything_may_go_at_once() -> None:
    rate = SendRate(None, 0.0)
    assert rate.rate == math.inf
    assert rate.wait(0.0) == 0.0
    assert rate.take(1_000_000, 0.0) == 1_000_000
    assert rate.take(1_000_000, 0.0) == 1_000_000


@pytest.mark.parametrize(
    ("limit", "idle", "granted"),
    [
        pytest.param(100.0, 0.0, 1, id="one at the start"),
        pytest.param(100.0, 0.05, 6, id="what came in a twentieth of a second"),
        pytest.param(100.0, 0.1, 10, id="a tenth of a second's worth"),
        pytest.param(100.0, 3600.0, 10, id="no more than that after a lull"),
        pytest.param(2.0, 3600.0, 1, id="one at the least, where a tenth of a second is worth less"),
        pytest.param(0.5, 1.0, 1, id="less than one a second"),
    ],
)
def test_a_lull_is_made_up_for_by_a_small_burst_only(limit: float, idle: float, granted: int) -> None:
    rate = SendRate(limit, 0.0)
    assert rate.take(1000, idle) == granted
    assert rate.take(1000, idle) == 0


@pytest.mark.parametrize("limit", [0.3, 1.0, 7.0, 80.0, 1234.5])
@pytest.mark.parametrize("step", [0.001, 0.05, 0.9])
def test_the_rate_is_never_exceeded(limit: float, step: float) -> None:
    burst = max(1.0, limit * SendRate.BURST)
    rate = SendRate(limit, 0.0)
    sent = 0
    for tick in range(1, 2000):
        sent += rate.take(10_000, tick * step)
        assert sent <= limit * tick * step + burst + 1e-6


@pytest.mark.parametrize("limit", [0.3, 1.0, 7.0, 80.0, 1234.5])
def test_the_rate_is_used_up_by_whoever_waits_as_told(limit: float) -> None:
    rate = SendRate(limit, 0.0)
    sent, now = 0, 0.0
    for _ in range(1000):
        now += rate.wait(now) + 1e-9
        sent += rate.take(10_000, now)
    assert sent == pytest.approx(1 + limit * now, rel=0.001)


@pytest.mark.parametrize("limit", [0.3, 1.0, 7.0, 80.0])
def test_after_the_wait_one_may_go_and_before_it_none(limit: float) -> None:
    rate = SendRate(limit, 0.0)
    assert rate.take(1, 0.0) == 1
    pause = rate.wait(0.0)
    assert pause == pytest.approx(1 / limit)
    assert rate.take(1, pause * 0.99) == 0
    assert rate.take(1, pause + 1e-9) == 1


def test_what_did_not_go_may_go_later() -> None:
    rate = SendRate(100.0, 0.0)
    assert rate.take(10, 1.0) == 10
    rate.give_back(7)
    assert rate.take(10, 1.0) == 7


def test_what_is_given_back_does_not_make_the_burst_larger() -> None:
    rate = SendRate(100.0, 0.0)
    rate.take(10, 1.0)
    rate.give_back(10)
    assert rate.take(1000, 2.0) == 10


@pytest.mark.parametrize("limit", [None, 100.0])
def test_a_hold_lets_nothing_go_before_its_end(limit: float | None) -> None:
    rate = SendRate(limit, 0.0)
    rate.hold(5.0)
    rate.hold(3.0)  # an earlier end does not shorten it
    assert rate.wait(1.0) == 4.0
    assert rate.take(10, 4.999) == 0
    assert rate.wait(5.0) == 0.0
    assert rate.take(10, 5.0) == 10


def test_throttling_halves_the_rate_once_a_round() -> None:
    rate = SendRate(100.0, 0.0)
    assert rate.throttled(sent_at=0.0, now=1.0)
    assert rate.rate == 50.0
    # These had gone before the rate was lowered, and say nothing about the lower one.
    assert not rate.throttled(sent_at=0.5, now=1.0)
    assert not rate.throttled(sent_at=1.0, now=1.0)
    assert rate.rate == 50.0
    assert rate.throttled(sent_at=1.001, now=1.0)
    assert rate.rate == 25.0


def test_throttling_takes_the_burst_away() -> None:
    rate = SendRate(100.0, 0.0)
    rate.throttled(sent_at=0.0, now=1.0)
    assert rate.take(100, 1.0) == 0
    assert rate.wait(1.0) == pytest.approx(1 / 50)


@pytest.mark.parametrize(("limit", "floor"), [(100.0, 1.0), (None, 1.0), (0.3, 0.3)])
def test_the_rate_does_not_fall_below_the_floor_nor_rise_to_it(limit: float | None, floor: float) -> None:
    rate = SendRate(limit, 0.0)
    for tick in range(1, 30):
        rate.throttled(sent_at=tick * 0.01, now=tick * 0.01)
    assert rate.rate == pytest.approx(floor, rel=0.02)


def test_the_rate_grows_back_by_five_percent_a_second_up_to_the_limit() -> None:
    rate = SendRate(100.0, 0.0)
    rate.throttled(sent_at=0.0, now=1.0)
    rate.wait(2.0)
    assert rate.rate == pytest.approx(52.5)
    rate.wait(11.0)
    assert rate.rate == pytest.approx(50 * 1.05**10)
    rate.wait(16.0)
    assert rate.rate == 100.0
    rate.wait(1000.0)
    assert rate.rate == 100.0


def test_the_growth_does_not_depend_on_how_often_it_is_looked_at() -> None:
    often, seldom = SendRate(100.0, 0.0), SendRate(100.0, 0.0)
    for rate in (often, seldom):
        rate.throttled(sent_at=0.0, now=1.0)
    for tick in range(1000):
        often.wait(1.0 + tick / 100)
    often.wait(11.0)
    seldom.wait(11.0)
    assert often.rate == pytest.approx(seldom.rate)


@pytest.mark.parametrize("limit", [None, 100.0])
def test_a_lowered_rate_survives_a_process_that_was_stopped_for_days(limit: float | None) -> None:
    rate = SendRate(limit, 0.0)
    rate.throttled(sent_at=0.0, now=1.0)
    assert rate.wait(1_000_000.0) == 0.0
    assert (rate.rate == limit) if limit else (rate.rate > 1000)


def test_without_a_limit_throttling_halves_what_went_of_late() -> None:
    rate = SendRate(None, 0.0)
    for tick in range(100):
        rate.take(10, tick * 0.1)  # 100 a second
    assert rate.throttled(sent_at=9.0, now=9.9)
    assert rate.rate == pytest.approx(50, rel=0.06)
    assert rate.take(1000, 9.9) == 0


def test_what_was_given_back_does_not_count_as_gone_of_late() -> None:
    rate = SendRate(None, 0.0)
    for tick in range(100):
        rate.take(64, tick * 0.1)
        rate.give_back(54)  # 100 a second
    rate.throttled(sent_at=9.0, now=9.9)
    assert rate.rate == pytest.approx(50, rel=0.06)


# ---------------------------------------------------------------------------------------------- recipients


def admit(pacing: RecipientPacing, recipient: str, now: float, *, waited: bool = False) -> float:
    """Return 0.0 where a message to the recipient may go now, else when it may."""
    ready, later = pacing.split([StoredMessage(7, OtpMessage(recipient, "482913"), 0)], now, waited=waited)
    assert len(ready) + len(later) == 1
    for key, until in later:
        assert key == 7
        return until
    return 0.0


def test_without_an_interval_recipients_are_not_kept_apart() -> None:
    pacing = RecipientPacing()
    assert [admit(pacing, ALICE, 1000.0) for _ in range(5)] == [0.0] * 5


def test_every_message_to_a_recipient_gets_a_slot_of_its_own() -> None:
    pacing = RecipientPacing(6.0)
    assert [admit(pacing, ALICE, 1000.0) for _ in range(4)] == [0.0, 1006.0, 1012.0, 1018.0]
    assert admit(pacing, BOB, 1000.0) == 0.0


def test_a_message_that_has_waited_goes_in_its_slot_and_not_before() -> None:
    pacing = RecipientPacing(6.0)
    assert [admit(pacing, ALICE, 1000.0) for _ in range(2)] == [0.0, 1006.0]
    assert admit(pacing, ALICE, 1005.9, waited=True) == 1006.0
    assert admit(pacing, ALICE, 1006.0, waited=True) == 0.0
    assert admit(pacing, ALICE, 1006.0, waited=True) == 1012.0


def test_one_that_comes_later_goes_behind_those_that_wait() -> None:
    pacing = RecipientPacing(6.0)
    assert [admit(pacing, ALICE, 1000.0) for _ in range(3)] == [0.0, 1006.0, 1012.0]
    assert admit(pacing, ALICE, 1006.0, waited=True) == 0.0
    assert admit(pacing, ALICE, 1007.0) == 1018.0


def test_what_an_earlier_run_has_sent_counts() -> None:
    pacing = RecipientPacing(6.0, {ALICE: 998.0})
    assert admit(pacing, ALICE, 1000.0) == 1004.0
    assert admit(pacing, BOB, 1000.0) == 0.0


def test_a_recipient_that_was_throttled_waits_and_others_do_not() -> None:
    pacing = RecipientPacing()
    assert pacing.throttled(ALICE, 1010.0, 1000.0) == 1010.0
    assert admit(pacing, ALICE, 1001.0) == 1016.0  # Meta's six seconds behind the one that was refused
    assert admit(pacing, ALICE, 1001.0) == 1022.0
    assert admit(pacing, BOB, 1001.0) == 0.0
    assert admit(pacing, ALICE, 1010.0, waited=True) == 0.0


def test_messages_that_were_throttled_together_do_not_come_back_together() -> None:
    pacing = RecipientPacing()
    assert [pacing.throttled(ALICE, 1010.0 - number, 1000.0) for number in range(4)] == [1010.0, 1016.0, 1022.0, 1028.0]
    assert pacing.throttled(BOB, 1010.0, 1000.0) == 1010.0
    assert pacing.throttled(ALICE, 1100.0, 1029.0) == 1100.0


def test_the_slots_after_throttling_are_as_far_apart_as_the_interval() -> None:
    pacing = RecipientPacing(20.0)
    assert [pacing.throttled(ALICE, 1010.0, 1000.0) for _ in range(2)] == [1010.0, 1030.0]
    assert admit(pacing, ALICE, 1001.0) == 1050.0


def test_throttling_that_is_over_holds_nobody() -> None:
    pacing = RecipientPacing()
    pacing.throttled(ALICE, 1010.0, 1000.0)
    assert admit(pacing, ALICE, 1015.9) == 1016.0
    assert admit(pacing, ALICE, 1022.0) == 0.0


@pytest.mark.parametrize("interval", [0.0, 6.0])
def test_recipients_that_no_longer_matter_do_not_stay_in_memory(interval: float) -> None:
    pacing = RecipientPacing(interval)
    tracemalloc.start()
    for number in range(100_000):
        now = 1000.0 + number / 1000
        if interval:
            admit(pacing, f"9995{number:07}", now)
        else:
            pacing.throttled(f"9995{number:07}", now + 6.0, now)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8_000_000  # all of them would take more than 15 MB
    assert admit(pacing, "99950099999", 1100.0) > 1100.0  # but those that matter do


@pytest.mark.parametrize("interval", [0.5, 6.0])
def test_whatever_comes_messages_to_a_recipient_are_an_interval_apart(interval: float) -> None:
    pacing = RecipientPacing(interval)
    waiting = [(1000.0, number, False) for number in range(30)]
    sent: list[tuple[float, int]] = []
    while waiting:
        waiting.sort()
        at, number, waited = waiting.pop(0)
        if not_before := admit(pacing, ALICE, at, waited=waited):
            assert not_before > at
            waiting.append((not_before, number, True))
        else:
            sent.append((at, number))
    assert [number for _, number in sent] == list(range(30))
    assert [later - earlier for (earlier, _), (later, _) in pairwise(sent)] == [pytest.approx(interval)] * 29
