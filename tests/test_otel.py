"""Spans and metrics of real sends, taken by OpenTelemetry's own SDK. No global provider is touched."""

import asyncio
import gc
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode
from support import ScriptedTransport
from test_canary import ANSWERS, _Canary, assert_clean, canary_client, echoing

from nxotp_async import Attempt, Clock, NxOtpError, OtpClient, OtpMessage, RetryPolicy
from nxotp_async.bulk import Dispatcher, Ledger, Row
from nxotp_async.otel import _Telemetry, instrument
from nxotp_async.sandbox import Fault, Sandbox, sandbox_client
from nxotp_async.testing import FakeClock

TO = "+999 555 0100"
DURATION, MESSAGES, ATTEMPTS = "messaging.client.operation.duration", "nxotp.client.messages", "nxotp.client.attempts"
IN_FLIGHT, TOKENS = "nxotp.client.in_flight", "nxotp.client.retry_tokens"


class Telemetry:
    """Providers of a test's own, and what they have taken."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracer = self.tracer_provider.get_tracer("a test")

    def instrument(self, client: OtpClient) -> None:
        instrument(client, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider)

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans of sends, in the order of their ends."""
        return [span for span in self._exporter.get_finished_spans() if span.name == "send whatsapp"]

    @property
    def span(self) -> ReadableSpan:
        (span,) = self.spans
        return span

    def metrics(self) -> dict[str, Any]:
        data = self._reader.get_metrics_data()
        if data is None:  # nothing was measured
            return {}
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        assert [scope.scope.name for scope in scopes] == ["nxotp_async"]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str) -> list[Any]:
        metric = self.metrics().get(name)
        return [] if metric is None else list(metric.data.data_points)

    def values(self, name: str) -> dict[tuple[Any, ...], Any]:
        """The values of a metric, by the values of their attributes."""
        return {tuple(dict(point.attributes).values()): point.value for point in self.points(name)}

    @property
    def everything(self) -> str:
        """All that was exported, as text."""
        data = self._reader.get_metrics_data()
        spans = "".join(span.to_json() for span in self._exporter.get_finished_spans())
        return spans + ("" if data is None else data.to_json())


@pytest.fixture
def telemetry(client: OtpClient) -> Telemetry:
    telemetry = Telemetry()
    telemetry.instrument(client)
    return telemetry


def own(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The attributes that say what became of something."""
    assert attributes is not None
    return {name: value for name, value in attributes.items() if not name.startswith(("messaging.", "server."))}


def hooks_of(client: OtpClient) -> list[_Telemetry]:
    hooks = [getattr(hook, "__self__", None) for hook in client.state.hooks.on_result]
    return [hook for hook in hooks if isinstance(hook, _Telemetry)]


def pending(client: OtpClient) -> int:
    """How many messages' attempts are kept for a span to come."""
    (hooks,) = hooks_of(client)
    return len(hooks._pending)


# ---------------------------------------------------------------------------------------------- spans


async def test_a_message_that_is_accepted_is_a_span(client: OtpClient, telemetry: Telemetry, sandbox: Sandbox) -> None:
    await client.send_otp(TO, "482913", cus_message_id="order-1")
    span = telemetry.span
    assert (span.kind, span.parent, span.status.status_code) == (SpanKind.CLIENT, None, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        "messaging.system": "nxcloud",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "whatsapp",
        "messaging.message.id": "order-1",
        "server.address": "127.0.0.1",
        "server.port": int(sandbox.url.rpartition(":")[2]),
        "nxotp.status": "accepted",
        "nxotp.attempts": 1,
    }
    (event,) = span.events
    assert (event.name, dict(event.attributes or {})) == (
        "attempt",
        {"nxotp.attempt.number": 1, "nxotp.attempt.duration": 0.0, "nxotp.status": "accepted"},
    )


async def test_attempts_are_events_of_the_span(client: OtpClient, telemetry: Telemetry, sandbox: Sandbox) -> None:
    sandbox.script(Fault.answer(-1))
    result = await client.send_otp(TO, "482913")
    span = telemetry.span
    assert own(span.attributes) == {"nxotp.status": "accepted", "nxotp.attempts": 2}
    assert [own(event.attributes) for event in span.events] == [
        {
            "nxotp.attempt.number": 1,
            "nxotp.attempt.duration": 0.0,
            "nxotp.status": "rejected",
            "error.type": "TransientApiError",
            "nxotp.vendor_code": "-1",
            "http.response.status_code": 200,
        },
        {"nxotp.attempt.number": 2, "nxotp.attempt.duration": 0.0, "nxotp.status": "accepted"},
    ]
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == int(result.elapsed * 1e9) == 500_000_000
    first, second = [event.timestamp for event in span.events]
    assert span.start_time < first < second <= span.end_time


@pytest.mark.parametrize(
    ("to", "outcome", "why"),
    [
        pytest.param(
            "999000009003",
            {
                "nxotp.status": "rejected",
                "nxotp.attempts": 1,
                "error.type": "AccountError",
                "nxotp.vendor_code": "9003",
                "http.response.status_code": 200,
            },
            "code 9003, application does not exist or is unavailable",
            id="a code of the vendor's",
        ),
        pytest.param(
            "999100131056",
            {
                "nxotp.status": "rejected",
                "nxotp.attempts": 3,
                "error.type": "MetaError",
                "nxotp.vendor_code": "9099",
                "nxotp.meta_code": "131056",
                "http.response.status_code": 200,
            },
            "code 9099, WhatsApp error",
            id="a code of Meta's",
        ),
        pytest.param(
            "999200000403",
            {
                "nxotp.status": "rejected",
                "nxotp.attempts": 1,
                "error.type": "ApiError",
                "http.response.status_code": 403,
            },
            None,
            id="no code",
        ),
        pytest.param(
            "999300000003",
            {"nxotp.status": "unknown", "nxotp.attempts": 1, "error.type": "OutcomeUnknownError"},
            None,
            id="unknown",
        ),
    ],
)
async def test_a_message_that_fails_is_a_span_with_an_error(
    client: OtpClient, telemetry: Telemetry, to: str, outcome: dict[str, Any], why: str | None
) -> None:
    with pytest.raises(NxOtpError):
        await client.send_otp(to, "482913")
    span = telemetry.span
    assert own(span.attributes) == outcome
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, why)
    assert {event.name for event in span.events} == {"attempt"}  # no exception with its text


async def test_a_message_that_never_left_is_a_span_with_an_error(clock: FakeClock) -> None:
    telemetry = Telemetry()
    async with sandbox_client("http://127.0.0.1:1", clock=clock, retry=RetryPolicy(max_attempts=1)) as client:
        telemetry.instrument(client)
        with pytest.raises(NxOtpError):
            await client.send_otp(TO, "482913")
    outcome = {"nxotp.status": "not_sent", "error.type": "NotSentError"}
    assert own(telemetry.span.attributes) == {**outcome, "nxotp.attempts": 1}
    assert telemetry.span.status.status_code is StatusCode.ERROR


async def test_a_code_no_table_lists_is_not_told(client: OtpClient, telemetry: Telemetry, sandbox: Sandbox) -> None:
    sandbox.script(Fault.answer(482914))  # it could be anything
    with pytest.raises(NxOtpError):
        await client.send_otp(TO, "482913")
    assert own(telemetry.span.attributes)["nxotp.vendor_code"] == "_OTHER"
    assert "482914" not in telemetry.everything


async def test_the_id_that_came_back_is_not_told(clock: FakeClock) -> None:
    # The vendor's own example of one: it holds a number, 86 176 0605 0819.
    meta = b"gBGHhhdgYFCBnwIJ6QRYvhwQk7Nc"
    transport, telemetry = (
        ScriptedTransport((200, {}, b'{"code":0,"data":{"messages":[{"id":"%s"}]}}' % meta)),
        Telemetry(),
    )
    client = sandbox_client("https://otp.example", transport=transport, clock=clock)
    telemetry.instrument(client)
    result = await client.send_otp(TO, "482913", cus_message_id="order-1")
    assert result.message_id == meta.decode()
    assert (telemetry.span.attributes or {})["messaging.message.id"] == "order-1"
    assert meta.decode() not in telemetry.everything


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("https://otp.example", ("otp.example", 443)),
        ("https://otp.example:8443/base", ("otp.example", 8443)),
        ("http://localhost", ("localhost", 80)),
    ],
)
async def test_the_server_is_told(url: str, server: tuple[str, int]) -> None:
    telemetry, client = Telemetry(), sandbox_client(url, transport=ScriptedTransport())
    telemetry.instrument(client)
    await client.send_otp(TO, "482913")
    attributes = telemetry.span.attributes or {}
    assert (attributes["server.address"], attributes["server.port"]) == server


# ---------------------------------------------------------------------------------------------- parents


def parents(telemetry: Telemetry) -> list[int | None]:
    return [span.parent.span_id if span.parent else None for span in telemetry.spans]


async def test_the_callers_span_is_the_parent(client: OtpClient, telemetry: Telemetry, sandbox: Sandbox) -> None:
    sandbox.script(Fault.answer(-1), Fault.slow(0))
    with telemetry.tracer.start_as_current_span("first") as first:
        background = asyncio.create_task(client.send_otp(TO, "482913"))
        await client.send_otp(TO, "482913")
    with telemetry.tracer.start_as_current_span("second") as second:
        await asyncio.gather(background, client.send_otp(TO, "482913"))
    one, other = first.get_span_context().span_id, second.get_span_context().span_id
    assert sorted(parents(telemetry), key=str) == sorted([one, one, other], key=str)


async def test_the_span_that_a_stream_was_begun_in_is_the_parent(client: OtpClient, telemetry: Telemetry) -> None:
    async def stream(name: str) -> tuple[int, set[str | None]]:
        with telemetry.tracer.start_as_current_span(name) as parent:
            sent = {result.message.cus_message_id async for result in client.send_many(messages())}
        return parent.get_span_context().span_id, sent

    def messages() -> list[OtpMessage]:
        return [OtpMessage(TO, "482913") for _ in range(20)]

    for parent, sent in await asyncio.gather(stream("one"), stream("another")):
        children = [span for span in telemetry.spans if span.parent and span.parent.span_id == parent]
        assert {(span.attributes or {})["messaging.message.id"] for span in children} == sent


async def test_a_web_request_is_the_parent(client: OtpClient, telemetry: Telemetry) -> None:
    app = FastAPI()

    @app.post("/login/code")
    async def send_code(later: BackgroundTasks) -> None:
        await client.send_otp(TO, "482913")
        later.add_task(client.send_otp, TO, "482914")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(_: Any) -> None:
        pass

    request = {"type": "http", "method": "POST", "path": "/login/code", "query_string": b"", "headers": []}
    with telemetry.tracer.start_as_current_span("POST /login/code", kind=SpanKind.SERVER) as parent:
        await app(request, receive, send)
    assert parents(telemetry) == [parent.get_span_context().span_id] * 2


# ---------------------------------------------------------------------------------------------- cancellation, twins


class Gate:
    """A pause between two attempts that lasts until it is opened."""

    def __init__(self, clock: FakeClock) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()
        self.clock = Clock(time=clock.time, monotonic=clock.monotonic, sleep=self._sleep)

    async def _sleep(self, _: float) -> None:
        self.reached.set()
        await self.opened.wait()


async def cancel(sending: "asyncio.Task[Any]") -> None:
    sending.cancel()
    await asyncio.wait([sending])  # whoever awaits the task itself gets the error, whose frames hold the message


async def test_sends_that_are_cancelled_leave_nothing_behind(sandbox: Sandbox, clock: FakeClock) -> None:
    telemetry, gate = Telemetry(), Gate(clock)
    sandbox.script(*[Fault.answer(-1)] * 20)
    async with sandbox.client(clock=gate.clock) as client:
        telemetry.instrument(client)
        for _ in range(20):
            gate.reached.clear()
            sending = asyncio.create_task(client.send_otp(TO, "482913"))
            await gate.reached.wait()
            assert pending(client) > 0
            await cancel(sending)
        del sending
        gc.collect()
        assert pending(client) == 0
    assert not telemetry.spans
    assert not telemetry.points(MESSAGES)
    assert telemetry.values(ATTEMPTS) == {("rejected", "TransientApiError", "-1", False): 20}


async def test_attempts_of_an_equal_message_that_was_cancelled_are_not_taken_over(
    sandbox: Sandbox, clock: FakeClock
) -> None:
    telemetry, gate = Telemetry(), Gate(clock)
    held: list[Attempt] = []
    sandbox.script(Fault.answer(-1))
    async with sandbox.client(clock=gate.clock) as client:
        telemetry.instrument(client)
        client.add_hooks(on_attempt=held.append)  # and so the message stays alive
        sending = asyncio.create_task(client.send_otp(TO, "482913", cus_message_id="order-1"))
        await gate.reached.wait()
        await cancel(sending)
        assert pending(client) == 1
        await client.send_otp(TO, "482913", cus_message_id="order-1")
        assert [own(event.attributes)["nxotp.status"] for event in telemetry.span.events] == ["accepted"]
        assert pending(client) == 0


async def test_a_message_that_is_refused_for_its_twin_does_not_take_the_twins_attempts(
    sandbox: Sandbox, clock: FakeClock
) -> None:
    telemetry, gate = Telemetry(), Gate(clock)
    sandbox.script(Fault.answer(-1))
    async with sandbox.client(clock=gate.clock) as client:
        telemetry.instrument(client)
        message = OtpMessage(TO, "482913", cus_message_id="order-1")
        sending = asyncio.create_task(client.send(message))
        await gate.reached.wait()
        with pytest.raises(NxOtpError):
            await client.send(message)
        gate.opened.set()
        await sending
    refused, sent = telemetry.spans
    assert own(refused.attributes) == {
        "nxotp.status": "not_sent",
        "nxotp.attempts": 0,
        "error.type": "InvalidMessageError",
    }
    assert not refused.events
    assert [own(event.attributes)["nxotp.attempt.number"] for event in sent.events] == [1, 2]


# ---------------------------------------------------------------------------------------------- metrics


async def _send_three(client: OtpClient, sandbox: Sandbox) -> None:
    """Send a message that takes two attempts, one that is refused, and one whose outcome is unknown."""
    sandbox.script(Fault.answer(-1))
    await client.send_otp(TO, "482913")
    for to in ("999000009003", "999300000003"):
        with suppress(NxOtpError):
            await client.send_otp(to, "482913")


async def test_messages_are_counted(client: OtpClient, telemetry: Telemetry, sandbox: Sandbox) -> None:
    await _send_three(client, sandbox)
    assert [dict(point.attributes) for point in telemetry.points(MESSAGES)] == [
        {"nxotp.status": "accepted"},
        {"nxotp.status": "rejected", "error.type": "AccountError", "nxotp.vendor_code": "9003"},
        {"nxotp.status": "unknown", "error.type": "OutcomeUnknownError"},
    ]
    assert list(telemetry.values(MESSAGES).values()) == [1, 1, 1]


async def test_attempts_are_counted(client: OtpClient, telemetry: Telemetry, sandbox: Sandbox) -> None:
    await _send_three(client, sandbox)
    assert telemetry.values(ATTEMPTS) == {
        ("rejected", "TransientApiError", "-1", False): 1,
        ("accepted", True): 1,
        ("rejected", "AccountError", "9003", False): 1,
        ("unknown", "OutcomeUnknownError", False): 1,
    }
    assert "nxotp.retry" in telemetry.points(ATTEMPTS)[0].attributes


async def test_durations_are_recorded(client: OtpClient, telemetry: Telemetry, sandbox: Sandbox) -> None:
    await _send_three(client, sandbox)
    points = {dict(point.attributes).get("error.type"): point for point in telemetry.points(DURATION)}
    assert set(points) == {None, "AccountError", "OutcomeUnknownError"}
    accepted = points[None]
    assert (accepted.count, accepted.sum) == (1, 0.5)  # the pause before the second attempt
    assert accepted.explicit_bounds == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    assert dict(accepted.attributes) == {
        "messaging.system": "nxcloud",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "whatsapp",
        "server.address": "127.0.0.1",
        "server.port": int(sandbox.url.rpartition(":")[2]),
    }


async def test_every_metric_has_a_unit_and_a_description(client: OtpClient, telemetry: Telemetry) -> None:
    await client.send_otp(TO, "482913")
    metrics = telemetry.metrics()
    assert {name: metric.unit for name, metric in metrics.items()} == {
        DURATION: "s",
        MESSAGES: "{message}",
        ATTEMPTS: "{attempt}",
        IN_FLIGHT: "{message}",
        TOKENS: "{token}",
    }
    assert all(metric.description.endswith(".") for metric in metrics.values())


async def test_metrics_are_few_however_many_messages_there_are(
    client: OtpClient, telemetry: Telemetry, sandbox: Sandbox
) -> None:
    sandbox.script(*[Fault.answer(code) for code in range(20_000, 20_050)])
    await client.send_batch(OtpMessage(f"9995550{number:03d}", "482913") for number in range(200))
    assert len(telemetry.spans) == 200
    assert telemetry.values(MESSAGES) == {("accepted",): 150, ("rejected", "ApiError", "_OTHER"): 50}
    assert all(len(metric.data.data_points) <= 2 for metric in telemetry.metrics().values())


async def test_what_is_not_sampled_is_counted_all_the_same(client: OtpClient) -> None:
    telemetry = Telemetry(ALWAYS_OFF)
    telemetry.instrument(client)
    await client.send_otp(TO, "482913")
    assert not telemetry.spans
    assert telemetry.values(MESSAGES) == {("accepted",): 1}
    assert pending(client) == 0


# ---------------------------------------------------------------------------------------------- what is going on now


async def test_what_is_in_flight_is_observed(sandbox: Sandbox, clock: FakeClock) -> None:
    telemetry, gates = Telemetry(), [Gate(clock), Gate(clock)]
    clients = [sandbox.client(clock=gate.clock) for gate in gates]
    sandbox.script(*[Fault.answer(-1)] * 2)
    for client in clients:
        telemetry.instrument(client)
    assert telemetry.values(IN_FLIGHT) == {(): 0}
    sending = [asyncio.create_task(client.send_otp(TO, "482913")) for client in clients]
    for gate in gates:
        await gate.reached.wait()
    assert telemetry.values(IN_FLIGHT) == {(): 2}
    for gate in gates:
        gate.opened.set()
    await asyncio.gather(*sending)
    assert telemetry.values(IN_FLIGHT) == {(): 0}
    for client in clients:
        await client.aclose()


async def test_the_lowest_retry_quota_is_observed(client: OtpClient, telemetry: Telemetry, sandbox: Sandbox) -> None:
    async with sandbox.client() as other:
        telemetry.instrument(other)
        with suppress(NxOtpError):
            await client.send_otp("999000000001", "482913")
        assert (client.retry_tokens, other.retry_tokens) == (490, 500)
        assert telemetry.values(TOKENS) == {(): 490}


def test_a_client_that_is_gone_is_observed_no_more() -> None:
    telemetry = Telemetry()
    client = sandbox_client("https://otp.example", transport=ScriptedTransport())
    telemetry.instrument(client)
    assert telemetry.values(TOKENS) == {(): 500}
    del client
    assert not telemetry.points(TOKENS)
    assert not telemetry.points(IN_FLIGHT)


async def test_a_client_is_not_gone_while_there_is_a_view_of_it() -> None:
    telemetry = Telemetry()
    client = sandbox_client("https://otp.example", transport=ScriptedTransport())
    telemetry.instrument(client)
    client = client.with_options(deadline=5)
    gc.collect()
    await client.send_otp(TO, "482913")
    assert telemetry.values(TOKENS) == {(): 500}
    assert len(telemetry.spans) == 1


def test_each_provider_observes_its_own_clients() -> None:
    one, other = Telemetry(), Telemetry()
    clients = [sandbox_client("https://otp.example", transport=ScriptedTransport()) for _ in range(2)]
    one.instrument(clients[0])
    other.instrument(clients[1])
    clients.pop()
    assert one.values(TOKENS) == {(): 500}
    assert not other.points(TOKENS)


# ---------------------------------------------------------------------------------------------- instrumenting


async def test_a_client_is_instrumented_once(
    client: OtpClient, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry.instrument(client)
    telemetry.instrument(client.with_options(deadline=5))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"{client!r} is instrumented already; nothing was changed"] * 2
    await client.send_otp(TO, "482913")
    assert len(telemetry.spans) == 1
    assert telemetry.values(MESSAGES) == {("accepted",): 1}
    assert telemetry.values(TOKENS) == {(): 500}


async def test_other_hooks_are_left_alone(client: OtpClient, telemetry: Telemetry) -> None:
    results: list[object] = []
    client.add_hooks(on_result=results.append)
    await client.send_otp(TO, "482913")
    assert len(telemetry.spans) == len(results) == 1


@pytest.mark.parametrize("client", [None, FastAPI(), OtpClient])
def test_only_a_client_can_be_instrumented(client: Any) -> None:
    with pytest.raises(TypeError, match="client must be an OtpClient, not "):
        instrument(client)


async def test_providers_that_do_nothing_harm_nothing(client: OtpClient) -> None:
    instrument(client, tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())
    await client.send_otp(TO, "482913")
    assert pending(client) == 0


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout


def test_the_global_providers_are_the_default_even_if_they_are_set_later() -> None:
    program = """if True:
        import asyncio
        from opentelemetry import metrics, trace
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from nxotp_async.otel import instrument
        from nxotp_async.sandbox import Sandbox
        from nxotp_async.testing import MemoryTransport

        client = MemoryTransport(Sandbox()).client()
        instrument(client)
        exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
        trace.set_tracer_provider(TracerProvider())
        trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
        metrics.set_meter_provider(MeterProvider([reader]))
        asyncio.run(client.send_otp("+999 555 0100", "482913"))
        print(*(span.name for span in exporter.get_finished_spans()), sep=chr(10))
        print(*(m.name for m in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics), sep=chr(10))
    """
    assert set(run(program).splitlines()) == {"send whatsapp", DURATION, MESSAGES, ATTEMPTS, IN_FLIGHT, TOKENS}


def test_without_the_extra_the_error_says_what_to_install() -> None:
    program = """if True:
        import sys
        sys.modules["opentelemetry"] = None  # as if it were not there
        import nxotp_async
        try:
            import nxotp_async.otel
        except ImportError as error:
            print(error)
    """
    assert run(program) == ('OpenTelemetry is not installed: nxotp_async.otel needs  pip install "nxotp_async[otel]"\n')


# ---------------------------------------------------------------------------------------------- bulk


async def test_every_try_of_a_ledgers_message_is_a_span(
    telemetry: Telemetry, client: OtpClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.script(Fault.answer(-1))
    with Ledger(tmp_path / "otps.ledger") as ledger:
        message = OtpMessage(TO, "482913", cus_message_id="order-1")
        with ledger.transaction():
            ledger.add(ledger.add_source("otps.csv", 0.0), [("order-1", Row(2, message, {}, "", ""))], 0.0)
        dispatcher = Dispatcher(ledger, client, retry=RetryPolicy(backoff_base=0.0))
        with telemetry.tracer.start_as_current_span("nightly run") as parent:
            await dispatcher.run()
    assert [own(span.attributes)["nxotp.status"] for span in telemetry.spans] == ["rejected", "accepted"]
    assert {(span.attributes or {})["messaging.message.id"] for span in telemetry.spans} == {"order-1"}
    assert [own(span.attributes)["nxotp.attempts"] for span in telemetry.spans] == [1, 1]
    assert set(parents(telemetry)) == {parent.get_span_context().span_id}


# ---------------------------------------------------------------------------------------------- no code, no number


@pytest.mark.parametrize("respond", ANSWERS.values(), ids=ANSWERS.keys())
async def test_neither_spans_nor_metrics_leak(respond: Callable[[bytes], bytes]) -> None:
    telemetry = Telemetry()
    async with echoing(respond) as server, canary_client(server.url, business_phone=_Canary.number) as client:
        telemetry.instrument(client)
        await client.send_batch([OtpMessage(_Canary.written, _Canary.content)])
    assert len(telemetry.spans) == 1
    assert telemetry.spans[0].events
    assert_clean(telemetry.everything, "what was exported")
    masked = _Canary.number[:2] + "*"
    assert masked not in telemetry.everything
