"""Types of options and arguments, and options that several commands have."""

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import click

from ..bulk import FileFormat
from ..errors import NxOtpError
from ..phone_numbers import parse_number, parse_region
from ..recipients import read_recipients
from ..settings import DEFAULT_BASE_URL
from ..urls import parse_url

__all__ = [
    "ADDRESS",
    "CONCURRENCY",
    "COUNT",
    "EXISTING_FILE",
    "FILE",
    "FILE_FORMAT",
    "HTTP_URL",
    "INTERVAL",
    "PHONE_NUMBER",
    "RATE",
    "SHARE",
    "FiniteRange",
    "ParsedText",
    "Seconds",
    "base_url_option",
    "json_option",
    "ledger_argument",
    "listening_options",
    "options",
    "recipients_option",
    "seed_option",
    "time_limit_options",
]

_T = TypeVar("_T")
_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class FiniteRange(click.FloatRange):
    """A number in a range, neither infinite nor "nan"."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - as in FloatRange
        """Return the number, as `FloatRange` does."""
        if not math.isfinite(click.FLOAT.convert(value, param, ctx)):
            self.fail(f"{value} is not a finite number", param, ctx)
        return float(super().convert(value, param, ctx))


class Seconds(FiniteRange):
    """A duration. Help texts show the name as what is expected."""

    name = "seconds"


class ParsedText(click.ParamType[_T], Generic[_T]):
    """What a function makes of a text. The function's error tells what is wrong with it."""

    def __init__(self, name: str, parse: Callable[[str], _T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> _T:  # noqa: ANN401 - as in ParamType
        """Return what the function does."""
        try:
            return self._parse(value)
        except (ValueError, NxOtpError) as error:
            self.fail(str(error), param, ctx)


def _file(text: str) -> Path:
    if not text:
        raise ValueError("the name is empty")
    return Path(text)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65_535
    if not is_port or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise ValueError("expected a port, or a host and a port: 8090 or 0.0.0.0:8090")
    return host.strip("[]") or "127.0.0.1", int(port)


def _interval(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6}(?:\.\d{1,6})?|\.\d{1,6})?([smh])", text.replace(" ", ""))
    count, span = (int(match[1]), float(match[2] or 1)) if match else (0, 0.0)
    if match is None or not count or not span:
        raise ValueError("expected messages per time: 1/6s, 10/m or 1/h")
    return span * {"s": 1.0, "m": 60.0, "h": 3600.0}[match[3]] / count


ADDRESS: Final = ParsedText("[HOST:]PORT", _address)
CONCURRENCY: Final = click.IntRange(1, 10_000)
COUNT: Final = click.IntRange(1, 1_000_000_000)
EXISTING_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
FILE: Final = ParsedText("file", _file)
FILE_FORMAT: Final = click.Choice(FileFormat, case_sensitive=False)
HTTP_URL: Final = ParsedText("url", parse_url)
INTERVAL: Final = ParsedText("N/TIME", _interval)
"""Messages per time, such as 1/6s, as the seconds between two of them."""
PHONE_NUMBER: Final = ParsedText("number", parse_number)
REGION: Final = ParsedText("country", parse_region)
RATE: Final = FiniteRange(0.001, 1_000_000)
SHARE: Final = FiniteRange(0, 1)


def options(*decorators: _Decorator) -> _Decorator:
    """Return the decorator that adds these options to a command, in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return add


ledger_argument = click.argument("ledger", type=click.Path(path_type=Path))
json_option = partial(click.option, "--json", "as_json", is_flag=True)
base_url_option = click.option("--base-url", help=f"The API's base URL. Default: NXOTP_BASE_URL or {DEFAULT_BASE_URL}.")
time_limit_options = options(
    click.option("--timeout", type=Seconds(0, min_open=True), help="For one request. Default: NXOTP_TIMEOUT or 10."),
    click.option(
        "--deadline",
        type=Seconds(0, min_open=True),
        help="For a message, with all its attempts and pauses. Default: NXOTP_DEADLINE or 30.",
    ),
)
default_region_option = click.option(
    "--default-region",
    type=REGION,
    envvar="NXOTP_DEFAULT_REGION",
    help="Whose national numbers to expect where there is no +: US, for example. Default: NXOTP_DEFAULT_REGION.",
)
seed_option = partial(
    click.option, "--seed", type=int, help="Makes the faults repeatable: a number for the random generator."
)
recipients_option = click.option(
    "--recipients",
    type=ParsedText("file", lambda text: read_recipients(Path(text))),
    help="A CSV file with the columns to, content, language_code and category. Default: made-up recipients.",
)


def listening_options(*, port: int) -> _Decorator:
    """Return the options for the address that a server listens on, with this port by default."""
    return options(
        click.option("--host", default="127.0.0.1", help="Address to listen on."),
        click.option(
            "--port", type=click.IntRange(0, 65_535), default=port, help="Port to listen on; 0 takes a free one."
        ),
    )
