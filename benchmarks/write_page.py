"""Runs the commands that a page shows, and puts what they print into it.

A command stands in a comment, and what it printed up to the next:

    <!-- printed by: benchmarks/import_cost.py -->
    <!-- end -->

What is printed becomes a block of text under the command; with --markdown it goes into the page as it is.

    python benchmarks/write_page.py docs/performance.md
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACE = re.compile(r"<!-- printed by: (.*?) -->\n.*?<!-- end -->", re.DOTALL)


def fill(place: re.Match[str]) -> str:
    command = place[1]
    print(f"$ python {command}", file=sys.stderr)
    printed = subprocess.check_output([sys.executable, *shlex.split(command)], cwd=ROOT, text=True).rstrip()
    if "--markdown" not in command:
        printed = f"```text\n$ python {command}\n{printed}\n```"
    return f"<!-- printed by: {command} -->\n\n{printed}\n\n<!-- end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    page: Path = parser.parse_args().page
    page.write_text(PLACE.sub(fill, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
