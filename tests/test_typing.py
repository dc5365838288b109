"""Nothing public is left out of ``typing/``, which mypy and pyright check (``make lint``)."""

import ast
import importlib
from pathlib import Path
from types import FunctionType

import pytest

from nxotp_async.bulk import Ledger
from nxotp_async.fleet import Outbox

FILES = sorted((Path(__file__).parent / "typing").glob("*.py"))
NODES = [node for file in FILES for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
ATTRIBUTES = {node.attr for node in NODES if isinstance(node, ast.Attribute)}
PUBLIC = (
    "account",
    "bench",
    "bulk",
    "callbacks",
    "doctor",
    "fleet",
    "otel",
    "pacing",
    "receivers",
    "sandbox",
    "senders",
    "sms",
    "stores",
    "testing",
    "tracking",
    "verification",
    "verification.aiohttp",
    "verification.django",
    "verification.fastapi",
)
MODULES = ["nxotp_async", *(f"nxotp_async.{name}" for name in PUBLIC)]


def members(kind: type) -> set[str]:
    """Name the methods and properties that users call on a class of this package."""
    return {
        name
        for base in kind.__mro__
        if base.__module__.startswith("nxotp_async")
        for name, value in vars(base).items()
        if not name.startswith("_") and isinstance(value, FunctionType | property | classmethod)
    }


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_typed(module: str) -> None:
    imported = {
        alias.name
        for node in NODES
        if isinstance(node, ast.ImportFrom) and node.module == module
        for alias in node.names
    }
    assert set(importlib.import_module(module).__all__) - {"__version__"} <= imported


def public_classes() -> list[type]:
    found = {
        value
        for module in map(importlib.import_module, MODULES)
        for value in (getattr(module, name) for name in module.__all__)
        if isinstance(value, type) and value is not Ledger  # its other methods are the dispatcher's
    }
    return sorted(found, key=lambda kind: kind.__qualname__)


@pytest.mark.parametrize("kind", public_classes(), ids=lambda kind: kind.__qualname__)
def test_every_public_member_is_typed(kind: type) -> None:
    of_workers = {"defer"} if kind is Outbox else set()  # what the fleet's other modules call, and no user
    assert members(kind) - of_workers <= ATTRIBUTES
