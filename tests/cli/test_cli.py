"""The command as such: help, the version, what is missing, and standard output that cannot be written."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import resolve_name, walk_packages

import click
import pytest
from commands import CONTENT, KEYS, Start, finish, full_device, invoke

from nxotp_async import __main__, __version__, cli
from nxotp_async.cli import nxotp
from nxotp_async.errors import (
    AccountError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    InputFileError,
    InvalidMessageError,
    LedgerError,
    NotSentError,
    NxOtpError,
    OutcomeUnknownError,
)
from nxotp_async.sandbox import MAGIC_RECIPIENTS

pytest_plugins = ["command_fixtures"]


COMMANDS = ("account", "bench", "bulk", "demo", "doctor", "fleet", "listen", "sandbox", "send", "sign", "store")


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda command: " ".join(command) or "-")
def test_help_is_to_be_had_everywhere(command: tuple[str, ...], flag: str) -> None:
    result = invoke(*command, flag)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: {' '.join(('nxotp', *command))} ")
    assert result.stderr == ""


def test_the_first_help_tells_what_one_needs_to_begin() -> None:
    text = " ".join(invoke("--help").stdout.split())
    for name in (*KEYS, "NXOTP_BASE_URL", *(f"nxotp {name}" for name in ("demo", "send", "sign")), *COMMANDS):
        assert name in text
    for meaning in ("0 accepted", "1 rejected", "2 wrong usage", "3 configuration", "6 unknown", "130 interrupted"):
        assert meaning in text


def test_every_option_explains_itself() -> None:
    assert sorted(nxotp.commands) == sorted(COMMANDS)
    groups = [command for command in nxotp.commands.values() if isinstance(command, click.Group)]
    for command in (*nxotp.commands.values(), *(each for group in groups for each in group.commands.values())):
        assert command.help
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, (command.name, parameter.name)


@pytest.mark.parametrize(
    ("command", "example"),
    [
        ((), r"Try it without an account: +nxotp demo"),
        ((), r'Send one: +nxotp send "\+999 555 0100"'),
        (("send",), r'echo "Your code is 482913" \| nxotp send "\+999 555 0100"'),
    ],
)
def test_an_example_in_the_help_has_a_line_of_its_own(command: tuple[str, ...], example: str) -> None:
    assert re.search(rf"^ *{example}$", invoke(*command, "--help").stdout, re.MULTILINE)


def test_the_magic_numbers_in_the_help_are_magic() -> None:
    numbers = re.findall(r"\b999\d{9}\b", invoke("sandbox", "--help").stdout)
    assert len(numbers) >= 4
    assert set(numbers) <= MAGIC_RECIPIENTS.keys()


def test_the_version_is_the_packages() -> None:
    assert invoke("--version").stdout == f"nxotp, version {__version__}\n"


def every_command(command: click.Command = nxotp, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from every_command(child, *path, name)


@pytest.mark.parametrize("command", [*every_command()], ids=lambda command: " ".join(command) or "-")
def test_no_help_is_wider_than_a_terminal(command: tuple[str, ...]) -> None:
    for columns in ("80", "200"):
        lines = invoke(*command, "--help", env={"COLUMNS": columns}).stdout.splitlines()
        assert [line for line in lines if len(line) > 80] == []


def test_no_module_of_the_command_warns(tmp_path: Path) -> None:
    # With an empty cache, every module is compiled: that is when Python warns of its syntax.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "nxotp_async", "--help"],
        env={**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@full_device
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("bulk", "run", "-h")], ids=" ".join)
def test_help_that_cannot_be_printed_is_told_in_one_line(
    start: Start, arguments: tuple[str, ...], unbuffered: str
) -> None:
    with Path("/dev/full").open("w") as full:
        process = start(*arguments, stdout=full, env={"PYTHONUNBUFFERED": unbuffered})
        code, _, err = finish(process)
    assert (code, err) == (2, "nxotp: cannot write to standard output: No space left on device\n")


def test_an_error_that_is_not_of_standard_output_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(nxotp, "main", fail)
    with pytest.raises(OSError, match="Too many open files"):
        __main__.main()


def test_no_module_is_hidden_by_its_command() -> None:
    modules = ["nxotp_async.cli", *(found.name for found in walk_packages(cli.__path__, "nxotp_async.cli."))]
    assert len(modules) > 25
    for name in modules:
        import_module(name)
        assert resolve_name(name) is sys.modules[name]


def documented(command: click.Command) -> dict[int, str]:
    """The exit codes in the help of a command, with their meanings."""
    text = command.get_help(click.Context(command))
    return {int(code): meaning for code, meaning in re.findall(r"^ +(\d+) +(\S.+)$", text, re.MULTILINE)}


def test_the_exit_codes_are_listed_at_the_end_of_the_help() -> None:
    assert documented(nxotp) == {
        0: "accepted",
        1: "rejected, or not sent",
        2: "wrong usage, message or file",
        3: "configuration, account or ledger",
        6: "unknown: it may have been accepted",
        130: "interrupted",
    }
    assert documented(nxotp.commands["bench"]).keys() == {0, 1, 2, 3, 130}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidMessageError(), 2),
        (InputFileError(), 2),
        (ConfigurationError(), 3),
        (LedgerError(), 3),
        (AccountError(), 3),
        (AuthenticationError(), 3),
        (OutcomeUnknownError(), 6),
        (NotSentError(), 1),
        (ApiError(), 1),
    ],
)
def test_an_error_of_the_library_is_one_line_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: NxOtpError, code: int
) -> None:
    def fail(*_: object, **_options: object) -> None:
        raise type(error)("what is wrong", hint="what to do")

    monkeypatch.setattr(nxotp.commands["demo"], "callback", fail)
    result = invoke("demo")
    assert (result.exit_code, result.output) == (code, "nxotp: what is wrong (what to do)\n")


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("send",), 2, {"type": "UsageError", "field": "to", "message": "Missing argument 'TO'."}),
        (("send", "12"), 2, {"type": "UsageError", "field": "to"}),
        (("send", "999000001002", "--timeout", "soon"), 2, {"type": "UsageError", "field": "--timeout"}),
        (("send", "999000001002", "--language", "tlh"), 2, {"type": "UsageError", "field": "--language"}),
        (("send", "999000001002", "--tiemout", "1"), 2, {"type": "UsageError", "field": "--tiemout"}),
        (("doctor", "--timeout", "0"), 2, {"type": "UsageError", "field": "--timeout"}),
        (("demo", "--count", "x"), 2, {"type": "UsageError", "field": "--count"}),
        (("sandbox", "--host", "203.0.113.1"), 3, {"type": "ConfigurationError", "field": None}),
        (("listen", "--host", "203.0.113.1"), 3, {"type": "ConfigurationError", "field": None}),
        (("sign", "no-such-file"), 2, {"type": "UsageError", "field": "body"}),
        (("bulk", "run", "no-such-file.csv"), 2, {"type": "InputFileError", "field": None}),
        (("bulk", "resume", "no-such-file.db"), 3, {"type": "LedgerError", "field": None}),
        (("bulk", "status", "no-such-file.db"), 3, {"type": "LedgerError", "field": None}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_with_json_an_error_is_a_line_of_json(arguments: tuple[str, ...], code: int, error: dict[str, object]) -> None:
    result = invoke(*arguments, "--json", env=KEYS, stdin=CONTENT)
    (line,) = result.stdout.splitlines()
    shown = json.loads(line)
    assert (result.exit_code, result.stderr, shown.keys()) == (code, "", {"error"})
    assert shown["error"].keys() == {"type", "message", "hint", "field", "code", "cus_message_id"}
    assert {name: shown["error"][name] for name in error} == error


@pytest.mark.parametrize(("to", "is_json"), [("-", True), ("report.json", False)])
def test_a_benchmark_that_prints_json_prints_its_errors_so(to: str, is_json: bool) -> None:
    result = invoke("bench", "--json", to, "--count", "1", "--duration", "1")
    assert (result.exit_code, bool(result.stdout), bool(result.stderr)) == (2, is_json, not is_json)


def test_with_json_missing_keys_are_named_by_their_variables() -> None:
    error = json.loads(invoke("send", "+999 555 0100", "--json", env=dict.fromkeys(KEYS, "")).stdout)["error"]
    assert error["type"] == "ConfigurationError"
    assert all(variable in error["message"] for variable in KEYS)


def test_an_unknown_command_is_wrong_usage() -> None:
    assert invoke("sned").exit_code == 2


def test_wrong_usage_has_its_exit_code_outside_of_tests_too() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "nxotp_async", "demo", "--count", "x"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert finished.returncode == 2
    assert "Invalid value for '--count'" in finished.stderr


def test_the_command_is_installed_under_its_name() -> None:
    (script,) = entry_points(group="console_scripts", name="nxotp")
    assert script.load() is __main__.main


WITHOUT_A_MODULE = """
import runpy, sys

class Missing:
    def find_spec(name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing)
runpy.run_module("nxotp_async", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["click", "rich"])
def test_without_its_extra_the_command_says_what_to_install(module: str) -> None:
    program = [sys.executable, "-c", WITHOUT_A_MODULE, module]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(rf'{module} is not installed: .*pip install "nxotp_async\[cli\]"\n', done.stderr)


def test_another_module_that_is_missing_is_not_explained_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nxotp_async.cli", None)
    with pytest.raises(ModuleNotFoundError, match=r"nxotp_async\.cli"):
        __main__.main()
