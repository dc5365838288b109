from itertools import permutations

import pytest

from nxotp_async import (
    AccountError,
    ApiError,
    InvalidMessageError,
    MetaError,
    NotSentError,
    NxOtpError,
    OtpMessage,
    OutcomeUnknownError,
    ResultCollector,
    SendResult,
    SendStatus,
    Summary,
)


def _message(cus_message_id: str | None) -> OtpMessage:
    return OtpMessage("+999 555 0100", "004213", cus_message_id=cus_message_id)


def _accepted(cus_message_id: str | None, message_id: str, attempts: int = 1) -> SendResult:
    return SendResult(_message(cus_message_id), SendStatus.ACCEPTED, message_id, attempts)


def _failed(cus_message_id: str, status: SendStatus, error: NxOtpError, attempts: int = 1) -> SendResult:
    return SendResult(_message(cus_message_id), status, None, attempts, error=error)


def _collect(*results: SendResult) -> ResultCollector:
    collector = ResultCollector()
    for result in results:
        collector.add(result)
    return collector


OF_EVERY_KIND = [
    _accepted("a-1", "wamid.1"),
    _accepted("a-2", "wamid.2", attempts=3),
    _failed("r-1", SendStatus.REJECTED, AccountError(code=9005)),
    _failed("n-1", SendStatus.NOT_SENT, NotSentError(), attempts=2),
    _failed("n-2", SendStatus.NOT_SENT, InvalidMessageError(), attempts=0),
    _failed("u-1", SendStatus.UNKNOWN, OutcomeUnknownError()),
]


def test_a_status_has_a_spelling_for_people() -> None:
    assert [status.label for status in SendStatus] == ["accepted", "rejected", "not sent", "unknown"]


def test_a_new_collector_is_empty() -> None:
    collector = ResultCollector()
    assert len(collector) == 0
    assert list(collector) == []
    assert dict(collector.pairs) == {}
    assert collector.failures == {}
    assert collector.summary() == Summary(0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_ids_are_paired_both_ways_in_any_order_of_arrival(order: tuple[int, ...]) -> None:
    results = [_accepted(f"order-{n}", f"wamid.{n}") for n in range(3)]
    collector = _collect(*(results[n] for n in order))
    assert dict(collector.pairs) == {"order-0": "wamid.0", "order-1": "wamid.1", "order-2": "wamid.2"}
    for n in range(3):
        assert collector.message_id(f"order-{n}") == f"wamid.{n}"
        assert collector.cus_message_id(f"wamid.{n}") == f"order-{n}"
    assert list(collector) == [results[n] for n in order]


def test_an_id_that_never_came_is_none() -> None:
    collector = _collect(*OF_EVERY_KIND)
    assert collector.message_id("nobody") is None
    assert collector.cus_message_id("nobody") is None
    # The two kinds of id are not mixed up.
    assert collector.message_id("wamid.1") is None
    assert collector.cus_message_id("a-1") is None


def test_a_message_that_was_not_accepted_has_no_pair() -> None:
    collector = _collect(*OF_EVERY_KIND)
    assert collector.pairs.keys() == {"a-1", "a-2"}
    assert collector.message_id("u-1") is None


def test_an_accepted_message_without_an_own_id_is_counted_but_not_paired() -> None:
    collector = _collect(_accepted(None, "wamid.1"))
    assert len(collector.accepted) == 1
    assert dict(collector.pairs) == {}
    assert collector.cus_message_id("wamid.1") is None


@pytest.mark.parametrize(
    "second",
    [_accepted("a", "wamid.other"), _accepted("other", "wamid.a"), _accepted("a", "wamid.a")],
    ids=["same cus_message_id", "same message id", "both the same"],
)
def test_an_id_seen_twice_is_reported_and_not_overwritten(second: SendResult) -> None:
    first = _accepted("a", "wamid.a")
    collector = _collect(first, second)
    assert collector.duplicates == [second]
    assert dict(collector.pairs) == {"a": "wamid.a"}
    assert collector.cus_message_id("wamid.a") == "a"
    assert collector.message_id("other") is None
    assert collector.cus_message_id("wamid.other") is None
    assert list(collector) == [first, second]


def test_a_duplicate_may_be_crosswise() -> None:
    crossing = _accepted("a", "wamid.b")
    collector = _collect(_accepted("a", "wamid.a"), _accepted("b", "wamid.b"), crossing)
    assert collector.duplicates == [crossing]
    assert dict(collector.pairs) == {"a": "wamid.a", "b": "wamid.b"}


def test_a_failure_does_not_take_an_id() -> None:
    collector = _collect(
        _failed("a", SendStatus.UNKNOWN, OutcomeUnknownError()), _accepted("a", "wamid.a"), *OF_EVERY_KIND
    )
    assert collector.message_id("a") == "wamid.a"
    assert collector.duplicates == []


def test_results_are_listed_by_status() -> None:
    collector = _collect(*OF_EVERY_KIND)
    assert collector.accepted == OF_EVERY_KIND[0:2]
    assert collector.rejected == OF_EVERY_KIND[2:3]
    assert collector.not_sent == OF_EVERY_KIND[3:5]
    assert collector.unknown == OF_EVERY_KIND[5:6]


def test_failures_are_counted_by_code_or_by_class() -> None:
    rejected = SendStatus.REJECTED
    collector = _collect(
        *OF_EVERY_KIND,
        _failed("r-2", rejected, AccountError(code=9005)),
        _failed("r-3", rejected, MetaError(code=9099, meta_code=131026)),
        _failed("r-4", rejected, ApiError(code=-1)),
        _failed("r-5", rejected, ApiError(http_status=404)),
    )
    assert collector.failures == {
        9005: 2,
        9099: 1,
        -1: 1,
        "ApiError": 1,
        "NotSentError": 1,
        "InvalidMessageError": 1,
        "OutcomeUnknownError": 1,
    }


def test_the_summary_counts_outcomes_retries_and_posts() -> None:
    assert _collect(*OF_EVERY_KIND).summary() == Summary(
        total=6, accepted=2, rejected=1, not_sent=2, unknown=1, retried=2, attempts=8
    )


def test_what_is_handed_out_cannot_change_the_collector() -> None:
    collector = _collect(_accepted("a", "wamid.a"), _accepted("a", "wamid.b"))
    with pytest.raises(TypeError):
        collector.pairs["a"] = "other"  # type: ignore[index]
    for handed_out in (collector.accepted, collector.duplicates):
        handed_out.clear()
    collector.failures.update(["made up"])
    assert len(collector.accepted) == 2
    assert len(collector.duplicates) == 1
    assert collector.failures == {}


def test_the_pairs_are_a_live_view() -> None:
    collector = ResultCollector()
    pairs = collector.pairs
    collector.add(_accepted("a", "wamid.a"))
    assert pairs["a"] == "wamid.a"
