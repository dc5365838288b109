"""What messages cost, where they went, and budgets."""

from decimal import Decimal
from typing import Any

import orjson
import pytest
from bulk_ledgers import ProbedLedger, begin, claim, entry, record, take
from bulk_runs import ACCEPTED, LOST, QUEUED, REJECTED, UNKNOWN, Vendor, ledger_of, messages, refusal, run

from nxotp_async import ConfigurationError
from nxotp_async.bulk import Budget, MessageState, settle
from nxotp_async.bulk.money import charge_of, money
from nxotp_async.bulk.schema import Transition
from nxotp_async.callbacks import parse_callback
from nxotp_async.phone_numbers import calling_code


def body(message_id: str, status: str = "delivered", **fields: Any) -> bytes:
    return orjson.dumps({"statuses": [{"id": message_id, "status": status, **fields}]})


USD = {"currency": "USD", "foreign_price": "0.025", "price": "0.18"}


@pytest.mark.parametrize(
    ("fields", "charge"),
    [
        ({}, None),
        ({"cost": {"currency": "USD"}}, None),
        ({"cost": {"currency": "USD", "foreign_price": 0.025}}, (None, 25_000, "USD")),
        ({"costs": [{"price": "0.18"}]}, (180_000, None, "")),
        ({"costs": [USD]}, (180_000, 25_000, "USD")),
        ({"costs": [USD, USD]}, (360_000, 50_000, "USD")),
        ({"costs": [{**USD, "message_id": "a"}, {**USD, "message_id": "b", "price": "9"}]}, (180_000, 25_000, "USD")),
        ({"costs": [{"price": "0.0000001"}]}, (1, None, "")),
        ({"costs": [{"price": "1e300"}]}, (2**62, None, "")),
        ({"costs": [{"price": "-1"}]}, (0, None, "")),
    ],
)
def test_what_an_event_says_that_a_message_costs(fields: dict[str, Any], charge: object) -> None:
    (event,) = parse_callback(body("a", **fields))
    assert charge_of(event) == charge


@pytest.mark.parametrize(
    ("millionths", "text"), [(None, None), (0, "0"), (25_000, "0.025"), (100_000_000, "100"), (1, "0.000001")]
)
def test_money_is_written_as_people_write_it(millionths: int | None, text: str | None) -> None:
    assert money(millionths) == text


@pytest.mark.parametrize(
    ("number", "code"),
    [("9995550100", "999"), ("12025550100", "1"), ("6281255", "62"), ("79161234567", "7"), ("35312345678", "353")],
)
def test_the_country_of_a_number_is_its_calling_code(number: str, code: str) -> None:
    assert calling_code(number) == calling_code(number[:3]) == code


@pytest.fixture
def ledger() -> ProbedLedger:
    ledger = ProbedLedger(None)
    sender = {"business_phone": "9995550001"}
    take(ledger, entry(1), entry(2, to="6281234567"), entry(3, to="6281234568", **sender), entry(4))
    begin(ledger)
    claim(ledger, 3)
    record(
        ledger,
        Transition(1, ACCEPTED, 1, message_id="wamid.1"),
        Transition(2, ACCEPTED, 1),
        Transition(3, REJECTED, 1, code=9015),
    )
    return ledger


def test_reach_and_cost_are_told_by_country_and_by_sender(ledger: ProbedLedger) -> None:
    settle(
        ledger,
        [body("wamid.1", costs=[USD]), body("id-2", "sent", costs=[USD]), body("id-2", "failed", cost={"price": 0.1})],
    )
    reach = ledger.reach()
    nothing = dict.fromkeys(("queued", "accepted", "rejected", "not_sent", "unknown", "delivered", "failed"), 0)
    assert reach["countries"] == [
        {
            **nothing,
            "country": "+62",
            "messages": 2,
            "accepted": 1,
            "rejected": 1,
            "failed": 1,
            "costs": {"CNY": "0.1"},
        },
        {
            **nothing,
            "country": "+999",
            "messages": 2,
            "accepted": 1,
            "queued": 1,
            "delivered": 1,
            "costs": {"USD": "0.025"},
        },
    ]
    assert [(row["sender"], row["messages"], row["rejected"]) for row in reach["senders"]] == [
        ("", 3, 0),
        ("99******01", 1, 1),
    ]


def test_a_cost_that_comes_again_is_the_same_cost(ledger: ProbedLedger) -> None:
    settle(ledger, [body("id-1", status, costs=[USD]) for status in ("sent", "delivered", "read", "read")])
    assert [row["costs"] for row in ledger.reach()["countries"]] == [{}, {"USD": "0.025"}]
    assert [(row["price"], row["foreign_price"], row["currency"]) for row in ledger.results()][:2] == [
        (180_000, 25_000, "USD"),
        (None, None, None),
    ]


# ---------------------------------------------------------------------------------------------- budgets


def budget(amount: str, price: str = "0.05", currency: str = "USD") -> Budget:
    return Budget(Decimal(amount), Decimal(price), currency)


@pytest.mark.parametrize(
    ("amount", "unpriced", "spent", "highest", "room"),
    [
        ("5", 0, 0, 0, 100),
        ("5", 40, 0, 0, 60),
        ("5", 100, 0, 0, 0),
        ("5", 101, 0, 0, 0),
        ("5", 0, 4_950_001, 50_000, 0),
        ("5", 0, 4_950_000, 50_000, 1),
        ("5", 10, 1_000_000, 100_000, 30),
        ("0", 0, 0, 0, 0),
    ],
)
def test_how_many_more_a_budget_allows(amount: str, unpriced: int, spent: int, highest: int, room: int) -> None:
    assert budget(amount).room(unpriced, spent, highest) == room


@pytest.mark.parametrize(("amount", "price"), [("NaN", "1"), ("-1", "1"), ("1", "0"), ("1", "-1"), ("1", "Infinity")])
def test_a_budget_that_is_none_is_refused(amount: str, price: str) -> None:
    with pytest.raises(ConfigurationError, match=r"budget must be|price must be"):
        budget(amount, price)


@pytest.mark.parametrize("concurrency", [1, 4, 50])
def test_a_run_ends_before_its_budget_is_passed(concurrency: int) -> None:
    vendor = Vendor()
    with ledger_of(messages(100)) as ledger:
        ended = run(ledger, vendor, concurrency=concurrency, budget=budget("1.99"))
        assert ended.report.counts == {ACCEPTED: 39, QUEUED: 61}
        assert isinstance(ended.report.paused, ConfigurationError)
        assert "another message could cost more than the budget of 1.99 USD allows" in str(ended.report.paused)
        assert run(ledger, vendor, budget=budget("1.99")).report.counts == {ACCEPTED: 39, QUEUED: 61}
        settle(ledger, [body(name, costs=[USD]) for name in vendor.accepted])
        assert run(ledger, vendor, budget=budget("1.99")).report.counts == {ACCEPTED: 59, QUEUED: 41}
        assert run(ledger, vendor).report.counts == {ACCEPTED: 100}


def test_what_is_refused_costs_nothing_and_what_is_unknown_does() -> None:
    vendor = Vendor(
        lambda post: refusal(9015) if int(post.name[1:]) % 4 == 0 else LOST if int(post.name[1:]) % 4 == 1 else None
    )
    with ledger_of(messages(100)) as ledger:
        report = run(ledger, vendor, budget=budget("1")).report
        assert report.counts[ACCEPTED] + report.counts[UNKNOWN] == 20
        assert 5 <= report.counts[REJECTED] <= 7
        assert report.paused is not None


def test_a_budget_that_suffices_ends_nothing() -> None:
    with ledger_of(messages(40)) as ledger:
        report = run(ledger, Vendor(), budget=budget("2")).report
        assert (report.counts, report.paused, report.stopped) == ({ACCEPTED: 40}, None, False)


def test_a_higher_price_than_was_assumed_counts_for_the_others_too() -> None:
    vendor = Vendor()
    with ledger_of(messages(100)) as ledger:
        run(ledger, vendor, budget=budget("0.5"))
        dear = {"currency": "USD", "foreign_price": "0.2"}
        settle(ledger, [body("m0", costs=[dear])])
        assert run(ledger, vendor, budget=budget("3")).report.counts == {ACCEPTED: 15, QUEUED: 85}


def test_only_the_budgets_own_currency_counts() -> None:
    vendor = Vendor()
    with ledger_of(messages(100)) as ledger:
        run(ledger, vendor, budget=budget("0.5"))
        settle(ledger, [body(name, costs=[USD]) for name in vendor.accepted])
        assert ledger.spent("USD") == (0, 250_000, 25_000)
        assert ledger.spent("CNY") == (0, 1_800_000, 180_000)
        assert ledger.spent("EUR") == (10, 0, 0)
        assert ledger.counts()[MessageState.ACCEPTED] == 10
