"""``nxotp demo``."""

import os
import shlex
import sys
from collections import Counter
from shutil import which
from typing import Any

import attrs
import click
from rich.table import Table

from ..demo import DemoReport, run_demo
from ..messages import OtpMessage
from ..recipients import default_recipients, read_recipients
from ..results import SendResult, SendStatus
from .event_loop import run
from .exit_codes import ExitCode
from .output import fail, print_error, print_json, print_note, print_tables
from .parameters import CONCURRENCY, SHARE, json_option, recipients_option, seed_option
from .progress import Snapshot, run_progress

__all__ = ["command"]


@click.command("demo")
@click.option("--count", type=click.IntRange(1, 1_000_000), default=1000, help="Messages to send.")
@click.option("--concurrency", type=CONCURRENCY, default=64, help="Requests in flight.")
@click.option(
    "--fault-rate", type=SHARE, default=0.1, help="Share of requests that the sandbox answers with -1 or 9001."
)
@seed_option(default=1)
@recipients_option
@json_option(help="Print the report as JSON.")
def command(recipients: list[OtpMessage] | None, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - options of several types, each checked by click
    """Send a thousand OTPs to a sandbox in its own process, and report.

    Real HTTP and real signatures, without an account or a network. It exits with 0 when every message has an outcome
    and every accepted one is paired with its message id, otherwise with 1.
    """
    try:
        report = run(_demo(recipients or read_recipients(default_recipients()), **options))
    except ChildProcessError as error:
        fail(error, ExitCode.USAGE)
    if as_json:
        print_json({**attrs.asdict(report), "throughput": round(report.throughput, 1)})
    elif print_tables(*_tables(report)):
        print_note(_what_next(report, options["fault_rate"]))
    for problem in report.problems:
        print_error(problem)
    sys.exit(ExitCode.FAILURE if report.problems else ExitCode.SUCCESS)


def _what_next(report: DemoReport, fault_rate: float) -> str:
    # Under make, the command is in a virtual environment that is not active.
    name = "nxotp" if which("nxotp") else shlex.join([os.path.relpath(sys.executable), "-m", "nxotp_async"])
    return (
        f"{fault_rate:.0%} of the sandbox's answers were faults on purpose, the vendor's temporary codes -1 and 9001:\n"
        f"{report.summary.retried:,} messages were sent again. Try next:\n"
        f"  {name} demo --count 200 --fault-rate 0.5    # half of the answers are faults\n"
        f"  {name} sandbox    # an emulator of the API for your own program\n"
        f"  {name} doctor     # why sending with your account would fail"
    )


async def _demo(messages: list[OtpMessage], *, count: int, **options: Any) -> DemoReport:  # noqa: ANN401 - those of run_demo
    seen: Counter[str] = Counter()

    def see(result: SendResult) -> None:
        seen.update({"done": 1, result.status: 1, "retried": result.attempts > 1})

    def look() -> Snapshot:
        return Snapshot(seen["done"], count, f"accepted {seen['accepted']:,}  retried {seen['retried']:,}")

    async with run_progress(look):
        return await run_demo(messages, count=count, on_result=see, **options)


def _tables(report: DemoReport) -> tuple[Table, Table]:
    summary = report.summary
    figures = Table(show_header=False, title=f"{summary.total} OTPs in {report.seconds:.1f} s", title_justify="left")
    figures.add_column(style="bold")
    figures.add_column(justify="right")
    rows: dict[str, object] = {
        **{status.label: getattr(summary, status) for status in SendStatus},
        "retried": summary.retried,
        "requests made": summary.attempts,
        "throughput": f"{report.throughput:,.0f} messages/s",
        "latency p50": f"{report.p50:.4f} s",
        "latency p99": f"{report.p99:.4f} s",
        **{f"failed with {reason}": number for reason, number in report.failures.items()},
    }
    for name, value in rows.items():
        figures.add_row(name, str(value))
    pairs = Table("cus_message_id", "message id", title="a few of the pairs", title_justify="left")
    for cus_message_id, message_id in report.pairs.items():
        pairs.add_row(cus_message_id, message_id)
    return figures, pairs
