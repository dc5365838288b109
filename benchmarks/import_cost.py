"""What importing nxotp_async costs on top of aiohttp, which it stands on.

Fresh processes import one or the other, in pairs; what counts is the time that the import takes, and the median
difference within a pair. The aim is at most 40 ms. What makes up the difference is told by "python -X importtime".

    python benchmarks/import_cost.py
"""

import argparse
import subprocess
import sys
from collections import defaultdict
from statistics import median

from answering import CLIENT_CORE, pin

_TIMED = "from time import perf_counter as now; began = now(); import {}; print(now() - began)"


def import_time(module: str) -> float:
    """Return the milliseconds a fresh process takes to import a module."""
    return float(subprocess.check_output([sys.executable, "-c", _TIMED.format(module)])) * 1e3


def what_comes_on_top() -> dict[str, float]:
    """Return the milliseconds of each module of nxotp_async, and of each other package, that aiohttp had not loaded."""
    command = [sys.executable, "-X", "importtime", "-c", "import aiohttp, nxotp_async"]
    told = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True).stderr
    found: defaultdict[str, float] = defaultdict(float)
    for line in told.partition("| aiohttp\n")[2].splitlines():
        own, _, module = line.removeprefix("import time:").split("|")
        name = module.strip()
        found[name if name.startswith("nxotp_async") else name.partition(".")[0]] += int(own) / 1e3
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25, help="processes for each of the two (25)")
    arguments = parser.parse_args()
    pin(CLIENT_CORE)
    modules = ("aiohttp", "nxotp_async")
    times: dict[str, list[float]] = {module: [] for module in modules}
    for module in modules:
        import_time(module)  # compiles what is not compiled yet
    for number in range(arguments.rounds):
        for module in modules if number % 2 else reversed(modules):
            times[module].append(import_time(module))
    bare, ours = (median(times[module]) for module in modules)
    more = median(own - its for its, own in zip(*times.values(), strict=True))
    print(f"import aiohttp {bare:.0f} ms, import nxotp_async {ours:.0f} ms: {more:.0f} ms more (aim: at most 40)")
    dearest = sorted(what_comes_on_top().items(), key=lambda item: -item[1])[:8]
    print("on top, in ms: " + ", ".join(f"{name} {cost:.1f}" for name, cost in dearest))


if __name__ == "__main__":
    main()
