"""``nxotp demo``."""

import sys
from collections import Counter
from typing import Any

import attrs
import click
from rich.table import Table

from ..demo import DemoReport, run_demo
from ..messages import OtpMessage
from ..recipients import default_recipients, read_recipients
from ..results import SendResult
from .event_loop import run
from .exit_codes import ExitCode
from .output import fail, print_error, print_json, print_tables
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
    else:
        print_tables(*_tables(report))
    for problem in report.problems:
        print_error(problem)
    sys.exit(ExitCode.FAILURE if report.problems else ExitCode.SUCCESS)


async def _demo(messages: list[OtpMessage], *, count: int, **options: Any) -> DemoReport:  # noqa: ANN401 - those of run_demo
    seen: Counter[str] = Counter()

    def see(result: SendResult) -> None:
        seen.update({"done": 1, result.status: 1, "retried": result.attempts > 1})

    def look() -> Snapshot:
        return seen["done"], count, f"accepted {seen['accepted']:,}  retried {seen['retried']:,}"

    async with run_progress(look):
        return await run_demo(messages, count=count, on_result=see, **options)


def _tables(report: DemoReport) -> tuple[Table, Table]:
    summary = report.summary
    figures = Table(show_header=False, title=f"{summary.total} OTPs in {report.seconds:.1f} s", title_justify="left")
    figures.add_column(style="bold")
    figures.add_column(justify="right")
    rows: dict[str, object] = {
        "accepted": summary.accepted,
        "rejected": summary.rejected,
        "not sent": summary.not_sent,
        "unknown": summary.unknown,
        "retried": summary.retried,
        "requests made": summary.attempts,
        "throughput": f"{report.throughput:,.0f} messages/s",
        "latency p50": f"{report.p50 * 1000:,.1f} ms",
        "latency p99": f"{report.p99 * 1000:,.1f} ms",
        **{f"failed with {reason}": number for reason, number in report.failures.items()},
    }
    for name, value in rows.items():
        figures.add_row(name, str(value))
    pairs = Table("cus_message_id", "message id", title="a few of the pairs", title_justify="left")
    for cus_message_id, message_id in report.pairs.items():
        pairs.add_row(cus_message_id, message_id)
    return figures, pairs
