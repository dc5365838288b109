"""Who imports whom, and what importing the package costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import nxotp_async

PACKAGE = Path(nxotp_async.__file__).parent

# A module imports from lower ranks only, or from its own package. The bottom comes first.
RANKS = [
    {"_version", "clocks", "errors", "look"},
    {"checks"},
    {"codes", "languages", "numbering_plans", "urls"},
    {"phone_numbers"},
    {"messages", "signing"},
    {"results"},
    {"logs", "protocol", "retry", "callbacks", "rates"},
    {"hooks"},
    {"transports", "streaming", "stores", "receivers", "throttling"},
    {"tracking", "pacing"},
    {"settings"},
    {"clock_skew"},
    {"client_state"},
    {"delivery", "account"},
    {"client"},
    {"senders"},
    {"sms"},
    {"verification"},
    {"sandbox", "bulk", "bench", "doctor"},
    {"fleet"},
    {"otel"},
    {"demo", "recipients", "testing"},
    {"cli"},
    {"__init__", "__main__"},
]
# Imports for type checkers alone: an error names the result of its send, and the result its error.
FOR_TYPES = {("errors", "results")}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """Name the module, or the subpackage that it is a part of."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_units(path: Path) -> set[str]:
    """Name the units of this package that a module imports, wherever the import stands."""
    depth = len(path.relative_to(PACKAGE).parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= {node.module.partition(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            assert not node.module.startswith("nxotp_async"), f"{path} imports by an absolute name"
    return found


def rank(name: str) -> int:
    (found,) = [index for index, names in enumerate(RANKS) if name in names]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards_only(path: Path) -> None:
    own = unit(path)
    upwards = {name for name in imported_units(path) - {own} if rank(name) >= rank(own)}
    upwards -= {name for importer, name in FOR_TYPES if importer == own}
    assert not upwards


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_private_name_of_another_module_is_imported(path: Path) -> None:
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in imports if node.level for alias in node.names}
    assert not [name for name in names if name.startswith("_") and not name.startswith("__")]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_importing_the_package_loads_neither_a_server_nor_the_command_line() -> None:
    probe = "import sys, nxotp_async; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    for name in (
        "aiohttp.web",
        "click",
        "rich",
        "uvloop",
        "hdrh",
        "matplotlib",
        "opentelemetry",
        "psycopg",
        "redis",
        "procrastinate",
        "cryptography",
        "nxotp_async.fleet",
        "nxotp_async.sandbox",
        "nxotp_async.bulk",
        "nxotp_async.demo",
        "nxotp_async.bench",
        "nxotp_async.doctor",
        "nxotp_async.otel",
        "nxotp_async.stores",
        "nxotp_async.pacing",
        "nxotp_async.testing",
        "nxotp_async.verification",
        "phonenumbers",
        "nxotp_async.cli",
    ):
        assert name not in loaded


def test_the_public_names_are_sorted_and_exist() -> None:
    assert sorted(nxotp_async.__all__) == nxotp_async.__all__
    assert all(hasattr(nxotp_async, name) for name in nxotp_async.__all__)


def test_the_package_is_marked_as_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
