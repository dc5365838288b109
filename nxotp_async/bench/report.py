"""The report of a run, as plain data, and its JSON."""

import asyncio
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

import attrs
import cattrs
import orjson
from cattrs.preconf.orjson import make_converter

from .._version import __version__
from .histogram import Histogram, Percentiles
from .plan import Plan
from .recorder import Second

__all__ = ["Arrivals", "BenchmarkReport", "Machine"]

_SCHEMA: Final = 1


@attrs.frozen
class Arrivals:
    """How well an open loop kept its schedule.

    Attributes:
        due: Arrivals that were due: those that began, and those that were dropped.
        late: Those that began more than ``late_after`` after they were due.
        late_after: Milliseconds.
        worst_lateness: The longest delay of an arrival, in milliseconds.
        dropped: Those that were not sent, because ``max_pending`` others had no outcome yet.
    """

    due: int
    late: int
    late_after: float
    worst_lateness: float
    dropped: int


@attrs.frozen
class Machine:
    """The machine and the versions of a run, without the machine's name."""

    platform: str
    cpus: int
    python: str
    event_loop: str
    aiohttp: str
    nxotp_async: str

    @classmethod
    def here(cls) -> "Machine":
        """Return those of this machine and the running event loop."""
        library = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        event_loop = f"uvloop {version('uvloop')}" if library == "uvloop" else "asyncio"
        python = f"{platform.python_implementation()} {platform.python_version()}"
        return cls(platform.platform(), os.cpu_count() or 1, python, event_loop, version("aiohttp"), __version__)


@attrs.frozen(kw_only=True)
class BenchmarkReport:
    """The report of a benchmark run. Durations are in milliseconds unless stated otherwise.

    Attributes:
        started: When the measurement began.
        target: A description of the server.
        transport: The client's transport.
        concurrency: The client's permits: the most requests in flight.
        plan: The parameters of the run.
        interrupted: Whether it was stopped before its end.
        in_flight: Messages in flight when it was interrupted, whose outcome is unknown.
        seconds: How long messages were due, in seconds.
        drain_seconds: How long the last outcome took after that, in seconds.
        completed: Messages with an outcome.
        throughput: Messages a second that had their outcome while messages were due.
        accepted: Messages that the vendor accepted.
        rejected: Messages that the vendor rejected.
        not_sent: Messages that provably never left.
        unknown: Messages that may have been accepted.
        failures: How many failed by reason: the vendor's code, or the error's class name.
        examples: The text of the first error of each reason, without secrets, codes and full numbers.
        retries: Attempts beyond the first.
        latency: Of all messages with an outcome; ``None`` if there are none.
        histogram: The same in full, as `Histogram.encode` returns it.
        loop_lag: The event loop's lag.
        arrivals: How well the open loop kept its schedule; ``None`` for a closed one.
        cpu_per_send: CPU time of this process for each message, in microseconds, including the benchmark's.
        cpu_share: The share of one processor that this process used.
        timeline: The outcomes in each second.
        machine: The machine and the versions.
        schema: The version of this format.
    """

    started: datetime
    target: str
    transport: str
    concurrency: int
    plan: Plan
    interrupted: bool
    in_flight: int
    seconds: float
    drain_seconds: float
    completed: int
    throughput: float
    accepted: int
    rejected: int
    not_sent: int
    unknown: int
    failures: dict[str, int]
    retries: int
    latency: Percentiles | None
    histogram: str
    loop_lag: Percentiles | None
    arrivals: Arrivals | None
    cpu_per_send: float | None
    cpu_share: float
    timeline: list[Second]
    machine: Machine
    examples: dict[str, str] = attrs.field(factory=dict)
    schema: int = _SCHEMA

    def latencies(self) -> Histogram:
        """Return the latencies of all messages, decoded."""
        return Histogram.decode(self.histogram)

    def to_json(self) -> bytes:
        """Return the report as JSON."""
        return _converter.dumps(self, option=orjson.OPT_INDENT_2)

    @classmethod
    def from_json(cls, text: bytes) -> "BenchmarkReport":
        """Return the report that `to_json` has written.

        Raises:
            ValueError: It is not such a report, or one of another version; the text says what is wrong.
        """
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"it is not JSON: {error}") from None
        schema = data.get("schema") if isinstance(data, dict) else None
        if not isinstance(schema, int):
            raise ValueError("it is not a report of nxotp bench")  # noqa: TRY004 - the text is wrong, not its type
        if schema != _SCHEMA:
            raise ValueError(f"it is of version {schema}; this release reads version {_SCHEMA}")
        try:
            report = _converter.structure(data, cls)
            report.latencies()
        except cattrs.BaseValidationError as error:
            raise ValueError("; ".join(cattrs.transform_error(error, path="report"))) from None
        except Exception as error:  # what the histogram's decoder raises is not documented
            raise ValueError(f"its histogram cannot be decoded: {type(error).__name__}") from None
        return report


_converter: Final = make_converter(forbid_extra_keys=True)
_converter.register_structure_hook(datetime, lambda value, _: datetime.fromisoformat(value).astimezone(UTC))
