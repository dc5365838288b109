"""A run of the benchmark on the command line."""

import asyncio
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from ...bench import Benchmark, BenchmarkReport, Plan
from ...messages import OtpMessage
from ..event_loop import on_stop_signal, run
from ..exit_codes import ExitCode
from ..output import fail, print_error, print_note
from ..progress import run_progress
from .progress import INTERVAL, look_at
from .tables import print_report
from .target import Target, choose_target

__all__ = ["run_bench"]


def run_bench(
    *,
    concurrency: int,
    rate: float | None,
    duration: float | None,
    count: int | None,
    warm_up: float | None,
    max_pending: int | None,
    base_url: str | None,
    recipients: list[OtpMessage] | None,
    real: bool,
    json_file: str | None,
    html_file: str | None,
    **sandbox: object,
) -> None:
    """Run the benchmark, print and write its report, and exit. All options are checked before."""
    plan = _plan(
        rate, count, duration=duration, warm_up=0.0 if real and warm_up is None else warm_up, max_pending=max_pending
    )
    _check_files(json_file, html_file)
    target = choose_target(
        plan, concurrency=concurrency, base_url=base_url, real=real, recipients=recipients, sandbox=sandbox
    )
    if real:
        print_note(f"sending {plan.count:,} real messages to {target.name}")
    try:
        report = run(_measure(target, plan), interrupted="interrupted; nothing was measured")
    except ChildProcessError as error:
        fail(error, ExitCode.CONFIGURATION)
    is_printed = print_report(report, as_json=json_file == "-")
    if json_file is not None and json_file != "-":
        _write(json_file, report.to_json() + b"\n")
    if html_file is not None:
        from ...bench.page import html_page  # noqa: PLC0415 - matplotlib takes its time to load, and is an extra

        _write(html_file, html_page(report).encode())
    if base_url is not None and report.completed and not report.accepted:
        print_error("nothing was accepted: try  nxotp doctor")
    if not is_printed:
        sys.exit(ExitCode.CONFIGURATION)
    if report.interrupted:
        sys.exit(ExitCode.INTERRUPTED)
    sys.exit(ExitCode.SUCCESS if report.accepted else ExitCode.FAILURE)


def _plan(rate: float | None, count: int | None, **given: float | None) -> Plan:
    """Return the plan that the options name, with its own defaults for those that are not given."""
    if given["max_pending"] is not None and rate is None:
        raise click.UsageError("--max-pending requires --rate: a closed loop drops no messages")
    if count is not None and given["duration"] is not None:
        raise click.UsageError("--count and --duration cannot be used together")
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return Plan(rate=rate, count=count, **options)


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
        if file in (None, "-"):
            continue
        path = Path(str(file))
        try:
            existed = path.exists()
            path.open("ab").close()
        except OSError as error:
            raise click.UsageError(f"{option}: {file} cannot be written: {error.strerror}") from None
        if not existed:
            path.unlink()


async def _measure(target: Target, plan: Plan) -> BenchmarkReport:
    """Run until the end, or until a signal to stop, and return the report."""
    async with target.client as client:
        benchmark = Benchmark(client, target.messages, plan, target=target.name)
        running = asyncio.create_task(benchmark.run())
        on_stop_signal(running.cancel)
        async with run_progress(partial(look_at, benchmark), interval=INTERVAL):
            try:
                return await running
            except asyncio.CancelledError:
                return benchmark.report()


def _write(file: str, data: bytes) -> None:
    try:
        Path(file).write_bytes(data)
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}", ExitCode.CONFIGURATION)
