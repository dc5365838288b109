"""Runs the tests on every Python that is declared and found: ``make test-pythons``.

    python tests/pythons.py --only "3.12 3.14" -n 2 tests/test_retry.py

Each has a virtual environment of its own, ``.venv-3.12`` for example. Exits with 1 where tests have failed, or a Python
that was asked for was not found.
"""

import argparse
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent


def declared() -> list[str]:
    """Return the versions that pyproject.toml declares, oldest first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return re.findall(r"^Programming Language :: Python :: (3\.\d+)$", "\n".join(project["classifiers"]), re.MULTILINE)


def find(version: str) -> Path | None:
    """Return an interpreter of this version that runs, and that can make virtual environments."""
    return next((candidate for candidate in _candidates(version) if _is_usable(candidate, version)), None)


def _candidates(version: str) -> Iterator[Path]:
    for directory in os.get_exec_path():
        yield Path(directory, f"python{version}")
    yield from _pyenv_root().glob(f"versions/{version}.*/bin/python")


def _pyenv_root() -> Path:
    try:
        asked = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return Path.home() / ".pyenv"
    return Path(asked.stdout.strip())


def _is_usable(python: Path, version: str) -> bool:
    # It has to be asked: pyenv puts a python3.12 on PATH that refuses to run while another version is selected.
    program = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    try:
        asked = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return asked.returncode == 0 and asked.stdout.strip() == version


def run(version: str, python: Path, arguments: list[str]) -> tuple[bool, str]:
    """Return whether the tests have passed on this interpreter, and pytest's own last line."""
    environment = f".venv-{version}"
    installed = ["make", "--no-print-directory", f"{environment}/installed", f"PYTHON={python}"]
    if subprocess.run(installed, cwd=ROOT, check=False).returncode:
        return False, "what the tests need could not be installed"
    command = [f"{environment}/bin/python", "-m", "pytest", *arguments]
    last = ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        for line in tests.stdout:
            print(line, end="", flush=True)
            last = line.strip("= \n") or last
    return tests.returncode == 0, last


def main() -> None:
    """Run them, and say at the end which ones ran with what result, and which ones were not found."""
    parser = argparse.ArgumentParser(description="All other arguments are pytest's.", allow_abbrev=False)
    parser.add_argument("--only", default="", metavar="VERSIONS", help='"3.12 3.14" for example, or "newest"')
    options, arguments = parser.parse_known_args()
    versions = options.only.split() or declared()
    if versions == ["newest"]:
        versions = [version for version in declared() if find(version)][-1:]
    found = {version: python for version in versions if (python := find(version))}
    results = {version: run(version, python, arguments) for version, python in found.items()}
    for version in versions:
        print(f"Python {version}: {results[version][1] if version in results else 'not found'}")
    all_asked_for = not options.only or len(found) == len(versions)
    all_passed = bool(results) and all(passed for passed, _ in results.values())
    sys.exit(not (all_asked_for and all_passed))


if __name__ == "__main__":
    main()
