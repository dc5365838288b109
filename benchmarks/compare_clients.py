"""How fast nxotp_async is beside other ways to send the same OTPs: side by side, alternating, in one run.

Each contender sends the same messages, each with a signature of its own, to the same server, in a fresh process that
has one core; the server has the other. Every round lets each of them run once, in an order that alternates. What counts
is the median of the rounds; ratios are taken within a round, so that a machine whose speed drifts favours nobody.

"The floor" is bare aiohttp, tuned: the least that a correct client on aiohttp can cost.
"""

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import orjson
from answering import SERVER_CORE, add_server_option, pin, server
from clients import CONTENDERS
from comparison import Figures, Sample, as_json, draw, markdown, tables
from rich.console import Console

EXAMPLES = """
examples:
  python benchmarks/compare_clients.py                                what is installed; "make bench-clients" has all
  python benchmarks/compare_clients.py --only floor --only send_many  these two
  python benchmarks/compare_clients.py --sends 4000 --rounds 3        a first impression
"""


def measure(url: str, name: str, loop: str, sends: int, concurrency: int) -> Sample:
    """Let one contender do the job in a fresh process."""
    process = subprocess.run(
        [
            *(sys.executable, "-m", "clients", name, "--url", url, "--loop", loop),
            *("--sends", str(max(1, round(sends * CONTENDERS[name].share))), "--concurrency", str(concurrency)),
        ],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        check=False,
    )
    if process.returncode:
        sys.exit(f"{name} failed in {loop}; its message stands above")
    sample: Sample = orjson.loads(process.stdout)
    return sample


def compare(arguments: argparse.Namespace, console: Console) -> list[Figures]:
    """Let every contender run once a round, and return what came of it."""
    loops = ["asyncio", "uvloop"] if arguments.loop == "both" else [arguments.loop]
    pairs = [(name, loop) for loop in loops for name in arguments.only if loop in CONTENDERS[name].loops]
    samples: dict[tuple[str, str], list[Sample]] = {pair: [] for pair in pairs}
    pin(SERVER_CORE)
    with server(arguments.server) as url:
        for number in range(1, arguments.rounds + 1):
            for name, loop in pairs if number % 2 else reversed(pairs):
                sample = measure(url, name, loop, arguments.sends, arguments.concurrency)
                samples[name, loop].append(sample)
                console.print(f"round {number}: {name} in {loop} {sample['rate']:,.0f}/s", highlight=False)
    return [Figures(name, loop, samples[name, loop], samples.get(("floor", loop), [])) for name, loop in pairs]


def parse() -> argparse.Namespace:
    installed = [name for name, contender in CONTENDERS.items() if find_spec(contender.package)]
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_server_option(parser)
    parser.add_argument("--sends", type=int, default=20_000, help="messages a round; slow clients send fewer (20000)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each of them runs (7)")
    parser.add_argument("--concurrency", type=int, default=64, help="requests in flight (64)")
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "both"], default="both", help="event loop (both)")
    parser.add_argument("--only", action="append", choices=CONTENDERS, help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure as JSON, too")
    parser.add_argument("--chart", type=Path, metavar="FILE.svg", help="draw a chart, too")
    parser.add_argument("--markdown", action="store_true", help="print Markdown in place of tables")
    arguments = parser.parse_args()
    if missing := [name for name in arguments.only or CONTENDERS if name not in installed]:
        print(f"not installed here: {', '.join(missing)} (make bench-clients has them)", file=sys.stderr)
    arguments.only = [name for name in arguments.only or installed if name in installed]
    if not arguments.only:
        sys.exit(1)
    if min(arguments.sends, arguments.rounds, arguments.concurrency) < 1:
        parser.error("--sends, --rounds and --concurrency must be at least 1")
    return arguments


def main() -> None:
    arguments = parse()
    figures = compare(arguments, Console(stderr=True))
    conditions = (
        f"{arguments.concurrency} in flight, medians of {arguments.rounds} alternating rounds against "
        f"{arguments.server} on loopback, client and server on one core each."
    )
    if arguments.json:
        arguments.json.write_bytes(as_json(figures, conditions))
    if arguments.chart:
        draw(figures, arguments.chart)
    if arguments.markdown:
        print(markdown(figures, conditions, arguments.chart))
    else:
        Console(width=None if sys.stdout.isatty() else 120).print(*tables(figures), conditions)


if __name__ == "__main__":
    main()
