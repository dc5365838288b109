"""A few kills of workers and of the database; `python tests/fleet_kills.py` makes many more."""

from pathlib import Path

import pytest
from fleet_kills import kill_again_and_again
from store_servers import PostgresServer


def test_a_fleet_that_comes_to_harm_loses_nothing_and_sends_nothing_twice(tmp_path: Path) -> None:
    if not PostgresServer.is_installed():
        pytest.skip(f"{PostgresServer.package} has no wheel for this Python and machine")
    found = kill_again_and_again(tmp_path, messages=250, kills=2, terms=1, restarts=1, pauses=0, seed=5, rate=80)
    assert (found.kills, found.terms, found.restarts) == (2, 1, 1)
    assert found.is_good, found
