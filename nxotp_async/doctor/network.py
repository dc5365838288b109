"""The way to the API: the name, the connection, any answer at all, and the clock that it was given by."""

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import attrs
from yarl import URL

from .._version import __version__
from ..clock_skew import TIMESTAMP_WINDOW, ClockOffset
from ..clocks import Clock
from ..protocol import OTP_PATH
from ..settings import Settings
from ..urls import host_and_port
from .findings import Check, Finding, Status, milliseconds, printable

__all__ = ["examine_network"]


async def examine_network(settings: Settings, timeout: float, context: ssl.SSLContext, clock: Clock) -> list[Finding]:
    """Go the way that a message goes, up to where it ends. Nothing is posted.

    Args:
        settings: Where to.
        timeout: Seconds for each step.
        context: What certificates are verified with.
        clock: The sources of time.
    """
    name = await _look_up(settings, timeout, clock)
    if name.status is not Status.OK:
        return [name]
    connector = _Connector(context, clock)
    limits = aiohttp.ClientTimeout(total=2 * timeout, connect=timeout, sock_read=timeout)
    async with aiohttp.ClientSession(
        connector=connector, timeout=limits, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    ) as session:
        outcome = await _ask(session, settings, clock)
    made = connector.made
    if made is None:
        return [name, _no_connection(outcome, settings, timeout)]
    connection = _connection(made, settings)
    if isinstance(outcome, Exception):
        return [name, connection, _no_answer(outcome, timeout)]
    if outcome.status == 407:
        return [name, connection, Finding(Check.HTTP, Status.FAILED, *_REFUSED_BY_PROXY)]
    return [name, connection, _answer(outcome, made), _compare_clocks(outcome, made)]


# ---------------------------------------------------------------------------------------------- the name


async def _look_up(settings: Settings, timeout: float, clock: Clock) -> Finding:
    """Look up the host that is connected to."""
    host, _ = _peer(settings)
    resolver = aiohttp.DefaultResolver()  # the one that the client's sessions have
    began = clock.monotonic()
    try:
        async with asyncio.timeout(timeout):
            answers = await resolver.resolve(host, family=socket.AF_UNSPEC)
    except TimeoutError:
        found = f"no answer about the name {host} within {timeout:g} s"
        return Finding(Check.DNS, Status.FAILED, found, _remedy(settings))
    except (OSError, UnicodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "no name can be like that"
        return Finding(Check.DNS, Status.FAILED, f"the name {host} was not found: {reason}", _remedy(settings))
    finally:
        await resolver.close()
    addresses = dict.fromkeys(answer["host"] for answer in answers)
    if host in addresses:
        return Finding(Check.DNS, Status.OK, f"{host} is an address: there is nothing to look up")
    found = f"{host} is {', '.join(addresses)}, found in {milliseconds(clock.monotonic() - began)}"
    return Finding(Check.DNS, Status.OK, found)


def _peer(settings: Settings) -> tuple[str, str]:
    """Return the host that is connected to, the proxy or the API itself, and what to call it with its port."""
    url = URL(settings.proxy or settings.url)
    host = url.host or ""
    address = host_and_port(host, url.port or 0)
    return host, f"the proxy {address}" if settings.proxy else address


def _remedy(settings: Settings) -> str:
    """Say what to do where the peer cannot be reached."""
    if settings.proxy:
        return "check NXOTP_PROXY, its port too, and this machine's network and DNS"
    if settings.url.startswith("http:"):
        return "start what should listen there ('nxotp sandbox', for example), or check NXOTP_BASE_URL and its port"
    return "check this machine's network and DNS; where only a proxy leads out, set NXOTP_PROXY; check NXOTP_BASE_URL"


# ---------------------------------------------------------------------------------------------- the connection


@attrs.frozen
class _Connection:
    """What is known of a connection.

    Attributes:
        at: When it was there, in seconds since the epoch.
        took: Seconds.
        tls: TLS's version, or ``None`` without TLS.
        certificate: The server's, as `ssl.SSLObject.getpeercert` returns it.
    """

    at: float
    took: float
    tls: str | None = None
    certificate: Mapping[str, Any] = {}


class _Connector(aiohttp.TCPConnector):
    """Notes the connection as soon as there is one: what breaks after that is not its fault."""

    made: _Connection | None = None

    def __init__(self, context: ssl.SSLContext, clock: Clock) -> None:
        super().__init__(ssl=context)
        self._clock = clock

    async def connect(self, *args: Any, **options: Any) -> aiohttp.connector.Connection:  # noqa: ANN401 - passed on
        began = self._clock.monotonic()
        connection = await super().connect(*args, **options)
        took = self._clock.monotonic() - began
        tls = connection.transport and connection.transport.get_extra_info("ssl_object")
        secured = (tls.version(), tls.getpeercert()) if tls else ()
        self.made = _Connection(self._clock.time(), took, *secured)
        return connection


_EXPIRES_SOON: Final = 14  # days


def _connection(made: _Connection, settings: Settings) -> Finding:
    found = f"{_peer(settings)[1]} in {milliseconds(made.took)}"
    if made.tls is None:
        return Finding(Check.CONNECTION, Status.OK, f"{found}, without TLS, which is for this machine only")
    issuer = dict(pair for part in made.certificate["issuer"] for pair in part)
    days = int((ssl.cert_time_to_seconds(made.certificate["notAfter"]) - made.at) // 86_400)
    name = printable(issuer.get("organizationName") or issuer.get("commonName") or "an authority without a name")
    found = f"{found}, {made.tls}; the certificate is by {name}, and good for {days} days"
    if days < _EXPIRES_SOON:
        advice = "tell who runs the server: nothing can be sent once the certificate has expired"
        return Finding(Check.CONNECTION, Status.WARNING, found, advice)
    return Finding(Check.CONNECTION, Status.OK, found)


_REFUSED_BY_PROXY: Final = (
    "the proxy demands a user name and a password, or refuses the ones it was given (HTTP 407)",
    "put them into NXOTP_PROXY: http://user:password@host:port, with special characters percent-encoded",
)


def _no_connection(error: object, settings: Settings, timeout: float) -> Finding:
    """Say why there is no connection. The errors' own texts are not repeated: they could hold a proxy's password."""
    peer, advice = _peer(settings)[1], _remedy(settings)
    match error:
        case aiohttp.ClientConnectorCertificateError():
            cause = error.certificate_error
            found = f"the certificate was refused: {getattr(cause, 'verify_message', 'it is not for this host')}"
            advice = _CERTIFICATE_ADVICE.get(getattr(cause, "verify_code", 0), _UNKNOWN_AUTHORITY)
        case aiohttp.ClientSSLError():
            found = f"{peer} speaks no TLS that Python understands"
            advice = "check NXOTP_BASE_URL, its port above all; something on the way may interfere with TLS, too"
        case aiohttp.ClientHttpProxyError(status=407):
            found, advice = _REFUSED_BY_PROXY
        case aiohttp.ClientHttpProxyError(status=status):
            found = f"{peer} answered HTTP {status} when it was asked for the way to NXOTP_BASE_URL"
            advice = "check NXOTP_BASE_URL, and whether the proxy may go there"
        case TimeoutError():
            found = f"no connection to {peer} within {timeout:g} s; a firewall may swallow what is sent"
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int(number))):
            found = f"no connection to {peer}: {os.strerror(number)}"
        case _:
            found = f"no connection to {peer}: {type(error).__name__}"
    return Finding(Check.CONNECTION, Status.FAILED, found, advice)


_WRONG_CLOCK: Final = "set this machine's clock, if it is wrong: timedatectl set-ntp true; or tell who runs the server"
_WRONG_HOST: Final = "check NXOTP_BASE_URL; something on the way, such as a captive portal, may answer in its place"
_UNKNOWN_AUTHORITY: Final = (
    "where the network inspects TLS, let SSL_CERT_FILE name a file with its authority's certificate; else install or "
    "update the package ca-certificates"
)
_CERTIFICATE_ADVICE: Final = {  # by OpenSSL's X509_V_ERR_ codes
    9: _WRONG_CLOCK,  # not yet valid
    10: _WRONG_CLOCK,  # expired
    62: _WRONG_HOST,
    64: _WRONG_HOST,  # the same for an address
}


# ---------------------------------------------------------------------------------------------- the answer


@attrs.frozen
class _Answer:
    """The head of an answer.

    Attributes:
        status: The HTTP status.
        headers: The headers.
        at: When it was there, in seconds since the epoch.
    """

    status: int
    headers: Mapping[str, str]
    at: float


async def _ask(session: aiohttp.ClientSession, settings: Settings, clock: Clock) -> _Answer | Exception:
    """GET the root of the base URL, and return the head of any answer, or what went wrong."""
    headers = {"User-Agent": f"nxotp_async/{__version__}", "Cache-Control": "no-cache"}
    root = settings.url.removesuffix(OTP_PATH) + "/"
    try:
        async with session.get(root, headers=headers, allow_redirects=False, proxy=settings.proxy) as response:
            return _Answer(response.status, response.headers, clock.time())
    except Exception as error:
        return error


def _no_answer(error: Exception, timeout: float) -> Finding:
    match error:
        case TimeoutError():
            found = f"connected, but no answer within {timeout:g} s"
            advice = "try a longer timeout; if that is no help, something on the way, or the server, hangs"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            found = "connected, but the connection was closed in place of an answer"
            advice = "check NXOTP_BASE_URL, its port and http or https; something on the way may interfere"
        case _:
            found = f"connected, but the answer is not HTTP ({type(error).__name__})"
            advice = "check NXOTP_BASE_URL, its port above all"
    return Finding(Check.HTTP, Status.FAILED, found, advice)


def _answer(answer: _Answer, made: _Connection) -> Finding:
    found = f"HTTP {answer.status} in {milliseconds(answer.at - made.at)}"
    if answer.status >= 500:
        advice = "not the OTP endpoint was asked, so this need not mean anything; where sending fails too, try later"
        return Finding(Check.HTTP, Status.WARNING, f"{found}: the server is there, but unwell", advice)
    if 300 <= answer.status < 400:
        return Finding(Check.HTTP, Status.OK, f"{found}: the server is there; its redirect was not followed")
    return Finding(Check.HTTP, Status.OK, f"{found}: the server is there")


# ---------------------------------------------------------------------------------------------- the clock


_TOLERATED: Final = 5.0  # seconds; clocks that are kept by NTP agree within far less


def _compare_clocks(answer: _Answer, made: _Connection) -> Finding:
    offset = ClockOffset.measure(answer.headers, sent=made.at, elapsed=answer.at - made.at)
    if offset is None or "Age" in answer.headers:  # a cache repeats the time at which it got the answer
        return Finding(
            Check.CLOCK,
            Status.WARNING,
            "the answer does not tell the server's time, so the clocks cannot be compared",
            "see that this machine's clock is right: "
            f"the vendor refuses more than {TIMESTAMP_WINDOW:g} s of difference",
        )
    found = (
        f"this machine's clock is {abs(offset.seconds):.1f} s {'behind' if offset.seconds > 0 else 'ahead of'} the "
        f"server's, give or take {offset.uncertainty:.1f} s"
    )
    if abs(offset.seconds) + offset.uncertainty > TIMESTAMP_WINDOW:
        return Finding(
            Check.CLOCK,
            Status.FAILED,
            found,
            "set it: timedatectl set-ntp true. "
            f"The vendor refuses more than {TIMESTAMP_WINDOW:g} s (code 1004); the client corrects itself after the "
            "first refusal, but certificates, and when codes expire, go by the clock too",
        )
    if abs(offset.seconds) - offset.uncertainty > _TOLERATED:
        return Finding(Check.CLOCK, Status.WARNING, found, "set it, before it is too far off: timedatectl set-ntp true")
    return Finding(Check.CLOCK, Status.OK, found)
