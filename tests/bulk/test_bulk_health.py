from collections.abc import Callable

import pytest

from nxotp_async.bulk.health import Health

# ---------------------------------------------------------------------------------------------- health


def test_at_first_nothing_is_wrong() -> None:
    health = Health(4, patience=60.0)
    assert not health.is_down
    assert not health.is_hopeless(1e9)


def test_more_failures_in_a_row_than_can_be_in_flight_are_nobodys_own() -> None:
    health = Health(4, patience=60.0)
    for _ in range(8):
        health.failed(0.0)
        assert not health.is_down
    health.failed(0.0)
    assert health.is_down
    health.accepted()
    assert not health.is_down


def test_ever_more_unknown_outcomes_are_hopeless() -> None:
    health = Health(4, patience=60.0)
    for _ in range(8):
        health.unknown(0.0)
        assert not health.is_hopeless(0.0)
    health.unknown(0.0)
    assert health.is_hopeless(0.0)


def test_unknown_outcomes_between_good_ones_are_not() -> None:
    health = Health(4, patience=60.0)
    for _ in range(100):
        health.unknown(0.0)
        health.accepted()
    assert not health.is_hopeless(0.0)


@pytest.mark.parametrize(
    ("failures", "seconds", "hopeless"),
    [(3, 60.0, True), (3, 59.9, False), (2, 3600.0, False), (1, 3600.0, False), (20, 59.9, False), (20, 60.0, True)],
)
def test_a_minute_without_a_good_answer_is_hopeless(failures: int, seconds: float, hopeless: bool) -> None:
    health = Health(100, patience=60.0)
    for _ in range(failures):
        health.failed(1000.0)
    assert health.is_hopeless(1000.0 + seconds) is hopeless


def test_the_minute_begins_anew_with_a_good_answer() -> None:
    health = Health(100, patience=60.0)
    for now in range(0, 55, 5):
        health.failed(float(now))
    health.accepted()
    for now in range(55, 115, 5):
        health.failed(float(now))
        assert not health.is_hopeless(float(now))
    health.failed(115.0)
    assert health.is_hopeless(115.0)


def test_ever_more_refusals_for_the_same_reason_are_hopeless() -> None:
    health = Health(4, patience=60.0)
    for _ in range(100):
        health.refused(10005)
        assert not health.is_hopeless(0.0)
    health.refused(10005)
    assert health.is_hopeless(0.0)
    health.accepted()
    assert not health.is_hopeless(0.0)


def test_refusals_for_different_reasons_are_not() -> None:
    health = Health(4, patience=60.0)
    for _ in range(100):
        health.refused(10005)
        health.refused(9015)
    assert not health.is_hopeless(0.0)


def test_what_was_in_flight_together_and_was_not_processed_has_one_reason() -> None:
    health = Health(4, patience=60.0)
    for tried_again in (True, False, False, False):
        health.not_processed(0.0, tried_again=tried_again)
        assert not health.is_down
    health.not_processed(0.0, tried_again=True)
    assert health.is_down


def test_what_is_not_processed_after_good_answers_counts_although_it_was_sent_before() -> None:
    health = Health(4, patience=60.0)
    for tried_again in (False, True):
        assert not health.is_down
        health.not_processed(0.0, tried_again=tried_again)
    assert health.is_down


@pytest.mark.parametrize("concurrency", [1, 4, 64])
def test_five_rounds_in_a_row_in_which_nothing_was_processed_are_hopeless(concurrency: int) -> None:
    health = Health(concurrency, patience=60.0)
    for number in range(4 * concurrency):
        health.not_processed(0.0, tried_again=number % concurrency == 0)
        assert not health.is_hopeless(0.0)
    health.not_processed(0.0, tried_again=True)
    assert health.is_hopeless(0.0)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda health: health.accepted(), id="accepted"),
        pytest.param(lambda health: health.refused(9015), id="refused"),
        pytest.param(lambda health: health.failed(0.0), id="refused for a moment"),
    ],
)
@pytest.mark.parametrize("rounds", [1, 4])
def test_where_something_is_processed_in_between_they_are_not(answer: Callable[[Health], None], rounds: int) -> None:
    health = Health(100, patience=60.0)
    for _ in range(25):
        for _ in range(rounds):
            health.not_processed(0.0, tried_again=True)
        answer(health)
    assert not health.is_hopeless(0.0)


def test_a_minute_in_which_nothing_is_processed_is_hopeless() -> None:
    health = Health(100, patience=60.0)
    for now in (0.0, 30.0, 59.9):
        health.not_processed(now, tried_again=now == 0.0)
        assert not health.is_hopeless(now)
    assert health.is_hopeless(60.0)
