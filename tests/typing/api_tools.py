"""What type checkers see of `bench`, `doctor` and `otel`. Nothing here is ever run."""

from datetime import datetime
from typing import assert_type

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from nxotp_async import NxOtpError, OtpClient, OtpMessage
from nxotp_async.bench import Arrivals, Benchmark, BenchmarkReport, Comparison, Machine, Plan, compare, made_up_messages
from nxotp_async.doctor import Check, Finding, Status, examine, is_local, send_one
from nxotp_async.otel import instrument


async def a_benchmark(client: OtpClient) -> None:
    assert_type(made_up_messages(), list[OtpMessage])
    benchmark = Benchmark(client, made_up_messages(), Plan(rate=200, duration=5, warm_up=0), target="sandbox")
    assert_type(await benchmark.run(), BenchmarkReport)
    assert_type(benchmark.report(), BenchmarkReport)


def a_plan(plan: Plan) -> None:
    assert_type((plan.rate, plan.count, plan.duration), tuple[float | None, int | None, float | None])
    assert_type(plan.arrivals, int | None)
    assert_type(plan.window, float)
    assert_type(plan.due(1), float)


def a_report(report: BenchmarkReport, arrivals: Arrivals, comparison: Comparison) -> None:
    assert_type(report.started, datetime)
    assert_type(report.throughput, float)
    assert_type(report.failures, dict[str, int])
    if report.latency is not None:
        assert_type(report.latency.p99, float)
    assert_type(len(report.latencies()), int)
    assert_type(report.to_json(), bytes)
    assert_type(BenchmarkReport.from_json(b"{}"), BenchmarkReport)
    assert_type(report.machine, Machine)
    assert_type(Machine.here(), Machine)
    assert_type((arrivals.due, arrivals.dropped), tuple[int, int])
    assert_type(compare(report, report), tuple[list[Comparison], list[str]])
    assert_type(comparison.ratio, float | None)
    assert_type(comparison.change, str)


async def a_doctor(finding: Finding) -> None:
    assert_type(await examine(timeout=5), list[Finding])
    assert_type(is_local(), bool)
    assert_type(await send_one("+999 555 0100"), Finding)
    assert_type(finding.check, Check)
    assert_type(finding.status, Status)
    assert_type((finding.found, finding.advice), tuple[str, str])
    assert_type(finding.error, NxOtpError | None)


def telemetry(client: OtpClient, tracers: TracerProvider, meters: MeterProvider) -> None:
    assert_type(instrument(client), None)
    instrument(client, tracer_provider=tracers, meter_provider=meters)
