"""A few hundred messages to the servers that `python tests/faults.py` sends thousands to, and the judge itself."""

from collections import Counter

import pytest
from faults import judge, run


@pytest.mark.parametrize(
    ("scenario", "concurrency", "loop"),
    [
        ("duplicate-next-write", 1, "uvloop"),
        ("duplicate-late", 8, "asyncio"),
        ("refusal-next-write", 1, "uvloop"),
        ("refusal-late", 8, "asyncio"),
        ("junk-late", 8, "asyncio"),
        ("idle-408", 8, "asyncio"),
        ("idle-408-closes", 8, "asyncio"),
    ],
)
def test_no_server_makes_the_client_say_what_is_not_so(scenario: str, concurrency: int, loop: str) -> None:
    verdict = run(scenario, messages=200, concurrency=concurrency, loop=loop)
    assert not verdict.violations
    assert verdict.counts["accepted"] > 50


def test_a_message_that_a_server_has_read_and_dropped_goes_by_no_other_sender() -> None:
    verdict = run("drop-senders", messages=400, concurrency=8)
    assert not verdict.violations
    assert verdict.counts["accepted"] > 150
    assert verdict.counts["unknown"] > 120  # also some that another sender was refused before


@pytest.mark.parametrize("scenario", ["fin", "rst-tls"])
def test_a_connection_that_the_kernel_knows_to_be_closed_is_not_written_to(scenario: str) -> None:
    verdict = run(scenario, messages=200, concurrency=1, loop="uvloop")
    assert not verdict.violations
    # Half of them are, where nobody asks the kernel. `make faults` puts up with one in a hundred.
    assert verdict.unknown < 0.1


@pytest.mark.parametrize(
    ("record", "outcome", "violation"),
    [
        ([("a", "accepted")], ("a", "accepted", "wamid.a"), None),
        ([("a", "refused"), ("a", "accepted")], ("a", "accepted", "a"), None),
        ([("a", "refused")], ("a", "rejected", None), None),
        ([("a", "accepted")], ("a", "unknown", None), None),
        ([], ("a", "not_sent", None), None),
        ([("a", "accepted"), ("a", "accepted")], ("a", "accepted", "wamid.a"), "sent after acceptance"),
        ([("a", "accepted"), ("a", "refused")], ("a", "unknown", None), "sent after acceptance"),
        ([("a", "refused")], ("a", "accepted", "wamid.a"), "accepted, but was not"),
        ([], ("a", "accepted", "wamid.a"), "accepted, but was not"),
        ([("a", "accepted")], ("a", "accepted", "wamid.b"), "another's message id"),
        ([("a", "refused"), ("a", "accepted")], ("a", "rejected", None), "rejected, but was accepted"),
        ([], ("a", "rejected", None), "rejected, but never read"),
        ([("a", "refused")], ("a", "not_sent", None), "not sent, but was read"),
    ],
)
def test_the_judge_knows_what_is_so(
    record: list[tuple[str, str]], outcome: tuple[str, str, str | None], violation: str | None
) -> None:
    verdict = judge(record, [outcome])
    assert verdict.violations == Counter({violation: 1} if violation else {})
    assert verdict.is_good is (violation is None)


def test_the_judge_minds_what_is_unknown_where_there_is_a_target() -> None:
    record = [("a", "accepted"), ("b", "accepted")]
    outcomes = [("a", "unknown", None), ("b", "accepted", "b")]
    assert judge(record, outcomes).is_good
    assert judge(record, outcomes, target=0.5).is_good
    assert not judge(record, outcomes, target=0.4).is_good
    assert "50.0% unknown, MORE THAN 40%" in str(judge(record, outcomes, target=0.4))
