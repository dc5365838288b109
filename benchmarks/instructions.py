"""How many instructions a send takes in each client, as valgrind counts them: a figure that no neighbour disturbs.

Instructions of the kernel are not counted, nor do all take the same time: it is one more way to look at what
compare_clients.py measures. Each client makes some sends, and then twice as many; the difference counts.

    python benchmarks/instructions.py --only floor --only "send_many, wire"
"""

import argparse
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from answering import add_server_option, server
from clients import CONTENDERS


def instructions(url: str, name: str, loop: str, sends: int) -> int:
    """Return the instructions of a process that makes so many sends."""
    command = [
        *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
        *(sys.executable, "-m", "clients", name, "--url", url, "--loop", loop),
        *("--sends", str(sends), "--concurrency", "64"),
    ]
    process = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", process.stderr)
    if process.returncode or found is None:
        sys.exit(f"{name} failed in {loop}:\n{process.stderr}")
    return int(found[1])


def main() -> None:
    installed = [name for name, contender in CONTENDERS.items() if find_spec(contender.package)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_option(parser)
    parser.add_argument("--sends", type=int, default=2000, help="sends whose instructions are counted (2000)")
    parser.add_argument("--only", action="append", choices=installed, help="only this one; may be repeated")
    arguments = parser.parse_args()
    with server(arguments.server) as url:
        for loop in ("asyncio", "uvloop"):
            for name in arguments.only or installed:
                if loop in CONTENDERS[name].loops:
                    few, many = (instructions(url, name, loop, times * arguments.sends) for times in (1, 2))
                    print(f"{loop}: {CONTENDERS[name].label}: {(many - few) / arguments.sends:,.0f} a send", flush=True)


if __name__ == "__main__":
    main()
