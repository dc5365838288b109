"""Looks up what is installed among the vulnerabilities that PyPI knows of: ``make audit``.

It exits with 1 where there is one. Without the network it says that nothing was checked, and exits with 0; so does an
index without advisories, which pip-audit by itself would call a success.
"""

import json
import subprocess
import sys
from pathlib import Path

_PIP_AUDIT = str(Path(sys.executable).with_name("pip-audit"))


def report(answer: str, complaint: str) -> tuple[list[str], bool]:
    """Return what to print of pip-audit's standard output and standard error, and whether something was found."""
    try:
        packages = json.loads(answer)["dependencies"]
    except ValueError:
        reason = (complaint.strip() or "pip-audit says nothing").splitlines()[-1]
        return [f"NOTHING WAS CHECKED, no advisories could be had: {reason}"], False
    checked = [package for package in packages if "vulns" in package]
    if not checked:
        return ["NOTHING WAS CHECKED: the index in use has no advisories"], False
    found = [
        f"{package['name']} {package['version']}: {advisory['id']}, "
        f"mended in {', '.join(advisory['fix_versions']) or 'no version yet'}"
        for package in checked
        for advisory in package["vulns"]
    ]
    unchecked = [package["name"] for package in packages if package not in checked]
    return [
        *found,
        f"{len(found)} known vulnerabilities in {len(checked)} packages",
        *([f"not checked: {', '.join(unchecked)}"] if unchecked else []),
    ], bool(found)


def main() -> None:
    """Run pip-audit on the environment that this runs in."""
    command = [_PIP_AUDIT, "--skip-editable", "--progress-spinner=off", "--format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines, found = report(done.stdout, done.stderr)
    print(*lines, sep="\n")
    sys.exit(found)


if __name__ == "__main__":
    main()
