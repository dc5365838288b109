"""The metrics of a bulk run: for Prometheus, or for OpenTelemetry's own providers."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ...client import OtpClient
from ...errors import ConfigurationError
from ...urls import listening_url
from ..output import print_note
from ..serving import listening_on
from .progress import SendingProgress

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

__all__ = ["measured"]

_STATES = ("queued", "accepted", "rejected", "not_sent", "unknown")


@asynccontextmanager
async def measured(
    client: OtpClient, progress: SendingProgress, address: tuple[str, int] | None, *, otel: bool
) -> AsyncIterator[None]:
    """Serve metrics at this address, and hand them, and spans, to OpenTelemetry's global providers if that is asked.

    Raises:
        ConfigurationError: What it needs is not installed, or the address cannot be listened on.
    """
    if otel:
        _measure(client, progress, None)
    if address is None:
        yield
        return
    try:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ConfigurationError(
            "--metrics needs Prometheus's exporter", hint='pip install "nxotp_async[prometheus]"'
        ) from None

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    provider = MeterProvider([PrometheusMetricReader()], shutdown_on_exit=False)
    _measure(client, progress, provider)
    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    try:
        with listening_on(*address):
            await web.TCPSite(runner, *address).start()
        print_note(f"metrics on {listening_url(*runner.addresses[0][:2])}/metrics")
        yield
    finally:
        await runner.cleanup()
        provider.shutdown()


def _measure(client: OtpClient, progress: SendingProgress, provider: "MeterProvider | None") -> None:
    try:
        from opentelemetry.metrics import get_meter_provider  # noqa: PLC0415 - an extra

        from ...otel import instrument  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError("--otel needs OpenTelemetry", hint='pip install "nxotp_async[otel]"') from None
    meter = (provider or get_meter_provider()).get_meter("nxotp_async")
    instrument(client, meter_provider=provider)
    for name, unit, description, look in (
        ("messages", "{message}", "Messages of the ledger by state; in flight counts as queued.", _by_state),
        ("in_flight", "{message}", "Messages in flight.", _figure("in_flight")),
        ("limit", "{message}/s", "Messages a second at the most, at present.", _figure("limit")),
        ("concurrency", "{message}", "Messages in flight at the most.", _figure("concurrency")),
        ("paused", "1", "Whether somebody has paused the run.", _figure("is_paused")),
    ):
        meter.create_observable_gauge(f"nxotp.bulk.{name}", [_observing(progress, look)], unit, description)


_Figures = list[tuple[float, dict[str, str]]]


def _observing(
    progress: SendingProgress, look: Callable[[dict[str, Any]], _Figures]
) -> "Callable[[CallbackOptions], Iterable[Observation]]":
    from opentelemetry.metrics import Observation  # noqa: PLC0415

    return lambda _: [Observation(value, attributes) for value, attributes in look(progress.fields())]


def _by_state(fields: dict[str, Any]) -> _Figures:
    return [(fields[state], {"nxotp.state": state}) for state in _STATES]


def _figure(name: str) -> Callable[[dict[str, Any]], _Figures]:
    return lambda fields: [] if fields[name] is None else [(float(fields[name]), {})]
