import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from support import VENDOR_FAILURES

from nxotp_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    InvalidMessageError,
    MetaError,
    NotSentError,
    NxOtpError,
    OutcomeUnknownError,
    RetryPolicy,
    TimestampExpiredError,
    TransientApiError,
)
from nxotp_async.bulk.pacing import RecipientPacing, SendRate
from nxotp_async.bulk.verdicts import Health, Verdict, judge

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


def test_without_an_interval_recipients_are_not_kept_apart() -> None:
    pacing = RecipientPacing()
    assert [pacing.admit(False, ALICE, 1000.0) for _ in range(5)] == [0.0] * 5


def test_every_message_to_a_recipient_gets_a_slot_of_its_own() -> None:
    pacing = RecipientPacing(6.0)
    assert [pacing.admit(False, ALICE, 1000.0) for _ in range(4)] == [0.0, 1006.0, 1012.0, 1018.0]
    assert pacing.admit(False, BOB, 1000.0) == 0.0


def test_a_message_that_has_waited_goes_in_its_slot_and_not_before() -> None:
    pacing = RecipientPacing(6.0)
    assert [pacing.admit(False, ALICE, 1000.0) for _ in range(2)] == [0.0, 1006.0]
    assert pacing.admit(True, ALICE, 1005.9) == 1006.0
    assert pacing.admit(True, ALICE, 1006.0) == 0.0
    assert pacing.admit(True, ALICE, 1006.0) == 1012.0


def test_one_that_comes_later_goes_behind_those_that_wait() -> None:
    pacing = RecipientPacing(6.0)
    assert [pacing.admit(False, ALICE, 1000.0) for _ in range(3)] == [0.0, 1006.0, 1012.0]
    assert pacing.admit(True, ALICE, 1006.0) == 0.0
    assert pacing.admit(False, ALICE, 1007.0) == 1018.0


def test_what_an_earlier_run_has_sent_counts() -> None:
    pacing = RecipientPacing(6.0, {ALICE: 998.0})
    assert pacing.admit(False, ALICE, 1000.0) == 1004.0
    assert pacing.admit(False, BOB, 1000.0) == 0.0


def test_a_recipient_that_was_throttled_waits_and_others_do_not() -> None:
    pacing = RecipientPacing()
    assert pacing.throttled(ALICE, 1010.0, 1000.0) == 1010.0
    assert pacing.admit(False, ALICE, 1001.0) == 1016.0  # Meta's six seconds behind the one that was refused
    assert pacing.admit(False, ALICE, 1001.0) == 1022.0
    assert pacing.admit(False, BOB, 1001.0) == 0.0
    assert pacing.admit(True, ALICE, 1010.0) == 0.0


def test_messages_that_were_throttled_together_do_not_come_back_together() -> None:
    pacing = RecipientPacing()
    assert [pacing.throttled(ALICE, 1010.0 - number, 1000.0) for number in range(4)] == [1010.0, 1016.0, 1022.0, 1028.0]
    assert pacing.throttled(BOB, 1010.0, 1000.0) == 1010.0
    assert pacing.throttled(ALICE, 1100.0, 1029.0) == 1100.0


def test_the_slots_after_throttling_are_as_far_apart_as_the_interval() -> None:
    pacing = RecipientPacing(20.0)
    assert [pacing.throttled(ALICE, 1010.0, 1000.0) for _ in range(2)] == [1010.0, 1030.0]
    assert pacing.admit(False, ALICE, 1001.0) == 1050.0


def test_throttling_that_is_over_holds_nobody() -> None:
    pacing = RecipientPacing()
    pacing.throttled(ALICE, 1010.0, 1000.0)
    assert pacing.admit(False, ALICE, 1015.9) == 1016.0
    assert pacing.admit(False, ALICE, 1022.0) == 0.0


@pytest.mark.parametrize("interval", [0.0, 6.0])
def test_recipients_that_no_longer_matter_do_not_stay_in_memory(interval: float) -> None:
    pacing = RecipientPacing(interval)
    most = 0
    for number in range(40_000):
        now = 1000.0 + number / 1000
        if interval:
            pacing.admit(False, str(number), now)
        else:
            pacing.throttled(str(number), now + 6.0, now)
        most = max(most, len(pacing._last) + len(pacing._next_slot))
    assert most <= 25_000
    assert pacing.admit(False, "39999", 1040.0) > 1040.0  # but those that matter do


@pytest.mark.parametrize("interval", [0.5, 6.0])
def test_whatever_comes_messages_to_a_recipient_are_an_interval_apart(interval: float) -> None:
    pacing = RecipientPacing(interval)
    waiting = [(1000.0, number, False) for number in range(30)]
    sent: list[tuple[float, int]] = []
    while waiting:
        waiting.sort()
        at, number, waited = waiting.pop(0)
        if not_before := pacing.admit(waited, ALICE, at):
            assert not_before > at
            waiting.append((not_before, number, True))
        else:
            sent.append((at, number))
    assert [number for _, number in sent] == list(range(30))
    assert [later - earlier for (earlier, _), (later, _) in pairwise(sent)] == [pytest.approx(interval)] * 29


# ---------------------------------------------------------------------------------------------- verdicts


def verdict_on(
    error: NxOtpError,
    *,
    expired: bool = False,
    policy: RetryPolicy | None = None,
    reject_on: tuple[int, ...] = (),
) -> Verdict:
    return judge(error, expired=expired, policy=policy or RetryPolicy(max_attempts=5), reject_on=reject_on)


def vendor_error(code: int, **facts: Any) -> ApiError:
    return VENDOR_FAILURES[code]("refused", code=code, http_status=200, attempts=1, **facts)


def meta_error(meta_code: int) -> MetaError:
    return MetaError("refused", code=9099, meta_code=meta_code, http_status=200, attempts=1)


EXPECTED = {
    code: Verdict.AGAIN
    if code in (-1, 9001)
    else Verdict.PAUSE
    if issubclass(error, AccountError | AuthenticationError)
    else Verdict.DONE
    for code, error in VENDOR_FAILURES.items()
}


def test_the_codes_that_pause_are_those_that_no_message_can_pass() -> None:
    assert {code for code, verdict in EXPECTED.items() if verdict is Verdict.PAUSE} == {
        1001, 1003, 1004, 1005, 9002, 9003, 9004, 9005, 9006, 9013, 10003,
    }  # fmt: skip


@pytest.mark.parametrize(("code", "verdict"), EXPECTED.items())
def test_what_each_of_the_vendors_codes_means(code: int, verdict: Verdict) -> None:
    assert verdict_on(vendor_error(code)) is verdict


def test_an_unlisted_code_of_the_authentication_family_pauses() -> None:
    assert verdict_on(AuthenticationError("refused", code=1009, http_status=200, attempts=1)) is Verdict.PAUSE


@pytest.mark.parametrize("code", [code for code, verdict in EXPECTED.items() if verdict is Verdict.PAUSE])
def test_a_code_to_reject_on_refuses_its_message_only(code: int) -> None:
    assert verdict_on(vendor_error(code), reject_on=(code,)) is Verdict.DONE
    assert verdict_on(vendor_error(code), reject_on=(code + 1,)) is Verdict.PAUSE


@pytest.mark.parametrize(
    ("meta_code", "verdict"),
    [
        (4, Verdict.THROTTLED),
        (80007, Verdict.THROTTLED),
        (130429, Verdict.THROTTLED),
        (131056, Verdict.AGAIN),
        (131016, Verdict.AGAIN),
        (131057, Verdict.AGAIN),
        (133004, Verdict.AGAIN),
        (100, Verdict.DONE),
        (131026, Verdict.DONE),
    ],
)
def test_what_each_of_metas_codes_means(meta_code: int, verdict: Verdict) -> None:
    assert verdict_on(meta_error(meta_code)) is verdict


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(TransientApiError("HTTP 429", http_status=429, attempts=1), id="HTTP 429"),
        pytest.param(TransientApiError("HTTP 429", code=9001, http_status=429, attempts=1), id="HTTP 429 with 9001"),
        pytest.param(meta_error(130429), id="Meta 130429"),
    ],
)
def test_throttling_concerns_the_run_and_not_the_message(error: NxOtpError) -> None:
    assert verdict_on(error) is Verdict.THROTTLED


def test_only_what_the_policy_lists_is_tried_again() -> None:
    policy = RetryPolicy(max_attempts=5, transient_codes={9007}, transient_meta_codes=())
    assert verdict_on(vendor_error(9007), policy=policy) is Verdict.AGAIN
    assert verdict_on(vendor_error(-1), policy=policy) is Verdict.DONE
    assert verdict_on(meta_error(131056), policy=policy) is Verdict.DONE


@pytest.mark.parametrize(("corrected", "verdict"), [(True, Verdict.CORRECTED), (False, Verdict.PAUSE)])
def test_a_refused_timestamp_pauses_unless_the_clock_explains_it(corrected: bool, verdict: Verdict) -> None:
    error = TimestampExpiredError("expired", code=1004, http_status=200, attempts=1, clock_corrected=corrected)
    assert verdict_on(error) is verdict
    assert verdict_on(error, reject_on=(1004,)) is Verdict.DONE


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 407, 451])
def test_an_answer_without_a_code_of_the_vendors_is_not_the_vendors(status: int) -> None:
    error = ApiError("refused", http_status=status, attempts=1)
    assert verdict_on(error) is Verdict.INTERCEPTED
    assert verdict_on(error, reject_on=(status,)) is Verdict.DONE
    assert verdict_on(error, reject_on=(status + 1,)) is Verdict.INTERCEPTED


@pytest.mark.parametrize("resend_unknown", [False, True])
@pytest.mark.parametrize("expired", [False, True])
def test_what_may_have_been_accepted_is_never_tried_again(resend_unknown: bool, expired: bool) -> None:
    policy = RetryPolicy(max_attempts=5, resend_unknown=resend_unknown)
    assert verdict_on(OutcomeUnknownError("lost", attempts=1), expired=expired, policy=policy) is Verdict.DONE


@pytest.mark.parametrize(
    ("temporary", "attempts", "expired", "verdict"),
    [
        pytest.param(True, 1, False, Verdict.UNREACHABLE, id="refused connection"),
        pytest.param(True, 1, True, Verdict.UNREACHABLE, id="refused connection, and expired meanwhile"),
        pytest.param(False, 1, False, Verdict.PAUSE, id="certificate"),
        pytest.param(False, 0, True, Verdict.DONE, id="expired before it began"),
        pytest.param(False, 0, False, Verdict.UNREACHABLE, id="out of time in a queue"),
    ],
)
def test_what_it_means_that_a_message_did_not_leave(
    temporary: bool, attempts: int, expired: bool, verdict: Verdict
) -> None:
    assert verdict_on(NotSentError("no", temporary=temporary, attempts=attempts), expired=expired) is verdict


def test_a_message_that_the_client_refuses_is_done() -> None:
    assert verdict_on(InvalidMessageError("twin", field="cus_message_id")) is Verdict.DONE


# ---------------------------------------------------------------------------------------------- health


def test_at_first_nothing_is_wrong() -> None:
    health = Health(4)
    assert not health.is_down
    assert not health.is_hopeless(1e9)


def test_more_failures_in_a_row_than_can_be_in_flight_are_nobodys_own() -> None:
    health = Health(4)
    for _ in range(8):
        health.unwell(0.0)
        assert not health.is_down
    health.unwell(0.0)
    assert health.is_down
    health.accepted()
    assert not health.is_down


def test_ever_more_unknown_outcomes_are_hopeless() -> None:
    health = Health(4)
    for _ in range(8):
        health.unknown(0.0)
        assert not health.is_hopeless(0.0)
    health.unknown(0.0)
    assert health.is_hopeless(0.0)


def test_unknown_outcomes_between_good_ones_are_not() -> None:
    health = Health(4)
    for _ in range(100):
        health.unknown(0.0)
        health.accepted()
    assert not health.is_hopeless(0.0)


@pytest.mark.parametrize(
    ("failures", "seconds", "hopeless"),
    [(3, 60.0, True), (3, 59.9, False), (2, 3600.0, False), (1, 3600.0, False), (20, 59.9, False), (20, 60.0, True)],
)
def test_a_minute_without_a_good_answer_is_hopeless(failures: int, seconds: float, hopeless: bool) -> None:
    health = Health(100)
    for _ in range(failures):
        health.unwell(1000.0)
    assert health.is_hopeless(1000.0 + seconds) is hopeless


def test_the_minute_begins_anew_with_a_good_answer() -> None:
    health = Health(100)
    for now in range(0, 55, 5):
        health.unwell(float(now))
    health.accepted()
    for now in range(55, 115, 5):
        health.unwell(float(now))
        assert not health.is_hopeless(float(now))
    health.unwell(115.0)
    assert health.is_hopeless(115.0)


def test_ever_more_refusals_for_the_same_reason_are_hopeless() -> None:
    health = Health(4)
    for _ in range(100):
        health.refused(10005)
        assert not health.is_hopeless(0.0)
    health.refused(10005)
    assert health.is_hopeless(0.0)
    health.accepted()
    assert not health.is_hopeless(0.0)


def test_refusals_for_different_reasons_are_not() -> None:
    health = Health(4)
    for _ in range(100):
        health.refused(10005)
        health.refused(9015)
    assert not health.is_hopeless(0.0)


def test_what_was_in_flight_together_and_was_not_judged_has_one_reason() -> None:
    health = Health(4)
    for in_flight in (3, 3, 2, 1):
        health.unjudged(0.0, in_flight=in_flight)
        assert not health.is_down
    health.unjudged(0.0, in_flight=3)
    assert health.is_down


@pytest.mark.parametrize("concurrency", [1, 4, 64])
def test_five_flights_in_a_row_of_which_nothing_was_judged_are_hopeless(concurrency: int) -> None:
    health = Health(concurrency)
    for _ in range(4 * concurrency):
        health.unjudged(0.0, in_flight=concurrency - 1)
        assert not health.is_hopeless(0.0)
    health.unjudged(0.0, in_flight=concurrency - 1)
    assert health.is_hopeless(0.0)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda health: health.accepted(), id="accepted"),
        pytest.param(lambda health: health.refused(9015), id="refused"),
        pytest.param(lambda health: health.unwell(0.0), id="refused for a moment"),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_where_something_is_judged_in_between_they_are_not(answer: Callable[[Health], None], concurrency: int) -> None:
    health = Health(100)
    for _ in range(25):
        for in_flight in (concurrency - 1, 0):
            health.unjudged(0.0, in_flight=in_flight)
        answer(health)
    assert not health.is_hopeless(0.0)


def test_a_minute_in_which_nothing_is_judged_is_hopeless() -> None:
    health = Health(100)
    for now in (0.0, 30.0, 59.9):
        health.unjudged(now, in_flight=99)
        assert not health.is_hopeless(now)
    assert health.is_hopeless(60.0)
