"""``nxotp sandbox``."""

import asyncio
import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

import click
import orjson

from ..sandbox import MAGIC_RECIPIENTS, CallbackPlan, Fault, Sandbox
from .common import EXIT_CONFIGURATION, fail, run, stderr

__all__ = ["FiniteRange", "sandbox"]

_YEAR: Final = 31_536_000  # seconds


class FiniteRange(click.FloatRange):
    """A number in a range; "nan" is none, nor is infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - as in FloatRange
        """Return the number, as `FloatRange` does."""
        if not math.isfinite(click.FLOAT.convert(value, param, ctx)):
            self.fail(f"{value} is no finite number", param, ctx)
        return float(super().convert(value, param, ctx))


def _parse_fault(_: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[Fault]:
    try:
        return [_fault(value) for value in values]
    except (ValueError, KeyError):
        raise click.BadParameter(
            "expected a code of the vendor's (-1), meta:CODE, http:STATUS, or one of " + ", ".join(sorted(_FAULTS)),
            param=option,
        ) from None


_FAULTS: Final[dict[str, Callable[[], Fault]]] = {
    "disconnect-before-reading": Fault.disconnect_before_reading,
    "disconnect-after-reading": Fault.disconnect_after_reading,
    "truncated": Fault.truncated,
    "wrong-types": Fault.wrong_types,
    "without-id": Fault.without_id,
    "drip": Fault.drip,
    "huge": Fault.huge,
    "hang": Fault.hang,
}


def _fault(text: str) -> Fault:
    kind, _, number = text.partition(":")
    match kind:
        case "meta":
            return Fault.meta(int(number))
        case "http":
            return Fault.http(int(number))
    return _FAULTS[text]() if text in _FAULTS else Fault.answer(int(text))


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=8099, show_default=True, help="0 takes a free one.")
@click.option(
    "--fault-rate", type=FiniteRange(0, 1), default=0.0, show_default=True, help="Share of requests that go wrong."
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    callback=_parse_fault,
    help="What goes wrong, repeatable: -1, 9001, meta:131056, http:503, disconnect-after-reading, truncated, hang... "
    "Default: -1 and 9001.",
)
@click.option("--seed", type=int, help="Makes the faults repeatable.")
@click.option("--latency", type=FiniteRange(0, 60), default=0.0, show_default=True, help="Seconds per answer.")
@click.option(
    "--clock-offset",
    type=FiniteRange(-_YEAR, _YEAR),
    default=0.0,
    show_default=True,
    help="Seconds its clock is ahead.",
)
@click.option("--made-up-ids", is_flag=True, help="Answer with made-up message ids, not with the cus_message_id.")
@click.option("--callbacks", is_flag=True, help="Push status callbacks to a message's dr_webhook, on loopback only.")
@click.option("--webhook", help="Push them here where a message has none; implies --callbacks.")
@click.option("--callback-delay", type=FiniteRange(0, 60), default=0.5, show_default=True, help="Seconds before.")
@click.option(
    "--failed-rate", type=FiniteRange(0, 1), default=0.0, show_default=True, help="Share of deliveries that fail."
)
@click.option("--unsigned-callbacks", is_flag=True, help="Push them without a signature.")
@click.option("--json", "as_json", is_flag=True, help="Print the address as JSON, and nothing else.")
@click.option("--until-eof", is_flag=True, help="Stop when standard input ends.")
def sandbox(
    faults: list[Fault],
    made_up_ids: bool,
    callbacks: bool,
    webhook: str | None,
    callback_delay: float,
    failed_rate: float,
    unsigned_callbacks: bool,
    as_json: bool,
    until_eof: bool,
    **options: Any,  # noqa: ANN401 - options of several types, each checked by click
) -> None:
    """Run an emulator of the OTP API: no account, no network.

    Some numbers always have the same outcome: 9990 and eight digits answer with that code of the vendor's
    (999000009001 with 9001; 999000000001 with -1), 9991 with a code of Meta's, 9992 with an HTTP status, and
    999300000001 to 999300000009 lose, spoil or delay the answer.
    """
    if faults:
        options["faults"] = faults
    if callbacks or webhook is not None:
        options["callbacks"] = CallbackPlan(
            webhook=webhook, delay=callback_delay, failed=failed_rate, signed=not unsigned_callbacks
        )
    server = Sandbox(**options, echo_message_id=not made_up_ids)
    try:
        run(_serve(server, as_json=as_json, until_eof=until_eof))
    except OSError as error:
        fail(f"cannot listen on {options['host']}:{options['port']}: {error.strerror}", EXIT_CONFIGURATION)


async def _serve(server: Sandbox, *, as_json: bool, until_eof: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows has no signal handlers in the loop
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
    async with server:
        if as_json:
            click.echo(orjson.dumps({"url": server.url}))
        else:
            click.echo(f"listening on {server.url}")
            stderr.print(_environment(server), markup=False, soft_wrap=True)
        if until_eof:
            try:
                loop.add_reader(sys.stdin, _read_on, stop)
            except PermissionError:  # a file or /dev/null: it cannot be waited for, and its end is here already
                stop.set()
        await stop.wait()
    if not as_json:
        stderr.print(f"stopped; requests: {server.counts['requests']}, accepted: {server.counts['messages']}")


def _read_on(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        stop.set()


def _environment(server: Sandbox) -> str:
    keys = server.credentials
    return (
        "use it with\n"
        f"  export NXOTP_BASE_URL={server.url}\n"
        f"  export NXOTP_ACCESS_KEY={keys.access_key}\n"
        f"  export NXOTP_ACCESS_SECRET={keys.access_secret}\n"
        f"  export NXOTP_APPKEY={keys.appkey}\n"
        f"{len(MAGIC_RECIPIENTS)} magic numbers: see --help. Ctrl-C stops it."
    )
