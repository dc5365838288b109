"""Spans and metrics of a client's sends, for OpenTelemetry: ``pip install "nxotp_async[otel]"``.

Names are those of the semantic conventions for messaging, if there are any; the others begin with ``nxotp.``. No
attribute contains a code or a number.
"""

import logging
from collections.abc import Iterable, Mapping
from time import time_ns
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, WeakSet

from yarl import URL

from ._version import __version__
from .client import OtpClient
from .client_state import ClientState
from .codes import ResponseCode
from .errors import ApiError, NxOtpError
from .hooks import Attempt
from .messages import OtpMessage
from .results import SendResult, SendStatus

try:
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter_provider
    from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, TracerProvider, get_tracer_provider
except ImportError as error:
    raise ImportError(
        'OpenTelemetry is not installed: nxotp_async.otel needs  pip install "nxotp_async[otel]"', name="opentelemetry"
    ) from error

if TYPE_CHECKING:
    from .fleet import FleetStatus
    from .verification import VerificationEvent, Verifier

__all__ = ["FleetGauges", "instrument", "instrument_verifier"]

_log = logging.getLogger("nxotp_async")

_Attributes = dict[str, str | int | float | bool]

# What the conventions require of every span and duration. The destination is the request's "messaging_product",
# because the recipient's number must not be exported.
_OPERATION: Final[Mapping[str, str]] = {
    "messaging.system": "nxcloud",
    "messaging.operation.name": "send",
    "messaging.operation.type": "send",
    "messaging.destination.name": "whatsapp",
}
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)  # the conventions'


def instrument(
    client: OtpClient, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """Create a span, and record metrics, for every message that a client and its views send from now on.

    A client that is instrumented already is not changed, and a warning is logged.

    Args:
        client: The client.
        tracer_provider: Receives the spans. Default: the global one.
        meter_provider: Receives the metrics. Default: the global one.

    Raises:
        TypeError: ``client`` is not an `OtpClient`.
    """
    if not isinstance(client, OtpClient):
        raise TypeError(f"client must be an OtpClient, not {type(client).__name__}")
    state = client.state
    if any(isinstance(getattr(hook, "__self__", None), _Telemetry) for hook in state.hooks.on_result):
        _log.warning("%r is instrumented already; nothing was changed", client)
        return
    meter_provider = meter_provider or get_meter_provider()
    meter = meter_provider.get_meter("nxotp_async", __version__)
    tracer = (tracer_provider or get_tracer_provider()).get_tracer("nxotp_async", __version__)
    telemetry = _Telemetry(state, _server(client.url), tracer, meter)
    client.add_hooks(on_attempt=telemetry.on_attempt, on_result=telemetry.on_result)
    _observe(telemetry, meter_provider, meter)


def instrument_verifier(verifier: "Verifier", *, meter_provider: MeterProvider | None = None) -> None:
    """Count every decision of a verifier from now on. A verifier that is instrumented already is not changed.

    Its client is not instrumented by it; `instrument` does that.

    Args:
        verifier: The verifier.
        meter_provider: Receives the metrics. Default: the global one.

    Raises:
        TypeError: ``verifier`` is not a `Verifier`.
    """
    from .verification import Verifier  # noqa: PLC0415 - it needs another extra

    if not isinstance(verifier, Verifier):
        raise TypeError(f"verifier must be a Verifier, not {type(verifier).__name__}")
    if any(isinstance(getattr(hook, "__self__", None), _Decisions) for hook in verifier.hooks):
        _log.warning("%r is instrumented already; nothing was changed", verifier)
        return
    meter = (meter_provider or get_meter_provider()).get_meter("nxotp_async", __version__)
    verifier.add_hook(_Decisions(meter).count)


class _Decisions:
    """The hook of one verifier."""

    def __init__(self, meter: Meter) -> None:
        self._decisions = meter.create_counter(
            "nxotp.verifier.decisions", unit="{decision}", description="Decisions about verifications, by outcome."
        )

    def count(self, event: "VerificationEvent") -> None:
        """Count a decision. A prefix has too many values for an attribute."""
        facts = {"action": event.action, "status": event.status, "reason": event.reason, "country": event.country}
        self._decisions.add(1, {f"nxotp.{name}": str(fact) for name, fact in facts.items() if fact is not None})


class FleetGauges:
    """Gauges of a fleet: messages by state, the oldest that is queued, rates, pauses, workers.

    `fleet_status` looks at the database, and a gauge must not wait. So set them to what it returns, every ten seconds
    for example, in one process of the fleet.

    Args:
        meter_provider: Receives the metrics. Default: the global one.
    """

    def __init__(self, *, meter_provider: MeterProvider | None = None) -> None:
        meter = (meter_provider or get_meter_provider()).get_meter("nxotp_async", __version__)
        self._messages = meter.create_gauge(
            "nxotp.fleet.messages", unit="{message}", description="Messages of the outbox, by state."
        )
        self._outcomes = meter.create_gauge(
            "nxotp.fleet.outcomes", unit="{message}", description="Messages of the outbox that have ended, by outcome."
        )
        self._oldest = meter.create_gauge(
            "nxotp.fleet.oldest_queued", unit="s", description="How long the oldest message that is queued has waited."
        )
        self._rate = meter.create_gauge(
            "nxotp.fleet.rate", unit="{message}/s", description="Messages a second that got their outcome."
        )
        self._paused = meter.create_gauge("nxotp.fleet.paused", description="Whether a sender is paused: 1 or 0.")
        self._workers = meter.create_gauge(
            "nxotp.fleet.workers", unit="{worker}", description="Workers of procrastinate that are alive."
        )
        self._seen: set[tuple[tuple[str, str | int], ...]] = set()

    def set(self, status: "FleetStatus") -> None:
        """Set all gauges to a status. An outcome that no message has any more is 0."""
        from .bulk import MessageState  # noqa: PLC0415 - who has a status, has loaded it

        outcomes = dict.fromkeys(self._seen, 0)
        for sender in status.senders:
            name = {"nxotp.sender": sender.sender}
            for state in MessageState:
                self._messages.set(sender.states[state], {**name, "nxotp.state": state})
            for count in sender.outcomes:
                facts = {
                    **name,
                    "nxotp.status": str(count.state),
                    "error.type": count.error,
                    "nxotp.vendor_code": count.code,
                }
                key = tuple((fact, value) for fact, value in facts.items() if value is not None)
                outcomes[key] = outcomes.get(key, 0) + count.count
            self._oldest.set(sender.oldest_queued or 0.0, name)
            self._rate.set(sender.rate, name)
            self._paused.set(int(sender.paused is not None), name)
        self._seen = set(outcomes)
        for key, number in outcomes.items():
            self._outcomes.set(number, dict(key))
        self._workers.set(status.workers)


class _Telemetry:
    """The hooks of one client. Only the client and its views hold a reference to it, and it holds none to them."""

    def __init__(self, state: ClientState, server: _Attributes, tracer: Tracer, meter: Meter) -> None:
        self.in_flight = state.in_flight
        self.quota = state.quota
        self._tracer = tracer
        self._operation: _Attributes = {**_OPERATION, **server}
        # The attempts of the messages in flight, each with its time. When a send is cancelled, its message is no longer
        # referenced, and the attempts are dropped with it.
        self._pending: WeakKeyDictionary[OtpMessage, list[tuple[int, _Attributes]]] = WeakKeyDictionary()
        self._duration = meter.create_histogram(
            "messaging.client.operation.duration",
            unit="s",
            description="Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._messages = meter.create_counter(
            "nxotp.client.messages", unit="{message}", description="Messages by outcome."
        )
        self._attempts = meter.create_counter(
            "nxotp.client.attempts", unit="{attempt}", description="POSTs by outcome."
        )

    def on_attempt(self, attempt: Attempt) -> None:
        """Count an attempt, and keep it until the span is created."""
        outcome = _outcome(attempt.status, attempt.error)
        self._attempts.add(1, {**outcome, "nxotp.retry": attempt.number > 1})
        if attempt.number == 1:
            # The send of an equal message may have been cancelled before, and that message may still be referenced.
            self._pending.pop(attempt.message, None)
        event = {
            "nxotp.attempt.number": attempt.number,
            "nxotp.attempt.duration": attempt.elapsed,
            **outcome,
            **_details(attempt.error),
        }
        self._pending.setdefault(attempt.message, []).append((time_ns(), event))

    def on_result(self, result: SendResult) -> None:
        """Count a message, and create its span."""
        outcome = _outcome(result.status, result.error)
        self._messages.add(1, outcome)
        failure = {} if result.error is None else {"error.type": type(result.error).__name__}
        self._duration.record(result.elapsed, {**self._operation, **failure})
        # A message without attempts may be the duplicate of an equal one that is still in flight.
        attempts = [
            attempt
            for by_sender in (*result.history, result)
            if result.attempts
            for attempt in self._pending.pop(by_sender.message, [])
        ]
        self._trace(result, {**outcome, **_details(result.error)}, attempts)

    def _trace(self, result: SendResult, outcome: _Attributes, attempts: list[tuple[int, _Attributes]]) -> None:
        now = time_ns()
        span = self._tracer.start_span(
            "send whatsapp",
            # Not PRODUCER: the span ends with the vendor's answer, and no consumer continues the trace.
            kind=SpanKind.CLIENT,
            attributes={
                **self._operation,
                # Not the vendor's message id: one that Meta made contains the recipient's number, in Base64.
                "messaging.message.id": str(result.message.cus_message_id),
                "nxotp.attempts": result.attempts,
                **outcome,
            },
            start_time=now - int(result.elapsed * 1e9),
        )
        for at, attributes in attempts:
            span.add_event("attempt", attributes, at)
        if result.error is not None:
            span.set_status(Status(StatusCode.ERROR, _meaning(result.error)))
        span.end(now)


def _server(url: str) -> _Attributes:
    parts = URL(url)
    return {"server.address": str(parts.host), "server.port": int(parts.port or 0)}


def _outcome(status: SendStatus, error: NxOtpError | None) -> _Attributes:
    """Return the attributes of metrics: of low cardinality, whatever the vendor answers."""
    outcome: _Attributes = {"nxotp.status": status.value}
    if error is not None:
        outcome["error.type"] = type(error).__name__
        if error.code is not None:
            outcome["nxotp.vendor_code"] = str(error.code) if ResponseCode.find(error.code) else "_OTHER"
    return outcome


def _details(error: NxOtpError | None) -> _Attributes:
    """Return the further attributes of spans. None contains text of the vendor's."""
    details: _Attributes = {}
    if isinstance(error, ApiError):
        details["http.response.status_code"] = error.http_status
    if error is not None and error.meta_code is not None:
        details["nxotp.meta_code"] = str(error.meta_code)
    return details


def _meaning(error: NxOtpError) -> str | None:
    """Return the meaning of the vendor's code. The error's own text could quote the vendor's."""
    known = ResponseCode.find(error.code)
    return None if known is None else f"code {known.value}, {known.meaning}"


# ---------------------------------------------------------------------------------------------- gauges

# The first client of a provider registers the observable instruments, which observe all of its clients: a second
# instrument of the same name would be ignored.
_instrumented: WeakKeyDictionary[MeterProvider, "WeakSet[_Telemetry]"] = WeakKeyDictionary()


def _observe(telemetry: _Telemetry, provider: MeterProvider, meter: Meter) -> None:
    clients = _instrumented.get(provider)
    if clients is not None:
        clients.add(telemetry)
        return
    clients = _instrumented[provider] = WeakSet({telemetry})

    def in_flight(_: CallbackOptions) -> Iterable[Observation]:
        counts = [len(client.in_flight) for client in clients]
        return [Observation(sum(counts))] if counts else []

    def retry_tokens(_: CallbackOptions) -> Iterable[Observation]:
        tokens = [client.quota.tokens for client in clients]
        return [Observation(min(tokens))] if tokens else []

    meter.create_observable_up_down_counter(
        "nxotp.client.in_flight",
        callbacks=[in_flight],
        unit="{message}",
        description="Messages in flight, including those that wait for a permit or a retry.",
    )
    meter.create_observable_gauge(
        "nxotp.client.retry_tokens",
        callbacks=[retry_tokens],
        unit="{token}",
        description="The remaining retry quota of the client that has the least.",
    )
