"""``nxotp bench``. Its extra is imported when the command runs, not before."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..exit_codes import ExitCode, exit_codes
from ..output import fail
from ..parameters import CONCURRENCY, COUNT, EXISTING_FILE, SHARE, FiniteRange, Seconds, recipients_option, seed_option

__all__ = ["command"]

_DAY = 86_400  # seconds


@contextmanager
def _with_the_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("hdrh", "matplotlib"):
            raise
        fail(error, ExitCode.CONFIGURATION)


@click.group(
    "bench",
    invoke_without_command=True,
    subcommand_metavar="[compare A.json B.json]",
    epilog=exit_codes(
        success="measured",
        failure="no message was accepted",
        usage="wrong usage",
        configuration="configuration, sandbox or output",
        unknown=None,
        interrupted="interrupted; what was measured until then is reported",
    ),
)
@click.option("--concurrency", type=CONCURRENCY, default=64, help="Requests in flight.")
@click.option(
    "--rate",
    type=FiniteRange(0.001, 100_000),
    help="Messages that begin each second, independent of the answers: the open loop. Default: the closed loop.",
)
@click.option("--duration", type=Seconds(0, _DAY, min_open=True), help="How long to measure. Default: 10.")
@click.option("--count", type=COUNT, help="Messages to measure, instead of --duration.")
@click.option(
    "--warm-up",
    type=Seconds(0, _DAY),
    help="The same load before, which is not measured. Default: 2; 0 with real messages.",
)
@click.option(
    "--max-pending",
    type=COUNT,
    help="Drop further messages while this many have no outcome, and count them. Default: 10,000.",
)
@click.option("--latency", type=Seconds(0, 60), help="How long the sandbox takes for an answer.")
@click.option("--fault-rate", type=SHARE, help="Share of requests that the sandbox answers with -1 or 9001.")
@seed_option()
@click.option("--base-url", help="URL of a server on loopback to load instead of a sandbox.")
@recipients_option
@click.option(
    "--yes-send-real-messages",
    "real",
    is_flag=True,
    help="Allow a --base-url that is not loopback. Requires --recipients, --count and --rate.",
)
@click.option("--json", "json_file", metavar="FILE", help="Write the report as JSON; - prints it instead of the table.")
@click.option("--html", "html_file", metavar="FILE", help="Write the report as a page with charts.")
@click.pass_context
def command(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - options of several types, each checked by click
    """Measure throughput and latency of sending, by default to a sandbox in a process of its own.

    \b
    nxotp bench                closed loop: 64 in flight; what is the throughput?
    nxotp bench --rate 500     open loop: 500 begin a second; what is the latency?
    nxotp bench --rate 500 --json a.json --html a.html
    nxotp bench compare a.json b.json

    A closed loop waits for the server: while that stalls, it sends nothing and measures nothing. Use its throughput,
    and the latencies of the open loop, which are measured from when each message was due.
    """  # noqa: D301 - click wants the backspace character itself
    if context.invoked_subcommand is None:
        with _with_the_extra():
            from .run import run_bench  # noqa: PLC0415 - an extra

            run_bench(**options)
    elif given := [name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]:
        names = ", ".join(f"--{name.removesuffix('_file').replace('_', '-')}" for name in given)
        raise click.UsageError(f"{names}: not an option of {context.invoked_subcommand}")


@command.command()
@click.argument("first", type=EXISTING_FILE)
@click.argument("second", type=EXISTING_FILE)
def compare(first: Path, second: Path) -> None:
    """Compare the figures of the reports FIRST and SECOND, which `nxotp bench --json` has written.

    It warns if the conditions of the two runs differ. Single runs vary by chance: repeat them.
    """
    with _with_the_extra():
        from .tables import print_comparison, read_report  # noqa: PLC0415 - an extra

        print_comparison(read_report(first), read_report(second))
