"""Options and arguments: what they take, and what they refuse by name before anything is done."""

import click
import pytest
from commands import KEYS, invoke

from nxotp_async.cli.bulk import command as bulk

pytestmark = pytest.mark.usefixtures("own_directory")
pytest_plugins = ["command_fixtures"]


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("8090", ("127.0.0.1", 8090)),
        (":8090", ("127.0.0.1", 8090)),
        ("0.0.0.0:8090", ("0.0.0.0", 8090)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_an_address_is_a_port_or_a_host_and_a_port(written: str, address: tuple[str, int]) -> None:
    context = bulk.commands["run"].make_context("run", ["file", "--listen", written])
    assert context.params["listen"] == address


NUMBERS = {
    ("demo",): ("--fault-rate",),
    ("sandbox",): ("--fault-rate", "--latency", "--clock-offset", "--callback-delay", "--failed-rate"),
    ("bench",): ("--rate", "--duration", "--warm-up", "--latency", "--fault-rate"),
    ("listen",): ("--window",),
    ("bulk", "run", "otps.csv"): ("--rate", "--listen-for", "--window"),
    ("bulk", "resume", "run.db"): ("--rate", "--listen-for", "--window"),
}


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "many", ""])
@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, options in NUMBERS.items() for option in options]
)
def test_what_is_not_a_finite_number_is_refused(command: tuple[str, ...], option: str, value: str) -> None:
    result = invoke(*command, option, value, env=KEYS)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Error: Invalid value for '{option}': " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("bulk", "run", "otps.csv", "--ledger", ""), "--ledger"),
        (("bulk", "run", "otps.csv", "--rejects", ""), "--rejects"),
        (("bulk", "export", "run.db", "--output", ""), "--output"),
        (("bulk", "resume", "run.db", "--max-per-recipient", "1" * 20), "--max-per-recipient"),
        (("bench", "--count", "1" * 20), "--count"),
        (("sandbox", "--webhook", "127.0.0.1:8090"), "--webhook"),
    ],
)
def test_a_value_that_would_fail_later_is_refused(arguments: tuple[str, ...], option: str) -> None:
    result = invoke(*arguments, env=KEYS)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Error: Invalid value for '{option}'" in result.stderr


def test_no_number_is_read_that_may_be_infinite_or_nan() -> None:
    def options(command: click.Command) -> list[click.Parameter]:
        below = command.commands.values() if isinstance(command, click.Group) else ()
        return [*command.params, *(option for child in below for option in options(child))]

    from nxotp_async.cli import nxotp

    found = [
        option for option in options(nxotp) if isinstance(option.type, click.FloatRange | click.types.FloatParamType)
    ]
    assert len(found) > 10
    assert {type(option.type).__name__ for option in found} == {"FiniteRange", "Seconds"}
