"""``nxotp bench``: the load benchmark. It needs an extra, which is loaded when the command runs, not before."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..common import EXIT_CONFIGURATION, fail
from ..sandbox import FiniteRange

__all__ = ["bench"]


@contextmanager
def _with_the_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("hdrh", "matplotlib"):
            raise
        fail(error, EXIT_CONFIGURATION)


@click.group(invoke_without_command=True, subcommand_metavar="[compare A.json B.json]")
@click.option(
    "--concurrency", type=click.IntRange(1, 10_000), default=64, show_default=True, help="Requests in flight."
)
@click.option(
    "--rate",
    type=click.FloatRange(0.001, 100_000),
    help="Messages a second that arrive, whatever becomes of the others: the open loop. Default: the closed loop.",
)
@click.option("--duration", type=click.FloatRange(0, 86_400, min_open=True), help="Seconds to measure. Default: 10.")
@click.option("--count", type=click.IntRange(1), help="Messages to measure, in place of a duration.")
@click.option(
    "--warm-up",
    type=click.FloatRange(0, 86_400),
    help="Seconds of the same load before, which count for nothing. Default: 2; none with real messages.",
)
@click.option(
    "--max-pending",
    type=click.IntRange(1),
    help="Arrivals without an outcome, from which on further ones are dropped, and counted. Default: 10,000.",
)
@click.option("--latency", type=FiniteRange(0, 60), help="Seconds the sandbox takes for an answer.")
@click.option("--fault-rate", type=FiniteRange(0, 1), help="Share of requests the sandbox answers with -1 or 9001.")
@click.option("--seed", type=int, help="Makes the sandbox's faults repeatable.")
@click.option("--base-url", help="Load this in place of a sandbox: a server on loopback.")
@click.option(
    "--recipients",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A CSV file with the columns to, content, language_code and category, in place of made-up messages.",
)
@click.option(
    "--yes-send-real-messages",
    "real",
    is_flag=True,
    help="Let --base-url be a host that is not loopback. It needs --recipients, --count and --rate.",
)
@click.option(
    "--json", "json_file", metavar="FILE", help="Write the report as JSON; - prints it in place of the table."
)
@click.option("--html", "html_file", metavar="FILE", help="Write the report as a page with charts.")
@click.pass_context
def bench(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - options of several types, each checked by click
    """Measure how fast messages are sent, and how long they take. By default to a sandbox in its own process.

    \b
    nxotp bench                        closed loop: 64 in flight all the time; how much is possible?
    nxotp bench --rate 500             open loop: 500 arrive each second; how long do they take?
    nxotp bench --rate 500 --json a.json --html a.html
    nxotp bench compare a.json b.json

    A closed loop waits for the server: while that stalls, it sends nothing, and measures nothing. Take its throughput,
    and the latencies of the open loop, where each one counts from the moment the message was due.

    \b
    Exit codes: 0 measured, 1 no message was accepted, 2 wrong usage, 3 configuration, sandbox or output,
    130 interrupted; what was measured until then is reported.
    """  # noqa: D301 - click wants the backspace character itself
    if context.invoked_subcommand is None:
        with _with_the_extra():
            from .run import run_bench  # noqa: PLC0415 - an extra

            run_bench(**options)
    elif given := [name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]:
        names = ", ".join(f"--{name.removesuffix('_file').replace('_', '-')}" for name in given)
        raise click.UsageError(f"{names}: a run's options mean nothing to {context.invoked_subcommand}")


@bench.command()
@click.argument("first", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("second", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def compare(first: Path, second: Path) -> None:
    """Compare the reports FIRST and SECOND, which `nxotp bench --json` has written, figure by figure.

    It says where the two runs differ in more than the library. One run each says nothing of chance: repeat them.
    """
    with _with_the_extra():
        from .tables import print_comparison, read_report  # noqa: PLC0415 - an extra

        if not print_comparison(read_report(first), read_report(second)):
            sys.exit(EXIT_CONFIGURATION)
