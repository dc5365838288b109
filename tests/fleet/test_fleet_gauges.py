"""A fleet's gauges, as OpenTelemetry collects them."""

from collections import Counter
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from nxotp_async.bulk import MessageState
from nxotp_async.fleet import FleetStatus, OutboxCount, Queue, SenderStatus
from nxotp_async.otel import FleetGauges


def status_of(states: Counter[MessageState], outcomes: list[OutboxCount], paused: str | None) -> FleetStatus:
    queued = {Queue.LOGIN: states[MessageState.QUEUED], Queue.BULK: 0}
    sender = SenderStatus(
        "eu", states, queued, outcomes, oldest_queued=2.5, rate=7.0, limit=None, paused=paused, paused_at=None
    )
    return FleetStatus([sender], workers=3)


def shown(reader: InMemoryMetricReader) -> dict[str, dict[tuple[Any, ...], float]]:
    data: Any = reader.get_metrics_data()
    return {
        metric.name: {tuple(sorted(map(str, p.attributes.values()))): p.value for p in metric.data.data_points}
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
    }


def test_they_show_what_is_queued_what_became_of_the_rest_and_who_works() -> None:
    reader = InMemoryMetricReader()
    gauges = FleetGauges(meter_provider=MeterProvider([reader], shutdown_on_exit=False))
    refused = OutboxCount("eu", Queue.LOGIN, MessageState.REJECTED, 9005, "AccountError", 2, 0.0)
    gauges.set(status_of(Counter({MessageState.QUEUED: 5, MessageState.REJECTED: 2}), [refused], "no balance"))
    found = shown(reader)
    assert found["nxotp.fleet.messages"][("eu", "queued")] == 5
    assert found["nxotp.fleet.messages"][("accepted", "eu")] == 0
    assert found["nxotp.fleet.outcomes"] == {("9005", "AccountError", "eu", "rejected"): 2}
    assert found["nxotp.fleet.oldest_queued"] == {("eu",): 2.5}
    assert found["nxotp.fleet.rate"] == {("eu",): 7.0}
    assert found["nxotp.fleet.paused"] == {("eu",): 1}
    assert found["nxotp.fleet.workers"] == {(): 3}

    gauges.set(status_of(Counter(), [], None))
    found = shown(reader)
    assert found["nxotp.fleet.messages"][("eu", "queued")] == 0
    assert found["nxotp.fleet.outcomes"] == {("9005", "AccountError", "eu", "rejected"): 0}
    assert found["nxotp.fleet.paused"] == {("eu",): 0}
