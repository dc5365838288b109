"""``nxotp sandbox``."""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import click
import orjson

from ..sandbox import MAGIC_RECIPIENTS, CallbackPlan, Fault, FaultKind, Sandbox
from .event_loop import on_stop_signal, run
from .exit_codes import ExitCode
from .output import print_data, print_note
from .parameters import HTTP_URL, SHARE, FiniteRange, ParsedText, json_option, listening_options, seed_option
from .serving import listening_on

__all__ = ["command"]

_SECONDS: Final = FiniteRange(0, 60)
_YEAR: Final = 31_536_000  # seconds

_WITH_NUMBER: Final[Mapping[str, Callable[[int], Fault]]] = {"meta": Fault.meta, "http": Fault.http}
_WITHOUT: Final = {kind.replace("_", "-"): kind for kind in FaultKind if kind not in ("none", "code", *_WITH_NUMBER)}


def _fault(text: str) -> Fault:
    kind, _, number = text.partition(":")
    try:
        if kind in _WITH_NUMBER:
            return _WITH_NUMBER[kind](int(number))
        fault: Fault = getattr(Fault, _WITHOUT[text])() if text in _WITHOUT else Fault.answer(int(text))
        return fault
    except ValueError:
        choices = ", ".join(sorted(_WITHOUT))
        raise ValueError(
            f"expected one of the vendor's codes (-1), meta:CODE, http:STATUS, or one of {choices}"
        ) from None


@click.command("sandbox")
@listening_options(port=8099)
@click.option("--fault-rate", type=SHARE, default=0.0, help="Share of requests with a fault.")
@click.option(
    "--fault",
    "faults",
    type=ParsedText("fault", _fault),
    multiple=True,
    help="A fault to draw from, may be repeated: -1, 9001, meta:131056, http:503, disconnect-after-reading, "
    "truncated, hang... Default: -1 and 9001.",
)
@seed_option()
@click.option("--latency", type=_SECONDS, default=0.0, help="Seconds every answer takes at least.")
@click.option(
    "--clock-offset", type=FiniteRange(-_YEAR, _YEAR), default=0.0, help="Seconds the sandbox's clock is ahead."
)
@click.option("--made-up-ids", is_flag=True, help="Answer with made-up message ids, not with the cus_message_id.")
@click.option("--callbacks", is_flag=True, help="Push status callbacks to a message's dr_webhook, on loopback only.")
@click.option(
    "--webhook",
    type=HTTP_URL,
    help="Push the callbacks of messages without a dr_webhook to this URL; implies --callbacks.",
)
@click.option("--callback-delay", type=_SECONDS, default=0.5, help="Seconds before each callback.")
@click.option("--failed-rate", type=SHARE, default=0.0, help="Share of deliveries that fail.")
@click.option("--unsigned-callbacks", is_flag=True, help="Push callbacks without a signature.")
@json_option(help="Print only the URL, as JSON.")
@click.option("--until-eof", is_flag=True, help="Stop when standard input ends.")
def command(
    faults: tuple[Fault, ...],
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
    address = (options["host"], options["port"])
    sys.exit(run(_serve(server, address, as_json=as_json, until_eof=until_eof)))


async def _serve(server: Sandbox, address: tuple[str, int], *, as_json: bool, until_eof: bool) -> ExitCode:
    stop = asyncio.Event()
    on_stop_signal(stop.set)
    async with AsyncExitStack() as stack:
        with listening_on(*address):
            await stack.enter_async_context(server)
        if not print_data(orjson.dumps({"url": server.url}) if as_json else f"listening on {server.url}"):
            return ExitCode.USAGE
        if not as_json:
            exports = "\n".join(f"  export {name}={value}" for name, value in server.environ.items())
            print_note(f"use it with\n{exports}\n{len(MAGIC_RECIPIENTS)} magic numbers: see --help. Ctrl-C stops it.")
        if until_eof:
            try:
                asyncio.get_running_loop().add_reader(sys.stdin, _stop_at_eof, stop)
            except PermissionError:  # a file or /dev/null, which cannot be waited for: it has ended already
                stop.set()
        await stop.wait()
    if not as_json:
        print_note(f"stopped; requests: {server.counts['requests']}, accepted: {server.counts['messages']}")
    return ExitCode.SUCCESS


def _stop_at_eof(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        stop.set()
