"""A few kills in the middle of a run; `python tests/kills.py` makes a hundred."""

from pathlib import Path

from kills import kill_again_and_again


def test_a_run_that_is_killed_again_and_again_loses_nothing_and_sends_nothing_twice(tmp_path: Path) -> None:
    found = kill_again_and_again(tmp_path, messages=800, kills=6, seed=7, at_start=0.0)
    assert found.kills == 6
    assert found.is_good, found
    assert sum(found.in_flight) > 0
