"""A run of the benchmark on the command line."""

import asyncio
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from ...bench import Benchmark, BenchmarkReport, Plan
from ...errors import ConfigurationError
from ..common import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_REJECTED, fail, print_data, run, stderr
from .tables import print_report, say_caveats
from .target import Target, choose_target
from .view import BenchView

__all__ = ["run_bench"]

_DEFAULT_WARM_UP = 2.0  # seconds


def run_bench(
    *,
    concurrency: int,
    rate: float | None,
    duration: float | None,
    count: int | None,
    warm_up: float | None,
    max_pending: int | None,
    latency: float | None,
    fault_rate: float | None,
    seed: int | None,
    base_url: str | None,
    recipients: Path | None,
    real: bool,
    json_file: str | None,
    html_file: str | None,
) -> None:
    """Run the benchmark, print and write its report, and exit. All options are checked before."""
    if max_pending is not None and rate is None:
        raise click.UsageError("--max-pending requires --rate: a closed loop drops no messages")
    given: dict[str, Any] = {"duration": duration, "max_pending": max_pending}
    try:
        plan = Plan(
            rate=rate,
            count=count,
            warm_up=(0.0 if real else _DEFAULT_WARM_UP) if warm_up is None else warm_up,
            **{name: value for name, value in given.items() if value is not None},
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    _check_files(json_file, html_file)
    try:
        target = choose_target(
            plan,
            concurrency=concurrency,
            base_url=base_url,
            real=real,
            recipients=recipients,
            sandbox={"latency": latency, "fault_rate": fault_rate, "seed": seed},
        )
    except ConfigurationError as error:
        fail(error, EXIT_CONFIGURATION)
    if real:
        stderr.print(f"sending {plan.count:,} real messages to {target.name}", markup=False, soft_wrap=True)
    try:
        report = run(_measure(target, plan), interrupted="interrupted; nothing was measured")
    except ChildProcessError as error:
        fail(error, EXIT_CONFIGURATION)
    written = _hand_over(report, json_file, html_file)
    if base_url is not None and report.completed and not report.accepted:
        stderr.print("nxotp: nothing was accepted: try  nxotp doctor", markup=False)
    if not written:
        sys.exit(EXIT_CONFIGURATION)
    if report.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0 if report.accepted else EXIT_REJECTED)


def _check_files(json_file: str | None, html_file: str | None) -> None:
    if html_file is not None and find_spec("matplotlib") is None:
        raise ModuleNotFoundError(
            "matplotlib is not installed: --html needs  pip install 'nxotp_async[bench]'", name="matplotlib"
        )
    if html_file == "-":
        raise click.UsageError("--html requires the name of a file")
    if json_file is not None and html_file is not None and Path(json_file).resolve() == Path(html_file).resolve():
        raise click.UsageError("--json and --html name the same file: one would overwrite the other")
    for option, file in (("--json", json_file), ("--html", html_file)):
        if file is None or (file == "-" and option == "--json"):
            continue
        path = Path(file)
        existed = path.exists()
        try:
            path.open("ab").close()
        except OSError as error:
            raise click.UsageError(f"{option}: {file} cannot be written: {error.strerror}") from None
        if not existed:
            path.unlink()


async def _measure(target: Target, plan: Plan) -> BenchmarkReport:
    """Run until the end, or until SIGINT, SIGTERM or SIGHUP, and return the report."""
    async with target.client as client:
        benchmark = Benchmark(client, target.messages, plan, target=target.name)
        running = asyncio.create_task(benchmark.run())
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            # Windows has no SIGHUP, and no signal handlers in the loop: there Ctrl-C cancels this coroutine.
            with suppress(NotImplementedError, AttributeError):
                asyncio.get_running_loop().add_signal_handler(getattr(signal, name), running.cancel)
        with BenchView(benchmark) as view:
            following = asyncio.create_task(view.follow())
            try:
                return await running
            except asyncio.CancelledError:
                return benchmark.report()
            finally:
                following.cancel()


def _hand_over(report: BenchmarkReport, json_file: str | None, html_file: str | None) -> bool:
    """Print and write the report. Return false if standard output cannot be written."""
    if json_file == "-":
        written = print_data(report.to_json())
        say_caveats(report)
    else:
        written = print_report(report)
    if json_file not in (None, "-"):
        _write(str(json_file), report.to_json() + b"\n")
    if html_file is not None:
        from ...bench.page import html_page  # noqa: PLC0415 - matplotlib takes its time to load, and is an extra

        _write(html_file, html_page(report).encode())
    return written


def _write(file: str, data: bytes) -> None:
    try:
        Path(file).write_bytes(data)
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}", EXIT_CONFIGURATION)
