"""``nxotp bulk``: its help, ledgers, and what no subcommand shows."""

import os
import re
from pathlib import Path

import click
import pytest
from bulk_commands import COMMANDS, GOOD, LOST, PAGE, REJECTED, STEERING, bulk, counts_of, mode_of, otps, write
from commands import CONTENT, OTP, SECRET, Env, assert_clean, posix

from nxotp_async.cli.bulk import command as group
from nxotp_async.sandbox import Sandbox

pytest_plugins = ["command_fixtures"]
pytestmark = pytest.mark.usefixtures("own_directory")


# ---------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda command: " ".join(command) or "-")
def test_help_is_to_be_had_everywhere(command: tuple[str, ...]) -> None:
    result = bulk(*command, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: {' '.join(('nxotp', 'bulk', *command))} ")


def test_every_command_and_option_explains_itself() -> None:
    assert sorted(group.commands) == sorted(COMMANDS)
    for command in group.commands.values():
        assert command.help
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, (command.name, parameter.name)


@pytest.mark.parametrize("example", ["run otps.csv", *(f"{name} otps.csv.ledger" for name in COMMANDS[1:])])
def test_the_first_help_has_an_example_of_each_command(example: str) -> None:
    assert re.search(rf"^ *nxotp bulk {example} ", bulk("--help").stdout, re.MULTILINE)


@pytest.mark.parametrize("form", ["", "delivered ID...", "failed ID...", "resend ID...", "--callbacks FILE"])
def test_the_help_of_resolve_has_each_of_its_forms(form: str) -> None:
    assert re.search(
        rf"^ *nxotp bulk resolve run.db +{re.escape(form)}", bulk("resolve", "--help").stdout, re.MULTILINE
    )


def test_the_help_names_the_exit_codes_of_the_page() -> None:
    table = re.findall(r"^\| (\d+) \| (.+?) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [code for code, _ in table] == ["0", "1", "2", "3", "6", "130"]
    text = " ".join(bulk("--help").stdout.split())
    for code, words in {
        "0": "all accepted",
        "1": "some rejected or not sent",
        "2": "wrong usage, message or file",
        "3": "configuration",
        "6": "some unknown",
        "130": "interrupted",
    }.items():
        assert f"{code} {words}" in text


@pytest.mark.usefixtures("own_directory")
def test_the_options_of_the_page_are_taken_as_they_stand_there() -> None:
    Path("senders.toml").touch()
    written = re.findall(r"^\| `(--[^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(written) == 12
    for command, subject in (("run", "otps.csv"), ("resume", "otps.csv.ledger")):
        arguments = [subject, *(part for option in written for part in option.split())]
        params = group.commands[command].make_context(command, arguments).params
        assert params["per_recipient"] == 6.0
        assert params["reject_on"] == (9004,)
        assert (params["rate"], params["concurrency"], params["max_per_recipient"]) == (80.0, 64, 3)
        assert params["shared_rate"] == "NAME"
        assert (params["max_attempts"], params["as_json"]) == (5, True)
        assert (params["listen"], params["dr_webhook"]) == (("127.0.0.1", 8090), "URL")


# ---------------------------------------------------------------------------------------------- ledgers


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_a_ledger_there_is_not_is_not_made(account: Env, command: str) -> None:
    options = ("--no-rate",) if command == "set" else ()
    result = bulk(command, "no-such.ledger", *options, env=account)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "nxotp: there is no ledger no-such.ledger (nxotp bulk run makes one)\n"
    assert not list(Path().iterdir())


@pytest.mark.parametrize("command", sorted({*COMMANDS} - {*STEERING}))
def test_a_file_that_is_no_ledger_is_left_as_it_is(live: Sandbox, account: Env, command: str) -> None:
    file = otps(GOOD[0])
    before = Path(file).read_bytes()
    result = bulk("run", file, "--ledger", file, env=account) if command == "run" else bulk(command, file, env=account)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "nxotp: otps.csv is no ledger, or is damaged\n"
    assert Path(file).read_bytes() == before
    assert not live.requests


@pytest.mark.parametrize(
    ("ledger", "said"), [("no-such/run.db", "the directory no-such does not exist"), ("folder", "folder")]
)
def test_a_ledger_that_cannot_be_made_stops_everything(live: Sandbox, account: Env, ledger: str, said: str) -> None:
    Path("folder").mkdir()
    result = bulk("run", otps(GOOD[0]), "--ledger", ledger, env=account)
    assert (result.exit_code, result.stdout) == (3, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not live.requests


@posix
def test_a_ledger_is_nobody_elses_to_read(account: Env) -> None:
    before = os.umask(0)
    try:
        bulk("run", otps(GOOD[0]), env=account)
    finally:
        os.umask(before)
    assert {path.name: mode_of(path.name) for path in Path().glob("*.ledger*")} == {"otps.csv.ledger": 0o600}


# ---------------------------------------------------------------------------------------------- canaries


def test_no_command_shows_a_code_a_secret_or_a_number(account: Env) -> None:
    rows = [
        f"+999 555 0100,{CONTENT}",
        f"{REJECTED},{CONTENT}",
        f"{LOST},{CONTENT}",
        f"0999 555 0101,{CONTENT}",
        f"999 555 0102 0103 0104,{CONTENT}",
        f"{GOOD[0]},{OTP} {OTP}",
        f"{GOOD[0]},{OTP}0000",
        f"{GOOD[0]},{CONTENT},{OTP}",
    ]
    file = write(*rows)
    results = [bulk("run", file, "--dry-run", *form) for form in ((), ("--json",))]
    results.append(bulk("run", file, env=account))
    ledger = "otps.csv.ledger"
    results += [bulk(*command) for command in (("status", ledger), ("status", ledger, "--json"), ("resolve", ledger))]
    results.append(bulk("resume", ledger, "--json", env=account))
    results.append(bulk("resolve", ledger, "delivered", "--all"))
    results.append(bulk("export", ledger, "-o", "results.csv"))
    assert [result.exit_code for result in results] == [1, 1, 6, 0, 0, 0, 6, 0, 0]
    for result in results:  # those of an export, too
        assert_clean(result.output)
    assert_clean(Path("results.csv").read_text(), numbers_may_show=True)


def test_a_finished_ledger_holds_no_code_and_no_secret(account: Env) -> None:
    file = otps(*GOOD[:50], REJECTED, "0999 555 0101", GOOD[0])
    assert bulk("run", file, "--max-per-recipient", "1", env=account).exit_code == 1
    assert sorted(counts_of()) == ["accepted", "not_sent", "rejected"]
    files = list(Path().glob("otps.csv.ledger*"))
    assert [path.name for path in files] == ["otps.csv.ledger"]
    content = files[0].read_bytes()
    assert GOOD[0].encode() in content  # what is looked for could be found
    assert OTP.encode() not in content
    assert SECRET.encode() not in content


def test_a_row_with_a_cell_too_many_leaves_no_code_behind(account: Env) -> None:
    file = write(f"{GOOD[0]},{CONTENT},A-1", f"{GOOD[1]},Mr,{OTP},A-2", header="to,content,order")
    assert bulk("run", file, env=account).exit_code == 1
    assert OTP.encode() not in Path("otps.csv.ledger").read_bytes()
    assert OTP not in bulk("export", "otps.csv.ledger").stdout


def test_a_secret_that_is_refused_is_not_repeated(account: Env) -> None:
    result = bulk("run", otps(GOOD[0]), env={**account, "NXOTP_ACCESS_SECRET": f"{SECRET}\n"})
    assert (result.exit_code, result.stdout) == (3, "")
    assert "NXOTP_ACCESS_SECRET" in result.stderr
