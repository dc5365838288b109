"""``nxotp sandbox``."""

import asyncio
import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import click
import orjson

from ..sandbox import MAGIC_RECIPIENTS, CallbackPlan, Fault, FaultKind, Sandbox
from .common import EXIT_CONFIGURATION, fail, run, stderr

__all__ = ["FiniteRange", "sandbox"]

_YEAR: Final = 31_536_000  # seconds


class FiniteRange(click.FloatRange):
    """A number in a range, neither infinite nor "nan"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - as in FloatRange
        """Return the number, as `FloatRange` does."""
        if not math.isfinite(click.FLOAT.convert(value, param, ctx)):
            self.fail(f"{value} is not a finite number", param, ctx)
        return float(super().convert(value, param, ctx))


def _parse_fault(_: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[Fault]:
    try:
        return [_fault(value) for value in values]
    except ValueError:
        raise click.BadParameter(
            "expected one of the vendor's codes (-1), meta:CODE, http:STATUS, or one of " + ", ".join(sorted(_WITHOUT)),
            param=option,
        ) from None


_WITH_NUMBER: Final[Mapping[str, Callable[[int], Fault]]] = {"meta": Fault.meta, "http": Fault.http}
_WITHOUT: Final = {kind.replace("_", "-"): kind for kind in FaultKind if kind not in ("none", "code", *_WITH_NUMBER)}


def _fault(text: str) -> Fault:
    kind, _, number = text.partition(":")
    if kind in _WITH_NUMBER:
        return _WITH_NUMBER[kind](int(number))
    if text in _WITHOUT:
        fault: Fault = getattr(Fault, _WITHOUT[text])()
        return fault
    return Fault.answer(int(text))


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8099,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--fault-rate", type=FiniteRange(0, 1), default=0.0, show_default=True, help="Share of requests with a fault."
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    callback=_parse_fault,
    help="A fault to draw from, may be repeated: -1, 9001, meta:131056, http:503, disconnect-after-reading, "
    "truncated, hang... Default: -1 and 9001.",
)
@click.option("--seed", type=int, help="Makes the faults repeatable: a number for the random generator.")
@click.option(
    "--latency", type=FiniteRange(0, 60), default=0.0, show_default=True, help="Seconds every answer takes at least."
)
@click.option(
    "--clock-offset",
    type=FiniteRange(-_YEAR, _YEAR),
    default=0.0,
    show_default=True,
    help="Seconds the sandbox's clock is ahead.",
)
@click.option("--made-up-ids", is_flag=True, help="Answer with made-up message ids, not with the cus_message_id.")
@click.option("--callbacks", is_flag=True, help="Push status callbacks to a message's dr_webhook, on loopback only.")
@click.option("--webhook", help="Push the callbacks of messages without a dr_webhook to this URL; implies --callbacks.")
@click.option(
    "--callback-delay", type=FiniteRange(0, 60), default=0.5, show_default=True, help="Seconds before each callback."
)
@click.option(
    "--failed-rate", type=FiniteRange(0, 1), default=0.0, show_default=True, help="Share of deliveries that fail."
)
@click.option("--unsigned-callbacks", is_flag=True, help="Push callbacks without a signature.")
@click.option("--json", "as_json", is_flag=True, help="Print only the URL, as JSON.")
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

    Some numbers always have the same outcome: 9990 and eight digits are answered with that code of the vendor's
    (999000009001 with 9001; 999000000001 with -1), 9991 with one of Meta's codes, 9992 with an HTTP status, and with
    999300000001 to 999300000009 the answer is lost, malformed or late.
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
            except PermissionError:  # a file or /dev/null, which cannot be waited for: it has ended already
                stop.set()
        await stop.wait()
    if not as_json:
        stderr.print(f"stopped; requests: {server.counts['requests']}, accepted: {server.counts['messages']}")


def _read_on(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        stop.set()


def _environment(server: Sandbox) -> str:
    exports = "\n".join(f"  export {name}={value}" for name, value in server.environ.items())
    return f"use it with\n{exports}\n{len(MAGIC_RECIPIENTS)} magic numbers: see --help. Ctrl-C stops it."
