"""``nxotp demo``."""

import sys
from pathlib import Path

import attrs
import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..demo import DemoReport, run_demo
from ..errors import ConfigurationError, InputFileError
from ..recipients import default_recipients, read_recipients
from ..results import SendResult, SendStatus
from .common import EXIT_CONFIGURATION, EXIT_REJECTED, EXIT_USAGE, fail, print_json, run, stderr
from .sandbox import FiniteRange

__all__ = ["demo"]


@click.command()
@click.option("--count", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="Messages to send.")
@click.option(
    "--concurrency", type=click.IntRange(1, 10_000), default=64, show_default=True, help="Requests in flight."
)
@click.option(
    "--fault-rate",
    type=FiniteRange(0, 1),
    default=0.1,
    show_default=True,
    help="Share of requests that the sandbox answers with -1 or 9001.",
)
@click.option(
    "--seed",
    type=int,
    default=1,
    show_default=True,
    help="Makes the faults repeatable: a number for the random generator.",
)
@click.option(
    "--recipients",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A CSV file with the columns to, content, language_code and category. Default: made-up recipients.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def demo(count: int, concurrency: int, fault_rate: float, seed: int, recipients: Path | None, as_json: bool) -> None:
    """Send a thousand OTPs to a sandbox in its own process, and report.

    Real HTTP and real signatures, without an account or a network. It exits with 0 when every message has an outcome
    and every accepted one is paired with its message id, otherwise with 1.
    """
    progress = Progress(
        TextColumn("sending"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("accepted {task.fields[accepted]}  retried {task.fields[retried]}"),
        TimeElapsedColumn(),
        console=stderr,
        disable=as_json or not stderr.is_terminal,
    )
    task = progress.add_task("", total=count, accepted=0, retried=0)
    done = accepted = retried = 0

    def show(result: SendResult) -> None:
        nonlocal done, accepted, retried
        done += 1
        accepted += result.status is SendStatus.ACCEPTED
        retried += result.attempts > 1
        if done % max(count // 200, 1) == 0 or done == count:
            progress.update(task, completed=done, accepted=accepted, retried=retried)

    try:
        messages = read_recipients(recipients or default_recipients())
        with progress:
            report = run(
                run_demo(
                    messages,
                    count=count,
                    concurrency=concurrency,
                    fault_rate=fault_rate,
                    seed=seed,
                    on_result=show,
                )
            )
    except (InputFileError, ChildProcessError) as error:
        fail(error, EXIT_USAGE)
    except ConfigurationError as error:
        fail(error, EXIT_CONFIGURATION)
    if as_json:
        print_json({**attrs.asdict(report), "throughput": round(report.throughput, 1)})
    else:
        _print_report(report)
    for problem in report.problems:
        stderr.print(f"nxotp: {problem}", markup=False)
    sys.exit(EXIT_REJECTED if report.problems else 0)


def _print_report(report: DemoReport) -> None:
    summary = report.summary
    table = Table(show_header=False, title=f"{summary.total} OTPs in {report.seconds:.1f} s", title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    rows: list[tuple[str, object]] = [
        ("accepted", summary.accepted),
        ("rejected", summary.rejected),
        ("not sent", summary.not_sent),
        ("unknown", summary.unknown),
        ("retried", summary.retried),
        ("requests made", summary.attempts),
        ("throughput", f"{report.throughput:,.0f} messages/s"),
        ("latency p50", f"{report.p50 * 1000:,.1f} ms"),
        ("latency p99", f"{report.p99 * 1000:,.1f} ms"),
    ]
    for name, value in rows:
        table.add_row(name, str(value))
    for reason, number in report.failures.items():
        table.add_row(f"failed with {reason}", str(number))
    console = Console(highlight=False)
    console.print(table)
    pairs = Table("cus_message_id", "message id", title="a few of the pairs", title_justify="left")
    for cus_message_id, message_id in report.pairs.items():
        pairs.add_row(cus_message_id, message_id)
    console.print(pairs)
