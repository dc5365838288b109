"""Limits over sliding windows, and conversion."""

from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nxotp_async import ConfigurationError, RefusalReason, StoreError
from nxotp_async.verification.limits import Limits, Rule, Scope, Usage, rules_of

NOW = 1_800_000_000.0
HOUR, DAY = 3600.0, 86_400.0
FIVE_AN_HOUR = Rule(RefusalReason.NUMBER_LIMIT, 5, 10)


def sent(times: list[float], approved: list[float] | None = None) -> Usage:
    usage = Usage()
    for at in times:
        usage = usage.with_message(at)
    for at in approved or []:
        usage = usage.with_approval(at)
    return usage


def reason(rule: Rule, usage: Usage, now: float) -> RefusalReason | None:
    refusal = rule.refusal(usage, now)
    return None if refusal is None else refusal.reason


def wait(rule: Rule, usage: Usage, now: float) -> float:
    refusal = rule.refusal(usage, now)
    assert refusal is not None
    assert refusal.retry_after is not None
    return refusal.retry_after


# ---------------------------------------------------------------------------------------------- windows


def test_the_sixth_of_an_hour_is_refused_until_the_first_one_is_out_of_the_window() -> None:
    usage = sent([NOW + minute * 60 for minute in range(5)])
    assert FIVE_AN_HOUR.refusal(sent([NOW + minute * 60 for minute in range(4)]), NOW + 300) is None
    assert reason(FIVE_AN_HOUR, usage, NOW + 300) is RefusalReason.NUMBER_LIMIT
    assert wait(FIVE_AN_HOUR, usage, NOW + 300) == HOUR + 60 - 300
    assert FIVE_AN_HOUR.refusal(usage, NOW + HOUR + 60) is None


def test_the_eleventh_of_a_day_is_refused_until_the_day_is_over() -> None:
    usage = sent([NOW + hour * HOUR for hour in range(10)])
    assert wait(FIVE_AN_HOUR, usage, NOW + 10 * HOUR) == DAY + DAY / 60 - 10 * HOUR
    assert FIVE_AN_HOUR.refusal(usage, NOW + DAY + DAY / 60) is None


def test_the_longer_wait_counts() -> None:
    rule = Rule(RefusalReason.NUMBER_LIMIT, 1, 1)
    assert wait(rule, sent([NOW]), NOW) > DAY


@settings(max_examples=200)
@given(
    st.lists(st.floats(0, 2 * HOUR), min_size=1, max_size=60),
    st.integers(1, 6),
    st.integers(1, 9),
)
def test_no_window_ever_holds_more_than_the_limit_and_the_wait_is_enough(
    gaps: list[float], per_hour: int, per_day: int
) -> None:
    rule, usage, now = Rule(RefusalReason.NUMBER_LIMIT, per_hour, per_day), Usage(), NOW
    allowed: list[float] = []
    for gap in gaps:
        now += gap
        refusal = rule.refusal(usage, now)
        if refusal is None:
            usage = Usage.load(usage.with_message(now).dump())
            allowed.append(now)
        else:
            assert refusal.retry_after is not None
            assert 0 < refusal.retry_after <= DAY + DAY / 60
            assert rule.refusal(usage, now + refusal.retry_after + 0.001) is None
    for window, limit in ((HOUR, per_hour), (DAY, per_day)):
        assert all(sum(at <= other < at + window for other in allowed) <= limit for at in allowed)


def test_a_message_that_was_not_sent_is_taken_back_also_later() -> None:
    usage = sent([NOW] * 5)
    assert FIVE_AN_HOUR.refusal(usage.with_message(NOW, -1), NOW + 1) is None
    later = usage.with_message(NOW + 2 * HOUR).with_message(NOW, -1)
    assert later.hour == {int((NOW + 2 * HOUR) / 60): 1}


def test_what_is_stored_stays_small() -> None:
    usage = sent([NOW + 30 * index for index in range(10_000)], [NOW + 30 * index for index in range(10_000)])
    assert len(usage.dump()) < 3_000


def test_a_usage_is_the_same_after_it_was_stored_and_a_newer_form_is_left_alone() -> None:
    usage = sent([NOW, NOW + 100], [NOW])
    assert Usage.load(usage.dump()) == usage
    assert Usage.load(None) == Usage()
    with pytest.raises(StoreError, match="newer version"):
        Usage.load(attrs.evolve(usage, version=2).dump())


# ---------------------------------------------------------------------------------------------- conversion

CONVERSION = Rule(RefusalReason.PREFIX_LIMIT, None, None, 0.5, 20)
LATER = NOW + DAY / 60 + 600


def test_a_prefix_whose_messages_lead_to_too_few_approvals_is_refused() -> None:
    assert CONVERSION.refusal(sent([NOW] * 20, [NOW] * 10), LATER) is None
    usage = sent([NOW] * 20, [NOW] * 9)
    assert reason(CONVERSION, usage, LATER) is RefusalReason.LOW_CONVERSION
    assert CONVERSION.refusal(usage, LATER + wait(CONVERSION, usage, LATER)) is None


def test_a_few_messages_are_not_judged() -> None:
    assert CONVERSION.refusal(sent([NOW] * 19), LATER) is None


def test_messages_whose_codes_may_still_be_checked_are_not_judged() -> None:
    assert CONVERSION.refusal(sent([NOW] * 1000), NOW + 599) is None
    assert CONVERSION.refusal(sent([NOW] * 20, [NOW] * 10).with_message(LATER), LATER) is None


# ---------------------------------------------------------------------------------------------- declared

COUNTS = ["number_per_hour", "number_per_day", "ip_per_hour", "prefix_per_hour", "country_per_hour", "messages_per_day"]
SHARES = ["min_prefix_conversion", "min_country_conversion"]


@pytest.mark.parametrize("name", [*COUNTS, "checks"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "5"])
def test_a_wrong_count_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^Limits\.{name} must"):
        Limits(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in SHARES for value in (0, 1.1, -0.1, "1", float("nan"))),
        *(("lifetime", value) for value in (0, 601, None, float("inf"))),
        *(("resend_after", value) for value in (30, "30", (0,), (30, None), None)),
        ("checks", None),
    ],
)
def test_another_wrong_limit_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^Limits\.{name} must"):
        Limits(**{name: value})


def test_every_limit_is_off_with_none_and_what_has_no_limit_is_not_counted() -> None:
    assert set(rules_of(Limits())) == set(Scope)
    off: dict[str, Any] = dict.fromkeys([*COUNTS, *SHARES])
    assert rules_of(Limits(**off)) == {}
    assert set(rules_of(Limits(**{**off, "ip_per_hour": 1}))) == {Scope.IP}
    assert set(rules_of(Limits(**{**off, "min_country_conversion": 0.1}))) == {Scope.COUNTRY}
    assert set(rules_of(Limits(number_per_hour=None))) == set(Scope)
