"""``tests/pythons.py``, which runs the tests on several Pythons: what it finds, and what it says of them."""

import sys
import tomllib
from pathlib import Path

import pytest
import pythons

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="programs are shell scripts")

# No Python has these versions, so that no interpreter of the machine's is found.
ANSWERING = "#!/bin/sh\necho 3.98\n"
REFUSING = "#!/bin/sh\necho 'pyenv: python3.98: command not found' >&2\nexit 127\n"


@pytest.fixture(autouse=True)
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH, where there is no pyenv."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return directory


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def test_one_on_path_is_found(on_path: Path) -> None:
    assert pythons.find("3.98") is None
    python = program(on_path / "python3.98", ANSWERING)
    assert pythons.find("3.98") == python


@pytest.mark.parametrize("is_installed", [True, False])
def test_where_pyenv_refuses_its_own_one_is_found_in_its_folder(
    on_path: Path, tmp_path: Path, is_installed: bool
) -> None:
    program(on_path / "python3.98", REFUSING)
    root = tmp_path / "home" / ".pyenv"
    if is_installed:
        root = tmp_path / "elsewhere"
        program(on_path / "pyenv", f"#!/bin/sh\n[ \"$1\" = root ] && echo '{root}'\n")
    python = program(root / "versions" / "3.98.1" / "bin" / "python", ANSWERING)
    assert pythons.find("3.98") == python


@pytest.mark.parametrize(
    "text", [REFUSING, "#!/bin/sh\necho 3.97\n", "no program\n"], ids=["refuses", "another version", "no program"]
)
def test_what_does_not_run_as_that_version_is_not_found(on_path: Path, text: str) -> None:
    program(on_path / "python3.98", text)
    assert pythons.find("3.98") is None


def test_the_declared_ones_begin_with_the_one_that_is_required() -> None:
    project = tomllib.loads((pythons.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = pythons.declared()
    assert project["requires-python"] == f">={declared[0]}"
    assert declared == [f"3.{minor}" for minor in range(11, 11 + len(declared))]


def said_by_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[object, list[str]]:
    """Return the exit code, and what was printed where 3.98 passes and 3.99 fails."""
    monkeypatch.setattr(sys, "argv", ["pythons.py", *arguments])
    monkeypatch.setattr(pythons, "declared", lambda: ["3.97", "3.98", "3.99"])
    monkeypatch.setattr(
        pythons,
        "run",
        lambda version, python, tests: (version == "3.98", f"{' '.join(tests)} by {python.name}"),
    )
    with pytest.raises(SystemExit) as exit_:
        pythons.main()
    return exit_.value.code, capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("only", "is_good", "versions"),
    [
        ("", False, ["3.97", "3.98", "3.99"]),
        ("3.98", True, ["3.98"]),
        ("newest", False, ["3.99"]),
        ("3.97", False, ["3.97"]),
        ("3.97 3.98", False, ["3.97", "3.98"]),
    ],
)
def test_the_result_of_each_is_told(
    on_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    only: str,
    is_good: bool,
    versions: list[str],
) -> None:
    for version in ("3.98", "3.99"):
        program(on_path / f"python{version}", f"#!/bin/sh\necho {version}\n")
    code, lines = said_by_main(monkeypatch, capsys, "--only", only, "-n", "2", "tests/test_retry.py")
    assert bool(code) is not is_good
    tests = "-n 2 tests/test_retry.py"
    assert lines == [
        f"Python {version}: " + ("not found" if version == "3.97" else f"{tests} by python{version}")
        for version in versions
    ]


def test_one_that_is_not_there_is_no_failure_unless_it_was_asked_for(
    on_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(on_path / "python3.98", ANSWERING)
    assert said_by_main(monkeypatch, capsys) == (
        False,
        ["Python 3.97: not found", "Python 3.98:  by python3.98", "Python 3.99: not found"],
    )
    (on_path / "python3.98").unlink()
    code, lines = said_by_main(monkeypatch, capsys)
    assert code
    assert lines == [f"Python {version}: not found" for version in ("3.97", "3.98", "3.99")]
