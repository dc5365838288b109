"""``nxotp sandbox``."""

import asyncio
import os
import shlex
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from decimal import Decimal
from typing import Any, Final

import attrs
import click
import orjson
from yarl import URL

from ..sandbox import (
    MAGIC_RECIPIENTS,
    SANDBOX_BUSINESS_PHONE,
    CallbackPlan,
    Fault,
    FaultKind,
    Sandbox,
    SandboxAccount,
)
from ..sandbox.account import client_settings, environ_of
from ..urls import host_and_port, listening_url, parse_host
from .event_loop import on_stop_signal, run
from .exit_codes import ExitCode
from .output import print_data, print_note
from .parameters import (
    COUNT,
    HTTP_URL,
    PHONE_NUMBER,
    SHARE,
    FiniteRange,
    ParsedText,
    Seconds,
    json_option,
    listening_options,
    seed_option,
)
from .request_printer import RequestPrinter
from .serving import SHUTDOWN_TIMEOUT, listening_on

__all__ = ["command"]

_PORT: Final = 8099
_MINUTE: Final = Seconds(0, 60)
_YEAR: Final = 31_536_000  # seconds
_GIVEN: Final = click.core.ParameterSource.COMMANDLINE
_OF_CALLBACKS: Final = ("hosts", "delay", "failed", "cost", "new_connections", "unsigned_callbacks")

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
@listening_options(port=_PORT)
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
@click.option("--latency", type=_MINUTE, default=0.0, help="How long every answer takes at least.")
@click.option("--clock-offset", type=Seconds(-_YEAR, _YEAR), default=0.0, help="How far the sandbox's clock is ahead.")
@click.option("--made-up-ids", is_flag=True, help="Answer with made-up message ids, not with the cus_message_id.")
@click.option(
    "--sender-limit", type=COUNT, help="Messages a second from one number, as WhatsApp's 80. Default: no limit."
)
@click.option(
    "--recipient-interval",
    type=Seconds(0, min_open=True),
    help="Time between two messages to one number, as WhatsApp's 6. Default: no limit.",
)
@click.option(
    "--business-phone",
    "business_phones",
    type=PHONE_NUMBER,
    multiple=True,
    default=(SANDBOX_BUSINESS_PHONE,),
    help="A number that is bound to the application; may be repeated.",
)
@click.option(
    "--balance", type=FiniteRange(-1e9, 1e9), default=1000.0, help="Of the account; messages cost nothing of it."
)
@click.option("--callbacks", is_flag=True, help="Push status callbacks to a message's dr_webhook, on loopback only.")
@click.option(
    "--webhook",
    type=HTTP_URL,
    help="Push the callbacks of messages without a dr_webhook to this URL; implies --callbacks.",
)
@click.option(
    "--callback-host",
    "hosts",
    type=ParsedText("host", parse_host),
    multiple=True,
    help="A host beside loopback that callbacks may go to, another container for example; may be repeated.",
)
@click.option(
    "--callback-delay", "delay", type=_MINUTE, default=CallbackPlan().delay, help="How long before each callback."
)
@click.option(
    "--new-connections",
    is_flag=True,
    help="Push each callback over a connection of its own, so that every worker behind a port gets some.",
)
@click.option(
    "--callback-cost",
    "cost",
    type=click.Choice(["cost", "costs"]),
    help="Say in delivered what the message costs: in an object cost, or in an array costs.",
)
@click.option("--failed-rate", "failed", type=SHARE, default=0.0, help="Share of deliveries that fail.")
@click.option("--unsigned-callbacks", is_flag=True, help="Push callbacks without a signature.")
@click.option(
    "--token",
    envvar="NXOTP_SANDBOX_TOKEN",
    help="What the page and its API ask for. Default: nothing on loopback, and a token at random elsewhere.",
)
@click.option(
    "--code-life",
    type=Seconds(0, min_open=True),
    default=300.0,
    help="How long the page shows a code as valid for.",
)
@click.option("--quiet", is_flag=True, help="Do not print the requests.")
@click.option("--env", is_flag=True, help="Print the variables for a client of it, and exit; nothing is started.")
@json_option(help="Print only the URL, as JSON.")
@click.option("--until-eof", is_flag=True, help="Stop when standard input ends.")
def command(
    faults: tuple[Fault, ...],
    made_up_ids: bool,
    callbacks: bool,
    quiet: bool,
    env: bool,
    as_json: bool,
    until_eof: bool,
    **options: Any,  # noqa: ANN401 - options of several types, each checked by click
) -> None:
    """Run an emulator of the OTP API: no account, no network.

    Its URL, opened in a browser, shows the messages as they come, why requests were refused, and switches for faults.

    It prints a line for each request, with the code: its messages reach nobody. In a second it prints 50 at most, and
    counts the rest. In another terminal, set the variables that a client needs:

    \b
    eval "$(nxotp sandbox --env)"

    Some numbers always have the same outcome: 9990 and eight digits are answered with that code of the vendor
    (999000009001 with 9001; 999000000001 with -1), 9991 with one of Meta's codes, 9992 with an HTTP status, and with
    999300000001 to 999300000009 the answer is lost, malformed or late.
    """  # noqa: D301 - click wants the backspace character itself
    plan = _callback_plan(options, callbacks)
    host, port = options["host"], options["port"]
    if env:
        _print_environ(host, port, options["business_phones"][0], as_json=as_json)
        return
    if faults:
        if not options["fault_rate"]:
            raise click.UsageError("--fault needs a --fault-rate: 1 lets every request have one")
        options["faults"] = faults
    options["account"] = SandboxAccount(balance=Decimal(str(options.pop("balance"))))
    printer = None if quiet or as_json else RequestPrinter(plan)
    server = Sandbox(
        **options, callbacks=plan, echo_message_id=not made_up_ids, on_request=None if printer is None else printer.add
    )
    sys.exit(run(_serve(server, (host, port), printer, as_json=as_json, until_eof=until_eof)))


def _callback_plan(options: dict[str, Any], wanted: bool) -> CallbackPlan | None:
    """Take the options for callbacks out of all options."""
    webhook, new_connections, unsigned = map(options.pop, ("webhook", "new_connections", "unsigned_callbacks"))
    if not wanted and webhook is None:
        context = click.get_current_context()
        for parameter in context.command.params:
            if parameter.name in _OF_CALLBACKS and context.get_parameter_source(parameter.name) is _GIVEN:
                raise click.UsageError(f"{parameter.opts[0]} needs --callbacks or --webhook")
    plan = CallbackPlan(
        **{name: options.pop(name) for name in ("hosts", "delay", "failed", "cost")},
        reuse_connections=not new_connections,
        signed=not unsigned,
    )
    if webhook is None:
        return plan if wanted else None
    if plan.url_for(webhook) is None:
        raise click.UsageError(
            f"--webhook: callbacks go to loopback only, and nothing would be pushed there. If {URL(webhook).host} is a "
            f"host of yours, another container for example, add --callback-host {URL(webhook).host}"
        )
    return attrs.evolve(plan, webhook=webhook)


def _exports(environ: Mapping[str, str], indent: str = "") -> str:
    return "\n".join(f"{indent}export {name}={shlex.quote(value)}" for name, value in environ.items())


def _print_environ(host: str, port: int, business_phone: str, *, as_json: bool) -> None:
    if as_json:
        raise click.UsageError("--env prints commands for a shell, and --json prints JSON: choose one")
    if not port:
        raise click.UsageError("--env needs the --port of the sandbox: a free one is known only to who has started it")
    if not print_data(_exports(environ_of(client_settings(listening_url(host, port), business_phone=business_phone)))):
        sys.exit(ExitCode.USAGE)


async def _serve(
    server: Sandbox, address: tuple[str, int], printer: RequestPrinter | None, *, as_json: bool, until_eof: bool
) -> ExitCode:
    stop = asyncio.Event()
    on_stop_signal(stop.set)
    async with AsyncExitStack() as stack:
        with listening_on(*address):
            await stack.enter_async_context(server)
        if not print_data(orjson.dumps({"url": server.url}) if as_json else f"listening on {server.url}"):
            return ExitCode.USAGE
        if not as_json:
            print_note(_how_to_use(server, address[0]))
        if printer is not None:
            await stack.enter_async_context(_printing(printer))
        if until_eof:
            try:
                asyncio.get_running_loop().add_reader(sys.stdin, _stop_at_eof, stop)
            except PermissionError:  # a file or /dev/null, which cannot be waited for: it has ended already
                stop.set()
        await stop.wait()
    if not as_json:
        print_note(f"stopped; {_counted(server.counts)}")
    return ExitCode.SUCCESS


def _how_to_use(server: Sandbox, host: str) -> str:
    port = URL(server.url).port
    options = "" if URL(server.url).host == "127.0.0.1" else f" --host {shlex.quote(host)}"
    options += "" if port == _PORT else f" --port {port}"
    number = server.environ["NXOTP_BUSINESS_PHONE"]
    options += "" if number == SANDBOX_BUSINESS_PHONE else f" --business-phone {number}"
    page = URL(f"{server.url}/").with_query({"token": server.token} if server.token else None)
    lines = [
        f"see the messages arrive: {page}",
        "use it with",
        _exports(server.environ, "  "),
        f'or, in another terminal, with  eval "$(nxotp sandbox --env{options})"',
        f"{len(MAGIC_RECIPIENTS)} magic numbers: see --help. Ctrl-C stops it.",
    ]
    if listening_url(host, 0) != f"http://{host_and_port(host, 0)}":
        everywhere = "it listens on all addresses of this machine: whoever reaches one can use it"
        elsewhere = f"set NXOTP_BASE_URL=http://NAME:{port} and NXOTP_INSECURE_SANDBOX_HOST=NAME"
        lines.insert(0, f"{everywhere}. From another container or machine, where its name is NAME, {elsewhere}")
    return "\n".join(lines)


def _counted(counts: Counter[str]) -> str:
    text = f"requests: {counts['requests']}, accepted: {counts['messages']}"
    if counts["callbacks pushed"]:
        text += f"; callbacks pushed: {counts['callbacks pushed']}, answered 200: {counts['callbacks taken']}"
    return text


@asynccontextmanager
async def _printing(printer: RequestPrinter) -> AsyncIterator[None]:
    printing = asyncio.create_task(printer.run())
    try:
        yield
    finally:
        printing.cancel()
        await asyncio.gather(printing, return_exceptions=True)
        with suppress(OSError):  # TimeoutError is one, too
            async with asyncio.timeout(SHUTDOWN_TIMEOUT):
                await printer.finish()


def _stop_at_eof(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        stop.set()
