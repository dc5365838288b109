"""How long a connection may idle: what the server says of it, and what it does, shortens the time."""

import pytest

from nxotp_async.testing import FakeClock
from nxotp_async.transports.keep_alive import KeepAlive


def keep_alive() -> tuple[KeepAlive, FakeClock]:
    clock = FakeClock()
    return KeepAlive(15.0, clock.monotonic), clock


@pytest.mark.parametrize(
    ("header", "limit"),
    [
        ("timeout=5", 4.0),
        ("timeout=5, max=100", 4.0),
        ('max=100, Timeout = "5"', 4.0),
        ("timeout=1", 0.5),
        ("timeout=0", 0.0),
        ("timeout=3600", 15.0),
        ("timeout=99999999999999999999", 15.0),
        ("timeout", 15.0),
        ("timeout=soon", 15.0),
        ("timeout=-5", 15.0),
        ("max=5", 15.0),
        ("", 15.0),
    ],
)
def test_the_servers_own_word_shortens_the_time(header: str, limit: float) -> None:
    keep, clock = keep_alive()
    keep.apply_header(header)
    assert keep.limit(clock.monotonic()) == limit


def test_a_connection_that_the_server_closed_shortens_the_time_for_a_minute() -> None:
    keep, clock = keep_alive()
    keep.record_close(4.0)
    assert keep.limit(clock.monotonic()) == 2.0
    keep.record_close(6.0)  # says no more than the one before, but that it still holds
    assert keep.limit(clock.monotonic()) == 2.0
    clock.advance(59)
    keep.record_close(1.0)
    assert keep.limit(clock.monotonic()) == 0.5
    clock.advance(60)
    assert keep.limit(clock.monotonic()) == 15.0


def test_a_connection_that_idled_for_all_its_time_teaches_nothing() -> None:
    keep, clock = keep_alive()
    keep.record_close(15.0)
    assert keep.limit(clock.monotonic()) == 15.0
