"""The documentation says what the code does, its links lead somewhere, and it builds without a warning."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import click
import pytest
from packaging.requirements import Requirement

from nxotp_async import (
    ApiError,
    Clock,
    InvalidReason,
    Language,
    MetaCode,
    MetaError,
    RefusalReason,
    ResponseCode,
    RetryPolicy,
)
from nxotp_async.bulk.failures import FailureKind
from nxotp_async.cli import nxotp
from nxotp_async.settings import SETTINGS, Setting, Settings
from nxotp_async.verification import CheckStatus, Limits

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [page for folder in (ROOT, DOCS, DOCS / "reference", ROOT / "examples") for page in sorted(folder.glob("*.md"))]

# The modules whose names users import.
PUBLIC: Final = (
    "",
    ".account",
    ".bench",
    ".bulk",
    ".callbacks",
    ".doctor",
    ".fleet",
    ".otel",
    ".pacing",
    ".receivers",
    ".sandbox",
    ".senders",
    ".sms",
    ".stores",
    ".testing",
    ".tracking",
    ".verification",
    ".verification.aiohttp",
    ".verification.django",
    ".verification.fastapi",
)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


# ---------------------------------------------------------------------------------------------- links

FENCE: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(prose(page))}


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{path} has no heading for #{anchor}"


# ---------------------------------------------------------------------------------------------- code

WIDTH: Final = 105  # characters that fit the column of the site: docs/_static/custom.css
CODE: Final = re.compile(r"^```(?:python|pycon|shell|json|csv|ini|toml|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INCLUDED: Final = re.compile(r"^```\{literalinclude\} (\S+)\n:language: python$", re.MULTILINE)


@pytest.mark.parametrize("page", sorted(DOCS.glob("**/*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_code_fits_its_column(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = CODE.findall(text) + [(page.parent / path).read_text(encoding="utf-8") for path in INCLUDED.findall(text)]
    assert [line for block in code for line in block.splitlines() if len(line) > WIDTH] == []


# ---------------------------------------------------------------------------------------------- tables


def table(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the table that begins with this cell."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith(f"| {heading} |")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def what_follows(code: ResponseCode) -> str:
    if code is ResponseCode.WHATSAPP_ERROR:
        return "as [Meta's code](#9099-whatsapps-own) says"
    if code is ResponseCode.TIMESTAMP_EXPIRED:
        return "tried once more, where the clocks explain it"
    error = code.error_class(code=int(code))
    kind = FailureKind.of(error, expired=False, policy=RetryPolicy(), reject_on=())
    return {
        FailureKind.RETRYABLE: "tried again",
        FailureKind.ACCOUNT_REFUSED: "a bulk run is paused if it lasts",
        FailureKind.FINAL: "rejected",
    }[kind]


def test_the_page_of_codes_tells_of_every_code_what_the_library_knows() -> None:
    failures = sorted(set(ResponseCode) - {ResponseCode.SUCCESS})
    assert table("codes.md", "code") == [
        [str(int(code)), f"**{code.meaning}**: {code.advice}", f"`{code.error_class.__name__}`", what_follows(code)]
        for code in failures
    ]


def what_follows_from_meta(code: MetaCode) -> str:
    policy, error = RetryPolicy(), MetaError(code=9099, meta_code=code.value)
    if not policy.retries(error):
        return "rejected"
    if pause := policy.backoff(error, 1, 0.0):
        return f"tried again after {pause:g} seconds at least; a bulk run delays this recipient alone"
    kind = FailureKind.of(error, expired=False, policy=policy, reject_on=())
    return "tried again; a bulk run slows down" if kind is FailureKind.THROTTLED else "tried again"


def test_the_page_of_codes_tells_of_every_code_of_metas_what_the_library_knows() -> None:
    rows = [[str(int(code)), code.meaning, what_follows_from_meta(code)] for code in MetaCode]
    assert table("codes.md", "Meta's code") == rows


def test_every_language_is_on_its_page() -> None:
    cells = [cell for row in table("languages.md", "code") for cell in row]
    pairs = {(code.strip("`"), label) for code, label in zip(cells[::2], cells[1::2], strict=True) if code}
    assert pairs == {(str(language), language.label) for language in Language}


def default(setting: Setting) -> str:
    """Return the default of a setting as its table tells it."""
    value = getattr(attrs.fields(Settings), setting.name).default
    if setting.is_required:
        return "required"
    if isinstance(value, RetryPolicy | Clock):
        return f"`{type(value).__name__}()`"
    return "none" if value is None else f"`{value}`" if isinstance(value, str) else f"{value:g}"


def test_the_table_of_settings_tells_what_is_declared() -> None:
    rows = [
        [f"`{name}`", f"`{setting.variable}`" if setting.variable else "", default(setting)]
        for name, setting in SETTINGS.items()
    ]
    hooks = [[f"`{name}`", "", "none"] for name in ("tracker", "on_attempt", "on_result")]
    assert [row[:3] for row in table("settings.md", "argument")] == rows + hooks


def test_every_reason_of_a_refusal_is_told() -> None:
    told = [reason for row in table("phone-numbers.md", "reason") for reason in re.findall(r"`(\w+)`", row[0])]
    assert sorted(told) == sorted(InvalidReason)


def test_the_table_of_extras_tells_what_each_installs() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    rows = {row[0].strip("`"): row[2].split(", ") for row in table("install.md", "extra")}
    assert rows == {extra: [Requirement(line).name for line in lines] for extra, lines in extras.items()}
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    *others, last = [f"`{extra}`" for extra in rows]
    named = re.sub(r" \([^)]*\)", "", readme)
    assert f"The extras are {', '.join(others)} and {last}" in named


def test_every_reason_of_a_refused_verification_and_everything_a_check_finds_is_told() -> None:
    told = [
        reason for row in table("verification.md", "refused because of") for reason in re.findall(r"`(\w+)`", row[0])
    ]
    assert sorted({*told} - {"resend"}) == sorted(RefusalReason)
    assert [row[0] for row in table("verification.md", "`check.status`")] == [f"`{status}`" for status in CheckStatus]


def test_every_reason_of_a_refused_verification_is_on_the_page_of_the_endpoints() -> None:
    page = (DOCS / "endpoints.md").read_text(encoding="utf-8")
    told = {reason for row in table("endpoints.md", "status") for reason in re.findall(r"`(\w+)`", row[1])}
    hidden = re.search(r"Which limit it is \(([^)]+)\)", page)
    assert hidden is not None
    told |= set(re.findall(r"`(\w+)`", hidden[1]))
    own = {"field", "limit", "unavailable", "not_json", "too_large"}
    assert told == own | set(RefusalReason) | set(CheckStatus) - {CheckStatus.APPROVED}


def test_the_limits_on_the_page_are_the_defaults() -> None:
    page = (DOCS / "verification.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^limits = Limits\((.*?)^\)$", page, re.MULTILINE | re.DOTALL)
    told = {
        name: ast.literal_eval(value)
        for name, value in re.findall(r"^    (\w+)=(.+?),(?: +#.*)?$", shown, re.MULTILINE)
    }
    assert told == attrs.asdict(Limits(), recurse=False)


def test_the_page_of_settings_names_those_of_views() -> None:
    *others, last = [f"`{name}`" for name, setting in SETTINGS.items() if setting.in_views]
    page = " ".join((DOCS / "settings.md").read_text(encoding="utf-8").split())
    assert f"in which {', '.join(others)} and {last} differ" in page


# ---------------------------------------------------------------------------------------------- the site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as `make docs` builds it."""
    pytest.importorskip("sphinx", reason="the group docs is not installed")
    built = tmp_path_factory.mktemp("site")
    # Sphinx itself is not measured.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--fresh-env", "--jobs=auto", DOCS, built],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return built


@pytest.mark.parametrize("module", PUBLIC, ids=lambda name: f"nxotp_async{name}")
def test_every_public_name_is_in_the_reference(site: Path, module: str) -> None:
    from sphinx.util.inventory import InventoryFile

    inventory: Any = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    documented = {name for kind, names in inventory.data.items() if kind.startswith("py:") for name in names}
    module = f"nxotp_async{module}"
    missing = {f"{module}.{name}" for name in importlib.import_module(module).__all__} - documented
    assert not missing


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for child in command.commands.values():
            yield from commands(child, f"{name} {child.name}")


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    for name, command in commands(nxotp, "nxotp"):
        assert f"<h2>{name}<" in page
        for option in command.params:
            assert all(spelling in page for spelling in option.opts if spelling.startswith("-"))


def test_the_site_asks_the_network_for_nothing(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|link|iframe)\b[^>]*(?:src|href)="(?:https?:)?//', text), page.name
    for style in site.rglob("*.css"):
        assert not re.findall(r"""(?:url\(|@import )["']?(?:https?:)?//""", style.read_text(encoding="utf-8")), style


def test_the_reference_hides_how_errors_are_made(site: Path) -> None:
    page = (site / "reference" / "errors.html").read_text(encoding="utf-8")
    assert ApiError.__name__ in page
    assert "Unpack" not in page
