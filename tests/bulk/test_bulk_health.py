from collections.abc import Callable

import pytest

from nxotp_async.bulk.verdicts import Health

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
